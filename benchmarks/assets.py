"""The real graph in a real process: wall time and peak memory of each asset, and what a run costs when nothing is new."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from benchmarks.measurement import Measurement, Section, paired
from benchmarks.processes import Finished, Sample, run_python
from trainpipe_assets.data.landing import land
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.artifacts import list_artifacts

GRAPH, EMPTY_GRAPH = "trainpipe_assets.definitions", "benchmarks.empty_graph"
ASSETS = ("raw_data", "cleaned_features", "drift_report", "tokenized_dataset", "fine_tuned_model", "eval_report")
GRAPH_TIMEOUT, IDLE_TIMEOUT = 1800.0, 120.0
IDLE_PAIRS = 3
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Step:
    """One step of a run, by the event log of the Dagster instance; times are seconds since the epoch."""

    key: str
    started: float
    ended: float

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.ended - self.started

    def during(self, memory: Sequence[Sample]) -> list[Sample]:
        """The samples taken while the step ran; the nearest one where it was shorter than the polling."""
        within = [sample for sample in memory if self.started <= sample.at <= self.ended]
        return within or [min(memory, key=lambda sample: abs(sample.at - self.started))]


class Workplace:
    """A lake, a landing folder and a Dagster instance of their own, with the corpus landed and the graph run once."""

    def __init__(self, folder: Path, corpus: Path, models: Path, settings: PipelineSettings) -> None:
        self.home = folder / "dagster"
        self.home.mkdir(parents=True)
        (self.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        landing = folder / "landing"
        land([corpus], landing / settings.source.uri, settings.source)
        places = {"LAKE": folder / "lake", "LANDING": landing, "MODELS": models.absolute(), "SCRATCH": folder / "scratch"}
        self.environment: Mapping[str, str] = {
            **os.environ,
            **{f"TRAINPIPE_{name}": str(place) for name, place in places.items()},
            "DAGSTER_HOME": str(self.home),
        }
        self.first = self.materialize(GRAPH, GRAPH_TIMEOUT, watch_memory=True)
        self.steps = self._steps()

    def materialize(self, module: str, timeout: float, *, watch_memory: bool = False) -> Finished:
        """Materialize all assets of `module` as a user does."""
        arguments = ["-m", "dagster", "asset", "materialize", "-m", module, "--select", "*"]
        return run_python(arguments, self.environment, timeout, watch_memory=watch_memory)

    def training_speed(self) -> float:
        """Examples per second that the training of the first run reports of itself."""
        (model,) = list_artifacts(f"{self.environment['TRAINPIPE_LAKE']}/models/fine_tuned_model")
        return float(model.manifest["timing"]["examples_per_second"])

    def _steps(self) -> list[Step]:
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            (run,) = instance.get_runs()
            steps = [
                Step(found.step_key, found.start_time, found.end_time)
                for found in instance.get_run_step_stats(run.run_id)
                if found.start_time is not None and found.end_time is not None
            ]
        return sorted(steps, key=lambda step: step.started)


def measure_assets(place: Workplace) -> Section:
    """Time and memory of each asset in the first run, and of the checks between them."""
    before = [sample for sample in place.first.memory if sample.at < place.steps[0].started]
    checks = [step for step in place.steps if step.key not in ASSETS]
    measurements = [
        Measurement("first_run_seconds", "the whole command, from the start of Python to its end", place.first.seconds, "s"),
        Measurement("first_run_before_steps_memory", "memory before the first step", _mebibytes(before), "MiB"),
        Measurement("first_run_training_speed", "training speed within it", place.training_speed(), "examples/s"),
        Measurement("checks_seconds", f"all {len(checks)} checks, wall time", sum(step.seconds for step in checks), "s"),
    ]
    for step in (step for step in place.steps if step.key in ASSETS):
        during = step.during(place.first.memory)
        measurements.append(Measurement(f"{step.key}_seconds", f"`{step.key}`, wall time", step.seconds, "s"))
        measurements.append(Measurement(f"{step.key}_memory", f"`{step.key}`, peak memory", _mebibytes(during), "MiB"))
    return Section("The assets", _READING, measurements)


def measure_no_op(place: Workplace) -> Section:
    """Runs with nothing new in turn with runs of the empty graph, after one of each that does not count."""
    for module in (GRAPH, EMPTY_GRAPH):
        place.materialize(module, IDLE_TIMEOUT)
    pairs = [[place.materialize(module, IDLE_TIMEOUT).seconds for module in (GRAPH, EMPTY_GRAPH)] for _ in range(IDLE_PAIRS)]
    ours, empty = ([pair[side] for pair in pairs] for side in (0, 1))
    description = "a run with nothing new against a graph of five assets that do nothing"
    return Section("A run with nothing to do", _NO_OP_READING, [paired("no_op_run", description, ours, empty, "s")], _table(ours, empty))


def _mebibytes(samples: Sequence[Sample]) -> float:
    """The most memory among the samples."""
    return max(sample.bytes for sample in samples) / MEBIBYTE


def _table(ours: Sequence[float], empty: Sequence[float]) -> list[list[str]]:
    rows = [[str(number + 1), f"{one:.2f}", f"{other:.2f}"] for number, (one, other) in enumerate(zip(ours, empty, strict=True))]
    return [["pair", "nothing new, s", "empty graph, s"], *rows]


_READING = (
    "The first run of the shipped pipeline on the whole corpus, by `dagster asset materialize` with all steps in one process and training "
    "in a child of it. Times are those of Dagster's event log; `cleaned_features` makes `rejected_rows` along with itself. Memory is the "
    "resident memory of the process and all its children while the step ran, polled 20 times a second; memory that processes share counts "
    "for each of them, and what an earlier step left allocated counts for the later ones."
)
_NO_OP_READING = (
    "The same command again with nothing new in the landing folder, in turn with the same command for a graph of five assets without a "
    "body, in the same Dagster instance and with the same executor. Both include the start of Python and loading the definitions. The "
    "ratio is the median of the pairs' ratios."
)
