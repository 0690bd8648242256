"""A mistake in a `defs.yaml` or a variable, as `dagster` and `trainpipe` tell of it: one message that says where, and no traceback."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from trainpipe_tests.programs import BIN, REPOSITORY, inherited_environment

MATERIALIZE = ("dagster", "asset", "materialize", "-m", "trainpipe_assets.definitions", "--select", "raw_data")
STATUS = ("trainpipe", "status")
SECONDS = 300


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code, whose `defs` can be changed."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(REPOSITORY / "trainpipe_assets", root / "trainpipe_assets", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def said(project: Path, command: tuple[str, ...], **variables: str) -> str:
    """What a command that has to fail says of the mistake."""
    environment = {**inherited_environment(), "PYTHONPATH": str(project), "PYTHONWARNINGS": "ignore", **variables}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=project, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("line", "instead", "expected"),
    [
        ("  split:", "  splitt:", "there is no such key; did you mean split?"),
        ("    learning_rate:", "    learning_rat:", "there is no such key; did you mean learning_rate?"),
        ("    epochs: 1", "    epochs: -1", "found -1, Input should be greater than or equal to 1"),
        ('    schedule: "0 3', '    schedule: "61 3', "'61 3 * * *' is no cron expression that ever comes"),
        ("  task:", "  key_prefix: raw_data\n  task:", "'raw_data' cannot be part of a key_prefix"),
        ("    epochs: 1", "    epochs: {a: [", "expected ',' or ']'"),
        ("    text_column: text", '    text_column: "{{ nowhere.column }}"', "'nowhere' is undefined"),
    ],
)
@pytest.mark.parametrize("command", [MATERIALIZE, STATUS])
def test_a_mistake_in_a_pipeline_is_told_by_file_and_line(
    project: Path, command: tuple[str, ...], line: str, instead: str, expected: str
) -> None:
    path = project / "trainpipe_assets" / "defs" / "reviews" / "defs.yaml"
    written = path.read_text()
    number = 1 + next(index for index, text in enumerate(written.splitlines()) if text.startswith(line))
    path.write_text(written.replace(line, instead, 1))
    try:
        message = said(project, command)
    finally:
        path.write_text(written)
    where = "defs/reviews/defs.yaml"
    assert where in message
    assert str(number) in message.split(where, 1)[1][:12]  # ":9: ..." or '", line 9'
    assert expected in message


@pytest.mark.parametrize("command", [MATERIALIZE, STATUS])
def test_a_variable_with_a_bad_value_is_named(project: Path, command: tuple[str, ...]) -> None:
    message = said(project, command, TRAINPIPE_LAKE="gs://bucket/lake")
    assert message.splitlines()[-1].endswith("TRAINPIPE_LAKE: found 'gs://bucket/lake', it is neither a local folder nor an s3:// URI")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("selection", ["group:revews", "key:reviews/raw_data", "tag:nope"])
def test_a_selection_that_matches_nothing_does_nothing(project: Path, selection: str) -> None:
    message = said(project, (*MATERIALIZE[:-1], selection), TRAINPIPE_LAKE=str(project / "lake"))
    assert "the selection matches no asset, so nothing was done" in message
    assert not (project / "lake").exists()


def test_run_config_of_an_op_that_is_not_in_the_run_is_refused(project: Path) -> None:
    config = json.dumps({"ops": {"fine_tuned_modle": {"config": {"epochs": 2}}}})
    message = said(project, (*MATERIALIZE, "--config-json", config), TRAINPIPE_LAKE=str(project / "lake"))
    assert "the run config has ops.fine_tuned_modle, which is no op of this run; there are: raw_data" in message
    assert not (project / "lake").exists()


def test_a_device_that_does_not_exist_keeps_the_code_from_loading(project: Path) -> None:
    assert "TRAINPIPE_DEVICE: found 'tpu', Input should be 'auto', 'cpu', 'cuda' or 'mps'" in said(
        project, MATERIALIZE, TRAINPIPE_DEVICE="tpu"
    )
