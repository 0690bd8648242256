"""Which records that were decided before have to be decided again, since others come or go.

How they are decided is `cleaning.py`'s and `deduplication.py`'s. Of the tables only those columns are read that are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from trainpipe_assets.data.batches import count_rows
from trainpipe_assets.data.content_hash import with_number
from trainpipe_assets.data.minhash import bands_and_rows
from trainpipe_assets.data.near_duplicates import Standing, changed_links
from trainpipe_assets.data.spilling import in_parts
from trainpipe_assets.settings import NearDuplicateSettings

GROUP_RULES = ("duplicate", "conflicting_label", "near_duplicate")  # rules that depend on other records
PART_BANDS = 16_000_000  # of new texts, that are looked for among the known ones at a time: they bound the memory

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)

_GOING = pl.Schema({"content_hash": pl.String(), "near_bands": pl.List(pl.Int64)})


class DecidedRecords:
    """The records that have a duplicate group: all of `cleaned_features`, and those of `rejected_rows` whose rule depends on others.

    One `stands` where its text is among those that are compared with others, as `deduplication.py` has it.
    """

    def __init__(self, examples: pl.LazyFrame, rejected: pl.LazyFrame) -> None:
        rejected = rejected.filter(pl.col("rule").is_in(GROUP_RULES))
        self._frames = (
            examples.with_columns(stands=pl.lit(True), clean_text=pl.col("text")),
            rejected.with_columns(stands=pl.col("rule") == "near_duplicate", clean_text=pl.lit(None, pl.String)),
        )

    def where(self, column: str, values: pl.Series, *columns: str) -> pl.DataFrame:
        """`columns` of the records whose `column` is one of `values`."""
        chosen = pl.col(column).is_in(values.implode())
        return pl.concat([frame.filter(chosen).select(columns).collect() for frame in self._frames])

    def sharing(self, bands: pl.Series, *columns: str) -> pl.DataFrame:
        """`columns` of the records that stand, and `band`, once for each of `bands` they have; rejected ones have no `clean_text`."""
        return pl.concat([_sharing(frame.filter("stands"), bands, columns) for frame in self._frames])


def _sharing(records: pl.LazyFrame, bands: pl.Series, columns: tuple[str, ...]) -> pl.DataFrame:
    """Bands are looked through alone, since taken apart they are sixteen rows a record."""
    numbered = records.select(band="near_bands").with_row_index().explode("band")
    found = numbered.filter(pl.col("band").is_in(bands.implode())).collect(engine="streaming")
    rows = records.select(columns).with_row_index()
    wanted = pl.col("index").is_in(found["index"].unique().implode())
    return found.join(rows.filter(wanted).collect(engine="streaming"), on="index").drop("index").select(*columns, "band")


@dataclass(frozen=True)
class Touched:
    """Records to be decided again, and what that leaves as it is.

    `records` has `row_id, content_hash, duplicate_group`; the texts of the groups in `loosened` are to be compared with each other again.
    `hashes` are those of all records that are decided again, come or go.
    """

    records: pl.DataFrame
    loosened: pl.Series
    hashes: pl.Series

    def standing(self, together: pl.LazyFrame, decided: DecidedRecords) -> Standing:
        """What is known of the texts of `together`, the records that are decided now, and of those beside them."""
        settled = self.records.filter(~pl.col("duplicate_group").is_in(self.loosened.implode()))
        compared = together.filter(~pl.col("content_hash").is_in(settled["content_hash"].unique().implode()))
        beside = decided.sharing(_bands_of(compared), "content_hash").unique()
        return Standing(
            groups=settled.select("content_hash", "duplicate_group").unique(),
            bands=beside.filter(~pl.col("content_hash").is_in(self.hashes.implode())),
        )


def touched(coming: pl.LazyFrame, removed: pl.DataFrame, decided: DecidedRecords, near: NearDuplicateSettings, scratch: Path) -> Touched:
    """The records already processed, and still there, in a group that a record that comes or goes may belong to.

    Those are the groups with its text, and those with a text that it may be linked to: whatever else a group is linked to is in the
    group itself. `coming` has `row_id`, `content_hash`, `clean_text` and `clean_label`, with `near_bands` and `near_sketch`. Files go to
    the folder `scratch`.
    """
    new = coming.select("row_id", "content_hash", "clean_label").collect()
    going = decided.where("row_id", removed["row_id"], "content_hash", "near_bands") if len(removed) else pl.DataFrame(schema=_GOING)
    hashes = pl.concat([new["content_hash"].drop_nulls(), going["content_hash"]]).unique()
    same = decided.where("content_hash", hashes, "row_id", "content_hash", "duplicate_group", "label", "stands")
    again, loosened = same, pl.Series([], dtype=pl.String)
    if near.action != "off":
        groups, loosened = _groups(coming, new, going, same, decided, near.similarity, scratch)
        again = decided.where("duplicate_group", groups, "row_id", "content_hash", "duplicate_group")
    known = pl.concat([removed.select("row_id"), new.select("row_id")])
    records = again.select("row_id", "content_hash", "duplicate_group").join(known, on="row_id", how="anti")
    return Touched(records, loosened, pl.concat([hashes, records["content_hash"]]).unique())


def _groups(
    coming: pl.LazyFrame,
    new: pl.DataFrame,
    going: pl.DataFrame,
    same: pl.DataFrame,
    decided: DecidedRecords,
    similarity: float,
    scratch: Path,
) -> tuple[pl.Series, pl.Series]:
    """All groups that are touched, and those of them with links that may not hold any more or that only now come to be.

    A text leaves when its records go, or when one comes that contradicts it. Who goes may have been in contradiction with another record
    of its text, which then stands and has links of its own.
    """
    standing = same.filter("stands")
    contradicted = standing.join(new, on="content_hash").filter(pl.col("label").ne_missing(pl.col("clean_label")))["content_hash"]
    freed = pl.concat([_exploded(going["near_bands"]), _bands_of(_with_hash(coming, contradicted))]).unique()
    fresh = with_number(coming.filter(pl.col("content_hash").is_not_null()))
    fresh = fresh.filter(~pl.col("content_hash").is_in(standing["content_hash"].implode()))
    gained = [same["duplicate_group"]]
    loosened = [_with_hash(same, pl.concat([going["content_hash"], contradicted]))["duplicate_group"]]
    for bands in _bands_in_parts(fresh, similarity, scratch):
        found = decided.sharing(pl.concat([bands["band"], freed]).unique(), "content_hash", "duplicate_group", "clean_text").unique()
        met = bands.filter(pl.col("band").is_in(found["band"].unique().implode()))
        texts = fresh.filter(pl.col("number").is_in(met["number"].unique().implode())).select("number", "clean_text")
        links = changed_links(met, texts.unique("number").collect(), found.select("content_hash", "clean_text", "band"), similarity)
        loose = pl.col("content_hash").is_in(links.lost.implode()) | pl.col("band").is_in(freed.implode())
        loosened.append(found.filter(loose)["duplicate_group"])
        gained.append(_with_hash(found, links.gained)["duplicate_group"])
        freed = freed.clear()  # looked for with the first part
    free = pl.concat(loosened).unique()
    return pl.concat([*gained, free]).unique(), free


def _bands_in_parts(texts: pl.LazyFrame, similarity: float, scratch: Path) -> Iterator[pl.DataFrame]:
    """`number`, `band` of `texts`, those of a bucket in one part; at least one part."""
    bands = texts.select("number", band="near_bands").explode("band")
    n_bands = count_rows(texts) * bands_and_rows(similarity)[0]
    parts = in_parts(bands, pl.col("band").reinterpret(signed=False), n_bands, PART_BANDS, scratch / "new-bands")
    return (part.collect() for part in parts)


def _with_hash(records: Frame, hashes: pl.Series) -> Frame:
    return records.filter(pl.col("content_hash").is_in(hashes.unique().implode()))


def _bands_of(records: pl.LazyFrame) -> pl.Series:
    return _exploded(records.select("near_bands").collect()["near_bands"])


def _exploded(bands: pl.Series) -> pl.Series:
    return bands.explode().drop_nulls().unique()
