"""The tensors of one forward pass, and making those of the next step while the device computes this one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch

from trainpipe_assets.training.batching import Indices, cut_by_budget, padded_tokens
from trainpipe_assets.training.examples import Examples, padded

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class MicroBatch:
    """Inputs of one forward pass. `attention_mask` is None where nothing is padded, which spares the model the masking."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    labels: torch.Tensor

    def to(self, device: torch.device) -> "MicroBatch":
        """The same on `device`; from pinned memory the copy overlaps with what the device computes."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device, non_blocking=True)
        return MicroBatch(self.input_ids.to(device, non_blocking=True), mask, self.labels.to(device, non_blocking=True))


@dataclass(frozen=True)
class PreparedBatch:
    """One process's share of an effective batch, cut into micro-batches of at most `budget` tokens (None: uncut)."""

    effective: Indices
    share: Indices
    budget: int | None
    micro_batches: tuple[MicroBatch, ...]


def prepare_batch(examples: Examples, effective: Indices, share: Indices, budget: int | None, pad_id: int, *, pin: bool) -> PreparedBatch:
    """The tensors of `share`, in the host's memory."""
    budget_or_all = padded_tokens(share, examples.lengths) if budget is None else budget
    runs = cut_by_budget(share, examples.lengths, budget_or_all)
    return PreparedBatch(effective, share, budget, tuple(make_micro_batch(examples, run, pad_id, pin=pin) for run in runs))


def make_micro_batch(examples: Examples, indices: Indices, pad_id: int, *, pin: bool = False) -> MicroBatch:
    """The examples `indices` as tensors in the host's memory, `pin`ned for copies to a GPU where asked."""
    input_ids, mask = padded(examples, indices, pad_id)
    batch = MicroBatch(
        torch.from_numpy(input_ids), None if mask.all() else torch.from_numpy(mask), torch.from_numpy(examples.labels[indices])
    )
    return _pinned(batch) if pin else batch


def one_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """`make(item)` for each item in order, the next one made in a thread while the caller works on this one."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        pending: Future[Made] | None = None
        for item in items:
            following = pool.submit(make, item)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


def _pinned(batch: MicroBatch) -> MicroBatch:
    mask = None if batch.attention_mask is None else batch.attention_mask.pin_memory()
    return MicroBatch(batch.input_ids.pin_memory(), mask, batch.labels.pin_memory())
