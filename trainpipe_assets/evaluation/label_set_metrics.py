"""The metrics of a multi-label classifier, each defined once for validation and test alike, and their 95% intervals.

Pure numpy. Metrics follow from sums over examples, so that those of a resample are weighted sums: how often it drew each example.
"""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation.intervals import Bootstrap, Estimate, counts_of, proportion, resample
from trainpipe_assets.evaluation.metrics import SMALLEST_PROBABILITY, ClassCounts, FloatArray

THRESHOLD = 0.5  # a label is predicted where its probability is above this

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelSets:
    """Which of k labels each of n examples has, and their probabilities: arrays [n, k]."""

    truth: Flags
    probabilities: FloatArray

    def __post_init__(self) -> None:
        if len(self.truth) == 0:
            raise ValueError("a metric needs at least one example, found none")
        if self.truth.ndim != 2 or self.truth.shape != self.probabilities.shape:
            raise ValueError(f"labels {self.truth.shape} and probabilities {self.probabilities.shape} do not describe the same examples")
        if not ((self.probabilities >= 0.0) & (self.probabilities <= 1.0)).all():
            raise ValueError("some probabilities are not between 0 and 1")

    @property
    def predicted(self) -> Flags:
        """Which labels are predicted."""
        return np.asarray(self.probabilities > THRESHOLD)

    @property
    def right(self) -> Flags:
        """Which examples have all labels right, [n]."""
        return np.asarray((self.predicted == self.truth).all(axis=1))

    @property
    def losses(self) -> FloatArray:
        """Mean binary cross-entropy of each example's labels, [n], in nats."""
        likelihood = np.where(self.truth, self.probabilities, 1.0 - self.probabilities)
        return np.asarray(-np.log(np.clip(likelihood, SMALLEST_PROBABILITY, 1.0)).mean(axis=1))

    def take(self, rows: Flags) -> "LabelSets":
        """Those of the examples where `rows` [n] is true."""
        return LabelSets(self.truth[rows], self.probabilities[rows])


def multi_hot(label_ids: pl.Series, n_labels: int) -> Flags:
    """Lists of ids as flags [n, n_labels]."""
    flags = np.zeros((len(label_ids), n_labels), dtype=bool)
    owners = np.repeat(np.arange(len(label_ids)), label_ids.list.len().to_numpy())
    flags[owners, label_ids.explode().drop_nulls().to_numpy()] = True
    return flags


def label_counts(sets: LabelSets) -> ClassCounts:
    """Of each label: hits, examples that have it, and predictions."""
    predicted = sets.predicted
    return ClassCounts((sets.truth & predicted).sum(axis=0), sets.truth.sum(axis=0), predicted.sum(axis=0))


def measure(sets: LabelSets) -> dict[str, float]:
    """Every metric of the examples, as scikit-learn defines them.

    A label that no example has and none is predicted to have is left out of macro F1; micro F1 counts all decisions as one class and is 0
    where no label is there or predicted. Subset accuracy is the share of examples with all labels right, Hamming loss that of decisions
    that are wrong, log loss the mean binary cross-entropy of all decisions, in nats.
    """
    return {name: float(values[0]) for name, values in _measured(sets, np.ones((1, len(sets.truth)))).items()}


def bootstrap_label_sets(sets: LabelSets, samples: int, seed: int = 0) -> Bootstrap:
    """The metrics, and those of `samples` resamples of as many examples; as `intervals.bootstrap`, paired by seed."""
    count = len(sets.truth)
    found = resample(lambda rows: _measured(sets, counts_of(rows, count).astype(np.float64)), count, samples, seed)
    return replace(found, biased=("macro_f1",))


def average_precision(sets: LabelSets, label: int) -> Estimate | None:
    """The mean of the precisions at each example of the label, by descending probability; None where no example has the label.

    scikit-learn's `average_precision_score`. The interval is that of a share of the label's examples (Boyd, Eng and Page, "Area under the
    Precision-Recall Curve: Point Estimates and Confidence Intervals", 2013), Wilson's: with a handful of them resampling covers too little.
    """
    order = np.argsort(-sets.probabilities[:, label], kind="stable")
    probabilities, truth = sets.probabilities[order, label], sets.truth[order, label]
    ends = np.flatnonzero(np.diff(probabilities, append=-1.0))  # examples of equal probability come together
    hits, support = np.cumsum(truth)[ends], int(truth.sum())
    return proportion(float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum()), support) if support else None


def roc_auc(sets: LabelSets, label: int) -> float | None:
    """How probable it is that an example with the label has a higher probability than one without; None where one kind is missing."""
    from scipy.stats import rankdata

    truth = sets.truth[:, label]
    having, lacking = int(truth.sum()), int((~truth).sum())
    if not having or not lacking:
        return None
    ranks = rankdata(sets.probabilities[:, label])
    return float((ranks[truth].sum() - having * (having + 1) / 2) / (having * lacking))


def _measured(sets: LabelSets, weights: FloatArray) -> dict[str, FloatArray]:
    """The metrics for each row of `weights` [resamples, n], which sums to n."""
    count, predicted = len(sets.truth), sets.predicted
    sums = [weights @ flags.astype(np.float64) for flags in (sets.truth & predicted, sets.truth, predicted)]
    counts = ClassCounts(*(np.rint(values).astype(np.int64) for values in sums))
    together = ClassCounts(*(values.sum(axis=1, keepdims=True) for values in (counts.hits, counts.support, counts.predicted)))
    occurring = np.asarray((sets.truth | predicted).any(axis=0))
    wrong = (predicted != sets.truth).mean(axis=1)
    return {
        "macro_f1": counts.macro_f1(occurring),
        "micro_f1": together.f1()[:, 0],
        "subset_accuracy": weights @ sets.right / count,
        "hamming_loss": weights @ wrong / count,
        "log_loss": weights @ sets.losses / count,
    }
