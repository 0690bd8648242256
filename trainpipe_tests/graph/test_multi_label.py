"""A multi-label classifier through all five assets: from lists and from separated labels, to sets that are predicted and judged."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainpipe_assets.schemas import LABEL_SET_PREDICTIONS, TOKENIZED_LABEL_SETS
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_tests.pipelines import Workplace, make_workplace

TO_TOKENS = [dg.AssetKey(name) for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")]
SETTINGS: dict[str, Any] = {
    "task": "multi-label-classification",
    "source": {"uri": "films", "kind": "multi-labelled", "label_column": "genres", "settle_seconds": 0},
    "cleaning": {"near_duplicates": {"action": "off"}, "label_separator": "|"},
    "split": {"validation": 0.2, "test": 0.2, "min_examples": 4},
    "training": {"epochs": 8, "learning_rate": 5e-3, "batch_tokens": 512},
    "evaluation": {"bootstrap_samples": 200, "mistakes": 3},
}
GENRES = {"high": range(34, 64), "even": range(4, 34, 2), "seven": (7, 17, 27)}


def films(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Texts and their genres: those of which two words in ten or more are."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        chosen = [genre for genre in GENRES if random.random() < 0.5]
        words = [*random.integers(5, 33, 3), *(word for genre in chosen for word in random.choice(list(GENRES[genre]), 5))]
        random.shuffle(words)
        found.append((" ".join(f"w{word}" for word in words), chosen))
    return found


def as_jsonl(rows: list[tuple[str, list[str]]]) -> bytes:
    return "".join(json.dumps({"text": text, "genres": genres}) + "\n" for text, genres in rows).encode()


def as_csv(rows: list[tuple[str, list[str]]]) -> bytes:
    """Labels with a separator; a text without any says so."""
    return ("text,genres\n" + "".join(f"{text},{'|'.join(genres) or '[]'}\n" for text, genres in rows)).encode()


def workplace(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Workplace:
    return make_workplace(root, instance, "genres", **{**SETTINGS, **changes})


def test_sets_of_labels_from_landing_to_gate_and_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance)
    place.land("a.jsonl", as_jsonl(films(250)))
    place.land("b.csv", as_csv(films(50, seed=1)))
    result = place.run()
    assert result.success
    tokens = place.rows("tokenized_dataset")
    assert tokens.schema == TOKENIZED_LABEL_SETS
    assert tokens["label_ids"].list.len().min() == 0

    row = place.rows("eval_report").row(0, named=True)
    metrics = json.loads(row["metrics"])
    assert metrics.keys() == {"macro_f1", "micro_f1", "subset_accuracy", "hamming_loss", "log_loss"}
    assert row["gate_passed"], row["gate_reasons"]
    assert "the most frequent set of labels, or all labels" in row["gate_reasons"]
    predictions = pl.read_parquet(row["report_uri"].replace(".html", ".predictions.parquet"))
    assert predictions.schema == LABEL_SET_PREDICTIONS
    assert (predictions["labels"] == predictions["predicted"]).mean() == pytest.approx(metrics["subset_accuracy"]["value"])
    (event,) = result.asset_materializations_for_node("eval_report")
    assert {"summary", "average_precision_of_labels", "reliability", "micro_f1"} <= event.metadata.keys()
    assert all(words in Path(row["report_uri"]).read_text() for words in ("Average precision", "ROC AUC", "Subset accuracy"))

    (model,) = list_artifacts(place.lake.models_uri(dg.AssetKey("fine_tuned_model")))
    _check_plain_transformers(model.uri, predictions)
    place.land("c.jsonl", as_jsonl(films(60, seed=2)))
    assert place.run().success
    newest = place.table("eval_report").scan().sort("evaluated_at").collect().row(-1, named=True)
    assert newest["previous_fingerprint"] == model.fingerprint
    assert "macro_f1 differs from the previous model's by" in newest["gate_reasons"]


def _check_plain_transformers(folder: str, predictions: pl.DataFrame) -> None:
    """The finished folder needs nothing but transformers: what the guide says of it gives the very probabilities of the report."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == {0: "even", 1: "high", 2: "seven"}
    inputs = AutoTokenizer.from_pretrained(folder)(predictions["text"].head(5).to_list(), padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    expected = np.array(predictions["probabilities"].head(5).to_list())
    assert torch.sigmoid(logits).numpy() == pytest.approx(expected, abs=1e-5)


def test_what_is_no_usable_set_is_rejected_with_its_reason(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, cleaning={**SETTINGS["cleaning"], "labels": ["x", "y"]})
    odd = [
        *({"text": "w4 w5", "genres": ["x", "y"]}, {"text": "w4 w5", "genres": "Y | X"}),  # the same set in another form
        *({"text": "w5 w6", "genres": ["x"]}, {"text": "w5 w6", "genres": ["x", "y"]}),  # a contradiction
        *({"text": "w6 w7", "genres": ["x", "z"]}, {"text": "w7 w8", "genres": None}, {"text": "w8 w9", "genres": [["x"]]}),
        {"text": "w9 w4", "genres": []},
    ]
    place.land("odd.jsonl", "".join(json.dumps(row) + "\n" for row in odd).encode())
    assert place.run(asset_selection=TO_TOKENS).success
    rejected = {row["line_number"]: (row["rule"], row["reason"]) for row in place.rows("rejected_rows").iter_rows(named=True)}
    assert {line: rule for line, (rule, _) in rejected.items()} == {
        2: "duplicate",
        3: "conflicting_label",
        4: "conflicting_label",
        5: "unknown_label",
        6: "missing_label",
        7: "not_a_list",
    }
    assert rejected[5][1] == "label(s) 'z' are not among: x, y"
    assert place.rows("tokenized_dataset").sort("row_id")["label_ids"].to_list() == [[0, 1], []]


def test_a_label_without_an_example_to_learn_from_is_told_of(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance, cleaning={**SETTINGS["cleaning"], "labels": [*GENRES, "unheard [of]"]})
    place.land("a.jsonl", as_jsonl(films(60)))
    result = place.run()
    assert result.success
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("fine_tuned_model")]
    warnings = event.materialization.metadata["warnings"].value
    assert r"label(s) unheard \[of\] have no example in the training split: the model cannot learn them" in warnings
    assert event.materialization.metadata["train_examples"].value > 30
    report = Path(place.rows("eval_report")["report_uri"][0]).read_text()
    assert "No training example: <bdi>unheard [of]</bdi>" in report
