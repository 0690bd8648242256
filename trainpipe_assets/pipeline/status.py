"""Where a pipeline stands: what has arrived, what is pending, the current model and its verdict.

Read from the landing folder, the lake and the manifests, so that it is true with or without a Dagster instance. Only whether a run is
under way is known to none but the instance.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy.exc import SQLAlchemyError

from trainpipe_assets.data.ingestion import Arrivals, find_arrivals, first_of, pending
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.evaluation.intervals import written
from trainpipe_assets.pipeline.changed import changed
from trainpipe_assets.pipeline.component import TrainingPipeline, checked_name, component_tree
from trainpipe_assets.pipeline.current_model import current_model, history_of
from trainpipe_assets.pipeline.declared import pipeline_files
from trainpipe_assets.pipeline.drift import of_model, telling
from trainpipe_assets.pipeline.failures import one_message, shortened
from trainpipe_assets.pipeline.keys import TABLES, PipelineKeys
from trainpipe_assets.pipeline.resources import Lake, pipelines_folder
from trainpipe_assets.pipeline.runs import PipelineRuns
from trainpipe_assets.pipeline.unfinished import unfinished, wanted
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.artifacts import read_manifest
from trainpipe_assets.storage.delta import Table, find
from trainpipe_assets.storage.objects import stored
from trainpipe_assets.storage.s3 import explained as explained_s3
from trainpipe_assets.storage.uris import is_remote, open_filesystem

HEADLINES = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "rmse", "r2", "perplexity", "token_accuracy")
SHOWN_FILES, SHOWN_LETTERS = 5, 120


def load_pipelines(only: str | None = None) -> dict[str, PipelineSettings]:
    """The settings of every pipeline that is declared and enabled, by name; of one where `only` names it.

    Only the files that declare pipelines are read: beside them there may be all that a Dagster project has.

    Raises:
        ValueError: there is no pipeline of that name, or it is not enabled, or a `defs.yaml` has a mistake, or two cannot live together.
    """
    with one_message():
        declared = pipeline_files(pipelines_folder())
        found = {path.parent.name: component_tree(path.parent).load_component(Path()) for path in declared}
    known = {name: component.settings for name, component in found.items() if isinstance(component, TrainingPipeline)}
    pipelines = {checked_name(name): settings for name, settings in known.items() if settings.enabled}
    folder = shortened(str(pipelines_folder()))
    if only in known and only not in pipelines:
        raise ValueError(f"the pipeline {only!r} is switched off: set `enabled: true` in {folder}/{only}/defs.yaml")
    if only is None:
        return pipelines
    if only not in pipelines:
        raise ValueError(f"there is no pipeline {only!r}; there are: {', '.join(pipelines) or 'none'} (folders under {folder})")
    return {only: pipelines[only]}


def load_pipeline(name: str | None) -> tuple[str, PipelineSettings]:
    """One pipeline and its settings: the one of that name; without one the only one there is, or of several the one without a key prefix.

    Raises:
        ValueError: there is none of that name, or several and no name; or a `defs.yaml` has a mistake.
    """
    pipelines = load_pipelines(name)
    plain = [name for name, settings in pipelines.items() if not settings.key_prefix]
    chosen = next(iter(pipelines if len(pipelines) == 1 else plain), None)
    if chosen is None:
        raise ValueError(f"which pipeline? Name one with --pipeline; there are: {', '.join(pipelines) or 'none'}")
    return chosen, pipelines[chosen]


def pipeline_status(lake: Lake, name: str, settings: PipelineSettings) -> dict[str, Any]:
    """Where a pipeline stands, ready for JSON.

    `unfinished` names the tables that do not cover all of what they are made from: a run failed, was canceled, or is at it.
    `changed` says of each table, and of the model that was evaluated last, in what the settings differ from those that made it.
    `model` and `drift` speak of the current model, the newest that is there and passed the gate; `gate` and `latest` of the newest
    evaluation.
    """
    keys = PipelineKeys(settings.key_prefix)
    tables = {name: find(lake.table_uri(keys[name])) for name in TABLES}
    landing = lake.landing_uri(settings.source)
    there = is_remote(landing) or Path(landing).is_dir()
    landed = list_landed(landing, settings.source) if there else []
    raw = tables["raw_data"]
    arrivals = find_arrivals(landed, raw) if there else Arrivals((), (), ())
    history = evaluation_history(tables["eval_report"])
    current = current_model(tables["eval_report"], settings.task)
    newest = read_manifest(history[-1]["model_uri"]) if history else None
    judged = [row for row in history if current is not None and row["gate_passed"] and row["model_fingerprint"] == current.fingerprint]
    return {
        "run": run_under_way(name, settings),
        "landing": landing,
        "landing_exists": there,
        "landed_files": len(landed),
        "pending_files": [file.path for file in pending(landed, raw)],
        "withdrawn_files": sorted(set(arrivals.withdrawn) - {file.path for file in landed}),
        "unreadable_files": list(arrivals.barred),
        "unfinished": unfinished({table: tables[table] for table in wanted(settings, has_model=bool(judged))}),
        "changed": changed(settings, tables, newest),
        "unusable_files": unusable_files(raw),
        "tables": {name: {"version": table.version, "rows": table.rows, "uri": table.uri} for name, table in tables.items() if table},
        "rejected": rejected_by_rule(tables["rejected_rows"]),
        "model": describe_model(judged[-1], exists=True) if judged else None,
        "gate": describe_gate(history[-1]) if history else None,
        "latest": describe_model(history[-1], exists=newest is not None) if history else None,
        "drift": describe_drift(tables, judged[-1]["model_fingerprint"], settings) if judged else None,
    }


def run_under_way(name: str, settings: PipelineSettings) -> str | None:
    """Id of a run of the pipeline that is queued or in progress; None also without DAGSTER_HOME, or where the instance cannot be opened."""
    if not os.environ.get("DAGSTER_HOME"):
        return None
    try:
        with dg.DagsterInstance.get() as instance:
            return PipelineRuns(instance, name, PipelineKeys(settings.key_prefix)).under_way()
    except (dg.DagsterError, ValueError, OSError, SQLAlchemyError):  # `trainpipe doctor` says what is wrong with it
        return None


def local_report(lake: Lake, name: str, settings: PipelineSettings) -> Path:
    """The report of the newest evaluation, as a local file; one on S3 is copied below the scratch folder.

    Raises:
        ValueError: nothing was evaluated yet, or the report is not there any more.
    """
    history = evaluation_history(find(lake.table_uri(PipelineKeys(settings.key_prefix)["eval_report"])))
    if not history:
        raise ValueError(f"the pipeline {name!r} has no evaluation yet; materialize eval_report, then there is a report")
    uri = history[-1]["report_uri"]
    if stored(uri) is None:
        raise ValueError(f"the report {uri} is not there any more; materialize eval_report again")
    filesystem, path = open_filesystem(uri)
    if not is_remote(uri):
        return Path(path)
    local = Path(lake.scratch).absolute() / "reports" / Path(path).name
    local.parent.mkdir(parents=True, exist_ok=True)
    with explained_s3(uri):
        filesystem.get_file(path, str(local))
    return local


def unusable_files(raw: Table | None) -> dict[str, str]:
    """Each file of which no record can be used, and what is wrong with its first one."""
    if raw is None:
        return {}
    files = raw.scan().group_by("source_file").agg(usable=pl.col("problem").is_null().any(), problem=pl.col("problem").first())
    found = files.filter(~pl.col("usable")).select("source_file", "problem").collect(engine="streaming").sort("source_file")
    return dict(found.iter_rows())


def evaluation_history(table: Table | None) -> list[dict[str, Any]]:
    """All evaluations, the oldest first."""
    return history_of(table).sort("evaluated_at").to_dicts() if table else []


def rejected_by_rule(table: Table | None) -> dict[str, int]:
    """How many rows each rule rejected, the busiest rule first."""
    if table is None:
        return {}
    counts = table.scan().group_by("rule").len().collect(engine="streaming").sort("len", "rule", descending=[True, False])
    return dict(counts.iter_rows())


def describe_model(evaluation: dict[str, Any], *, exists: bool) -> dict[str, Any]:
    """The model of an evaluation, whose folder `exists` or was deleted, with its metrics as `{name: {value, low, high}}`."""
    return {
        "uri": evaluation["model_uri"],
        "exists": exists,
        "fingerprint": evaluation["model_fingerprint"],
        "metrics": json.loads(evaluation["metrics"]),
        "evaluated_at": evaluation["evaluated_at"].isoformat(),
        "test_examples": evaluation["n_examples"],
        "report": evaluation["report_uri"],
    }


def describe_gate(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The verdict of an evaluation."""
    return {
        "passed": evaluation["gate_passed"],
        "reasons": json.loads(evaluation["gate_reasons"]),
        "fingerprint": evaluation["model_fingerprint"],
    }


def describe_drift(tables: Mapping[str, Table | None], model_fingerprint: str, settings: PipelineSettings) -> dict[str, Any] | None:
    """The newest comparison with a model that found drift, else the newest; None where nothing was compared with it."""
    table, examples = tables["drift_report"], tables["cleaned_features"]
    if table is None or examples is None:
        return None
    found = telling(of_model(history_of(table), model_fingerprint, examples, settings.drift), examples, settings.split)
    if found is None:
        return None
    return {
        "drifted": found["drifted"],
        "compared_at": found["compared_at"].isoformat(),
        "examples": found["n_arrived"],
        "tests": json.loads(found["tests"]),
    }


def describe(name: str, status: dict[str, Any]) -> str:
    """A status in a few lines for a person."""
    lines = [f"pipeline {name}"]
    if status["run"]:
        lines.append(f"  run        {status['run']} is under way")
    rows = {table: f"{facts['rows']:,}" for table, facts in status["tables"].items()}
    if rows:
        lines.append(
            "  rows       "
            + " → ".join(f"{rows[table]} {table}" for table in ("raw_data", "cleaned_features", "tokenized_dataset") if table in rows)
        )
    if status["rejected"]:
        lines.append(
            f"  rejected   {sum(status['rejected'].values()):,}: "
            + ", ".join(f"{count:,} {rule}" for rule, count in status["rejected"].items())
        )
    waiting = status["pending_files"]
    nothing = "" if status["withdrawn_files"] else ", nothing new has arrived"
    named = f": {first_of(waiting, SHOWN_FILES)}" if waiting else nothing
    if not status["landing_exists"]:
        lines.append(f"  landing    {status['landing']} does not exist: land a file, or correct source.uri or TRAINPIPE_LANDING")
    else:
        lines.append(f"  pending    {len(waiting)} file(s){named}")
    if status["withdrawn_files"]:
        fate = "their rows go with the next run" if status["landed_files"] else "and none is left: land one, or delete the table by hand"
        lines.append(f"  withdrawn  {len(status['withdrawn_files'])} file(s), {fate}")
    if status["unreadable_files"]:
        barred = status["unreadable_files"]
        lines.append(
            f"  unreadable {len(barred)} file(s) now, permission denied; what came from them before stays: {first_of(barred, SHOWN_FILES)}"
        )
    if status["unusable_files"]:
        told = first_of([f"{file} ({problem[:SHOWN_LETTERS]})" for file, problem in status["unusable_files"].items()], SHOWN_FILES, "; ")
        lines.append(f"  unusable   {len(status['unusable_files'])} file(s), of which no record can be used: {told}")
    if status["unfinished"] and not status["run"]:
        lines.append(f"  unfinished {', '.join(status['unfinished'])}: not of all the data yet; the next run of everything goes on there")
    lines += [*_changed_lines(status["changed"]), *_model_lines(name, status), *_drift_lines(status["drift"])]
    return "\n".join(lines)


def _changed_lines(changed: Mapping[str, list[str]]) -> list[str]:
    told = [f"{asset} is of other settings: {'; '.join(sentences)}" for asset, sentences in changed.items()]
    lines = [f"  {'' if number else 'changed':<10} {one}" for number, one in enumerate(told)]
    return [*lines, f"  {'':<10} the next run of everything makes anew what follows from it"] if lines else []


def _drift_lines(drift: dict[str, Any] | None) -> list[str]:
    if drift is None:
        return []
    tests = {name: test for name, test in drift["tests"].items() if test["drifted"] or not drift["drifted"]}
    values = ", ".join(f"{name} {test['statistic']:.2f} (threshold {test['threshold']:.2f})" for name, test in tests.items())
    return [f"  drift      {'FOUND' if drift['drifted'] else 'none'} in {drift['examples']:,} examples that arrived: {values}"]


def measured(evaluation: Mapping[str, Any], metric: str) -> str:
    """What an evaluation found of `metric`, with its interval."""
    found = evaluation["metrics"][metric]
    value, low, high = (written(found[name]) for name in ("value", "low", "high"))
    return f"{value} (95% interval {low} to {high}, {evaluation['test_examples']:,} test examples)"


def _model_lines(name: str, status: dict[str, Any]) -> list[str]:
    latest, gate, model = status["latest"], status["gate"], status["model"]
    if latest is None:
        return [f"  model      none yet: `dagster asset materialize -m trainpipe_assets.definitions --select 'group:{name}'`"]
    gone = "" if latest["exists"] else "  (deleted)"
    lines = [f"  model      {latest['uri']}{gone}"]
    for metric in HEADLINES:
        if metric not in latest["metrics"]:
            continue
        lines.append(f"  {metric:<10} {measured(latest, metric)}")
    lines.append(f"  gate       {'passed' if gate['passed'] else 'FAILED'}")
    lines += [f"             - {reason}" for reason in gate["reasons"]]
    if model is None:
        lines.append("  current    no model of this task that is there has passed the gate")
    elif model["uri"] != latest["uri"]:
        lines.append(f"  current    {model['uri']}")
    elif not gate["passed"]:
        lines.append("  current    the same all the same: it passed before, and stays until another model passes")
    return [*lines, f"  report     {latest['report']}"]
