"""One evaluation of one multi-label classifier on one test split: every number and row of the report, from probabilities.

The counterpart of `classification.py`. Metrics are `label_set_metrics.py`'s, probabilities come from `scoring.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation.candidate import Candidate, Comparison, Unseen, require_examples
from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.history import history_fields
from trainpipe_assets.evaluation.intervals import Estimate, proportion
from trainpipe_assets.evaluation.label_set_metrics import (
    THRESHOLD,
    LabelSets,
    average_precision,
    bootstrap_label_sets,
    label_counts,
    multi_hot,
    roc_auc,
)
from trainpipe_assets.evaluation.metrics import CalibrationBin, FloatArray, calibration_table
from trainpipe_assets.schemas import LABEL_SET_PREDICTIONS
from trainpipe_assets.settings import EvaluationSettings

TEST_COLUMNS = ("row_id", "source_file", "text", "label_ids", "n_tokens")
PREDICTION_COLUMNS = tuple(name for name in LABEL_SET_PREDICTIONS if name != "evaluation_id")


@dataclass(frozen=True)
class LabelRow:
    """How the model does on one label; `support` counts its examples, `predicted` its predictions."""

    label: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: float
    average_precision: Estimate | None
    roc_auc: float | None


@dataclass(frozen=True)
class LabelSetSlice:
    """How the model does on one part of the test split."""

    dimension: str
    name: str
    n: int
    subset_accuracy: Estimate
    micro_f1: Estimate


@dataclass(frozen=True)
class LabelSetEvaluation:
    """What one evaluation found, keyed by metric name.

    `baseline` is the better of two constant answers in each metric: the most frequent set of labels, `baseline_set`, and all labels. In the
    comparison `fixed` and `broken` count the examples of which either model alone has all labels right. `predictions` has the columns of
    `schemas.LABEL_SET_PREDICTIONS` but for `evaluation_id`, in the order of the examples; `mistakes` are its rows of largest loss.
    """

    labels: tuple[str, ...]
    n_examples: int
    metrics: dict[str, Estimate]
    rows: tuple[LabelRow, ...]
    calibration: tuple[CalibrationBin, ...]
    slices: tuple[LabelSetSlice, ...]
    mistakes: pl.DataFrame
    baseline_set: tuple[str, ...]
    baseline: dict[str, float]
    comparison: Comparison | None
    verdict: Verdict
    predictions: pl.DataFrame

    def history_fields(self) -> dict[str, object]:
        """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides."""
        return history_fields(self.n_examples, self.metrics, self.verdict)


def evaluate_label_sets(
    examples: pl.DataFrame,
    labels: tuple[str, ...],
    probabilities: FloatArray,
    previous_probabilities: FloatArray | None,
    settings: EvaluationSettings,
    seed: int = 0,
    unseen: Unseen | None = None,
    incomparable: str = "",
) -> LabelSetEvaluation:
    """Evaluate a model by its `probabilities` [n, k] of `labels` for `examples`, row by row, which have the columns of `TEST_COLUMNS`.

    `previous_probabilities` are those of the current model over the same labels, of which those are compared that it has not seen;
    `incomparable` says why there are none although there is such a model. The same input gives the same output: the resampling is seeded by
    `seed`. Raises ValueError when there are no examples or they do not fit the probabilities.
    """
    require_examples(examples, TEST_COLUMNS)
    sets = LabelSets(multi_hot(examples["label_ids"], len(labels)), probabilities)
    previous = None if previous_probabilities is None else LabelSets(sets.truth, previous_probabilities)
    baseline_set, constants = _constants(sets)
    candidate = Candidate(sets, partial(bootstrap_label_sets, samples=settings.bootstrap_samples, seed=seed), _better)
    baselines = [candidate.against(constant) for constant in constants]
    weighed = candidate.weighed(previous, unseen, baselines, settings.gate, "multi-label-classification", incomparable)
    table = _predictions(examples, labels, sets)
    return LabelSetEvaluation(
        labels=labels,
        n_examples=examples.height,
        metrics=weighed.metrics,
        rows=_label_rows(sets, labels),
        calibration=_calibration(sets, settings.calibration_bins),
        slices=_slices(examples, candidate, settings),
        mistakes=_mistakes(table, sets, settings.mistakes),
        baseline_set=tuple(label for label, there in zip(labels, baseline_set, strict=True) if there),
        baseline=_better_of(baselines),
        comparison=weighed.comparison,
        verdict=weighed.verdict,
        predictions=table,
    )


def _better(sets: LabelSets, other: LabelSets) -> NDArray[np.bool_]:
    return sets.right & ~other.right


def _constants(sets: LabelSets) -> tuple[list[bool], list[LabelSets]]:
    """The most frequent set of labels, as flags; and two constant answers: that set, and all labels."""
    found, counts = np.unique(sets.truth, axis=0, return_counts=True)
    frequent = found[counts.argmax()]
    answers = (frequent, np.ones_like(frequent))
    return frequent.tolist(), [LabelSets(sets.truth, np.broadcast_to(answer, sets.truth.shape).astype(np.float64)) for answer in answers]


def _better_of(baselines: Sequence[Comparison]) -> dict[str, float]:
    """What the better of the constant answers scores in each metric."""
    best = {name: max(one.values[name] for one in baselines) for name in ("macro_f1", "micro_f1", "subset_accuracy")}
    return best | {"hamming_loss": min(one.values["hamming_loss"] for one in baselines)}


def _label_rows(sets: LabelSets, labels: tuple[str, ...]) -> tuple[LabelRow, ...]:
    counts = label_counts(sets)
    hits, support, predicted, f1 = (values.tolist() for values in (counts.hits, counts.support, counts.predicted, counts.f1()))
    return tuple(
        LabelRow(
            label=label,
            support=support[i],
            predicted=predicted[i],
            precision=proportion(hits[i], predicted[i]),
            recall=proportion(hits[i], support[i]),
            f1=f1[i],
            average_precision=average_precision(sets, i),
            roc_auc=roc_auc(sets, i),
        )
        for i, label in enumerate(labels)
    )


def _calibration(sets: LabelSets, bins: int) -> tuple[CalibrationBin, ...]:
    """All decisions by their probability: how often the label is there where it is said to be so probable."""
    probabilities, truth = sets.probabilities.ravel(), sets.truth.ravel()
    return calibration_table(probabilities, truth - probabilities, bins)


def _slices(examples: pl.DataFrame, candidate: Candidate[LabelSets], settings: EvaluationSettings) -> tuple[LabelSetSlice, ...]:
    rows = []
    for dimension, name, part in candidate.parts(examples, settings.slices):
        right = proportion(int(part.right.sum()), len(part.truth))
        rows.append(LabelSetSlice(dimension, name, len(part.truth), right, candidate.resample(part).estimate("micro_f1")))
    return tuple(rows)


def _predictions(examples: pl.DataFrame, labels: tuple[str, ...], sets: LabelSets) -> pl.DataFrame:
    def named(flags: np.ndarray) -> list[list[str]]:
        return [[labels[label] for label in np.flatnonzero(row)] for row in flags]

    return examples.select(
        "row_id",
        "source_file",
        "n_tokens",
        "text",
        pl.Series("labels", named(sets.truth), dtype=pl.List(pl.String)),
        pl.Series("predicted", named(sets.probabilities > THRESHOLD), dtype=pl.List(pl.String)),
        pl.Series("probabilities", sets.probabilities).arr.to_list(),
    ).cast({name: LABEL_SET_PREDICTIONS[name] for name in PREDICTION_COLUMNS})


def _mistakes(predictions: pl.DataFrame, sets: LabelSets, count: int) -> pl.DataFrame:
    """The predictions that are not all right, those of largest loss first; the row id decides between equals."""
    wrong = predictions.with_columns(loss=pl.Series(sets.losses), right=pl.Series(sets.right)).filter(~pl.col("right"))
    return wrong.sort(["loss", "row_id"], descending=[True, False]).head(count).drop("right")
