"""The asset graph in process, with a tiny base model: what a run does, what the next one does not do again."""

import html
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from trainpipe_assets.pipeline.keys import ASSETS
from trainpipe_assets.storage.artifacts import DamagedArtifact, read_manifest, verify
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace

FIRST, SECOND = examples(400, seed=1), examples(40, seed=2)


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, instance: dg.DagsterInstance) -> tuple[Workplace, dg.ExecuteInProcessResult]:
    place = make_workplace(tmp_path_factory.mktemp("trained"), instance)
    place.land("first.csv", as_csv([*FIRST, ("w4 w5", "neutral"), FIRST[0]]))
    return place, place.run()


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey(asset)]
    return {key: value.value for key, value in event.materialization.metadata.items()}


def test_a_run_makes_every_asset_and_passes_every_check(trained: tuple[Workplace, dg.ExecuteInProcessResult]) -> None:
    place, result = trained
    assert result.success
    assert {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()} == set(ASSETS)
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks == dict.fromkeys(
        (
            "records_are_conserved",
            "schema_is_stable",
            "rows_are_conserved",
            "splits_do_not_leak",
            "few_records_are_rejected",
            "examples_are_conserved",
            "no_drift",
            "gate",
        ),
        True,
    )
    assert place.table("raw_data").rows == 402
    assert place.rows("rejected_rows")["rule"].sort().to_list() == ["duplicate", "unknown_label"]


def test_a_materialization_tells_the_truth_about_its_table(trained: tuple[Workplace, dg.ExecuteInProcessResult]) -> None:
    place, result = trained
    found, table = metadata(result, "cleaned_features"), place.table("cleaned_features")
    assert (found["table_version"], found["dagster/row_count"], found["size_bytes"]) == (table.version, table.rows, table.size_bytes)
    assert found["update"] == "created"
    columns = found["dagster/column_schema"].columns
    assert [column.name for column in columns] == table.schema.names()
    assert all(column.description for column in columns)
    assert found["preview"].count("\n") == 6


def test_the_model_and_the_report_show_pictures_and_numbers(trained: tuple[Workplace, dg.ExecuteInProcessResult]) -> None:
    _, result = trained
    model, report = metadata(result, "fine_tuned_model"), metadata(result, "eval_report")
    assert model["training_curves"].startswith("![")
    assert model["where_the_time_went"].startswith("![")
    assert model["verdict"] in html.unescape(Path(report["report"]).read_text())
    assert "data:image/png;base64," in report["confusion_matrix"]
    assert report["accuracy_low"] <= report["accuracy"] <= report["accuracy_high"]
    assert Path(report["report"]).read_text().lower().startswith("<!doctype html>")
    predictions = pl.read_parquet(str(report["report"]).replace(".html", ".predictions.parquet"))
    assert predictions.height == report["test_examples"]
    assert (predictions["label"] == predictions["predicted"]).mean() == pytest.approx(report["accuracy"], abs=1e-4)


def test_the_manifest_names_everything_and_the_hashes_hold(trained: tuple[Workplace, dg.ExecuteInProcessResult]) -> None:
    place, result = trained
    artifact = read_manifest(str(metadata(result, "fine_tuned_model")["model_uri"]))
    assert artifact is not None
    verify(artifact)
    assert {"fingerprint", "labels", "dataset", "lake", "base_model", "settings", "hardware", "versions", "files", "code_version"} <= set(
        artifact.manifest
    )
    assert artifact.manifest["dataset"]["version"] == place.table("tokenized_dataset").version
    assert "model.safetensors" in artifact.manifest["files"]
    assert not (place.root / "scratch" / artifact.fingerprint).exists()


def test_a_second_run_does_no_work_twice(trained: tuple[Workplace, dg.ExecuteInProcessResult], monkeypatch: pytest.MonkeyPatch) -> None:
    place, first = trained
    for drawing in ("loss_curves", "phases_plot"):
        monkeypatch.delattr(f"trainpipe_assets.pipeline.outputs.{drawing}")
    versions = {asset: place.table(asset).version for asset in ASSETS if asset != "fine_tuned_model"}
    how_to_compute = {"checkpoint_seconds": 5.0, "micro_batch_tokens": 64, "packing": False}  # the last is of language models
    again = place.run(run_config={"ops": {"fine_tuned_model": {"config": how_to_compute}}})
    assert again.success
    assert {asset: place.table(asset).version for asset in versions} == versions
    assert all(metadata(again, asset)["update"] == "nothing new" for asset in versions)
    assert metadata(again, "fine_tuned_model")["reused"]
    for name in ("model_uri", "training_curves", "where_the_time_went"):
        assert metadata(again, "fine_tuned_model")[name] == metadata(first, "fine_tuned_model")[name]
    for name in ("accuracy", "summary", "confusion_matrix", "reliability"):
        assert metadata(again, "eval_report")[name] == metadata(first, "eval_report")[name]


def test_a_damaged_model_is_refused_with_its_file_named(trained: tuple[Workplace, dg.ExecuteInProcessResult]) -> None:
    _, result = trained
    artifact = read_manifest(str(metadata(result, "fine_tuned_model")["model_uri"]))
    assert artifact is not None
    config = Path(artifact.uri) / "config.json"
    intact = config.read_bytes()
    try:
        config.write_bytes(intact + b" ")
        with pytest.raises(DamagedArtifact, match=r"config\.json has SHA-256"):
            verify(artifact)
    finally:
        config.write_bytes(intact)


def test_new_data_is_processed_alone_and_compared_with_the_model_before(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("first.csv", as_csv(FIRST))
    first = place.run()
    place.land("second.csv", as_csv(SECOND))
    second = place.run()
    assert second.success
    assert metadata(second, "tokenized_dataset")["update"] == "incremental"
    assert metadata(second, "tokenized_dataset")["rows_added"] == 40
    assert metadata(second, "fine_tuned_model")["fingerprint"] != metadata(first, "fine_tuned_model")["fingerprint"]
    newest = place.rows("eval_report").sort("evaluated_at").row(-1, named=True)
    assert newest["previous_fingerprint"] == metadata(first, "fine_tuned_model")["fingerprint"]
    assert "differs from the previous model's" in newest["gate_reasons"]


def test_the_order_of_arrival_does_not_matter(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    halves = {"a.csv": as_csv(FIRST[:200] + SECOND[:10]), "b.csv": as_csv(FIRST[200:] + SECOND[:20])}
    one_by_one, at_once = make_workplace(tmp_path / "1", instance), make_workplace(tmp_path / "2", instance)
    for name in ("b.csv", "a.csv"):
        one_by_one.land(name, halves[name])
        assert one_by_one.run("ingest").success
        _materialize(one_by_one, "cleaned_features", "rejected_rows", "tokenized_dataset")
    for name, content in halves.items():
        at_once.land(name, content)
    assert at_once.run("ingest").success
    _materialize(at_once, "cleaned_features", "rejected_rows", "tokenized_dataset")
    for asset in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset"):
        assert one_by_one.rows(asset).equals(at_once.rows(asset)), asset


def test_a_data_file_that_is_gone_is_named_and_deleting_its_table_mends_it(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(FIRST[:100]))
    place.run("ingest")
    before = place.rows("raw_data")
    table = Path(place.table("raw_data").uri)
    for file in table.glob("*.parquet"):
        file.unlink()
    said = failure_of(_materialize(place, "cleaned_features"))
    assert "tables/raw_data/" in said
    assert "delete the folder of that table" in said
    shutil.rmtree(table)
    assert place.run("ingest").success
    assert place.rows("raw_data").equals(before)
    assert _materialize(place, "cleaned_features").success


@pytest.mark.parametrize("selected", [("cleaned_features", "tokenized_dataset"), ("rejected_rows",)])
def test_what_comes_of_one_step_is_kept_together_whatever_was_selected(
    tmp_path: Path, instance: dg.DagsterInstance, selected: tuple[str, ...]
) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv([*FIRST, ("w4 w5", "neutral"), FIRST[0]]))
    place.run("ingest")
    result = _materialize(place, *selected)
    assert result.success
    kept = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert kept == {*selected, "cleaned_features", "rejected_rows"}
    assert place.rows("cleaned_features").height + place.rows("rejected_rows").height == place.rows("raw_data").height
    assert metadata(result, "rejected_rows")["dagster/row_count"] == 2
    versions = {key: place.instance.get_latest_materialization_event(dg.AssetKey(key)) for key in ("cleaned_features", "rejected_rows")}
    again = _materialize(place, "cleaned_features", "rejected_rows")
    assert {metadata(again, key)["update"] for key in versions} == {"nothing new"}
    for key, event in versions.items():
        now = place.instance.get_latest_materialization_event(dg.AssetKey(key))
        assert now.asset_materialization.tags["dagster/data_version"] == event.asset_materialization.tags["dagster/data_version"]


def _materialize(place: Workplace, *assets: str, run_config: dict[str, Any] | None = None) -> dg.ExecuteInProcessResult:
    job = place.definitions().resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey([*place.settings.key_prefix, asset]) for asset in assets]
    return job.execute_in_process(instance=place.instance, asset_selection=keys, run_config=run_config, raise_on_error=False)


def test_replaced_and_withdrawn_files_take_their_rows_along(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(FIRST[:100]))
    gone = place.land("b.csv", as_csv(FIRST[100:150]))
    place.run("ingest")
    place.land("a.csv", as_csv(FIRST[:90]))
    gone.unlink()
    assert place.run("ingest").success
    assert place.rows("raw_data")["source_file"].to_list() == ["a.csv"] * 90


def test_a_touched_file_is_no_change(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    path = place.land("a.csv", as_csv(FIRST[:50]))
    place.run("ingest")
    before = place.rows("raw_data")
    path.touch()
    assert place.run("ingest").success
    assert place.rows("raw_data").equals(before)


def test_other_settings_rebuild_what_follows_from_them_and_no_more(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(FIRST[:100]))
    place.run("ingest")
    _materialize(place, "cleaned_features", "rejected_rows", "tokenized_dataset")
    other = make_workplace(tmp_path, instance, model={"base": "tiny", "max_length": 8})
    result = _materialize(other, "raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")
    assert metadata(result, "raw_data")["update"] == "nothing new"
    assert metadata(result, "cleaned_features")["update"] == "nothing new"
    assert metadata(result, "tokenized_dataset")["update"] == "rebuilt"
    assert other.rows("tokenized_dataset")["n_tokens"].max() == 8


def test_run_config_changes_one_run_and_force_trains_anew(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    place.land("a.csv", as_csv(FIRST[:200]))
    config = {"ops": {"fine_tuned_model": {"config": {"epochs": 1, "force": True}}}}
    first, second = place.run(run_config=config), place.run(run_config=config)
    assert first.success
    assert second.success
    assert not metadata(second, "fine_tuned_model")["reused"]
    models = [read_manifest(str(metadata(run, "fine_tuned_model")["model_uri"])) for run in (first, second)]
    assert models[0] is not None
    assert models[1] is not None
    assert models[0].manifest["settings"]["training"]["epochs"] == 1
    assert models[0].fingerprint != models[1].fingerprint
    weights = [model.manifest["files"]["model.safetensors"]["sha256"] for model in models if model]
    assert weights[0] == weights[1]  # fixed seeds: the same bytes twice


@pytest.mark.parametrize(
    ("content", "asset", "message"),
    [
        (None, "raw_data", "does not exist"),
        (as_csv([(text, "positive") for text, _ in FIRST]), "fine_tuned_model", "label(s) negative have no example in the training split"),
        (as_csv(FIRST[:20]), "fine_tuned_model", "too few examples in split(s)"),
    ],
    ids=["no landing folder", "one class", "too few rows"],
)
def test_a_source_that_cannot_be_used_fails_with_one_message(
    tmp_path: Path, instance: dg.DagsterInstance, content: bytes | None, asset: str, message: str
) -> None:
    place = make_workplace(tmp_path, instance)
    if content is not None:
        place.land("a.csv", content)
    result = place.run()
    assert not result.success
    assert [event.step_key for event in result.all_events if event.is_step_failure] == [asset]
    assert message in failure_of(result)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"learning_rate": -1.0}, "learning_rate: found -1.0, Input should be greater than 0"), ({"epochs": 0}, "epochs: found 0")],
)
def test_run_config_out_of_bounds_is_one_message(
    trained: tuple[Workplace, dg.ExecuteInProcessResult], config: dict[str, Any], message: str
) -> None:
    result = trained[0].run(run_config={"ops": {"fine_tuned_model": {"config": config}}})
    assert message in failure_of(result)


def test_a_missing_base_model_says_where_it_was_looked_for(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, model={"base": "no/such model"})
    place.land("a.csv", as_csv(FIRST[:20]))
    assert "is not a folder" in failure_of(place.run())


def test_downstream_alone_needs_its_upstream(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance)
    assert "raw_data has never been materialized" in failure_of(_materialize(place, "cleaned_features", "rejected_rows"))


def test_a_second_pipeline_lives_beside_the_first(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    first = make_workplace(tmp_path, instance)
    second = make_workplace(
        tmp_path,
        instance,
        "moods",
        key_prefix=["other", "moods"],
        source={"uri": "moods", "settle_seconds": 0, "text_column": "body", "label_column": "mood"},
        cleaning={"labels": ["glad", "sad"]},
    )
    first.land("a.csv", as_csv(FIRST[:200]))
    second.land("b.csv", as_csv(examples(200, 7, ("sad", "glad"))).replace(b"text,label", b"body,mood"))
    both = dg.Definitions.merge(build(first), build(second), dg.Definitions(resources=first.definitions().resources))
    both.resolve_all_job_defs()
    assert first.run().success
    before = {asset: first.table(asset).version for asset in ASSETS if asset != "fine_tuned_model"}
    assert second.run().success
    assert {asset: first.table(asset).version for asset in before} == before
    assert set(second.rows("cleaned_features")["label"]) == {"glad", "sad"}


def test_files_that_are_the_test_split_are_evaluated_on_and_never_trained_on(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    split = {"test_files": ["**/test-*.csv", "tset.csv"], "validation_files": "dev.csv"}
    place = make_workplace(tmp_path, instance, split=split)
    train, dev, test, more = FIRST[:300], FIRST[300:350], FIRST[350:], SECOND
    place.land("train.csv", as_csv([*train, *test[:5]]))
    place.land("dev.csv", as_csv([*dev, test[5]]))
    place.land("official/test-1.csv", as_csv(test))
    shown = metadata(place.run(), "raw_data")
    assert (shown["files_of_test"], shown["files_of_validation"]) == ("official/test-1.csv; none matches tset.csv", "dev.csv")
    assert "files_named_like_splits" not in shown

    examples_of = place.rows("cleaned_features").group_by("source_file").agg(pl.col("split").unique(), n=pl.len()).sort("source_file")
    assert examples_of.rows() == [("dev.csv", ["validation"], 50), ("official/test-1.csv", ["test"], 50), ("train.csv", ["train"], 300)]
    reasons = place.rows("rejected_rows")["reason"].to_list()
    assert len(reasons) == 6
    assert all(reason.startswith("repeats official/test-1.csv line ") for reason in reasons)
    assert place.rows("eval_report")["n_examples"].to_list() == [50]

    place.land("official/test-2.csv", as_csv([train[0], more[0]]))
    result = place.run()
    assert {check.check_name for check in result.get_asset_check_evaluations() if not check.passed} == set()
    moved = place.rows("cleaned_features").filter(pl.col("source_file").str.ends_with("test-2.csv"))
    assert (len(moved), moved["split"].unique().to_list()) == (2, ["test"])
    assert place.rows("rejected_rows").filter(pl.col("source_file") == "train.csv", line_number=2)["reason"].to_list() == [
        f"repeats official/test-2.csv line 2 (row {moved.filter(pl.col('line_number') == 2)['row_id'].item()})"
    ]


def test_a_pattern_that_matches_no_file_is_named(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    place = make_workplace(tmp_path, instance, split={"test_files": "tset.csv"})
    place.land("train.csv", as_csv(FIRST[:200]))
    place.land("test.csv", as_csv(FIRST[200:]))
    result = place.run()
    assert "found train 3" in failure_of(result)
    assert "test 0, each needs at least 8 (split.min_examples); split.test_files is tset.csv: " in failure_of(result)
    assert metadata(result, "raw_data")["files_of_test"] == "none matches tset.csv"
    assert metadata(result, "raw_data")["files_named_like_splits"].startswith("test.csv: their examples are split as those of other files")


def build(place: Workplace) -> dg.Definitions:
    from trainpipe_assets.pipeline.component import build_pipeline

    return build_pipeline(place.name, place.settings)


CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({"source": {"uri": "words", "settle_seconds": 0, "schema_drift": "quarantine"}}, {"raw_data"}),
    ({"split": {"seed": 3}}, {"cleaned_features", "rejected_rows"}),
    ({"model": {"base": "tiny", "max_length": 16}}, {"tokenized_dataset", "fine_tuned_model"}),
    ({"training": {"epochs": 7}}, {"fine_tuned_model"}),
    ({"evaluation": {"bootstrap_samples": 123}}, {"eval_report"}),
    ({"drift": {"label_shift": 0.5}}, {"drift_report"}),
]


@pytest.mark.parametrize(("change", "about"), CHANGES)
def test_a_changed_setting_changes_the_code_version_of_what_it_is_about(
    tmp_path: Path, instance: dg.DagsterInstance, change: dict[str, Any], about: set[str]
) -> None:
    before, after = (code_versions(make_workplace(tmp_path, instance, **settings)) for settings in ({}, change))
    assert {name for name, version in after.items() if before[name] != version} == about
    assert set(before) == {*ASSETS, "rejected_rows", "drift_report"}


def code_versions(place: Workplace) -> dict[str, str | None]:
    return {
        key.to_user_string(): assets.code_versions_by_key[key]
        for assets in place.definitions().assets or ()
        if isinstance(assets, dg.AssetsDefinition)
        for key in assets.keys
    }
