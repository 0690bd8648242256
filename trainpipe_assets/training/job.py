"""A training under way on this process: its parts, put together or taken up from a checkpoint. What is done with them is `loop.py`'s."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from trainpipe_assets.prefetching import one_ahead
from trainpipe_assets.storage.mirror import Mirror
from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.crowding import Cores
from trainpipe_assets.training.distribution import Distribution, distribution_of
from trainpipe_assets.training.dropout import use_fast_dropout
from trainpipe_assets.training.efficiency import matmul_rate
from trainpipe_assets.training.heap import GROWTH, give_freed_memory_back
from trainpipe_assets.training.memory import available_bytes, fitting_micro_batch
from trainpipe_assets.training.micro_batches import PreparedBatch
from trainpipe_assets.training.model import frozen_digest, load_tokenizer, longest_input
from trainpipe_assets.training.optimizer import build_optimizer
from trainpipe_assets.training.processes import agree, together, wait_for_all
from trainpipe_assets.training.products import use_fast_products
from trainpipe_assets.training.progress import Meter, Progress
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import StepRecord, TrainingState
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.symptoms import weights_sample
from trainpipe_assets.training.tasks.choice import task_of
from trainpipe_assets.training.tasks.task import Task
from trainpipe_assets.training.timeline import timeline_of

log = logging.getLogger(__name__)

FROZEN = "weights of the base model that do not learn"
"""What a checkpoint leaves out, and so must be the same when it is taken up; as it is called where it is not."""


@dataclass
class Job:
    """A training under way. `resumed_from` is the step of the checkpoint that it was taken up from, 0 without one."""

    spec: TrainSpec
    distribution: Distribution
    model: PreTrainedModel
    task: Task[Any]
    train: Sequences
    validation: Sequences
    stepper: Stepper
    checkpoints: Checkpoints
    state: TrainingState
    stop: Callable[[], bool]
    meter: Meter
    rate: float  # operations per second of matrix products, all processes together
    began_with: torch.Tensor  # a sample of the base model's weights

    def __post_init__(self) -> None:
        self.accelerator = self.distribution.accelerator
        self.resumed_from = self.state.step
        self.saved, self.saved_at = self.state.name, time.monotonic()  # the checkpoint that there is; none is made of the beginning
        self.cores = Cores()
        self.total_steps = self.spec.training.epochs * len(self.task.plan(self.train, self.spec.training, 0))

    @property
    def epoch(self) -> int:
        """The epoch under way, from 0; each ends with a validation."""
        return len(self.state.validations)

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or patience with them is at its end."""
        settings = self.spec.training
        return self.epoch >= settings.epochs or self.state.patience_exhausted(settings.early_stopping_patience)

    def batches_left(self) -> Iterator[PreparedBatch]:
        """This process's share of each batch of the epoch that was not taken yet."""
        batches = self.task.plan(self.train, self.spec.training, self.epoch)
        left = batches[self.state.step - self.epoch * len(batches) :]
        return self.meter.fed(one_ahead(map(self.stepper.prepare, left)))

    def measure(self, batch: PreparedBatch, record: StepRecord) -> Progress:
        """Count the step of `batch`, and its padding as this process, whose share is like the others', saw it."""
        lengths, own = (self.train.lengths_of(indices) for indices in (batch.effective, batch.share))
        rectangle = sum(micro_batch.input_ids.numel() for micro_batch in batch.micro_batches)
        examples = len(lengths) * self.train.examples / len(self.train)  # a long document is several sequences
        self.meter.count(examples, int(lengths.sum()), int(own.sum()), rectangle)
        return self.meter.progress(record, self.total_steps)

    def warn(self, **symptoms: str | None) -> None:
        """Say what was found, and keep it, the first time of each kind."""
        for kind, found in symptoms.items():
            if found is not None and kind not in self.state.warnings:
                self.state.warnings[kind] = found
                log.log(logging.WARNING if self.accelerator.is_main_process else logging.DEBUG, "%s", found)


def prepare(spec: TrainSpec, accelerator: Accelerator, stop: Callable[[], bool]) -> Job:
    """The training of `spec`, ready for its next step.

    Raises:
        ValueError: data or base model cannot be used, the memory does not suffice, or the checkpoints are another training's.
    """
    timeline = timeline_of(accelerator.device)
    task = task_of(spec)
    train, validation = (task.load(spec, split) for split in ("train", "validation"))
    distribution = distribution_of(accelerator, spec.compute.sharding)
    model = _load_model(spec, task, accelerator, (train, validation))
    given = {"examples": train.digest() + validation.digest(), FROZEN: frozen_digest(model)}
    distribution.place(model)
    optimizer = build_optimizer(model, spec.training)
    checkpoints = _checkpoints(spec, given, accelerator)
    began_with = weights_sample(model)
    shrunk_at, smaller = checkpoints.shrunk()
    state = _restore(checkpoints, distribution, model, optimizer, smaller)
    stepper = Stepper(distribution, model, optimizer, train, spec.training, state.micro_batch_tokens, timeline, task)
    stepper.shrunk_at = shrunk_at
    state.micro_batch_tokens = stepper.micro_batch_tokens = _fitting(stepper, begins=state.step == 0)
    meter = Meter(timeline, earlier=checkpoints.seconds(state.name) if state.step else 0.0)
    rate = together(accelerator, _matmul_rate(accelerator))
    return Job(spec, distribution, model, task, train, validation, stepper, checkpoints, state, stop, meter, rate, began_with)


def _load_model(spec: TrainSpec, task: Task[Any], accelerator: Accelerator, splits: tuple[Sequences, ...]) -> PreTrainedModel:
    """The model on the CPU, made for these examples."""
    model, tokenizer = task.load_model(spec), load_tokenizer(spec.base_model)
    longest = longest_input(model, tokenizer)
    if spec.model.max_length > longest:
        asked = f"model.max_length is {spec.model.max_length}"
        raise ValueError(f"{asked}, but the base model takes {longest} tokens at most; set it to that or less")
    for examples in splits:
        task.check(examples, model, tokenizer)
    task.spare_work(model)
    if accelerator.device.type == "cpu":
        use_fast_dropout(model)
        use_fast_products(model)
    return model


def _checkpoints(spec: TrainSpec, given: Mapping[str, str], accelerator: Accelerator) -> Checkpoints:
    mirror = Mirror(spec.checkpoints_uri) if spec.checkpoints_uri else None
    checkpoints = Checkpoints(Path(spec.work_dir), spec, given, mirror)
    if accelerator.is_main_process:
        checkpoints.fetch()
    wait_for_all(accelerator)
    return checkpoints


def _restore(
    checkpoints: Checkpoints, distribution: Distribution, model: PreTrainedModel, optimizer: torch.optim.Optimizer, smaller: int | None
) -> TrainingState:
    """Where the newest checkpoint stands, or the beginning.

    It is computed on in the same micro-batches, whatever memory is there now, for other ones would draw other random numbers and round
    otherwise. Smaller ones are made where the settings ask for them by now, or memory ran out: `smaller`.
    """
    state = checkpoints.newest() or TrainingState()
    if state.step:
        distribution.load(checkpoints.tensors(state.name), model, optimizer)
    budgets = (state.micro_batch_tokens, checkpoints.spec.training.micro_batch_tokens, smaller)
    state.micro_batch_tokens = min((budget for budget in budgets if budget is not None), default=None)
    return state


def _fitting(stepper: Stepper, *, begins: bool) -> int | None:
    """The micro-batches that fit the memory of every process; of a training that goes on, those that it has.

    On a CPU without room for the gaps that kept memory leaves, none is kept.
    """
    device, processes, asked = stepper.accelerator.device, stepper.accelerator.num_processes, stepper.micro_batch_tokens
    at_once = stepper.settings.batch_tokens // processes
    available, need = available_bytes(device, processes), stepper.need()
    if device.type == "cpu" and available < GROWTH * need.bytes_for(need.examples_of(asked or at_once)):
        give_freed_memory_back()
        log.warning(
            "the memory is less than %d times what the tensors take (%s): what is freed goes back to the system at once, and steps may "
            "take 1.6 times as long. A lower training.micro_batch_tokens takes less",
            GROWTH,
            need,
        )
    if not begins:
        return asked
    return agree(stepper.accelerator, fitting_micro_batch(need, available, asked, at_once, stepper.distribution.advice))[0]


def _matmul_rate(accelerator: Accelerator) -> float:
    """What this device does while the others do the same."""
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    return matmul_rate(accelerator.device, dtype, torch.get_num_threads())
