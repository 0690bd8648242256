"""The interface of a task: all that the loop and a step do not know by themselves.

What is given here suits sequences that are padded to rectangles. Implemented by `classification.py`, `multi_label.py` and `regression.py`,
which have `text_task.py` in common, and by `causal.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices, cut_by_budget, padded_tokens, plan_batches, plan_scoring
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import longest_input, vocabulary_size
from trainpipe_assets.training.sequences import Sequences, check_sequences
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import Validation

Data = TypeVar("Data", bound=Sequences)


class Task(ABC, Generic[Data]):
    """What is trained, on sequences of the kind `Data`. It has no state but for what `load_model` found out of the model."""

    @abstractmethod
    def load(self, spec: TrainSpec, split: str) -> Data:
        """The sequences of a split."""

    @abstractmethod
    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model, ready to learn: float32, on the CPU."""

    def check(self, data: Data, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse sequences that the model cannot take."""
        check_sequences(data, vocabulary_size(model), longest_input(model, tokenizer))

    @abstractmethod
    def spare_work(self, model: PreTrainedModel) -> None:
        """Have `model`, on the CPU, do no work that cannot reach the loss."""

    def plan(self, data: Data, settings: TrainingSettings, epoch: int) -> list[Indices]:
        """The batches of an epoch: every sequence once, and as many batches in every epoch."""
        return plan_batches(data.lengths, settings.batch_tokens, settings.seed, epoch)

    def plan_scoring(self, data: Data, budget: int) -> list[Indices]:
        """Batches for a forward pass alone, the largest first."""
        return plan_scoring(data.lengths, budget)

    def cut(self, data: Data, share: Indices, budget: int | None) -> Sequence[Indices]:
        """A process's share of a batch in runs of at most `budget` tokens as the device sees them; whole without one."""
        return cut_by_budget(share, data.lengths, padded_tokens(share, data.lengths) if budget is None else budget)

    @abstractmethod
    def micro_batch(self, data: Data, run: Indices, pad_id: int) -> MicroBatch:
        """A run as tensors in the host's memory."""

    @abstractmethod
    def weight(self, data: Data, indices: Indices) -> int:
        """Examples, or tokens that are learnt, of the sequences: what a loss is averaged over."""

    @abstractmethod
    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over the examples, or tokens: of the loss that is trained, with label smoothing, and of the one reported, without."""

    @abstractmethod
    def columns(self, model: PreTrainedModel) -> int:
        """How many numbers `score` gives of a sequence."""

    @abstractmethod
    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """What a validation needs to know of each sequence, shape [count, columns]."""

    @abstractmethod
    def metrics(self, data: Data, scores: torch.Tensor) -> Mapping[str, float]:
        """The fields of a `Validation`, from the scores of all sequences."""

    def summarize(self, data: Data, scores: torch.Tensor, step: int, epoch: int) -> Validation:
        """A validation after `step` steps, from the scores of all sequences."""
        return Validation.model_validate({"step": step, "epoch": epoch, "examples": data.examples, **self.metrics(data, scores)})

    def symptom(self, data: Data, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """A sign in the scores of a validation that the training goes wrong, in words; None where there is none."""

    @abstractmethod
    def save(self, model: PreTrainedModel, base: str, folder: Path) -> None:
        """Put the finished model into `folder`, with the tokenizer of the folder `base`."""


def label_losses(log_probabilities: torch.Tensor, labels: torch.Tensor, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums over the labels of the loss that is trained, and of the one that is reported, which is never smoothed.

    Args:
        log_probabilities: of each class, shape [labels, classes].
        labels: ids of the classes, shape [labels].
        smoothing: the share of a label that is spread over all classes.
    """
    reported = -log_probabilities.gather(1, labels[:, None]).sum()
    trained = (1.0 - smoothing) * reported - smoothing * log_probabilities.mean(dim=1).sum() if smoothing else reported
    return trained, reported
