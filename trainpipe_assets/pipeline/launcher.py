"""The compute that training gets, and how the training program is started on it.

A launcher takes a `TrainSpec` and gives back the folder of the finished model. This one starts a child process on this machine through
Dagster Pipes, so that whatever kills the training never takes the orchestrator with it.
"""

import json
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from pydantic import Field, field_validator

from trainpipe_assets.settings import ComputeSettings
from trainpipe_assets.storage.artifacts import Artifact, read_file
from trainpipe_assets.storage.s3_problems import S3Unreachable
from trainpipe_assets.storage.uris import is_remote
from trainpipe_assets.training.complaint import Complaint, taken
from trainpipe_assets.training.spec import GRACE_SECONDS, TrainSpec, save_spec


class Launcher(ComputeSettings, dg.ConfigurableResource, ABC):  # type: ignore[type-arg]  # generic only for typed resource values
    """Runs a training to its end somewhere, on the compute of its settings; subclasses say where."""

    scratch: str = Field(default="data/scratch", description="Local folder for checkpoints of trainings under way.")

    @field_validator("scratch")
    @classmethod
    def _local_folder(cls, folder: str) -> str:
        if is_remote(folder):
            raise ValueError(f"{folder!r} is not a local folder; checkpoints are written to local disk, correct TRAINPIPE_SCRATCH")
        return folder

    @property
    def compute(self) -> ComputeSettings:
        """The compute as plain settings."""
        return ComputeSettings.model_validate({name: getattr(self, name) for name in ComputeSettings.model_fields})

    def work_dir(self, fingerprint: str) -> Path:
        """The scratch folder of one training: its identity, so that a killed one is found again."""
        return Path(self.scratch).absolute() / fingerprint

    @abstractmethod
    def train(self, context: dg.AssetExecutionContext, spec: TrainSpec) -> Path:
        """Train, or go on with a training that was killed; the finished model folder.

        Raises:
            ValueError: the training program says what a person has to mend.
            dagster.Failure: it ended otherwise; tried again, it goes on from its last checkpoint.
        """


class LocalLauncher(Launcher):
    """Training as a child process of this machine, under torchrun when there are several processes."""

    def train(self, context: dg.AssetExecutionContext, spec: TrainSpec) -> Path:
        """See `Launcher.train`."""
        output = Path(spec.output_dir)
        if (output / "training.json").is_file():
            context.log.info("this training had already finished; its model only has to be published")
            return output
        path = Path(spec.work_dir) / "spec.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_spec(spec, path)
        taken(path)  # what an earlier one left
        with dg.open_pipes_session(
            context=context, context_injector=dg.PipesEnvContextInjector(), message_reader=dg.PipesTempFileMessageReader()
        ) as session:
            code = _run_to_end(self._command(path), {**os.environ, **session.get_bootstrap_env_vars()})
        reported: list[Mapping[str, Any]] = [message for message in session.get_custom_messages() if isinstance(message, Mapping)]
        said = [Complaint(**message) for message in reported if "message" in message]
        _require_success(code, next(iter(said), None) or taken(path), reported, output, self.processes)
        return output

    def _command(self, spec: Path) -> list[str]:
        program = [str(spec), "--stop-with-parent"]
        if self.processes == 1:
            return [sys.executable, "-m", "trainpipe_assets.training", *program]
        return [sys.executable, "-m", "trainpipe_assets.training.ranks", str(self.processes), *program]


HINTS: Mapping[int, str] = {
    signal.SIGKILL: " (by hand, or because memory ran out: then set a lower training.micro_batch_tokens)",
    signal.SIGABRT: " (as libraries do that are refused memory: see the end of the run's stderr, and ulimit -a)",
}
"""What may have been the reason for a signal that ended a training."""


def _run_to_end(command: list[str], environment: Mapping[str, str]) -> int:
    """Exit code of the command. Its stdin stays open as long as this process lives, which is how the child notices that it died."""
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, start_new_session=True)
    try:
        return process.wait()
    finally:
        if process.poll() is None:  # a cancelled run comes through here
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask for a stop, and kill what is left after the time for it: torchrun's ranks, too, which are in sessions of their own."""
    launched = psutil.Process(process.pid)
    family = [launched, *launched.children(recursive=True)]
    os.killpg(process.pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=GRACE_SECONDS)
    for one in alive:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _require_success(code: int, complaint: Complaint | None, reported: list[Mapping[str, Any]], output: Path, processes: int) -> None:
    if complaint is not None:
        raise (S3Unreachable if complaint.may_pass else ValueError)(complaint.message)
    interrupted = next((str(message["interrupted"]) for message in reported if "interrupted" in message), None)
    if interrupted is not None:
        raise dg.Failure(description=interrupted)
    who = "the training process" if processes == 1 else f"one of the {processes} training processes"
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        name = signal.Signals(number).name if number in signal.valid_signals() else str(number)
        hint = HINTS.get(number, "")
        raise dg.Failure(description=f"{who} was ended by {name}{hint}; run again to go on from its last checkpoint")
    if code != 0:
        raise dg.Failure(description=f"{who} failed with exit code {code}; its traceback is in the run's stderr")
    if not any("output_dir" in message for message in reported) or not (output / "training.json").is_file():
        raise dg.Failure(
            description=f"the training process ended without reporting a model in {output}; look into the run's stdout and stderr"
        )


def read_training_record(model: Path | Artifact) -> dict[str, Any]:
    """What the training program says of a finished training, of a folder of its or a published model: history, timing, hardware."""
    content = read_file(model, "training.json") if isinstance(model, Artifact) else (model / "training.json").read_bytes()
    record: dict[str, Any] = json.loads(content)
    return record
