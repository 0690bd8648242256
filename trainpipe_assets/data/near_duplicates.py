"""Texts that say nearly the same: candidates by locality-sensitive hashing, then the exact similarity of each pair that may be alike.

What is compared of a text is `minhash.py`'s, which records count at all `deduplication.py`'s. scipy is imported where it computes, so that
importing this module stays quick.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.data.batches import concurrently, from_batches
from trainpipe_assets.data.list_columns import list_column
from trainpipe_assets.data.minhash import bands_and_rows, may_be_alike, shingles_of, sketches
from trainpipe_assets.data.spilling import in_parts, spilled

Numbers = NDArray[np.uint64]

COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate
PART_BANDS = 2_000_000  # bands compared at a time, and pairs of texts that may be alike: they bound the memory
PART_PAIRS = 500_000
SKETCHED_PAIRS = 100_000  # whose sketches are compared at a time
PAIRS = 50_000  # of texts compared exactly at a time
FINE_SKETCH = 16  # words: of the pairs that the coarser ones leave, these leave a tenth, which is quicker than comparing them all

_PAIRS = pl.Schema({"left": pl.UInt64, "right": pl.UInt64})


@dataclass(frozen=True)
class Standing:
    """What is known where only some texts are compared again.

    `groups`, `content_hash, duplicate_group`, are those whose links with each other are as they were. `bands`, `content_hash, band`, are of
    the texts beside those that are compared, which count as neighbours and no more.
    """

    groups: pl.DataFrame
    bands: pl.DataFrame

    @cached_property
    def _numbers(self) -> tuple[Numbers, Numbers]:
        beside, settled = (_numbered(frame.lazy()).collect()["number"].unique().to_numpy() for frame in (self.bands, self.groups))
        return beside, settled

    def open(self, left: Numbers, right: Numbers) -> NDArray[np.bool_]:
        """Which of these pairs have to be compared."""
        beside, settled = self._numbers
        known: NDArray[np.bool_] = np.isin(left, settled) & np.isin(right, settled)
        return ~(np.isin(left, beside) | np.isin(right, beside) | known)


def find_groups(texts: pl.LazyFrame, similarity: float, scratch: Path, standing: Standing | None = None) -> pl.DataFrame:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    `texts` has one row a text: `content_hash`, `clean_text`, `near_bands`, `near_sketch`; they are all there are, but for those
    `standing`. A group is named by its smallest content hash, so that it does not depend on the order in which texts arrived. Returns
    `content_hash`, `duplicate_group`. Files go to the folder `scratch`; in memory are parts of the texts, and what is found.
    """
    numbered = _numbered(texts)
    known = spilled(numbered.select("number", "content_hash", "clean_text", "near_sketch"), scratch / "texts.parquet")
    pairs = _pairs(numbered.select("number", band="near_bands").explode("band"), known, similarity, scratch, standing)
    linked = pl.concat([_linked_of(part.collect(), known, similarity) for part in pairs])
    names = _of(known.select("number", "content_hash"), _involved(linked))
    named = linked.join(names, left_on="left", right_on="number").join(names, left_on="right", right_on="number", suffix="_right")
    links = named.select(left="content_hash", right="content_hash_right")
    if standing is not None:
        links = pl.concat([links, standing.groups.select(left="content_hash", right="duplicate_group")])
    return _components(links)


@dataclass(frozen=True)
class Links:
    """Content hashes of known texts: `gained` of those that are linked to a new one, `lost` of those that may not be to each other."""

    gained: pl.Series
    lost: pl.Series


def changed_links(bands: pl.DataFrame, texts: pl.DataFrame, known: pl.DataFrame, similarity: float) -> Links:
    """What new texts change about the `known` ones: whom they are linked to, and whom they come between where only neighbours are compared.

    Known texts without a text to compare are taken for `lost`.

    Args:
        bands: `content_hash`, `band` of the new texts.
        texts: their `content_hash`, `clean_text`, one row a text.
        known: `content_hash`, `clean_text`, `band` of the texts that share a band with them.
        similarity: from which on two texts are linked.
    """
    without = known.filter(pl.col("clean_text").is_null())["content_hash"].unique()
    around = _around(_numbered(bands.lazy()).collect(), _numbered(known.lazy()).collect())
    met, parted = around.select(left="new", right="number").unique(), _parted(around)
    others = known.filter(pl.col("clean_text").is_not_null()).select("content_hash", "clean_text").unique("content_hash")
    others = _numbered(others.lazy()).collect().join(_involved(pl.concat([met, parted])), on="number", how="semi")
    numbered = pl.concat([_numbered(texts.lazy()).collect(), others.select(*texts.columns, "number")])
    gained, lost = (_involved(_linked(pairs, numbered, similarity)) for pairs in (met, parted))
    hashes = [others.join(numbers, on="number", how="semi")["content_hash"] for numbers in (gained, lost)]
    return Links(hashes[0], pl.concat([hashes[1], without]))


def _around(new: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The known texts that are neighbours of a new one in a bucket, or would be without other new ones: `new, band, number, rank`.

    With them `before`, whether it comes before the new one, and `crowded`, whether not all of the bucket are compared with each other.
    """
    ranked = known.select("band", "number").unique().sort("band", "number").with_columns(rank=pl.int_range(pl.len()).over("band"))
    met = new.select("band", new="number").unique().join(ranked, on="band")
    size = pl.col("number").n_unique().over("band") + pl.col("new").n_unique().over("band")
    met = met.with_columns(before=pl.col("number") < pl.col("new"), crowded=size > COMPARED + 1)
    place = pl.col("before").sum().over("new", "band").cast(pl.Int64)
    distance = pl.when("before").then(place - pl.col("rank")).otherwise(pl.col("rank") - place + 1)
    return met.filter(distance <= COMPARED)


def _parted(around: pl.DataFrame) -> pl.DataFrame:
    """Pairs `left`, `right` of known texts that were compared in a bucket where a new one comes between them."""
    crowded = around.filter("crowded")
    pairs = crowded.filter("before").join(crowded.filter(~pl.col("before")), on=["new", "band"])
    return pairs.filter(pl.col("rank_right") - pl.col("rank") <= COMPARED).select(left="number", right="number_right").unique()


def _linked(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` that are alike; a text that is not in `texts` is like none."""
    texts = texts.join(_involved(pairs), on="number", how="semi").sort("number")
    numbers, found = texts["number"].to_numpy(), sketches(texts["clean_text"], FINE_SKETCH)
    there = pl.all_horizontal(pl.all().is_in(texts["number"].implode()))
    worth = [pairs.clear()]
    for part in pairs.filter(there).iter_slices(SKETCHED_PAIRS):
        left, right = (found[np.searchsorted(numbers, part[side].to_numpy())] for side in part.columns)
        worth.append(part.filter(may_be_alike(left, right, similarity)))
    pairs = pl.concat(worth)
    return pl.concat([_alike(part, texts, similarity) for part in (pairs.clear(), *pairs.iter_slices(PAIRS))])


def _numbered(texts: pl.LazyFrame) -> pl.LazyFrame:
    """`texts` with a `number` in the order of their content hashes."""
    return texts.with_columns(number=pl.col("content_hash").str.head(16).str.to_integer(base=16, dtype=pl.UInt64))


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())


def _pairs(bands: pl.LazyFrame, known: pl.LazyFrame, similarity: float, scratch: Path, standing: Standing | None) -> Sequence[pl.LazyFrame]:
    """Pairs of numbers that may be alike, in parts; each pair is in one of them, maybe repeatedly."""
    n_bands = _count(known) * bands_and_rows(similarity)[0]
    if standing is not None:
        bands = pl.concat([bands, _numbered(standing.bands.lazy()).select("number", "band")])
        n_bands += standing.bands.height
    by_band = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "by-band")

    def candidates(part: pl.LazyFrame) -> pl.DataFrame:
        return pl.concat([pl.DataFrame(schema=_PAIRS), *_may_be_alike(part.collect(), known, similarity, standing)])

    pairs = spilled(from_batches(lambda: concurrently(candidates, by_band), _PAIRS), scratch / "pairs.parquet")
    return in_parts(pairs, pl.col("left"), _count(pairs), PART_PAIRS, scratch / "by-left")


def _may_be_alike(bands: pl.DataFrame, known: pl.LazyFrame, similarity: float, standing: Standing | None) -> Iterator[pl.DataFrame]:
    """Pairs `left`, `right` of numbers that share a band, as far as the sketches of the texts leave them; some of them repeatedly.

    In a large bucket each is paired with its next neighbours in order of number.
    """
    in_order = bands["band"].sort()  # which is quicker than to count them
    repeated = in_order.filter(in_order == in_order.shift()).unique()
    buckets = bands.filter(pl.col("band").is_in(repeated.implode())).sort("band", "number")
    band, number = (buckets[name].to_numpy() for name in ("band", "number"))
    sketched = _of(known.select("number", "near_sketch"), buckets.select("number").unique()).sort("number")
    if sketched.is_empty():
        return
    place = np.searchsorted(sketched["number"].to_numpy(), number)
    found = sketched["near_sketch"].to_numpy()[np.minimum(place, len(sketched) - 1)]  # any for texts beside, which are passed over
    for distance in range(1, COMPARED + 1):
        shared = np.flatnonzero(band[distance:] == band[:-distance])
        if not len(shared):
            return
        for start in range(0, len(shared), SKETCHED_PAIRS):
            left = shared[start : start + SKETCHED_PAIRS]
            if standing is not None:
                left = left[standing.open(number[left], number[left + distance])]
            left = left[may_be_alike(found[left], found[left + distance], similarity)]
            yield pl.DataFrame({"left": number[left], "right": number[left + distance]}, schema=_PAIRS)


def _linked_of(pairs: pl.DataFrame, known: pl.LazyFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs`, each of which may come repeatedly, that are alike."""
    different = pairs.unique().sort("left", "right")
    return _linked(different, _of(known.select("number", "clean_text"), _involved(different)), similarity)


def _of(known: pl.LazyFrame, numbers: pl.DataFrame) -> pl.DataFrame:
    """What is `known` of the texts of these numbers. As a filter, not as a join, it reaches the reader, which then reads little ahead."""
    return known.filter(pl.col("number").is_in(numbers["number"].implode())).collect(engine="streaming")


def _involved(pairs: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number")


def _alike(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` whose Jaccard index is at least `similarity`."""
    needed = texts.join(_involved(pairs), on="number", how="semi")
    hashed = shingles_of(needed["clean_text"])
    lists = list_column("shingles", hashed.hashes, hashed.starts, pl.List(pl.UInt64))
    shingles = needed.select("number", lists.list.unique())
    joined = pairs.join(shingles, left_on="left", right_on="number").join(shingles, left_on="right", right_on="number", suffix="_right")
    shared = pl.col("shingles").list.set_intersection("shingles_right").list.len()
    total = pl.col("shingles").list.len() + pl.col("shingles_right").list.len() - shared
    return joined.filter(shared >= similarity * total).select("left", "right")


def _components(links: pl.DataFrame) -> pl.DataFrame:
    """The smallest name in the connected component of each name in `links`: `content_hash`, `duplicate_group`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = pl.concat([links["left"], links["right"]]).unique().sort().alias("name")
    numbers = names.to_frame().with_row_index("number")
    left, right = (links.select(name=side).join(numbers, on="name", maintain_order="left")["number"].to_numpy() for side in links.columns)
    graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    _, first, of_each = np.unique(component, return_index=True, return_inverse=True)
    return pl.DataFrame({"content_hash": names, "duplicate_group": names.gather(first[of_each])})
