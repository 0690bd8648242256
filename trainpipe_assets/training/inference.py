"""A model that only answers: dropout off, no gradients, and afterwards as it was before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Have `model` answer without dropout and gradients within the block."""
    was_training = model.training
    model.train(False)
    try:
        # a layer that is put together in inference mode could not be trained afterwards
        with torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode():
            yield
    finally:
        model.train(was_training)
