"""Where a training stands: the step, what was measured on the way, and which validation was best.

It holds no wall-clock time, so that a training killed and resumed ends with the very same state as one left alone.
"""

import math

from pydantic import BaseModel, ConfigDict

LONGEST_HISTORY = 1000
"""Steps that the history keeps at most, evenly spread: enough for a curve, small in a checkpoint."""


class StepRecord(BaseModel):
    """One optimizer step: mean loss over its examples, or over the tokens that are learnt, in nats and without label smoothing, and the
    norm of the gradients before clipping."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float


class Validation(BaseModel):
    """The metrics on the validation split after `step` steps and `epoch` epochs, as far as the task has them; the loss in nats per example.

    Of a multi-label classifier the loss is per label of an example. Of a regression it is in variances of the training split, errors are in
    the units of the numbers. Of a language model the loss and the accuracy are those of the `tokens` that are learnt, and `examples` are
    documents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    epoch: int
    loss: float
    accuracy: float | None = None
    macro_f1: float | None = None
    micro_f1: float | None = None
    rmse: float | None = None
    mae: float | None = None
    examples: int
    tokens: int | None = None

    def __str__(self) -> str:
        if self.tokens is not None:
            found = f"loss {self.loss:.4f}, perplexity {math.exp(self.loss):.2f}, token accuracy {self.accuracy:.4f}"
            return f"{found} on {self.tokens:,} tokens"
        named = {"accuracy": self.accuracy, "macro F1": self.macro_f1, "micro F1": self.micro_f1, "RMSE": self.rmse, "MAE": self.mae}
        measured = "".join(f", {name} {value:.4f}" for name, value in named.items() if value is not None)
        return f"loss {self.loss:.4f}{measured} on {self.examples:,} examples"


class TrainingState(BaseModel):
    """Everything but tensors that a training needs to go on; steps and epochs count from 1, so `step` is the number taken."""

    model_config = ConfigDict(extra="forbid")

    step: int = 0
    micro_batch_tokens: int | None = None
    history: list[StepRecord] = []
    validations: list[Validation] = []
    warnings: dict[str, str] = {}
    """What `symptoms.py` found, the first time of each kind."""

    @property
    def best(self) -> Validation | None:
        """The validation with the smallest loss, the earliest among equals."""
        return min(self.validations, key=lambda validation: validation.loss, default=None)

    @property
    def name(self) -> str:
        """Name of this state's checkpoint: its step, and how many validations it has seen."""
        return _checkpoint_name(self.step, len(self.validations))

    @property
    def best_name(self) -> str:
        """Name of the checkpoint of the best model, which is the one saved right after its validation; before any, of this state."""
        best = self.best
        return _checkpoint_name(best.step, self.validations.index(best) + 1) if best else self.name

    def record(self, step: StepRecord, total: int) -> None:
        """Note `step`, unless the history of `total` steps would grow too long; the first and last are always there."""
        every = -(-total // LONGEST_HISTORY)
        if step.step % every == 0 or step.step in (1, total):
            self.history.append(step)

    def patience_exhausted(self, patience: int) -> bool:
        """Whether the last `patience` validations all failed to improve on the best one before them."""
        best = self.best
        return best is not None and len(self.validations) - 1 - self.validations.index(best) >= patience


def _checkpoint_name(step: int, validations: int) -> str:
    return f"step-{step:09d}-{validations:04d}"
