"""Checkpoints: all that a killed training needs to end with the bit-identical model.

Weights that learn, optimizer and `TrainingState` are saved. Frozen weights are not: they are the base model's. Nor is the state of random
generators: each step seeds them anew from seed, step and rank (`step.py`), and batches are functions of seed and epoch. A folder that is
not complete, or has changed since, is passed over.
"""

import json
import logging
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainpipe_assets.storage.artifacts import DamagedArtifact, download, is_whole, manifest_of, seal
from trainpipe_assets.storage.mirror import Mirror
from trainpipe_assets.training.distribution import Tensors
from trainpipe_assets.training.durable import PARTIAL, whole_folder
from trainpipe_assets.training.spec import TrainSpec, spec_differences
from trainpipe_assets.training.state import TrainingState

log = logging.getLogger(__name__)

TENSORS, STATE = "tensors.pt", "state.json"
BEST = "best_sha256"  # of the tensors of the best model's checkpoint: one of another machine's training may have the same name
SHRUNK = "shrunk.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training. `given` has a digest of each thing beside the spec that must be the same to go on, by its name;
    `mirror` is where they are kept as well, for another machine to go on from."""

    folder: Path
    spec: TrainSpec
    given: Mapping[str, str]
    mirror: Mirror | None = None

    def save(self, state: TrainingState, tensors: Tensors, seconds: float) -> None:
        """Save a checkpoint of `state` with `tensors`, reached in so many `seconds`, then remove all but it and the best one.

        The mirror follows when it can.
        """
        place = self.folder / state.name
        shutil.rmtree(place, ignore_errors=True)
        with whole_folder(place) as partial:
            _write(tensors, partial / TENSORS)
            described = {"state": state.model_dump(), "spec": self.spec.model_dump(mode="json"), "given": self.given, "seconds": seconds}
            described[BEST] = None if state.best_name == state.name else self._sha256(state.best_name)
            (partial / STATE).write_text(json.dumps(described), encoding="utf-8")
            seal(partial, {"checkpoint": state.name})
        kept = {state.best_name, state.name}
        if self.mirror is not None:
            self.mirror.keep([self.folder / name for name in sorted(kept)])
            kept |= self.mirror.held
        clear_checkpoints(self.folder, kept)

    def fetch(self) -> None:
        """Have here what the mirror holds, where that is newer: an earlier run of this training went further on another machine.

        The newest comes last, so that one that is interrupted is done again.

        Raises:
            S3Problem: S3 refuses, and why.
            ValueError: what is here belongs to another training; names what differs.
        """
        there = {str(artifact.manifest["checkpoint"]): artifact for artifact in (self.mirror.complete() if self.mirror else [])}
        here = self.newest() if there else None
        if not there or (here is not None and max(there) <= here.name):
            return
        for name in sorted(there):
            if is_whole(self.folder / name) and self._sha256(name) == there[name].manifest["files"][TENSORS]["sha256"]:
                continue
            log.info("checkpoint %s is fetched from %s", name, there[name].uri)
            shutil.rmtree(self.folder / name, ignore_errors=True)
            try:
                with whole_folder(self.folder / name) as partial:
                    download(there[name], partial)
            except DamagedArtifact as error:
                log.warning("passed over: %s", error)

    def newest(self) -> TrainingState | None:
        """The state of the newest complete checkpoint whose best model is there too; None where there is none.

        Raises:
            ValueError: it belongs to another training; names what differs.
        """
        for path in sorted(self._folders(), reverse=True):
            if not is_whole(path):
                log.warning("checkpoint %s is not complete and is passed over", path)
                continue
            described = json.loads((path / STATE).read_text(encoding="utf-8"))
            self._refuse_other_training(described)
            state = TrainingState.model_validate(described["state"])
            if state.best_name == state.name or self._has_best(state.best_name, described.get(BEST)):
                return state
            log.warning("checkpoint %s is passed over: that of its best model, %s, is not complete or another's", path, state.best_name)
        return None

    def _has_best(self, name: str, sha256: str | None) -> bool:
        return is_whole(self.folder / name) and (sha256 is None or sha256 == self._sha256(name))

    def _sha256(self, name: str) -> str:
        """That of the tensors of the checkpoint `name`, which is whole."""
        return str(manifest_of(self.folder / name)["files"][TENSORS]["sha256"])

    def seconds(self, name: str) -> float:
        """What it took all processes of this training, one after the other, to reach the checkpoint `name`."""
        return float(json.loads((self.folder / name / STATE).read_text(encoding="utf-8")).get("seconds", 0.0))

    def tensors(self, name: str) -> Tensors:
        """Those of the checkpoint `name`."""
        tensors: Tensors = torch.load(self.folder / name / TENSORS, map_location="cpu", weights_only=True)
        return tensors

    def note_shrunk(self, step: int, micro_batch_tokens: int) -> None:
        """Keep for the next start at which step memory ran out, and which micro-batches will do. Any process may note it."""
        noted = self.folder / f"{SHRUNK}.{os.getpid()}"
        noted.write_text(json.dumps([step, micro_batch_tokens]), encoding="utf-8")
        noted.replace(self.folder / SHRUNK)

    def shrunk(self) -> tuple[int, int] | tuple[None, None]:
        """What `note_shrunk` kept."""
        if not (self.folder / SHRUNK).exists():
            return None, None
        step, micro_batch_tokens = json.loads((self.folder / SHRUNK).read_text(encoding="utf-8"))
        return step, micro_batch_tokens

    def _folders(self) -> list[Path]:
        return [path for path in self.folder.glob("step-*") if not path.name.endswith(PARTIAL)]

    def _refuse_other_training(self, described: Mapping[str, Any]) -> None:
        differences = spec_differences(described["spec"], self.spec)
        differences += [
            f"the {name} are not the same" for name, digest in self.given.items() if described.get("given", {}).get(name) != digest
        ]
        if differences:
            advice = "go on with what it was started with, or empty that folder to train anew"
            raise ValueError(f"{self.folder} holds checkpoints of another training: {'; '.join(differences)}; {advice}")


def _write(tensors: Tensors, path: Path) -> None:
    """Through a file of Python's, which keeps what the disk refuses: torch's writer tells only that it could not end."""
    with path.open("wb") as file:
        try:
            torch.save(tensors, file)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def clear_checkpoints(folder: Path, kept: Collection[str] = ()) -> None:
    """Remove the checkpoints in `folder`, complete or not, but those of the names `kept`; without any, what was noted beside them too."""
    if not kept:
        (folder / SHRUNK).unlink(missing_ok=True)
    for path in folder.glob("step-*"):
        if path.name not in kept:
            shutil.rmtree(path)
