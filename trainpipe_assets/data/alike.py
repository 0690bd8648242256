"""Which of two texts are alike: first what their sketches rule out, then their exact similarity.

What a sketch is, and what is compared of a text, is `minhash.py`'s; which pairs come into question, `buckets.py`'s.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.data.batches import runs
from trainpipe_assets.data.list_columns import list_column
from trainpipe_assets.data.minhash import may_be_alike, reaches, shingles_of, sketches

SKETCHED_PAIRS = 100_000  # whose sketches are compared at a time
COMPARED_LETTERS = 4_000_000  # of the texts compared exactly at a time: some 40 bytes of memory each
FINE_SKETCH = 16  # words: of the pairs that the coarser ones leave, these leave a tenth, which is quicker than comparing them all


def alike(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` (`buckets.PAIRS`) whose Jaccard index is at least `similarity`.

    `texts` has `number` and `clean_text`; a text that is not there is like none.
    """
    texts = texts.join(numbers_in(pairs), on="number", how="semi").sort("number")
    there = pl.all_horizontal(pl.all().is_in(texts["number"].implode()))
    pairs = _not_ruled_out(pairs.filter(there), texts, similarity)
    return pl.concat([pairs.clear(), *(_compared(part, texts, similarity) for part in _parts(pairs, texts))])


def numbers_in(pairs: pl.DataFrame) -> pl.DataFrame:
    """Each `number` that is in `pairs`."""
    return pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number")


def sketches_leave(
    sketched: NDArray[np.uint64], left: NDArray[np.int64], right: NDArray[np.int64], similarity: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The places `left` and `right` of pairs in `sketched`, without those that are not alike, some at a time."""
    for start in range(0, len(left), SKETCHED_PAIRS):
        one, other = (places[start : start + SKETCHED_PAIRS] for places in (left, right))
        possible = may_be_alike(sketched[one], sketched[other], similarity)
        yield one[possible], other[possible]


def _not_ruled_out(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    numbers, sketched = texts["number"].to_numpy(), sketches(texts["clean_text"], FINE_SKETCH)
    left, right = (np.searchsorted(numbers, pairs[side].to_numpy()) for side in ("left", "right"))
    kept = [pairs.clear()]
    for one, other in sketches_leave(sketched, left, right, similarity):
        kept.append(pl.DataFrame({"left": numbers[one], "right": numbers[other]}, schema=pairs.schema))
    return pl.concat(kept)


def _parts(pairs: pl.DataFrame, texts: pl.DataFrame) -> Iterator[pl.DataFrame]:
    numbers, letters = texts["number"].to_numpy(), texts["clean_text"].str.len_chars().to_numpy().astype(np.int64)
    sizes = sum(letters[np.searchsorted(numbers, pairs[side].to_numpy())] for side in ("left", "right"))
    return (pairs[part] for part in runs(np.asarray(sizes), COMPARED_LETTERS))


def _compared(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    needed = texts.join(numbers_in(pairs), on="number", how="semi")
    hashed = shingles_of(needed["clean_text"])
    lists = list_column("shingles", hashed.hashes, hashed.starts, pl.List(pl.UInt64))
    shingles = needed.select("number", lists.list.unique())
    joined = pairs.join(shingles, left_on="left", right_on="number").join(shingles, left_on="right", right_on="number", suffix="_right")
    shared = pl.col("shingles").list.set_intersection("shingles_right").list.len()
    total = pl.col("shingles").list.len() + pl.col("shingles_right").list.len() - shared
    return joined.filter(reaches(shared, total, similarity)).select("left", "right")
