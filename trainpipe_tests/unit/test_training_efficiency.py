"""Where the time of a training goes: the phases add up, the verdict names what is slow, and the numbers are those of the formulas."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.crowding import Cores, describe_crowding
from trainpipe_assets.training.efficiency import describe_efficiency, in_short, matmul_rate, operations_per_token, verdict
from trainpipe_assets.training.loop import run
from trainpipe_assets.training.model import load_classifier
from trainpipe_assets.training.progress import periodic_log
from trainpipe_assets.training.step import Stepper
from trainpipe_assets.training.timeline import Phase, Timeline
from trainpipe_tests.unit.training_fixtures import LABELS, make_spec, write_dataset, write_tiny_base

ALONE = describe_crowding(own=2.0, everything=2.0, cores=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("efficiency")
    write_tiny_base(folder / "base")
    write_dataset(folder / "dataset")
    return folder


class Clock:
    """Seconds that pass only when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def phases(**seconds: float) -> dict[str, float]:
    return {**dict.fromkeys(Phase, 0.0), **seconds}


def test_each_instant_belongs_to_one_phase_and_a_phase_within_another_interrupts_it() -> None:
    clock = Clock()
    timeline = Timeline(clock)
    clock.now = 5.0
    timeline.enter(Phase.OTHER)
    with timeline.phase(Phase.VALIDATION):
        clock.now = 6.0
        with suppress(KeyError), timeline.phase(Phase.CHECKPOINT):
            clock.now = 8.5
            raise KeyError
        clock.now = 9.0
    clock.now = 10.0
    assert timeline.seconds() == phases(start=5.0, validation=1.5, checkpoint=2.5, other=1.0)
    assert sum(timeline.seconds().values()) == clock.now


class Queue:
    """A device that is behind the host: an event is known only once the device has come to it."""

    def __init__(self) -> None:
        self.host, self.passed = 0.0, 0.0

    def mark(self) -> float:
        return self.host

    def between(self, begin: float, end: float) -> float | None:
        return end - begin if end <= self.passed else None


def test_what_a_device_has_not_come_to_yet_is_counted_later_and_nothing_is_lost() -> None:
    device = Queue()
    timeline = Timeline(device.mark, device.between)
    for instant, phase in enumerate((Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER), start=1):
        device.host = float(instant)
        timeline.enter(phase)
    device.passed = 2.0
    assert timeline.seconds() == phases(start=1.0, forward=1.0)
    device.host = device.passed = 7.0
    assert timeline.seconds() == phases(start=1.0, forward=1.0, backward=1.0, optimizer=4.0)


def test_a_training_that_computes_says_so_and_how_well() -> None:
    said = verdict(phases(start=100.0, forward=30.0, backward=60.0, optimizer=6.0, data=4.0), 0.63, 103e9)
    assert said.startswith("compute-bound: 96% of the time in forward, backward and optimizer (31% forward, 62% backward, 6% optimizer)")
    assert said.endswith("at 63.0% of the 103 GFLOP/s that matrix products reach here")


@pytest.mark.parametrize(
    ("phase", "named", "advice"),
    [
        ("data", "the device waited 31% of the time for data", "TRAINPIPE_THREADS"),
        ("transfer", "the device waited 31% of the time for copies from the host", "training.batch_tokens"),
        ("communication", "the device waited 31% of the time for the other processes", "TRAINPIPE_PROCESSES"),
        ("validation", "validation took 31% of the time", "split.validation"),
        ("checkpoint", "the device waited 31% of the time for checkpoints", "training.checkpoint_seconds"),
        ("other", "Python around the steps took 31% of the time", "training.batch_tokens"),
    ],
)
def test_the_verdict_names_what_takes_long_and_what_to_try(phase: str, named: str, advice: str) -> None:
    found = phases(**{"start": 50.0, "forward": 30.0, "backward": 39.0, phase: 31.0})
    assert verdict(found, 0.5, 1e9).startswith(named)
    assert advice in verdict(found, 0.5, 1e9)
    assert in_short(found) == f"69% computing, 31% {phase}"


def test_a_process_that_took_no_step_claims_nothing() -> None:
    found = describe_efficiency(phases(start=3600.0), tokens=0, operations=6000, rate=1e9, price_per_hour=2.5, crowding=ALONE)
    assert found["verdict"] == "no step was taken by this process"
    assert found["model_flops_utilization"] == 0.0
    assert found["cost"] == 2.5


def test_utilization_is_that_of_the_steps_and_cost_that_of_everything() -> None:
    found = describe_efficiency(
        phases(start=10.0, forward=4.0, backward=6.0, validation=80.0),
        tokens=1000,
        operations=60_000,
        rate=6e7,
        price_per_hour=36.0,
        crowding=ALONE,
    )
    assert found["model_flops_per_second"] == 6.0 * 1000 * 10_000 / 10.0
    assert found["model_flops_utilization"] == pytest.approx(0.1)
    assert found["cost"] == pytest.approx(1.0)
    assert describe_efficiency(phases(forward=1.0), 1, 1, 1.0, None, ALONE)["cost"] is None
    assert describe_efficiency(phases(forward=1.0), 1, 1, 1.0, 36.0, ALONE, earlier=99.0)["cost"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("own", "everything", "said"),
    [
        (1.9, 1.95, None),  # all cores taken, by the training
        (1.1, 2.0, "other processes took 0.9 of this machine's 2 cores"),
        (0.5, 1.5, None),  # half a core was free
    ],
)
def test_other_work_on_the_machine_is_named_where_it_took_what_the_training_could_use(
    own: float, everything: float, said: str | None
) -> None:
    found = describe_efficiency(phases(forward=1.0), 1, 1, 1.0, None, describe_crowding(own, everything, cores=2))
    assert found["cores_used_by_others"] == pytest.approx(everything - own)
    assert (said is None) == ("other processes" not in found["verdict"])
    assert said is None or said in found["verdict"]


def test_the_cores_that_others_use_are_seen() -> None:
    cores = Cores()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            while psutil.Process(other.pid).cpu_times().user < 0.3:
                time.sleep(0.05)
        finally:
            other.kill()
    own, everything = cores.in_use()
    assert own < everything
    assert everything - own > 0.05


def test_the_operations_for_a_token_are_those_of_the_layers(root: Path) -> None:
    model = load_classifier(str(root / "base"), LABELS, 0)
    expected = sum(parameter.numel() for parameter in model.bert.encoder.parameters()) + 2 * 32  # the norm after the embeddings
    assert operations_per_token(model) == 6 * expected


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_s_output_layer_counts_whether_or_not_it_is_the_embedding(tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=tied
    )
    model = LlamaForCausalLM(config)
    layers = sum(parameter.numel() for parameter in model.model.layers.parameters()) + 8
    assert operations_per_token(model) == 6 * (layers + 50 * 8)
    model.requires_grad_(False)
    assert operations_per_token(model) == 4 * (layers + 50 * 8)


def test_the_rate_of_matrix_products_is_measured_once() -> None:
    arguments = torch.device("cpu"), torch.float32, torch.get_num_threads(), 0.01
    assert matmul_rate(*arguments) == matmul_rate(*arguments) > 1e8


def slowed(method: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def slow(*arguments: Any) -> Any:
        time.sleep(seconds)
        return method(*arguments)

    return slow


@pytest.mark.parametrize(
    ("owner", "method", "phase", "checkpoint_seconds", "said"),
    [
        (Stepper, "prepare", Phase.DATA, 3600, "% of the time for data: batches are made more slowly than they are computed"),
        (Checkpoints, "save", Phase.CHECKPOINT, 0, "% of the time for checkpoints: try a larger training.checkpoint_seconds"),
    ],
)
def test_what_is_slowed_on_purpose_is_named_and_the_phases_add_up_to_the_clock_on_the_wall(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: type,
    method: str,
    phase: str,
    checkpoint_seconds: int,
    said: str,
) -> None:
    monkeypatch.setattr(owner, method, slowed(getattr(owner, method), 0.1))
    training = {"epochs": 1, "checkpoint_seconds": checkpoint_seconds}
    spec = make_spec(root, work_dir=str(root / phase / "work"), output_dir=str(root / phase / "model"), training=training)
    lines: list[str] = []
    began = time.perf_counter()
    with caplog.at_level(logging.INFO, "trainpipe_assets"):
        record = run(spec, periodic_log(lines.append)).record
    wall, found = time.perf_counter() - began, record["efficiency"]
    assert said in found["verdict"]
    assert found["verdict"] in caplog.text
    assert f"% {phase}," in lines[-1]
    steps = len(record["history"])
    meanwhile = (
        sum(found["phases"].values()) - found["phases"][Phase.START] - found["phases"][phase]
    )  # the next batch is made while this one computes
    assert found["phases"][phase] + (meanwhile if phase == Phase.DATA else 0.0) >= 0.1 * steps
    assert record["timing"]["seconds"] == pytest.approx(sum(found["phases"].values()) - found["phases"][Phase.START])
    assert 0.5 * wall < sum(found["phases"].values()) <= wall
    assert all(found["phases"][name] > 0 for name in (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER, Phase.VALIDATION))
