"""AdamW and the learning rate of each step.

The learning rate is a function of the step, so a resumed training needs no scheduler state.
"""

import math
from collections.abc import Iterable, Sequence

import torch

from trainpipe_assets.settings import TrainingSettings

FUSED_ON = ("cpu", "cuda", "mps")


def build_optimizer(model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) over `model`, fused into one kernel where torch has it.

    Weight decay is for matrices; biases and the gains of norms, which are vectors, have none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in FUSED_ON for parameter in parameters)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)


def learning_rate(settings: TrainingSettings, step: int, total: int) -> float:
    """The learning rate of step `step` (from 0) of `total`: a linear rise to the peak, then the decay.

    The first step already learns and so does the last: the rise begins above 0 and the decay would reach 0 at `total`.
    """
    warmup = math.ceil(settings.warmup_fraction * total)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    remaining = (total - step) / (total - warmup)
    shape = {"linear": remaining, "cosine": 0.5 * (1.0 + math.cos(math.pi * (1.0 - remaining))), "constant": 1.0}
    return settings.learning_rate * shape[settings.schedule]


def clip_gradients(gradients: Sequence[torch.Tensor], norm: torch.Tensor, known: float, largest: float) -> None:
    """Scale gradients of the global norm `norm` down to `largest`; leave smaller ones untouched, which saves a pass over them.

    `known` is that norm as a number, which the device need not be asked for again.
    """
    if known > largest:
        torch._foreach_mul_(list(gradients), largest / (norm + 1e-6))  # as torch.nn.utils.clip_grad_norm_ has it


def gradient_norm(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """The global 2-norm of the gradients, a scalar tensor."""
    return torch.nn.utils.get_total_norm(gradients)
