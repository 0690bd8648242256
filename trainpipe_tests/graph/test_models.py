"""The models of a pipeline side by side: how they are listed, which is the current one, and what they are compared on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl

from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.maintenance import pinned_versions
from trainpipe_assets.pipeline.models import describe_models, list_models
from trainpipe_assets.pipeline.provenance import TrainingPlan, forced
from trainpipe_assets.pipeline.status import describe, pipeline_status
from trainpipe_assets.storage.artifacts import seal
from trainpipe_assets.storage.base_models import BaseModel
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.graph.test_causal import TO_TOKENS
from trainpipe_tests.pipelines import failure_of, make_workplace


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
    assert oldest == {**first, "current": True}  # the one before is the current one again


def test_settings_that_made_the_examples_are_told_by_name(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert place.run().success
    stricter = place.settings.model_copy(update={"cleaning": place.settings.cleaning.model_copy(update={"min_chars": 12})})
    changed = replace(place, settings=stricter)
    assert changed.run().success
    second, first = list_models(place.lake, place.settings)
    assert "cleaned_features.cleaning.min_chars was 2 and is 12" in second["differences"]
    assert not any("fingerprint" in difference or "settings and code" in difference for difference in second["differences"])
    made_by = json.loads((Path(second["uri"]) / "manifest.json").read_text())["dataset"]["made_by"]
    assert made_by["raw_data"]["source"]["text_column"] == place.settings.source.text_column
    assert made_by["cleaned_features"]["split"] == place.settings.split.model_dump(mode="json", exclude={"min_examples"})
    assert made_by["tokenized_dataset"]["labels"] == ["negative", "positive"]

    for model in (first, second):  # as an older version wrote them
        path = Path(model["uri"]) / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["dataset"]["made_by"]
        path.write_text(json.dumps(manifest))
    assert any("settings and code of tokenized_dataset was" in one for one in list_models(place.lake, place.settings)[0]["differences"])


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


def test_what_retries_a_forced_run_goes_on_with_its_training_until_that_has_made_a_model(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert place.run(asset_selection=TO_TOKENS).success
    plan = TrainingPlan(
        task="text-classification",
        dataset=place.table("tokenized_dataset"),
        digest="digest",
        labels=("a", "b"),
        base=BaseModel("tiny", "folder", "digest"),
        model=place.settings.model,
        training=place.settings.training,
    )
    first = dg.DagsterRun("job", run_id="first")
    retry, later = (dg.DagsterRun("job", run_id=name, root_run_id="first", parent_run_id="first") for name in ("retry", "later"))
    models = str(tmp_path / "made")
    begun = forced(plan, first, models)
    assert begun.fingerprint == forced(plan, retry, models).fingerprint != plan.fingerprint
    made = tmp_path / "made" / begun.fingerprint
    made.mkdir(parents=True)
    seal(made, {"run_id": retry.run_id})
    assert forced(plan, retry, models).fingerprint == begun.fingerprint, "what retries the step publishes what it has made"
    assert forced(plan, later, models).fingerprint not in (begun.fingerprint, plan.fingerprint), "it was asked to train anew"


def test_the_model_that_stands_is_told_of_whatever_came_between(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    stood = []
    for land in (False, True, False, True):
        if land:
            place.land("b.csv", as_csv(examples(100, seed=2)))
        else:
            (tmp_path / "landing" / "words" / "b.csv").unlink(missing_ok=True)
        result = place.run()
        shown = _shown(result)
        status = pipeline_status(place.lake, "words", place.settings)
        assert status["model"] == status["latest"]
        stood.append(status["latest"]["fingerprint"])
        (made,) = [one for one in result.get_asset_materialization_events() if one.asset_key == dg.AssetKey("fine_tuned_model")]
        assert made.materialization.metadata["fingerprint"].value == stood[-1]
    assert stood[:2] == stood[2:]
    rows = place.table("eval_report").rows
    assert {"confusion_matrix", "summary", "history"} <= shown  # the last one was evaluated before, against the same model
    assert place.rows("eval_report")["evaluation_id"].n_unique() == rows - 1
    assert _shown(place.run()) == shown
    assert place.table("eval_report").rows == rows


def test_test_examples_that_the_previous_model_was_trained_on_are_left_out(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(300, seed=1)))
    assert place.run().success
    learnt = set(place.rows("tokenized_dataset").filter(pl.col("split") != "test")["row_id"])
    moved = make_workplace(tmp_path, instance, split={"seed": 1})
    assert moved.run().success
    test = set(moved.rows("tokenized_dataset").filter(pl.col("split") == "test")["row_id"])
    newest = moved.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    assert learnt & test
    left_out = f"that model was trained or validated on {len(learnt & test)} of the {len(test)} test examples, which are left out."
    assert json.loads(newest["gate_reasons"])[-1].endswith(left_out)

    shutil.rmtree(tmp_path / "lake" / "tables" / "tokenized_dataset")
    assert make_workplace(tmp_path, instance, split={"seed": 2}).run().success
    newest = moved.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    assert "what that model was trained on cannot be read any more" in json.loads(newest["gate_reasons"])[-1]


def test_texts_that_came_again_in_another_file_are_left_out_too(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    landed = place.land("a.csv", as_csv(examples(300, seed=1)))
    assert place.run().success
    learnt = set(place.rows("cleaned_features").filter(pl.col("split") != "test")["content_hash"])
    landed.rename(landed.with_name("renamed.csv"))
    moved = make_workplace(tmp_path, instance, split={"seed": 1})
    assert moved.run().success
    test = set(moved.rows("cleaned_features").filter(pl.col("split") == "test")["content_hash"])
    newest = moved.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    left_out = f"that model was trained or validated on {len(learnt & test)} of the {len(test)} test examples, which are left out."
    assert json.loads(newest["gate_reasons"])[-1].endswith(left_out)


def test_a_model_is_not_evaluated_on_what_it_was_trained_on_itself(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, split={"test_files": "test*.csv"})
    learnt = place.land("train-a.csv", as_csv(examples(150, seed=1)))
    place.land("train-b.csv", as_csv(examples(150, seed=2)))
    test = place.land("test.csv", as_csv(examples(40, seed=3)))
    first = place.run()
    assert place.rows("eval_report")["n_examples"].to_list() == [40]
    assert "about_the_test_examples" not in first.asset_materializations_for_node("eval_report")[0].metadata
    learnt.rename(learnt.with_name("test-a.csv"))
    assert place.run("prepare").success
    again = place.run(asset_selection=[dg.AssetKey("eval_report")])
    row = place.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    assert row["n_examples"] == 40
    told = "the model was trained or validated on 150 of the 190 test examples, which are left out"
    assert again.asset_materializations_for_node("eval_report")[0].metadata["about_the_test_examples"].value == told
    test.unlink()
    assert place.run("prepare").success
    alone = place.run(asset_selection=[dg.AssetKey("eval_report")])
    assert "of the 150 test examples there are 0 that the model" in failure_of(alone)


def test_a_lake_that_was_moved_keeps_its_models_and_verdicts(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path / "old", instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    assert place.run().success
    assert place.run(run_config={"ops": {"fine_tuned_model": {"config": {"epochs": 1}}}}).success
    (tmp_path / "old").rename(tmp_path / "new")
    moved = make_workplace(tmp_path / "new", instance)

    newest, _ = list_models(moved.lake, moved.settings)
    assert newest["current"]
    assert newest["uri"].startswith(str(tmp_path / "new"))
    status = pipeline_status(moved.lake, "words", moved.settings)
    assert status["model"]["exists"]
    assert Path(status["model"]["report"]).is_file()
    pinned = pinned_versions(moved.lake, PipelineKeys(()), moved.settings.task)
    assert pinned[moved.table("cleaned_features").uri]
    assert all(uri.startswith(str(tmp_path / "new")) for uri in pinned)

    evaluations = moved.rows("eval_report").height
    job = moved.definitions().resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("eval_report")]).success
    assert moved.rows("eval_report").height == evaluations  # nothing to be told of a model that was logged elsewhere
    moved.land("b.csv", as_csv(examples(40, seed=2)))
    assert moved.run().success
    verdict = moved.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    assert verdict["previous_fingerprint"] == newest["fingerprint"]
    assert not (tmp_path / "old").exists()


def test_a_model_that_was_deleted_or_damaged_gives_way_to_the_one_before(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(examples(200, seed=1)))
    for epochs in (2, 3):
        assert place.run(run_config={"ops": {"fine_tuned_model": {"config": {"epochs": epochs}}}}).success
    second, first = list_models(place.lake, place.settings)
    assert second["current"]
    (Path(second["uri"]) / "model.safetensors").write_bytes(b"damaged")
    assert place.run(run_config={"ops": {"fine_tuned_model": {"config": {"epochs": 1}}}}).success
    compared_with = place.rows("eval_report").sort("evaluated_at")["previous_fingerprint"].to_list()
    assert compared_with == [None, first["fingerprint"], first["fingerprint"]]

    shutil.rmtree(list_models(place.lake, place.settings)[0]["uri"])
    shutil.rmtree(second["uri"])
    status = pipeline_status(place.lake, "words", place.settings)
    assert status["model"]["fingerprint"] == first["fingerprint"]
    assert not status["latest"]["exists"]
    assert f"  model      {status['latest']['uri']}  (deleted)\n" in describe("words", status)
    assert f"  current    {first['uri']}" in describe("words", status)


def _shown(result: dg.ExecuteInProcessResult) -> set[str]:
    assert result.success
    (event,) = [one for one in result.get_asset_materialization_events() if one.asset_key == dg.AssetKey("eval_report")]
    return set(event.materialization.metadata)
