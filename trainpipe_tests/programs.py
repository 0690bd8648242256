"""Dagster as a person starts it: real processes with a lake, a landing folder and an instance of their own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.storage.artifacts import list_artifacts
from trainpipe_assets.storage.delta import Table, find

REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TABLES = ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset", "eval_report")


def inherited_environment() -> dict[str, str]:
    """This process's variables without those that configure the product or Dagster."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TRAINPIPE_", "DAGSTER_"))}


@dataclass
class Installation:
    """The shipped pipeline `reviews` in a folder of its own, run by real commands."""

    root: Path
    models: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        home = self.root / "dagster_home"
        home.mkdir(parents=True, exist_ok=True)
        shipped = (REPOSITORY / "dagster.yaml").read_text()
        assert "python_log_level: INFO" in shipped
        (home / "dagster.yaml").write_text(shipped.replace("python_log_level: INFO", "python_log_level: DEBUG"))  # tests wait for events
        inherited = inherited_environment()
        self.environment = {
            **inherited,
            "DAGSTER_HOME": str(home),
            "TRAINPIPE_LAKE": str(self.root / "lake"),
            "TRAINPIPE_LANDING": str(self.root / "landing"),
            "TRAINPIPE_SCRATCH": str(self.root / "scratch"),
            "TRAINPIPE_MODELS": str(self.models),
            "TRAINPIPE_THREADS": "1",
            **self.environment,
        }

    @property
    def lake(self) -> Lake:
        """Where its tables and models are."""
        places = {place: self.environment[f"TRAINPIPE_{place.upper()}"] for place in ("landing", "scratch")}
        return Lake(root=self.environment["TRAINPIPE_LAKE"], models=str(self.models), **places)

    def land(self, name: str, content: bytes, age: float = 3600.0) -> Path:
        """Put a file into the landing folder of `reviews`, `age` seconds old."""
        path = self.root / "landing" / "reviews" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - age,) * 2)
        return path

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command of the environment, in a session of its own; its output is one stream."""
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def materialize(self, *options: str, timeout: float = 600.0) -> str:
        """Materialize everything as the README says; the output."""
        process = self.start(*MATERIALIZE, *options)
        try:
            output, _ = process.communicate(timeout=timeout)
        finally:
            stop(process)
        assert process.returncode == 0, output[-5000:]
        return output

    def run(self, *command: str, timeout: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=REPOSITORY,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """`trainpipe status --json` of the pipeline `reviews`."""
        done = self.run("trainpipe", "status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)["pipelines"]["reviews"]
        return found

    def table(self, asset: str) -> Table:
        """An asset's table as it stands."""
        table = find(self.lake.table_uri(dg.AssetKey(asset)))
        assert table is not None, f"{asset} has no table"
        return table

    def rows(self, asset: str) -> pl.DataFrame:
        """The rows of an asset's table in a fixed order, without what differs from run to run."""
        frame = self.table(asset).scan().collect()
        times = ("ingested_at", "file_version", "evaluated_at", "model_uri", "dataset_uri", "dataset_version", "report_uri")
        return frame.drop(*times, strict=False).sort(frame.columns[0])

    def model_manifest(self) -> Mapping[str, Any]:
        """The manifest of the only model."""
        (artifact,) = list_artifacts(self.lake.models_uri(dg.AssetKey("fine_tuned_model")))
        return artifact.manifest


MATERIALIZE = ("dagster", "asset", "materialize", "-m", "trainpipe_assets.definitions", "--select", "*")


def kill_when(process: subprocess.Popen[str], seen: Callable[[str], bool], timeout: float = 300.0) -> str:
    """Kill a process, as the kernel would, at the first line of output that `seen` accepts; what it printed until then.

    Raises:
        AssertionError: it ended by itself before, or the line did not come in time; nothing of it is left then.
    """
    assert process.stdout is not None
    overdue = threading.Timer(timeout, stop, [process])  # one that prints nothing is not waited for either
    overdue.start()
    printed: list[str] = []
    try:
        for line in process.stdout:
            printed.append(line)
            if seen(line):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return "".join(printed)
        raise AssertionError(f"it was over, or was stopped after {timeout:.0f} s, before it could be killed:\n{''.join(printed)[-5000:]}")
    finally:
        overdue.cancel()
        process.stdout.close()
        if process.returncode != -signal.SIGKILL:
            stop(process)


def trainings_of(place: Installation) -> list[str]:
    """Command lines of the training processes of an installation."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "trainpipe_assets.training" in command and str(place.root) in command:
            found.append(command)
    return found


def wait_until(condition: Callable[[], bool], timeout: float, what: str, pause: float = 0.5) -> None:
    """Look every `pause` seconds until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(pause)


def stop(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    for number, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
