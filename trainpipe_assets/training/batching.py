"""Which examples share an optimizer step: batches cut by a token budget from length order, in random order.

Pure functions of lengths, budget, seed and epoch. They know neither processes nor devices, so the steps of a
training are the same on one process and on eight.
"""

import sys
from bisect import bisect_right
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Lengths = NDArray[np.integer]
SCORED_PADDING = 64
"""Of the budget of a batch that is only scored, one such part may be padding: more costs more than another forward pass."""
Work = TypeVar("Work", Indices, list[Indices])


def plan_batches(lengths: Lengths, budget: int, seed: int, epoch: int) -> list[Indices]:
    """The batches of one epoch: every example exactly once, each batch in ascending order of length.

    A batch holds as many examples as fit `budget` tokens, padding included (longest x count <= budget); an
    example longer than the budget is a batch of its own. Examples of equal length are shuffled among each other and
    the batches are shuffled, so an epoch differs from the next while its padding stays as small as sorting makes it
    and its number of steps stays the same, which the learning-rate schedule relies on.

    Args:
        lengths: tokens of each example, shape [n].
        budget: tokens of one batch, padding included.
        seed, epoch: equal ones give equal batches.
    """
    random = np.random.default_rng([seed, epoch])
    order = np.lexsort((random.random(len(lengths)), lengths))
    batches = cut_by_budget(order, lengths, budget)
    return [batches[position] for position in random.permutation(len(batches))]


def plan_scoring(lengths: Lengths, budget: int) -> list[Indices]:
    """Batches of hardly any padding, in a fixed order with the largest first: for a forward pass only, where they may be small."""
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    batches = cut_by_budget(order, lengths, budget, budget // SCORED_PADDING)
    return sorted(batches, key=lambda batch: padded_tokens(batch, lengths), reverse=True)


def cut_by_budget(order: Indices, lengths: Lengths, budget: int, padding: int = sys.maxsize) -> list[Indices]:
    """`order` cut into consecutive runs that each fit `budget` tokens, padding included, of which there are `padding` at most.

    `order` must be ascending in length: the cost of a run then grows with each example, and its end is found by
    bisection. Used for batches, and again for the micro-batches of a batch.
    """
    sorted_lengths = lengths[order]
    tokens = np.concatenate([[0], np.cumsum(sorted_lengths)])
    runs, start = [], 0
    while start < len(order):
        end = _end_of_run(sorted_lengths, tokens, start, budget, padding)
        runs.append(order[start:end])
        start = end
    return runs


def share_of(work: Work, rank: int, processes: int) -> Work:
    """What of `work` process `rank` computes, examples or batches: every `processes`-th, so that each gets like lengths."""
    return work[rank::processes]


def padded_tokens(batch: Indices, lengths: Lengths) -> int:
    """Tokens of `batch` as a rectangle, padding included."""
    return int(lengths[batch].max()) * len(batch) if len(batch) else 0


def _end_of_run(sorted_lengths: Lengths, tokens: Indices, start: int, budget: int, padding: int) -> int:
    """The end of the longest run from `start` that fits `budget` and `padding`, at least `start + 1`; `tokens` are those before each."""

    def excess(end: int) -> int:
        rectangle = int(sorted_lengths[end - 1]) * (end - start)
        return max(rectangle - budget, rectangle - int(tokens[end] - tokens[start]) - padding)

    fits_at_most = max(1, budget // max(1, int(sorted_lengths[start])))
    candidates = range(start + 1, min(start + fits_at_most, len(sorted_lengths)) + 1)
    return start + max(1, bisect_right(candidates, 0, key=excess))
