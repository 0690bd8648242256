"""Which of two texts are alike: first what their sketches rule out, then their exact similarity.

What a sketch is, and what is compared of a text, is `minhash.py`'s; which pairs come into question, `buckets.py`'s. Of all texts in
question some are looked at together, so that each is taken apart once and not for every pair that it is in. scipy is imported where it
computes, so that importing this module stays quick.
"""

from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.data.batches import runs
from trainpipe_assets.data.buckets import Places
from trainpipe_assets.data.list_columns import offsets
from trainpipe_assets.data.minhash import BATCH, BATCH_LETTERS, Shingles, may_be_alike, reaches, shingle_sets, sketches

SKETCHED_WORDS = 500_000  # of the sketches that are compared at a time
TOGETHER_LETTERS = 16_000_000  # of the texts that are looked at together: some 10 bytes of memory each
COMPARED_LETTERS = 4_000_000  # of the pairs that are compared exactly at a time: some 40 bytes each
FINE_SKETCH = 16  # words: of the pairs that the coarser ones leave, these leave a tenth, which is quicker than comparing them all
BITS_OF_A_SHINGLE = 8  # of a sketch, at least: one with few bits for its shingles has them all set, and tells nothing

Pairs = tuple[Places, Places]
Compare = Callable[[Places, Places], NDArray[np.bool_]]


def alike(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` (`buckets.PAIRS`) whose Jaccard index is at least `similarity`.

    `texts` has `number` and `clean_text`; a text that is not there is like none.
    """
    return _found(pairs, texts, similarity, enough=False)


def linked(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """As many of those that `alike` finds as make the same texts hang together, which may be far fewer than all."""
    return _found(pairs, texts, similarity, enough=True)


def numbers_in(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each `number` that is in `pairs`."""
    return pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number")


def sketches_leave(sketched: NDArray[np.uint64], left: Places, right: Places, similarity: float) -> Iterator[Pairs]:
    """The places `left` and `right` of pairs in `sketched`, [n, 1 + words], without those that are not alike, some at a time."""
    at_a_time = max(1, SKETCHED_WORDS // sketched.shape[1])
    for start in range(0, len(left), at_a_time):
        one, other = (places[start : start + at_a_time] for places in (left, right))
        possible = may_be_alike(sketched[one], sketched[other], similarity)
        yield one[possible], other[possible]


def _found(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float, *, enough: bool) -> pl.DataFrame:
    """Pairs that are alike: all of them, or `enough` to make the same texts hang together."""
    texts = texts.join(numbers_in(pairs), on="number", how="semi").sort("number")
    pairs = pairs.filter(pl.all_horizontal(pl.all().is_in(texts["number"].implode())))
    numbers, letters = texts["number"].to_numpy(), texts["clean_text"].str.len_chars().to_numpy().astype(np.int64)
    left, right = (np.searchsorted(numbers, pairs[side].to_numpy()) for side in ("left", "right"))
    found = [pairs.clear()]
    component = np.arange(len(numbers))
    for part in _together(left, right, letters):
        if enough:
            part = part[component[left[part]] != component[right[part]]]
        if not len(part):
            continue
        places, within = np.unique(np.concatenate([left[part], right[part]]), return_inverse=True)
        together = _Texts(texts["clean_text"].gather(places), similarity)
        possible = together.not_ruled_out(*np.split(within, 2))
        one, other = (_enough_alike if enough else _all_alike)(together.are_alike, possible)
        if enough:
            component = _joined(component, places[one], places[other])
        found.append(pl.DataFrame({"left": numbers[places[one]], "right": numbers[places[other]]}, schema=pairs.schema))
    return pl.concat(found)


def _together(left: Places, right: Places, letters: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Which pairs are looked at together: those between two portions of the texts, whose order has partners side by side."""
    if not len(left):
        return
    portion = np.empty(len(letters), np.int64)
    in_order = _partners_close(left, right, len(letters))
    portion[in_order] = np.cumsum(letters[in_order]) // (TOGETHER_LETTERS // 2)
    of_both = portion[left], portion[right]
    between = np.minimum(*of_both) * (1 + portion.max()) + np.maximum(*of_both)
    pairs = np.argsort(between, kind="stable")
    yield from np.split(pairs, np.flatnonzero(np.diff(between[pairs])) + 1)


def _partners_close(left: Places, right: Places, size: int) -> NDArray[np.int32]:
    """All places, in the order of Cuthill and McKee (1969)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    both_ways = np.concatenate([left, right]), np.concatenate([right, left])
    graph = coo_matrix((np.ones(2 * len(left), bool), both_ways), shape=(size, size))
    return np.asarray(reverse_cuthill_mckee(graph.tocsr(), symmetric_mode=True))


class _Texts:
    """Texts that are compared with each other, by their places."""

    def __init__(self, texts: pl.Series, similarity: float) -> None:
        self.similarity = similarity
        self.shingles = shingle_sets(texts)
        self.sizes = self.shingles.list.len().to_numpy().astype(np.int64)

    def not_ruled_out(self, left: Places, right: Places) -> Pairs:
        """The pairs that may be alike by sketches as long as the longer text of each needs them."""
        words = np.maximum(FINE_SKETCH, 2 ** np.ceil(np.log2(self.sizes * BITS_OF_A_SHINGLE / 64))).astype(np.int64)
        needed = np.maximum(words[left], words[right])
        left_over = [(left[:0], right[:0])]
        for width in np.unique(needed):
            one, other = left[needed == width], right[needed == width]
            places, within = np.unique(np.concatenate([one, other]), return_inverse=True)
            sketched = np.concatenate([self._sketches(places[part], int(width)) for part in runs(self.sizes[places], BATCH_LETTERS, BATCH)])
            first, second = np.split(within, 2)
            left_over += [(places[one], places[other]) for one, other in sketches_leave(sketched, first, second, self.similarity)]
        firsts, seconds = zip(*left_over, strict=True)
        return np.concatenate(firsts), np.concatenate(seconds)

    def _sketches(self, places: Places, width: int) -> NDArray[np.uint64]:
        return sketches(Shingles(self.shingles.gather(places).explode().to_numpy(), offsets(self.sizes[places])), width)

    def are_alike(self, left: Places, right: Places) -> NDArray[np.bool_]:
        """Whether the Jaccard index of each pair is at least `similarity`."""
        found = [np.empty(0, bool)]
        for part in runs(self.sizes[left] + self.sizes[right], COMPARED_LETTERS):
            one, other = (self.shingles.gather(side[part]) for side in (left, right))
            common = one.list.set_intersection(other).list.len().to_numpy().astype(np.int64)
            found.append(reaches(common, self.sizes[left[part]] + self.sizes[right[part]] - common, self.similarity))
        return np.concatenate(found)


def _all_alike(are_alike: Compare, pairs: Pairs) -> Pairs:
    left, right = pairs
    alike = are_alike(left, right)
    return left[alike], right[alike]


def _enough_alike(are_alike: Compare, pairs: Pairs) -> Pairs:
    """First pairs without a circle between them; where most of these are alike, few of the others still matter."""
    left, right = pairs
    size = 1 + max(left.max(initial=0), right.max(initial=0))
    first = _without_circles(left, right, size)
    one, other = _all_alike(are_alike, (left[first], right[first]))
    component = components(one, other, size)
    rest = ~first & (component[left] != component[right])
    more, others = _all_alike(are_alike, (left[rest], right[rest]))
    return np.concatenate([one, more]), np.concatenate([other, others])


def _joined(component: Places, left: Places, right: Places) -> Places:
    """The components once the places `left` and `right` are linked."""
    joined, within = np.unique(np.concatenate([component[left], component[right]]), return_inverse=True)
    one, other = np.split(within, 2)
    _, first, of_each = np.unique(components(one, other, len(joined)), return_index=True, return_inverse=True)
    now = np.arange(len(component))
    now[joined] = joined[first[of_each]]
    return now[component]


def _without_circles(left: Places, right: Places, size: int) -> NDArray[np.bool_]:
    """Pairs that connect whatever all of them connect, and none that could be left out."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    tree = minimum_spanning_tree(coo_array((np.arange(1, 1 + len(left)), (left, right)), shape=(size, size)).tocsr())
    chosen = np.zeros(len(left), bool)
    chosen[tree.data.astype(np.int64) - 1] = True
    return chosen


def components(left: Places, right: Places, size: int) -> NDArray[np.int32]:
    """The number of the connected component of each of `size` places, where the places `left` and `right` are linked."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, component = connected_components(coo_array((np.ones(len(left), bool), (left, right)), shape=(size, size)), directed=False)
    return np.asarray(component)
