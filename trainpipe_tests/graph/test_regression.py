"""A regression through all five assets: numbers that arrive as text are what is learnt, predicted, judged and given back in their units."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trainpipe_assets.pipeline.resources import lake_from_environment
from trainpipe_assets.samples import fetch_samples
from trainpipe_assets.schemas import TARGET_PREDICTIONS, TOKENIZED_TARGETS
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace
from trainpipe_tests.sample_corpora import REPOSITORY

TO_TOKENS = [dg.AssetKey(name) for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")]
SETTINGS: dict[str, Any] = {
    "task": "text-regression",
    "source": {"uri": "numbers", "label_column": "price", "settle_seconds": 0},
    "cleaning": {"near_duplicates": {"action": "off"}},
    "split": {"validation": 0.2, "test": 0.2, "min_examples": 4},
    "training": {"epochs": 8, "learning_rate": 5e-3, "batch_tokens": 512},
    "evaluation": {"bootstrap_samples": 200, "mistakes": 3},
}


def priced(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of words, and a price far from 0 that says how many of them are of the upper half of the vocabulary."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        share = random.random()
        words = [random.integers(34, 64) if random.random() < share else random.integers(4, 34) for _ in range(random.integers(6, 24))]
        upper = np.mean([word >= 34 for word in words])
        rows.append((" ".join(f"w{word}" for word in words), f"{1000 + 200 * upper:.3f}"))
    return rows


def as_csv(rows: list[tuple[str, str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "price"), *rows])
    return buffer.getvalue().encode()


def workplace(root: Path, instance: dg.DagsterInstance, **changes: Any) -> Workplace:
    return make_workplace(root, instance, "prices", **{**SETTINGS, **changes})


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (found,) = [event for event in result.asset_materializations_for_node(asset) if event.asset_key == dg.AssetKey(asset)]
    return {name: value.value for name, value in found.metadata.items()}


def test_a_regression_from_landing_to_gate_and_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance)
    place.land("a.csv", as_csv(priced(300)))
    result = place.run()
    assert result.success
    assert "quantiles_of_targets_added" in metadata(result, "cleaned_features")
    assert place.rows("tokenized_dataset").schema == TOKENIZED_TARGETS

    row = place.rows("eval_report").row(0, named=True)
    metrics = json.loads(row["metrics"])
    assert metrics.keys() == {"rmse", "mae", "r2", "pearson", "spearman"}
    assert all(found["low"] <= found["value"] <= found["high"] for found in metrics.values())
    assert row["gate_passed"], row["gate_reasons"]
    assert "of always predicting the mean of the training split" in row["gate_reasons"]
    assert metrics["r2"]["value"] > 0.3, "the tiny model did not learn the prices"
    assert row["accuracy"] is None

    predictions = pl.read_parquet(row["report_uri"].replace(".html", ".predictions.parquet"))
    assert predictions.schema == TARGET_PREDICTIONS
    assert predictions["predicted"].is_between(900, 1300).all(), "not in the units of the prices"
    assert np.sqrt((predictions["residual"] ** 2).mean()) == pytest.approx(metrics["rmse"]["value"])
    shown = metadata(result, "eval_report")
    assert {"summary", "predicted_and_true", "residuals", "baseline_rmse"} <= shown.keys()
    assert shown["baseline_rmse"] > shown["rmse"]
    trained = metadata(result, "fine_tuned_model")
    assert trained["labels"] == ["price"]
    assert trained["validation_rmse"] < 200
    report = Path(row["report_uri"]).read_text()
    assert all(words in report for words in ("Predicted and true", "Residuals", "Furthest off", "By length", "RMSE", "Always predicting 1"))

    (model,) = list_artifacts(place.lake.models_uri(dg.AssetKey("fine_tuned_model")))
    _check_plain_transformers(model.uri, predictions)
    _check_next_model(place, model.fingerprint)


def _check_plain_transformers(folder: str, predictions: pl.DataFrame) -> None:
    """The finished folder needs nothing but transformers: what the guide says of it gives the very predictions of the report."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.problem_type == "regression"
    assert model.config.id2label == {0: "price"}
    inputs = AutoTokenizer.from_pretrained(folder)(predictions["text"].head(5).to_list(), padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, 0]
    numbers = logits * model.config.target_std + model.config.target_mean
    assert numbers.tolist() == pytest.approx(predictions["predicted"].head(5).to_list(), rel=1e-5)


def _check_next_model(place: Workplace, first: str) -> None:
    """More data, another model: it is compared with the former one, pair by pair."""
    place.land("b.csv", as_csv(priced(60, seed=1)))
    assert place.run().success
    newest = place.table("eval_report").scan().sort("evaluated_at").collect().row(-1, named=True)
    assert newest["previous_fingerprint"] == first
    assert "rmse differs from the previous model's by" in newest["gate_reasons"]
    assert "This model is nearer to" in Path(newest["report_uri"]).read_text()


def test_what_is_no_usable_number_is_rejected_with_its_reason(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    cleaning = {**SETTINGS["cleaning"], "target_range": [1000, 1200], "target_tolerance": 0.5}
    place = workplace(tmp_path, instance, cleaning=cleaning)
    odd = [
        *(("w4 w5", "1001"), ("w4 w5", "1001.5")),  # a repetition within the tolerance
        *(("w5 w6", "1001"), ("w5 w6", "1001.6")),  # a contradiction
        *(("w6 w7", "dear"), ("w7 w8", "nan"), ("w8 w9", "inf"), ("w9 w4", ""), ("w9 w5", "999.5"), ("w9 w6", " 1.2e3 ")),
    ]
    place.land("odd.csv", as_csv(odd))
    assert place.run(asset_selection=TO_TOKENS).success
    rejected = {row["line_number"]: (row["rule"], row["reason"]) for row in place.rows("rejected_rows").iter_rows(named=True)}
    assert {line: rule for line, (rule, _) in rejected.items()} == {
        3: "duplicate",
        4: "conflicting_label",
        5: "conflicting_label",
        **dict.fromkeys((6, 7, 8), "not_a_number"),
        9: "missing_label",
        10: "out_of_range",
    }
    assert rejected[4][1].startswith("labelled '1001.0' here and '1001.6' at odd.csv line 5")
    assert rejected[6][1] == "'dear' is not a finite number, such as 2.5"
    assert rejected[10][1] == "999.5 is out of cleaning.target_range, 1000 to 1200"
    assert sorted(place.rows("tokenized_dataset")["target"].to_list()) == [1001.0, 1200.0]


def test_numbers_that_are_all_the_same_are_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance)
    place.land("a.csv", as_csv([(text, "7") for text, _ in priced(60)]))
    assert "all examples of the training split have the number 7" in failure_of(place.run())


def test_real_ratings_are_predicted_better_than_by_their_mean(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    samples = fetch_samples(REPOSITORY / "data" / "samples", REPOSITORY / lake_from_environment().models)
    settings = {
        "source": {"uri": "numbers", "label_column": "rating", "settle_seconds": 0},
        "cleaning": {"target_range": [-4, 4]},
        "model": {"base": str(samples.base_model), "max_length": 48},
        "training": {"epochs": 1, "learning_rate": 2e-4, "batch_tokens": 256},
    }
    place = workplace(tmp_path, instance, **settings)
    rows = pl.read_csv(samples.corpora["movies"]).select("text", "rating").sample(500, seed=1)
    place.land("movies.csv", rows.write_csv().encode())
    result = place.run()
    assert result.success
    found = metadata(result, "eval_report")
    assert found["gate_passed"], found["gate_reasons"]
    assert found["rmse_high"] < found["baseline_rmse"]
    assert found["spearman_low"] > 0.2, found


def test_run_config_has_to_go_with_the_rest_of_the_settings(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = workplace(tmp_path, instance)
    place.land("a.csv", as_csv(priced(60)))
    result = place.run(run_config={"ops": {"fine_tuned_model": {"config": {"label_smoothing": 0.1}}}})
    assert "training.label_smoothing is for classes; task text-regression learns numbers" in failure_of(result)
