"""`trainpipe models`, and the picture of the history: the models of a pipeline side by side."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.pipeline.models import describe_models, list_models
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import make_workplace


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_models_are_listed_with_their_verdict_and_what_was_changed(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    assert list_models(place.lake, place.settings) == []
    assert describe_models("words", [], place.settings) == "pipeline words has no model yet"
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert "history" not in _shown(place.run())
    one_epoch = {"ops": {"fine_tuned_model": {"config": {"epochs": 1}}}}
    assert "history" in _shown(place.run(run_config=one_epoch))
    place.land("b.csv", as_csv(examples(40, seed=2)))
    hardly_trained = {"ops": {"fine_tuned_model": {"config": {"epochs": 1, "learning_rate": 1e-9}}}}
    assert place.run(run_config=hardly_trained).success

    third, second, first = list_models(place.lake, place.settings)
    assert first["differences"] is None
    assert second["differences"] == ["training.epochs was 2 and is 1"]
    for said in ("examples.train was ", "examples' digest was ", "training.learning_rate was 0.003 and is 1e-09"):
        assert any(said in difference for difference in third["differences"])
    assert [model["gate"]["passed"] for model in (first, second, third)] == [True, True, False]
    assert [model["current"] for model in (first, second, third)] == [False, True, False]
    assert third["evaluation"]["report"].endswith(".html")

    text = describe_models("words", [third, second, first], place.settings)
    assert text.index(third["uri"]) < text.index(f"{second['uri']}  (the current model)") < text.index(first["uri"])
    assert "    differs    training.epochs was 2 and is 1" in text
    assert "gate FAILED" in text
    assert f"{first['examples']['train']:,} for training" in text

    shutil.rmtree(second["uri"])
    newest, oldest = list_models(place.lake, place.settings)
    assert not newest["current"]
    assert "training.epochs was 2 and is 1" in newest["differences"]
    assert oldest == {**first, "current": False}


def test_a_model_trained_anew_or_never_evaluated_says_so(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert place.run().success
    job = place.definitions().resolve_implicit_global_asset_job_def()
    anew = {"ops": {"fine_tuned_model": {"config": {"force": True}}}}
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("fine_tuned_model")], run_config=anew).success
    anew, first = list_models(place.lake, place.settings)
    assert anew["differences"] == ["nothing: it was trained anew by `force`"]
    assert (anew["evaluation"], anew["gate"], anew["current"], first["current"]) == (None, None, False, True)
    assert "    not evaluated\n" in describe_models("words", [anew, first], place.settings)


def _shown(result: dg.ExecuteInProcessResult) -> set[str]:
    assert result.success
    (event,) = [one for one in result.get_asset_materialization_events() if one.asset_key == dg.AssetKey("eval_report")]
    return set(event.materialization.metadata)
