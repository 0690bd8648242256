"""The maintenance job of a pipeline: each table compacted and vacuumed, without a version that a model or an evaluation came from.

What is done to a table is `storage.maintenance`'s; here is who pins which version.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl

from trainpipe_assets.pipeline.current_model import current_model, history_of, version_in
from trainpipe_assets.pipeline.failures import explained
from trainpipe_assets.pipeline.keys import TABLES, PipelineKeys
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.pipeline.runs import PIPELINE_TAG
from trainpipe_assets.settings import PipelineSettings, Task
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_assets.storage.delta import find
from trainpipe_assets.storage.maintenance import discard_abandoned, maintain
from trainpipe_assets.storage.scratch import is_held
from trainpipe_assets.storage.uris import absolute, relocated
from trainpipe_assets.training.spec import load_spec


def build_maintenance(name: str, settings: PipelineSettings) -> dg.Definitions:
    """The job `<name>_maintenance` and its schedule."""
    keys = PipelineKeys(settings.key_prefix)

    @dg.op(
        name="__".join((*settings.key_prefix, "maintain_tables")),
        out=dg.Out(dg.Nothing),
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
        description="Compacts, checkpoints and vacuums every table; removes the checkpoints of trainings that nobody went on with.",
    )
    def maintain_tables(context: dg.OpExecutionContext, lake: Lake) -> None:
        rows = []
        with explained():
            pinned = pinned_versions(lake, keys, settings.task)
            for table in TABLES:
                uri = lake.table_uri(keys[table])
                done = maintain(uri, pinned[uri], settings.maintenance.retention_hours)
                if done is not None:
                    rows.append(f"| {table} | {done.files_merged} | {done.files_written} | {done.files_deleted} | {len(pinned[uri])} |")
            before = time.time() - 3600.0 * settings.maintenance.retention_hours
            abandoned = discard_abandoned(absolute(lake.scratch), before, partial(_is_ours, lake, keys))
            remote = lake.all_checkpoints_uri(keys["fine_tuned_model"])
            abandoned += discard_abandoned(remote, before) if remote is not None else []
        header = "| table | small files merged | into | files deleted | versions pinned |\n| --- | --- | --- | --- | --- |"
        shown = {"tables": dg.MetadataValue.md("\n".join([header, *rows])), "abandoned_trainings_removed": len(abandoned)}
        context.add_output_metadata(shown)
        context.log.info("\n".join(row.strip("| ") for row in rows) or "there is no table yet")

    @dg.job(
        name=f"{name}_maintenance",
        tags={PIPELINE_TAG: name},
        description="Compacts the tables and deletes the files of old versions, but of none that a model was made from.",
    )
    def maintenance() -> None:
        maintain_tables()

    return dg.Definitions(jobs=[maintenance], schedules=list(_schedules(name, maintenance, settings)))


def _is_ours(lake: Lake, keys: PipelineKeys, fingerprint: str) -> bool:
    """Whether what a training set down in the scratch folder is of this pipeline, and nobody is at it: several pipelines share the folder,
    and each has its own retention."""
    work_dir = Path(lake.scratch) / fingerprint / "checkpoints"
    if is_held(work_dir):
        return False
    try:
        return load_spec(work_dir / "spec.json").dataset_uri == lake.table_uri(keys["tokenized_dataset"])
    except ValueError:  # one of another version, which nobody can go on with
        return True


def pinned_versions(lake: Lake, keys: PipelineKeys, task: Task) -> defaultdict[str, set[int]]:
    """The versions of tables, by URI, that models and evaluations are of, and those by which arrivals are compared with the current model.

    Raises:
        ValueError: models were evaluated, and there is none: their folder may be another disk, which is not there.
    """
    pinned: defaultdict[str, set[int]] = defaultdict(set)
    root, folder = absolute(lake.root), lake.models_uri(keys["fine_tuned_model"])
    models = list_artifacts(folder)
    for model in models:
        for table in model.manifest["lake"].values():
            pinned[relocated(table["uri"], root)].add(int(table["version"]))
    history = find(lake.table_uri(keys["eval_report"]))
    if history is not None:
        if history.rows and not models:
            raise ValueError(
                f"{history.rows} model(s) were evaluated, but there is none in {folder}: which versions of the tables they are from cannot "
                "be told, so nothing was removed. Mount the folder or bring the models back; where they are gone for good, train one anew"
            )
        for uri, version in history_of(history).select("dataset_uri", "dataset_version").unique().iter_rows():
            pinned[uri].add(version)
    drift_history = find(lake.table_uri(keys["drift_report"]))
    if drift_history is not None:  # the next arrival is what comes after the newest comparison
        comparisons = history_of(drift_history)
        for uri, version in comparisons.sort("compared_at").select("dataset_uri", "dataset_version").tail(1).iter_rows():
            pinned[uri].add(version)
        current = current_model(history, task)
        drifted = comparisons.filter("drifted", pl.col("model_fingerprint") == (current.fingerprint if current else ""))
        for uri, *versions in drifted.select("dataset_uri", "since_version", "dataset_version").iter_rows():
            pinned[uri].update(versions)  # by which it is seen whether what drifted is still there
        examples = find(lake.table_uri(keys["cleaned_features"]))
        trained_on = version_in(current, examples) if current and examples else None
        if examples and trained_on is not None:
            pinned[examples.uri].add(trained_on)
    return pinned


def _schedules(name: str, job: dg.JobDefinition, settings: PipelineSettings) -> Iterator[dg.ScheduleDefinition]:
    if settings.maintenance.schedule is not None:
        yield dg.ScheduleDefinition(
            name=f"{name}_maintenance_schedule",
            job=job,
            cron_schedule=settings.maintenance.schedule,
            execution_timezone=settings.automation.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING if settings.automation.enabled else dg.DefaultScheduleStatus.STOPPED,
            description="Keeps the tables small and quick to read.",
        )
