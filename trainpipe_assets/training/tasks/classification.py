"""Text classification: one label of several for each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.evaluation.metrics import accuracy, log_loss, macro_f1
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.symptoms import one_class
from trainpipe_assets.training.tasks.examples import Examples, load_examples
from trainpipe_assets.training.tasks.task import label_losses
from trainpipe_assets.training.tasks.text_task import TextTask, outputs


@dataclass(frozen=True)
class Classification(TextTask):
    """The task of a classifier; see `task.Task` for its methods."""

    problem: ClassVar[Problem] = "single_label_classification"

    def load(self, spec: TrainSpec, split: str) -> Examples:
        """Examples with their label ids."""
        return load_examples(spec.dataset_uri, spec.dataset_version, split, len(spec.labels))

    def log_probabilities(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """Of each label for each example."""
        return torch.log_softmax(outputs(model, inputs), dim=-1)

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Negative log-likelihoods of the labels."""
        return label_losses(self.log_probabilities(model, inputs), inputs.labels, smoothing)

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """The log-probabilities."""
        return self.log_probabilities(model, inputs)

    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """Probabilities of the labels, shape [n, labels]."""
        return as_probabilities(scores)

    def metrics(self, data: Examples, scores: torch.Tensor) -> dict[str, float]:
        """Each a mean over examples."""
        probabilities = as_probabilities(scores)
        labels, predicted = data.labels, probabilities.argmax(axis=1)
        f1 = macro_f1(labels, predicted, probabilities.shape[1])
        return {"loss": log_loss(labels, probabilities), "accuracy": accuracy(labels, predicted), "macro_f1": f1}

    def symptom(self, data: Examples, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """All predictions are the same."""
        return one_class(data.labels, as_probabilities(scores).argmax(axis=1), names, epoch)


CLASSIFICATION = Classification()


def as_probabilities(scores: torch.Tensor) -> NDArray[np.float64]:
    """Probabilities in float64 whose rows sum to 1 to the last digits, from log-probabilities in float32."""
    probabilities = np.exp(scores.cpu().numpy().astype(np.float64))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
