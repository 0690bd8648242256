"""The executor: all steps in one process, after the runs that died before were given up; a canceled run ends there and then.

A run whose process was killed stays "started" for ever, keeps its place in the pools and looks like work under way to a sensor. Runs
therefore sign with the process that executes them, and again every minute. Whoever comes next marks those as failed whose process is gone
from this machine, or that fell silent on another one: a container that was replaced is another machine.
"""

import json
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import dagster as dg
import psutil
from dagster._core.execution.plan.active import ActiveExecution  # noqa: TID251  # see _waits_can_be_interrupted
from dagster._utils.interrupts import check_captured_interrupt

from trainpipe_assets.pipeline.failures import end_without_stack, messages_alone

log = logging.getLogger(__name__)

PROCESS_TAG = "trainpipe/process"
SIGN_SECONDS = 60.0
SILENCE_SECONDS = 15 * SIGN_SECONDS  # after so long the process of a run on another machine counts as gone
AGAIN_SECONDS = 0.1  # after which an interrupt that was thrown away comes again
LOOK_SECONDS = 0.5  # how often a wait looks whether its run was canceled
GONE = "the process of this run is gone without a word (killed, or out of memory); run again to go on"
ASSET_JOB = "__ASSET_JOB"  # Dagster's name for the job of whatever assets are chosen
UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class SigningExecutor(dg.Executor):
    """Delegates to Dagster's in-process executor; signs the run, and gives up dead ones, before."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        """How steps are retried: as the inner executor does."""
        return self._inner.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Execute the plan."""
        _refuse_empty_selection(plan_context.dagster_run)
        _refuse_idle_config(plan_context.job.get_definition(), plan_context.dagster_run)
        sign(plan_context.instance, plan_context.run_id)
        give_up_dead_runs(plan_context.instance)
        alive = _signed_again(plan_context.instance, plan_context.run_id)
        with messages_alone(), alive, _waits_can_be_interrupted(), _interrupts_come_again():
            events = self._inner.execute(plan_context, execution_plan)
            try:
                for event in events:
                    yield event
                    _tell_of_failed_check(plan_context.log, event)
                    if _was_interrupted(event):
                        events.close()
                        break
                else:
                    return
            except dg.DagsterExecutionInterruptedError:
                pass  # while it waited
        plan_context.instance.event_log_storage.free_concurrency_slots_for_run(plan_context.run_id)
        plan_context.log.warning("interrupted: what was committed stays, and a training goes on from its last checkpoint; run again")
        end_without_stack(dg.DagsterExecutionInterruptedError())  # canceled, or failed where nobody asked for it


def _refuse_empty_selection(run: dg.DagsterRun) -> None:
    """Dagster takes a selection that matches nothing, such as a misspelt group, for all assets of all pipelines."""
    if run.job_name.startswith(ASSET_JOB) and not run.asset_selection and not run.asset_check_selection:
        end_without_stack(
            dg.DagsterInvariantViolationError(
                "the selection matches no asset, so nothing was done; `dagster asset list -m trainpipe_assets.definitions` shows all, and "
                "--select '*' takes them"
            )
        )


def _refuse_idle_config(job: dg.JobDefinition, run: dg.DagsterRun) -> None:
    """Dagster drops the config of an op that is not in a run of chosen assets: what was asked for under a wrong name would not be done."""
    ops = sorted(node.name for node in job.nodes)
    asked = cast(Mapping[str, Any], run.run_config).get("ops", {})
    idle = [name for name in asked if name not in ops]
    if idle:
        end_without_stack(
            dg.DagsterInvariantViolationError(
                f"the run config has ops.{idle[0]}, which is no op of this run; there are: {', '.join(ops)}. The op of an asset has the "
                "parts of its key with two underscores between them"
            )
        )


@contextmanager
def _waits_can_be_interrupted() -> Iterator[None]:
    """Have steps that wait, for their pool or to be tried again, sleep, and look whether the run was canceled meanwhile.

    Dagster 1.13 looks for interrupts within steps alone, and does not sleep while a step waits for its pool: such a run cannot be canceled
    for as long as another one trains, and takes a core from that. There is no public way to the loop that waits.
    """
    execution: Any = ActiveExecution
    waits = execution.sleep_til_ready

    def wait(active: Any) -> None:
        time.sleep(min(max(active.sleep_interval(), LOOK_SECONDS / 5), LOOK_SECONDS))
        if check_captured_interrupt():
            raise dg.DagsterExecutionInterruptedError

    execution.sleep_til_ready = wait
    try:
        yield
    finally:
        execution.sleep_til_ready = waits


@contextmanager
def _interrupts_come_again() -> Iterator[None]:
    """Have an interrupt that Python threw away come once more, until it ends what is being done.

    Dagster raises it wherever the main thread happens to be. Where that is a finalizer or a callback of a weak reference, as is likely
    after a long call into a library, Python reports the exception as ignored, and a canceled run would go on to its end.
    """
    report, timers = sys.unraisablehook, list[threading.Timer]()

    def again(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, (dg.DagsterExecutionInterruptedError, KeyboardInterrupt)):
            main = threading.main_thread().ident
            assert main is not None
            timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGINT))
            timer.daemon = True
            timer.start()
            timers.append(timer)
        else:
            report(unraisable)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = report
        for timer in timers:
            timer.cancel()


def _tell_of_failed_check(log: Any, event: dg.DagsterEvent) -> None:
    """Dagster notes a failed check at the level of its own bookkeeping, where nobody looks who follows the log."""
    if event.event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION or event.asset_check_evaluation_data.passed:
        return
    check = event.asset_check_evaluation_data
    said = f": {check.description}" if check.description else ""
    log.warning(f"the check {check.check_name} of {check.asset_key.to_user_string()} failed ({check.severity.value}){said}")


def _was_interrupted(event: dg.DagsterEvent) -> bool:
    """Whether a step is to be tried again for no better reason than that its run was canceled: Dagster's retries include that."""
    error = event.step_retry_data.error if event.is_step_up_for_retry else None
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


@dg.executor(name="in_process", config_schema=cast(Any, dg.in_process_executor.config_schema))
def signing_in_process_executor(init_context: dg.InitExecutorContext) -> SigningExecutor:
    """All steps in the process of the run: training is a process of its own anyway, and steps start at once."""
    create: Any = dg.in_process_executor.executor_creation_fn
    return SigningExecutor(create(init_context))


def sign(instance: dg.DagsterInstance, run_id: str) -> None:
    """Note in the run's tags which process of which machine executes it, and that it does so now."""
    instance.add_run_tags(run_id, {PROCESS_TAG: json.dumps({"run_id": run_id, **_signature(psutil.Process()), "at": time.time()})})


@contextmanager
def _signed_again(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Sign every minute until the block is left."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(SIGN_SECONDS):
            try:
                sign(instance, run_id)
            except Exception as error:  # noqa: BLE001  # whatever the storage's library raises: the next minute it may be back
                log.warning("run %s could not say that it is alive: %s", run_id, error)

    thread = threading.Thread(target=go_on, name="signature of the run", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def give_up_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine as failed whose process is gone, and free the places that runs which are over hold in the pools.

    The ids of those marked. A run whose process was killed may have been marked by Dagster, which leaves its place taken.
    """
    dead = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY)):
        run = record.dagster_run
        if is_dead(run) and _is_under_way(instance, run.run_id):
            instance.report_run_failed(run, GONE)
            dead.append(run.run_id)
    pools = instance.event_log_storage
    for run_id in pools.get_concurrency_run_ids() if pools.supports_global_concurrency_limits else ():
        if not _is_under_way(instance, run_id):
            pools.free_concurrency_slots_for_run(run_id)
    return dead


def _is_under_way(instance: dg.DagsterInstance, run_id: str) -> bool:
    """By what the instance says now: someone else may have marked it meanwhile."""
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def is_dead(run: dg.DagsterRun) -> bool:
    """Whether the process that executed the run is gone: it ran on this machine, and does not any more, or fell silent on another.

    A run that is executed again has the tags of the first, and with them the signature of that one's process.
    """
    signature = json.loads(run.tags.get(PROCESS_TAG, "{}"))
    return signature.get("run_id") == run.run_id and _is_gone(signature)


def _signature(process: psutil.Process) -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": process.pid, "since_boot": _since_boot(process)}


def _since_boot(process: psutil.Process) -> float:
    """When it was started, in seconds since the machine was: by the clock on the wall, which may be set, another moment each time."""
    return process.create_time() - psutil.boot_time()


def _is_gone(signature: dict[str, Any]) -> bool:
    """Whether the process is gone, or on another machine and silent for too long."""
    if signature["host"] != socket.gethostname():
        return time.time() > float(signature.get("at", math.inf)) + SILENCE_SECONDS
    try:
        process = psutil.Process(signature["pid"])
        started = _since_boot(process)
        return abs(started - signature.get("since_boot", started)) > 1.0 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
