"""When pipelines run: jobs, the sensor that retrains when data arrives, the nightly schedule, and the alert.

The sensor keeps no cursor: what has arrived is the difference between the landing folder and the lake.
"""

import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

import dagster as dg

from trainpipe_assets.data.ingestion import find_arrivals, pending
from trainpipe_assets.data.reading.readers import count_records
from trainpipe_assets.data.sources import list_landed, split_settled
from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.drift import unanswered_drift
from trainpipe_assets.pipeline.executor import give_up_dead_runs
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.delta import Table, find

DATA = ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")
MODEL = ("fine_tuned_model", "eval_report")
MONITORS = ("drift_report",)
ASSETS = (*DATA, *MONITORS, *MODEL)
UNFINISHED = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED,
              dg.DagsterRunStatus.CANCELING)  # fmt: skip
RETRY_AFTER_SECONDS = 3600  # the same arrivals are requested again, after a failed run, at most so often
WEBHOOK_TIMEOUT_SECONDS = 10


def build_automation(name: str, settings: PipelineSettings) -> dg.Definitions:
    """Jobs, schedules and sensors of one pipeline."""
    keys = PipelineKeys(settings.key_prefix)
    tags = {"trainpipe/pipeline": name}  # what the run queue's limit of one run a pipeline goes by
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
        description=f"Retrains when new data has arrived and settled{' and has drifted' if on_drift else ''}; never while a run of the "
        "same pipeline is under way.",
    )
    def new_data(context: dg.SensorEvaluationContext, lake: Lake) -> dg.RunRequest | dg.SkipReason:
        give_up_dead_runs(context.instance)
        busy = unfinished_run(context.instance, (ingest.name, prepare.name, retrain.name), [keys[asset] for asset in ASSETS])
        if busy is not None:
            return dg.SkipReason(f"run {busy} of this pipeline is under way; what has arrived is looked at when it is done")
        arrivals = look_for_data(settings, lake, keys["raw_data"], now=time.time())
        if not on_drift:
            return arrivals
        return train_on_drift(arrivals, settings, lake, keys, prepare=prepare.name, retrain=retrain.name, now=time.time())

    schedules = []
    if settings.automation.schedule is not None:
        schedules.append(
            dg.ScheduleDefinition(
                name=f"{name}_nightly",
                job=prepare if on_drift else retrain,
                cron_schedule=settings.automation.schedule,
                execution_timezone=settings.automation.timezone,
                default_status=dg.DefaultScheduleStatus.RUNNING if status else dg.DefaultScheduleStatus.STOPPED,
                description="Runs everything but the training, for which the sensor asks."
                if on_drift
                else "Runs everything; where nothing is new nothing is done.",
            )
        )
    return dg.Definitions(jobs=[ingest, prepare, retrain], schedules=schedules, sensors=[new_data])


def unfinished_run(instance: dg.DagsterInstance, job_names: Sequence[str], keys: Sequence[dg.AssetKey]) -> str | None:
    """Id of a run, queued or in progress, that touches the pipeline; None where there is none."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(UNFINISHED))):
        run = record.dagster_run
        if run.job_name in job_names or set(keys) & set(run.asset_selection or ()):
            return run.run_id
    return None


def look_for_data(settings: PipelineSettings, lake: Lake, raw_key: dg.AssetKey, now: float) -> dg.RunRequest | dg.SkipReason:
    """What a sensor tick decides, from the landing folder and the table alone."""
    try:
        landed = list_landed(lake.landing_uri(settings.source), settings.source)
    except ValueError as error:
        return dg.SkipReason(str(error))
    if not landed:
        return dg.SkipReason("the landing folder is empty")
    table = find(lake.table_uri(raw_key))
    settled, arriving = split_settled(landed, now, settings.source.settle_seconds)
    new = pending(settled, table)
    withdrawn = [path for path in find_arrivals(landed, table).withdrawn if path not in {file.path for file in landed}]
    if not new and not withdrawn:
        return dg.SkipReason(f"{len(arriving)} file(s) still arriving" if arriving else "nothing new has arrived")
    if arriving:
        return dg.SkipReason(f"{len(new)} new file(s), waiting for {len(arriving)} that are still arriving")
    if not withdrawn and settings.automation.min_new_rows > 1:
        rows = count_records(new, settings.source, settings.automation.min_new_rows)
        if rows < settings.automation.min_new_rows:
            return dg.SkipReason(f"{rows} new rows so far, waiting for {settings.automation.min_new_rows} (automation.min_new_rows)")
    tags = {"trainpipe/new_files": str(len(new)), "trainpipe/withdrawn_files": str(len(withdrawn))}
    return dg.RunRequest(run_key=_situation(table, [f"{file.path} {file.version}" for file in new], withdrawn, now), tags=tags)


def train_on_drift(
    arrivals: dg.RunRequest | dg.SkipReason,
    settings: PipelineSettings,
    lake: Lake,
    keys: PipelineKeys,
    *,
    prepare: str,
    retrain: str,
    now: float,
) -> dg.RunRequest | dg.SkipReason:
    """What becomes of a tick's `arrivals` where only drift is a reason to train; read from the lake alone.

    New data is prepared first, and with that compared. Where it had drifted, the next tick asks for the training, until a model was
    trained on it and evaluated. While there is no current model to compare with, new data is a reason to train.
    """
    evaluations = find(lake.table_uri(keys["eval_report"]))
    model = current_model(evaluations)
    if isinstance(arrivals, dg.RunRequest):
        job = retrain if model is None else prepare
        return dg.RunRequest(run_key=arrivals.run_key, tags=arrivals.tags, job_name=job)
    drifted = unanswered_drift(find(lake.table_uri(keys["drift_report"])), evaluations, model, settings.drift) if model else None
    if drifted is None:
        return arrivals
    run_key = f"drift-{drifted}-{int(now // RETRY_AFTER_SECONDS)}"
    return dg.RunRequest(run_key=run_key, tags={"trainpipe/drift": drifted}, job_name=retrain)


def _situation(table: Table | None, new: Sequence[str], withdrawn: Sequence[str], now: float) -> str:
    """A run key that differs whenever the arrivals, the table or the hour do."""
    state = [table.version if table else None, sorted(new), sorted(withdrawn), int(now // RETRY_AFTER_SECONDS)]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]


def failure_line(run: dg.DagsterRun, message: str) -> str:
    """One line that says which run failed and why."""
    first = next((line.strip() for line in message.splitlines() if line.strip()), "no message")
    return f"trainpipe: run {run.run_id[:8]} of {run.job_name} failed: {first}"


@dg.run_failure_sensor(
    name="run_failure_alert",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Logs one line for each failed run, and posts it to TRAINPIPE_WEBHOOK_URL where that is set.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Tell of a failed run."""
    reasons = [event.event_specific_data.error for event in context.get_step_failure_events() if event.event_specific_data]  # type: ignore[union-attr]
    message = next((error.message for error in reasons if error is not None), context.failure_event.message or "")
    line = failure_line(context.dagster_run, message)
    context.log.error(line)
    url = os.environ.get("TRAINPIPE_WEBHOOK_URL")
    if url:
        _post(context, url, {"text": line, "run_id": context.dagster_run.run_id, "job": context.dagster_run.job_name})


def _post(context: dg.RunFailureSensorContext, url: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_SECONDS).close()
    except (urllib.error.URLError, TimeoutError) as error:
        context.log.error(f"trainpipe: the webhook of TRAINPIPE_WEBHOOK_URL did not take the alert: {error}")
