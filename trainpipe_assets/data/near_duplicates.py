"""Texts that say nearly the same: candidates by MinHash and locality-sensitive hashing, then the exact similarity of each pair.

Which records count at all is `deduplication.py`'s; rensa computes the signatures. The similarity of two texts is the Jaccard index of
their sets of five-character shingles (Broder, 1997), upper and lower case alike.
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from rensa import RMinHash

from trainpipe_assets.data.mixing import mix
from trainpipe_assets.data.spilling import in_parts

SHINGLE = 5  # characters
RECALL = 0.99  # of pairs exactly as similar as the threshold; more similar ones are found more often
LARGEST_SIGNATURE = 128  # hashes of a text at most
SEED = 1
COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate
BATCH = 1_000  # texts hashed at a time: what is computed about their shingles stays within the processor's cache
PART_BANDS = 4_000_000  # bands compared at a time, and pairs of texts: both bound the memory
PAIRS = 50_000
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


def find_groups(texts: pl.LazyFrame, similarity: float, scratch: Path) -> pl.DataFrame:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    `texts` has one row a text: `content_hash`, `clean_text`, `near_bands`. A group is named by its smallest content hash, so that it
    does not depend on the order in which texts arrived. Returns `content_hash`, `duplicate_group`. Files go to the folder `scratch`.
    """
    numbered = texts.with_columns(number=pl.col("content_hash").str.head(16).str.to_integer(base=16, dtype=pl.UInt64))
    bands = numbered.select("number", pl.col("near_bands").alias("band")).explode("band")
    n_bands = bands.select(pl.len()).collect().item()
    parts = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "by-band")
    pairs = pl.concat([_candidates(part.collect()) for part in parts]).unique().sort("left", "right")
    involved = pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number")
    compared = numbered.select("number", "content_hash", "clean_text").join(involved.lazy(), on="number", how="semi").collect()
    alike = [_alike(part, compared, similarity) for part in pairs.iter_slices(PAIRS)]
    names = dict(compared.select("number", "content_hash").iter_rows())
    return _components((names[left], names[right]) for part in alike for left, right in part.iter_rows())


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
    wide = letters.astype(np.uint64)  # 21 bits a letter: three of them, then two, fit into 64
    first = wide[:-4] | wide[1:-3] << np.uint64(21) | wide[2:-2] << np.uint64(42)
    hashes = _mix(_mix(first) ^ (wide[3:-1] | wide[4:] << np.uint64(21))) if texts else np.empty(0, np.uint64)
    # Shingles begin at every letter but the last four of each text.
    within = np.ones(len(letters), bool)
    ends = np.cumsum(lengths)
    for back in range(1, SHINGLE):
        within[ends - back] = False
    return hashes[within[: len(hashes)]], np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One round of SplitMix64, so that 0 is mixed too."""
    return mix(bits + np.uint64(0x9E3779B97F4A7C15))


def _candidates(bands: pl.DataFrame) -> pl.DataFrame:
    """Pairs `left`, `right` of numbers that share a band; in a large bucket, each with its next neighbours in order of number."""
    buckets = bands.filter(pl.col("band").is_duplicated()).sort("band", "number")
    found = [pl.DataFrame(schema={"left": pl.UInt64, "right": pl.UInt64})]
    for distance in range(1, COMPARED + 1):
        neighbour = buckets.with_columns(right=pl.col("number").shift(-distance), other=pl.col("band").shift(-distance))
        pairs = neighbour.filter(pl.col("band") == pl.col("other")).select(left="number", right="right")
        if pairs.is_empty():
            break
        found.append(pairs)
    return pl.concat(found).unique()


def _alike(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` whose Jaccard index is at least `similarity`."""
    needed = texts.join(pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number"), on="number", how="semi")
    hashes, starts = _shingles(needed["clean_text"].to_list())
    lists = pa.LargeListArray.from_arrays(pa.array(starts), pa.array(hashes))
    shingles = needed.select("number", shingles=pl.Series(lists, dtype=pl.List(pl.UInt64)).list.unique())
    joined = pairs.join(shingles, left_on="left", right_on="number").join(shingles, left_on="right", right_on="number", suffix="_right")
    shared = pl.col("shingles").list.set_intersection("shingles_right").list.len()
    total = pl.col("shingles").list.len() + pl.col("shingles_right").list.len() - shared
    return joined.filter(shared >= similarity * total).select("left", "right")


def _components(pairs: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """The smallest name in the connected component of each name: `content_hash`, `duplicate_group`."""
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
    columns = {"content_hash": list(parent), "duplicate_group": [root(name) for name in list(parent)]}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))
