"""Which records that were decided before have to be decided again, since others come or go.

How they are decided is `cleaning.py`'s and `deduplication.py`'s. Of the tables only those columns are read that are needed.
"""

import polars as pl

from trainpipe_assets.data.near_duplicates import linked_texts
from trainpipe_assets.settings import NearDuplicateSettings

GROUP_RULES = ("duplicate", "conflicting_label", "near_duplicate")  # rules that depend on other records


class Decided:
    """The records that have a duplicate group: all of `cleaned_features`, and those of `rejected_rows` whose rule depends on others."""

    def __init__(self, examples: pl.LazyFrame, rejected: pl.LazyFrame) -> None:
        self._examples, self._rejected = examples, rejected.filter(pl.col("rule").is_in(GROUP_RULES))

    def where(self, column: str, values: pl.Series, *columns: str) -> pl.DataFrame:
        """`columns` of the records whose `column` is one of `values`."""
        chosen = pl.col(column).is_in(values.implode())
        return pl.concat([frame.filter(chosen).select(columns).collect() for frame in (self._examples, self._rejected)])

    def sharing(self, bands: pl.Series) -> pl.DataFrame:
        """`content_hash, duplicate_group, clean_text, band`, once for each of `bands` that a record has; no text where it was rejected."""
        examples = self._examples.with_columns(clean_text=pl.col("text"))
        rejected = self._rejected.with_columns(clean_text=pl.lit(None, pl.String))
        return pl.concat([_sharing(frame, bands) for frame in (examples, rejected)])


def _sharing(records: pl.LazyFrame, bands: pl.Series) -> pl.DataFrame:
    """Bands are looked through alone, since taken apart they are sixteen rows a record."""
    numbered = records.select(band="near_bands").with_row_index().explode("band")
    found = numbered.filter(pl.col("band").is_in(bands.implode())).collect(engine="streaming")
    rows = records.select("content_hash", "duplicate_group", "clean_text").with_row_index()
    wanted = pl.col("index").is_in(found["index"].unique().implode())
    return found.join(rows.filter(wanted).collect(engine="streaming"), on="index").drop("index")


def touched(
    coming: pl.LazyFrame, removed: pl.DataFrame, examples: pl.LazyFrame, rejected: pl.LazyFrame, near: NearDuplicateSettings
) -> pl.DataFrame:
    """Keys of the records already processed, and still there, in a group that a record that comes or goes may belong to.

    Those are the groups with its text, and those with a text that it may be linked to: whatever else a group is linked to is in the
    group itself. `coming` has `row_id`, `content_hash` and `clean_text`, with `near_bands` and `near_sketch`.
    """
    decided = Decided(examples, rejected)
    new = coming.select("row_id", "content_hash").collect()
    going = decided.where("row_id", removed["row_id"], "content_hash", "near_bands") if len(removed) else None
    hashes = new["content_hash"].drop_nulls() if going is None else pl.concat([new["content_hash"].drop_nulls(), going["content_hash"]])
    if near.action == "off":  # then each text is a group of its own
        again = decided.where("content_hash", hashes.unique(), "row_id")
    else:
        loosened = pl.Series([], dtype=pl.Int64) if going is None else going["near_bands"].explode().unique().drop_nulls()
        same = decided.where("content_hash", hashes.unique(), "duplicate_group")["duplicate_group"]
        groups = pl.concat([same, _linked_groups(coming, loosened, decided, near.similarity)]).unique()
        again = decided.where("duplicate_group", groups, "row_id")
    return again.join(pl.concat([removed.select("row_id"), new.select("row_id")]), on="row_id", how="anti")


def _linked_groups(coming: pl.LazyFrame, loosened: pl.Series, decided: Decided, similarity: float) -> pl.Series:
    """Groups with a text that a text of `coming` is linked to, or that has a band in `loosened`, from which a text goes.

    Who goes may have been in contradiction with another record of its text, which then stands and has links of its own.
    """
    banded = coming.filter(pl.col("content_hash").is_not_null()).select("content_hash", band="near_bands").explode("band")
    bands = pl.concat([banded.select("band").unique().collect()["band"], loosened]).unique()
    found = decided.sharing(bands)
    met = banded.filter(pl.col("band").is_in(found["band"].unique().implode())).unique().collect()
    texts = coming.filter(pl.col("content_hash").is_in(met["content_hash"].unique().implode()))
    texts = texts.select("content_hash", "clean_text", "near_sketch").unique("content_hash")
    linked = linked_texts(met, texts.collect(), found.select("content_hash", "clean_text", "band"), similarity)
    chosen = pl.col("content_hash").is_in(linked.implode()) | pl.col("band").is_in(loosened.implode())
    return found.filter(chosen)["duplicate_group"].unique()
