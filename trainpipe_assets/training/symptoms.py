"""Signs that a training goes wrong although it goes on, in words that a person can act on. Pure: None where there is no sign."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from trainpipe_assets.training.distribution import local
from trainpipe_assets.training.state import StepRecord

WINDOW = 20
"""Recorded steps that a loss is compared with; before there are so many, nothing is called a spike."""
SPIKE = 2.0
"""A spike is so many times the largest loss of the window, and above the mean of the first one, with which the training began."""
TINY = 1e-30  # stands for the size of weights that are all 0
MOVED = 1e-4
"""Relative change of the weights below which they have not moved; usual fine-tuning changes them by some percent."""
SAME = 1e-3
"""Predictions of a regression that all lie within this, in standard deviations of the training split, are the same."""
SAMPLED = 1000
"""Numbers of each weight matrix that are looked at for it."""


def spike(history: Sequence[StepRecord], latest: StepRecord) -> str | None:
    """Whether the loss of `latest` jumped out of that of the steps before it, which `history` holds."""
    if len(history) < WINDOW:
        return None
    highest = max(record.loss for record in history[-WINDOW:])
    began = float(np.mean([record.loss for record in history[:WINDOW]]))
    if latest.loss <= max(SPIKE * highest, began):
        return None
    found = f"step {latest.step}: the loss jumped to {latest.loss:.3g}, from {highest:.3g} at most in the {WINDOW} recorded steps before"
    return f"{found}; lower training.learning_rate or training.max_grad_norm, raise training.warmup_fraction, or look for odd examples"


def one_class(labels: NDArray[np.int64], predicted: NDArray[np.int64], names: Sequence[str], epoch: int) -> str | None:
    """Whether all predictions of a validation are the same, although the labels are not."""
    only = int(predicted[0])
    if (predicted != only).any() or (labels == labels[0]).all():
        return None
    others = int((labels != only).sum())
    found = f"epoch {epoch}: the model predicts {names[only]!r} for all {len(labels):,} validation examples, of which {others:,} are others"
    return f"{found}; try another training.learning_rate or more training.epochs, and look at how the labels are balanced"


def one_number(predicted: NDArray[np.float32], epoch: int) -> str | None:
    """Whether a regression predicts the same number for all examples of a validation, which then differ; as `one_class`."""
    if float(np.ptp(predicted)) > SAME:
        return None
    found = f"epoch {epoch}: the model predicts the same number for all {len(predicted):,} validation examples"
    return f"{found}; try another training.learning_rate or more training.epochs"


def no_label(labels: NDArray[np.bool_], predicted: NDArray[np.bool_], epoch: int) -> str | None:
    """Whether a multi-label classifier predicts no label at all in a validation, although there are some; as `one_class`."""
    if predicted.any() or not labels.any():
        return None
    found = f"epoch {epoch}: the model predicts no label for any of {len(labels):,} validation examples, which have {int(labels.sum()):,}"
    return f"{found}; try more training.epochs or a larger training.learning_rate, and look at how rare the labels are"


def weights_sample(model: torch.nn.Module) -> torch.Tensor:
    """Some numbers of each weight matrix that is trained, on the CPU; of a model that is shared out, of this process's share."""
    matrices = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim >= 2]
    return torch.cat([local(matrix.detach()).flatten()[:SAMPLED] for matrix in matrices]).cpu().clone()


def unmoved(began: torch.Tensor, now: torch.Tensor, steps: int, learning_rate: float) -> str | None:
    """Whether `steps` left the sampled weights as they were when the training `began`."""
    change = float(torch.linalg.vector_norm(now - began) / torch.linalg.vector_norm(began).clamp(min=TINY))
    if change >= MOVED:
        return None
    return f"step {steps}: the weights have changed by {change:.1e} of their size only; raise training.learning_rate ({learning_rate:.1e})"
