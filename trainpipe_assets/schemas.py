"""Columns and dtypes of every table in the lake.

These are contracts with whoever queries the tables: a change here is a change of the product.
A row is immutable: the same `row_id` always means the same content under the same settings.
"""

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataType, DataTypeClass

Columns = Mapping[str, DataType | DataTypeClass]

_RAW_DATA: Columns = {
    "row_id": pl.String,  # file_id and the record's position in its file: unique, stable across machines
    "file_id": pl.String,  # hash of the landing-relative path and the file's content
    "source_file": pl.String,  # path relative to the landing folder
    "file_version": pl.String,  # size and modification time (ETag on S3): the cheap sign of a change
    "line_number": pl.Int64,  # line where the record starts (row number in Parquet), from 1; 0 speaks of the whole file
    "text": pl.String,
    "label": pl.String,
    "extra": pl.String,  # the source's other columns, as one JSON object
    "problem": pl.String,  # why the record could not be parsed, else null
    "ingested_at": pl.Datetime("us", "UTC"),
    "source_schema": pl.String,  # on the first record of each file: the file's columns and their types, as JSON; else null
}
RAW_DATA = pl.Schema(_RAW_DATA)

_CLEANED_FEATURES: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "source_file": pl.String,
    "line_number": pl.Int64,
    "text": pl.String,
    "label": pl.String,
    "split": pl.String,  # train, validation or test
    "content_hash": pl.String,  # of the normalised text, case folded
    "duplicate_group": pl.String,  # texts that count as the same share it, and so share a split
    "n_chars": pl.Int64,
    "n_words": pl.Int64,
    "n_redacted": pl.Int64,  # pieces of personal data replaced in the text
    "warnings": pl.List(pl.String),  # validation rules of severity warn that the record breaks; null where it breaks none
    "messages": pl.String,  # causal-lm: what the text is made of, as a JSON list of {role, content}; null for plain text
    "near_bands": pl.List(pl.Int64),  # hashes of the MinHash bands: texts that share one may be nearly the same; null if not looked for
}
CLEANED_FEATURES = pl.Schema(_CLEANED_FEATURES)

_REJECTED_ROWS: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "source_file": pl.String,
    "line_number": pl.Int64,
    "text": pl.String,  # as it arrived
    "label": pl.String,  # as it arrived
    "rule": pl.String,  # e.g. duplicate, conflicting_label, too_short
    "reason": pl.String,
    "content_hash": pl.String,  # null where the text was never normalised
    "duplicate_group": pl.String,  # as in cleaned_features, null likewise
    "near_bands": pl.List(pl.Int64),  # as in cleaned_features, null likewise
}
REJECTED_ROWS = pl.Schema(_REJECTED_ROWS)

_TOKENIZED_DATASET: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "split": pl.String,
    "label_id": pl.Int32,
    "input_ids": pl.List(pl.Int32),
    "n_tokens": pl.Int32,  # length of input_ids: special tokens included, padding never stored
}
TOKENIZED_DATASET = pl.Schema(_TOKENIZED_DATASET)

_TOKENIZED_LABEL_SETS: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "split": pl.String,
    "label_ids": pl.List(pl.Int32),  # in ascending order, empty for a text without labels
    "input_ids": pl.List(pl.Int32),
    "n_tokens": pl.Int32,  # length of input_ids: special tokens included, padding never stored
}
TOKENIZED_LABEL_SETS = pl.Schema(_TOKENIZED_LABEL_SETS)

_TOKENIZED_TARGETS: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "split": pl.String,
    "target": pl.Float64,  # the number to be predicted, in its own units
    "input_ids": pl.List(pl.Int32),
    "n_tokens": pl.Int32,  # length of input_ids: special tokens included, padding never stored
}
TOKENIZED_TARGETS = pl.Schema(_TOKENIZED_TARGETS)

_TOKENIZED_DOCUMENTS: Columns = {
    "row_id": pl.String,
    "file_id": pl.String,
    "split": pl.String,
    "input_ids": pl.List(pl.Int32),  # of the whole document, however long
    "loss_mask": pl.List(pl.Boolean),  # which of the tokens are to be learnt: all of a plain text, else those of the answers
    "n_tokens": pl.Int32,  # length of input_ids
}
TOKENIZED_DOCUMENTS = pl.Schema(_TOKENIZED_DOCUMENTS)

_PREDICTIONS: Columns = {
    "evaluation_id": pl.String,
    "row_id": pl.String,
    "source_file": pl.String,
    "n_tokens": pl.Int32,
    "text": pl.String,
    "label": pl.String,
    "predicted": pl.String,
    "confidence": pl.Float64,  # probability of the predicted label
    "probabilities": pl.List(pl.Float64),  # in the order of the model's labels
}
PREDICTIONS = pl.Schema(_PREDICTIONS)

_LABEL_SET_PREDICTIONS: Columns = {
    "evaluation_id": pl.String,
    "row_id": pl.String,
    "source_file": pl.String,
    "n_tokens": pl.Int32,
    "text": pl.String,
    "labels": pl.List(pl.String),  # those of the example
    "predicted": pl.List(pl.String),  # those of a probability above 0.5
    "probabilities": pl.List(pl.Float64),  # of each label by itself, in the order of the model's labels
}
LABEL_SET_PREDICTIONS = pl.Schema(_LABEL_SET_PREDICTIONS)

_TARGET_PREDICTIONS: Columns = {
    "evaluation_id": pl.String,
    "row_id": pl.String,
    "source_file": pl.String,
    "n_tokens": pl.Int32,
    "text": pl.String,
    "target": pl.Float64,  # the number of the example
    "predicted": pl.Float64,  # in the same units
    "residual": pl.Float64,  # predicted minus target
}
TARGET_PREDICTIONS = pl.Schema(_TARGET_PREDICTIONS)

_DOCUMENT_SCORES: Columns = {
    "evaluation_id": pl.String,
    "row_id": pl.String,
    "source_file": pl.String,
    "n_tokens": pl.Int32,
    "text": pl.String,
    "n_learnt": pl.Int64,  # tokens that the model was asked to predict
    "loss": pl.Float64,  # nats per such token
    "accuracy": pl.Float64,  # share of them that were the most probable ones
}
DOCUMENT_SCORES = pl.Schema(_DOCUMENT_SCORES)

_EVAL_REPORT: Columns = {
    "evaluation_id": pl.String,
    "evaluated_at": pl.Datetime("us", "UTC"),
    "model_uri": pl.String,
    "model_fingerprint": pl.String,
    "dataset_uri": pl.String,
    "dataset_version": pl.Int64,
    "n_examples": pl.Int64,
    "accuracy": pl.Float64,
    "macro_f1": pl.Float64,
    "log_loss": pl.Float64,  # nats per example; multi-label: per label of an example; causal-lm: per token that is learnt
    "calibration_error": pl.Float64,
    "metrics": pl.String,  # JSON: {name: {value, low, high}}; the metrics of the task, also those without a column of their own
    "gate_passed": pl.Boolean,
    "gate_reasons": pl.String,  # JSON list of sentences
    "previous_fingerprint": pl.String,
    "report_uri": pl.String,
}
EVAL_REPORT = pl.Schema(_EVAL_REPORT)

_DRIFT_REPORT: Columns = {
    "comparison_id": pl.String,
    "compared_at": pl.Datetime("us", "UTC"),
    "model_uri": pl.String,  # the model that was the current one
    "model_fingerprint": pl.String,
    "dataset_uri": pl.String,  # cleaned_features
    "reference_version": pl.Int64,  # version of it that the model was trained on
    "since_version": pl.Int64,  # the arrival is what came after this version
    "dataset_version": pl.Int64,  # up to this one
    "n_reference": pl.Int64,  # examples compared, of those the model was trained on
    "n_arrived": pl.Int64,  # examples of the arrival
    "n_compared": pl.Int64,  # of which were compared
    "label_shift": pl.Float64,  # distance of the labels, or of the numbers; null if not looked at, as the next three
    "length_shift": pl.Float64,  # Kolmogorov-Smirnov distance of the lengths
    "vocabulary_shift": pl.Float64,  # Jensen-Shannon divergence of the word frequencies above chance, in bits
    "domain_auc": pl.Float64,  # ROC AUC of a classifier that tells the two apart
    "vocabulary_coverage": pl.Float64,  # share of the arrival's words, repeats counted, that the reference has
    "drifted": pl.Boolean,  # whether any test says so
    "tests": pl.String,  # JSON: {name: {statistic, threshold, p_value, low, high, drifted}}
    "settings": pl.String,  # fingerprint of the settings and the code that judged
}
DRIFT_REPORT = pl.Schema(_DRIFT_REPORT)
