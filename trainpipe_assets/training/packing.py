"""Several documents in one row, none of which sees another: no padding, whatever their lengths.

Which of them share a row, and the attention within each. Models whose answers this would change are found by a trial and are not packed.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from trainpipe_assets.training.batching import Indices, Lengths
from trainpipe_assets.training.inference import inference

ATTENTION = "within_documents"
_TRIAL_TOLERANCE = 1e-4  # of logits of the order of 1 in float32


@dataclass(frozen=True)
class Packed:
    """Where the documents of a row lie: `bounds` are their starts and the end of the last, `starts` the same as a tensor."""

    bounds: tuple[int, ...]
    starts: torch.Tensor
    positions: torch.Tensor
    """The position of each token in its document, shape [1, tokens]."""

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Packed":
        """The same with its tensors moved."""
        return replace(self, starts=change(self.starts), positions=change(self.positions))


def pack(lengths: Lengths) -> Packed:
    """Documents of `lengths` one after the other."""
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    return Packed(tuple(bounds.tolist()), torch.from_numpy(bounds.astype(np.int32)), torch.from_numpy(positions)[None])


def plan_packs(lengths: Lengths, budget: int, seed: int, epoch: int) -> list[Indices]:
    """Packs of one epoch: every document exactly once, at most `budget` tokens a pack, or one longer document.

    Filled by best fit, the longest first. What fits where depends on lengths alone, so that every epoch has as many packs; which of
    the documents of a length are where, and the order of the packs, is drawn anew from `seed` and `epoch`.
    """
    random = np.random.default_rng([seed, epoch])
    order = np.lexsort((random.random(len(lengths)), -lengths))
    packs = [order[members] for members in _best_fit(lengths[order], budget)]
    return [packs[position] for position in random.permutation(len(packs))]


def cut_packs(order: Indices, lengths: Lengths, budget: int) -> list[Indices]:
    """`order` cut into consecutive runs of at most `budget` tokens, or of one longer document."""
    runs: list[Indices] = []
    start, held = 0, 0
    for position, length in enumerate(lengths[order].tolist()):
        if held and held + length > budget:
            runs.append(order[start:position])
            start, held = position, 0
        held += length
    return [*runs, order[start:]] if len(order) else []


def use_packed_attention(model: PreTrainedModel) -> bool:
    """Have `model` attend within documents; whether it then answers as for each document alone. Where not, it is left as it was."""
    alone = torch.arange(24, device=model.device).remainder(model.config.vocab_size).view(2, 12)
    packed = pack(np.array([12, 12])).changed(lambda tensor: tensor.to(model.device))
    with inference(model):
        expected = model(input_ids=alone).logits.flatten(0, 1)
        model.set_attn_implementation(ATTENTION)
        try:
            found = packed_logits(model, alone.view(1, 24), packed, torch.arange(24, device=model.device))
        except TypeError:  # a model that does not hand down what it does not know
            found = torch.zeros(())
    same = found.shape == expected.shape and torch.allclose(found, expected, rtol=_TRIAL_TOLERANCE, atol=_TRIAL_TOLERANCE)
    if not same:
        model.set_attn_implementation("sdpa")
    return bool(same)


def packed_logits(model: Any, input_ids: torch.Tensor, packed: Packed, places: torch.Tensor) -> torch.Tensor:
    """Logits at `places` of a packed row, shape [places, vocabulary]: nothing else passes through the output layer."""
    outputs = model(input_ids=input_ids, position_ids=packed.positions, use_cache=False, logits_to_keep=places, packed=packed)
    logits: torch.Tensor = outputs.logits[0]
    return logits


def _attend_within_documents(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of each document by itself; query, key and value have the shape [1, heads, tokens, dimensions]."""
    assert packed is not None, "packed attention takes packed rows only"
    assert attention_mask is None, "a packed row has no padding"
    grouped = query.shape[1] != key.shape[1]
    parts = []
    for start, end in zip(packed.bounds, packed.bounds[1:], strict=False):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        seen = _band(end - start, sliding_window, query.device)
        parts.append(
            scaled_dot_product_attention(
                q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=seen is None, scale=scaling, enable_gqa=grouped
            )
        )
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def _band(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """What each token of a document sees, where that is not all before it."""
    if window is None or length <= window:
        return None
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < window)


def _best_fit(lengths: Lengths, budget: int) -> list[list[int]]:
    """Positions by pack; `lengths` must be descending. Each goes where the least room is left that suffices (Johnson, 1974)."""
    packs: list[list[int]] = []
    open_packs: dict[int, list[int]] = {}  # by the room that is left
    rooms: list[int] = []  # the keys, ascending
    for position, length in enumerate(lengths.tolist()):
        fitting = bisect_left(rooms, length)
        if fitting < len(rooms):
            room = rooms[fitting]
            chosen = open_packs[room].pop()
            if not open_packs[room]:
                del open_packs[room], rooms[fitting]
        else:
            room, chosen = max(budget, length), len(packs)
            packs.append([])
        packs[chosen].append(position)
        if left := room - length:
            if left not in open_packs:
                insort(rooms, left)
            open_packs.setdefault(left, []).append(chosen)
    return packs


AttentionInterface.register(ATTENTION, _attend_within_documents)
