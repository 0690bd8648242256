"""Texts that count as the same or nearly so: which record stands for them, and which contradict each other.

Works on candidates that passed the row rules of `cleaning.py`; where a group ends up is `splitting.py`'s.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from trainpipe_assets.data.batches import concurrently, in_turn
from trainpipe_assets.data.content_hash import leading_bits
from trainpipe_assets.data.minhash import BANDS, SKETCH, bands_and_sketches
from trainpipe_assets.data.near_duplicates import Standing, find_groups
from trainpipe_assets.data.spilling import in_parts, spilled
from trainpipe_assets.settings import CleaningSettings, NearDuplicateSettings

FIRST = ("split_rank", "source_file", "line_number", "row_id")  # which of several equal records counts as the first
Differ = Callable[[pl.Expr, pl.Expr], pl.Expr]  # whether the labels of equal texts contradict each other

PART_ROWS = 200_000  # records compared with each other at a time: bounds the memory


def with_near_bands(candidates: pl.DataFrame, settings: NearDuplicateSettings) -> pl.DataFrame:
    """`candidates` with what `find_groups` compares of their `clean_text`: `near_bands` and `near_sketch`, null where nobody looks."""
    if settings.action == "off":
        return candidates.with_columns(near_bands=pl.lit(None, BANDS), near_sketch=pl.lit(None, SKETCH))
    return candidates.with_columns(bands_and_sketches(candidates["clean_text"], settings.similarity))


def by_text(records: pl.LazyFrame, n_rows: int, folder: Path, row_bytes: float | None = None) -> list[pl.LazyFrame]:
    """About `n_rows` records of about `row_bytes` in parts, each in a file below `folder`; those with the same `content_hash` share one."""
    key = pl.coalesce(leading_bits(pl.col("content_hash")), pl.col("line_number").cast(pl.UInt64))  # any part will do without a hash
    return in_parts(records, key, n_rows, PART_ROWS, folder, row_bytes)


@dataclass(frozen=True)
class Decided:
    """The candidates with their `duplicate_group`: those that are kept, and with `rule` and `reason` those that are not."""

    kept: pl.LazyFrame
    rejected: pl.LazyFrame


def decide(
    parts: Sequence[pl.LazyFrame],
    settings: CleaningSettings,
    scratch: Path,
    differ: Differ = pl.Expr.ne,
    standing: Standing | None = None,
    *,
    by_file: bool = False,
    row_bytes: float | None = None,
) -> Decided:
    """Which of the candidates are kept.

    Expects them `by_text`, with `clean_text`, `clean_label`, `content_hash`, `near_bands`, `near_sketch` and the columns of `FIRST`. Of
    records with the same text and the same label the first is kept; where any label differs from the first one's, by `differ`, none is,
    since nobody can say which one is right, but where the other one is of a higher `split_rank`, which then goes alone. Those with nearly
    the same text share a group, and where they are to be dropped only the first of a group is kept; none is beside one of a lower
    `split_rank`, which `by_file` says that some have. Of the texts of other records `standing` tells. Files go to `scratch`; a record has
    about `row_bytes`, where that is known.
    """

    columns = parts[0].collect_schema()
    schema = pl.Schema({**columns, "rule": pl.String(), "reason": pl.String(), "stands": pl.Boolean()})

    def judge(number: int, repeated: pl.LazyFrame) -> pl.LazyFrame:
        judged = _judge_repeated(repeated.collect(), drop_duplicates=settings.drop_duplicates, differ=differ)
        return spilled(judged.lazy().select(schema.names()), scratch / "judged" / f"{number}.parquet", row_bytes)

    alone, repeated = zip(*concurrently(_divided, parts), strict=True)
    judged = list(concurrently(lambda numbered: judge(*numbered), enumerate(repeated)))
    passed = pl.col("rule").is_null()
    kept = [*alone, *(part.filter(passed).select(columns.names()) for part in judged)]
    rejected = [part.filter(~passed).drop("stands") for part in judged]
    near, groups = settings.near_duplicates, None
    if near.action != "off":
        texts = ("content_hash", "clean_text", "near_bands", "near_sketch")
        compared = in_turn([part.select(texts) for part in (*alone, *(part.filter("stands") for part in judged))])
        groups = find_groups(compared, near.similarity, scratch, standing, row_bytes)
    decided = Decided(*(in_turn([_grouped(part, groups) for part in frames]) for frames in (kept, rejected)))
    if groups is None or (near.action == "group" and not by_file):
        return decided
    return _drop_near_duplicates(decided, groups, of_all_ranks=near.action == "drop")


def _grouped(records: pl.LazyFrame, groups: pl.DataFrame | None) -> pl.LazyFrame:
    """A part of the records with the `duplicate_group` of their text, which is its own hash where it is nearly like no other.

    Of all records in one query, the join would hold millions before it begins.
    """
    if groups is None:
        return records.with_columns(duplicate_group=pl.col("content_hash"))
    grouped = records.join(groups.lazy(), on="content_hash", how="left")
    return grouped.with_columns(pl.col("duplicate_group").fill_null(pl.col("content_hash")))


def _drop_near_duplicates(decided: Decided, groups: pl.DataFrame, *, of_all_ranks: bool) -> Decided:
    """Reject the texts of each group but that of its first record, or only those of a higher `split_rank` than that record's."""
    members = decided.kept.select(*FIRST, "content_hash", "duplicate_group")
    members = members.join(groups.lazy().select("content_hash"), on="content_hash", how="semi")
    first = members.sort(FIRST).group_by("duplicate_group").agg(pl.col(*FIRST, "content_hash").first().name.prefix("_first_")).collect()
    joined = decided.kept.join(first.lazy(), on="duplicate_group", how="left")
    another = pl.col("content_hash") != pl.col("_first_content_hash")
    repeats = (another if of_all_ranks else pl.col("split_rank") > pl.col("_first_split_rank")).fill_null(False)
    reason = pl.format(
        "nearly repeats {} line {} (row {}), itself or by way of others", "_first_source_file", "_first_line_number", "_first_row_id"
    )
    dropped = joined.filter(repeats).with_columns(rule=pl.lit("near_duplicate"), reason=reason)
    return Decided(
        kept=joined.filter(~repeats).select(decided.kept.collect_schema().names()),
        rejected=pl.concat([decided.rejected, dropped.select(decided.rejected.collect_schema().names())]),
    )


def _divided(part: pl.LazyFrame) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """The candidates of a part whose text no other one has, and those whose text another one has too."""
    hashes = part.select("content_hash").collect()["content_hash"]
    repeated = pl.col("content_hash").is_in(hashes.filter(hashes.is_duplicated()).unique().implode())
    return part.filter(~repeated), part.filter(repeated)


def _judge_repeated(candidates: pl.DataFrame, differ: Differ, *, drop_duplicates: bool) -> pl.DataFrame:
    """`candidates`, each of which has another one with its text, with `rule` and `reason` where they are not to be kept.

    One record of each text that nobody contradicts `stands` for it.
    """
    ordered = candidates.sort(FIRST)
    groups = ordered.group_by("content_hash", maintain_order=True)
    shared = groups.agg(pl.col(column).first().alias(f"_first_{column}") for column in (*FIRST, "clean_label"))
    other = (
        ordered.join(shared, on="content_hash", how="inner")
        .filter(differ(pl.col("clean_label"), pl.col("_first_clean_label")) & (pl.col("split_rank") == pl.col("_first_split_rank")))
        .group_by("content_hash", maintain_order=True)
        .agg(*(pl.col(column).first().alias(f"_other_{column}") for column in (*FIRST, "clean_label")))
    )
    joined = ordered.join(shared, on="content_hash").join(other, on="content_hash", how="left")
    differs = differ(pl.col("clean_label"), pl.col("_first_clean_label"))
    of_other_split = pl.col("split_rank") > pl.col("_first_split_rank")
    conflicting = pl.col("_other_row_id").is_not_null() | (differs & of_other_split)
    repeats = (pl.col("row_id") != pl.col("_first_row_id")) & (of_other_split | drop_duplicates)
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
