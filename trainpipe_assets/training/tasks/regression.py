"""Text regression: a number for each text, learnt standardized by mean squared error.

The loss is in variances of the training split: always predicting its mean costs 1 there, and what is below is explained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from trainpipe_assets.evaluation.regression_metrics import mae, rmse
from trainpipe_assets.schemas import TOKENIZED_TARGETS
from trainpipe_assets.storage import delta
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.model import Problem
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.symptoms import one_number
from trainpipe_assets.training.tasks.examples import Examples, load_answered
from trainpipe_assets.training.tasks.target_scale import TargetScale, scale_from_config, scale_of_targets
from trainpipe_assets.training.tasks.text_task import TextTask, outputs


@dataclass(frozen=True)
class Targets(Examples):
    """Sequences, each with a number: `labels` holds them standardized by `scale`."""

    scale: TargetScale


@dataclass(frozen=True)
class Regression(TextTask):
    """The task of a regression; see `task.Task` for its methods."""

    problem: ClassVar[Problem] = "regression"

    def load(self, spec: TrainSpec, split: str) -> Targets:
        """Texts with their numbers, standardized by those of the training split."""
        rows = load_answered(spec.dataset_uri, spec.dataset_version, split, "target", TOKENIZED_TARGETS)
        scale = _scale(spec)
        found = Examples.of(rows, scale.standardized(rows["target"].to_numpy()))
        return Targets(**vars(found), scale=scale)

    def load_model(self, spec: TrainSpec) -> PreTrainedModel:
        """The base model with a new head, and the scale in its config."""
        model = super().load_model(spec)
        model.config.update(_scale(spec).as_config())
        return model

    def losses(self, model: PreTrainedModel, inputs: MicroBatch, smoothing: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Squared errors."""
        errors = (outputs(model, inputs)[:, 0] - inputs.labels).square().sum()
        return errors, errors

    def answers(self, model: PreTrainedModel, scores: torch.Tensor) -> NDArray[np.float64]:
        """Numbers in their own units, shape [n]."""
        scale = scale_from_config(model.config.to_dict(), str(model.name_or_path))
        return scale.restored(scores[:, 0].cpu().numpy())

    def metrics(self, data: Examples, scores: torch.Tensor) -> dict[str, float]:
        """The loss in variances of the training split, errors in the units of the numbers."""
        assert isinstance(data, Targets)
        predicted = scores[:, 0].cpu().numpy()
        targets, numbers = (data.scale.restored(values) for values in (data.labels, predicted))
        error = rmse(targets, numbers)
        return {"loss": (error / data.scale.std) ** 2, "rmse": error, "mae": mae(targets, numbers)}

    def symptom(self, data: Examples, scores: torch.Tensor, names: Sequence[str], epoch: int) -> str | None:
        """All predictions are the same."""
        return one_number(scores[:, 0].cpu().numpy(), epoch)


REGRESSION = Regression()


def _scale(spec: TrainSpec) -> TargetScale:
    table = delta.scan(spec.dataset_uri, spec.dataset_version)
    # summed in one order, whatever the order of storage: the last digits are part of the model
    return scale_of_targets(
        table.filter(pl.col("split") == "train").select("row_id", "target").collect().sort("row_id")["target"].to_numpy()
    )
