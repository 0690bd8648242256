"""The tensors of one forward pass, and of one process's share of a step."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.tasks.packing import Packed


@dataclass(frozen=True)
class MicroBatch:
    """Inputs of one forward pass over `count` sequences, and the labels: one a sequence, or one a token that is to be learnt."""

    count: int
    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    """None where nothing is padded, which spares the model the masking."""
    labels: torch.Tensor
    learnt: torch.Tensor | None = None
    """Where, in all tokens in a row, those stand whose next one is to be learnt."""
    owners: torch.Tensor | None = None
    """Which of the sequences each of those belongs to."""
    packed: Packed | None = None
    """Where the sequences lie, if they share one row."""

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on `device`; from pinned memory the copy overlaps with what the device computes."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> "MicroBatch":
        """The same in pinned memory."""
        return self._with(torch.Tensor.pin_memory)

    def _with(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "MicroBatch":
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        changed: dict[str, Any] = {name: change(value) for name, value in tensors.items()}
        return replace(self, **changed, packed=self.packed and self.packed.changed(change))


@dataclass(frozen=True)
class PreparedBatch:
    """One process's share of an effective batch, cut into micro-batches of at most `budget` tokens (None: uncut)."""

    effective: Indices
    share: Indices
    budget: int | None
    weight: int
    """What the loss of the effective batch is averaged over: its examples, or its tokens that are learnt."""
    micro_batches: tuple[MicroBatch, ...]
    idle: tuple[MicroBatch, ...] = ()
    """Passes that count for nothing: they keep this process in step with others that have more micro-batches."""
