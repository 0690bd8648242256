"""The runs of a pipeline, as Dagster remembers them, and whether one may be asked for again."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg

from trainpipe_assets.pipeline.executor import is_dead
from trainpipe_assets.pipeline.keys import ASSETS, JOBS, PipelineKeys

UNDER_WAY = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED,
              dg.DagsterRunStatus.QUEUED)  # fmt: skip
RETRY_AFTER_SECONDS = 3600  # the same is asked for again, after a failed run, at most so often
ATTEMPTS = 3  # what runs left unfinished is asked for so often; with other data the count starts anew
LOOKED_AT = 50  # of the newest runs, whether one is of the pipeline
PIPELINE_TAG = "trainpipe/pipeline"


@dataclass(frozen=True)
class PipelineRuns:
    """The runs of the pipeline `name` on an instance, however they were started."""

    instance: dg.DagsterInstance
    name: str
    keys: PipelineKeys

    def under_way(self) -> str | None:
        """Id of one that is in progress, else of one that is queued; None where there is none."""
        found = [record.dagster_run for record in self._records(dg.RunsFilter(statuses=list(UNDER_WAY)))]
        furthest = min((run for run in found if not is_dead(run)), key=lambda run: UNDER_WAY.index(run.status), default=None)
        return furthest.run_id if furthest else None

    def why_not_again(self, tag: str, value: str, now: float) -> str | None:
        """Why no run is asked for that is tagged with `tag` and `value`; None where one may be.

        What a person canceled is not begun again; what failed, after an hour; and not for ever.
        """
        newest = self._newest()
        if newest is not None:
            run, ended = newest.dagster_run, newest.end_time or now
            if run.status is dg.DagsterRunStatus.CANCELED:
                return f"the newest run, {run.run_id}, was canceled: it is not begun again without new data, or by hand"
            if run.status is dg.DagsterRunStatus.FAILURE and now < ended + RETRY_AFTER_SECONDS:
                return f"run {run.run_id} failed; it is tried again {RETRY_AFTER_SECONDS // 60} minutes after its end"
        if self.asked_for(tag, value) >= ATTEMPTS:
            return f"{ATTEMPTS} runs did not mend it; see why the newest failed, then run it by hand, or wait for new data"
        return None

    def succeeded_after(self, moment: float) -> bool:
        """Whether the newest run ended well after `moment` (epoch seconds), so that none is at what was committed then."""
        newest = self._newest()
        return newest is not None and newest.dagster_run.is_success and (newest.end_time or 0.0) >= moment

    def asked_for(self, tag: str, value: str) -> int:
        """How many runs the sensor has asked for with this tag; one that is executed again takes its tags along."""
        runs = self.instance.get_runs(dg.RunsFilter(tags={tag: value, PIPELINE_TAG: self.name}))
        return sum(run.parent_run_id is None for run in runs)

    def _newest(self) -> dg.RunRecord | None:
        """Runs of its jobs carry the tag of the pipeline; one of assets chosen by hand is looked for among the newest of the instance."""
        found = [next(self._records(filters, LOOKED_AT), None) for filters in (dg.RunsFilter(tags={PIPELINE_TAG: self.name}), None)]
        return max((record for record in found if record is not None), key=lambda record: record.create_timestamp, default=None)

    def _records(self, filters: dg.RunsFilter | None, limit: int | None = None) -> Iterator[dg.RunRecord]:
        """Newest first."""
        jobs, assets = {f"{self.name}_{job}" for job in JOBS}, {self.keys[asset] for asset in ASSETS}
        for record in self.instance.get_run_records(filters, limit=limit):
            run = record.dagster_run
            if run.job_name in jobs or assets & self._planned(run):
                yield record

    def _planned(self, run: dg.DagsterRun) -> set[dg.AssetKey]:
        """The assets that a run makes; of a job that is run whole, only its events say which."""
        if run.asset_selection:
            return set(run.asset_selection)
        planned = self.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED).records
        events = (record.event_log_entry.dagster_event for record in planned)
        return {event.asset_key for event in events if event is not None and event.asset_key is not None}
