"""Training in bf16: the same learning but for rounding, the same bits after a stop, and never half of it in another precision.

A CPU that does not compute bf16 natively emulates it, slowly but to the same end: these models are small enough.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from trainpipe_assets.training import compute, loop
from trainpipe_assets.training.finished import FinishedModel
from trainpipe_assets.training.loop import Interrupted
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_tests.unit.causal_fixtures import make_causal_spec
from trainpipe_tests.unit.training_fixtures import make_spec, write_dataset, write_tiny_base

ROUNDING = 0.05  # relative, of a step's loss: bf16 keeps 8 bits, and steps build on each other


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which `auto` is bf16."""
    monkeypatch.setattr(compute, "_has_native_bf16", lambda _device: True)


def run(spec: TrainSpec, stop: Callable[[], bool] = lambda: False) -> FinishedModel:
    """A training of its own, as in a process of its own: accelerate takes on one precision a process."""
    AcceleratorState._reset_state(True)
    try:
        return loop.run(spec, lambda _progress: None, stop)
    finally:
        AcceleratorState._reset_state(True)


def classifier(root: Path, name: str, precision: str) -> TrainSpec:
    if not (root / "base").exists():
        write_tiny_base(root / "base", dropout=0.0)
        write_dataset(root / "dataset")
    return make_spec(root, **places(root, name, precision))


def language_model(root: Path, name: str, precision: str) -> TrainSpec:
    return make_causal_spec(root, **places(root, name, precision))


def places(root: Path, name: str, precision: str) -> dict[str, Any]:
    chosen = {"device": "cpu", "precision": precision, "threads": 1}
    folders = {"work_dir": str(root / name / "work"), "output_dir": str(root / name / "model")}
    return {**folders, "compute": chosen, "training": {"learning_rate": 1e-3}}  # small steps: rounding grows little from one to the next


@pytest.mark.parametrize("make", [classifier, language_model])
def test_bf16_learns_as_float32_does_and_is_told_in_the_record(tmp_path: Path, make: Any) -> None:
    exact, rounded = (run(make(tmp_path, precision, precision)).record for precision in ("float32", "auto"))
    assert (exact["settings"]["compute"]["precision"], rounded["settings"]["compute"]["precision"]) == ("float32", "bf16")
    losses = [[row["loss"] for row in record["history"]] for record in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=ROUNDING)


def test_a_stopped_training_in_bf16_ends_with_the_same_bits_but_not_in_float32(tmp_path: Path) -> None:
    unstopped = run(classifier(tmp_path, "unstopped", "bf16"))
    answers = [False] * 5
    with pytest.raises(Interrupted):
        run(classifier(tmp_path, "stopped", "bf16"), lambda: not answers or answers.pop())
    with pytest.raises(ValueError, match=r"compute\.precision was 'bf16' and is 'float32'"):
        run(classifier(tmp_path, "stopped", "float32"))
    assert run(classifier(tmp_path, "stopped", "auto")).weights_sha256 == unstopped.weights_sha256
