"""From records to examples: normalisation, the rules that a record must pass, and the increment that follows.

Every raw record ends up in exactly one of the two results, a cleaned example or a rejected row. Duplicates are decided in
`deduplication.py`, splits in `splitting.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from trainpipe_assets.data import minhash
from trainpipe_assets.data.batches import count_rows, mapped
from trainpipe_assets.data.content_hash import content_hash
from trainpipe_assets.data.deduplication import by_text, decide, with_near_bands
from trainpipe_assets.data.documents import clean_documents
from trainpipe_assets.data.labels import Labels, Rule, labels_of_task
from trainpipe_assets.data.languages import judge_languages
from trainpipe_assets.data.near_duplicates import Standing
from trainpipe_assets.data.normalisation import n_words, normalise_text
from trainpipe_assets.data.redaction import redact
from trainpipe_assets.data.splitting import split_rank, with_split
from trainpipe_assets.data.touched import DecidedRecords, touched
from trainpipe_assets.data.validation import judge_records
from trainpipe_assets.schemas import CLEANED_FEATURES, RAW_DATA, REJECTED_ROWS
from trainpipe_assets.settings import LONGEST_LABELLED, CleaningSettings, PipelineSettings, RecordRule, SourceKind, SplitSettings, Task
from trainpipe_assets.storage.increments import Changes, Increment

VERSION = f"7-{minhash.ALGORITHM}"  # raise it when the same records would be cleaned differently: the tables are then rebuilt

_NOT_OF_SPLITTING = {"min_examples"}  # which the training asks for
LABELLED = ("labelled", "multi-labelled")  # kinds of sources whose texts have labels
BATCH_ROWS = 50_000  # records normalised and judged at a time

_ORIGIN = ("row_id", "file_id", "source_file", "line_number", "text", "label")
_JUDGED = pl.Schema(  # `text` is null where a record passed and `clean_text` is the same: most are set down once, not twice
    {name: RAW_DATA[name] for name in _ORIGIN}
    | {"clean_text": pl.String, "clean_label": pl.String, "rule": pl.String, "reason": pl.String}
    | {name: CLEANED_FEATURES[name] for name in ("messages", "n_redacted", "warnings", "content_hash", "near_bands")}
    | {"near_sketch": minhash.SKETCH}
)


# What other records decide of a row.
_BECAME = {"cleaned_features": ("split", "duplicate_group"), "rejected_rows": ("rule", "reason", "duplicate_group")}


@dataclass(frozen=True)
class Cleaned:
    """The two places where a record can end up, in the schemas of `cleaned_features` and `rejected_rows`."""

    examples: pl.LazyFrame
    rejected: pl.LazyFrame


def with_clean_text(records: pl.DataFrame, kind: SourceKind, settings: CleaningSettings) -> pl.DataFrame:
    """`records` with their `clean_text`, normalised and free of the personal data to be replaced, and with `n_redacted`.

    Documents of a language model have `messages` too, and a `fault` where they are none; both are null for labelled texts.
    """
    if kind not in LABELLED:
        return clean_documents(records, kind, settings)
    normalised = records.with_columns(
        clean_text=normalise_text(pl.col("text"), settings), messages=pl.lit(None, pl.String), fault=pl.lit(None, pl.String)
    )
    redacted = redact(normalised["clean_text"], settings.redact, settings.phone_region)
    return normalised.with_columns(redacted["text"].alias("clean_text"), redacted["n_redacted"])


def clean(
    records: pl.LazyFrame,
    settings: CleaningSettings,
    split: SplitSettings,
    scratch: Path,
    kind: SourceKind = "labelled",
    rules: Sequence[RecordRule] = (),
    task: Task = "text-classification",
) -> Cleaned:
    """Clean `records` (schema `RAW_DATA`) as if they were all there is. The result reads files in the folder `scratch`."""
    labels = _labels(task, kind, settings)
    judge = partial(_judge, settings=settings, kind=kind, rules=rules, labels=labels)
    parts = by_text(_judged(records, judge), count_rows(records), scratch / "all")
    return _decided(parts, settings, split, scratch, labels)


def _labels(task: Task, kind: SourceKind, settings: CleaningSettings) -> Labels | None:
    return labels_of_task(task, settings) if kind in LABELLED else None


def _judged(records: pl.LazyFrame, judge: Callable[[pl.DataFrame], pl.DataFrame]) -> pl.LazyFrame:
    """`records` normalised and judged each by itself, in the schema `_JUDGED`: `rule` is null where they passed."""
    return mapped(records, judge, _JUDGED, BATCH_ROWS, threads=True)


def _judge(
    records: pl.DataFrame, settings: CleaningSettings, kind: SourceKind, rules: Sequence[RecordRule], labels: Labels | None
) -> pl.DataFrame:
    texts = with_clean_text(records, kind, settings)
    label = labels.normalised(pl.col("label")) if labels else pl.lit(None, pl.String)
    of_kind = labels.rules() if labels else _rules_of_documents(kind)
    rule, reason = _first_failed_rule(settings, kind, of_kind)
    ruled = texts.with_columns(clean_label=label).with_columns(rule)
    failed = ruled.filter(pl.col("rule").is_not_null()).with_columns(reason)
    left = ruled.filter(pl.col("rule").is_null()).with_columns(reason=pl.lit(None, pl.String))
    judged = judge_records(judge_languages(left, settings), rules)
    passed = judged["rule"].is_null()
    candidates = judged.filter(passed).with_columns(content_hash=content_hash(pl.col("clean_text")))
    candidates = with_near_bands(candidates, settings.near_duplicates)
    candidates = candidates.with_columns(pl.when(pl.col("text") != pl.col("clean_text")).then("text"))
    return pl.concat([candidates, judged.filter(~passed), failed], how="diagonal").select(_JUDGED.names()).cast(_JUDGED)


def _decided(
    parts: Sequence[pl.LazyFrame],
    settings: CleaningSettings,
    split: SplitSettings,
    scratch: Path,
    labels: Labels | None,
    standing: Standing | None = None,
    row_bytes: float | None = None,
) -> Cleaned:
    passed = pl.col("rule").is_null()
    failed = pl.concat(parts).filter(~passed).with_columns(duplicate_group=pl.lit(None, pl.String))
    rank = split_rank(pl.col("source_file"), split).alias("split_rank")
    candidates = [part.filter(passed).drop("rule", "reason").with_columns(rank) for part in parts]
    differ = labels.differ if labels else pl.Expr.ne
    decided = decide(candidates, settings, scratch, differ, standing, by_file=split.by_file, row_bytes=row_bytes)
    rejected = decided.rejected.with_columns(pl.coalesce("text", "clean_text"))
    return Cleaned(
        examples=_as_examples(decided.kept, split),
        rejected=pl.concat([frame.select(REJECTED_ROWS.names()) for frame in (failed, rejected)]),
    )


def _first_failed_rule(settings: CleaningSettings, kind: SourceKind, of_kind: Sequence[Rule]) -> tuple[pl.Expr, pl.Expr]:
    """The columns `rule` and `reason` for the rules that look at one record alone."""
    chars = pl.col("clean_text").str.len_chars()
    longest = settings.max_chars or (LONGEST_LABELLED if kind in LABELLED else None)
    rules: list[Rule] = [
        ("unreadable", pl.col("problem").is_not_null(), pl.col("problem")),
        ("missing_text", pl.col("text").is_null(), pl.lit("the text is null")),
        *of_kind,
        ("empty_text", chars == 0, pl.lit("nothing is left of the text after normalisation")),
        ("too_short", chars < settings.min_chars, pl.format(f"{{}} characters, at least {settings.min_chars} are needed", chars)),
        ("too_long", chars > pl.lit(longest, pl.Int64), pl.format(f"{{}} characters, at most {longest} are allowed", chars)),
    ]
    rule = pl.coalesce([pl.when(failed).then(pl.lit(name)) for name, failed, _ in rules])
    reason = pl.coalesce([pl.when(failed).then(why) for _, failed, why in rules])
    return rule.alias("rule"), reason.alias("reason")


def _rules_of_documents(kind: SourceKind) -> list[Rule]:
    if kind == "prompt-completion":
        empty = pl.col("label").fill_null("").str.strip_chars() == ""
        nothing_left = ("missing_completion", pl.col("fault").is_not_null(), pl.col("fault"))
        return [("missing_completion", empty, pl.lit("the completion is null or empty")), nothing_left]
    return [("no_conversation", pl.col("fault").is_not_null(), pl.col("fault"))]


def _as_examples(kept: pl.LazyFrame, split: SplitSettings) -> pl.LazyFrame:
    named = kept.drop("text", "label").rename({"clean_text": "text", "clean_label": "label"})
    counted = named.with_columns(n_chars=pl.col("text").str.len_chars(), n_words=n_words(pl.col("text")))
    return with_split(counted, split).select(CLEANED_FEATURES.names()).cast(CLEANED_FEATURES)


def clean_changes(
    changes: Changes,
    settings: CleaningSettings,
    split: SplitSettings,
    scratch: Path,
    kind: SourceKind = "labelled",
    rules: Sequence[RecordRule] = (),
    task: Task = "text-classification",
) -> tuple[Increment, Increment]:
    """The increments of `cleaned_features` and `rejected_rows` that `changes` of `raw_data` call for.

    A record that comes or goes can change the fate of those with the same or nearly the same text. All of them are decided again,
    together with the new ones; only the rows whose fate did change are written. The increments read files in the folder `scratch`.
    """
    if changes.empty:
        return changes.nothing("cleaned_features"), changes.nothing("rejected_rows")
    examples, rejected = changes.own("cleaned_features"), changes.own("rejected_rows")
    labels = _labels(task, kind, settings)
    judge = partial(_judge, settings=settings, kind=kind, rules=rules, labels=labels)
    n_coming = changes.source.rows if changes.rebuild else count_rows(changes.added)
    row_bytes = changes.source.row_bytes
    parts = by_text(_judged(changes.added, judge), n_coming, scratch / "coming", row_bytes)
    if changes.removed is None or examples is None or rejected is None:
        result = _decided(parts, settings, split, scratch, labels, row_bytes=row_bytes)
        return changes.increment("cleaned_features", result.examples, None), changes.increment("rejected_rows", result.rejected, None)
    decided = DecidedRecords(examples, rejected)
    found = touched(pl.concat(parts), changes.removed, decided, settings.near_duplicates, scratch)
    again = found.records.select("row_id")
    if again.height:
        records = changes.source.scan().filter(pl.col("row_id").is_in(again["row_id"].implode()))
        together = pl.concat([*parts, _judged(records, judge)])
        parts = by_text(together, n_coming + again.height, scratch / "together", row_bytes)
    standing = found.standing(pl.concat(parts), decided) if settings.near_duplicates.action != "off" else None
    result = _decided(parts, settings, split, scratch, labels, standing, row_bytes)
    gone = pl.concat([changes.removed.select("row_id"), again])
    return (
        _increment(changes, "cleaned_features", result.examples, examples, gone),
        _increment(changes, "rejected_rows", result.rejected, rejected, gone),
    )


def determinants(settings: PipelineSettings) -> Mapping[str, Any]:
    """Everything that fixes how examples follow from raw records, by name."""
    rules, split = settings.validation.record_rules, settings.split.model_dump(mode="json", exclude=_NOT_OF_SPLITTING)
    return {"version": VERSION, "cleaning": settings.cleaning, "split": split, "rules": rules, "task": settings.task}


def summary(examples: Increment, settings: CleaningSettings) -> dict[str, int]:
    """What is worth telling of an increment of `cleaned_features` beside its size."""
    if not settings.redact:
        return {}
    return {"redacted": int(examples.added.select(pl.col("n_redacted").sum()).collect().item())}


def _increment(changes: Changes, output: str, result: pl.LazyFrame, standing: pl.LazyFrame, gone: pl.DataFrame) -> Increment:
    """Replace the rows in `gone` by `result`, leaving alone those that would be written as they stand.

    What became of a record is compared; the rest of its row follows from the record and the settings.
    """
    if gone.is_empty():
        return changes.increment(output, result, gone)
    became = ("row_id", *_BECAME[output])
    affected = standing.filter(pl.col("row_id").is_in(gone["row_id"].implode())).select(became).collect()
    again = result.filter(pl.col("row_id").is_in(affected["row_id"].implode())).select(became).collect()
    same = again.join(affected, on=again.columns, how="semi", nulls_equal=True).select("row_id")
    return changes.increment(
        output,
        result.join(same.lazy(), on="row_id", how="anti"),
        affected.select("row_id").join(same, on="row_id", how="anti"),
    )
