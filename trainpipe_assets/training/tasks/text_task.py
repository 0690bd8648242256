"""What the tasks that answer a text have in common: one row a text, batches of like length, and a head on the model.

What is answered, and what the loss is, is in `classification.py`, `multi_label.py` and `regression.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices, cut_by_budget, padded_tokens, plan_batches, plan_scoring
from trainpipe_assets.training.finished import save_weights
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem, label_names, load_classifier, longest_input, vocabulary_size
from trainpipe_assets.training.sequences import padded
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import Validation
from trainpipe_assets.training.tasks.examples import Examples, check_sequences


class TextTask(ABC):
    """A task whose data are texts with an answer each; see `task.Task` for the methods."""

    problem: ClassVar[Problem]
    """What transformers calls such a task in a model's config (`problem_type`)."""

    @abstractmethod
    def load(self, spec: TrainSpec, split: str) -> Examples:
        """The texts with their answers."""

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model with a new head."""
        return load_classifier(spec.base_model, spec.labels, spec.training.seed, self.problem)

    def check(self, data: Examples, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Lengths and token ids."""
        check_sequences(data, vocabulary_size(model), longest_input(model, tokenizer))

    def spare_work(self, model: PreTrainedModel) -> None:
        """In the last layer only the first token matters."""
        skip_unused_tokens(model)

    def plan(self, data: Examples, settings: TrainingSettings, epoch: int) -> list[Indices]:
        """Cut from length order."""
        return plan_batches(data.lengths, settings.batch_tokens, settings.seed, epoch)

    def plan_scoring(self, data: Examples, budget: int) -> list[Indices]:
        """Cut from length order."""
        return plan_scoring(data.lengths, budget)

    def cut(self, data: Examples, share: Indices, budget: int | None) -> Sequence[Indices]:
        """By rectangles, padding included."""
        return cut_by_budget(share, data.lengths, padded_tokens(share, data.lengths) if budget is None else budget)

    def micro_batch(self, data: Examples, run: Indices, pad_id: int) -> MicroBatch:
        """A rectangle of token ids, and the answer to each row."""
        input_ids, mask = padded(data, run, pad_id)
        seen = None if mask.all() else torch.from_numpy(mask)
        return MicroBatch(len(run), torch.from_numpy(input_ids), seen, torch.from_numpy(data.labels[run]))

    def weight(self, data: Examples, indices: Indices) -> int:
        """Examples."""
        return len(indices)

    @abstractmethod
    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums over the examples."""

    def columns(self, model: PreTrainedModel) -> int:
        """One for each output."""
        return len(label_names(model))

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """The outputs."""
        return outputs(model, inputs)

    @abstractmethod
    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """What the scores of a model say, in float64."""

    @abstractmethod
    def summarize(self, data: Examples, scores: torch.Tensor, step: int, epoch: int) -> Validation:
        """Each metric a mean over examples."""

    @abstractmethod
    def symptom(self, data: Examples, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """All predictions are the same."""

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Weights and config."""
        save_weights(model, folder)


def outputs(model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
    """The logits of each example, in float32 whatever the model computes in, shape [examples, outputs]."""
    logits: torch.Tensor = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    return logits.float()
