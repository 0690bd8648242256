"""Several documents in one row, none of which sees another: no padding, whatever their lengths.

Which of them share a row, and the attention within each. Models whose answers this would change are found by a trial and are not packed.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from trainpipe_assets.training.batching import Indices, Lengths
from trainpipe_assets.training.inference import inference

ATTENTION = "within_documents"
_TRIAL_TOLERANCE = 1e-4  # of logits of the order of 1 in float32
_PADDING = 16  # tokens by which attention pads a document at most; beyond them a call of its own costs less


class NotPacked(TypeError):
    """A model did not hand a packed row down to its attention, or made a mask of its own."""


@dataclass(frozen=True)
class Packed:
    """Where the documents of a row lie. Attention takes them in groups, each padded to its longest document."""

    groups: tuple[tuple[int, int], ...]
    """Documents and padded length of each group, in the order of the row."""
    positions: torch.Tensor
    """The position of each token in its document, shape [1, tokens]."""
    spread: torch.Tensor
    """For each place in the padded groups the token there, or one past the last token, shape [places]."""
    places: torch.Tensor
    """The place of each token in the padded groups, shape [tokens]."""
    windows: set[int] = field(default_factory=set)
    """The sliding windows that the model told the attention of its layers."""

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Packed":
        """The same with its tensors moved."""
        return replace(self, positions=change(self.positions), spread=change(self.spread), places=change(self.places))


def pack(lengths: Lengths) -> Packed:
    """Documents of `lengths` one after the other; the closer the lengths of neighbours, the less their groups are padded."""
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    groups = _groups(lengths.tolist())
    widths = np.repeat([width for _, width in groups], [count for count, _ in groups])
    places = positions + np.repeat(np.cumsum(widths) - widths, lengths)
    spread = np.full(widths.sum(), len(positions))
    spread[places] = np.arange(len(positions))
    row = (torch.from_numpy(array) for array in (positions[None], spread, places))
    return Packed(tuple(groups), *row)  # type: ignore[arg-type]  # three of them


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
    alone = torch.arange(24, device=model.device).remainder(len(model.get_input_embeddings().weight)).view(2, 12)  # type: ignore[arg-type]
    packed = pack(np.array([12, 12])).changed(lambda tensor: tensor.to(model.device))
    former = model.config._attn_implementation
    with inference(model):
        expected = model(input_ids=alone).logits.flatten(0, 1)
        model.set_attn_implementation(ATTENTION)
        try:
            found = packed_logits(model, alone.view(1, 24), packed, torch.arange(24, device=model.device))
        except TypeError:  # a model that does not hand down what it does not know
            found = torch.zeros(())
    taken = model.config._attn_implementation == ATTENTION  # some kinds keep one of their own
    same = taken and found.shape == expected.shape and torch.allclose(found, expected, rtol=_TRIAL_TOLERANCE, atol=_TRIAL_TOLERANCE)
    same = same and not _depends_on_length(model, packed)
    if not same:
        model.set_attn_implementation(former)
    return bool(same)


def _depends_on_length(model: PreTrainedModel, packed: Packed) -> bool:
    """Whether long documents get another attention than the short ones of a trial, of which packed attention was not told."""
    config = model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    layers = set(getattr(config, "layer_types", None) or ["unknown"])
    return any(windows) and not packed.windows and layers != {"full_attention"}


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
    if packed is None or attention_mask is not None:
        raise NotPacked("packed attention takes packed rows, without a mask")
    if sliding_window is not None:
        packed.windows.add(sliding_window)
    grouped = query.shape[1] != key.shape[1]
    sizes = [count * width for count, width in packed.groups]
    spread = (torch.split(_move(tensor[0].transpose(0, 1), packed.spread, packed.places), sizes) for tensor in (query, key, value))
    parts = []
    for (count, width), *tokens in zip(packed.groups, *spread, strict=True):
        q, k, v = (part.unflatten(0, (count, width)).transpose(1, 2) for part in tokens)
        seen = _band(width, sliding_window, query.device)  # what pads a document comes after it, where no token of it looks
        attended = scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=dropout, is_causal=seen is None, scale=scaling, enable_gqa=grouped
        )
        parts.append(attended.transpose(1, 2).flatten(0, 1))
    return _move(torch.cat(parts), packed.places, packed.spread)[None], None


class _Move(torch.autograd.Function):
    """Rows moved to places of their own; no two gradients meet, so that they move back in the same way and nothing is added up."""

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(there, back)
        return _gather(rows, there)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        _there, back = context.saved_tensors
        return _gather(gradient, back), None, None


def _move(rows: torch.Tensor, there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """`rows[there]`, with zeros where `there` is past the last row; `back` is where each row went."""
    if len(there) == len(back):  # no padding, so each is in its place
        return rows
    moved: torch.Tensor = _Move.apply(rows, there, back)  # type: ignore[no-untyped-call]  # torch lacks annotations
    return moved


def _gather(rows: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    if len(chosen) > len(rows):  # some are padding
        rows = torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])
    return rows.index_select(0, chosen)


def _groups(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive documents whose attention is computed at once: their number, and the length they are padded to."""
    groups: list[tuple[int, int]] = []
    count, shortest, longest = 0, 0, 0
    for length in lengths:
        if count and max(longest, length) - min(shortest, length) > _PADDING:
            groups.append((count, longest))
            count = 0
        shortest, longest = (min(shortest, length), max(longest, length)) if count else (length, length)
        count += 1
    return [*groups, (count, longest)]


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
