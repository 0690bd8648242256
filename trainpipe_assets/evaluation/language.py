"""One evaluation of one language model on one test split: every number of the report, from sums over each document.

The counterpart of `classification.py`. Metrics are means over the tokens to be predicted, and intervals are over documents, since the
tokens of one hang together. Sums come from `language_scoring.py`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation import intervals
from trainpipe_assets.evaluation.candidate import Candidate, Comparison, Unseen
from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.history import history_fields
from trainpipe_assets.evaluation.intervals import Bootstrap, Estimate
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.schemas import DOCUMENT_SCORES
from trainpipe_assets.settings import EvaluationSettings

SCORE_COLUMNS = tuple(name for name in DOCUMENT_SCORES if name != "evaluation_id")


@dataclass(frozen=True)
class DocumentSums:
    """Of each of n documents: the tokens to be predicted, the sum of their losses in nats, and how many were the most probable ones."""

    tokens: NDArray[np.int64]
    losses: FloatArray
    hits: FloatArray

    def take(self, rows: NDArray[np.bool_]) -> "DocumentSums":
        """Those of the documents where `rows` [n] is true."""
        return DocumentSums(self.tokens[rows], self.losses[rows], self.hits[rows])


@dataclass(frozen=True)
class Generation:
    """What the model goes on with after a prompt, and how the document itself goes on."""

    prompt: str
    expected: str
    generated: str


@dataclass(frozen=True)
class LanguageSlice:
    """How the model does on one part of the test split."""

    dimension: str
    name: str
    n: int
    perplexity: Estimate


@dataclass(frozen=True)
class LanguageEvaluation:
    """What one evaluation found, keyed by metric name; `base` compares with the base model before training; `scores` has a row a document.

    In a comparison `fixed` and `broken` count the documents that the model predicts better and worse than the other one.
    """

    n_examples: int
    n_learnt: int
    metrics: dict[str, Estimate]
    base: Comparison
    comparison: Comparison | None
    slices: tuple[LanguageSlice, ...]
    hardest: pl.DataFrame
    generations: tuple[Generation, ...]
    verdict: Verdict
    scores: pl.DataFrame

    def history_fields(self) -> dict[str, object]:
        """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides; those of a classifier stay null."""
        return history_fields(self.n_examples, self.metrics, self.verdict)


def evaluate_language(
    documents: pl.DataFrame,
    sums: DocumentSums,
    base: DocumentSums,
    previous: DocumentSums | None,
    generations: tuple[Generation, ...],
    settings: EvaluationSettings,
    seed: int = 0,
    unseen: Unseen | None = None,
    incomparable: str = "",
) -> LanguageEvaluation:
    """Evaluate a model by its `sums` over `documents` (columns row_id, source_file, text, n_tokens), row by row.

    `base` and `previous` are the sums of the base model and of the current model over the same tokens, of which those of the latter are
    compared where it has not seen the document; `incomparable` says why there are none although there is such a model.

    Raises:
        ValueError: there is no token to be predicted.
    """
    if not sums.tokens.sum():
        raise ValueError("no document of the test split has a token to predict; raise split.test or land more data")
    candidate = Candidate(sums, partial(bootstrap_documents, samples=settings.bootstrap_samples, seed=seed), _likelier)
    against_base = candidate.against(base)
    weighed = candidate.weighed(previous, unseen, [against_base], settings.gate, "causal-lm", incomparable)
    scores = _scores(documents, sums)
    return LanguageEvaluation(
        n_examples=documents.height,
        n_learnt=int(sums.tokens.sum()),
        metrics=weighed.metrics,
        base=against_base,
        comparison=weighed.comparison,
        slices=_slices(documents, candidate, settings),
        hardest=scores.sort(["loss", "row_id"], descending=[True, False], nulls_last=True).head(settings.mistakes),
        generations=generations,
        verdict=weighed.verdict,
        scores=scores,
    )


def bootstrap_documents(sums: DocumentSums, samples: int, seed: int = 0) -> Bootstrap:
    """The metrics of the documents, and of `samples` resamples of as many documents; as `intervals.bootstrap`, paired by seed."""
    return intervals.resample(lambda rows: _metrics_of(sums, rows), len(sums.tokens), samples, seed)


def _metrics_of(sums: DocumentSums, rows: NDArray[np.int64]) -> dict[str, FloatArray]:
    tokens = np.maximum(sums.tokens[rows].sum(axis=1), 1)
    loss = sums.losses[rows].sum(axis=1) / tokens
    return {"perplexity": np.exp(loss), "log_loss": loss, "token_accuracy": sums.hits[rows].sum(axis=1) / tokens}


def _likelier(sums: DocumentSums, other: DocumentSums) -> NDArray[np.bool_]:
    return sums.losses < other.losses


def _slices(documents: pl.DataFrame, candidate: Candidate[DocumentSums], settings: EvaluationSettings) -> tuple[LanguageSlice, ...]:
    return tuple(
        LanguageSlice(dimension, name, len(part.tokens), candidate.resample(part).estimate("perplexity"))
        for dimension, name, part in candidate.parts(documents, settings.slices)
        if part.tokens.any()
    )


def _scores(documents: pl.DataFrame, sums: DocumentSums) -> pl.DataFrame:
    asked = pl.col("n_learnt") > 0
    return (
        documents.select("row_id", "source_file", "n_tokens", "text")
        .with_columns(pl.Series("n_learnt", sums.tokens), pl.Series("loss", sums.losses), pl.Series("accuracy", sums.hits))
        .with_columns(pl.when(asked).then(pl.col(name) / pl.col("n_learnt")) for name in ("loss", "accuracy"))
        .select(SCORE_COLUMNS)
        .cast({name: DOCUMENT_SCORES[name] for name in SCORE_COLUMNS})
    )
