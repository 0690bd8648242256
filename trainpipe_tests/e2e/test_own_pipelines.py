"""Pipelines in a place of one's own: in any folder, and in a Dagster project beside other assets. Real commands on an installed package."""

import subprocess
from pathlib import Path

from trainpipe_tests.programs import BIN, inherited_environment

SECONDS = 300
PIPELINE = """
type: trainpipe_assets.TrainingPipeline

attributes:
  source: {uri: tickets, text_column: body, label_column: queue}
"""
DEFINITIONS = """
from pathlib import Path

import dagster as dg

from trainpipe_assets.definitions import shared


@dg.asset
def invoices() -> None: ...


@dg.definitions
def defs() -> dg.Definitions:
    return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=Path(__file__).parent), shared(), dg.Definitions([invoices]))
"""
PROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "company"
"""


def run(place: Path, *command: str, fails: bool = False, **variables: str) -> str:
    """What the command says, in `place`, which is also importable."""
    environment = {**inherited_environment(), "PYTHONPATH": str(place), "PYTHONWARNINGS": "ignore", **variables}
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=place, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_pipelines_lie_in_the_folder_that_a_variable_names(tmp_path: Path) -> None:
    write(tmp_path / "our pipelines" / "tickets" / "defs.yaml", PIPELINE)
    write(tmp_path / ".env", "TRAINPIPE_PIPELINES=our pipelines\n")
    write(tmp_path / "export.csv", "body,queue\nmy card was charged twice,billing\nit does not start,technical\n")
    assert "landed" in run(tmp_path, "trainpipe", "land", "export.csv")
    run(tmp_path, "dagster", "asset", "materialize", "-m", "trainpipe_assets.definitions", "--select", "raw_data")
    said = run(tmp_path, "trainpipe", "status")
    assert "tickets" in said
    assert "reviews" not in said
    write(tmp_path / "our pipelines" / "tickets" / "defs.yaml", PIPELINE.replace("label_column", "label_colum"))
    mistaken = run(tmp_path, "trainpipe", "status", fails=True)
    assert "our pipelines/tickets/defs.yaml:5: attributes.source.label_colum: there is no such key" in mistaken
    write(tmp_path / "hyphens" / "my-tickets" / "defs.yaml", PIPELINE)
    told = run(tmp_path, "trainpipe", "status", fails=True, TRAINPIPE_PIPELINES="hyphens")
    assert "a pipeline cannot be called 'my-tickets'" in told
    assert "rename the folder to 'my_tickets'" in told
    told = run(tmp_path, "trainpipe", "status", fails=True, TRAINPIPE_PIPELINES="nowhere")
    assert "TRAINPIPE_PIPELINES: found 'nowhere', which is no folder" in told
    assert "Traceback" not in told


def test_a_pipeline_lies_beside_the_other_assets_of_a_dagster_project(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", PROJECT)
    write(tmp_path / "company" / "__init__.py", "")
    write(tmp_path / "company" / "definitions.py", DEFINITIONS)
    write(tmp_path / "company" / "defs" / "__init__.py", "")
    write(tmp_path / "company" / "defs" / "tickets" / "defs.yaml", PIPELINE)
    write(tmp_path / "data" / "landing" / "tickets" / "export.csv", "body,queue\nmy card was charged twice,billing\n")
    said = run(tmp_path, "dagster", "asset", "materialize", "-m", "company.definitions", "--select", "raw_data,invoices")
    assert "RUN_SUCCESS" in said
    write(tmp_path / "company" / "defs" / "others.py", "from ..definitions import nothing_of_the_kind\n")  # no concern of the command's
    status = run(tmp_path, "trainpipe", "status", TRAINPIPE_PIPELINES="company/defs")
    assert "tickets" in status
    write(tmp_path / "company" / "defs" / "elsewhere" / "tickets" / "defs.yaml", PIPELINE)
    twice = run(tmp_path, "trainpipe", "status", fails=True, TRAINPIPE_PIPELINES="company/defs")
    assert "company/defs/elsewhere/tickets/defs.yaml and company/defs/tickets/defs.yaml have the same name, 'tickets'" in twice
    assert "Traceback" not in twice
