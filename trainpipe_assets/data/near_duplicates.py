"""Texts that say nearly the same: candidates by MinHash and locality-sensitive hashing, then the exact similarity of each pair.

Which records count at all is `deduplication.py`'s; rensa computes the signatures. The similarity of two texts is the Jaccard index of
their sets of five-character shingles (Broder, 1997), upper and lower case alike.
"""

import math
from collections.abc import Iterable

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rensa import RMinHash

from trainpipe_assets.data.mixing import mix

SHINGLE = 5  # characters
RECALL = 0.99  # of pairs exactly as similar as the threshold; more similar ones are found more often
LARGEST_SIGNATURE = 128  # hashes of a text at most
SEED = 1
COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate
BATCH = 20_000  # texts hashed at a time: bounds the memory for their shingles
ALGORITHM = RMinHash.ALGORITHM_VERSION

Shingles = tuple[NDArray[np.uint64], NDArray[np.int64]]  # hashes of all texts in a row, and where each text's begin


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


def band_hashes(texts: pl.Series, similarity: float) -> pl.Series:
    """One hash for each band of each text's MinHash signature, as `List(Int64)`: texts that share one are candidates."""
    bands, rows = bands_and_rows(similarity)
    parts = [_band_hashes(texts.slice(start, BATCH).to_list(), bands, rows) for start in range(0, len(texts), BATCH)]
    hashes = np.concatenate(parts) if parts else np.empty((0, bands), np.int64)
    return pl.Series(texts.name, hashes, dtype=pl.Array(pl.Int64, bands)).cast(pl.List(pl.Int64))


def find_groups(nodes: pl.DataFrame, similarity: float) -> dict[str, str]:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    `nodes` has one row a text: `content_hash`, `clean_text`, `near_bands`. A group is named by its smallest content hash, so that it
    does not depend on the order in which texts arrived.
    """
    pairs = _candidates(nodes)
    involved = nodes.filter(pl.col("content_hash").is_in(pl.concat([pairs["left"], pairs["right"]]).implode()))
    hashes, starts = _shingles(involved["clean_text"].to_list())
    position = {name: number for number, name in enumerate(involved["content_hash"])}
    alike = [
        (left, right)
        for left, right in pairs.iter_rows()
        if _jaccard(*(hashes[starts[number] : starts[number + 1]] for number in (position[left], position[right]))) >= similarity
    ]
    return _components(alike)


def _band_hashes(texts: list[str], bands: int, rows: int) -> NDArray[np.int64]:
    hashes, starts = _shingles(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts.astype(np.uint64), bands * rows, SEED)
    signatures = np.asarray(matrix.to_rows(), np.uint64).reshape(len(texts), bands, rows)
    mixed = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(texts), bands)).copy()
    for row in range(rows):
        mixed = _mix(mixed ^ signatures[:, :, row])
    return mixed.view(np.int64)


def _shingles(texts: list[str]) -> Shingles:
    """A hash of each shingle of each text; a text shorter than a shingle is one, filled up with zeros."""
    folded = [text.lower() for text in texts]
    lengths = np.array([max(len(text), SHINGLE) for text in folded], np.int64)
    letters = np.frombuffer("".join(text.ljust(SHINGLE, "\0") for text in folded).encode("utf-32-le", "surrogatepass"), np.uint32)
    counts = lengths - SHINGLE + 1
    starts = np.concatenate([[0], np.cumsum(counts)])
    # Shingles begin at every letter but the last four of each text.
    begins = np.arange(int(starts[-1])) + np.repeat(np.arange(len(texts)) * (SHINGLE - 1), counts)
    hashes = np.zeros(len(begins), np.uint64)
    for offset in range(SHINGLE):
        hashes = _mix(hashes ^ letters[begins + offset].astype(np.uint64))
    return hashes, starts


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One round of SplitMix64, so that 0 is mixed too."""
    return mix(bits + np.uint64(0x9E3779B97F4A7C15))


def _candidates(nodes: pl.DataFrame) -> pl.DataFrame:
    """Pairs `left`, `right` of content hashes that share a band; in a large bucket, each with its next neighbours in order of hash."""
    buckets = nodes.select("content_hash", pl.col("near_bands").alias("band")).explode("band").sort("band", "content_hash")
    buckets = buckets.filter(pl.col("band").is_duplicated())
    found = [pl.DataFrame(schema={"left": pl.String, "right": pl.String})]
    for distance in range(1, COMPARED + 1):
        neighbour = buckets.with_columns(right=pl.col("content_hash").shift(-distance), other=pl.col("band").shift(-distance))
        pairs = neighbour.filter(pl.col("band") == pl.col("other")).select(left="content_hash", right="right")
        if pairs.is_empty():
            break
        found.append(pairs)
    return pl.concat(found).unique().sort("left", "right")


def _jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> float:
    shared = len(np.intersect1d(left, right))
    return shared / (len(np.unique(left)) + len(np.unique(right)) - shared)


def _components(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The smallest name in the connected component of each name."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for left, right in pairs:
        first, second = sorted((root(left), root(right)))
        parent[second] = first
    return {name: root(name) for name in list(parent)}
