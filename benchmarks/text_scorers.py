"""`python -m benchmarks.text_scorers SPEC.json`: texts to probabilities, by the pipeline's own way and by transformers' pipeline.

Both in one process, in turn, from the same list of texts in memory, with the same model, threads and truncation; tokenization is timed
along, loading is not. The answer is JSON on standard output.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from transformers import TextClassificationPipeline, pipeline

from benchmarks.scoring import probabilities
from benchmarks.text_scoring_spec import Round, TextScoringResult, TextScoringSpec
from trainpipe_assets.data import tokenization
from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.model import label_names, load_trained
from trainpipe_assets.training.tasks.examples import from_frame

TRIED_SHARE = 3
"""Batch sizes are tried on each third text alone."""

Probabilities = NDArray[np.float64]
Scorer = Callable[[list[str]], Probabilities]


def our_scorer(spec: TextScoringSpec) -> Scorer:
    """Texts to probabilities as the assets do it: the tokens of all texts, batches cut from length order, a forward pass of each."""
    tokenizer, model = tokenization.load_tokenizer(spec.model, spec.max_length), load_trained(spec.model)

    def score(texts: list[str]) -> Probabilities:
        rows = pl.DataFrame({"row_id": [str(number) for number in range(len(texts))], "text": texts})
        ids = rows.select("row_id", label_id=pl.lit(0), input_ids=tokenizer.encode(rows["text"]))
        return probabilities(model, from_frame(ids), spec.batch_tokens)

    return score


def their_scorer(spec: TextScoringSpec, batch_size: int) -> Scorer:
    """The same by transformers' pipeline, the texts in the order in which they come, each batch padded to its longest."""
    made = pipeline("text-classification", model=spec.model, tokenizer=spec.model, device="cpu")
    assert isinstance(made, TextClassificationPipeline)
    names = label_names(made.model)

    def score(texts: list[str]) -> Probabilities:
        answers = made(texts, batch_size=batch_size, top_k=None, truncation=True, max_length=spec.max_length)
        by_name = [{answer["label"]: answer["score"] for answer in text} for text in answers]  # type: ignore[index]  # a list a text
        return np.array([[scores[name] for name in names] for scores in by_name])

    return score


def measure(spec: TextScoringSpec) -> TextScoringResult:
    """Choose the pipeline's best batch size, then time both in turn."""
    torch.set_num_threads(available_cores())
    texts = pl.read_parquet(spec.texts)["text"].to_list()
    ours = our_scorer(spec)
    expected, _ = _timed(ours, texts)  # which warms it up as well
    some = texts[::TRIED_SHARE]
    tried = {size: len(some) / _timed(their_scorer(spec, size), some)[1] for size in spec.batch_sizes}
    best = max(tried, key=lambda size: tried[size])
    theirs, rounds = their_scorer(spec, best), []
    for _ in range(spec.rounds):
        _, own = _timed(ours, texts)
        found, other = _timed(theirs, texts)
        rounds.append(Round(ours=own, theirs=other))
    difference = float(np.abs(expected - found).max())
    return TextScoringResult(texts=len(texts), tried=tried, batch_size=best, rounds=rounds, largest_difference=difference)


def _timed(score: Scorer, texts: list[str]) -> tuple[Probabilities, float]:
    started = time.perf_counter()
    scores = score(texts)
    return scores, time.perf_counter() - started


if __name__ == "__main__":
    print(measure(TextScoringSpec.model_validate_json(Path(sys.argv[1]).read_text())).model_dump_json())
