"""The maintenance job: what it leaves is the same pipeline, with nothing to do and with models that can still be traced."""

import os
import shutil
import time
from pathlib import Path

import dagster as dg
import pytest

from trainpipe_assets.pipeline.drift import CHECK
from trainpipe_assets.pipeline.keys import PipelineKeys
from trainpipe_assets.pipeline.maintenance import pinned_versions
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_assets.storage.delta import FIRST_COMMIT, find
from trainpipe_assets.storage.identity import as_hex
from trainpipe_assets.training.durable import exclusive
from trainpipe_assets.training.spec import save_spec
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import Workplace, failure_of, make_workplace
from trainpipe_tests.unit.training_fixtures import make_spec


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    with dg.DagsterInstance.ephemeral() as instance:
        yield make_workplace(tmp_path, instance)


def test_maintenance_changes_no_row_and_makes_no_work(place: Workplace) -> None:
    for number in range(3):
        place.land(f"{number}.csv", as_csv(examples(80, seed=number)))
        assert place.run("retrain" if number else "ingest").success
    before = {name: place.rows(name) for name in ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")}
    done = place.run("maintenance")
    assert done.success
    (event,) = [event for event in done.all_events if event.event_type_value == "STEP_OUTPUT"]
    table = event.event_specific_data.metadata["tables"].value
    assert "| raw_data | 3 | 1 | 0 |" in table
    for name, rows in before.items():
        assert place.rows(name).equals(rows), name
    pinned = pinned_versions(place.lake, PipelineKeys(place.settings.key_prefix), place.settings.task)
    assert {uri.rsplit("/", 1)[1] for uri in pinned} == {"cleaned_features", "tokenized_dataset"}
    assert all(find(uri, version) for uri, versions in pinned.items() for version in versions)
    again = place.run()
    assert again.success
    updates = [event.materialization.metadata.get("update") for event in again.get_asset_materialization_events()]
    assert {update.value for update in updates if update is not None} == {"nothing new"}


def test_of_a_table_that_was_made_anew_of_the_same_files_the_version_that_the_model_is_compared_by_is_pinned(place: Workplace) -> None:
    for number in range(2):
        place.land(f"{number}.csv", as_csv(examples(80, seed=number)))
        assert place.run("retrain" if number else "ingest").success
    (model,) = list_artifacts(place.lake.models_uri(dg.AssetKey("fine_tuned_model")))
    shutil.rmtree(place.table("cleaned_features").uri)
    again = place.run()
    assert again.success
    table = place.table("cleaned_features")
    assert model.manifest["lake"]["cleaned_features"]["table"] != as_hex(table.identity)
    assert table.version == FIRST_COMMIT
    (reason,) = [found.metadata["reason"].value for found in again.get_asset_check_evaluations() if found.check_name == CHECK]
    assert reason == "nothing has arrived that was not trained on or compared before"
    pinned = pinned_versions(place.lake, PipelineKeys(place.settings.key_prefix), place.settings.task)
    assert FIRST_COMMIT in pinned[table.uri]


def test_maintenance_of_a_pipeline_that_never_ran_does_nothing(place: Workplace) -> None:
    assert place.run("maintenance").success


def test_what_a_training_left_that_nobody_went_on_with_is_removed(place: Workplace) -> None:
    scratch, long_ago = Path(place.lake.scratch), time.time() - 3600 * (place.settings.maintenance.retention_hours + 1)
    for name, moment in (("a" * 32, long_ago), ("b" * 32, time.time()), ("mine", long_ago)):
        checkpoint = scratch / name / "checkpoints" / "step-1" / "state.pt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(b"weights")
        os.utime(checkpoint, (moment, moment))
    table = place.lake.table_uri(dg.AssetKey("tokenized_dataset"))
    for name, uri in (("c" * 32, table), ("d" * 32, table), ("e" * 32, table.replace("tokenized_dataset", "other/tokenized_dataset"))):
        work_dir = scratch / name / "checkpoints"
        work_dir.mkdir(parents=True)
        spec = make_spec(place.root, dataset_uri=uri, work_dir=str(work_dir))
        save_spec(spec, work_dir / "spec.json")
        (work_dir / "lock").touch()
        for path in work_dir.iterdir():
            os.utime(path, (long_ago, long_ago))
    with exclusive(scratch / ("d" * 32) / "checkpoints"):  # as a training that has not come to a checkpoint for long
        os.utime(scratch / ("d" * 32) / "checkpoints" / "lock", (long_ago, long_ago))
        assert place.run("maintenance").success
    assert {path.name for path in scratch.iterdir()} == {"b" * 32, "d" * 32, "e" * 32, "mine"}


def test_where_the_models_are_not_there_nothing_is_removed(place: Workplace) -> None:
    place.land("a.csv", as_csv(examples(80)))
    assert place.run().success
    models = Path(place.lake.models_uri(dg.AssetKey("fine_tuned_model")))
    models.rename(models.with_name("unmounted"))
    result = place.run("maintenance")
    assert f"1 model(s) were evaluated, but there is none in {models}" in failure_of(result)
    models.with_name("unmounted").rename(models)
    assert place.run("maintenance").success
