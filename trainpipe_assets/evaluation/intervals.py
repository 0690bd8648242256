"""95% intervals of the metrics, and of the difference between two models on the same examples.

What has no closed form is resampled; a proportion has one. The metrics themselves are defined in `metrics.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainpipe_assets.evaluation import metrics
from trainpipe_assets.evaluation.metrics import ClassCounts, FloatArray, IntArray

HEADLINE_METRICS = ("accuracy", "macro_f1", "log_loss", "calibration_error")

SHARES = ("accuracy", "macro_f1", "micro_f1", "subset_accuracy", "hamming_loss", "token_accuracy")  # 0 or 1 where all are alike

PERCENTILES = (2.5, 97.5)
NORMAL_QUANTILE = 1.959963984540054  # 97.5% point of the standard normal
CHUNK_ELEMENTS = 100_000  # draws held at once (more only if one resample alone is larger): arrays of 0.8 MB stay in the cache


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As stored in the history of evaluations: {value, low, high}."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Outcomes:
    """What the headline metrics need to know of each of n examples; arrays [n], built by `outcomes`."""

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    losses: FloatArray
    gaps: FloatArray
    bin_of: NDArray[np.int64]
    n_classes: int
    n_bins: int

    @cached_property
    def classes(self) -> NDArray[np.bool_]:
        """Which classes are a label or a prediction of any example, [n_classes]."""
        return np.isin(np.arange(self.n_classes), np.concatenate([self.labels, self.predicted]))

    def take(self, rows: NDArray[np.bool_]) -> "Outcomes":
        """The outcomes of the examples where `rows` [n] is true."""
        return Outcomes(
            self.labels[rows], self.predicted[rows], self.losses[rows], self.gaps[rows], self.bin_of[rows], self.n_classes, self.n_bins
        )


@dataclass(frozen=True)
class Bootstrap:
    """The metrics of one sample (`values`) and of each of its resamples (`resampled`, arrays [samples]).

    Those of `biased`, which lie between 0 and 1, resampling moves to one side.
    """

    values: dict[str, float]
    resampled: dict[str, FloatArray]
    n_examples: int
    seed: int
    biased: tuple[str, ...] = ()

    def estimate(self, metric: str) -> Estimate:
        """The value of `metric` with its percentile interval; where all examples are right, or none, with that of their share."""
        value, resampled = self.values[metric], self.resampled[metric]
        if metric in self.biased:
            resampled = np.clip(resampled - (resampled.mean() - value), 0.0, 1.0)
        found = _percentile_estimate(value, resampled)
        if metric in SHARES and found.value in (0.0, 1.0):
            return proportion(int(found.value) * self.n_examples, self.n_examples)
        return found

    def estimates(self) -> dict[str, Estimate]:
        """The estimate of each headline metric."""
        return {metric: self.estimate(metric) for metric in self.values}


def outcomes(labels: IntArray, probabilities: FloatArray, bins: int) -> Outcomes:
    """The outcomes of examples with class ids `labels` [n] and `probabilities` [n, k]; `bins` of calibration.

    Raises ValueError for what `metrics.log_loss` refuses, and for bins < 1.
    """
    return Outcomes(
        labels=labels.astype(np.int64),
        predicted=metrics.predictions(probabilities),
        losses=metrics.example_losses(labels, probabilities),
        gaps=metrics.calibration_gaps(labels, probabilities),
        bin_of=metrics.confidence_bins(probabilities.max(axis=1), bins),
        n_classes=probabilities.shape[1],
        n_bins=bins,
    )


def bootstrap(sample: Outcomes, samples: int, seed: int = 0) -> Bootstrap:
    """Resample the examples with replacement `samples` times and take every headline metric of each.

    The percentile method of Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. The
    same seed and number of examples draw the same rows, so two models' bootstraps are paired. For the interval of one model
    two metrics are shifted by the bootstrap's estimate of their bias (chapter 10). Resampling adds noise to each bin of the
    calibration error, and a sum of absolute values only grows by it. Macro F1 is the mean over the classes of the sample in
    each resample too, and a rare class that a resample did not draw counts as 0 there. Memory stays within a few times
    `CHUNK_ELEMENTS` whatever the number of samples.
    """
    found = resample(lambda rows: _metrics_of(sample, rows), len(sample.labels), samples, seed)
    return replace(found, biased=("calibration_error", "macro_f1"))


def resample(metrics_of: Callable[[NDArray[np.int64]], dict[str, FloatArray]], n_examples: int, samples: int, seed: int) -> Bootstrap:
    """The metrics of all examples, and of `samples` resamples of them; `metrics_of` takes row numbers [resamples, n_examples]."""
    values = {name: float(array[0]) for name, array in metrics_of(np.arange(n_examples)[None, :]).items()}
    parts = [metrics_of(rows) for rows in draws(n_examples, samples, seed)]
    return Bootstrap(values, {name: np.concatenate([part[name] for part in parts]) for name in values}, n_examples, seed)


def paired_difference(candidate: Bootstrap, previous: Bootstrap, metric: str) -> Estimate:
    """Candidate minus previous in `metric`, with the 95% interval over resamples that both models share.

    Sharing the rows takes out what the two have in common, the difficulty of the examples, so that the interval
    is narrower than those of the two models suggest. What bias they have is nearly the same and goes with it: to take an
    estimate of it from each would only add the noise of two estimates. Raises ValueError when the two bootstraps are not paired.
    """
    shapes = [(b.n_examples, b.seed, len(b.resampled[metric])) for b in (candidate, previous)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"two models are compared on the same resamples; found (examples, seed, samples) {shapes[0]} and {shapes[1]}")
    difference = candidate.resampled[metric] - previous.resampled[metric]
    return _percentile_estimate(candidate.values[metric] - previous.values[metric], difference)


def proportion(hits: float, total: int) -> Estimate:
    """The share `hits / total` with Wilson's score interval; (0, 0, 1) for nothing out of nothing.

    Unlike a bootstrap it keeps a width when all or none are hits, as happens in a small class or slice.
    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
    """
    if total == 0:
        return Estimate(0.0, 0.0, 1.0)
    share, z2 = hits / total, NORMAL_QUANTILE**2 / total
    centre = (share + z2 / 2) / (1 + z2)
    margin = float(np.sqrt(share * (1 - share) * z2 + z2**2 / 4)) / (1 + z2)
    return Estimate(share, max(0.0, min(share, centre - margin)), min(1.0, max(share, centre + margin)))


def written(value: float, sign: str = "") -> str:
    """A number for people: four decimals, one from a thousand on, as many digits where those would say nothing; with "+" signed."""
    size = abs(value)
    if size >= 1e9 or 0.0 < size < 0.001:
        return f"{value:{sign}.4g}"
    return f"{value:{sign}.4f}" if size < 1000.0 else f"{value:{sign},.1f}"


def written_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers for people who are told that they differ: with all digits where `written` shows none that does."""
    shown = written(one), written(other)
    return (repr(float(one)), repr(float(other))) if shown[0] == shown[1] and one != other else shown


def signed_interval(estimate: Estimate) -> str:
    """The interval of a difference: `-0.0120 to +0.0310`."""
    return f"{written(estimate.low, '+')} to {written(estimate.high, '+')}"


def rounded(value: float) -> float:
    """A number with the digits that `written` shows."""
    return float(written(value).replace(",", ""))


def _percentile_estimate(value: float, resampled: FloatArray) -> Estimate:
    low, high = np.percentile(resampled, PERCENTILES)
    return Estimate(value, float(low), float(high))


def draws(n_examples: int, samples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers drawn with replacement, in chunks [resamples, n_examples]."""
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ELEMENTS // n_examples)
    for start in range(0, samples, chunk):
        yield generator.integers(n_examples, size=(min(chunk, samples - start), n_examples))


def _metrics_of(sample: Outcomes, rows: NDArray[np.int64]) -> dict[str, FloatArray]:
    """Every headline metric of each resample; `rows` [resamples, n] are row numbers."""
    labels, predicted = sample.labels[rows], sample.predicted[rows]
    counts = ClassCounts(
        hits=counts_of(np.where(labels == predicted, labels, sample.n_classes), sample.n_classes + 1)[:, :-1],
        support=counts_of(labels, sample.n_classes),
        predicted=counts_of(predicted, sample.n_classes),
    )
    gap_sums = counts_of(sample.bin_of[rows], sample.n_bins, weights=sample.gaps[rows])
    return {
        "accuracy": counts.accuracy(),
        "macro_f1": counts.macro_f1(sample.classes),
        "log_loss": sample.losses[rows].mean(axis=1),
        "calibration_error": np.abs(gap_sums).sum(axis=1) / rows.shape[1],
    }


def counts_of(ids: NDArray[np.int64], n_ids: int, weights: FloatArray | None = None) -> NDArray[np.int64]:
    """How often each id occurs in each row of `ids`, [rows, n_ids]; the sum of `weights` where given."""
    cells = ids + np.arange(len(ids))[:, None] * n_ids
    return np.bincount(cells.ravel(), None if weights is None else weights.ravel(), minlength=len(ids) * n_ids).reshape(len(ids), n_ids)
