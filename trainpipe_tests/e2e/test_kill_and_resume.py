"""kill -9 in each stage, then the same command again: the tables and the model of the run that was never killed."""

import json
import shutil
from pathlib import Path

import pytest

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.programs import MATERIALIZE, TABLES, Installation, kill_when, trainings_of, wait_until
from trainpipe_tests.unit.training_fixtures import write_tiny_base

CONFIG = (
    "--config-json",
    json.dumps({"ops": {"fine_tuned_model": {"config": {"epochs": 4, "batch_tokens": 64, "checkpoint_seconds": 0.1}}}}),
)
CONTENT = as_csv([*examples(400, seed=3), ("w4 w5", "neutral"), *examples(400, seed=3)[:5]])

STAGES = {
    "ingest": "- raw_data - STEP_START",
    "cleaning": "- cleaned_features - STEP_START",
    "between the outputs of cleaning": 'Handled output "rejected_rows"',
    "tokenization": "- tokenized_dataset - STEP_START",
    "training": "fine_tuned_model - step 1/",
    "evaluation": "- eval_report - STEP_START",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder where a tiny base model stands in the place of the sample one."""
    folder = tmp_path_factory.mktemp("models")
    read_words(write_tiny_base(folder / "samples" / "all-MiniLM-L6-v2"))
    return folder


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Installation:
    place = Installation(tmp_path_factory.mktemp("never_killed"), models)
    place.land("words.csv", CONTENT)
    place.materialize(*CONFIG)
    return place


def _seen(stage: str, line: str, place: Installation) -> bool:
    """Whether a line of output says that `stage` is under way; in training, once there is a checkpoint to go on from."""
    if STAGES[stage] not in line:
        return False
    if stage == "training":
        wait_until(lambda: any((place.root / "scratch").glob("*/checkpoints/step-*")), 60, "the first checkpoint is written", pause=0.02)
    return True


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_is_made_good_by_the_next(stage: str, tmp_path: Path, models: Path, never_killed: Installation) -> None:
    place = Installation(tmp_path, models)
    place.land("words.csv", CONTENT)
    assert kill_when(place.start(*MATERIALIZE, *CONFIG), lambda line: _seen(stage, line, place)), (
        f"{stage} was over before it could be killed"
    )
    output = place.materialize(*CONFIG)
    for asset in TABLES:
        assert place.rows(asset).equals(never_killed.rows(asset)), asset
    weights = [installation.model_manifest()["files"]["model.safetensors"]["sha256"] for installation in (place, never_killed)]
    assert weights[0] == weights[1]
    if stage == "training":
        assert "going on after step" in output


def test_what_was_left_of_a_killed_training_stops_by_itself(tmp_path: Path, models: Path) -> None:
    place = Installation(tmp_path, models)
    place.land("words.csv", CONTENT)
    kill_when(place.start(*MATERIALIZE, *CONFIG), lambda line: _seen("training", line, place))
    wait_until(lambda: not trainings_of(place), 30, "the training process of a killed run ends")


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
