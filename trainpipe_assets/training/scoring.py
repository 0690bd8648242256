"""Probabilities of a model for examples, and the metrics of a validation: the forward pass without training.

The metrics themselves are `evaluation.metrics`', the same for validation, test and monitoring.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.evaluation.metrics import accuracy, log_loss, macro_f1
from trainpipe_assets.training.batching import Indices, plan_scoring
from trainpipe_assets.training.examples import Examples
from trainpipe_assets.training.inference import inference
from trainpipe_assets.training.micro_batches import MicroBatch, make_micro_batch
from trainpipe_assets.training.model import label_names, log_probabilities
from trainpipe_assets.training.state import Validation


def predict(model: PreTrainedModel, examples: Examples, batch_tokens: int) -> NDArray[np.float64]:
    """Probability of each label for each example, shape [examples, labels], rows sum to 1.

    Dropout is off while it runs and as it was afterwards. Examples go through the model longest first, so that memory that does not
    suffice is known at once.
    """
    return as_probabilities(score(model, examples, plan_scoring(examples.lengths, batch_tokens)))


def score(
    model: PreTrainedModel,
    examples: Examples,
    batches: Sequence[Indices],
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    after_batch: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Log-probabilities of the examples in `batches`, 0 for all others, shape [examples, labels], float32, on the model's device.

    Disjoint shares of the batches, scored by several processes, therefore add up to the whole.
    """
    scores = torch.zeros(len(examples), len(label_names(model)), device=model.device)
    with inference(model):
        for batch in batches:
            inputs = make_micro_batch(examples, batch, model.config.pad_token_id).to(model.device)
            scores[torch.from_numpy(batch).to(model.device)] = _log_probabilities(model, inputs, autocast)
            after_batch()
    return scores


def as_probabilities(scores: torch.Tensor) -> NDArray[np.float64]:
    """Probabilities in float64 whose rows sum to 1 to the last digits, from log-probabilities in float32."""
    probabilities = np.exp(scores.cpu().numpy().astype(np.float64))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def summarize(labels: NDArray[np.int64], probabilities: NDArray[np.float64], step: int, epoch: int) -> Validation:
    """The metrics of one validation, each a mean over examples."""
    predicted = probabilities.argmax(axis=1)
    return Validation(
        step=step,
        epoch=epoch,
        loss=log_loss(labels, probabilities),
        accuracy=accuracy(labels, predicted),
        macro_f1=macro_f1(labels, predicted, probabilities.shape[1]),
        examples=len(labels),
    )


def _log_probabilities(model: PreTrainedModel, inputs: MicroBatch, autocast: Callable[[], AbstractContextManager[object]]) -> torch.Tensor:
    with autocast():
        return log_probabilities(model, inputs.input_ids, inputs.attention_mask)
