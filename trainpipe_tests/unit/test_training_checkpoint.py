"""Checkpoints and finished folders: complete or ignored, two at most, and never another training's."""

import logging
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from trainpipe_assets.storage.artifacts import Artifact, download, read_manifest
from trainpipe_assets.storage.mirror import Mirror
from trainpipe_assets.training import checkpoint
from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.distribution import Distribution, Tensors
from trainpipe_assets.training.durable import exclusive, whole_folder
from trainpipe_assets.training.finished import find_finished
from trainpipe_assets.training.state import StepRecord, TrainingState, Validation
from trainpipe_tests.unit.training_fixtures import make_spec


class Trained:
    """A model and its optimizer after some steps."""

    def __init__(self, steps: int = 0) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        for _ in range(steps):
            self.step()

    @property
    def tensors(self) -> Tensors:
        """What a checkpoint keeps."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def step(self) -> None:
        self.model(torch.ones(1, 3)).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def validated(step: int, losses: list[float]) -> TrainingState:
    """The state at `step` after validations at steps 1, 2, ... that found `losses`."""
    found = [Validation(step=n, epoch=n, loss=loss, accuracy=0.5, macro_f1=0.5, examples=4) for n, loss in enumerate(losses, start=1)]
    return TrainingState(step=step, validations=found)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "work", make_spec(tmp_path), {"examples": "digest"})


def test_a_restored_training_goes_on_as_if_never_stopped(checkpoints: Checkpoints) -> None:
    stopped, unstopped, resumed = Trained(steps=3), Trained(steps=5), Trained()
    state = TrainingState(step=3, history=[StepRecord(step=3, epoch=1, loss=1 / 3, learning_rate=1e-4, grad_norm=0.1)])
    checkpoints.save(state, stopped.tensors, 1.0)
    assert checkpoints.newest() == state
    Distribution(Accelerator(cpu=True)).load(checkpoints.tensors(state.name), resumed.model, resumed.optimizer)
    resumed.step()
    resumed.step()
    assert torch.equal(resumed.model.weight, unstopped.model.weight)


def test_the_last_and_the_best_are_kept(checkpoints: Checkpoints) -> None:
    trained = Trained(steps=1)
    for count, losses in enumerate(([0.5], [0.5, 0.4], [0.5, 0.4, 0.6], [0.5, 0.4, 0.6, 0.7]), start=1):
        checkpoints.save(validated(count, losses), trained.tensors, 1.0)
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-000000002-0002", "step-000000004-0004"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    trained, best, last = Trained(steps=1), validated(1, [0.5]), validated(2, [0.5, 0.6])
    for state in (best, last):
        checkpoints.save(state, trained.tensors, 1.0)
    tensors, manifest = (checkpoints.folder / last.name / name for name in ("tensors.pt", "manifest.json"))
    content = tensors.read_bytes()
    if damage == "truncate":
        tensors.write_bytes(content[:-10])
    elif damage == "flip":
        tensors.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    elif damage == "remove":
        tensors.unlink()
    else:
        manifest.write_text("{")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest() == best
    assert f"{last.name} is not complete" in caplog.text


def test_a_checkpoint_without_its_best_model_is_no_use(checkpoints: Checkpoints) -> None:
    trained = Trained(steps=1)
    for state in (validated(1, [0.5]), validated(2, [0.5, 0.6])):
        checkpoints.save(state, trained.tensors, 1.0)
    (checkpoints.folder / "step-000000001-0001" / "tensors.pt").unlink()
    assert checkpoints.newest() is None


def test_the_best_model_of_another_machine_s_training_is_not_taken_for_this_one_s(checkpoints: Checkpoints) -> None:
    for state in (validated(1, [0.5]), validated(2, [0.5, 0.6])):
        checkpoints.save(state, Trained(steps=1).tensors, 1.0)
    theirs = Checkpoints(checkpoints.folder.with_name("theirs"), checkpoints.spec, checkpoints.given)
    theirs.save(validated(1, [0.4]), Trained(steps=2).tensors, 1.0)
    best = validated(1, [0.4]).name
    shutil.rmtree(checkpoints.folder / best)
    shutil.copytree(theirs.folder / best, checkpoints.folder / best)
    assert checkpoints.newest() == validated(1, [0.4])


def test_what_another_machine_sent_replaces_what_is_here_and_an_interrupted_fetch_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on(machine: str) -> Checkpoints:
        return Checkpoints(tmp_path / machine, make_spec(tmp_path), {"examples": "digest"}, Mirror(str(tmp_path / "mirror")))

    here, there = on("here"), on("there")
    replace(here, mirror=None).save(validated(1, [0.5]), Trained(steps=1).tensors, 1.0)
    for state in (validated(1, [0.4]), validated(2, [0.4, 0.6])):
        there.save(state, Trained(steps=2).tensors, 1.0)
        assert there.mirror is not None
        assert there.mirror.settle(60.0)
    fetched = []

    def interrupted(artifact: Artifact, folder: Path) -> None:
        if fetched:
            raise KeyboardInterrupt
        fetched.append(artifact.manifest["checkpoint"])
        download(artifact, folder)

    monkeypatch.setattr(checkpoint, "download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here.fetch()
    assert fetched == [validated(1, [0.4]).name], "the newest came before what it needs"
    monkeypatch.setattr(checkpoint, "download", download)
    here.fetch()
    newest = validated(2, [0.4, 0.6])
    assert here.newest() == newest
    assert torch.equal(here.tensors(newest.best_name)["model"]["weight"], Trained(steps=2).model.weight)


def test_a_copy_of_another_machine_s_checkpoint_is_replaced(tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "mirror"))
    for machine in ("one", "other"):
        kept = Checkpoints(tmp_path / machine, make_spec(tmp_path), {"examples": "digest"}, Mirror(mirror.uri))
        kept.save(validated(1, [0.5]), Trained(steps=len(machine)).tensors, 1.0)
        assert kept.mirror is not None
        assert kept.mirror.settle(60.0)
    (artifact,) = mirror.complete()
    assert artifact.manifest == read_manifest(str(tmp_path / "other" / validated(1, [0.5]).name)).manifest  # type: ignore[union-attr]


def test_checkpoints_of_another_training_are_refused_with_the_difference(tmp_path: Path, checkpoints: Checkpoints) -> None:
    trained = Trained(steps=1)
    checkpoints.save(TrainingState(step=1), trained.tensors, 1.0)
    other = Checkpoints(checkpoints.folder, make_spec(tmp_path, training={"seed": 9}), {"examples": "other digest"})
    with pytest.raises(ValueError, match=r"training\.seed was 0 and is 9; the examples are not the same"):
        other.newest()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "folder"

    def write_half() -> None:
        with whole_folder(place) as partial:
            (partial / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert not place.exists()
    with whole_folder(place) as partial:
        (partial / "file").write_text("whole")
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_one_training_at_a_time_in_a_work_folder(tmp_path: Path) -> None:
    who = f"another training is running in .*: process {os.getpid()} on {socket.gethostname()}; wait"
    for _ in range(2):
        with exclusive(tmp_path), pytest.raises(ValueError, match=who), exclusive(tmp_path):
            pass


def test_a_training_that_is_just_leaving_is_waited_for(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        with exclusive(tmp_path):
            waiting = pool.submit(enter, tmp_path)
        assert waiting.result(timeout=300) == "entered"


def enter(folder: Path) -> str:
    with exclusive(folder, patience=60.0):
        return "entered"


def test_an_output_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    spec = make_spec(tmp_path)
    assert find_finished(spec) is None
    output = Path(spec.output_dir)
    output.mkdir()
    with pytest.raises(ValueError, match="holds no finished training"):
        find_finished(spec)
    (output / "training.json").write_text('{"fingerprint": "older"}')
    with pytest.raises(ValueError, match="holds the training older, not tiny"):
        find_finished(spec)


def test_the_best_validation_is_the_earliest_of_the_smallest_loss_and_patience_counts_from_it() -> None:
    state = validated(4, [0.9, 0.5, 0.5, 0.6])
    assert state.best is not None
    assert state.best.step == 2
    assert state.patience_exhausted(2)
    assert not state.patience_exhausted(3)
    assert not TrainingState().patience_exhausted(1)


def test_a_long_history_is_thinned_and_keeps_its_ends() -> None:
    state = TrainingState()
    for step in range(1, 3502):
        state.record(StepRecord(step=step, epoch=1, loss=0.5, learning_rate=1e-4, grad_norm=1.0), 3501)
    steps = [record.step for record in state.history]
    assert len(steps) <= 1002
    assert (steps[0], steps[-1]) == (1, 3501)
