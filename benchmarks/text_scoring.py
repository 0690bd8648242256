"""Scoring texts in bulk: the test split from text to probabilities, against transformers' text-classification pipeline."""

import os
from pathlib import Path

from benchmarks.dataset import Dataset
from benchmarks.measurement import Measurement, Section, paired
from benchmarks.processes import run_python
from benchmarks.text_scoring_spec import TextScoringResult, TextScoringSpec
from trainpipe_assets.settings import PipelineSettings

BATCH_SIZES = (8, 16, 32, 64)
ROUNDS = 3
AIM = 2.5
TIMEOUT = 1800.0
TOLERANCE = 1e-4  # of probabilities in float32


def measure(dataset: Dataset, settings: PipelineSettings, model: Path, folder: Path) -> Section:
    """Score the texts of the test split by the finished `model`.

    Raises:
        RuntimeError: the two do not give the same probabilities, so that their speeds say nothing.
    """
    spec = TextScoringSpec(
        model=str(model),
        texts=str(dataset.test_texts),
        max_length=settings.model.max_length,
        batch_tokens=settings.evaluation.batch_tokens,
        batch_sizes=BATCH_SIZES,
        rounds=ROUNDS,
    )
    result = _run(spec, folder)
    if result.largest_difference > TOLERANCE:
        raise RuntimeError(f"the two ways of scoring differ by {result.largest_difference:g} in a probability; {TOLERANCE:g} is rounding")
    return Section("Scoring texts", _reading(result), [_speed(result), _difference(result)], _table(result))


def _run(spec: TextScoringSpec, folder: Path) -> TextScoringResult:
    folder.mkdir(parents=True)
    path = folder / "spec.json"
    path.write_text(spec.model_dump_json())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    answer = run_python(["-m", "benchmarks.text_scorers", str(path)], environment, TIMEOUT).stdout
    return TextScoringResult.model_validate_json(answer.splitlines()[-1])


def _speed(result: TextScoringResult) -> Measurement:
    return paired(
        "scoring_against_pipeline",
        f"scoring the test split, from text to probabilities, against transformers' pipeline, batch {result.batch_size}",
        [result.texts / one.ours for one in result.rounds],
        [result.texts / one.theirs for one in result.rounds],
        "examples/s",
        AIM,
    )


def _difference(result: TextScoringResult) -> Measurement:
    return Measurement("scoring_difference", "largest difference of a probability between the two", result.largest_difference, "")


def _table(result: TextScoringResult) -> list[list[str]]:
    rows = [
        [str(number), f"{result.texts / one.ours:.0f}", f"{result.texts / one.theirs:.0f}"] for number, one in enumerate(result.rounds, 1)
    ]
    return [["round", "ours, examples/s", "pipeline"], *rows]


def _reading(result: TextScoringResult) -> str:
    tried = ", ".join(f"{size}: {speed:.0f}" for size, speed in result.tried.items())
    return _READING.format(texts=f"{result.texts:,}", rounds=len(result.rounds), tried=tried)


_READING = """
The {texts} texts of the test split, from a list of strings in memory to the probability of each label: tokenization is timed with
both, loading the model and warming up with neither. Same model, threads and truncation, one process, {rounds} rounds in turn.
Ours is what the assets do: tokens of all texts, batches of like length, the forward pass without what cannot reach the result. The
peer is `pipeline("text-classification", ..., batch_size=...)` called on the whole list, as its users do: batches of texts in the order
in which they come, each padded to its longest. Its batch size is the best of those tried once each on a third of the texts
(examples/s): {tried}.
""".strip()
