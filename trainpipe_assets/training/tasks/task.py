"""The interface of a task: all that the loop and a step do not know by themselves.

Implemented by `classification.py`, `multi_label.py`, `regression.py` and `causal.py`; `text_task.py` has what the first three share.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import Validation

Data = TypeVar("Data", bound=Sequences)


class Task(Protocol[Data]):
    """What is trained, on sequences of the kind `Data`. It has no state but for what `spare_work` found out of the model."""

    def load(self, spec: TrainSpec, split: str) -> Data:
        """The sequences of a split."""

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model, ready to learn: float32, on the CPU."""

    def check(self, data: Data, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse sequences that the model cannot take."""

    def spare_work(self, model: PreTrainedModel) -> None:
        """Have `model`, on the CPU, do no work that cannot reach the loss."""

    def plan(self, data: Data, settings: TrainingSettings, epoch: int) -> list[Indices]:
        """The batches of an epoch: every sequence once, and as many batches in every epoch."""

    def plan_scoring(self, data: Data, budget: int) -> list[Indices]:
        """Batches for a forward pass alone, the largest first."""

    def cut(self, data: Data, share: Indices, budget: int | None) -> Sequence[Indices]:
        """A process's share of a batch in runs of at most `budget` tokens as the device sees them; whole without one."""

    def micro_batch(self, data: Data, run: Indices, pad_id: int) -> MicroBatch:
        """A run as tensors in the host's memory."""

    def weight(self, data: Data, indices: Indices) -> int:
        """Examples, or tokens that are learnt, of the sequences: what a loss is averaged over."""

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over the examples, or tokens: of the loss that is trained, with label smoothing, and of the one reported, without."""

    def columns(self, model: PreTrainedModel) -> int:
        """How many numbers `score` gives of a sequence."""

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """What a validation needs to know of each sequence, shape [count, columns]."""

    def summarize(self, data: Data, scores: torch.Tensor, step: int, epoch: int) -> Validation:
        """The metrics of a validation, from the scores of all sequences."""

    def symptom(self, data: Data, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """A sign in the scores of a validation that the training goes wrong, in words; None where there is none."""

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Put the finished model into `folder`."""
