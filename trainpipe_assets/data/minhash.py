"""What is compared of texts instead of the texts: MinHash bands that similar ones share, and sketches that tell dissimilar ones apart.

The similarity of two texts is the Jaccard index of their sets of five-character shingles (Broder, 1997), upper and lower case alike.
Which texts are compared, and what follows from it, is `near_duplicates.py`'s. Everything is numpy over thousands of texts at a time,
which lets several threads work at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.data.batches import runs
from trainpipe_assets.data.list_columns import list_column, offsets
from trainpipe_assets.data.mixing import mix

ALGORITHM = 3  # raise it when the same text would get other bands: the tables are then rebuilt
SHINGLE = 5  # characters
RECALL = 0.99  # of pairs exactly as similar as the threshold; more similar ones are found more often
LARGEST_SIGNATURE = 128  # hashes of a text at most
SKETCH_WORDS = 4  # of 64 bits
BATCH = 1_000  # texts hashed at a time: what is computed about their shingles stays within the processor's cache
BATCH_LETTERS = 1_000_000  # of these texts, where they are long
ROUNDING = 1e-9  # of a product of a similarity and a number of shingles

Counts = TypeVar("Counts", NDArray[Any], pl.Expr)

BANDS = pl.List(pl.Int64)
SKETCH = pl.Array(pl.UInt64, 1 + SKETCH_WORDS)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_EMPTY = np.uint32(0xFFFFFFFF)
_MULTIPLIER = np.uint64(0xD1342543DE82EF95)  # any odd number with its bits well mixed: that of a polynomial in the letters


@dataclass(frozen=True)
class Shingles:
    """Hashes of the shingles of all texts in a row, repeats included, and where each text's begin."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]  # one more than there are texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Shingles of each text."""
        return np.diff(self.starts)

    def places(self, width: int, within: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where each shingle belongs in a table of `width` cells a text, if it is to be in cell `within`."""
        return np.repeat(np.arange(len(self.starts) - 1, dtype=np.int64) * width, self.lengths) + within.astype(np.int64)


def bands_and_rows(similarity: float) -> tuple[int, int]:
    """Bands b and rows r of the signature for a threshold s: the longest bands with 1 - (1 - s^r)^b >= `RECALL`.

    The formula is that of banding (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2). Longer bands bring fewer pairs
    that have to be compared for nothing.
    """
    best = (LARGEST_SIGNATURE, 1)
    for rows in range(1, LARGEST_SIGNATURE + 1):
        missed = 1.0 - similarity**rows
        bands = math.ceil(math.log(1.0 - RECALL) / math.log(missed)) if missed > 0.0 else 1
        if bands * rows > LARGEST_SIGNATURE:
            break
        best = (bands, rows)
    return best


def bands_and_sketches(texts: pl.Series, similarity: float) -> pl.DataFrame:
    """`near_bands` and `near_sketch` of each text. Texts that share a band are candidates, sketches are for `may_be_alike`."""
    bands, rows = bands_and_rows(similarity)
    found = [(_bands(shingles, bands, rows), sketches(shingles, SKETCH_WORDS)) for shingles in _batches(texts)]
    hashes = np.concatenate([np.empty((0, bands), np.int64), *(one for one, _ in found)])
    sketched = np.concatenate([np.empty((0, 1 + SKETCH_WORDS), np.uint64), *(one for _, one in found)])
    return pl.DataFrame(
        {
            "near_bands": pl.Series(hashes, dtype=pl.Array(pl.Int64, bands)).cast(BANDS),
            "near_sketch": pl.Series(sketched, dtype=SKETCH),
        }
    )


def shingle_sets(texts: pl.Series) -> pl.Series:
    """Hashes of the different shingles of each text, as lists."""
    dtype = pl.List(pl.UInt64)
    sets = [list_column("shingles", shingles.hashes, shingles.starts, dtype).list.unique() for shingles in _batches(texts)]
    return pl.concat([pl.Series("shingles", [], dtype), *sets])


def may_be_alike(one: NDArray[np.uint64], other: NDArray[np.uint64], similarity: float) -> NDArray[np.bool_]:
    """False where the sketches of two texts prove that their Jaccard index is below `similarity`; a row each, [n, 1 + words].

    A bit is set where a shingle falls on it. So at least as many shingles are missing from the other text as bits are, and what
    two texts have in common is at most what the smaller one has left.
    """
    bits, other_bits = one[:, 1:], other[:, 1:]
    missing = np.bitwise_count(bits & ~other_bits).sum(axis=1, dtype=np.int64)
    other_missing = np.bitwise_count(other_bits & ~bits).sum(axis=1, dtype=np.int64)
    common = np.minimum(one[:, 0].astype(np.int64) - missing, other[:, 0].astype(np.int64) - other_missing)
    return reaches(common, common + missing + other_missing, similarity)


def reaches(common: Counts, total: Counts, similarity: float) -> Counts:
    """Whether the Jaccard index of sets with so many shingles in `common`, of so many in `total`, is at least `similarity`."""
    return common >= similarity * total - ROUNDING


def shingles_of(texts: pl.Series) -> Shingles:
    """The shingles of each text; a text shorter than one is one, filled up with zeros."""
    folded = texts.str.to_lowercase().str.pad_end(SHINGLE, "\0")
    lengths = folded.str.len_chars().to_numpy().astype(np.int64)
    letters = np.frombuffer("".join(folded.to_list()).encode("utf-32-le"), np.uint32).astype(np.uint64)
    n_hashes = max(len(letters) - SHINGLE + 1, 0)
    hashes = letters[:n_hashes] * _MULTIPLIER
    for place in range(1, SHINGLE):
        hashes += letters[place : n_hashes + place]
        hashes *= _MULTIPLIER
    # Shingles begin at every letter but the last four of each text.
    within = np.ones(len(letters), bool)
    ends = np.cumsum(lengths)
    for back in range(1, SHINGLE):
        within[ends - back] = False
    return Shingles(mix(hashes[within[:n_hashes]]), offsets(lengths - SHINGLE + 1))


def _odd(count: int) -> NDArray[np.uint64]:
    return mix(np.arange(1, 1 + count, dtype=np.uint64) * _GOLDEN) | np.uint64(1)


def _batches(texts: pl.Series) -> Iterator[Shingles]:
    letters = texts.str.len_chars().to_numpy().astype(np.int64)
    return (shingles_of(texts[batch]) for batch in runs(letters, BATCH_LETTERS, BATCH))


def _bands(shingles: Shingles, bands: int, rows: int) -> NDArray[np.int64]:
    """One hash for each band of each text."""
    signatures = _signatures(shingles, bands * rows).reshape(-1, bands, rows).astype(np.uint64)
    hashes = signatures @ _odd(rows) + np.arange(bands, dtype=np.uint64) * _GOLDEN
    return mix(hashes).view(np.int64)


def _signatures(shingles: Shingles, size: int) -> NDArray[np.uint32]:
    """`size` hashes of each text; those of two texts are equal, each with the probability of their Jaccard index.

    One permutation hashing (Li, Owen, Zhang 2012): a shingle falls into one of `size` bins, and the smallest of each counts. An empty
    bin takes over another, by an order of its own (Shrivastava: Optimal Densification, 2017). So each shingle is hashed once,
    instead of `size` times.
    """
    places = shingles.places(size, (shingles.hashes & _LOW) * np.uint64(size) >> _HALF)
    bins = np.full((len(shingles.starts) - 1) * size, _EMPTY, np.uint32)
    np.minimum.at(bins, places, (shingles.hashes >> _HALF).astype(np.uint32))
    filled, empty = bins.copy(), np.flatnonzero(bins == _EMPTY).astype(np.int32)
    first = empty // np.int32(size) * np.int32(size)
    bin_ = empty - first
    for others in _orders(size):
        filled[empty] = bins.take(first + others.take(bin_))
        still = np.flatnonzero(filled.take(empty) == _EMPTY)
        if not len(still):
            break
        empty, first, bin_ = empty.take(still), first.take(still), bin_.take(still)
    return filled


@lru_cache
def _orders(size: int) -> NDArray[np.int32]:
    """In which order an empty bin (column) looks at all bins: one row an attempt."""
    scattered = mix(np.arange(1, 1 + size * size, dtype=np.uint64) * _GOLDEN).reshape(size, size)
    return scattered.argsort(axis=0).astype(np.int32)


def sketches(shingles: Shingles, words: int) -> NDArray[np.uint64]:
    """How many shingles each text has, repeats included, and the bits on which they fall: [n, 1 + words].

    With `SKETCH_WORDS` it is the `near_sketch` of a text. Without repeats, and with more words, it tells more texts apart.
    """
    width = 64 * words
    marks = np.zeros((len(shingles.starts) - 1) * width, bool)
    marks[shingles.places(width, shingles.hashes % np.uint64(width))] = True
    bits = np.packbits(marks).view(np.uint64).reshape(-1, words)
    return np.concatenate([shingles.lengths.astype(np.uint64)[:, None], bits], axis=1)
