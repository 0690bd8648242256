"""A training that goes on laid out otherwise than it began, one process or two with a share of the model each, has the same loss curve."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainpipe_assets.training import distribution
from trainpipe_assets.training.loop import Interrupted, run
from trainpipe_assets.training.progress import Progress
from trainpipe_assets.training.spec import TrainSpec, save_spec
from trainpipe_tests import training_forks
from trainpipe_tests.unit.causal_fixtures import make_causal_spec
from trainpipe_tests.unit.training_fixtures import make_spec, write_dataset, write_tiny_base

PATIENCE_SECONDS = 400
STOPPED = 128 + signal.SIGTERM
SHARED = {"processes": 2, "sharding": "full"}


def classifier(root: Path, **changes: Any) -> TrainSpec:
    if not (root / "base").exists():
        write_tiny_base(root / "base", dropout=0.0)  # processes draw their own random numbers
        write_dataset(root / "dataset")
    return make_spec(root, **changes)


def adapters(root: Path, **changes: Any) -> TrainSpec:
    return make_causal_spec(root, model={"lora": {"rank": 4}}, **changes)


def spec_of(root: Path, make: Callable[..., TrainSpec], name: str, **compute: Any) -> TrainSpec:
    chosen = {"device": "cpu", "precision": "float32", "threads": 1, **compute}
    return make(root, work_dir=str(root / name / "work"), output_dir=str(root / name / "model"), compute=chosen)


def ignore(_progress: Progress) -> None:
    """A report to nobody."""


def start_two(spec: TrainSpec) -> list[subprocess.Popen[str]]:
    """Both processes of the training, which meet as torchrun lets them: by their environment."""
    path = Path(spec.output_dir).parent / "spec.json"
    path.parent.mkdir(exist_ok=True)
    save_spec(spec, path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command, pipe = training_forks.command(sys.executable, [str(path)]), subprocess.PIPE
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    return [subprocess.Popen(command, env={**os.environ, **meeting, **rank}, stderr=pipe, text=True) for rank in ranks]


def ends_of(processes: list[subprocess.Popen[str]]) -> list[int]:
    said = [process.communicate(timeout=PATIENCE_SECONDS)[1] for process in processes]
    assert {process.returncode for process in processes} <= {0, STOPPED}, said
    return [process.returncode for process in processes]


def stop_two(spec: TrainSpec, step: int) -> None:
    """Have both stop once there is a checkpoint of `step` or a later one."""
    processes, deadline = start_two(spec), time.monotonic() + PATIENCE_SECONDS
    while not any(path.name >= f"step-{step:09d}" for path in Path(spec.work_dir).glob("step-*[0-9]")):
        assert time.monotonic() < deadline
        assert {process.poll() for process in processes} == {None}, ends_of(processes)
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert ends_of(processes) == [STOPPED, STOPPED]


@pytest.mark.parametrize("make", [classifier, adapters])
def test_a_training_goes_on_with_shares_and_without(tmp_path: Path, make: Callable[..., TrainSpec]) -> None:
    unstopped = run(spec_of(tmp_path, make, "unstopped"), ignore).record
    steps: list[Progress] = []
    with pytest.raises(Interrupted):
        run(spec_of(tmp_path, make, "into shares"), steps.append, lambda: len(steps) == 3)
    assert ends_of(start_two(spec_of(tmp_path, make, "into shares", **SHARED))) == [0, 0]
    into = run(spec_of(tmp_path, make, "into shares"), ignore).record  # finished already: read
    stop_two(spec_of(tmp_path, make, "out of shares", **SHARED), 3)
    out = run(spec_of(tmp_path, make, "out of shares"), ignore).record
    assert (into["distribution"]["sharding"], out["distribution"]["sharding"]) == ("full", "none")
    for record in (into, out):
        assert record["resumed_from_step"] >= 3
        for measure in ("step", "learning_rate", "loss", "grad_norm"):
            found, expected = ([row[measure] for row in one["history"]] for one in (record, unstopped))
            assert found == pytest.approx(expected, rel=1e-3), measure
        assert record["best"]["loss"] == pytest.approx(unstopped["best"]["loss"], rel=1e-3)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_shares_of_any_height_come_to_the_whole(rows: int, processes: int) -> None:
    whole = torch.arange(rows * 3, dtype=torch.bfloat16).view(rows, 3)
    height = -(-rows // processes)
    shares = [whole[rank * height : (rank + 1) * height] for rank in range(processes)]
    sent = [distribution._padded(share, height).flatten().view(torch.uint8) for share in shares]
    assert len({len(part) for part in sent}) == 1
    joined = distribution._joined(sent, whole)
    assert torch.equal(joined, whole)
    assert joined.untyped_storage().nbytes() == whole.nbytes


def test_a_message_holds_many_tensors_or_one_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "MESSAGE_BYTES", 40)
    tensors: list[Any] = [torch.empty(count) for count in (1, 4, 5, 6, 20, 1, 2)]
    assert [[len(one) for one in message] for message in distribution._messages(tensors)] == [[1, 4, 5], [6], [20], [1, 2]]
    assert list(distribution._messages([])) == []
