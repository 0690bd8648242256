"""Whether arriving examples look like those that a model was trained on: four two-sample tests on labels, lengths and words.

Each has an effect size with a threshold and a p-value. Drift takes both: an effect that matters, and one that chance does not explain,
so that neither a large sample nor a small one makes it shout. Which examples are compared is `pipeline.drift`'s to choose.
scikit-learn and scipy are imported where they compute, so that importing this module stays quick.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from trainpipe_assets.evaluation.intervals import NORMAL_QUANTILE
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.settings import DriftSettings

if TYPE_CHECKING:
    from scipy.sparse import csr_array

UNLABELLED = "(none)"  # the label of a text that could have several and has none

VERSION = "2"  # raise it when the same samples would be judged differently
TEXT_CHARS = 1000  # of a text that is looked at: about what a model reads of it, and it bounds the cost
WORD = r"[\p{L}\p{M}\p{N}]+(?:['\x{2019}][\p{L}\p{M}]+)*"  # letters and digits, with apostrophes inside
PERMUTATIONS = 300
HASHED_FEATURES = 2**18
FOLDS = 5
SEED = 0
CHANGED_WORDS, MIN_TEXTS = 12, 5  # words shown, each in so many texts at least: rare ones are chance, or name a person


@dataclass(frozen=True)
class Shift:
    """The outcome of one test. `chance` is the statistic of two samples that do not differ; `low` to `high` a 95% interval, if known."""

    name: str
    statistic: float
    chance: float
    threshold: float
    p_value: float
    drifted: bool
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As stored in the history of comparisons."""
        return {key: getattr(self, key) for key in ("statistic", "threshold", "p_value", "low", "high", "drifted")}


@dataclass(frozen=True)
class ChangedWord:
    """A word that is much more frequent on one side, with its occurrences in 1,000 words."""

    word: str
    reference: float
    arrival: float


@dataclass(frozen=True)
class DriftComparison:
    """Reference and arrival (columns text, label, n_chars) with their `labels`, and how they differ.

    Labels are numbers of a regression, and all labels of all texts, one after the other, where a text can have several.
    """

    reference: pl.DataFrame
    arrival: pl.DataFrame
    labels: tuple[pl.Series, pl.Series]
    shifts: tuple[Shift, ...]
    vocabulary_coverage: float
    changed_words: tuple[ChangedWord, ...]

    @property
    def numeric(self) -> bool:
        """Whether the labels are numbers."""
        return self.labels[0].dtype.is_numeric()

    @property
    def drifted(self) -> bool:
        """Whether any test says so."""
        return any(shift.drifted for shift in self.shifts)


def compare(reference: pl.DataFrame, arrival: pl.DataFrame, settings: DriftSettings, task: str = "text-classification") -> DriftComparison:
    """Compare two samples with columns `text`, `label` and `n_chars`, each of `settings.min_rows` rows or more.

    Labels are compared as those of `task`.

    The same rows in the same order under the same settings give the same result.
    """
    assert min(reference.height, arrival.height) >= FOLDS, "too few rows to compare"
    words = Words(*(side["text"].str.slice(0, TEXT_CHARS) for side in (reference, arrival)))
    labels = (_labels(reference["label"], task), _labels(arrival["label"], task))
    shifts = tuple(_shifts(reference, arrival, labels, words, settings))
    return DriftComparison(reference, arrival, labels, shifts, words.coverage(), tuple(words.most_changed()))


def _labels(column: pl.Series, task: str) -> pl.Series:
    """The labels of a sample as they are compared."""
    if task == "text-regression":
        return column.cast(pl.Float64)
    if task == "multi-label-classification":
        sets = column.str.json_decode(pl.List(pl.String)).to_frame("labels")
        return sets.select(pl.when(pl.col("labels").list.len() > 0).then("labels").otherwise(pl.lit([UNLABELLED]))).to_series().explode()
    return column


def _shifts(
    reference: pl.DataFrame, arrival: pl.DataFrame, labels: tuple[pl.Series, pl.Series], words: "Words", settings: DriftSettings
) -> Iterator[Shift]:
    def judge(name: str, statistic: float, p_value: float, threshold: float, chance: float = 0.0, **interval: float) -> Shift:
        drifted = statistic >= threshold and p_value <= settings.significance
        return Shift(name, statistic, chance, threshold, p_value, drifted, **interval)

    if settings.label_shift is not None and labelled(reference, arrival):
        of_labels = distribution_shift if labels[0].dtype.is_numeric() else label_shift
        yield judge("label_shift", *of_labels(*labels), settings.label_shift)
    if settings.length_shift is not None:
        yield judge("length_shift", *distribution_shift(reference["n_chars"], arrival["n_chars"]), settings.length_shift)
    if settings.vocabulary_shift is not None:
        yield judge("vocabulary_shift", *words.shift(), settings.vocabulary_shift)
    if settings.domain_auc is not None:
        auc, p_value = domain_auc(*(side["text"].str.slice(0, TEXT_CHARS) for side in (reference, arrival)))
        low, high = auc_interval(auc, reference.height, arrival.height)
        yield judge("domain_auc", auc, p_value, settings.domain_auc, chance=0.5, low=low, high=high)


def labelled(reference: pl.DataFrame, arrival: pl.DataFrame) -> bool:
    """Whether the examples have labels; documents for a language model have none."""
    return bool(reference["label"].count() + arrival["label"].count())


def label_shift(reference: pl.Series, arrival: pl.Series) -> tuple[float, float]:
    """Total variation distance of the label shares, and the p-value of Pearson's chi-squared test of homogeneity."""
    from scipy.stats import chi2_contingency

    sides = pl.concat([pl.DataFrame({"label": side.fill_null(""), "side": name}) for name, side in (("r", reference), ("a", arrival))])
    counts = sides.group_by("label").agg(r=(pl.col("side") == "r").sum(), a=(pl.col("side") == "a").sum()).sort("label")
    table = counts.select("r", "a").to_numpy().T.astype(float)
    if table.shape[1] == 1:
        return 0.0, 1.0
    shares = table / table.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return distance, float(chi2_contingency(table, correction=False).pvalue)


def distribution_shift(reference: pl.Series, arrival: pl.Series) -> tuple[float, float]:
    """Kolmogorov and Smirnov's two-sample distance, the largest gap between the distribution functions, and its p-value."""
    from scipy.stats import ks_2samp

    result = ks_2samp(reference.to_numpy(), arrival.to_numpy(), method="asymp")
    return float(result.statistic), float(result.pvalue)


def domain_auc(reference: pl.Series, arrival: pl.Series) -> tuple[float, float]:
    """How well a classifier tells arriving texts from those of the reference, on texts it has not seen: ROC AUC and its p-value.

    A classifier two-sample test (Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017): logistic regression on hashed
    words and pairs of words, each text scored by the model of the folds it is not in. The p-value is the rank-sum test's.
    """
    from scipy.stats import mannwhitneyu
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    features = HashingVectorizer(ngram_range=(1, 2), n_features=HASHED_FEATURES, alternate_sign=False, token_pattern=r"(?u)\w+|[^\w\s]")
    arrived = np.repeat([False, True], [len(reference), len(arrival)])
    scores = cross_val_predict(
        SGDClassifier(loss="log_loss", alpha=1e-5, class_weight="balanced", random_state=SEED),
        features.transform([*reference, *arrival]),
        arrived,
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=SEED),
        method="decision_function",
    )
    found = mannwhitneyu(scores[arrived], scores[~arrived], alternative="greater", method="asymptotic")
    return float(found.statistic / (len(reference) * len(arrival))), float(found.pvalue)


def auc_interval(auc: float, n_reference: int, n_arrival: int) -> tuple[float, float]:
    """95% interval of a ROC AUC by the standard error of Hanley and McNeil, Radiology 143 (1982)."""
    both_arrivals, both_references = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_arrival - 1) * (both_arrivals - auc**2) + (n_reference - 1) * (both_references - auc**2)
    margin = NORMAL_QUANTILE * float(np.sqrt(max(0.0, variance) / (n_reference * n_arrival)))
    return max(0.0, auc - margin), min(1.0, auc + margin)


class Words:
    """The words of two samples of texts, counted; case does not matter."""

    def __init__(self, reference: pl.Series, arrival: pl.Series) -> None:
        texts = pl.concat([reference, arrival]).alias("text").to_frame().with_row_index("row")
        found = texts.select("row", word=pl.col("text").str.to_lowercase().str.extract_all(WORD)).explode("word").drop_nulls()
        self._counts = found.group_by("row", "word").len().sort("row", "word")
        self._vocabulary = self._counts["word"].unique().sort()
        self._arrived = np.repeat([0.0, 1.0], [len(reference), len(arrival)])

    @cached_property
    def _matrix(self) -> "csr_array":
        """Occurrences, [texts, words]."""
        from scipy.sparse import csr_array

        columns = self._counts["word"].replace_strict(self._vocabulary, pl.arange(len(self._vocabulary), eager=True), return_dtype=pl.Int64)
        entries = self._counts["len"].cast(pl.Float64).to_numpy()
        shape = (len(self._arrived), len(self._vocabulary))
        return csr_array((entries, (self._counts["row"].to_numpy(), columns.to_numpy())), shape=shape)

    def shift(self) -> tuple[float, float]:
        """Jensen-Shannon divergence of the word frequencies in bits above what chance gives, and its p-value.

        Chance is the mean divergence where the texts are dealt out to two samples of the same sizes at random, which is far from 0 where
        most words are rare. The p-value is the permutation test's (Phipson and Smyth 2010: never 0).
        """
        if not self._counts.height:
            return 0.0, 1.0
        random = np.random.default_rng(SEED)
        dealt = np.column_stack([self._arrived, *(random.permutation(self._arrived) for _ in range(PERMUTATIONS))])
        divergence = np.concatenate([self._divergence(part) for part in np.array_split(dealt, 1 + dealt.shape[1] // 32, axis=1)])
        observed, chance = divergence[0], divergence[1:]
        return float(max(0.0, observed - chance.mean())), float((1 + (chance >= observed).sum()) / (1 + len(chance)))

    def _divergence(self, arrived: FloatArray) -> FloatArray:
        """The divergence for each column of `arrived` [texts, n], which is 1 for the texts of one sample and 0 for the other's."""
        from scipy.spatial.distance import jensenshannon

        ours = self._matrix.T @ arrived
        others = self._totals[:, None] - ours
        with np.errstate(invalid="ignore"):
            distance: FloatArray = jensenshannon(ours, others, base=2.0, axis=0)
        return np.nan_to_num(distance**2, nan=1.0)  # a sample without any word has none in common with the other

    @cached_property
    def _totals(self) -> FloatArray:
        totals: FloatArray = np.asarray(self._matrix.sum(axis=0), dtype=float)
        return totals

    @cached_property
    def _by_side(self) -> FloatArray:
        """Occurrences of each word in the reference and in the arrival, [2, words]."""
        ours = np.asarray(self._matrix.T @ self._arrived, dtype=float)
        return np.stack([self._totals - ours, ours])

    def coverage(self) -> float:
        """Share of the arrival's words, repeats counted, that the reference has too; 1 where it has no word."""
        reference, arrival = self._by_side
        return float(arrival[reference > 0].sum() / arrival.sum()) if arrival.sum() else 1.0

    def most_changed(self) -> Iterator[ChangedWord]:
        """The words whose frequency changed most, by the log-likelihood ratio (Dunning, Computational Linguistics 19, 1993)."""
        counts, sizes = self._by_side, self._by_side.sum(axis=1, keepdims=True)
        if not sizes.all():
            return
        expected = sizes * counts.sum(axis=0) / sizes.sum()
        ratio = (counts * np.log(np.maximum(counts, 1e-12) / np.maximum(expected, 1e-12))).sum(axis=0)
        ratio[np.diff(self._matrix.tocsc().indptr) < MIN_TEXTS] = 0.0
        for index in np.argsort(-ratio, kind="stable")[:CHANGED_WORDS]:
            if ratio[index] > 0.0:
                reference, arrival = 1000 * counts[:, index] / sizes[:, 0]
                yield ChangedWord(self._vocabulary[int(index)], float(reference), float(arrival))
