"""kill -9 at random instants through ingest, cleaning and tokenization: `python -m trainpipe_tests.chaos --kills 500`.

A place where files keep changing, a process that brings the tables up to it and is killed again and again, and every so often a run
that is let alone, whose tables must be those of one clean run. First on local disk, then on a real S3 server, half of the kills each.
Prints what it did; a row lost, doubled or changed ends it with an error.
"""

import argparse
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.uris import is_remote, open_filesystem
from trainpipe_tests.conftest import aws_environment
from trainpipe_tests.corpora import as_csv, examples
from trainpipe_tests.data_plane import DataPlane, put, run_and_tell
from trainpipe_tests.forks import forks
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.s3_server import S3Server, running_server
from trainpipe_tests.unit.training_fixtures import write_tiny_base

LONGEST_RUN_SECONDS = 120.0
KILLS_BETWEEN_CHECKS = 8
KILLS_A_LAKE = 50
FILE_NAMES = [f"part-{number}.csv" for number in range(6)]
_FORKS = forks()  # their imports would be most of a short run


@dataclass
class Run:
    """A process that brings the tables up to the landed files."""

    plane: DataPlane
    environment: Mapping[str, str]

    def __post_init__(self) -> None:
        self._told, told = _FORKS.Pipe(duplex=False)
        self.process = _FORKS.Process(target=run_and_tell, args=(self.plane, dict(self.environment), told))
        self.process.start()
        told.close()
        assert self._told.recv() == "ready"
        self.began = time.monotonic()

    def kill_after(self, seconds: float) -> None:
        """Kill it, as the kernel would, where it is not over before."""
        self.process.join(seconds)
        self.process.kill()

    def told(self) -> list[str]:
        """What it told until it ended: the tables whose commits it saw, and "done"."""
        found = []
        try:
            while self._told.poll(LONGEST_RUN_SECONDS):
                found.append(self._told.recv())
        except EOFError:
            self.process.join(LONGEST_RUN_SECONDS)
            assert self.process.exitcode in (0, -signal.SIGKILL), f"a run ended with exit code {self.process.exitcode}"
            return found
        self.process.kill()
        raise AssertionError(f"a run did not end within {LONGEST_RUN_SECONDS:.0f} s; it told {found}")


@dataclass
class Chaos:
    """One lake under fire. `reference` is where clean runs put their tables, `environment` what a run needs for S3."""

    plane: DataPlane
    reference: str
    random: random.Random
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.4  # about how long an undisturbed run takes: kills fall within it
    fell: Counter[str] = field(default_factory=Counter)
    checks: int = 0

    def run(self, kills: int) -> None:
        """Kill so many runs; check now and then, and at the end."""
        self._change_files()
        self._finish_and_check()
        while self.fell.total() < kills:
            killed = self._kill_at_random()
            if self.random.random() < 0.5:
                self._change_files()
            if killed and (self.fell.total() % KILLS_BETWEEN_CHECKS == 0 or self.fell.total() == kills):
                self._finish_and_check()

    def _change_files(self) -> None:
        name = self.random.choice(FILE_NAMES)
        landed = {file.path for file in list_landed(str(self.plane.landing), SourceSettings())}
        if name in landed and len(landed) > 1 and self.random.random() < 0.2:
            filesystem, folder = open_filesystem(str(self.plane.landing))
            filesystem.rm_file(f"{folder}/{name}")
            return
        rows = examples(self.random.randint(1, 400), seed=self.random.randrange(50))
        self._land(name, as_csv([*rows, *rows[:3], ("w5", "neutral"), ("", "positive")]))

    def _land(self, name: str, content: bytes) -> None:
        landing = str(self.plane.landing)
        if is_remote(landing):
            filesystem, folder = open_filesystem(landing)
            filesystem.pipe_file(f"{folder}/{name}", content)
        else:
            put(Path(landing) / name, content)

    def _kill_at_random(self) -> bool:
        """Whether a run was killed before it was over."""
        run = Run(self.plane, self.environment)
        run.kill_after(self.random.uniform(0.0, self.seconds))
        told = run.told()
        if "done" in told:
            return False
        self.fell[f"after the commit of {told[-1]}" if told else "before the first commit"] += 1
        return True

    def _finish_and_check(self) -> None:
        run = Run(self.plane, self.environment)
        told = run.told()
        assert told[-1:] == ["done"], f"the run that was let alone told {told}"
        self.seconds = time.monotonic() - run.began
        self.checks += 1
        self.plane.check_conservation()
        clean = self.plane.elsewhere(f"{self.reference}/{self.checks}")
        clean.run()
        self.plane.check_equal(clean)

    def report(self, place: str) -> str:
        """What was done and where the kills fell."""
        lines = [f"{place}: {self.fell.total()} kills, {self.checks} comparisons with a clean run, no row lost, doubled or changed"]
        return "\n".join([*lines, *(f"  {count:5} fell {instant}" for instant, count in self.fell.most_common())])


def bombard(root: Path, kills: int, seed: int, server: S3Server | None = None) -> Chaos:
    """A lake and a landing folder under `root`, or in a new bucket of `server`, that live through so many kills."""
    read_words(write_tiny_base(root / "base"))
    (root / "landing").mkdir()
    if server is None:
        plane, environment = DataPlane(str(root / "lake"), root / "landing", root / "base"), {}
    else:
        bucket = server.make_bucket(f"chaos-{seed}-{time.time_ns()}")
        plane, environment = DataPlane(f"{bucket}/lake", f"{bucket}/landing", root / "base"), server.environment
    chaos = Chaos(plane, str(root / "reference"), random.Random(seed), environment)
    chaos.run(kills)
    return chaos


def main() -> None:
    """Parse, bombard, tell."""
    parser = argparse.ArgumentParser("python -m trainpipe_tests.chaos", description="Kill runs at random instants and look for lost rows.")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--place", choices=["local", "s3", "both"], default="both")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpipe-chaos-") as name:
        local = {"local": options.kills, "s3": 0, "both": options.kills // 2}[options.place]
        _bombard_lakes(Path(name) / "local", local, options.seed)
        if options.kills > local:
            with running_server(Path(name) / "server") as server, aws_environment(server.environment):
                _bombard_lakes(Path(name) / "s3", options.kills - local, options.seed, server)
    print(f"{options.kills} kills in {time.monotonic() - began:,.0f} s")


def _bombard_lakes(folder: Path, kills: int, seed: int, server: S3Server | None = None) -> None:
    """One lake after the other: a table of hundreds of versions is slow to open, and kills fall on first commits too."""
    for number, first in enumerate(range(0, kills, KILLS_A_LAKE)):
        root = folder / str(number)
        root.mkdir(parents=True)
        chaos = bombard(root, min(KILLS_A_LAKE, kills - first), seed * 1000 + number, server)
        print(chaos.report(f"lake {number} on {'S3 (SeaweedFS)' if server else 'local disk'}"), flush=True)


if __name__ == "__main__":
    main()
