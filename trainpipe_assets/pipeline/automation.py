"""When pipelines run: jobs, the sensor that retrains when data arrives, the nightly schedule, and the alert.

The sensor keeps no cursor: what has arrived is the difference between the landing folder and the lake, and what a failed run left
unfinished is a difference between tables.
"""

import hashlib
import http.client
import json
import os
import re
import time
import urllib.request
from collections.abc import Sequence

import dagster as dg

from trainpipe_assets.data.ingestion import find_arrivals, pending
from trainpipe_assets.data.reading.readers import count_records
from trainpipe_assets.data.sources import list_landed, split_settled
from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.drift import unanswered_drift
from trainpipe_assets.pipeline.executor import GONE, give_up_dead_runs
from trainpipe_assets.pipeline.keys import DATA, MODEL, MONITORS, PipelineKeys
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.pipeline.runs import PIPELINE_TAG, RETRY_AFTER_SECONDS, PipelineRuns
from trainpipe_assets.pipeline.unfinished import unfinished, wanted
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.delta import Table, find

UNFINISHED_TAG, DRIFT_TAG = "trainpipe/unfinished", "trainpipe/drift"
WEBHOOK_TIMEOUT_SECONDS = 10
LONGEST_WAIT_SECONDS = 300  # a file that lies there so long is not held back by others that keep arriving
MARKED_FROM_OUTSIDE = "marked as failed from outside the execution context"  # what Dagster says where the process of a run was killed


def build_automation(name: str, settings: PipelineSettings) -> dg.Definitions:
    """Jobs, schedules and sensors of one pipeline."""
    keys = PipelineKeys(settings.key_prefix)
    tags = {PIPELINE_TAG: name}  # what the run queue's limit of one run a pipeline goes by
    ingest = dg.define_asset_job(
        f"{name}_ingest", dg.AssetSelection.assets(keys["raw_data"]), tags=tags, description="Only ingest what has arrived."
    )
    monitors = MONITORS if settings.drift.enabled else ()
    prepare = dg.define_asset_job(
        f"{name}_prepare",
        dg.AssetSelection.assets(*(keys[asset] for asset in (*DATA, *monitors))),
        tags=tags,
        description="Everything up to the tokens, and the comparison with what the current model was trained on; no training.",
    )
    retrain = dg.define_asset_job(
        f"{name}_retrain",
        dg.AssetSelection.assets(*(keys[asset] for asset in (*DATA, *monitors, *MODEL))),
        tags=tags,
        description="Everything, from landed files to the gate.",
    )
    status, on_drift = settings.automation.enabled, settings.automation.retrain == "on_drift"

    @dg.sensor(
        name=f"{name}_new_data",
        jobs=[prepare, retrain] if on_drift else [retrain],
        minimum_interval_seconds=settings.automation.sensor_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING if status else dg.DefaultSensorStatus.STOPPED,
        description=f"Retrains when new data has arrived and settled{' and has drifted' if on_drift else ''}, or when a run that failed "
        "left work unfinished; never while a run of the same pipeline is under way.",
    )
    def new_data(context: dg.SensorEvaluationContext, lake: Lake) -> dg.RunRequest | dg.SkipReason:
        runs = PipelineRuns(context.instance, name, keys)
        busy = _busy(context.instance, runs)
        if busy is not None:
            return busy
        arrivals = look_for_data(settings, lake, keys["raw_data"], now=time.time())
        if on_drift:
            return prepare_and_train_on_drift(arrivals, runs, settings, lake, now=time.time())
        return arrivals if isinstance(arrivals, dg.RunRequest) else finish(arrivals, runs, settings, lake, now=time.time())

    schedules = []
    if settings.automation.schedule is not None:

        @dg.schedule(
            name=f"{name}_nightly",
            job=prepare if on_drift else retrain,
            cron_schedule=settings.automation.schedule,
            execution_timezone=settings.automation.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING if status else dg.DefaultScheduleStatus.STOPPED,
            description=f"{'Everything but the training, for which the sensor asks' if on_drift else 'Everything'}; where nothing is new "
            "nothing is done, and no run is asked for while one of the same pipeline is under way.",
        )
        def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
            return _busy(context.instance, PipelineRuns(context.instance, name, keys)) or dg.RunRequest()

        schedules.append(nightly)
    return dg.Definitions(jobs=[ingest, prepare, retrain], schedules=schedules, sensors=[new_data])


def _busy(instance: dg.DagsterInstance, runs: PipelineRuns) -> dg.SkipReason | None:
    """Why no run is asked for while one of the pipeline is queued or in progress; None where there is none."""
    give_up_dead_runs(instance)
    busy = runs.under_way()
    if busy is None:
        return None
    return dg.SkipReason(f"run {busy} of this pipeline is under way; what has arrived is looked at when it is done")


def look_for_data(settings: PipelineSettings, lake: Lake, raw_key: dg.AssetKey, now: float) -> dg.RunRequest | dg.SkipReason:
    """What a sensor tick decides, from the landing folder and the table alone."""
    try:
        landed = list_landed(lake.landing_uri(settings.source), settings.source)
    except ValueError as error:
        return dg.SkipReason(str(error))
    if not landed:
        return dg.SkipReason("the landing folder is empty")
    table = find(lake.table_uri(raw_key))
    arrivals, present = find_arrivals(landed, table), {file.path for file in landed}
    settled, young = split_settled(list(arrivals.new), now, settings.source.settle_seconds)
    misdated = [file for file in young if file.modified > now + settings.source.settle_seconds]  # the run looks whether they grow
    arriving = [file for file in young if file not in misdated]
    new = pending([*settled, *misdated], table)
    withdrawn = [path for path in arrivals.withdrawn if path not in present]
    if not new and not withdrawn:
        return dg.SkipReason(f"{len(arriving)} file(s) still arriving" if arriving else "nothing new has arrived")
    overdue = any(file.modified < now - settings.source.settle_seconds - LONGEST_WAIT_SECONDS for file in new)
    if arriving and not overdue:
        return dg.SkipReason(f"{len(new)} new file(s), waiting for {len(arriving)} that are still arriving")
    if not withdrawn and settings.automation.min_new_rows > 1:
        rows = count_records(new, settings.source, settings.automation.min_new_rows)
        if rows < settings.automation.min_new_rows:
            return dg.SkipReason(f"{rows} new rows so far, waiting for {settings.automation.min_new_rows} (automation.min_new_rows)")
    tags = {"trainpipe/new_files": str(len(new)), "trainpipe/withdrawn_files": str(len(withdrawn))}
    return dg.RunRequest(run_key=_situation(table, [f"{file.path} {file.version}" for file in new], withdrawn, now), tags=tags)


def finish(
    arrivals: dg.SkipReason, runs: PipelineRuns, settings: PipelineSettings, lake: Lake, now: float, *, has_model: bool = False
) -> dg.RunRequest | dg.SkipReason:
    """A run where one that failed left its work unfinished; else `arrivals`, or why there is none."""
    tables = {name: find(lake.table_uri(runs.keys[name])) for name in wanted(settings, has_model=has_model)}
    behind, raw = unfinished(tables), tables["raw_data"]
    if not behind or raw is None or not _is_there(settings, lake):
        return arrivals
    found = f"{', '.join(behind)} {'does' if len(behind) == 1 else 'do'} not cover raw_data as it stands"
    asked = _again(runs, "retrain" if "eval_report" in tables else "prepare", UNFINISHED_TAG, raw.data_version, found, now)
    if isinstance(asked, dg.SkipReason):
        return asked
    committed = max(table.committed_at for table in tables.values() if table)
    first_model = settings.automation.retrain == "on_drift" and behind == ["eval_report"] and runs.succeeded_after(committed)
    if not first_model and now < committed + RETRY_AFTER_SECONDS:
        return dg.SkipReason(f"{found}; a run elsewhere may be at it, until nothing was committed for {RETRY_AFTER_SECONDS // 60} minutes")
    return asked


def _is_there(settings: PipelineSettings, lake: Lake) -> bool:
    """Whether anything lies in the landing folder, without which no run succeeds."""
    try:
        return bool(list_landed(lake.landing_uri(settings.source), settings.source))
    except ValueError:
        return False


def prepare_and_train_on_drift(
    arrivals: dg.RunRequest | dg.SkipReason, runs: PipelineRuns, settings: PipelineSettings, lake: Lake, now: float
) -> dg.RunRequest | dg.SkipReason:
    """What becomes of a tick's `arrivals` where only drift is a reason to train.

    New data is prepared first, and with that compared. Where it had drifted, the next tick asks for the training, until a model was
    trained on it and evaluated. While there is no current model to compare with, new data is a reason to train.
    """
    evaluations = find(lake.table_uri(runs.keys["eval_report"]))
    model = current_model(evaluations, settings.task)
    if isinstance(arrivals, dg.RunRequest):
        job = "retrain" if model is None else "prepare"
        return dg.RunRequest(run_key=arrivals.run_key, tags=arrivals.tags, job_name=f"{runs.name}_{job}")
    left = finish(arrivals, runs, settings, lake, now, has_model=model is not None)
    tokens = find(lake.table_uri(runs.keys["tokenized_dataset"]))
    if left is not arrivals or model is None or not unfinished({"tokenized_dataset": tokens, "eval_report": evaluations}):
        return left
    comparisons, examples = (find(lake.table_uri(runs.keys[name])) for name in ("drift_report", "cleaned_features"))
    drifted = unanswered_drift(comparisons, evaluations, model, settings, examples)
    return arrivals if drifted is None else _again(runs, "retrain", DRIFT_TAG, drifted, "what arrived has drifted", now)


def _again(runs: PipelineRuns, job: str, tag: str, value: str, found: str, now: float) -> dg.RunRequest | dg.SkipReason:
    """A run of `job` for what was `found`, unless that has been tried often enough, or just now."""
    why_not = runs.why_not_again(tag, value, now)
    if why_not is not None:
        return dg.SkipReason(f"{found}, but {why_not}")
    run_key = f"{tag}-{value}-{runs.asked_for(tag, value)}-{int(now // RETRY_AFTER_SECONDS)}"
    return dg.RunRequest(run_key=run_key, tags={tag: value}, job_name=f"{runs.name}_{job}")


def _situation(table: Table | None, new: Sequence[str], withdrawn: Sequence[str], now: float) -> str:
    """A run key that differs whenever the arrivals, the table or the hour do."""
    state = [table.version if table else None, sorted(new), sorted(withdrawn), int(now // RETRY_AFTER_SECONDS)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


_CLASS = re.compile(r"^dagster\.[\w.]+: ")  # of the error, which Dagster puts before its message


def failure_line(run: dg.DagsterRun, message: str, steps: Sequence[str] = ()) -> str:
    """One line that says which run failed, in which steps, and why."""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    where = f" at {', '.join(steps)}" if steps else ""
    return f"trainpipe: run {run.run_id[:8]} of {run.job_name} failed{where}: {_CLASS.sub('', first)}"


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs one line for each failed run, and posts it to TRAINPIPE_WEBHOOK_URL where that is set.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Tell of a failed run."""
    failures = context.get_step_failure_events()
    steps = [str(event.step_key).replace("__", "/") for event in failures]
    reasons = [event.event_specific_data.error for event in failures if event.event_specific_data]  # type: ignore[union-attr]
    untold = context.failure_event.message or ""
    message = next((error.message for error in reasons if error is not None), GONE if MARKED_FROM_OUTSIDE in untold else untold)
    line = failure_line(context.dagster_run, message, steps)
    context.log.error(line)
    url = os.environ.get("TRAINPIPE_WEBHOOK_URL")
    if url:
        run = context.dagster_run
        _post(context, url, {"text": line, "run_id": run.run_id, "job": run.job_name, "steps": ", ".join(steps)})


def _post(context: dg.RunFailureSensorContext, url: str, body: dict[str, str]) -> None:
    try:
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_SECONDS).close()
    except (OSError, http.client.HTTPException, ValueError) as error:  # nobody there, no HTTP, no URL
        context.log.error(f"trainpipe: the webhook of TRAINPIPE_WEBHOOK_URL did not take the alert: {error or type(error).__name__}")
