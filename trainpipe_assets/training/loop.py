"""The recipe: batches, steps, validation, checkpoints, early stopping, the best model. Read `_train` first.

Each part is in a module of its own; what runs on which device and process is accelerate's.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.compute import describe_hardware, library_versions, resolve_compute
from trainpipe_assets.training.dropout import use_fast_dropout
from trainpipe_assets.training.durable import exclusive
from trainpipe_assets.training.efficiency import describe_efficiency, matmul_rate, operations_per_token
from trainpipe_assets.training.finished import FinishedModel, find_finished, write_finished
from trainpipe_assets.training.memory import available_bytes, fitting_micro_batch
from trainpipe_assets.training.micro_batches import PreparedBatch, one_ahead
from trainpipe_assets.training.model import load_tokenizer
from trainpipe_assets.training.optimizer import build_optimizer, learning_rate
from trainpipe_assets.training.progress import Meter, Report
from trainpipe_assets.training.scoring import score
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import StepRecord, TrainingState, Validation
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.symptoms import spike, unmoved, weights_sample
from trainpipe_assets.training.task import Task
from trainpipe_assets.training.tasks import task_of
from trainpipe_assets.training.timeline import CHECKPOINT, COMMUNICATION, OTHER, VALIDATION, Timeline, timeline_of

log = logging.getLogger(__name__)

VALIDATION_TOKENS = 4
"""A scoring batch holds so many times the tokens of a forward pass in training: without gradients each takes far less memory."""

LOCK_PATIENCE_SECONDS = 30.0
"""How long to wait for a training that was stopped in the same work folder to leave it."""


class Interrupted(Exception):
    """The training was asked to stop, and has left a checkpoint to go on from."""


@dataclass
class Job:
    """A training under way on this process."""

    spec: TrainSpec
    accelerator: Accelerator
    model: PreTrainedModel
    task: Task[Any]
    train: Sequences
    validation: Sequences
    stepper: Stepper
    checkpoints: Checkpoints
    state: TrainingState
    steps_per_epoch: int
    stop: Callable[[], bool]
    saved_at: float
    meter: Meter
    rate: float  # operations per second of matrix products, all processes together
    began_with: torch.Tensor  # a sample of the base model's weights

    @property
    def total_steps(self) -> int:
        """Steps of all epochs that are planned."""
        return self.steps_per_epoch * self.spec.training.epochs


def run(spec: TrainSpec, report: Report, stop: Callable[[], bool] = lambda: False, processes_here: int = 1) -> FinishedModel:
    """Train what `spec` describes, or go on with it where an earlier run was ended; the finished model.

    Args:
        spec: the training.
        report: called after each step.
        stop: asked after each step; once it says so, a checkpoint is left and `Interrupted` raised.
        processes_here: processes of this training on this machine, which share its cores.

    Raises:
        Interrupted: `stop` asked for it.
        ValueError: the spec asks for what is not there or cannot be: data, base model, device, or an output folder in use.
    """
    compute = resolve_compute(spec.compute, processes_here)
    torch.set_num_threads(compute.threads)
    accelerator = Accelerator(cpu=compute.device == "cpu", mixed_precision="bf16" if compute.precision == "bf16" else "no")
    if accelerator.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    finished = find_finished(spec)
    if finished is not None:
        log.info("this training had already finished; its model is in %s", finished.folder)
        if accelerator.is_main_process:
            with exclusive(Path(spec.work_dir), LOCK_PATIENCE_SECONDS):
                Checkpoints(Path(spec.work_dir), spec, "").clear()  # it may have been killed before it came to that
        return finished
    if not accelerator.is_main_process:
        return _run(spec, accelerator, report, stop)
    with exclusive(Path(spec.work_dir), LOCK_PATIENCE_SECONDS):
        return _run(spec, accelerator, report, stop)


def _run(spec: TrainSpec, accelerator: Accelerator, report: Report, stop: Callable[[], bool]) -> FinishedModel:
    job = _prepare(spec, accelerator, stop, timeline_of(accelerator.device))
    resumed_from = job.state.step
    if resumed_from:
        log.info("going on after step %d of %d", resumed_from, job.total_steps)
    _train(job, report)
    return _finish(job, resumed_from)


def _train(job: Job, report: Report) -> None:
    """Take all steps that are left, with a validation after each epoch."""
    state, settings, meter = job.state, job.spec.training, job.meter
    meter.timeline.enter(OTHER)
    for epoch in range(len(state.validations), settings.epochs):
        if state.patience_exhausted(settings.early_stopping_patience):
            break
        batches = job.task.plan(job.train, settings, epoch)
        job.model.train()
        for batch in meter.fed(one_ahead(job.stepper.prepare, batches[state.step - epoch * len(batches) :])):
            record = _take_step(job, batch, epoch)
            _count(meter, job.train, batch)
            report(meter.progress(state.step, job.total_steps, epoch + 1, record.loss, record.learning_rate))
            _checkpoint_if_due(job)
        with meter.timeline.phase(VALIDATION):
            state.validations.append(_validate(job, epoch))
        log.info("epoch %d: validation %s", epoch + 1, state.validations[-1])
        if epoch + 1 < settings.epochs and not state.patience_exhausted(settings.early_stopping_patience):
            _checkpoint(job)


def _take_step(job: Job, batch: PreparedBatch, epoch: int) -> StepRecord:
    state = job.state
    rate = learning_rate(job.spec.training, state.step, job.total_steps)
    loss, norm = job.stepper.take(batch, state.step + 1, rate)
    state.step += 1
    state.micro_batch_tokens = job.stepper.micro_batch_tokens
    record = StepRecord(step=state.step, epoch=epoch + 1, loss=loss, learning_rate=rate, grad_norm=norm)
    _warn(job, spike=spike(state.history, record))
    state.record(record, job.total_steps)
    return record


def _warn(job: Job, **symptoms: str | None) -> None:
    """Say what was found, and keep it, the first time of each kind."""
    for kind, found in symptoms.items():
        if found is not None and kind not in job.state.warnings:
            job.state.warnings[kind] = found
            log.log(logging.WARNING if job.accelerator.is_main_process else logging.DEBUG, "%s", found)


def _count(meter: Meter, examples: Sequences, batch: PreparedBatch) -> None:
    """Count the whole effective batch; its padding as this process, whose share is like the others', saw it."""
    lengths = examples.lengths_of(batch.effective)
    own = int(examples.lengths_of(batch.share).sum())
    rectangle = sum(micro_batch.input_ids.numel() for micro_batch in batch.micro_batches)
    meter.count(len(batch.effective), int(lengths.sum()), own, rectangle)


def _checkpoint_if_due(job: Job) -> None:
    """Checkpoint when it is time, by the clock of the main process, or when any process was asked to stop."""
    due = job.accelerator.is_main_process and time.monotonic() - job.saved_at >= job.spec.training.checkpoint_seconds
    with job.meter.timeline.phase(COMMUNICATION):
        any_due, any_stop = _any_process(job.accelerator, due, job.stop())
    if any_due or any_stop:
        _checkpoint(job)
    if any_stop:
        raise Interrupted(f"stopped after step {job.state.step} of {job.total_steps}; run again to go on from there")


def _checkpoint(job: Job) -> None:
    if job.accelerator.is_main_process:
        with job.meter.timeline.phase(CHECKPOINT):
            job.checkpoints.save(job.state, job.model, job.stepper.optimizer)
    job.saved_at = time.monotonic()


def _validate(job: Job, epoch: int) -> Validation:
    """Metrics on the whole validation split, each process scoring a share of it."""
    budget = VALIDATION_TOKENS * (job.state.micro_batch_tokens or job.spec.training.batch_tokens)
    batches = job.task.plan_scoring(job.validation, budget)
    own: list[Indices] = batches[job.accelerator.process_index :: job.accelerator.num_processes]
    scores = score(job.model, job.validation, own, job.accelerator.autocast, lambda: _leave_if_alone(job), job.task)
    everything = job.accelerator.reduce(scores, "sum")
    _warn(
        job,
        one_class=job.task.symptom(job.validation, everything, job.spec.labels, epoch + 1),
        unmoved=unmoved(job.began_with, weights_sample(job.model), job.state.step, job.spec.training.learning_rate),
    )
    return job.task.summarize(job.validation, everything, job.state.step, epoch + 1)


def _leave_if_alone(job: Job) -> None:
    """Stop within a validation, where no other process waits for this one's scores; several stop at the next step instead."""
    if job.accelerator.num_processes == 1 and job.stop():
        _checkpoint(job)
        raise Interrupted(f"stopped in the validation after step {job.state.step} of {job.total_steps}; run again to go on from there")


def _any_process(accelerator: Accelerator, *flags: bool) -> list[bool]:
    """Each flag, true on all processes if it is true on any."""
    if accelerator.num_processes == 1:
        return list(flags)
    counts: torch.Tensor = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device), "sum")
    return [count > 0 for count in counts.tolist()]


def _prepare(spec: TrainSpec, accelerator: Accelerator, stop: Callable[[], bool], timeline: Timeline) -> Job:
    task = task_of(spec)
    train, validation = (task.load(spec, split) for split in ("train", "validation"))
    model = task.load_model(spec)
    for examples in (train, validation):
        task.check(examples, model, load_tokenizer(spec.base_model))
    model.to(accelerator.device)
    task.spare_work(model)
    if accelerator.device.type == "cpu":
        use_fast_dropout(model)
    optimizer = build_optimizer(model, spec.training)
    checkpoints = Checkpoints(Path(spec.work_dir), spec, train.digest() + validation.digest())
    began_with = weights_sample(model)
    state = _restore(checkpoints, model, optimizer) or TrainingState(micro_batch_tokens=spec.training.micro_batch_tokens)
    stepper = Stepper(accelerator, model, optimizer, train, spec.training, state.micro_batch_tokens, timeline, task)
    _fit_memory(stepper)
    return Job(
        spec=spec,
        accelerator=accelerator,
        model=model,
        task=task,
        train=train,
        validation=validation,
        stepper=stepper,
        checkpoints=checkpoints,
        state=state,
        steps_per_epoch=len(task.plan(train, spec.training, 0)),
        stop=stop,
        saved_at=time.monotonic(),
        meter=Meter(timeline),
        rate=_matmul_rate(accelerator),
        began_with=began_with,
    )


def _fit_memory(stepper: Stepper) -> None:
    """Split the batches from the start where they would not fit the memory."""
    processes, settings = stepper.accelerator.num_processes, stepper.settings
    available = available_bytes(stepper.accelerator.device, processes)
    stepper.micro_batch_tokens = fitting_micro_batch(
        stepper.need(), available, stepper.micro_batch_tokens, settings.batch_tokens // processes
    )


def _matmul_rate(accelerator: Accelerator) -> float:
    """What the processes' devices do together, measured on all of them at once."""
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    own = matmul_rate(accelerator.device, dtype, torch.get_num_threads())
    return float(accelerator.reduce(torch.tensor(own, device=accelerator.device), "sum"))


def _restore(checkpoints: Checkpoints, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> TrainingState | None:
    state = checkpoints.newest()
    if state is not None:
        checkpoints.restore(state.name, model, optimizer)
    return state


def _finish(job: Job, resumed_from: int) -> FinishedModel:
    """Write the best model, from its checkpoint where it is not the last; then the checkpoints are no longer needed."""
    best = job.state.best
    assert best is not None  # every epoch ends with a validation
    if best.step != job.state.step:
        log.info("the best model is that of step %d", best.step)
        job.checkpoints.restore(job.state.best_name, job.model)
    record, folder = _record(job, resumed_from), Path(job.spec.output_dir)
    log.info("%s", record["efficiency"]["verdict"])
    if job.accelerator.is_main_process:
        finished = write_finished(folder, job.model.cpu(), load_tokenizer(job.spec.base_model), record, job.task.save)
    job.accelerator.wait_for_everyone()
    if not job.accelerator.is_main_process:
        return FinishedModel(folder, "", record)
    job.checkpoints.clear()
    return finished


def _record(job: Job, resumed_from: int) -> dict[str, Any]:
    """What `training.json` says."""
    spec, state, phases = job.spec, job.state, job.meter.timeline.seconds()
    tokens, operations = job.meter.tokens, operations_per_token(job.model)
    return {
        "fingerprint": spec.fingerprint,
        "history": [record.model_dump() for record in state.history],
        "validations": [validation.model_dump() for validation in state.validations],
        "best": state.best.model_dump() if state.best else None,
        "warnings": list(state.warnings.values()),
        "stopped_early": len(state.validations) < spec.training.epochs,
        "resumed_from_step": resumed_from,
        "examples": {"train": len(job.train), "validation": len(job.validation)},
        "settings": spec.model_dump(mode="json", include={"task", "labels", "model", "training", "compute"}),
        "hardware": {"processes": job.accelerator.num_processes, **describe_hardware(job.accelerator.device)},
        "versions": library_versions(),
        "timing": job.meter.summary(phases),
        "efficiency": describe_efficiency(phases, tokens, operations, job.rate, spec.compute.price_per_hour),
    }
