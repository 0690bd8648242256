"""What the tasks that answer a text have in common: one row a text, batches of like length, and a head on the model.

What is answered, and what the loss is, is in `classification.py`, `multi_label.py` and `regression.py`.
"""

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.training.batching import Indices
from trainpipe_assets.training.finished import save_weights
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem, label_names, load_classifier, save_tokenizer
from trainpipe_assets.training.sequences import padded
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks.examples import Examples
from trainpipe_assets.training.tasks.task import Task


class TextTask(Task[Examples]):
    """A task whose data are texts with an answer each; see `task.Task` for the methods."""

    problem: ClassVar[Problem]
    """What transformers calls such a task in a model's config (`problem_type`)."""

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model with a new head."""
        return load_classifier(spec.base_model, spec.labels, spec.training.seed, self.problem)

    def spare_work(self, model: PreTrainedModel) -> None:
        """In the last layer only the first token matters."""
        skip_unused_tokens(model)

    def micro_batch(self, data: Examples, run: Indices, pad_id: int) -> MicroBatch:
        """A rectangle of token ids, and the answer to each row."""
        input_ids, mask = padded(data, run, pad_id)
        return MicroBatch(len(run), input_ids, mask, torch.from_numpy(data.labels[run]))

    def weight(self, data: Examples, indices: Indices) -> int:
        """Examples."""
        return len(indices)

    def columns(self, model: PreTrainedModel) -> int:
        """One for each output."""
        return len(label_names(model))

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """The outputs."""
        return outputs(model, inputs)

    def save(self, model: PreTrainedModel, base: str, folder: Path) -> None:
        """Weights and config, and a tokenizer that pads as in training: some decoders find the last token of a text by it."""
        save_weights(model, folder)
        save_tokenizer(base, folder, padding=model.config.pad_token_id)

    @abstractmethod
    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """What the scores of a model say, in float64."""


def outputs(model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
    """The logits of each example, in float32 whatever the model computes in, shape [examples, outputs]."""
    logits: torch.Tensor = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    return logits.float()
