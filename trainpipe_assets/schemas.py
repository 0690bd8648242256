"""Columns, dtypes and meaning of every table in the lake.

These are contracts with whoever queries the tables: a change here is a change of the product.
A row is immutable: the same `row_id` always means the same content under the same settings.
"""

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataType, DataTypeClass

SPLITS = ("train", "validation", "test")
"""The values of the columns `split`."""

Columns = Mapping[str, tuple[DataType | DataTypeClass, str]]

_TABLES: list[tuple[pl.Schema, Columns]] = []


def _schema(columns: Columns) -> pl.Schema:
    schema = pl.Schema({name: dtype for name, (dtype, _) in columns.items()})
    _TABLES.append((schema, columns))
    return schema


def meanings_of(schema: pl.Schema) -> Mapping[str, str]:
    """What each column of one of the tables below means; nothing for a schema that is none of theirs."""
    return next(({name: meaning for name, (_, meaning) in columns.items()} for known, columns in _TABLES if known == schema), {})


_RAW_DATA: Columns = {
    "row_id": (pl.String, "file_id and the record's position in its file: unique, stable across machines"),
    "file_id": (pl.String, "hash of the landing-relative path and the file's content"),
    "source_file": (pl.String, "path relative to the landing folder"),
    "file_version": (pl.String, "size and times (ETag on S3): the cheap sign of a change"),
    "line_number": (pl.Int64, "line where the record starts (row number in Parquet), from 1; 0 speaks of the whole file"),
    "text": (
        pl.String,
        "the text as it arrived (causal-lm: the text, the prompt, or the messages as JSON); of a record that could not be "
        "parsed its first 1,000 characters",
    ),
    "label": (
        pl.String,
        "the label, or the number, as it arrived, and a list of labels as JSON (causal-lm: the completion, if there is one)",
    ),
    "extra": (pl.String, "the source's other columns, as one JSON object"),
    "problem": (pl.String, "why the record could not be parsed, else null"),
    "ingested_at": (pl.Datetime("us", "UTC"), "when the run that ingested the row began to read files"),
    "source_schema": (pl.String, "on the first record of each file: the file's columns and their types, as JSON; else null"),
}
RAW_DATA = _schema(_RAW_DATA)

_CLEANED_FEATURES: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "line_number": (pl.Int64, "as in `raw_data`"),
    "text": (pl.String, "normalised text"),
    "label": (
        pl.String,
        "canonical label (multi-label-classification: a sorted JSON list of them; text-regression: the number, as the shortest "
        "decimal that gives it back; causal-lm: null)",
    ),
    "split": (pl.String, "train, validation or test"),
    "content_hash": (pl.String, "of the normalised text, case folded"),
    "duplicate_group": (pl.String, "texts that count as the same share it, and so share a split"),
    "n_chars": (pl.Int64, "characters of `text`"),
    "n_words": (pl.Int64, "words of `text`, by its spaces"),
    "n_redacted": (pl.Int64, "pieces of personal data replaced in the text"),
    "warnings": (pl.List(pl.String), "validation rules of severity warn that the record breaks; null where it breaks none"),
    "messages": (pl.String, "causal-lm: what the text is made of, as a JSON list of {role, content}; null for plain text"),
    "near_bands": (pl.List(pl.Int64), "hashes of the MinHash bands: texts that share one may be nearly the same; null if not looked for"),
}
CLEANED_FEATURES = _schema(_CLEANED_FEATURES)

_REJECTED_ROWS: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "line_number": (pl.Int64, "as in `raw_data`"),
    "text": (pl.String, "as it arrived"),
    "label": (pl.String, "as it arrived"),
    "rule": (pl.String, "e.g. duplicate, conflicting_label, too_short"),
    "reason": (pl.String, "a sentence: what was found and what is allowed, or which row it repeats or contradicts"),
    "content_hash": (pl.String, "null where the text was never normalised"),
    "duplicate_group": (pl.String, "as in cleaned_features, null likewise"),
    "near_bands": (pl.List(pl.Int64), "as in cleaned_features, null likewise"),
}
REJECTED_ROWS = _schema(_REJECTED_ROWS)

_TOKENIZED_DATASET: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "split": (pl.String, "as in `cleaned_features`"),
    "label_id": (pl.Int32, "position of the label in `cleaning.labels`, or among the labels found, sorted"),
    "input_ids": (pl.List(pl.Int32), "token ids, special tokens included, cut to `model.max_length`"),
    "n_tokens": (pl.Int32, "length of input_ids: special tokens included, padding never stored"),
}
TOKENIZED_DATASET = _schema(_TOKENIZED_DATASET)

_TOKENIZED_LABEL_SETS: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "split": (pl.String, "as in `cleaned_features`"),
    "label_ids": (pl.List(pl.Int32), "in ascending order, empty for a text without labels"),
    "input_ids": (pl.List(pl.Int32), "token ids, special tokens included, cut to `model.max_length`"),
    "n_tokens": (pl.Int32, "length of input_ids: special tokens included, padding never stored"),
}
TOKENIZED_LABEL_SETS = _schema(_TOKENIZED_LABEL_SETS)

_TOKENIZED_TARGETS: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "split": (pl.String, "as in `cleaned_features`"),
    "target": (pl.Float64, "the number to be predicted, in its own units"),
    "input_ids": (pl.List(pl.Int32), "token ids, special tokens included, cut to `model.max_length`"),
    "n_tokens": (pl.Int32, "length of input_ids: special tokens included, padding never stored"),
}
TOKENIZED_TARGETS = _schema(_TOKENIZED_TARGETS)

_TOKENIZED_DOCUMENTS: Columns = {
    "row_id": (pl.String, "as in `raw_data`"),
    "file_id": (pl.String, "as in `raw_data`"),
    "split": (pl.String, "as in `cleaned_features`"),
    "input_ids": (pl.List(pl.Int32), "of the whole document, however long"),
    "loss_mask": (pl.List(pl.Boolean), "which of the tokens are to be learnt: all of a plain text, else those of the answers"),
    "n_tokens": (pl.Int32, "length of input_ids"),
}
TOKENIZED_DOCUMENTS = _schema(_TOKENIZED_DOCUMENTS)

_PREDICTIONS: Columns = {
    "evaluation_id": (pl.String, "as in `eval_report`"),
    "row_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "n_tokens": (pl.Int32, "as in `tokenized_dataset`"),
    "text": (pl.String, "as in `cleaned_features`"),
    "label": (pl.String, "as in `cleaned_features`"),
    "predicted": (pl.String, "the most probable label"),
    "confidence": (pl.Float64, "probability of the predicted label"),
    "probabilities": (pl.List(pl.Float64), "in the order of the model's labels"),
}
PREDICTIONS = _schema(_PREDICTIONS)

_LABEL_SET_PREDICTIONS: Columns = {
    "evaluation_id": (pl.String, "as in `eval_report`"),
    "row_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "n_tokens": (pl.Int32, "as in `tokenized_dataset`"),
    "text": (pl.String, "as in `cleaned_features`"),
    "labels": (pl.List(pl.String), "those of the example"),
    "predicted": (pl.List(pl.String), "those of a probability above 0.5"),
    "probabilities": (pl.List(pl.Float64), "of each label by itself, in the order of the model's labels"),
}
LABEL_SET_PREDICTIONS = _schema(_LABEL_SET_PREDICTIONS)

_TARGET_PREDICTIONS: Columns = {
    "evaluation_id": (pl.String, "as in `eval_report`"),
    "row_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "n_tokens": (pl.Int32, "as in `tokenized_dataset`"),
    "text": (pl.String, "as in `cleaned_features`"),
    "target": (pl.Float64, "the number of the example"),
    "predicted": (pl.Float64, "in the same units"),
    "residual": (pl.Float64, "predicted minus target"),
}
TARGET_PREDICTIONS = _schema(_TARGET_PREDICTIONS)

_DOCUMENT_SCORES: Columns = {
    "evaluation_id": (pl.String, "as in `eval_report`"),
    "row_id": (pl.String, "as in `raw_data`"),
    "source_file": (pl.String, "as in `raw_data`"),
    "n_tokens": (pl.Int32, "as in `tokenized_dataset`"),
    "text": (pl.String, "as in `cleaned_features`"),
    "n_learnt": (pl.Int64, "tokens that the model was asked to predict"),
    "loss": (pl.Float64, "nats per such token"),
    "accuracy": (pl.Float64, "share of them that were the most probable ones"),
}
DOCUMENT_SCORES = _schema(_DOCUMENT_SCORES)

_EVAL_REPORT: Columns = {
    "evaluation_id": (pl.String, "hash of the model, the model it was compared with, the rows and the settings of the evaluation"),
    "evaluated_at": (pl.Datetime("us", "UTC"), "when it was evaluated, or came up again after another evaluation"),
    "model_uri": (pl.String, "folder of the model"),
    "model_fingerprint": (pl.String, "identity of the training that made the model"),
    "dataset_uri": (pl.String, "table that the test split was read from"),
    "dataset_version": (pl.Int64, "version of that table"),
    "n_examples": (pl.Int64, "test examples that were evaluated"),
    "accuracy": (pl.Float64, "share of examples predicted right"),
    "macro_f1": (pl.Float64, "plain mean of F1 over the classes"),
    "log_loss": (pl.Float64, "nats per example; multi-label: per label of an example; causal-lm: per token that is learnt"),
    "calibration_error": (pl.Float64, "expected calibration error over equal-width bins of confidence"),
    "metrics": (pl.String, "JSON: {name: {value, low, high}}; the metrics of the task, also those without a column of their own"),
    "gate_passed": (pl.Boolean, "the verdict of the gate"),
    "gate_reasons": (pl.String, "JSON list of sentences"),
    "previous_fingerprint": (
        pl.String,
        "the model it was compared with: the newest other one whose gate had passed; null where there was none",
    ),
    "report_uri": (pl.String, "the HTML report"),
}
EVAL_REPORT = _schema(_EVAL_REPORT)

_DRIFT_REPORT: Columns = {
    "comparison_id": (pl.String, "hash of the model, the versions compared and the settings"),
    "compared_at": (pl.Datetime("us", "UTC"), "when they were compared"),
    "model_uri": (pl.String, "the model that was the current one"),
    "model_fingerprint": (pl.String, "identity of the training that made the model"),
    "dataset_uri": (pl.String, "table that the examples were read from, `cleaned_features`"),
    "reference_version": (pl.Int64, "version of it that the model was trained on"),
    "since_version": (pl.Int64, "the arrival is what came after this version"),
    "dataset_version": (pl.Int64, "up to this one"),
    "n_reference": (pl.Int64, "examples compared, of those the model was trained on"),
    "n_arrived": (pl.Int64, "examples of the arrival"),
    "n_compared": (pl.Int64, "of which were compared"),
    "label_shift": (pl.Float64, "distance of the labels, or of the numbers; null if not looked at, as the next three"),
    "length_shift": (pl.Float64, "Kolmogorov-Smirnov distance of the lengths"),
    "vocabulary_shift": (pl.Float64, "Jensen-Shannon divergence of the word frequencies above chance, in bits"),
    "domain_auc": (pl.Float64, "ROC AUC of a classifier that tells the two apart"),
    "vocabulary_coverage": (pl.Float64, "share of the arrival's words, repeats counted, that the reference has"),
    "drifted": (pl.Boolean, "whether any test says so"),
    "tests": (pl.String, "JSON: {name: {statistic, threshold, p_value, low, high, drifted}}"),
    "settings": (pl.String, "fingerprint of the settings and the code that judged"),
}
DRIFT_REPORT = _schema(_DRIFT_REPORT)
