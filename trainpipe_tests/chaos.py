"""kill -9 at random instants through ingest, cleaning and tokenization: `python -m trainpipe_tests.chaos --kills 500`.

A folder of files that keeps changing, a process that brings the tables up to it and is killed again and again, and every so often a run
that is let alone, whose tables must be those of one clean run. Prints what it did; a row lost, doubled or changed ends it with an error.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.data_plane import DataPlane, put, write_spec
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.unit.training_fixtures import write_tiny_base

LONGEST_RUN_SECONDS = 120.0
KILLS_BETWEEN_CHECKS = 8
FILE_NAMES = [f"part-{number}.csv" for number in range(6)]


@dataclass
class Chaos:
    """One lake under fire. `reference` is where clean runs put their tables."""

    plane: DataPlane
    reference: str
    random: random.Random
    spec: Path
    seconds: float = 0.4  # about how long an undisturbed run takes: kills fall within it
    fell: Counter[str] = field(default_factory=Counter)
    checks: int = 0

    def run(self, kills: int) -> None:
        """Kill so many runs; check now and then, and at the end."""
        waiting = self._start()
        self._change_files()
        while self.fell.total() < kills:
            current, waiting = waiting, self._start()  # the next process imports while this one works
            killed = self._kill_at_random(current)
            if self.random.random() < 0.5:
                self._change_files()
            if killed and (self.fell.total() % KILLS_BETWEEN_CHECKS == 0 or self.fell.total() == kills):
                current, waiting = waiting, self._start()
                self._finish_and_check(current)
        _end(waiting)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "trainpipe_tests.data_plane", str(write_spec(self.plane, self.spec))]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)

    def _change_files(self) -> None:
        name = self.plane.landing / self.random.choice(FILE_NAMES)
        if name.exists() and self.random.random() < 0.2:
            name.unlink()
            if any(self.plane.landing.iterdir()):
                return
        rows = examples(self.random.randint(1, 400), seed=self.random.randrange(50))
        put(name, as_csv([*rows, *rows[:3], ("w5", "neutral"), ("", "positive")]))

    def _kill_at_random(self, process: subprocess.Popen[str]) -> bool:
        """Whether the process was killed before its run was over."""
        _go(process)
        try:
            process.wait(self.random.uniform(0.0, self.seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=LONGEST_RUN_SECONDS)
        assert process.returncode in (0, -signal.SIGKILL), f"a run ended with exit code {process.returncode}"
        if process.returncode == 0 or "done" in said:
            return False
        lines = said.split()
        self.fell[f"after the commit of {lines[-1]}" if lines else "before the first commit"] += 1
        return True

    def _finish_and_check(self, process: subprocess.Popen[str]) -> None:
        _go(process)
        began = time.monotonic()
        said, _ = process.communicate(timeout=LONGEST_RUN_SECONDS)
        assert process.returncode == 0, f"the run that was let alone ended with exit code {process.returncode}"
        assert said.split()[-1] == "done", said
        self.seconds = time.monotonic() - began
        self.checks += 1
        self.plane.check_conservation()
        clean = self.plane.elsewhere(f"{self.reference}/{self.checks}")
        clean.run()
        self.plane.check_equal(clean)


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()  # "ready"
    process.stdin.write("go\n")
    process.stdin.flush()


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=LONGEST_RUN_SECONDS)


def bombard(root: Path, kills: int, seed: int, lake: str | None = None) -> Chaos:
    """A lake under `root`, or at `lake`, that lives through so many kills."""
    read_words(write_tiny_base(root / "base"))
    landing = root / "landing"
    landing.mkdir()
    plane = DataPlane(lake or str(root / "lake"), landing, root / "base")
    chaos = Chaos(plane, str(root / "reference"), random.Random(seed), root / "spec.json")
    chaos.run(kills)
    return chaos


def main() -> None:
    """Parse, bombard, tell."""
    parser = argparse.ArgumentParser("python -m trainpipe_tests.chaos", description="Kill runs at random instants and look for lost rows.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpipe-chaos-") as folder:
        chaos = bombard(Path(folder), options.kills, options.seed)
    print(f"{options.kills} kills and {chaos.checks} comparisons with a clean run in {time.monotonic() - began:,.0f} s: no row lost")
    for instant, count in chaos.fell.most_common():
        print(f"  {count:5} fell {instant}")


if __name__ == "__main__":
    main()
