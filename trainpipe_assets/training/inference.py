"""A model that only answers: dropout off, no gradients, and afterwards as it was before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Have `model` answer without dropout and gradients within the block."""
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)
