"""One evaluation as a step: which rows, which previous model, where the report and the predictions go.

What is measured by task is `measures.py`'s; metrics and gate are `trainpipe_assets.evaluation`'s.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from trainpipe_assets.evaluation.candidate import Unseen
from trainpipe_assets.evaluation.composition import composition
from trainpipe_assets.evaluation.history import Judged
from trainpipe_assets.evaluation.intervals import Estimate, rounded
from trainpipe_assets.evaluation.plots import history_plot
from trainpipe_assets.evaluation.report import ReportContext, summary_markdown
from trainpipe_assets.pipeline.current_model import history_of, passed_models, trained_version
from trainpipe_assets.pipeline.launcher import read_training_record
from trainpipe_assets.pipeline.measures import MEASURES, Trial
from trainpipe_assets.pipeline.metadata import bullets, picture
from trainpipe_assets.pipeline.provenance import dataset_digest, require_covered
from trainpipe_assets.schemas import EVAL_REPORT
from trainpipe_assets.settings import ComputeSettings, EvaluationSettings, Task
from trainpipe_assets.storage.artifacts import Artifact, has_all_files
from trainpipe_assets.storage.base_models import BaseModel
from trainpipe_assets.storage.delta import MissingTable, Table, find
from trainpipe_assets.storage.identity import as_hex, fingerprint
from trainpipe_assets.storage.increments import Increment
from trainpipe_assets.storage.objects import stored
from trainpipe_assets.storage.s3 import explained as explained_s3
from trainpipe_assets.storage.uris import is_remote, open_filesystem

EVALUATION = "evaluation_id"
SHOWN_EVALUATIONS = 12  # in the picture of the history

VERSION = "6"  # raise it when the same evaluation would come out differently


@dataclass(frozen=True)
class EvaluationStep:
    """The row that an evaluation adds to the history, and what the UI shows of it."""

    increment: Increment
    metadata: Mapping[str, Any]


def evaluate_model(
    *,
    pipeline: str,
    history_uri: str,
    model: Artifact,
    tokens: Table,
    texts: Table,
    task: Task,
    compute: ComputeSettings,
    settings: EvaluationSettings,
    base: Callable[[], BaseModel],
    now: datetime,
    min_examples: int = 1,
) -> EvaluationStep:
    """Evaluate `model` on the test split of `tokens`, against the newest other model that passed the gate.

    A language model is also held against its `base` before training. What was done before on the same rows, against the same model and
    under the same settings, is not done again, unless its report was deleted; where another was made since, it is noted again as newest.

    Test examples that the model itself was trained or validated on, because texts have moved since, are left out.

    Raises:
        ValueError: the model is of another task or was trained on a dataset made by other settings than `tokens`, or those were not made
            of `texts`, or fewer than `min_examples` of the test examples are none that it was trained on.
    """
    if model.task != task:
        raise ValueError(
            f"the model {model.uri} is of task {model.task}, and the pipeline's task is {task} now; materialize all assets together"
        )
    require_covered(tokens, texts)
    _require_same_dataset(model, tokens)
    examples, left_out = _never_trained_on(model, tokens, texts, _test_examples(tokens, texts), min_examples)
    history = find(history_uri)
    rows = history_of(history).sort("evaluated_at") if history else pl.DataFrame(schema=EVAL_REPORT)
    previous = _previous_model(rows, model)
    identity = _identity(model, previous, examples, settings)
    before = next((row for row in reversed(rows.to_dicts()) if row["evaluation_id"] == identity), None)
    newest = before is not None and rows["evaluation_id"][-1] == identity
    covered = tokens if _is_trained_on(model, tokens) else None
    if before is not None and stored(before["report_uri"]) is not None:
        again = pl.DataFrame([] if newest else [{**before, "evaluated_at": now}], schema=EVAL_REPORT)
        return EvaluationStep(_increment(history_uri, history, again, covered, settings), _known_metadata(before) | _told(left_out))
    measure, unseen = MEASURES[model.task], _unseen(previous, tokens, texts, examples) if previous else None
    found = measure.take(Trial(model, previous, unseen, base, examples, compute, settings))
    made_of, longest = composition(texts.scan(), task, model.labels), int(model.manifest["settings"]["model"]["max_length"])
    n_cut = int((examples["n_tokens"] >= longest).sum()) if task != "causal-lm" else 0  # whose documents are cut without a loss
    row, context = _described(pipeline, found, identity, model, previous, tokens, now)
    context = replace(context, composition=made_of, n_cut=n_cut, longest=longest, warnings=(*context.warnings, *left_out))
    predictions = measure.rows(found).with_columns(evaluation_id=pl.lit(identity)).select(measure.schema.names())
    _write_beside_model(_reports_of(model), identity, predictions, measure.report(found, context))
    added = pl.DataFrame([] if newest else [row], schema=EVAL_REPORT)
    metric, evaluations = settings.gate.metric_of(task), pl.concat([rows, added.select(rows.columns)])
    shown = {**measure.shown(found), **_shown_history(evaluations, metric)}
    metadata = {"summary": dg.MetadataValue.md(summary_markdown(found)), **shown, **_known_metadata(row), **_told(left_out)}
    return EvaluationStep(_increment(history_uri, history, added, covered, settings), metadata)


def _is_trained_on(model: Artifact, tokens: Table) -> bool:
    """Whether `tokens` are what the model was trained and validated on."""
    trained_on = model.manifest["dataset"]
    same = trained_on.get("table") == as_hex(tokens.identity) and trained_on["version"] >= tokens.content
    return same or bool(trained_on["digest"] == dataset_digest(tokens))


def _require_same_dataset(model: Artifact, tokens: Table) -> None:
    made_by = as_hex(tokens.fingerprint or 0)
    trained_on = model.manifest["dataset"]["fingerprint"]
    if made_by != trained_on:
        raise ValueError(
            f"the model {model.uri} was trained on a tokenized_dataset made by other settings ({trained_on}, now it is {made_by}); "
            "materialize fine_tuned_model before eval_report"
        )


def _test_examples(tokens: Table, texts: Table) -> pl.DataFrame:
    """The test split, one row an example, with its tokens, text and label, in the order of the row ids."""
    of_task = pl.selectors.by_name("label_id", "label_ids", "target", "loss_mask", require_all=False)
    test = tokens.scan().filter(pl.col("split") == "test").select("row_id", of_task, "input_ids", "n_tokens")
    described = texts.scan().filter(pl.col("split") == "test").select("row_id", "source_file", "text", "label")
    return test.join(described, on="row_id", how="inner").sort("row_id").collect()


def _never_trained_on(model: Artifact, tokens: Table, texts: Table, examples: pl.DataFrame, fewest: int) -> tuple[pl.DataFrame, list[str]]:
    """Those of the test `examples` that tell something of `model`, and what is to be said of the others."""
    if _is_trained_on(model, tokens):
        return examples, []
    unseen = _unseen(model, tokens, texts, examples, "the model")
    left = int(unseen.rows.sum())
    if left < fewest:
        raise ValueError(
            f"of the {examples.height:,} test examples there are {left:,} that the model {model.uri} was not trained on, at least {fewest} "
            "are needed (split.min_examples); materialize fine_tuned_model first"
        )
    return examples.filter(unseen.rows), [unseen.note.removeprefix("; ")] if unseen.note else []


def _told(left_out: list[str]) -> dict[str, str]:
    return {"about_the_test_examples": "; ".join(left_out)} if left_out else {}


def _previous_model(history: pl.DataFrame, model: Artifact) -> Artifact | None:
    """The newest other model of its task whose gate passed and whose files are there; None where there is none."""
    others = (other for other in passed_models(history) if other.fingerprint != model.fingerprint and other.task == model.task)
    return next(filter(has_all_files, others), None)


def _unseen(model: Artifact, tokens: Table, texts: Table, examples: pl.DataFrame, called: str = "that model") -> Unseen:
    """What of the `examples` a model was neither trained nor validated on: settings and files move texts between splits, and so do texts
    that link groups.

    Told by the texts, which may have come again in another file since.
    """
    made_of, everything = model.manifest["dataset"], np.ones(examples.height, dtype=bool)
    try:
        then, texts_then = find(tokens.uri, made_of["version"]), find(texts.uri, trained_version(model))
    except MissingTable:
        then = texts_then = None
    if then is None or texts_then is None or then.upstream != texts_then.content or dataset_digest(then) != made_of["digest"]:
        return Unseen(everything, f"; what {called} was trained on cannot be read any more, and test examples may be among it")
    trained_on = texts_then.scan().filter(pl.col("split") != "test").select("content_hash")
    again = texts.scan().filter(pl.col("split") == "test").join(trained_on, on="content_hash", how="semi").select("row_id")
    seen = examples["row_id"].is_in(again.collect(engine="streaming")["row_id"].implode()).to_numpy()
    count = f"{int(seen.sum()):,} of the {examples.height:,} test examples"
    return Unseen(~seen, f"; {called} was trained or validated on {count}, which are left out" if seen.any() else "")


def _identity(model: Artifact, previous: Artifact | None, examples: pl.DataFrame, settings: EvaluationSettings) -> str:
    rows = hashlib.sha256("\n".join(examples["row_id"].to_list()).encode()).hexdigest()
    against = previous.fingerprint if previous else None
    return as_hex(fingerprint(VERSION, model.fingerprint, against, rows, settings))


def determinants(settings: EvaluationSettings) -> Mapping[str, Any]:
    """What fixes an evaluation beside its model and its examples, by name."""
    return {"version": VERSION, "evaluation": settings.model_dump(mode="json")}


def _increment(uri: str, history: Table | None, row: pl.DataFrame, evaluated: Table | None, settings: EvaluationSettings) -> Increment:
    """A `row` of the history, which covers with it all of the table `evaluated`; where that is None, what it covered before."""
    covered = history is not None and (evaluated is None or history.covers(evaluated))
    before = (history.upstream or 0) if history else 0
    return Increment(
        uri,
        history,
        row.lazy(),
        pl.DataFrame(schema={"row_id": pl.String}),
        fingerprint("eval_report", VERSION),
        upstream=evaluated.content if evaluated else before,
        upstream_identity=evaluated.identity if evaluated else None,
        empty=row.is_empty() and covered,
        made_by=determinants(settings),
    )


def _reports_of(model: Artifact) -> str:
    return f"{model.uri}.reports"


def _described(
    pipeline: str, found: Judged, identity: str, model: Artifact, previous: Artifact | None, tokens: Table, now: datetime
) -> tuple[dict[str, Any], ReportContext]:
    """The row of the history, and what the report says beside what was found."""
    row = {
        "evaluation_id": identity,
        "evaluated_at": now,
        "model_uri": model.uri,
        "model_fingerprint": model.fingerprint,
        "dataset_uri": tokens.uri,
        "dataset_version": tokens.version,
        "previous_fingerprint": previous.fingerprint if previous else None,
        "report_uri": f"{_reports_of(model)}/{identity}.html",
        **found.history_fields(),
    }
    record = read_training_record(model)
    context = ReportContext(
        title=f"Evaluation of the fine-tuned model of {pipeline}",
        evaluation_id=identity,
        evaluated_at=now,
        model_uri=model.uri,
        model_fingerprint=model.fingerprint,
        previous_model_uri=previous.uri if previous else None,
        previous_fingerprint=previous.fingerprint if previous else None,
        dataset_uri=tokens.uri,
        dataset_version=tokens.version,
        base_model=model.manifest["base_model"]["name"],
        trained_on=record.get("examples", {}),
        settings={**model.manifest["settings"], **model.manifest["dataset"].get("made_by", {})},
        lineage={
            "lake": model.manifest["lake"],
            "base_model_digest": model.manifest["base_model"]["digest"],
            "run_id": model.manifest["run_id"],
            "versions": {"trainpipe": model.manifest["code_version"], **model.manifest.get("versions", {})},
        },
        history=record["history"],
        validations=record["validations"],
        efficiency=record.get("efficiency", {}),
        warnings=record.get("warnings", ()),
    )
    return row, context


def _write_beside_model(folder: str, identity: str, predictions: pl.DataFrame, report: str) -> None:
    filesystem, path = open_filesystem(folder)
    if not is_remote(folder):  # an object store has no folders to make
        filesystem.makedirs(path, exist_ok=True)
    with explained_s3(folder):
        with filesystem.open(f"{path}/{identity}.predictions.parquet", "wb") as file:
            predictions.write_parquet(file)
        with filesystem.open(f"{path}/{identity}.html", "wb") as file:
            file.write(report.encode())


def _shown_history(evaluations: pl.DataFrame, metric: str) -> dict[str, Any]:
    """How the metric that the gate looks at went over the newest evaluations that have it, from the second on."""
    newest = [row for row in evaluations.iter_rows(named=True) if metric in json.loads(row["metrics"])][-SHOWN_EVALUATIONS:]
    if len(newest) < 2:
        return {}
    drawn = history_plot(
        names=[f"{row['evaluated_at']:%m-%d %H:%M}" for row in newest],
        estimates=[Estimate(**json.loads(row["metrics"])[metric]) for row in newest],
        passed=[row["gate_passed"] for row in newest],
        metric=metric,
    )
    return {"history": picture(drawn, f"{metric} of each evaluation with its 95% interval; times are UTC")}


def _known_metadata(row: Mapping[str, Any]) -> dict[str, Any]:
    """Verdict and metrics of an evaluation, from its row of the history."""
    metrics = json.loads(row["metrics"])
    numbers = {
        f"{name}{suffix}": rounded(found[key])
        for name, found in metrics.items()
        for suffix, key in (("", "value"), ("_low", "low"), ("_high", "high"))
    }
    return {**_identification(row), **numbers}


def _identification(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        EVALUATION: row["evaluation_id"],
        "gate_passed": bool(row["gate_passed"]),
        "gate_reasons": bullets(json.loads(row["gate_reasons"])),
        "model_fingerprint": row["model_fingerprint"],
        "test_examples": row["n_examples"],
        "report": dg.MetadataValue.path(row["report_uri"]),  # also on S3: no browser follows an s3:// link, but a person copies it
    }
