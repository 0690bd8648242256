"""Trainings that go wrong on purpose, each in its way: the warning says so, and a healthy one warns of nothing."""

import json
import logging
from pathlib import Path

import polars as pl
import pytest
import torch

from trainpipe_assets.training import loop
from trainpipe_assets.training.finished import FinishedModel
from trainpipe_assets.training.loop import Interrupted, run
from trainpipe_assets.training.optimizer import learning_rate
from trainpipe_assets.training.progress import Progress
from trainpipe_assets.training.state import StepRecord
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.symptoms import WINDOW, spike
from trainpipe_tests.unit.training_fixtures import make_rows, make_spec, write_dataset, write_tiny_base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("symptoms")
    write_tiny_base(folder / "base")
    write_dataset(folder / "dataset")
    return folder


def train(root: Path, name: str, dataset: Path | None = None, **training: object) -> FinishedModel:
    places = {"work_dir": str(root / name / "work"), "output_dir": str(root / name / "model")}
    settings = {"epochs": 1, "checkpoint_seconds": 3600, **training}
    return run(make_spec(root, **places, dataset_uri=str(dataset or root / "dataset"), training=settings), lambda _progress: None)


def test_a_healthy_training_warns_of_nothing(root: Path) -> None:
    assert train(root, "healthy", epochs=3, learning_rate=0.003).record["warnings"] == []


def test_a_learning_rate_that_moves_nothing_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "trainpipe_assets"):
        *_, warning = train(root, "dead", learning_rate=1e-9).record["warnings"]
    assert "the weights have changed by" in warning
    assert "raise training.learning_rate (1.0e-09)" in warning
    assert warning in caplog.text


def test_one_class_for_everything_is_named(root: Path, tmp_path: Path) -> None:
    one_sided = make_rows().with_columns(label_id=pl.when(pl.col("split") == "train").then(1).otherwise("label_id").cast(pl.Int32))
    warnings = train(root, "one class", write_dataset(tmp_path / "one-sided", one_sided)).record["warnings"]
    assert any("predicts 'positive' for all 30 validation examples, of which" in warning for warning in warnings)


def test_a_loss_that_jumps_is_named_and_survives_a_resumption(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "learning_rate", lambda settings, step, total: 3.0 if step == 40 else learning_rate(settings, step, total))
    places = {"work_dir": str(root / "spike" / "work"), "output_dir": str(root / "spike" / "model")}
    spec = make_spec(root, **places, training={"epochs": 6, "learning_rate": 0.003, "checkpoint_seconds": 3600})
    seen: list[int] = []

    def note(progress: Progress) -> None:
        seen.append(progress.record.step)

    with pytest.raises(Interrupted):
        run(spec, note, lambda: bool(seen) and seen[-1] >= 50)
    (checkpoint,) = [path for path in Path(spec.work_dir).glob("step-*") if path.name.startswith("step-000000050")]
    assert list(json.loads((checkpoint / "state.json").read_text())["state"]["warnings"]) == ["spike"]
    warnings = run(spec, note).record["warnings"]
    assert any("the loss jumped to" in warning and "lower training.learning_rate" in warning for warning in warnings)


def test_neither_the_noise_of_small_losses_nor_a_start_is_a_spike() -> None:
    def record(step: int, loss: float) -> StepRecord:
        return StepRecord(step=step, epoch=1, loss=loss, learning_rate=1e-4, grad_norm=1.0)

    history = [record(step, 0.7 / step) for step in range(1, 101)]
    assert spike(history[: WINDOW - 1], record(WINDOW, 50.0)) is None
    assert spike(history, record(101, 0.1)) is None
    assert "step 101: the loss jumped to 0.8" in str(spike(history, record(101, 0.8)))


def test_numbers_that_overflow_later_on_leave_the_last_good_checkpoint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"work_dir": str(root / "overflow" / "work"), "output_dir": str(root / "overflow" / "model")}
    spec = make_spec(root, **places)
    take = Stepper.take

    def poisoned(self: Stepper, batch: object, step: int, rate: float) -> object:
        handle = self.model.classifier.weight.register_hook(lambda gradient: gradient * (torch.inf if step == 7 else 1.0))
        try:
            return take(self, batch, step, rate)
        finally:
            handle.remove()

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take", poisoned)
        with pytest.raises(ValueError, match=r"step 7: loss .*the step was not applied.*rows of the batch: row-\d+"):
            run(spec, lambda _progress: None)
    assert [path.name for path in Path(spec.work_dir).glob("step-*")] == ["step-000000006-0000"]
    assert run(spec, lambda _progress: None).record["resumed_from_step"] == 6
