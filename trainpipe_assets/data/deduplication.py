"""Texts that count as the same or nearly so: which record stands for them, and which contradict each other.

Works on candidates that passed the row rules of `cleaning.py`; where a group ends up is `splitting.py`'s.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import polars_hash  # noqa: F401  # gives expressions their `chash`

from trainpipe_assets.data.batches import concurrently, from_batches
from trainpipe_assets.data.minhash import BANDS, SKETCH, bands_and_sketches
from trainpipe_assets.data.near_duplicates import find_groups
from trainpipe_assets.data.spilling import in_parts, spilled
from trainpipe_assets.settings import CleaningSettings, NearDuplicateSettings

FIRST = ("source_file", "line_number", "row_id")  # which of several equal records counts as the first
Differ = Callable[[pl.Expr, pl.Expr], pl.Expr]  # whether the labels of equal texts contradict each other

PART_ROWS = 200_000  # records compared with each other at a time: bounds the memory
HASH_DIGITS = 32


def content_hash(text: pl.Expr) -> pl.Expr:
    """The first 128 bits of the BLAKE3 of the case-folded text, in hexadecimal: the same on every machine and in every version."""
    digest: pl.Expr = text.str.to_lowercase().chash.blake3()  # type: ignore[attr-defined]  # polars_hash adds it
    return digest.str.head(HASH_DIGITS)


def leading_bits(digest: pl.Expr) -> pl.Expr:
    """The first 64 bits of a content hash, as a number."""
    return digest.str.head(16).str.to_integer(base=16, dtype=pl.UInt64)


def with_near_bands(candidates: pl.DataFrame, settings: NearDuplicateSettings) -> pl.DataFrame:
    """`candidates` with what `find_groups` compares of their `clean_text`: `near_bands` and `near_sketch`, null where nobody looks."""
    if settings.action == "off":
        return candidates.with_columns(near_bands=pl.lit(None, BANDS), near_sketch=pl.lit(None, SKETCH))
    return candidates.with_columns(bands_and_sketches(candidates["clean_text"], settings.similarity))


def by_text(records: pl.LazyFrame, n_rows: int, folder: Path) -> list[pl.LazyFrame]:
    """About `n_rows` records in parts, each in a file below `folder`; those with the same `content_hash` share a part."""
    key = pl.coalesce(leading_bits(pl.col("content_hash")), pl.col("line_number").cast(pl.UInt64))  # any part will do without a hash
    return in_parts(records, key, n_rows, PART_ROWS, folder)


def decide(parts: Sequence[pl.LazyFrame], settings: CleaningSettings, scratch: Path, differ: Differ = pl.Expr.ne) -> pl.LazyFrame:
    """The candidates with their `duplicate_group`, and with `rule` and `reason` set on those that are not kept, null on the others.

    Expects them `by_text`, with `clean_text`, `clean_label`, `content_hash`, `near_bands`, `near_sketch` and the columns of `FIRST`. Of
    records with the same text and the same label the first is kept; where any label differs from the first one's, by `differ`, none is,
    since nobody can say which one is right. Those with nearly the same text share a group, and where they are to be dropped only the
    first of a group is kept. Files go to `scratch`.
    """

    def judge(part: pl.LazyFrame) -> pl.DataFrame:
        return _judge_equals(part.collect(), differ, drop_duplicates=settings.drop_duplicates)

    schema = pl.Schema({**parts[0].collect_schema(), "rule": pl.String(), "reason": pl.String(), "stands": pl.Boolean()})
    decided = spilled(from_batches(lambda: concurrently(judge, parts), schema), scratch / "judged.parquet")
    near = settings.near_duplicates
    if near.action == "off":
        return decided.drop("stands").with_columns(duplicate_group=pl.col("content_hash"))
    texts = decided.filter("stands").select("content_hash", "clean_text", "near_bands", "near_sketch")
    groups = find_groups(texts, near.similarity, scratch)
    grouped = decided.drop("stands").join(groups.lazy(), on="content_hash", how="left")
    grouped = grouped.with_columns(pl.col("duplicate_group").fill_null(pl.col("content_hash")))
    return _drop_near_duplicates(grouped, groups) if near.action == "drop" else grouped


def _drop_near_duplicates(grouped: pl.LazyFrame, groups: pl.DataFrame) -> pl.LazyFrame:
    """Reject the texts of each group but that of its first record."""
    kept = pl.col("rule").is_null()
    members = grouped.filter(kept).select(*FIRST, "content_hash", "duplicate_group")
    members = members.join(groups.lazy().select("content_hash"), on="content_hash", how="semi")
    first = members.sort(FIRST).group_by("duplicate_group").agg(pl.col(*FIRST, "content_hash").first().name.prefix("_first_")).collect()
    joined = grouped.join(first.lazy(), on="duplicate_group", how="left")
    repeats = kept & (pl.col("content_hash") != pl.col("_first_content_hash")).fill_null(False)
    reason = pl.format("nearly repeats {} line {} (row {})", "_first_source_file", "_first_line_number", "_first_row_id")
    return joined.with_columns(
        rule=pl.when(repeats).then(pl.lit("near_duplicate")).otherwise("rule"), reason=pl.when(repeats).then(reason).otherwise("reason")
    ).drop(pl.selectors.starts_with("_first_"))


def _judge_equals(candidates: pl.DataFrame, differ: Differ, *, drop_duplicates: bool) -> pl.DataFrame:
    """`candidates` with `rule` and `reason` for those whose text another record has too.

    One record of each text that nobody contradicts `stands` for it.
    """
    repeated = candidates["content_hash"].is_duplicated()
    alone = candidates.filter(~repeated).with_columns(rule=pl.lit(None, pl.String), reason=pl.lit(None, pl.String), stands=pl.lit(True))
    return pl.concat([alone, _judge_repeated(candidates.filter(repeated), drop_duplicates=drop_duplicates, differ=differ)])


def _judge_repeated(candidates: pl.DataFrame, differ: Differ, *, drop_duplicates: bool) -> pl.DataFrame:
    """The same for records each of which has another one with its text."""
    ordered = candidates.sort(FIRST)
    groups = ordered.group_by("content_hash", maintain_order=True)
    shared = groups.agg(pl.col(column).first().alias(f"_first_{column}") for column in (*FIRST, "clean_label"))
    other = (
        ordered.join(shared, on="content_hash", how="inner")
        .filter(differ(pl.col("clean_label"), pl.col("_first_clean_label")))
        .group_by("content_hash", maintain_order=True)
        .agg(*(pl.col(column).first().alias(f"_other_{column}") for column in (*FIRST, "clean_label")))
    )
    joined = ordered.join(shared, on="content_hash").join(other, on="content_hash", how="left")
    differs = differ(pl.col("clean_label"), pl.col("_first_clean_label"))
    conflicting = pl.col("_other_row_id").is_not_null()
    repeats = (pl.col("row_id") != pl.col("_first_row_id")) & pl.lit(drop_duplicates)
    rule = pl.when(conflicting).then(pl.lit("conflicting_label")).when(repeats).then(pl.lit("duplicate"))
    reason = (
        pl.when(conflicting & differs).then(_contradiction("_first"))
        .when(conflicting).then(_contradiction("_other"))
        .when(repeats).then(pl.format("repeats {} line {} (row {})", "_first_source_file", "_first_line_number", "_first_row_id"))
    )  # fmt: skip
    stands = ~conflicting & (pl.col("row_id") == pl.col("_first_row_id"))
    return joined.with_columns(rule=rule, reason=reason, stands=stands).drop(pl.selectors.starts_with("_first_", "_other_"))


def _contradiction(side: str) -> pl.Expr:
    return pl.format(
        "labelled '{}' here and '{}' at {} line {} (row {})",
        "clean_label",
        f"{side}_clean_label",
        f"{side}_source_file",
        f"{side}_line_number",
        f"{side}_row_id",
    )
