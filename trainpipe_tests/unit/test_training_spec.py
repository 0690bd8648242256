"""The JSON contract: what it accepts, how it refuses, and what counts as another training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainpipe_assets.training.spec import load_spec, save_spec, spec_differences
from trainpipe_tests.unit.training_fixtures import make_spec


def test_a_spec_survives_its_file(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    save_spec(spec, tmp_path / "spec.json")
    assert load_spec(tmp_path / "spec.json") == spec


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"epochs": 0}}, r"training\.epochs.*greater than or equal to 1.*found 0"),
        ({"lerning_rate": 1}, "lerning_rate.*not permitted"),
        ({"labels": ["a", "a"]}, "labels repeat"),
        ({"labels": ["a"]}, "labels.*at least 2"),
        ({"work_dir": "s3://bucket/work"}, "s3://bucket/work.*not a local folder"),
    ],
)
def test_a_bad_spec_is_refused_in_one_line_that_names_the_key(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({**make_spec(tmp_path).model_dump(mode="json"), **change}))
    with pytest.raises(ValueError, match=said) as refused:
        load_spec(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.json cannot be read"):
        load_spec(tmp_path / "absent.json")
    (tmp_path / "torn.json").write_text('{"labels": [')
    with pytest.raises(ValueError, match=r"torn\.json is not valid"):
        load_spec(tmp_path / "torn.json")


def test_where_and_how_to_compute_do_not_make_another_training(tmp_path: Path) -> None:
    earlier = make_spec(tmp_path).model_dump(mode="json")
    compute = {"precision": "float32", "threads": 2}
    moved = make_spec(tmp_path, work_dir="/elsewhere", compute=compute, dataset_version=7, training={"checkpoint_seconds": 5})
    assert spec_differences(earlier, moved) == []


def test_what_is_learnt_and_how_does_and_is_named(tmp_path: Path) -> None:
    earlier = make_spec(tmp_path).model_dump(mode="json")
    other = make_spec(tmp_path, fingerprint="other", training={"learning_rate": 0.5})
    assert spec_differences(earlier, other) == ["fingerprint was 'tiny' and is 'other'", "training.learning_rate was 0.01 and is 0.5"]


def test_a_launcher_can_use_specs_without_torch() -> None:
    code = "import sys, trainpipe_assets.training.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
