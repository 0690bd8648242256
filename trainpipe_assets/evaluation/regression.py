"""One evaluation of one regression on one test split: every number and row of the report, from predictions.

The counterpart of `classification.py`. Metrics are `regression_metrics.py`'s, predictions come from `scoring.py`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation.candidate import Candidate, Comparison, Unseen, require_examples
from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.history import history_fields
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.evaluation.regression_metrics import Numbers, bootstrap_regression
from trainpipe_assets.schemas import TARGET_PREDICTIONS
from trainpipe_assets.settings import EvaluationSettings

TEST_COLUMNS = ("row_id", "source_file", "text", "target", "n_tokens")
PREDICTION_COLUMNS = tuple(name for name in TARGET_PREDICTIONS if name != "evaluation_id")


@dataclass(frozen=True)
class RegressionSlice:
    """How the model does on one part of the test split; `bias` is its mean residual there."""

    dimension: str
    name: str
    n: int
    rmse: Estimate
    mae: Estimate
    bias: float


@dataclass(frozen=True)
class RegressionEvaluation:
    """What one evaluation found, keyed by metric name; errors are in the units of the `target`.

    `baseline` is always predicting `training_mean`. In the comparison `fixed` and `broken` count the examples that the model predicts
    nearer and further off than the previous one. `predictions` has the columns of `schemas.TARGET_PREDICTIONS` but for `evaluation_id`,
    in the order of the examples; `mistakes` are its rows that are furthest off.
    """

    target: str
    numbers: Numbers
    metrics: dict[str, Estimate]
    slices: tuple[RegressionSlice, ...]
    mistakes: pl.DataFrame
    training_mean: float
    baseline: dict[str, float]
    comparison: Comparison | None
    verdict: Verdict
    predictions: pl.DataFrame

    @property
    def n_examples(self) -> int:
        """How many examples were predicted."""
        return len(self.numbers.targets)

    def history_fields(self) -> dict[str, object]:
        """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides; those of a classifier stay null."""
        return history_fields(self.n_examples, self.metrics, self.verdict)


def evaluate_regression(
    examples: pl.DataFrame,
    target: str,
    predicted: FloatArray,
    previous_predicted: FloatArray | None,
    training_mean: float,
    settings: EvaluationSettings,
    seed: int = 0,
    unseen: Unseen | None = None,
    incomparable: str = "",
) -> RegressionEvaluation:
    """Evaluate a model by the numbers `predicted` [n] for `examples`, row by row, which have the columns of `TEST_COLUMNS`.

    `previous_predicted` are those of the current model, of which those are compared that it has not seen; `training_mean` is the mean of
    what the model was trained on; `incomparable` says why nothing is compared although there is a current model. The same input gives the
    same output: the resampling is seeded by `seed`. Raises ValueError when there are no examples or they do not fit the predictions.
    """
    require_examples(examples, TEST_COLUMNS)
    numbers = Numbers(examples["target"].to_numpy(), predicted)
    previous = None if previous_predicted is None else Numbers(numbers.targets, previous_predicted)
    constant = Numbers(numbers.targets, np.full(len(numbers.targets), training_mean))
    candidate = Candidate(numbers, partial(bootstrap_regression, samples=settings.bootstrap_samples, seed=seed), _nearer)
    baseline = candidate.against(constant)
    weighed = candidate.weighed(previous, unseen, [baseline], settings.gate, "text-regression", incomparable)
    table = _predictions(examples, numbers)
    return RegressionEvaluation(
        target=target,
        numbers=numbers,
        metrics=weighed.metrics,
        slices=_slices(examples, candidate, settings),
        mistakes=_furthest_off(table, settings.mistakes),
        training_mean=training_mean,
        baseline=baseline.values,
        comparison=weighed.comparison,
        verdict=weighed.verdict,
        predictions=table,
    )


def _nearer(numbers: Numbers, other: Numbers) -> NDArray[np.bool_]:
    return np.abs(numbers.residuals) < np.abs(other.residuals)


def _slices(examples: pl.DataFrame, candidate: Candidate[Numbers], settings: EvaluationSettings) -> tuple[RegressionSlice, ...]:
    rows = []
    for dimension, name, part in candidate.parts(examples, settings.slices):
        found, bias = candidate.resample(part), float(part.residuals.mean())
        rows.append(RegressionSlice(dimension, name, len(part.targets), found.estimate("rmse"), found.estimate("mae"), bias))
    return tuple(rows)


def _predictions(examples: pl.DataFrame, numbers: Numbers) -> pl.DataFrame:
    return examples.select(
        "row_id",
        "source_file",
        "n_tokens",
        "text",
        "target",
        pl.Series("predicted", numbers.predicted),
        pl.Series("residual", numbers.residuals),
    ).cast({name: TARGET_PREDICTIONS[name] for name in PREDICTION_COLUMNS})


def _furthest_off(predictions: pl.DataFrame, count: int) -> pl.DataFrame:
    """The predictions of largest error; the row id decides between equals."""
    return predictions.sort([pl.col("residual").abs(), "row_id"], descending=[True, False]).head(count)
