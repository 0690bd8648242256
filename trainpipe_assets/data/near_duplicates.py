"""Texts that say nearly the same: candidates by locality-sensitive hashing, then the exact similarity of each pair that may be alike.

What is compared of a text is `minhash.py`'s, which records count at all `deduplication.py`'s.
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from trainpipe_assets.data.list_columns import list_column
from trainpipe_assets.data.minhash import may_be_alike, shingles_of, sketches
from trainpipe_assets.data.spilling import in_parts

COMPARED = 16  # neighbours within a bucket that a text is compared with: bounds the work where thousands share boilerplate
PART_BANDS = 4_000_000  # bands compared at a time, and pairs: they bound the memory
PART_PAIRS = 1_000_000
PAIRS = 50_000  # of texts compared exactly at a time

_PAIRS = pl.Schema({"left": pl.UInt64, "right": pl.UInt64})


def find_groups(texts: pl.LazyFrame, similarity: float, scratch: Path) -> pl.DataFrame:
    """The group of each text that is at least `similarity` like another, directly or by way of others; the others are not in it.

    `texts` has one row a text: `content_hash`, `clean_text`, `near_bands`, `near_sketch`. A group is named by its smallest content
    hash, so that it does not depend on the order in which texts arrived. Returns `content_hash`, `duplicate_group`. Files go to the
    folder `scratch`.
    """
    numbered = _numbered(texts)
    bands = numbered.select("number", pl.col("near_bands").alias("band")).explode("band")
    n_bands = bands.select(pl.len()).collect().item()
    parts = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "by-band")
    sketched = numbered.select("number", "near_sketch")
    worth = [_worth_comparing(_candidates(part.collect()), sketched, similarity) for part in parts]
    pairs = pl.concat(worth).unique().sort("left", "right")
    compared = numbered.select("number", "content_hash", "clean_text").join(_involved(pairs).lazy(), on="number", how="semi").collect()
    alike = [_alike(part, compared, similarity) for part in pairs.iter_slices(PAIRS)]
    names = dict(compared.select("number", "content_hash").iter_rows())
    return _components((names[left], names[right]) for part in alike for left, right in part.iter_rows())


def linked_texts(bands: pl.DataFrame, texts: pl.DataFrame, known: pl.DataFrame, similarity: float) -> pl.Series:
    """Content hashes of those `known` texts whose links may be others once `texts` are there too.

    Those are the ones that are similar to a new text; those of a bucket in which neighbours only are compared, since there a text may
    come between two others; and those without a text to compare.

    Args:
        bands: `content_hash`, `band` of the new texts.
        texts: their `content_hash`, `clean_text`, `near_sketch`, one row a text.
        known: `content_hash`, `clean_text`, `band` of the texts that share a band with them.
        similarity: from which on two texts are linked.
    """
    in_bucket = pl.concat([bands, known.select(bands.columns)]).unique()["band"].value_counts()
    crowded = in_bucket.filter(pl.col("count") > COMPARED + 1)["band"]
    comparable = known.filter(pl.col("clean_text").is_not_null())
    textless = ~pl.col("content_hash").is_in(comparable["content_hash"].unique().implode())
    unknown = known.filter(textless | pl.col("band").is_in(crowded.implode()))["content_hash"]
    others = comparable.select("content_hash", "clean_text").unique("content_hash").join(texts, on="content_hash", how="anti")
    others = others.with_columns(sketches(others["clean_text"]))
    numbered = _numbered(pl.concat([texts, others]).lazy()).collect()
    number = numbered.select("content_hash", "number")
    left, right = bands.join(number, on="content_hash"), comparable.join(number, on="content_hash")
    pairs = left.join(right, on="band").select(left="number", right="number_right").filter(pl.col("left") != pl.col("right")).unique()
    worth = _worth_comparing(pairs, numbered.lazy().select("number", "near_sketch"), similarity)
    alike = pl.concat([_alike(part, numbered, similarity) for part in (worth.clear(), *worth.iter_slices(PAIRS))])
    linked = numbered.join(alike.select(number="right"), on="number", how="semi")["content_hash"]
    return pl.concat([linked, unknown]).unique()


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
    known = sketched.join(_involved(pairs).lazy(), on="number", how="semi").collect()
    kept = [pl.DataFrame(schema=_PAIRS)]
    for part in pairs.iter_slices(PART_PAIRS):
        left, right = (part.join(known, left_on=side, right_on="number", maintain_order="left") for side in part.columns)
        kept.append(part.filter(may_be_alike(left["near_sketch"], right["near_sketch"], similarity)))
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
