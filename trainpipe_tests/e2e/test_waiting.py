"""A run that waits for the gpu pool, which another one holds: it can be canceled, and takes no core from the other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from trainpipe_assets.pipeline.executor import PROCESS_TAG, signing_in_process_executor
from trainpipe_tests.programs import REPOSITORY, wait_until

POOL = "gpu"


@dg.op(pool=POOL)
def train() -> None:
    """What waits."""


@dg.job(executor_def=signing_in_process_executor)
def training() -> None:
    """Waits for its pool."""
    train()


def main(home: str) -> None:
    """Execute the job as a run worker does: in a process of its own."""
    with dg.DagsterInstance.from_ref(dg.DagsterInstance.local_temp(home).get_ref()) as instance:
        dg.execute_job(dg.reconstructable(training), instance=instance, raise_on_error=False)


def test_a_run_that_waits_for_its_pool_can_be_canceled_and_sleeps(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        other = instance.create_run_for_job(training, status=dg.DagsterRunStatus.STARTED)
        assert instance.event_log_storage.claim_concurrency_slot(POOL, other.run_id, "train").is_claimed
        command = [sys.executable, "-c", f"from trainpipe_tests.e2e.test_waiting import main; main({str(tmp_path)!r})"]
        worker = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
        try:
            wait_until(lambda: bool(_waiting(instance, other.run_id)), 120, "the run waits for its pool")
            before, began = _processor_seconds(worker.pid), time.monotonic()
            time.sleep(4)
            assert _processor_seconds(worker.pid) - before < 0.5 * (time.monotonic() - began)
            (waiting,) = [run for run in instance.get_runs() if run.run_id != other.run_id]
            instance.report_run_canceling(waiting)
            worker.send_signal(signal.SIGTERM)  # as the run launcher does
            worker.wait(60)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
        run = instance.get_run_by_id(waiting.run_id)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.CANCELED
        assert json.loads(run.tags[PROCESS_TAG])["run_id"] == run.run_id
        assert instance.event_log_storage.get_concurrency_info(POOL).active_run_ids == {other.run_id}
        assert _waiting(instance, other.run_id) == []


def _waiting(instance: dg.DagsterInstance, other: str) -> list[str]:
    steps = instance.event_log_storage.get_concurrency_info(POOL).pending_steps
    return [step.run_id for step in steps if step.run_id != other and step.assigned_timestamp is None]


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
