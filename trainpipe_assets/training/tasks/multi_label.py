"""Multi-label classification: any number of labels for each text, each a decision of its own, learnt by binary cross-entropy.

The loss is in nats per decision: a mean over examples and labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from trainpipe_assets.evaluation.label_set_metrics import LabelSets, measure, multi_hot
from trainpipe_assets.schemas import TOKENIZED_LABEL_SETS
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.symptoms import no_label
from trainpipe_assets.training.tasks.examples import Examples, check_label_ids, load_answered
from trainpipe_assets.training.tasks.text_task import TextTask, outputs


@dataclass(frozen=True)
class MultiLabel(TextTask):
    """The task of a multi-label classifier; see `task.Task` for its methods."""

    problem: ClassVar[Problem] = "multi_label_classification"

    def load(self, spec: TrainSpec, split: str) -> Examples:
        """Texts with a 1 for each label that they have, else 0, shape [n, labels]."""
        rows = load_answered(spec.dataset_uri, spec.dataset_version, split, "label_ids", TOKENIZED_LABEL_SETS)
        check_label_ids(rows["row_id", "label_ids"].explode("label_ids"), len(spec.labels))
        return Examples.of(rows, multi_hot(rows["label_ids"], len(spec.labels)).astype(np.float32))

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Binary cross-entropies; smoothing moves each answer towards 1/2."""
        logits = outputs(model, inputs)
        reported = binary_cross_entropy_with_logits(logits, inputs.labels, reduction="sum") / logits.shape[1]
        if not smoothing:
            return reported, reported
        softened = inputs.labels * (1.0 - smoothing) + smoothing / 2.0
        return binary_cross_entropy_with_logits(logits, softened, reduction="sum") / logits.shape[1], reported

    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """Probability of each label by itself, shape [n, labels]."""
        return as_probabilities(scores)

    def metrics(self, data: Examples, scores: torch.Tensor) -> dict[str, float]:
        """Each over examples and labels, as the test has them."""
        found = measure(LabelSets(data.labels > 0.5, as_probabilities(scores)))
        return {"loss": found["log_loss"], "micro_f1": found["micro_f1"], "macro_f1": found["macro_f1"]}

    def symptom(self, data: Examples, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """No label is predicted for any example."""
        return no_label(data.labels > 0.5, as_probabilities(scores) > 0.5, epoch)


MULTI_LABEL = MultiLabel()


def as_probabilities(scores: torch.Tensor) -> NDArray[np.float64]:
    """Sigmoids in float64."""
    return np.asarray(torch.sigmoid(scores.cpu().double()).numpy())
