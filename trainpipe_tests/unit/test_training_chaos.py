"""The short version of `make chaos-training`: a few kills at random instants, and the bytes of the training never killed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("processes", "sharding", "epochs", "kills", "what"), [(1, "none", 3, 3, []), (2, "full", 1, 1, ["--lora"])])
def test_trainings_killed_at_random_instants_come_to_the_bytes_of_the_one_never_killed(
    processes: int, sharding: str, epochs: int, kills: int, what: list[str]
) -> None:
    chosen = ["--processes", str(processes), "--sharding", sharding, "--epochs", str(epochs), "--kills", str(kills), "--seed", "5", *what]
    command = [sys.executable, "-m", "trainpipe_tests.training_chaos", *chosen]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=550, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert f"{kills} kills of trainings on {processes} process(es), sharding {sharding}" in finished.stdout
