"""Arrivals against what the current model was trained on, as a step: which rows, which history, what the UI shows.

An arrival is what came since the last comparison with the same model, so that each is judged by itself: one that differs does not drown
in others that do not. What counts as drift is `trainpipe_assets.evaluation.drift`'s.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets.data.splitting import RANKS, split_rank
from trainpipe_assets.evaluation import drift
from trainpipe_assets.evaluation.drift import TEXT_CHARS, DriftComparison, compare
from trainpipe_assets.evaluation.drift_plot import drift_plot
from trainpipe_assets.evaluation.intervals import rounded
from trainpipe_assets.pipeline.current_model import history_of, newest_evaluated, version_in
from trainpipe_assets.pipeline.metadata import markdown_table, picture
from trainpipe_assets.schemas import DRIFT_REPORT
from trainpipe_assets.settings import DriftSettings, PipelineSettings, SplitSettings
from trainpipe_assets.storage.artifacts import Artifact
from trainpipe_assets.storage.delta import MissingTable, Table, find
from trainpipe_assets.storage.differences import difference
from trainpipe_assets.storage.identity import as_hex, fingerprint
from trainpipe_assets.storage.increments import Increment

CHECK, COMPARISON = "no_drift", "comparison_id"
EXAMPLES = "cleaned_features"
COMPARED = ("model_fingerprint", "settings", "reference_version", "since_version", "dataset_version")  # by which a comparison is known


@dataclass(frozen=True)
class Sides:
    """Samples of what the model was trained on, version `trained_on`, and of what has arrived since `since`: `arrived` examples in all."""

    reference: pl.DataFrame
    arrival: pl.DataFrame
    trained_on: int
    arrived: int
    since: int


@dataclass(frozen=True)
class NothingToCompare:
    """Why arrivals are not compared this time, and whether that stays so until a person does something."""

    reason: str
    for_good: bool = False


@dataclass(frozen=True)
class DriftStep:
    """What a comparison adds to the history, what the UI shows of it, and the verdict on all that the current model has not seen."""

    increment: Increment
    metadata: Mapping[str, Any]
    check: dg.AssetCheckResult


def compare_with_model(
    *, history_uri: str, model: Artifact | None, examples: Table, settings: DriftSettings, split: SplitSettings, now: datetime
) -> DriftStep:
    """Compare what came to `examples` (cleaned_features) since the last comparison with what `model` was trained on.

    Where there is nothing to compare, the history stays as it is. Comparisons by other settings are not looked at any more.
    """
    history = find(history_uri)
    rows = history_of(history) if history else pl.DataFrame(schema=DRIFT_REPORT)
    known = of_model(rows, model.fingerprint if model else "", examples, settings)
    newest = next(_standing(known, examples, split), None)
    sides = _sides(model, examples, newest, settings, split)
    metadata: dict[str, Any] = {"compared": isinstance(sides, Sides), **({"model_fingerprint": model.fingerprint} if model else {})}
    if isinstance(sides, NothingToCompare) or model is None:
        assert isinstance(sides, NothingToCompare)
        metadata |= {"reason": sides.reason, **(_named(newest) if newest else {})}
        new = rows.clear()
    else:
        comparison = compare(sides.reference, sides.arrival, settings, model.task)
        new = pl.DataFrame([_row(comparison, sides, model, examples, settings, now)], schema=DRIFT_REPORT)
        metadata |= _shown(new.row(0, named=True)) | _pictures(comparison)
    nothing = pl.DataFrame(schema={"row_id": pl.String})
    made_by = fingerprint("drift_report", drift.VERSION)
    empty = history is not None and history.covers(examples) and new.is_empty()
    increment = Increment(history_uri, history, new.lazy(), nothing, made_by, examples.content, examples.identity, empty)
    blind = isinstance(sides, NothingToCompare) and sides.for_good
    found = telling(pl.concat([known, new]), examples, split)
    return DriftStep(increment, metadata, _verdict(found, metadata, settings, blind=blind))


def of_model(rows: pl.DataFrame, model_fingerprint: str, examples: Table, settings: DriftSettings) -> pl.DataFrame:
    """The comparisons of just this table with a model by these very settings, the oldest first."""
    mine = rows.filter(pl.col("model_fingerprint") == model_fingerprint, pl.col("settings") == _judge(settings))
    ids = [_comparison_id(row, examples) for row in mine.iter_rows(named=True)]
    return mine.filter(pl.col("comparison_id") == pl.Series(ids, dtype=pl.String)).sort("dataset_version", "compared_at")


def _comparison_id(row: Mapping[str, Any], examples: Table) -> str:
    """Identity of a row of the history, which is of `examples` and not of a table that was there before."""
    return as_hex(fingerprint(examples.identity, *(row[name] for name in COMPARED)))


def telling(comparisons: pl.DataFrame, examples: Table, split: SplitSettings) -> dict[str, Any] | None:
    """Of comparisons with one model the newest that found drift in what is still there, else the newest; None where there is none."""
    found = _standing(comparisons, examples, split)
    newest = next(found, None)
    if newest is None or newest["drifted"]:
        return newest
    return next((row for row in found if row["drifted"]), newest)


def _standing(comparisons: pl.DataFrame, examples: Table, split: SplitSettings) -> Iterator[dict[str, Any]]:
    """Those that still tell of `examples`, the newest first: a drift does not, of which most examples were withdrawn since."""
    for row in comparisons.reverse().iter_rows(named=True):
        if not row["drifted"] or not _was_withdrawn(row, examples, split):
            yield row


def _was_withdrawn(comparison: Mapping[str, Any], examples: Table, split: SplitSettings) -> bool:
    """Whether more than half of the arrival is gone by now; not, where that cannot be told any more."""
    since, upto = comparison["since_version"], comparison["dataset_version"]
    if examples.content <= upto:
        return False
    changed = difference(examples, upto)
    then = find(examples.uri, upto) if changed else None
    arrived = _arrivals(then, since, split) if then else None
    if changed is None or then is None or arrived is None:
        return False
    gone = (
        then.scan()
        .join(changed.removed.lazy(), on="row_id", how="semi")
        .join(changed.added, on="content_hash", how="anti")
        .select("row_id")
    )
    return bool(2 * arrived.join(gone, on="row_id", how="semi").select(pl.len()).collect().item() > comparison["n_arrived"])


def unanswered_drift(
    drift_history: Table | None, evaluations: Table | None, model: Artifact, settings: PipelineSettings, examples: Table | None
) -> str | None:
    """Id of a comparison that found drift from `model`, the current one, in examples that no evaluated model was trained on yet."""
    if drift_history is None or examples is None:
        return None
    newest = telling(of_model(history_of(drift_history), model.fingerprint, examples, settings.drift), examples, settings.split)
    if newest is None or not newest["drifted"]:
        return None
    evaluated = newest_evaluated(evaluations)
    trained_on = version_in(evaluated, examples) if evaluated else None
    return None if trained_on is not None and trained_on >= newest["dataset_version"] else str(newest["comparison_id"])


def _judge(settings: DriftSettings) -> str:
    """Identity of what decides a verdict."""
    return as_hex(fingerprint(drift.VERSION, settings.model_dump(mode="json", exclude={"enabled", "severity"})))


def _sides(
    model: Artifact | None, examples: Table, newest: Mapping[str, Any] | None, settings: DriftSettings, split: SplitSettings
) -> Sides | NothingToCompare:
    if model is None:
        return NothingToCompare("no model of this task has passed the gate yet")
    trained_on = version_in(model, examples)
    if trained_on is None:
        remedy = "arrivals are compared again once a model is trained on the new table (`force` does so at once)"
        return NothingToCompare(f"{EXAMPLES} was deleted and made anew since the current model was trained on it: {remedy}", for_good=True)
    try:
        reference = find(examples.uri, trained_on)
    except MissingTable as error:
        return NothingToCompare(f"what the current model was trained on cannot be read any more: {error}")
    assert reference is not None
    for since in [*([newest["dataset_version"]] if newest else []), trained_on]:  # the former may have been vacuumed, the latter is pinned
        arrivals = _arrivals(examples, since, split)
        if arrivals is not None:
            return _sampled(reference, arrivals, since, settings)
    return NothingToCompare(f"{EXAMPLES} is at version {examples.version}, before what the current model was trained on ({trained_on})")


def _sampled(reference: Table, arrivals: pl.LazyFrame, since: int, settings: DriftSettings) -> Sides | NothingToCompare:
    arrived = int(arrivals.select(pl.len()).collect().item())
    if arrived < settings.min_rows:
        found = f"{arrived:,} new example(s), {settings.min_rows:,} are needed (drift.min_rows)"
        return NothingToCompare(found if arrived else "nothing has arrived that was not trained on or compared before")
    trained = sample(reference.scan().filter(pl.col("split") == "train"), reference.rows, settings.sample_rows)
    if trained.height < drift.FOLDS:
        return NothingToCompare(f"the current model was trained on {trained.height} example(s), too few to compare with")
    return Sides(trained, sample(arrivals, arrived, settings.sample_rows), reference.version, arrived, since)


def _arrivals(examples: Table, since: int, split: SplitSettings) -> pl.LazyFrame | None:
    """The examples that came after version `since`, but not those whose text was there under another key: a file that grew is read anew.

    What files bring that are a split of their own is no arrival: no training can answer it.
    """
    found = difference(examples, since)
    if found is None:
        return None
    added = found.added.filter(split_rank(pl.col("source_file"), split) == RANKS[None]) if split.by_file else found.added
    before = find(examples.uri, since) if found.removed.height else None
    if before is None:
        return added
    texts = before.scan().join(found.removed.lazy(), on="row_id", how="semi").select("content_hash")
    return added.join(texts, on="content_hash", how="anti")


def sample(rows: pl.LazyFrame, total: int, count: int) -> pl.DataFrame:
    """`count` of `total` rows: those with the smallest content hashes, which is as good as drawn at random and always the same.

    A bound on the hash, three times as high as needed, lets the reader drop nearly all rows before it takes their texts up. Where texts
    repeat, it may drop too many; then there is none.
    """
    highest = min(16**8 - 1, 3 * count * 16**8 // max(total, 1))
    few = rows.filter(pl.col("content_hash").str.slice(0, 8) <= f"{highest:08x}")
    found = _smallest(few, count)
    return found if found.height == count else _smallest(rows, count)


def _smallest(rows: pl.LazyFrame, count: int) -> pl.DataFrame:
    wanted = rows.select("content_hash", pl.col("text").str.slice(0, TEXT_CHARS), "label", "n_chars")
    return wanted.bottom_k(count, by="content_hash").collect(engine="streaming").sort("content_hash", "label")


def _row(
    comparison: DriftComparison, sides: Sides, model: Artifact, examples: Table, settings: DriftSettings, now: datetime
) -> dict[str, Any]:
    row = {
        "compared_at": now,
        "model_uri": model.uri,
        "model_fingerprint": model.fingerprint,
        "dataset_uri": examples.uri,
        "reference_version": sides.trained_on,
        "since_version": sides.since,
        "dataset_version": examples.version,
        "n_reference": sides.reference.height,
        "n_arrived": sides.arrived,
        "n_compared": sides.arrival.height,
        **{shift.name: shift.statistic for shift in comparison.shifts},
        "vocabulary_coverage": comparison.vocabulary_coverage,
        "drifted": comparison.drifted,
        "tests": json.dumps({shift.name: shift.as_dict() for shift in comparison.shifts}),
        "settings": _judge(settings),
    }
    return {"comparison_id": _comparison_id(row, examples), **row}


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Which comparison it is; also where nothing new was compared, and the newest is shown still."""
    return {COMPARISON: row["comparison_id"], "compared_at": dg.MetadataValue.timestamp(row["compared_at"])}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the history for the UI; its plain numbers are plotted there over time."""
    tests = json.loads(row["tests"])
    lines = [
        (name, *(_plain(test[key]) for key in ("statistic", "threshold", "p_value", "low", "high", "drifted")))
        for name, test in tests.items()
    ]
    columns = ("test", "statistic", "threshold", "p-value", "95% from", "to", "drifted")
    numbers = {name: rounded(test["statistic"]) for name, test in tests.items()}
    return {
        **_named(row),
        "drifted": row["drifted"],
        "tests": markdown_table(pl.DataFrame(lines, schema=dict.fromkeys(columns, pl.String), orient="row")),
        **numbers,
        "vocabulary_coverage": rounded(row["vocabulary_coverage"]),
        "trained_on": f"{EXAMPLES} version {row['reference_version']}",
        "arrived": f"{row['n_arrived']:,} examples after version {row['since_version']}, up to version {row['dataset_version']}",
        "examples_compared": f"{row['n_compared']:,} with {row['n_reference']:,}",
    }


def _plain(value: float | bool | None) -> str:
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.3g}"


def _pictures(comparison: DriftComparison) -> dict[str, Any]:
    words = [(word.word, f"{word.reference:.1f}", f"{word.arrival:.1f}") for word in comparison.changed_words]
    columns = ("word", "trained on, of 1,000 words", "arrived, of 1,000 words")
    return {
        "comparison": picture(drift_plot(comparison), "what the model was trained on against what arrived"),
        "changed_words": markdown_table(pl.DataFrame(words, schema=dict.fromkeys(columns, pl.String), orient="row")),
    }


def _verdict(found: Mapping[str, Any] | None, metadata: Mapping[str, Any], settings: DriftSettings, *, blind: bool) -> dg.AssetCheckResult:
    """Whether any arrival since the current model was trained had drifted from it; `found` is that one, else the newest comparison.

    Where that cannot be told, the check warns.
    """
    if blind:
        severity = dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(
            check_name=CHECK, passed=False, severity=severity, description=metadata["reason"], metadata=dict(metadata)
        )
    shown = _shown(found) if found else {}
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=found is None or not found["drifted"],
        severity=dg.AssetCheckSeverity[settings.severity.upper()],
        metadata={**shown, **metadata} if metadata["compared"] else {**metadata, **shown},
    )
