"""The metrics of a classifier, each defined once for validation, test and monitoring alike.

Pure numpy: numbers in, numbers out. Uncertainty is in `intervals.py`; nothing here knows of models or tables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer]
FloatArray = NDArray[np.float64]

# A probability below this counts as this, so that one example costs at most -ln(2.2e-16) = 36.04 nats
# rather than infinity. The same bound as scikit-learn's `log_loss` on float64.
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
# How far a row of probabilities may be from 1 in sum: what float32 softmax over many classes leaves.
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ClassCounts:
    """How often each class was hit, was the label, and was predicted; each an array [..., n_classes].

    Everything that is made of a confusion matrix's diagonal and margins follows from these, for one
    sample or for many resamples at once (leading axes).
    """

    hits: NDArray[np.int64]
    support: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def accuracy(self) -> FloatArray:
        """Share of examples whose label was predicted, [...]."""
        return np.asarray(self.hits.sum(axis=-1) / self.support.sum(axis=-1), dtype=np.float64)

    def f1(self) -> FloatArray:
        """Harmonic mean of precision and recall, 2 hits / (support + predicted), [..., n_classes]; 0 where undefined."""
        return _ratio(2 * self.hits, self.support + self.predicted)

    @property
    def occurring(self) -> NDArray[np.bool_]:
        """Which classes are a label or a prediction of any example, [..., n_classes]."""
        return np.asarray((self.support + self.predicted) > 0)

    def macro_f1(self, among: NDArray[np.bool_] | None = None) -> FloatArray:
        """Plain mean of F1 over the classes `among` [n_classes], by default those that occur, [...]; 0 where there are none.

        A class that is neither label nor prediction of any example is left out, as scikit-learn's `f1_score(average="macro")` does, so
        that a slice without some class is not marked down for it.
        """
        count = (self.occurring if among is None else among).sum(axis=-1)
        return np.asarray(self.f1().sum(axis=-1) / np.maximum(count, 1), dtype=np.float64)


@dataclass(frozen=True)
class CalibrationBin:
    """The examples whose confidence lies in (low, high]; means are NaN where there are none."""

    low: float
    high: float
    count: int
    mean_confidence: float
    accuracy: float


def accuracy(labels: IntArray, predicted: IntArray) -> float:
    """Share of examples whose label was predicted. `labels`, `predicted`: class ids [n].

    Raises ValueError for empty arrays or arrays of different lengths.
    """
    _check_pair(labels, predicted)
    return float(np.mean(labels == predicted))


def macro_f1(labels: IntArray, predicted: IntArray, n_classes: int) -> float:
    """Plain mean of the classes' F1; see `ClassCounts.macro_f1` for classes that do not occur.

    Raises ValueError for empty arrays, different lengths or an id outside 0..n_classes-1.
    """
    return float(class_counts(labels, predicted, n_classes).macro_f1())


def log_loss(labels: IntArray, probabilities: FloatArray) -> float:
    """Mean negative log-likelihood of the labels, in nats per example. `probabilities`: [n, k], rows sum to 1.

    Probabilities below `SMALLEST_PROBABILITY` are raised to it. Raises ValueError for shapes that do not
    fit, ids out of range, or rows that are not probabilities.
    """
    return float(example_losses(labels, probabilities).mean())


def expected_calibration_error(labels: IntArray, probabilities: FloatArray, bins: int) -> float:
    """Mean gap between confidence and accuracy over `bins` equal-width bins of confidence, weighted by count.

    Confidence is the probability of the predicted class; a bin is (low, high]. Guo et al., "On Calibration
    of Modern Neural Networks" (ICML 2017), equation 3. Raises ValueError as `log_loss` does, or for bins < 1.
    """
    gaps = calibration_gaps(labels, probabilities)
    sums = np.bincount(confidence_bins(probabilities.max(axis=1), bins), weights=gaps, minlength=bins)
    return float(np.abs(sums).sum() / len(gaps))


def confusion_matrix(labels: IntArray, predicted: IntArray, n_classes: int) -> NDArray[np.int64]:
    """Counts [n_classes, n_classes]: row is the label, column the prediction.

    Raises ValueError for empty arrays, different lengths or an id outside 0..n_classes-1.
    """
    _check_pair(labels, predicted)
    _check_range("labels", labels, n_classes)
    _check_range("predicted", predicted, n_classes)
    cells = labels.astype(np.int64) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes).astype(np.int64)


def class_counts(labels: IntArray, predicted: IntArray, n_classes: int) -> ClassCounts:
    """The counts [n_classes] behind accuracy, precision, recall and F1 of one sample."""
    _check_pair(labels, predicted)
    _check_range("labels", labels, n_classes)
    _check_range("predicted", predicted, n_classes)
    return ClassCounts(
        hits=np.bincount(labels[labels == predicted], minlength=n_classes),
        support=np.bincount(labels, minlength=n_classes),
        predicted=np.bincount(predicted, minlength=n_classes),
    )


def predictions(probabilities: FloatArray) -> NDArray[np.int64]:
    """The most probable class of each row, [n]; the lowest id among equals."""
    _check_probabilities(probabilities)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def example_losses(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """The negative log-likelihood of each example's label, [n], in nats; `log_loss` is its mean."""
    _check_probabilities(probabilities)
    _check_pair(labels, probabilities)
    _check_range("labels", labels, probabilities.shape[1])
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)), dtype=np.float64)


def calibration_gaps(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Hit (0 or 1) minus confidence of each example, [n]: what the calibration error sums within bins."""
    predicted = predictions(probabilities)
    _check_pair(labels, predicted)
    _check_range("labels", labels, probabilities.shape[1])
    return np.asarray((labels == predicted) - probabilities.max(axis=1), dtype=np.float64)


def confidence_bins(confidence: FloatArray, bins: int) -> NDArray[np.int64]:
    """The bin of each confidence, [n], 0..bins-1; bin b is (b/bins, (b+1)/bins]."""
    if bins < 1:
        raise ValueError(f"calibration needs at least 1 bin, found {bins}")
    edges = np.arange(1, bins) / bins
    return np.asarray(np.searchsorted(edges, confidence, side="left"), dtype=np.int64)


def calibration_table(confidence: FloatArray, gaps: FloatArray, bins: int) -> tuple[CalibrationBin, ...]:
    """The bins behind the calibration error, as a reliability diagram shows them; `gaps` [n] are what is so less its `confidence` [n]."""
    index = confidence_bins(confidence, bins)
    count = np.bincount(index, minlength=bins)
    held = np.where(count > 0, count, np.nan)
    mean_confidence = np.bincount(index, weights=confidence, minlength=bins) / held
    mean_gap = np.bincount(index, weights=gaps, minlength=bins) / held
    return tuple(
        CalibrationBin(b / bins, (b + 1) / bins, int(count[b]), float(mean_confidence[b]), float(mean_confidence[b] + mean_gap[b]))
        for b in range(bins)
    )


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator), dtype=np.float64), where=denominator > 0)


def _check_pair(labels: IntArray, other: NDArray[np.generic]) -> None:
    if len(labels) == 0:
        raise ValueError("a metric needs at least one example, found none")
    if labels.ndim != 1 or len(labels) != len(other):
        raise ValueError(f"labels {labels.shape} and predictions {other.shape} do not describe the same examples")


def _check_range(name: str, ids: IntArray, n_classes: int) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n_classes:
        raise ValueError(f"{name} holds class ids from {low} to {high}; {n_classes} classes allow 0 to {n_classes - 1}")


def _check_probabilities(probabilities: FloatArray) -> None:
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must be an array [examples, classes] of two or more classes, found shape {probabilities.shape}")
    bad = ~(np.abs(probabilities.sum(axis=1) - 1.0) <= SUM_TOLERANCE) | (probabilities < 0.0).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(f"{int(bad.sum())} rows of probabilities are negative, not finite or do not sum to 1, the first is row {row}")
