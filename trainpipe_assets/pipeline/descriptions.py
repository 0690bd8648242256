"""What the UI says of each asset before it is ever materialized: description, kinds, columns and their lineage."""

from collections.abc import Mapping
from typing import Any

from trainpipe_assets import schemas
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.metadata import column_lineage, column_schema
from trainpipe_assets.settings import Task

PRIVATE = "trainpipe/private"  # metadata of an asset whose rows are not to be shown
NO_DRIFT = "No arrival that the current model has not seen differs from what it was trained on."
_SAME = ("row_id", "file_id", "source_file", "line_number")


def raw_data(*, private: bool) -> dict[str, Any]:
    """For `raw_data`; `private` keeps its texts out of Dagster's event log."""
    return {
        "description": "Every record that arrived, usable or not, with the file version it came from.\n\n"
        "New, replaced and withdrawn files of the landing folder are found by comparing it with this table.",
        "kinds": {"polars", "deltalake"},
        "metadata": {"dagster/column_schema": column_schema(schemas.RAW_DATA), **_privacy(private)},
    }


def clean(output: str, keys: PipelineKeys, *, private: bool) -> dict[str, Any]:
    """For `cleaned_features` and `rejected_rows`, which one step makes together; `private` keeps texts as they arrived out of the log."""
    if output == "cleaned_features":
        from_text = (
            "text",
            "n_chars",
            "n_words",
            "n_redacted",
            "warnings",
            "messages",
            "content_hash",
            "duplicate_group",
            "near_bands",
        )
        columns = {**_same(*_SAME), "label": ("label",), "split": ("text", "source_file"), **dict.fromkeys(from_text, ("text",))}
        schema = schemas.CLEANED_FEATURES
        text = "Normalised, labelled, unique examples, in the split of their group of near-duplicates or of their file."
    else:
        columns = {**_same(*_SAME, "text", "label"), "rule": ("text", "label", "problem"), "reason": ("text", "label", "problem"),
                   **dict.fromkeys(("content_hash", "duplicate_group", "near_bands"), ("text",))}  # fmt: skip
        schema = schemas.REJECTED_ROWS
        text = "Every record that is not a cleaned example, as it arrived, with the rule it broke and the reason."
    return {
        "description": text,
        "kinds": {"polars", "deltalake"},
        "metadata": {
            "dagster/column_schema": column_schema(schema),
            "dagster/column_lineage": column_lineage(keys["raw_data"], columns),
            **_privacy(private and output == "rejected_rows"),
        },
    }


def tokenized_dataset(keys: PipelineKeys, task: Task) -> dict[str, Any]:
    """For `tokenized_dataset`."""
    labelled = task != "causal-lm"
    schema, of_task = {
        "text-classification": (schemas.TOKENIZED_DATASET, {"label_id": ("label",)}),
        "multi-label-classification": (schemas.TOKENIZED_LABEL_SETS, {"label_ids": ("label",)}),
        "text-regression": (schemas.TOKENIZED_TARGETS, {"target": ("label",)}),
        "causal-lm": (schemas.TOKENIZED_DOCUMENTS, {"loss_mask": ("messages",)}),
    }[task]
    columns = {**_same("row_id", "file_id", "split"), **of_task, "input_ids": ("text",), "n_tokens": ("text",)}
    rows = "the cleaned examples" if labelled else "the cleaned documents, and which of them are to be learnt"
    return {
        "description": f"Token ids of {rows}, by the base model's own tokenizer.",
        "kinds": {"huggingface", "deltalake"},
        "metadata": {
            "dagster/column_schema": column_schema(schema),
            "dagster/column_lineage": column_lineage(keys["cleaned_features"], columns),
        },
    }


def drift_report() -> dict[str, Any]:
    """For `drift_report`."""
    return {
        "description": "The history of comparisons: each is one arrival against what the current model was trained on, by labels, lengths, "
        "words and a classifier.\n\nThe current model is found in the history of eval_report, as it stood before the run.",
        "kinds": {"scikitlearn", "deltalake"},
        "metadata": {"dagster/column_schema": column_schema(schemas.DRIFT_REPORT)},
    }


def fine_tuned_model() -> dict[str, Any]:
    """For `fine_tuned_model`."""
    return {
        "description": "The base model fine-tuned on the training split: safetensors, tokenizer, and a manifest of all it came from.\n\n"
        "Asked for a training that was done before, it reuses its model.",
        "kinds": {"pytorch", "huggingface"},
    }


def eval_report() -> dict[str, Any]:
    """For `eval_report`."""
    return {
        "description": "The history of evaluations: each is one model on one pinned test split, with intervals, the comparison with the "
        "model before it, and the verdict of the gate. An HTML report and the predictions lie beside the model.",
        "kinds": {"pytorch", "deltalake"},
        "metadata": {"dagster/column_schema": column_schema(schemas.EVAL_REPORT)},
    }


def _same(*columns: str) -> Mapping[str, tuple[str, ...]]:
    return {name: (name,) for name in columns}


def _privacy(private: bool) -> dict[str, bool]:
    return {PRIVATE: True} if private else {}
