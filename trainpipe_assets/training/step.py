"""One optimizer step: gradients of the mean loss over an effective batch, whatever its split over micro-batches and processes.

Where the model and its gradients lie, whole or shared out, is `distribution.py`'s.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices, share_of
from trainpipe_assets.training.distribution import Distribution
from trainpipe_assets.training.errors import MemoryRanOut, first_line, is_out_of_memory
from trainpipe_assets.training.memory import Need, measure_need
from trainpipe_assets.training.micro_batches import MicroBatch, PreparedBatch
from trainpipe_assets.training.optimizer import clip_gradients, gradient_norm
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_assets.training.tasks.task import Task
from trainpipe_assets.training.timeline import Phase, Timeline
from trainpipe_assets.training.touched_rows import TouchedRows

log = logging.getLogger(__name__)

NAMED_ROWS = 20


class NonFiniteLoss(ValueError):
    """The loss or its gradients overflowed; the step was not applied."""


@dataclass
class Stepper:
    """What taking steps needs. `micro_batch_tokens` shrinks when memory does not suffice; None leaves a share whole."""

    distribution: Distribution
    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    examples: Sequences
    settings: TrainingSettings
    micro_batch_tokens: int | None
    timeline: Timeline = field(default_factory=Timeline)
    task: Task[Any] = CLASSIFICATION

    def __post_init__(self) -> None:
        self.accelerator = self.distribution.accelerator
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.touched = TouchedRows(self.model, self.accelerator.num_processes)
        self.pad_id = int(self.model.config.pad_token_id)
        self.shrunk_at: int | None = None  # the step whose batch had to be split

    def prepare(self, effective: Indices) -> PreparedBatch:
        """This process's share of the batch `effective`, as tensors. Any thread may call it."""
        budget = self.micro_batch_tokens  # read once: another thread may shrink it meanwhile
        own, processes = self.accelerator.process_index, self.accelerator.num_processes
        shares = {rank: share_of(effective, rank, processes) for rank in (range(processes) if self.distribution.in_step else (own,))}
        runs = {rank: self.task.cut(self.examples, share, budget) for rank, share in shares.items()}
        idle = max(map(len, runs.values())) - len(runs[own])
        made, unused = ([self._micro_batch(run) for run in chosen] for chosen in (runs[own], [effective[:1]] * idle))
        weight = self.task.weight(self.examples, effective)
        return PreparedBatch(effective, shares[own], budget, weight, tuple(made), tuple(unused))

    def _micro_batch(self, run: Indices) -> MicroBatch:
        made = self.task.micro_batch(self.examples, run, self.pad_id)
        return made.pinned() if self.accelerator.device.type == "cuda" else made

    def need(self) -> Need:
        """Memory that steps will need, by a trial of the longest example."""
        model, longest = self.model.train(), int(self.examples.lengths.argmax())

        def forward(count: int) -> torch.Tensor:
            inputs = self.task.micro_batch(self.examples, np.full(count, longest), self.pad_id).to(self.accelerator.device)
            with self.accelerator.autocast():
                return self._losses(inputs)[0]

        tokens = int(self.examples.lengths[longest])
        try:
            return measure_need(model, self.optimizer, forward, tokens, self.distribution.whole_at_once(model))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise _too_long(tokens, first_line(error)) from error

    def take(self, batch: PreparedBatch, step: int, learning_rate: float) -> tuple[float, float]:
        """Take step `step` (from 1) on `batch`; the mean loss over the effective batch and the norm of its gradients.

        Every random number drawn within is a function of the seed, the step and the process, so that a resumed
        training draws those that the killed one would have drawn.

        Raises:
            NonFiniteLoss: the loss or a gradient is not finite; the weights are as before the step.
            ValueError: a single example does not fit the memory, or memory did not suffice once more.
            MemoryRanOut: memory did not suffice, of processes that have to stay in step.
        """
        loss = self._accumulate(batch, step)
        with self.timeline.phase(Phase.COMMUNICATION):
            self.distribution.add_up(self.parameters)
            loss = self.accelerator.reduce(loss, "sum")
        with self.timeline.phase(Phase.OPTIMIZER):
            gradients = self.touched.collect(self.parameters)
            norm = self.distribution.norm(gradient_norm(gradients))
            mean_loss, grad_norm = torch.stack([loss, norm]).tolist()
            if not np.isfinite(mean_loss) or not np.isfinite(grad_norm):
                self.optimizer.zero_grad()
                raise NonFiniteLoss(self._describe_non_finite(batch, step, learning_rate, mean_loss, grad_norm))
            clip_gradients(gradients, norm, grad_norm, self.settings.max_grad_norm)
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
                with self.timeline.phase(Phase.DATA):
                    batch = self.prepare(batch.effective)
            set_seed(_seed_of(self.settings.seed, step, self.accelerator.process_index))
            total = torch.zeros((), device=self.accelerator.device)
            weights = [*[batch.weight] * len(batch.micro_batches), *[math.inf] * len(batch.idle)]
            for micro_batch, weight in zip((*batch.micro_batches, *batch.idle), weights, strict=True):
                failure = self._accumulate_one(micro_batch, weight, total)
                if failure is not None:
                    self._shrink(micro_batch, failure, step)
                    break
            else:
                return total

    def _accumulate_one(self, micro_batch: MicroBatch, weight: float, total: torch.Tensor) -> str | None:
        """Add the gradients of one micro-batch, and its part of the mean loss over `weight` examples or tokens to `total`; of
        an idle one, whose weight is infinite, nothing.

        Returns what the device said where memory did not suffice: once the error is gone, so are the tensors that it holds.
        """
        try:
            with self.timeline.phase(Phase.TRANSFER):
                inputs = micro_batch.to(self.accelerator.device)
            with self.timeline.phase(Phase.FORWARD), self.accelerator.autocast():
                trained, reported = self._losses(inputs)
            with self.timeline.phase(Phase.BACKWARD):
                self.accelerator.backward(trained / weight)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return first_line(error)
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
        smaller = examples * longest // 2
        if self.distribution.in_step:
            raise MemoryRanOut(f"step {step}: {examples} examples of {longest} tokens do not fit the memory ({failure})", smaller)
        self.shrunk_at = step
        self.micro_batch_tokens = smaller
        self.optimizer.zero_grad()
        if self.accelerator.device.type == "cuda":
            torch.cuda.empty_cache()
        log.warning(
            "%d examples of %d tokens do not fit the memory (%s): going on in micro-batches of %d tokens, with the same effective batch",
            examples,
            longest,
            failure,
            self.micro_batch_tokens,
        )

    def _describe_non_finite(self, batch: PreparedBatch, step: int, learning_rate: float, loss: float, norm: float) -> str:
        rows = self.examples.row_ids.gather(batch.effective).sort().to_list()
        named = ", ".join(rows[:NAMED_ROWS]) + (f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else "")
        found = f"step {step}: loss {loss}, gradient norm {norm} at learning rate {learning_rate:.2e}"
        return f"{found}; the step was not applied. Lower training.learning_rate, or look at the rows of the batch: {named}"


def _too_long(tokens: int, failure: str) -> ValueError:
    return ValueError(f"one example of {tokens} tokens does not fit the memory ({failure}); lower model.max_length or free memory")


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
