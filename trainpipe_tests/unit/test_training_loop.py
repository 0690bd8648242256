"""The whole training in process: it learns, resumes from every step to the same bits, stops early, keeps the best."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from trainpipe_assets.training import loop
from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.finished import FinishedModel
from trainpipe_assets.training.loop import Interrupted, run
from trainpipe_assets.training.model import label_names, load_trained
from trainpipe_assets.training.progress import Progress
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks.classification import CLASSIFICATION
from trainpipe_tests.unit.training_fixtures import LABELS, make_rows, make_spec, write_dataset, write_tiny_base


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_tiny_base(folder / "base")
    write_dataset(folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def unstopped(root: Path) -> FinishedModel:
    return run(spec_of(root, "unstopped"), ignore)


def spec_of(root: Path, name: str, **changes: Any) -> TrainSpec:
    return make_spec(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"), **changes)


def ignore(_progress: Progress) -> None:
    """A report to nobody."""


def without_time(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("timing", "efficiency", "hardware", "resumed_from_step")}


def test_the_finished_folder_is_a_model_that_has_learnt(unstopped: FinishedModel) -> None:
    record = json.loads((unstopped.folder / "training.json").read_text())
    assert record == unstopped.record
    assert record["best"]["accuracy"] > 0.7
    assert record["best"]["examples"] == 30
    assert record["validations"][-1]["epoch"] == 2
    assert not record["stopped_early"]
    assert record["resumed_from_step"] == 0
    assert record["timing"]["padding_fraction"] < 0.1
    assert label_names(load_trained(unstopped.folder)) == LABELS
    assert (unstopped.folder / "tokenizer.json").is_file()
    assert hashlib.sha256((unstopped.folder / "model.safetensors").read_bytes()).hexdigest() == unstopped.weights_sha256
    assert str(unstopped.folder.parent) not in (unstopped.folder / "config.json").read_text()


def test_each_step_is_in_the_history_and_reported(root: Path, unstopped: FinishedModel) -> None:
    reports: list[Progress] = []
    again = run(spec_of(root, "reported"), reports.append)
    history = again.record["history"]
    assert [row["step"] for row in history] == [report.record.step for report in reports] == list(range(1, len(history) + 1))
    assert [row["loss"] for row in history] == [report.record.loss for report in reports]
    assert set(history[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm"}
    assert reports[-1].total_steps == len(history)


def test_the_same_spec_gives_the_same_bytes_and_another_seed_others(root: Path, unstopped: FinishedModel) -> None:
    again = run(spec_of(root, "again"), ignore)
    assert again.weights_sha256 == unstopped.weights_sha256
    assert without_time(again.record) == without_time(unstopped.record)
    other = run(spec_of(root, "other", training={"seed": 1}), ignore)
    assert other.weights_sha256 != unstopped.weights_sha256


def test_stopped_at_many_steps_and_in_validations_it_ends_with_the_same_bits(root: Path, unstopped: FinishedModel) -> None:
    spec, stops, finished = spec_of(root, "stopped"), 0, None
    spent: list[float] = []
    while finished is None:
        answers = [False] * (1, 2, 3, 12)[stops % 4]  # the last one comes through a validation
        try:
            finished = run(spec, ignore, lambda answers=answers: answers.pop() if answers else True)
        except Interrupted:
            stops += 1
            spent.append(max(json.loads(path.read_text())["seconds"] for path in Path(spec.work_dir).glob("step-*/state.json")))
        assert stops < 100
    assert stops >= 10
    assert spent == sorted(spent)  # each adds to what was spent before it
    assert spent[-1] > spent[0] > 0
    assert finished.record["timing"]["earlier_seconds"] == spent[-1]
    assert finished.weights_sha256 == unstopped.weights_sha256
    assert without_time(finished.record) == without_time(unstopped.record)
    assert list(Path(spec.work_dir).glob("step-*")) == []


def test_a_fault_between_steps_loses_nothing_that_was_checkpointed(root: Path, unstopped: FinishedModel) -> None:
    spec = spec_of(root, "fault")

    def fail_once(progress: Progress) -> None:
        if progress.record.step == 7:
            raise ConnectionError("the power failed")

    with pytest.raises(ConnectionError):
        run(spec, fail_once)
    resumed = run(spec, ignore)
    assert resumed.record["resumed_from_step"] == 6
    assert resumed.weights_sha256 == unstopped.weights_sha256


def test_between_checkpoints_nothing_is_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[tuple[int, int]] = []
    save = Checkpoints.save

    def count(self: Checkpoints, state: Any, tensors: Any, seconds: float) -> None:
        saved.append((state.step, len(state.validations)))
        save(self, state, tensors, seconds)

    monkeypatch.setattr(Checkpoints, "save", count)
    finished = run(spec_of(root, "rare", training={"checkpoint_seconds": 3600}), ignore)
    assert saved == [(finished.record["validations"][0]["step"], 1)]


def test_micro_batches_train_the_same_model_within_rounding(root: Path, tmp_path: Path) -> None:
    base = str(write_tiny_base(tmp_path / "base", dropout=0.0))
    losses = []
    for name, micro_batch_tokens in (("whole", None), ("split", 64)):
        spec = spec_of(
            tmp_path, name, base_model=base, dataset_uri=str(root / "dataset"), training={"micro_batch_tokens": micro_batch_tokens}
        )
        losses.append([row["loss"] for row in run(spec, ignore).record["history"]])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_it_stops_early_and_the_best_model_is_the_one_that_is_kept(root: Path) -> None:
    training = {"epochs": 30, "learning_rate": 0.02, "schedule": "constant", "early_stopping_patience": 2, "checkpoint_seconds": 3600}
    finished = run(spec_of(root, "early", training=training), ignore)
    record = finished.record
    losses = [validation["loss"] for validation in record["validations"]]
    best = losses.index(min(losses))
    assert record["stopped_early"]
    assert len(losses) == best + 3 < 30
    assert record["best"] == record["validations"][best]
    assert validation_loss(root, finished) == pytest.approx(min(losses), abs=1e-6)
    assert min(losses) < losses[-1] - 1e-3


def validation_loss(root: Path, finished: FinishedModel) -> float:
    """The loss of the model in the finished folder on the validation split."""
    examples = CLASSIFICATION.load(make_spec(root), "validation")
    scores = loop.score(load_trained(finished.folder), examples, CLASSIFICATION.plan_scoring(examples, 256))
    return CLASSIFICATION.summarize(examples, scores, 0, 0).loss


def test_what_is_finished_is_not_trained_again(root: Path, unstopped: FinishedModel) -> None:
    reports: list[Progress] = []
    spec = spec_of(root, "unstopped")
    left = Path(spec.work_dir) / "step-000000009-0000"  # as a kill between the last write and the end leaves it
    left.mkdir()
    found = run(spec, reports.append)
    assert reports == []
    assert found == unstopped
    assert not left.exists()


def test_a_model_that_diverges_is_stopped_with_the_rows(root: Path) -> None:
    spec = spec_of(root, "diverging", training={"learning_rate": 1.0, "warmup_fraction": 0.0, "max_grad_norm": 1e38})
    shutil.copytree(root / "base", root / "huge")
    weights = load_file(root / "base" / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] *= 1e38
    save_file(weights, root / "huge" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"step 1: loss nan.*rows of the batch: row-\d+"):
        run(spec.model_copy(update={"base_model": str(root / "huge")}), ignore)


def test_checkpoints_of_other_examples_are_not_resumed(root: Path, tmp_path: Path) -> None:
    spec = spec_of(root, "changed")
    with pytest.raises(Interrupted):
        run(spec, ignore, lambda: True)
    other = str(write_dataset(tmp_path / "dataset", make_rows(seed=8)))
    with pytest.raises(ValueError, match="the examples are not the same"):
        run(spec.model_copy(update={"dataset_uri": other}), ignore)
