"""Texts that count as the same or nearly so: which record stands for them, and which contradict each other.

Works on candidates that passed the row rules of `cleaning.py`; where a group ends up is `splitting.py`'s.
"""

import hashlib

import polars as pl

from trainpipe_assets.data.near_duplicates import band_hashes, find_groups
from trainpipe_assets.settings import CleaningSettings, NearDuplicateSettings

FIRST = ("source_file", "line_number", "row_id")  # which of several equal records counts as the first


def content_hash(text: pl.Expr) -> pl.Expr:
    """BLAKE2b-128 of the case-folded text, in hexadecimal: the same on every machine and in every version."""

    def digest(texts: pl.Series) -> pl.Series:
        hashes = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts.to_list()]
        return pl.Series(hashes, dtype=pl.String)

    return text.str.to_lowercase().map_batches(digest, return_dtype=pl.String, is_elementwise=True)


def near_bands(text: pl.Expr, settings: NearDuplicateSettings) -> pl.Expr:
    """What `find_groups` finds candidates by; null where nobody looks for them."""
    if settings.action == "off":
        return pl.lit(None, pl.List(pl.Int64))
    return text.map_batches(lambda texts: band_hashes(texts, settings.similarity), return_dtype=pl.List(pl.Int64), is_elementwise=True)


def decide(candidates: pl.DataFrame, settings: CleaningSettings) -> pl.DataFrame:
    """`candidates` with their `duplicate_group`, and with `rule` and `reason` set on those that are not kept, null on the others.

    Expects `clean_text`, `clean_label`, `content_hash`, `near_bands` and the columns of `FIRST`. Of records with the same text and the
    same label the first is kept; where the labels differ none is, since nobody can say which one is right. Those with nearly the same
    text share a group, and where they are to be dropped only the first of a group is kept.
    """
    decided = _judge_equals(candidates, drop_duplicates=settings.drop_duplicates)
    near = settings.near_duplicates
    if near.action == "off":
        return decided.with_columns(duplicate_group=pl.col("content_hash"))
    consistent = decided.filter(pl.col("rule").fill_null("duplicate") == "duplicate").unique("content_hash", maintain_order=True)
    groups = find_groups(consistent, near.similarity)
    grouped = decided.with_columns(duplicate_group=pl.col("content_hash").replace(groups))
    return _drop_near_duplicates(grouped) if near.action == "drop" else grouped


def _drop_near_duplicates(grouped: pl.DataFrame) -> pl.DataFrame:
    """Reject the texts of each group but that of its first record; `grouped` is in the order of `FIRST`."""
    kept = pl.col("rule").is_null()
    first = grouped.filter(kept).group_by("duplicate_group").agg(pl.col(*FIRST, "content_hash").first().name.prefix("_first_"))
    joined = grouped.join(first, on="duplicate_group", how="left", maintain_order="left")
    repeats = kept & (pl.col("content_hash") != pl.col("_first_content_hash"))
    reason = pl.format("nearly repeats {} line {} (row {})", "_first_source_file", "_first_line_number", "_first_row_id")
    return joined.with_columns(
        rule=pl.when(repeats).then(pl.lit("near_duplicate")).otherwise("rule"), reason=pl.when(repeats).then(reason).otherwise("reason")
    ).drop(pl.selectors.starts_with("_first_"))


def _judge_equals(candidates: pl.DataFrame, *, drop_duplicates: bool) -> pl.DataFrame:
    """`candidates` in the order of `FIRST`, with `rule` and `reason` for those whose text another record has too."""
    ordered = candidates.sort(FIRST)
    groups = ordered.group_by("content_hash", maintain_order=True)
    shared = (
        groups.agg(pl.len().alias("_size"), *(pl.col(column).first().alias(f"_first_{column}") for column in (*FIRST, "clean_label")))
        .filter(pl.col("_size") > 1)
        .drop("_size")
    )
    other = (
        ordered.join(shared, on="content_hash", how="inner")
        .filter(pl.col("clean_label") != pl.col("_first_clean_label"))
        .group_by("content_hash", maintain_order=True)
        .agg(*(pl.col(column).first().alias(f"_other_{column}") for column in (*FIRST, "clean_label")))
    )
    joined = ordered.join(shared, on="content_hash", how="left").join(other, on="content_hash", how="left")
    differs = pl.col("clean_label") != pl.col("_first_clean_label")
    conflicting = pl.col("_other_row_id").is_not_null()
    repeats = pl.col("_first_row_id").is_not_null() & (pl.col("row_id") != pl.col("_first_row_id")) & pl.lit(drop_duplicates)
    rule = pl.when(conflicting).then(pl.lit("conflicting_label")).when(repeats).then(pl.lit("duplicate"))
    reason = (
        pl.when(conflicting & differs).then(_contradiction("_first"))
        .when(conflicting).then(_contradiction("_other"))
        .when(repeats).then(pl.format("repeats {} line {} (row {})", "_first_source_file", "_first_line_number", "_first_row_id"))
    )  # fmt: skip
    return joined.with_columns(rule=rule, reason=reason).drop(pl.selectors.starts_with("_first_", "_other_"))


def _contradiction(side: str) -> pl.Expr:
    return pl.format(
        "labelled '{}' here and '{}' at {} line {} (row {})",
        "clean_label",
        f"{side}_clean_label",
        f"{side}_source_file",
        f"{side}_line_number",
        f"{side}_row_id",
    )
