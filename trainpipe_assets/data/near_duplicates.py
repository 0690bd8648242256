"""Texts that say nearly the same: candidates by locality-sensitive hashing, then the exact similarity of each pair that may be alike.

What is compared of a text is `minhash.py`'s, which records count at all `deduplication.py`'s.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from trainpipe_assets.data.list_columns import list_column
from trainpipe_assets.data.minhash import may_be_alike, shingles_of, sketches
from trainpipe_assets.data.spilling import in_parts

COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate
PART_BANDS = 4_000_000  # bands compared at a time, and pairs: they bound the memory
PART_PAIRS = 1_000_000
PAIRS = 50_000  # of texts compared exactly at a time

_PAIRS = pl.Schema({"left": pl.UInt64, "right": pl.UInt64})


@dataclass(frozen=True)
class Standing:
    """What is known where only some texts are compared again.

    `groups`, `content_hash, duplicate_group`, are those whose links with each other are as they were. `bands`, `content_hash, band`, are of
    the texts beside those that are compared, which count as neighbours and no more.
    """

    groups: pl.DataFrame
    bands: pl.DataFrame

    def open(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """Those of `pairs` that have to be compared."""
        beside, settled = (_numbered(frame.lazy()).collect()["number"].unique().implode() for frame in (self.bands, self.groups))
        left, right = pl.col("left"), pl.col("right")
        return pairs.filter(~left.is_in(beside) & ~right.is_in(beside) & ~(left.is_in(settled) & right.is_in(settled)))


def find_groups(texts: pl.LazyFrame, similarity: float, scratch: Path, standing: Standing | None = None) -> pl.DataFrame:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    `texts` has one row a text: `content_hash`, `clean_text`, `near_bands`, `near_sketch`; they are all there are, but for those
    `standing`. A group is named by its smallest content hash, so that it does not depend on the order in which texts arrived. Returns
    `content_hash`, `duplicate_group`. Files go to the folder `scratch`.
    """
    numbered = _numbered(texts)
    bands = numbered.select("number", pl.col("near_bands").alias("band")).explode("band")
    if standing is not None:
        bands = pl.concat([bands, _numbered(standing.bands.lazy()).select("number", "band")])
    n_bands = bands.select(pl.len()).collect().item()
    parts = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "by-band")
    sketched = numbered.select("number", "near_sketch")
    candidates = (_candidates(part.collect()) for part in parts)
    worth = [_worth_comparing(standing.open(found) if standing else found, sketched, similarity) for found in candidates]
    pairs = pl.concat(worth).unique().sort("left", "right")
    compared = numbered.select("number", "content_hash", "clean_text").join(_involved(pairs).lazy(), on="number", how="semi").collect()
    alike = [_alike(part, compared, similarity) for part in pairs.iter_slices(PAIRS)]
    names = dict(compared.select("number", "content_hash").iter_rows())
    links = ((names[left], names[right]) for part in alike for left, right in part.iter_rows())
    return _components(chain(standing.groups.iter_rows() if standing else (), links))


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
        texts: their `content_hash`, `clean_text`, `near_sketch`, one row a text.
        known: `content_hash`, `clean_text`, `band` of the texts that share a band with them.
        similarity: from which on two texts are linked.
    """
    without = known.filter(pl.col("clean_text").is_null())["content_hash"].unique()
    around = _around(_numbered(bands.lazy()).collect(), _numbered(known.lazy()).collect())
    met, parted = around.select(left="new", right="number").unique(), _parted(around)
    others = known.filter(pl.col("clean_text").is_not_null()).select("content_hash", "clean_text").unique("content_hash")
    others = _numbered(others.lazy()).collect().join(_involved(pl.concat([met, parted])), on="number", how="semi")
    others = others.with_columns(sketches(others["clean_text"]))
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
    there = texts.select("number")
    pairs = pairs.join(there, left_on="left", right_on="number", how="semi").join(there, left_on="right", right_on="number", how="semi")
    worth = _worth_comparing(pairs, texts.lazy().select("number", "near_sketch"), similarity)
    return pl.concat([_alike(part, texts, similarity) for part in (worth.clear(), *worth.iter_slices(PAIRS))])


def _numbered(texts: pl.LazyFrame) -> pl.LazyFrame:
    """`texts` with a `number` in the order of their content hashes."""
    return texts.with_columns(number=pl.col("content_hash").str.head(16).str.to_integer(base=16, dtype=pl.UInt64))


def _candidates(bands: pl.DataFrame) -> pl.DataFrame:
    """Pairs `left`, `right` of numbers that share a band; in a large bucket, each with its next neighbours in order of number."""
    buckets = bands.filter(pl.col("band").is_duplicated()).sort("band", "number")
    found = [pl.DataFrame(schema=_PAIRS)]
    for distance in range(1, COMPARED + 1):
        neighbour = buckets.with_columns(right=pl.col("number").shift(-distance), other=pl.col("band").shift(-distance))
        pairs = neighbour.filter(pl.col("band") == pl.col("other")).select(left="number", right="right")
        if pairs.is_empty():
            break
        found.append(pairs)
    return pl.concat(found).unique()


def _worth_comparing(pairs: pl.DataFrame, sketched: pl.LazyFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` that the sketches of the texts leave."""
    known = sketched.join(_involved(pairs).lazy(), on="number", how="semi").collect().sort("number")
    numbers, found = known["number"].to_numpy(), known["near_sketch"].to_numpy()
    kept = [pl.DataFrame(schema=_PAIRS)]
    for part in pairs.iter_slices(PART_PAIRS):
        left, right = (found[np.searchsorted(numbers, part[side].to_numpy())] for side in part.columns)
        kept.append(part.filter(may_be_alike(left, right, similarity)))
    return pl.concat(kept)


def _involved(pairs: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([pairs["left"], pairs["right"]]).unique().to_frame("number")


def _alike(pairs: pl.DataFrame, texts: pl.DataFrame, similarity: float) -> pl.DataFrame:
    """Those of `pairs` whose Jaccard index is at least `similarity`."""
    needed = texts.join(_involved(pairs), on="number", how="semi")
    found = shingles_of(needed["clean_text"])
    lists = list_column("shingles", found.hashes, found.starts, pl.List(pl.UInt64))
    shingles = needed.select("number", lists.list.unique())
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
