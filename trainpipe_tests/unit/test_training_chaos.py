"""The short version of `make chaos-training`: a few kills at random instants, and the bytes of the training never killed."""

import subprocess
import sys


def test_trainings_killed_at_random_instants_come_to_the_bytes_of_the_one_never_killed() -> None:
    command = [sys.executable, "-m", "trainpipe_tests.training_chaos", "--kills", "3", "--seed", "5"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert "3 kills of trainings on 1 process(es)" in finished.stdout
