"""What a model of the lake answers to the texts of a file: read, cleaned and tokenized as what it was trained on.

So its answers to a text are those that its evaluation reported, which a script of one's own easily misses: normalisation, redaction,
longest input.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl

from trainpipe_assets.data.cleaning import with_clean_text
from trainpipe_assets.data.reading.readers import parse_file
from trainpipe_assets.data.reading.records import UnreadableFile
from trainpipe_assets.data.sources import as_landed
from trainpipe_assets.data.tokenization import Tokenizer, load_tokenizer
from trainpipe_assets.evaluation.label_set_metrics import THRESHOLD
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.evaluation.scoring import score
from trainpipe_assets.pipeline.current_model import current_model
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.settings import CleaningSettings, ComputeSettings, PipelineSettings
from trainpipe_assets.storage.artifacts import Artifact, list_artifacts, local_copy
from trainpipe_assets.storage.delta import find
from trainpipe_assets.storage.uris import is_remote

WRITERS: dict[str, Any] = {".csv": pl.DataFrame.write_csv, ".jsonl": pl.DataFrame.write_ndjson, ".parquet": pl.DataFrame.write_parquet}
PREDICTED, PROBLEM = "predicted", "problem"
SHOWN = ("line_number", "text", "extra")


@dataclass(frozen=True)
class Predicted:
    """What was answered: by which model, to how many records of the file, and how many of them have a problem instead."""

    model: str
    output: str
    records: int
    problems: int


def predict(file: Path, output: Path, lake: Lake, settings: PipelineSettings, compute: ComputeSettings, model: str | None) -> Predicted:
    """Write to `output` what the model answers to the texts of `file`, one row a record, in the order of the file.

    `model` is a fingerprint or its beginning; by default the current one answers. Columns are `line_number` and `text` as it was read,
    `extra` with the other columns as JSON, what is `predicted` (several labels as a JSON list), the probability of each label, and the
    `problem` of a record that has no answer.

    Raises:
        ValueError: there is no such model, it writes texts, the file has no text that can be read, or the output cannot be written there.
    """
    write = WRITERS.get(output.suffix.lower())
    if write is None:
        raise ValueError(f"{output} cannot be written: found the ending {output.suffix!r}, expected one of {' '.join(WRITERS)}")
    _require_free(output, file, lake.landing_uri(settings.source))
    chosen = _chosen(lake, settings, model)
    if chosen.task == "causal-lm":
        raise ValueError(
            f"the model {chosen.uri} is a language model, which writes texts: load its folder with transformers to have some written"
        )
    reading = settings.model_copy(update={"source": settings.source.model_copy(update={"kind": "text"})})
    answers = pl.concat(list(_answered(file, reading, chosen, compute)), how="diagonal")
    partial = output.with_name(f".{uuid4().hex[:8]}-{output.name}")
    try:
        write(answers, partial)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return Predicted(chosen.uri, str(output), answers.height, answers.height - answers[PROBLEM].null_count())


def _require_free(output: Path, file: Path, landing: str) -> None:
    """Make sure that nothing is overwritten that answers are made of, now or by the next run.

    Raises:
        ValueError: it would be, or there is no folder for it.
    """
    if not output.parent.is_dir():
        raise ValueError(f"{output} cannot be written: there is no folder {output.parent}")
    if output.exists() and file.exists() and output.samefile(file):
        raise ValueError(f"{output} cannot be written: it is the file that is read; name another with --output")
    if not is_remote(landing) and output.resolve().is_relative_to(Path(landing).resolve()):
        raise ValueError(f"{output} cannot be written: it is in the landing folder, so the next run would take the answers for data")


def _chosen(lake: Lake, settings: PipelineSettings, model: str | None) -> Artifact:
    keys = PipelineKeys(settings.key_prefix)
    if model is None:
        current = current_model(find(lake.table_uri(keys["eval_report"])), settings.task)
        if current is None:
            raise ValueError("no model of this pipeline has passed the gate yet; name another with --model (trainpipe models lists them)")
        return current
    found = [artifact for artifact in list_artifacts(lake.models_uri(keys["fine_tuned_model"])) if artifact.fingerprint.startswith(model)]
    if len(found) != 1:
        raise ValueError(
            f"{len(found) or 'no'} models of this pipeline have a fingerprint that begins with {model!r}; trainpipe models lists them"
        )
    return found[0]


def _answered(file: Path, settings: PipelineSettings, model: Artifact, compute: ComputeSettings) -> Iterator[pl.DataFrame]:
    folder, made_by = str(local_copy(model)), model.manifest["dataset"].get("made_by", {})
    cleaning = CleaningSettings.model_validate(made_by.get("cleaned_features", {}).get("cleaning", settings.cleaning))
    tokenizer = load_tokenizer(folder, int(model.manifest["settings"]["model"]["max_length"]))
    for records in _records(file, settings):
        cleaned = with_clean_text(records, "labelled", cleaning).with_row_index("place")
        empty = pl.col("clean_text").fill_null("").str.len_chars() == 0
        problem = pl.coalesce("problem", pl.when(empty).then(pl.lit("there is no text, or nothing is left of it after normalisation")))
        judged = cleaned.select("place", *SHOWN, "clean_text", problem.alias(PROBLEM))
        told, untold = judged.filter(pl.col(PROBLEM).is_null()), judged.filter(pl.col(PROBLEM).is_not_null())
        answers = _answers(told, tokenizer, folder, model, compute, settings.evaluation.batch_tokens)
        both = pl.concat([pl.concat([told, answers], how="horizontal"), untold], how="diagonal").sort("place")
        yield both.select(*SHOWN, *answers.columns, PROBLEM)


def _records(file: Path, settings: PipelineSettings) -> Iterator[pl.DataFrame]:
    if not file.is_file():
        raise ValueError(f"{file} cannot be read: {'it is not a regular file' if file.exists() else 'there is no such file'}")
    try:
        yield from parse_file(as_landed(file), settings.source)
    except UnreadableFile as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _answers(
    texts: pl.DataFrame, tokenizer: Tokenizer, folder: str, model: Artifact, compute: ComputeSettings, batch_tokens: int
) -> pl.DataFrame:
    if texts.is_empty():
        return _named(np.empty((0, len(model.labels))), model)
    numbered = texts.select(row_id=pl.col("place").cast(pl.String), input_ids=tokenizer.encode(texts["clean_text"]))
    return _named(score(folder, numbered, compute, batch_tokens, model.task), model)


def _named(answers: FloatArray, model: Artifact) -> pl.DataFrame:
    """What the model answers, as columns: a number, or the labels with their probabilities."""
    if model.task == "text-regression":
        return pl.DataFrame({PREDICTED: answers.ravel()})
    labels = model.labels
    if model.task == "multi-label-classification":
        sets = ([label for label, there in zip(labels, row, strict=True) if there] for row in answers > THRESHOLD)
        chosen = [json.dumps(one, ensure_ascii=False) for one in sets]
    else:
        chosen = [labels[number] for number in answers.argmax(axis=1)]
    told = pl.Series(PREDICTED, chosen, dtype=pl.String)
    return pl.DataFrame([told, *(pl.Series(f"probability of {label}", answers[:, number]) for number, label in enumerate(labels))])
