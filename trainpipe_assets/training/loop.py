"""The recipe: steps, validation, checkpoints, early stopping, the best model. Read `_train`.

The parts of a training are put together in `job.py`, a step is `step.py`'s, and what is trained a task's; what runs on which device and
process is accelerate's.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from trainpipe_assets.training.batching import share_of
from trainpipe_assets.training.checkpoint import clear_checkpoints
from trainpipe_assets.training.compute import resolve_compute
from trainpipe_assets.training.durable import exclusive
from trainpipe_assets.training.errors import Interrupted, MemoryRanOut
from trainpipe_assets.training.finished import FinishedModel, find_finished, write_finished
from trainpipe_assets.training.job import Job, prepare
from trainpipe_assets.training.micro_batches import PreparedBatch
from trainpipe_assets.training.optimizer import learning_rate
from trainpipe_assets.training.processes import agree, join_processes, wait_for_all
from trainpipe_assets.training.progress import Report
from trainpipe_assets.training.record import describe_training
from trainpipe_assets.training.scoring import VALIDATION_TOKENS, score
from trainpipe_assets.training.spec import GRACE_SECONDS, TrainSpec
from trainpipe_assets.training.state import StepRecord
from trainpipe_assets.training.symptoms import spike, unmoved, weights_sample
from trainpipe_assets.training.timeline import Phase

log = logging.getLogger(__name__)

LOCK_PATIENCE_SECONDS = 30.0
"""How long to wait for a training that was stopped in the same work folder to leave it."""

MIRROR_PATIENCE_SECONDS = GRACE_SECONDS / 2
"""How long a training that ends waits for its last checkpoint to be copied."""


def run(spec: TrainSpec, report: Report, stop: Callable[[], bool] = lambda: False, processes_here: int = 1) -> FinishedModel:
    """Train what `spec` describes, or go on with it where an earlier run was ended; the finished model.

    Args:
        spec: the training.
        report: called after each step.
        stop: asked after each step; once it says so, a checkpoint is left and `Interrupted` raised.
        processes_here: processes of this training on this machine, which share its cores.

    Raises:
        Interrupted: `stop` asked for it, or a model that is shared out needs smaller micro-batches.
        ValueError: the spec asks for what is not there or cannot be: data, base model, device, or an output folder in use.
    """
    compute = resolve_compute(spec.compute, processes_here)
    spec = spec.computed_in(compute.precision)
    accelerator = join_processes(compute, deterministic=spec.training.deterministic)
    with exclusive(Path(spec.work_dir), LOCK_PATIENCE_SECONDS) if accelerator.is_main_process else nullcontext():
        wait_for_all(accelerator)  # nobody looks what is there before the main process holds the folder
        finished = find_finished(spec) or _train(prepare(spec, accelerator, stop), report)
        log.info("the model is in %s", finished.folder)
        if accelerator.is_main_process:
            clear_checkpoints(Path(spec.work_dir))  # also those of a training that was killed between its end and this line
    return finished


def _train(job: Job, report: Report) -> FinishedModel:
    """Take all steps that are left, with a validation after each epoch."""
    if job.resumed_from:
        log.info("going on after step %d of %d", job.resumed_from, job.total_steps)
    job.meter.timeline.enter(Phase.OTHER)
    while not job.over:
        job.model.train()
        for batch in job.batches_left():
            record = _take_step(job, batch)
            report(job.measure(batch, record))
            _checkpoint_if_due(job)
        _validate(job)
        if not job.over:
            _checkpoint(job)
    return _finish(job)


def _take_step(job: Job, batch: PreparedBatch) -> StepRecord:
    state, epoch = job.state, job.epoch + 1
    rate = learning_rate(job.spec.training, state.step, job.total_steps)
    with _smaller_next_time(job, state.step + 1):
        loss, norm = job.stepper.take(batch, state.step + 1, rate)
    state.step += 1
    record = StepRecord(step=state.step, epoch=epoch, loss=loss, learning_rate=rate, grad_norm=norm)
    job.warn(spike=spike(state.history, record))
    state.record(record, job.total_steps)
    return record


@contextmanager
def _smaller_next_time(job: Job, step: int) -> Iterator[None]:
    """End the training where memory runs out within the block, of processes that have to stay in step, and keep what the next one needs."""
    try:
        yield
    except MemoryRanOut as error:
        job.checkpoints.note_shrunk(step, error.micro_batch_tokens)
        how = f"in micro-batches of {error.micro_batch_tokens} tokens, with the same effective batch"
        raise Interrupted(f"{error}; run again to go on from the last checkpoint {how}") from error


def _checkpoint_if_due(job: Job) -> None:
    """Checkpoint when it is time, by the clock of the main process, or when any process was asked to stop."""
    due = job.accelerator.is_main_process and time.monotonic() - job.saved_at >= job.spec.training.checkpoint_seconds
    with job.meter.timeline.phase(Phase.COMMUNICATION):
        budget, (any_due, any_stop) = agree(job.accelerator, job.stepper.micro_batch_tokens, due, job.stop())
    job.state.micro_batch_tokens = job.stepper.micro_batch_tokens = budget
    if any_stop:
        _leave(job, f"stopped after step {job.state.step}")
    if any_due:
        _checkpoint(job)


def _checkpoint(job: Job) -> None:
    """Save where the training stands, unless that is what was saved last, or taken up."""
    if job.saved != job.state.name:
        with job.meter.timeline.phase(Phase.CHECKPOINT):
            tensors = job.distribution.gather(job.model, job.stepper.optimizer)
            if job.accelerator.is_main_process:
                job.checkpoints.save(job.state, tensors, job.meter.spent())
    job.saved, job.saved_at = job.state.name, time.monotonic()


def _leave(job: Job, why: str) -> None:
    _checkpoint(job)
    _settle(job)
    raise Interrupted(f"{why} of {job.total_steps}; run again to go on from there")


def _validate(job: Job) -> None:
    """Metrics on the whole validation split, each process scoring a share of it."""
    with job.meter.timeline.phase(Phase.VALIDATION):
        budget = VALIDATION_TOKENS * (job.state.micro_batch_tokens or job.spec.training.batch_tokens)
        batches = job.task.plan_scoring(job.validation, budget)
        own, first = (share_of(batches, rank, job.accelerator.num_processes) for rank in (job.accelerator.process_index, 0))
        fewer = len(first) - len(own)
        idle = batches[-1:] * fewer if job.distribution.in_step else None
        with _smaller_next_time(job, job.state.step):
            scores = score(job.model, job.validation, own, job.accelerator.autocast, lambda: _leave_if_asked(job), job.task, idle)
        for _ in range(fewer if idle is None else 0):
            _leave_if_asked(job)  # as often as the others ask
        everything = job.accelerator.reduce(scores, "sum")
        found = job.task.summarize(job.validation, everything, job.state.step, job.epoch + 1)
        job.warn(
            one_class=job.task.symptom(job.validation, everything, job.spec.labels, job.epoch + 1),
            unmoved=unmoved(job.began_with, weights_sample(job.model), job.state.step, job.spec.training.learning_rate),
        )
    job.state.validations.append(found)
    log.info("epoch %d: validation %s", found.epoch, found)


def _leave_if_asked(job: Job) -> None:
    """Stop within a validation, after the same batch on each process, when any of them was asked to."""
    _, (any_stop,) = agree(job.accelerator, None, job.stop())
    if any_stop:
        _leave(job, f"stopped in the validation after step {job.state.step}")


def _finish(job: Job) -> FinishedModel:
    """Write the best model, from its checkpoint where it is not the last."""
    best = job.state.best
    assert best is not None  # every epoch ends with a validation
    if best.step != job.state.step:
        log.info("the best model is that of step %d", best.step)
        job.distribution.load(job.checkpoints.tensors(job.state.best_name), job.model)
    record, folder = describe_training(job), Path(job.spec.output_dir)
    log.info("%s", record["efficiency"]["verdict"])
    finished = FinishedModel(folder, "", record)
    model = job.distribution.finished(job.model, partial(job.task.load_model, job.spec))
    if model is not None:
        finished = write_finished(folder, model, job.spec.base_model, record, job.task.save)
    _settle(job)
    wait_for_all(job.accelerator)
    return finished


def _settle(job: Job) -> None:
    """Give the mirror of the checkpoints some time to come up to date."""
    mirror = job.checkpoints.mirror
    if mirror is not None and not mirror.settle(MIRROR_PATIENCE_SECONDS):
        log.warning("the last checkpoint did not reach %s in time; it is in %s", mirror.uri, job.spec.work_dir)
