"""One process, two, and two that share the model out, through the real assets: the same loss curve and scores, but for rounding."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from safetensors.torch import load_file

from trainpipe_assets.storage.artifacts import Artifact, list_artifacts
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.graph.test_causal import SETTINGS as CAUSAL
from trainpipe_tests.graph.test_causal import TO_TOKENS, reviews
from trainpipe_tests.pipelines import Workplace, make_workplace, read_words
from trainpipe_tests.unit.causal_fixtures import write_tiny_language_model
from trainpipe_tests.unit.training_fixtures import write_tiny_base

ALONE, BOTH, SHARED = (1, "none"), (2, "none"), (2, "full")
MODEL, REPORT = dg.AssetKey("fine_tuned_model"), dg.AssetKey("eval_report")


def classifier(root: Path, instance: dg.DagsterInstance) -> Workplace:
    read_words(write_tiny_base(root / "models" / "tiny", dropout=0.0))  # processes draw their own random numbers
    place = make_workplace(root, instance)
    place.land("words.csv", as_csv(examples(300, seed=1)))
    return place


def language_model(root: Path, instance: dg.DagsterInstance) -> Workplace:
    write_tiny_language_model(root / "models" / "tiny-lm", max_position_embeddings=256)
    source = {"uri": "documents", "kind": "prompt-completion", "settle_seconds": 0}
    training = {**CAUSAL["training"], "batch_tokens": 96}
    place = make_workplace(root, instance, "assistant", **{**CAUSAL, "source": source, "training": training})
    place.land("documents.jsonl", reviews(120))
    return place


def _laid_out(model: Artifact) -> tuple[int, str]:
    found = json.loads(Path(model.uri, "training.json").read_text())["distribution"]
    return found["processes"], found["sharding"]


def _file_names(model: Artifact) -> list[str]:
    return sorted(str(path.relative_to(model.uri)) for path in Path(model.uri).rglob("*"))


def _shapes(model: Artifact) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in load_file(Path(model.uri, "model.safetensors")).items()}


def _curve(record: dict[str, Any], rows: str, measure: str) -> list[float]:
    return [row[measure] for row in record[rows]]


@pytest.mark.parametrize("make", [classifier, language_model])
def test_one_process_and_two_and_two_with_shares_of_the_model_train_the_same(
    tmp_path: Path, instance: dg.DagsterInstance, make: Any
) -> None:
    place = make(tmp_path, instance)
    assert place.run(asset_selection=TO_TOKENS).success
    for processes, sharding in (ALONE, BOTH, SHARED):
        job = place.definitions(processes=processes, sharding=sharding).resolve_job_def(f"{place.name}_retrain")
        force = {"ops": {MODEL.path[-1]: {"config": {"force": processes > 1}}}}
        assert job.execute_in_process(instance=instance, asset_selection=[MODEL, REPORT], run_config=force).success
    models = list_artifacts(place.lake.models_uri(MODEL))
    records = {_laid_out(model): json.loads(Path(model.uri, "training.json").read_text()) for model in models}
    alone = records.pop(ALONE)
    assert records.keys() == {BOTH, SHARED}
    assert len(alone["history"]) > 8
    for record in records.values():
        for measure in ("step", "learning_rate", "loss", "grad_norm"):
            assert _curve(record, "history", measure) == pytest.approx(_curve(alone, "history", measure), rel=1e-3), measure
        for measure in ("loss", "accuracy"):
            assert _curve(record, "validations", measure) == pytest.approx(_curve(alone, "validations", measure), rel=1e-3), measure
    whole, share = (records[one]["distribution"] for one in (BOTH, SHARED))
    assert whole["weights_bytes_each"] == whole["weights_bytes"] == share["weights_bytes"]
    assert share["weights_bytes_each"] == pytest.approx(share["weights_bytes"] / 2, rel=0.02)  # what has an odd number of rows
    assert share["moments_bytes_each"] == pytest.approx(whole["moments_bytes_each"] / 2, rel=0.02)
    reports = {row["model_fingerprint"]: row for row in place.rows("eval_report").to_dicts()}
    assert reports.keys() == {model.fingerprint for model in models}
    losses = [json.loads(row["metrics"])["log_loss"]["value"] for row in reports.values()]
    assert losses == pytest.approx([losses[0]] * len(models), rel=1e-3)
    for form in (_file_names, _shapes, lambda model: Path(model.uri, "config.json").read_text()):
        assert form(models[0]) == form(models[1]) == form(models[2])
