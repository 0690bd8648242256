"""Text classification: a label for each text, batches of like length, and a head on the first token."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainpipe_assets.evaluation.metrics import accuracy, log_loss, macro_f1
from trainpipe_assets.settings import TrainingSettings
from trainpipe_assets.training.batching import Indices, cut_by_budget, padded_tokens, plan_batches, plan_scoring
from trainpipe_assets.training.examples import Examples, check_examples, load_examples
from trainpipe_assets.training.finished import save_weights
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import label_names, load_classifier, log_probabilities, longest_input, vocabulary_size
from trainpipe_assets.training.sequences import padded
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.state import Validation
from trainpipe_assets.training.symptoms import one_class


@dataclass(frozen=True)
class Classification:
    """The task of a classifier; see `task.Task` for its methods."""

    def load(self, spec: TrainSpec, split: str) -> Examples:
        """Examples with their label ids."""
        return load_examples(spec.dataset_uri, spec.dataset_version, split)

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model with a new head."""
        return load_classifier(spec.base_model, spec.labels, spec.training.seed)

    def check(self, data: Examples, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Labels, lengths and token ids."""
        check_examples(data, len(label_names(model)), vocabulary_size(model), longest_input(model, tokenizer))

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
        """A rectangle of token ids, and the label of each row."""
        input_ids, mask = padded(data, run, pad_id)
        seen = None if mask.all() else torch.from_numpy(mask)
        return MicroBatch(len(run), torch.from_numpy(input_ids), seen, torch.from_numpy(data.labels[run]))

    def weight(self, data: Examples, indices: Indices) -> int:
        """Examples."""
        return len(indices)

    def log_probabilities(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """Of each label for each example."""
        return log_probabilities(model, inputs.input_ids, inputs.attention_mask)

    def columns(self, model: PreTrainedModel) -> int:
        """One for each label."""
        return len(label_names(model))

    def score(self, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        """The log-probabilities."""
        return self.log_probabilities(model, inputs)

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

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Weights and config."""
        save_weights(model, folder)


CLASSIFICATION = Classification()


def as_probabilities(scores: torch.Tensor) -> NDArray[np.float64]:
    """Probabilities in float64 whose rows sum to 1 to the last digits, from log-probabilities in float32."""
    probabilities = np.exp(scores.cpu().numpy().astype(np.float64))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))
