"""Text classification: one label of several for each text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainpipe_assets.evaluation.metrics import accuracy, log_loss, macro_f1
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem, label_names, log_probabilities, longest_input, vocabulary_size
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import Validation
from trainpipe_assets.training.symptoms import one_class
from trainpipe_assets.training.tasks.examples import Examples, check_examples, load_examples
from trainpipe_assets.training.tasks.losses import label_losses
from trainpipe_assets.training.tasks.text_task import TextTask


@dataclass(frozen=True)
class Classification(TextTask):
    """The task of a classifier; see `task.Task` for its methods."""

    problem: ClassVar[Problem] = "single_label_classification"

    def load(self, spec: TrainSpec, split: str) -> Examples:
        """Examples with their label ids."""
        return load_examples(spec.dataset_uri, spec.dataset_version, split)

    def check(self, data: Examples, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Labels, lengths and token ids."""
        check_examples(data, len(label_names(model)), vocabulary_size(model), longest_input(model, tokenizer))

    def log_probabilities(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """Of each label for each example."""
        return log_probabilities(model, inputs.input_ids, inputs.attention_mask)

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Negative log-likelihoods of the labels."""
        return label_losses(self.log_probabilities(model, inputs), inputs.labels, smoothing)

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """The log-probabilities."""
        return self.log_probabilities(model, inputs)

    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """Probabilities of the labels, shape [n, labels]."""
        return as_probabilities(scores)

    def summarize(self, data: Examples, scores: torch.Tensor, step: int, epoch: int) -> Validation:
        """Each metric a mean over examples."""
        probabilities = as_probabilities(scores)
        predicted = probabilities.argmax(axis=1)
        return Validation(
            step=step,
            epoch=epoch,
            loss=log_loss(data.labels, probabilities),
            accuracy=accuracy(data.labels, predicted),
            macro_f1=macro_f1(data.labels, predicted, probabilities.shape[1]),
            examples=len(data.labels),
        )

    def symptom(self, data: Examples, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """All predictions are the same."""
        return one_class(data.labels, as_probabilities(scores).argmax(axis=1), names, epoch)


CLASSIFICATION = Classification()


def as_probabilities(scores: torch.Tensor) -> NDArray[np.float64]:
    """Probabilities in float64 whose rows sum to 1 to the last digits, from log-probabilities in float32."""
    probabilities = np.exp(scores.cpu().numpy().astype(np.float64))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
