"""One optimizer step: gradients of the mean loss over an effective batch, whatever its split over micro-batches and processes.

The gradients of all processes are added up here, once a step, rather than by a wrapper around the model: so a process may split its
share anew when memory does not suffice, or have no share at all, and the others never notice.
"""

import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import PreTrainedModel

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices, share_of
from trainpipe_assets.training.compute import is_out_of_memory
from trainpipe_assets.training.memory import Need, measure_need
from trainpipe_assets.training.micro_batches import MicroBatch, PreparedBatch
from trainpipe_assets.training.optimizer import clip_gradients, gradient_norm
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.task import Task
from trainpipe_assets.training.timeline import BACKWARD, COMMUNICATION, DATA, FORWARD, OPTIMIZER, TRANSFER, Timeline
from trainpipe_assets.training.touched_rows import TouchedRows

log = logging.getLogger(__name__)

NAMED_ROWS = 20


class NonFiniteLoss(ValueError):
    """The loss or its gradients overflowed; the step was not applied."""


@dataclass
class Stepper:
    """What taking steps needs. `micro_batch_tokens` shrinks when memory does not suffice; None leaves a share whole."""

    accelerator: Accelerator
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    examples: Sequences
    settings: TrainingSettings
    micro_batch_tokens: int | None
    timeline: Timeline = field(default_factory=Timeline)
    task: Task[Any] = CLASSIFICATION

    def __post_init__(self) -> None:
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.touched = TouchedRows(self.model, self.accelerator.num_processes)
        self.pad_id = int(self.model.config.pad_token_id)
        self.shrunk_at: int | None = None  # the step whose batch had to be split

    def prepare(self, effective: Indices) -> PreparedBatch:
        """This process's share of the batch `effective`, as tensors. Any thread may call it."""
        share = share_of(effective, self.accelerator.process_index, self.accelerator.num_processes)
        runs = self.task.cut(self.examples, share, self.micro_batch_tokens)
        made = (self.task.micro_batch(self.examples, run, self.pad_id) for run in runs)
        micro_batches = tuple(one.pinned() for one in made) if self.accelerator.device.type == "cuda" else tuple(made)
        return PreparedBatch(effective, share, self.micro_batch_tokens, self.task.weight(self.examples, effective), micro_batches)

    def need(self) -> Need:
        """Memory that steps will need, by a trial of the longest example."""
        longest = int(self.examples.lengths.argmax())

        def forward(count: int) -> torch.Tensor:
            inputs = self.task.micro_batch(self.examples, np.full(count, longest), self.pad_id).to(self.accelerator.device)
            with self.accelerator.autocast():
                return self._losses(inputs)[0]

        tokens = int(self.examples.lengths[longest])
        try:
            return measure_need(self.model.train(), self.optimizer, forward, tokens)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _too_long(tokens, _first_line(error)) from error

    def take(self, batch: PreparedBatch, step: int, learning_rate: float) -> tuple[float, float]:
        """Take step `step` (from 1) on `batch`; the mean loss over the effective batch and the norm of its gradients.

        Every random number drawn within is a function of the seed, the step and the process, so that a resumed
        training draws those that the killed one would have drawn.

        Raises:
            NonFiniteLoss: the loss or a gradient is not finite; the weights are as before the step.
            ValueError: a single example does not fit the memory, or memory did not suffice once more.
        """
        loss = self._accumulate(batch, step)
        with self.timeline.phase(COMMUNICATION):
            self._add_up_gradients()
            loss = self.accelerator.reduce(loss, "sum")
        with self.timeline.phase(OPTIMIZER):
            gradients = self.touched.collect(self.parameters)
            norm = gradient_norm(gradients)
            mean_loss, grad_norm = torch.stack([loss, norm]).tolist()
            if not np.isfinite(mean_loss) or not np.isfinite(grad_norm):
                self.optimizer.zero_grad()
                raise NonFiniteLoss(self._describe_non_finite(batch, step, learning_rate, mean_loss, grad_norm))
            clip_gradients(gradients, norm, self.settings.max_grad_norm)
            self.touched.fill(self.parameters)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.touched.clear()
        return mean_loss, grad_norm

    def _accumulate(self, batch: PreparedBatch, step: int) -> torch.Tensor:
        """Gradients of this process's share, in smaller micro-batches if need be; its part of the mean loss."""
        while True:
            if batch.budget != self.micro_batch_tokens:
                with self.timeline.phase(DATA):
                    batch = self.prepare(batch.effective)
            set_seed(_seed_of(self.settings.seed, step, self.accelerator.process_index))
            total = torch.zeros((), device=self.accelerator.device)
            for micro_batch in batch.micro_batches:
                failure = self._accumulate_one(micro_batch, batch.weight, total)
                if failure is not None:
                    self._shrink(micro_batch, failure, step)
                    break
            else:
                return total

    def _accumulate_one(self, micro_batch: MicroBatch, weight: int, total: torch.Tensor) -> str | None:
        """Add the gradients of one micro-batch, and its part of the mean loss over `weight` examples or tokens to `total`.

        Returns what the device said where memory did not suffice: once the error is gone, so are the tensors that it holds.
        """
        try:
            with self.timeline.phase(TRANSFER):
                inputs = micro_batch.to(self.accelerator.device)
            with self.timeline.phase(FORWARD), self.accelerator.autocast():
                trained, reported = self._losses(inputs)
            with self.timeline.phase(BACKWARD):
                self.accelerator.backward(trained / weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return _first_line(error)
        total += reported.detach() / weight
        return None

    def _losses(self, inputs: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over the examples, or tokens, of the loss that is trained, and of the one that is reported, which is never smoothed."""
        return self.task.losses(self.model, inputs, self.settings.label_smoothing)

    def _shrink(self, micro_batch: MicroBatch, failure: str, step: int) -> None:
        """Halve the micro-batches and forget the gradients of this step, which is then computed anew. Later steps are not forgiven."""
        examples, longest = micro_batch.count, micro_batch.input_ids.numel() // micro_batch.count
        if examples == 1:
            raise _too_long(longest, failure)
        if self.shrunk_at not in (None, step):
            raise ValueError(
                f"step {step}: memory does not suffice ({failure}), although the micro-batches were split at step {self.shrunk_at} to "
                f"{self.micro_batch_tokens} tokens: something takes ever more of it. Free memory, or set training.micro_batch_tokens to "
                f"{max(16, examples * longest // 4)}, and run again to go on from the last checkpoint"
            )
        self.shrunk_at = step
        self.micro_batch_tokens = examples * longest // 2
        self.optimizer.zero_grad()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "%d examples of %d tokens do not fit the memory (%s): going on in micro-batches of %d tokens, with the same effective batch",
            *(examples, longest, failure, self.micro_batch_tokens),
        )

    def _add_up_gradients(self) -> None:
        """Replace each gradient by its sum over the processes; a parameter that no process used keeps none."""
        if self.accelerator.num_processes == 1:
            return
        present = torch.tensor([float(parameter.grad is not None) for parameter in self.parameters], device=self.accelerator.device)
        anywhere = self.accelerator.reduce(present, "sum").tolist()
        used = [parameter for parameter, count in zip(self.parameters, anywhere, strict=True) if count]
        flat = torch.cat([(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten() for parameter in used])
        sums = self.accelerator.reduce(flat, "sum").split([parameter.numel() for parameter in used])
        for parameter, total in zip(used, sums, strict=True):
            parameter.grad = total.view_as(parameter)

    def _describe_non_finite(self, batch: PreparedBatch, step: int, learning_rate: float, loss: float, norm: float) -> str:
        rows = self.examples.row_ids.gather(batch.effective).sort().to_list()
        named = ", ".join(rows[:NAMED_ROWS]) + (f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else "")
        found = f"step {step}: loss {loss}, gradient norm {norm} at learning rate {learning_rate:.2e}"
        return f"{found}; the step was not applied. Lower training.learning_rate, or look at the rows of the batch: {named}"


def _too_long(tokens: int, failure: str) -> ValueError:
    return ValueError(f"one example of {tokens} tokens does not fit the memory ({failure}); lower model.max_length or free memory")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
