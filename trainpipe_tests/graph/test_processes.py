"""One process and two through the real asset: the same batches and the same loss curve, but for rounding."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.graph.test_causal import SETTINGS as CAUSAL
from trainpipe_tests.graph.test_causal import TO_TOKENS, reviews
from trainpipe_tests.pipelines import Workplace, make_workplace, read_words
from trainpipe_tests.unit.causal_fixtures import write_tiny_language_model
from trainpipe_tests.unit.training_fixtures import write_tiny_base

MODEL = dg.AssetKey("fine_tuned_model")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


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


@pytest.mark.parametrize("make", [classifier, language_model])
def test_one_process_and_two_train_the_same(tmp_path: Path, instance: dg.DagsterInstance, make: Any) -> None:
    place = make(tmp_path, instance)
    assert place.run(asset_selection=TO_TOKENS).success
    for processes in (1, 2):
        job = place.definitions(processes=processes).resolve_job_def(f"{place.name}_retrain")
        force = {"ops": {MODEL.path[-1]: {"config": {"force": processes > 1}}}}
        assert job.execute_in_process(instance=instance, asset_selection=[MODEL], run_config=force).success
    models = list_artifacts(place.lake.models_uri(MODEL))
    records = [json.loads(Path(model.uri, "training.json").read_text()) for model in models]
    alone, both = sorted(records, key=lambda record: record["hardware"]["processes"])
    assert (alone["hardware"]["processes"], both["hardware"]["processes"]) == (1, 2)
    assert len(alone["history"]) > 8
    for measure in ("step", "learning_rate", "loss", "grad_norm"):
        assert [row[measure] for row in both["history"]] == pytest.approx([row[measure] for row in alone["history"]], rel=1e-3), measure
    for measure in ("loss", "accuracy"):
        assert [row[measure] for row in both["validations"]] == pytest.approx([row[measure] for row in alone["validations"]], rel=1e-3)
