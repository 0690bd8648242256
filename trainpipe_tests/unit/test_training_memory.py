"""Memory: what a training needs is known before, and where it runs out all the same the result stays."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from trainpipe_assets.training import cgroups, job, memory
from trainpipe_assets.training.distribution import Distribution
from trainpipe_assets.training.loop import Interrupted, run
from trainpipe_assets.training.memory import Need, available_bytes, fitting_micro_batch, measure_need
from trainpipe_assets.training.micro_batches import MicroBatch
from trainpipe_assets.training.spec import TrainSpec, save_spec
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.tasks.classification import Classification
from trainpipe_tests.unit.training_fixtures import make_rows, make_spec, write_dataset, write_tiny_base

NEED = Need(parameters=100, gradients=100, moments=200, activations_anyway=20, activations_each=10, longest=8)


@pytest.fixture(autouse=True)
def given_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be noted each time that a training decides to keep no freed memory: the process of the tests stays as it is."""
    noted: list[str] = []
    monkeypatch.setattr(job, "give_freed_memory_back", lambda: noted.append("given back"))
    return noted


class Layer(torch.nn.Module):
    """Keeps for the backward pass its input and the output of the sigmoid, and nothing else but its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 4)

    def forward(self, examples: int) -> torch.Tensor:
        return torch.sigmoid(self.linear(torch.ones(examples * 10, 16))).sum()


def test_the_need_is_counted_from_what_is_kept_for_the_backward_pass() -> None:
    layer = Layer()
    optimizer = torch.optim.AdamW(layer.parameters())
    weights = 4 * (16 * 4 + 4)
    need = measure_need(layer, optimizer, layer, longest=10)
    assert (need.parameters, need.gradients, need.moments) == (weights, weights, 2 * weights)
    assert (need.activations_anyway, need.activations_each) == (0, 4 * 10 * (16 + 4))
    layer(1).backward()
    optimizer.step()
    assert measure_need(layer, optimizer, layer, longest=10).moments == 0  # they are there by now


@pytest.mark.parametrize("asked", [None, 40, 16])
def test_what_fits_is_left_as_asked(asked: int | None) -> None:
    assert fitting_micro_batch(NEED, NEED.bytes_for((asked or 80) // 8), asked, batch_tokens=80) == asked


def test_what_does_not_fit_is_split_and_the_setting_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fitting_micro_batch(NEED, NEED.bytes_for(3) + 9, None, batch_tokens=80) == 24
    assert "training.micro_batch_tokens: 24" in caplog.text
    assert "the same effective batch" in caplog.text


def test_a_training_of_which_no_example_fits_is_refused_with_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"does not fit the memory: parameters .* gradients .* AdamW's moments .* lower model.max_length"):
        fitting_micro_batch(NEED, NEED.bytes_for(1) - 1, None, batch_tokens=80)


def test_processes_share_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "no control groups")
    cpu = torch.device("cpu")
    assert [available_bytes(cpu, processes) for processes in (1, 2)] == [4000 * 1024, 2000 * 1024]


def big_spec(root: Path, name: str) -> TrainSpec:
    """A training whose batches take some 50 MiB."""
    (root / name).mkdir()
    training = {"batch_tokens": 16_000, "epochs": 1, "learning_rate": 1e-3}
    spec = make_spec(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"), training=training)
    save_spec(spec, root / name / "spec.json")
    return spec


def losses(spec: TrainSpec) -> list[float]:
    """Of a training that is brought to its end here."""
    return [row["loss"] for row in run(spec, lambda _progress: None).record["history"]]


def test_memory_that_is_really_gone_splits_the_batch_once_and_stops_with_advice_the_second_time(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset", make_rows(train=4000))
    spec = big_spec(tmp_path, "tight")
    command = [sys.executable, "-m", "trainpipe_tests.tight_training", str(tmp_path / "tight" / "spec.json"), "1:30", "3:1"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    assert child.returncode == 2, child.stderr
    assert "tokens, with the same effective batch" in child.stderr
    assert "although the micro-batches were split at step" in child.stderr
    assert "set training.micro_batch_tokens to" in child.stderr
    assert "Traceback" not in child.stderr
    (checkpoint,) = Path(spec.work_dir).glob("step-*")
    state = json.loads((checkpoint / "state.json").read_text())["state"]
    assert state["step"] >= 3
    assert 0 < state["micro_batch_tokens"] < 16_000
    assert losses(spec) == pytest.approx(losses(big_spec(tmp_path, "roomy")), abs=1e-4)


def test_when_one_process_of_two_runs_out_of_memory_both_go_on_in_smaller_micro_batches(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset", make_rows(train=4000, validation=600))
    big_spec(tmp_path, "tight")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, "-m", "trainpipe_tests.tight_training", str(tmp_path / "tight" / "spec.json"), "1:15"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    assert child.returncode == 0, child.stderr
    assert "tokens, with the same effective batch" in child.stderr
    together = json.loads((tmp_path / "tight" / "model" / "training.json").read_text())
    alone = run(big_spec(tmp_path, "roomy"), lambda _progress: None).record
    assert [row["loss"] for row in together["history"]] == pytest.approx([row["loss"] for row in alone["history"]], abs=1e-4)
    assert together["validations"][0]["loss"] == pytest.approx(alone["validations"][0]["loss"], abs=1e-4)


def test_a_training_knows_before_its_first_step_that_a_batch_will_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, given_back: list[str]
) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset")
    training = {"batch_tokens": 512, "checkpoint_seconds": 3600}
    whole = losses(make_spec(tmp_path, output_dir=str(tmp_path / "whole"), training=training))
    assert given_back == []
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemAvailable: 1000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    with caplog.at_level(logging.WARNING):
        split = losses(make_spec(tmp_path, output_dir=str(tmp_path / "split"), training=training))
    assert "a batch does not fit the memory at once" in caplog.text
    assert "the memory is less than 5 times what the tensors take" in caplog.text
    assert given_back == ["given back"]
    assert split == pytest.approx(whole, abs=1e-3)
    meminfo.write_text("MemAvailable: 100 kB\n")
    with pytest.raises(ValueError, match=r"the training does not fit the memory: parameters 0\.1 MiB"):
        run(make_spec(tmp_path, output_dir=str(tmp_path / "refused")), lambda _progress: None)


class InStep(Distribution):
    """One process that behaves as if others waited for each of its passes."""

    in_step = True


def test_processes_in_step_end_when_memory_runs_out_and_go_on_in_smaller_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset")
    whole = losses(make_spec(tmp_path, output_dir=str(tmp_path / "whole")))
    compute_losses = Stepper._losses

    def limited(stepper: Stepper, inputs: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        if inputs.input_ids.numel() > 64:
            raise torch.OutOfMemoryError("no room")
        return compute_losses(stepper, inputs)

    monkeypatch.setattr(job, "distribution_of", lambda accelerator, _sharding: InStep(accelerator))
    monkeypatch.setattr(Stepper, "_losses", limited)
    spec = make_spec(tmp_path)
    with pytest.raises(Interrupted, match=r"do not fit the memory .* run again to go on from the last checkpoint in micro-batches of"):
        run(spec, lambda _progress: None)
    assert losses(spec) == pytest.approx(whole, abs=1e-4)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"lock"}


def test_processes_in_step_end_when_memory_runs_out_in_a_validation_and_go_on_in_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset")
    whole = losses(make_spec(tmp_path, output_dir=str(tmp_path / "whole")))
    compute_scores = Classification.score

    def limited(task: Classification, model: PreTrainedModel, inputs: MicroBatch) -> torch.Tensor:
        if inputs.input_ids.numel() > 128:
            raise torch.OutOfMemoryError("no room")
        return compute_scores(task, model, inputs)

    monkeypatch.setattr(job, "distribution_of", lambda accelerator, _sharding: InStep(accelerator))
    monkeypatch.setattr(Classification, "score", limited)
    spec = make_spec(tmp_path)
    with pytest.raises(Interrupted, match=r"of a validation, \d+ tokens, do not fit .* the last checkpoint in micro-batches of \d+ tokens"):
        run(spec, lambda _progress: None)
    assert losses(spec) == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("rooms", [("10000000", "1000"), ("1000", "10000000")])
def test_a_resumed_training_keeps_its_micro_batches_whatever_memory_is_there_by_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rooms: tuple[str, str], given_back: list[str]
) -> None:
    write_tiny_base(tmp_path / "base")  # with dropout: other micro-batches would draw other random numbers
    write_dataset(tmp_path / "dataset")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")

    def spec_of(name: str) -> TrainSpec:
        places = {"work_dir": str(tmp_path / name), "output_dir": str(tmp_path / f"{name} model")}
        return make_spec(tmp_path, **places, training={"batch_tokens": 512})

    before, after = (f"MemAvailable: {room} kB\n" for room in rooms)
    memory.MEMINFO.write_text(before)
    unkilled = run(spec_of("unkilled"), lambda _progress: None)
    with pytest.raises(Interrupted):
        run(spec_of("killed"), lambda _progress: None, lambda: True)
    memory.MEMINFO.write_text(after)
    given_back.clear()
    resumed = run(spec_of("killed"), lambda _progress: None)
    assert resumed.record["resumed_from_step"] == 1
    assert resumed.weights_sha256 == unkilled.weights_sha256
    assert bool(given_back) == (rooms[1] == "1000"), "what is there now decides whether freed memory is kept"


def test_a_training_under_way_goes_on_in_smaller_micro_batches_where_the_settings_ask_for_them(tmp_path: Path) -> None:
    write_tiny_base(tmp_path / "base", dropout=0.0)
    write_dataset(tmp_path / "dataset")
    whole = losses(make_spec(tmp_path, output_dir=str(tmp_path / "whole")))
    with pytest.raises(Interrupted):
        run(make_spec(tmp_path), lambda _progress: None, lambda: True)
    with pytest.raises(Interrupted):
        run(make_spec(tmp_path, training={"micro_batch_tokens": 64}), lambda _progress: None, lambda: True)
    state = json.loads((tmp_path / "work" / "step-000000002-0000" / "state.json").read_text())["state"]
    assert state["micro_batch_tokens"] == 64
    assert losses(make_spec(tmp_path)) == pytest.approx(whole, abs=1e-4)
