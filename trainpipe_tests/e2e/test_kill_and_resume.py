"""kill -9 in one stage after the other, each time the same command again: the tables and the model of the run that was never killed."""

import json
import shutil
from pathlib import Path

import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import write_stand_in
from trainpipe_tests.programs import MATERIALIZE, TABLES, Installation, kill_when, trainings_of, wait_until

CONFIG = (
    "--config-json",
    json.dumps({"ops": {"fine_tuned_model": {"config": {"epochs": 4, "batch_tokens": 64, "checkpoint_seconds": 0.1}}}}),
)
CONTENT = as_csv([*examples(400, seed=3), ("w4 w5", "neutral"), *examples(400, seed=3)[:5]])

GOES_ON = "going on after step"  # said by a training that found a checkpoint
KILLS = (  # where, the line of output that says so, and the table that the runs before must have made good by then
    ("ingest", "- raw_data - STEP_START", None),
    ("cleaning", "- cleaned_features - STEP_START", "raw_data"),
    ("between the outputs of cleaning", 'Handled output "rejected_rows"', "rejected_rows"),
    ("tokenization", "- tokenized_dataset - STEP_START", "cleaned_features"),
    ("training", "fine_tuned_model - step 1/", "tokenized_dataset"),
    ("training that goes on", GOES_ON, "tokenized_dataset"),
    ("evaluation", "- eval_report - STEP_START", "tokenized_dataset"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder where a tiny base model stands in the place of the sample one."""
    folder = tmp_path_factory.mktemp("models")
    write_stand_in(folder)
    return folder


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Installation:
    place = Installation(tmp_path_factory.mktemp("never_killed"), models)
    place.land("words.csv", CONTENT)
    place.materialize(*CONFIG)
    return place


def _is_reached(where: str, sign: str, line: str, place: Installation) -> bool:
    """Whether a line of output says that a run is there; in training, once there is a checkpoint to go on from."""
    if sign not in line:
        return False
    if where == "training":
        checkpoints = (place.root / "scratch").glob
        wait_until(lambda: any(checkpoints("*/checkpoints/step-*[0-9]")), 120, "the first checkpoint is written", pause=0.02)
    return True


@pytest.mark.timeout(1800)
def test_runs_killed_in_every_stage_are_made_good_by_the_next(tmp_path: Path, models: Path, never_killed: Installation) -> None:
    place = Installation(tmp_path, models)
    place.land("words.csv", CONTENT)
    said = {}
    for where, sign, made in KILLS:
        said[where] = kill_when(place.start(*MATERIALIZE, *CONFIG), lambda line, at=(where, sign): _is_reached(*at, line, place))
        if made is not None:
            assert place.rows(made).equals(never_killed.rows(made)), f"{made} was not made good before the kill in {where}"
        if where == "training":
            wait_until(lambda: not trainings_of(place), 60, "what was left of a killed training stops by itself")
    said["the last run"] = place.materialize(*CONFIG)
    for asset in TABLES:
        assert place.rows(asset).equals(never_killed.rows(asset)), asset
    weights = [installation.model_manifest()["files"]["model.safetensors"]["sha256"] for installation in (place, never_killed)]
    assert weights[0] == weights[1]
    assert [where for where, output in said.items() if GOES_ON in output] == ["training that goes on", "evaluation"]
    assert "this very training made" in said["the last run"]


def test_a_half_written_model_folder_is_never_taken_for_a_model(tmp_path: Path, models: Path, never_killed: Installation) -> None:
    place = Installation(tmp_path, models)
    place.land("words.csv", CONTENT)
    fingerprint = never_killed.model_manifest()["fingerprint"]
    torn = tmp_path / "lake" / "models" / "fine_tuned_model" / fingerprint
    source = never_killed.root / "lake" / "models" / "fine_tuned_model" / fingerprint
    shutil.copytree(source, torn, ignore=shutil.ignore_patterns("manifest.json", "*.safetensors"))
    place.materialize(*CONFIG)
    assert _files_but_the_record(place) == _files_but_the_record(never_killed)


def _files_but_the_record(place: Installation) -> dict[str, dict[str, object]]:
    """What the manifest says of each file of the model; without `training.json`, which holds the time that the training took."""
    return {name: entry for name, entry in place.model_manifest()["files"].items() if name != "training.json"}
