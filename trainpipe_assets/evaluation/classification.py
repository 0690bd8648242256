"""One evaluation of one classifier on one test split: every number and row of the report, from probabilities.

Puts together metrics, intervals and gate. Probabilities come from `scoring.py`; pages and pictures are `report.py`'s.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation import metrics
from trainpipe_assets.evaluation.candidate import Candidate, Comparison, Unseen, require_examples
from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.history import history_fields
from trainpipe_assets.evaluation.intervals import (
    Estimate,
    Outcomes,
    bootstrap,
    outcomes,
    proportion,
)
from trainpipe_assets.evaluation.metrics import CalibrationBin, FloatArray
from trainpipe_assets.schemas import PREDICTIONS
from trainpipe_assets.settings import EvaluationSettings

EXAMPLE_COLUMNS = ("row_id", "source_file", "text", "label", "label_id", "n_tokens")
PREDICTION_COLUMNS = tuple(name for name in PREDICTIONS if name != "evaluation_id")


@dataclass(frozen=True)
class ClassRow:
    """How the model does on one class; `support` counts its examples, `predicted` its predictions."""

    label: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: float


@dataclass(frozen=True)
class SliceRow:
    """How the model does on one part of the test split."""

    dimension: str
    name: str
    n: int
    accuracy: Estimate
    macro_f1: Estimate


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found. `metrics` and `baseline` are keyed by metric name; `confusion` is [label, predicted].

    `predictions` has the columns of `schemas.PREDICTIONS` but for `evaluation_id`, in the order of the examples;
    `mistakes` are those of its rows that are wrong, the most confident first.
    """

    labels: tuple[str, ...]
    n_examples: int
    metrics: dict[str, Estimate]
    classes: tuple[ClassRow, ...]
    confusion: NDArray[np.int64]
    calibration: tuple[CalibrationBin, ...]
    slices: tuple[SliceRow, ...]
    mistakes: pl.DataFrame
    baseline_label: str
    baseline: dict[str, float]
    comparison: Comparison | None
    verdict: Verdict
    predictions: pl.DataFrame

    def history_fields(self) -> dict[str, object]:
        """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides; the others say what was evaluated."""
        return history_fields(self.n_examples, self.metrics, self.verdict)


def evaluate(
    examples: pl.DataFrame,
    labels: tuple[str, ...],
    probabilities: FloatArray,
    previous_probabilities: FloatArray | None,
    settings: EvaluationSettings,
    seed: int = 0,
    unseen: Unseen | None = None,
    incomparable: str = "",
) -> Evaluation:
    """Evaluate a model by its `probabilities` [n, k] of `examples`, row by row; `labels` are the k classes by id.

    `examples` has the columns of `EXAMPLE_COLUMNS`. `previous_probabilities` [n, k] are those that the current model gives the same rows,
    over the same labels (`scoring.align_labels` brings them there), of which those are compared that it has not seen; `incomparable` says
    why there are none although there is such a model. The same input gives the same output: the resampling is seeded by `seed`. Raises
    ValueError when the examples, labels and probabilities do not fit together.
    """
    require_examples(examples, EXAMPLE_COLUMNS)
    label_ids = _label_ids(examples, labels)
    sample = _outcomes("the model", label_ids, probabilities, labels, settings)
    previous = None
    if previous_probabilities is not None:
        previous = _outcomes("the previous model", label_ids, previous_probabilities, labels, settings)
    majority = _majority(label_ids, len(labels))
    constant = _outcomes("the baseline", label_ids, np.eye(len(labels))[np.full(len(label_ids), majority)], labels, settings)
    candidate = Candidate(sample, partial(bootstrap, samples=settings.bootstrap_samples, seed=seed), _better)
    baseline = candidate.against(constant)
    weighed = candidate.weighed(previous, unseen, [baseline], settings.gate, "text-classification", incomparable)
    table = _predictions(examples, labels, probabilities)
    return Evaluation(
        labels=labels,
        n_examples=examples.height,
        metrics=weighed.metrics,
        classes=_class_rows(sample, labels),
        confusion=metrics.confusion_matrix(sample.labels, sample.predicted, len(labels)),
        calibration=metrics.calibration_table(probabilities.max(axis=1), sample.gaps, settings.calibration_bins),
        slices=_slice_rows(examples, candidate, settings),
        mistakes=_mistakes(table, settings.mistakes),
        baseline_label=labels[majority],
        baseline={name: baseline.values[name] for name in ("accuracy", "macro_f1")},
        comparison=weighed.comparison,
        verdict=weighed.verdict,
        predictions=table,
    )


def _label_ids(examples: pl.DataFrame, labels: tuple[str, ...]) -> NDArray[np.int64]:
    known = pl.col("label_id").is_between(0, len(labels) - 1).fill_null(False)
    wrong = examples.filter(~known)
    if wrong.height:
        row = wrong.row(0, named=True)
        raise ValueError(
            f"{wrong.height} test examples have a label that the model does not know, the first is row {row['row_id']} with "
            f"{row['label']!r} (id {row['label_id']}); the model knows {list(labels)}: train it on this dataset"
        )
    return examples["label_id"].to_numpy().astype(np.int64)


def _outcomes(
    whose: str, label_ids: NDArray[np.int64], probabilities: FloatArray, labels: tuple[str, ...], settings: EvaluationSettings
) -> Outcomes:
    expected = (len(label_ids), len(labels))
    if probabilities.shape != expected:
        raise ValueError(
            f"the probabilities of {whose} have shape {probabilities.shape}; {expected[0]} examples of {expected[1]} labels expected"
        )
    return outcomes(label_ids, probabilities, settings.calibration_bins)


def _accuracy(sample: Outcomes) -> Estimate:
    """Of a slice, which can be so small that a bootstrap would see no spread at all."""
    return proportion(int((sample.labels == sample.predicted).sum()), len(sample.labels))


def _better(sample: Outcomes, other: Outcomes) -> NDArray[np.bool_]:
    right: NDArray[np.bool_] = (sample.labels == sample.predicted) & (other.labels != other.predicted)
    return right


def _majority(label_ids: NDArray[np.int64], n_classes: int) -> int:
    """The most frequent label of the examples, the lowest id among equals."""
    return int(np.bincount(label_ids, minlength=n_classes).argmax())


def _class_rows(sample: Outcomes, labels: tuple[str, ...]) -> tuple[ClassRow, ...]:
    counts = metrics.class_counts(sample.labels, sample.predicted, len(labels))
    hits, support, predicted = counts.hits.tolist(), counts.support.tolist(), counts.predicted.tolist()
    f1 = counts.f1().tolist()
    return tuple(
        ClassRow(label, support[i], predicted[i], proportion(hits[i], predicted[i]), proportion(hits[i], support[i]), f1[i])
        for i, label in enumerate(labels)
    )


def _slice_rows(examples: pl.DataFrame, candidate: Candidate[Outcomes], settings: EvaluationSettings) -> tuple[SliceRow, ...]:
    return tuple(
        SliceRow(dimension, name, len(part.labels), _accuracy(part), candidate.resample(part).estimate("macro_f1"))
        for dimension, name, part in candidate.parts(examples, settings.slices)
    )


def _predictions(examples: pl.DataFrame, labels: tuple[str, ...], probabilities: FloatArray) -> pl.DataFrame:
    predicted = metrics.predictions(probabilities)
    return examples.select(
        "row_id",
        "source_file",
        "n_tokens",
        "text",
        "label",
        pl.Series("predicted", [labels[i] for i in predicted]),
        pl.Series("confidence", probabilities.max(axis=1)),
        pl.Series("probabilities", probabilities).arr.to_list(),
    ).cast({name: PREDICTIONS[name] for name in PREDICTION_COLUMNS})


def _mistakes(predictions: pl.DataFrame, count: int) -> pl.DataFrame:
    """The wrong predictions of highest confidence; the row id decides between equals."""
    wrong = predictions.filter(pl.col("predicted") != pl.col("label"))
    return wrong.sort(["confidence", "row_id"], descending=[True, False]).head(count)
