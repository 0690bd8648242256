"""The metrics of a regression, each defined once for validation and test alike, and their 95% intervals.

Pure numpy. Each metric follows from sums over examples, so that those of a resample are weighted sums: how often it drew each example.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainpipe_assets.evaluation.intervals import Bootstrap, counts_of, resample
from trainpipe_assets.evaluation.metrics import FloatArray


@dataclass(frozen=True)
class Numbers:
    """Targets and predictions of n examples, arrays [n] in the same units."""

    targets: FloatArray
    predicted: FloatArray

    def __post_init__(self) -> None:
        if len(self.targets) == 0:
            raise ValueError("a metric needs at least one example, found none")
        if self.targets.ndim != 1 or self.targets.shape != self.predicted.shape:
            raise ValueError(f"targets {self.targets.shape} and predictions {self.predicted.shape} do not describe the same examples")
        for name, values in (("targets", self.targets), ("predictions", self.predicted)):
            if not np.isfinite(values).all():
                raise ValueError(f"{int((~np.isfinite(values)).sum())} {name} are not finite")

    @property
    def residuals(self) -> FloatArray:
        """Predicted minus target."""
        return np.asarray(self.predicted - self.targets)

    def take(self, rows: NDArray[np.bool_]) -> "Numbers":
        """Those of the examples where `rows` [n] is true."""
        return Numbers(self.targets[rows], self.predicted[rows])


def rmse(targets: FloatArray, predicted: FloatArray) -> float:
    """Root of the mean squared error, in the units of the numbers."""
    return float(np.sqrt(np.square(Numbers(targets, predicted).residuals).mean()))


def mae(targets: FloatArray, predicted: FloatArray) -> float:
    """Mean absolute error, in the units of the numbers."""
    return float(np.abs(Numbers(targets, predicted).residuals).mean())


def measure(numbers: Numbers) -> dict[str, float]:
    """Every metric of the examples. R² and the correlations of numbers that are all the same are 0: there is nothing to explain.

    R² is one minus the squared errors over the squared deviations of the targets from their own mean (scikit-learn's `r2_score`); Pearson's
    correlation is of the numbers, Spearman's of their ranks, equal ones sharing their mean rank.
    """
    return {name: float(values[0]) for name, values in _measure_of(numbers)(np.ones((1, len(numbers.targets)))).items()}


def bootstrap_regression(numbers: Numbers, samples: int, seed: int = 0) -> Bootstrap:
    """The metrics, and those of `samples` resamples of as many examples; as `intervals.bootstrap`, paired by seed."""
    count, measured = len(numbers.targets), _measure_of(numbers)
    return resample(lambda rows: measured(counts_of(rows, count).astype(np.float64)), count, samples, seed)


def _measure_of(numbers: Numbers) -> Callable[[FloatArray], dict[str, FloatArray]]:
    """The metrics as a function of weights [resamples, n], each row of which sums to n."""
    count = len(numbers.targets)
    targets = numbers.targets - numbers.targets.mean()  # moved, so that sums of squares keep their digits
    predicted = numbers.predicted - numbers.predicted.mean()
    squares, absolutes = np.square(numbers.residuals), np.abs(numbers.residuals)
    ranks_of = [_ranks_of(values) for values in (numbers.targets, numbers.predicted)]

    def measured(weights: FloatArray) -> dict[str, FloatArray]:
        error = weights @ squares
        spread = weights @ np.square(targets) - np.square(weights @ targets) / count
        tiny = np.finfo(np.float64).eps * count * float(np.square(targets).max(initial=0.0))
        explained = np.divide(error, spread, out=np.ones_like(error), where=spread > tiny)
        return {
            "rmse": np.sqrt(error / count),
            "mae": weights @ absolutes / count,
            "r2": 1.0 - explained,
            "pearson": _correlation(weights, targets[None, :], predicted[None, :]),
            "spearman": _correlation(weights, *(ranks(weights) for ranks in ranks_of)),
        }

    return measured


def _correlation(weights: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Pearson's correlation for each row of `weights`; 0 where either side is constant."""
    total = weights.sum(axis=1, keepdims=True)
    centred = [values - (weights * values).sum(axis=1, keepdims=True) / total for values in (first, second)]
    together = (weights * centred[0] * centred[1]).sum(axis=1)
    spreads = [(weights * np.square(values)).sum(axis=1) for values in centred]
    tiny = [
        np.finfo(np.float64).eps * total[:, 0] * np.square(values).max(axis=1, initial=0.0) for values in (np.abs(first), np.abs(second))
    ]
    varied = (spreads[0] > tiny[0]) & (spreads[1] > tiny[1])
    product = np.sqrt(spreads[0]) * np.sqrt(spreads[1])
    correlation: FloatArray = np.clip(np.divide(together, product, out=np.zeros_like(together), where=varied), -1.0, 1.0)
    return correlation


def _ranks_of(values: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """The ranks [resamples, n] of `values` by weights, as if each were there as often as its weight; found without sorting anew."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))

    def ranks(weights: FloatArray) -> FloatArray:
        alike = np.add.reduceat(weights[:, order], starts, axis=1)
        mean_rank = np.cumsum(alike, axis=1) - (alike - 1.0) / 2.0
        return np.asarray(mean_rank[:, place])

    return ranks
