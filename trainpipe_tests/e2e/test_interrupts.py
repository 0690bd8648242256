"""A run that is canceled while Python cleans up, where exceptions are thrown away: it ends all the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg

from trainpipe_assets.pipeline.executor import signing_in_process_executor
from trainpipe_tests.programs import REPOSITORY, wait_until

STEP_SECONDS = 100.0


class Finalized:
    """Takes three seconds to be finalized, in which the signal comes."""

    def __init__(self, told: Path) -> None:
        self._told = told

    def __del__(self) -> None:
        self._told.touch()
        until = time.monotonic() + 3
        while time.monotonic() < until:
            pass


@dg.op
def clean(context: dg.OpExecutionContext) -> None:
    """What is canceled."""
    Finalized(Path(context.instance.root_directory) / "finalizing")
    until = time.monotonic() + STEP_SECONDS
    while time.monotonic() < until:
        time.sleep(0.1)


@dg.op(ins={"before": dg.In(dg.Nothing)})
def train() -> None:
    """What must not be begun any more."""


@dg.job(executor_def=signing_in_process_executor)
def cleaning() -> None:
    """A step whose interrupt is thrown away, and one more."""
    train(clean())


def main(home: str) -> None:
    """Execute the job as a run worker does: in a process of its own."""
    with dg.DagsterInstance.from_ref(dg.DagsterInstance.local_temp(home).get_ref()) as instance:
        dg.execute_job(dg.reconstructable(cleaning), instance=instance, raise_on_error=False)


def test_an_interrupt_that_python_throws_away_comes_again(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        command = [sys.executable, "-c", f"from trainpipe_tests.e2e.test_interrupts import main; main({str(tmp_path)!r})"]
        worker = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stderr=subprocess.PIPE)
        try:
            wait_until((tmp_path / "finalizing").exists, 120, "the step cleans up")
            (run,) = instance.get_runs()
            instance.report_run_canceling(run)
            worker.send_signal(signal.SIGTERM)  # as the run launcher does
            _, said = worker.communicate(timeout=STEP_SECONDS / 2)
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.CANCELED
        steps = {event.step_key for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START) if event.step_key}
        assert steps == {"clean"}
        assert b"Exception ignored" not in said
