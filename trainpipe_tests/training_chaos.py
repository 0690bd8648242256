"""kill -9 at random instants of a training: `python -m trainpipe_tests.training_chaos --kills 100 --processes 2 --sharding full`.

A training is killed and started again until it ends, and must then have made the very bytes of one that was never killed; then the next.
Each run is a fork of this process, which has imported everything and computed nothing, so that a kill costs no imports. The processes of
one training meet as torchrun lets them, by its environment, and a survivor is treated as torchrun treats it: SIGTERM, then SIGKILL.
"""

import argparse
import json
import mmap
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainpipe_assets.training import __main__ as program
from trainpipe_assets.training import loop
from trainpipe_assets.training.checkpoint import Checkpoints
from trainpipe_assets.training.spec import TrainSpec, save_spec
from trainpipe_assets.training.step import Stepper
from trainpipe_tests.unit.causal_fixtures import make_causal_spec, make_documents, write_tiny_language_model
from trainpipe_tests.unit.training_fixtures import make_rows, make_spec, write_dataset, write_tiny_base

LONGEST_RUN_SECONDS = 300.0
GRACE_SECONDS = 30.0
AIMED = 0.6  # share of the kills that wait for a place of `PLACES`; the others fall at any instant
PLACES: tuple[tuple[str, Any, str], ...] = (
    ("while loading", loop, "prepare"),
    ("within a step", Stepper, "take"),
    ("within a validation", loop, "_validate"),
    ("within the write of a checkpoint", Checkpoints, "save"),
    ("within the write of the finished model", loop, "write_finished"),
)
ELSEWHERE = "elsewhere"


class Places:
    """Where a training is, told by itself through memory shared with whoever kills it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    @property
    def current(self) -> str:
        """The innermost place."""
        return (ELSEWHERE, *(name for name, _, _ in PLACES))[self._memory[0]]

    def clear(self) -> None:
        """Nowhere, before the next run."""
        self._memory[0] = 0

    def watch(self) -> None:
        """Have this process tell; the functions do what they did."""
        for number, (_, owner, name) in enumerate(PLACES, start=1):
            setattr(owner, name, self._told(getattr(owner, name), number))

    def _told(self, function: Callable[..., Any], number: int) -> Callable[..., Any]:
        def telling(*arguments: Any) -> Any:
            before, self._memory[0] = self._memory[0], number
            try:
                return function(*arguments)
            finally:
                self._memory[0] = before

        return telling


@dataclass
class Chaos:
    """Trainings under fire in the folder `root`, each on so many processes."""

    root: Path
    processes: int
    sharding: str
    lora: bool
    epochs: int
    random: random.Random
    places: Places = field(default_factory=Places)
    fell: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    seconds: float = 0.0

    def run(self, kills: int) -> None:
        """Kill so often, and compare each training that ends with the one that was never killed."""
        assert _wait_for(_fork(self._write_inputs)) == 0
        began = time.monotonic()
        reference = self._result(self._left_alone("reference"))
        self.seconds = time.monotonic() - began
        while self.fell.total() < kills:
            spec = self._spec(f"training-{self.finished}")
            while self._killed(spec) and self.fell.total() < kills:
                pass
            assert self._result(self._left_alone(Path(spec.work_dir).parent.name)) == reference, f"{spec.output_dir} differs"
            self.finished += 1
            print(f"{self.fell.total()} kills, {self.finished} trainings compared", file=sys.stderr)

    def _write_inputs(self) -> None:
        if self.lora:
            write_tiny_language_model(self.root / "base")
            write_dataset(self.root / "dataset", make_documents(train=60, validation=200))
        else:
            write_tiny_base(self.root / "base")
            write_dataset(self.root / "dataset", make_rows(train=120, validation=600))

    def _spec(self, name: str) -> TrainSpec:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        compute = {"device": "cpu", "precision": "float32", "threads": 1, "processes": self.processes, "sharding": self.sharding}
        places = {"work_dir": str(folder / "work"), "output_dir": str(folder / "model")}
        chosen = {**places, "compute": compute, "training": {"epochs": self.epochs}}
        adapters = {"lora": {"rank": 4, "dropout": 0.1}}
        spec = make_causal_spec(self.root, **chosen, model=adapters) if self.lora else make_spec(self.root, **chosen)
        save_spec(spec, folder / "spec.json")
        return spec

    def _killed(self, spec: TrainSpec) -> bool:
        """Start the training and kill it at random; whether it was killed before it ended by itself.

        A process on its way out gives its memory back first: it is there still, but a signal comes too late.
        """
        running = self._start(spec)
        victims = self.random.choice([running, *([one] for one in running)])
        where = self._wait_for_the_instant(running)
        if where is None:
            codes = [_wait_for(one) for one in running]
            assert set(codes) == {0}, self._said(spec, codes)
            return False
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        for survivor in set(running) - set(victims):
            _end(survivor)
        codes = {_wait_for(victim) for victim in victims}
        assert codes <= {0, -signal.SIGKILL}, self._said(spec, sorted(codes))
        if codes == {0}:
            return False
        self.fell[where] += 1
        return True

    def _wait_for_the_instant(self, running: list[int]) -> str | None:
        """Where the main process is when it is time to kill; None if a process ends before."""
        target = self.random.choice([name for name, _, _ in PLACES]) if self.random.random() < AIMED else None
        instant = time.monotonic() + self.random.uniform(0.0, self.seconds)
        while True:
            if any(_ended(one) for one in running):
                return None
            where = self.places.current
            if time.monotonic() >= instant and target in (None, where):
                time.sleep(self.random.uniform(0.0, 0.005))
                return None if any(_ended(one) for one in running) else self.places.current
            time.sleep(0.0005)

    def _left_alone(self, name: str) -> TrainSpec:
        spec = self._spec(name)
        codes = [_wait_for(one) for one in self._start(spec)]
        assert set(codes) == {0}, self._said(spec, codes)
        return spec

    def _start(self, spec: TrainSpec) -> list[int]:
        self.places.clear()
        port = _free_port()
        return [_fork(lambda rank=rank: self._train(spec, rank, port)) for rank in range(self.processes)]

    def _train(self, spec: TrainSpec, rank: int, port: int) -> None:
        """What each process of a training does."""
        folder = Path(spec.output_dir).parent
        said = os.open(folder / f"said-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if self.processes > 1:
            count = str(self.processes)
            os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
        if rank == 0:
            self.places.watch()
        sys.exit(program.main([str(folder / "spec.json")]))

    def _result(self, spec: TrainSpec) -> dict[str, Any]:
        """What must not depend on how often a training was killed."""
        folder = Path(spec.output_dir)
        record = json.loads((folder / "training.json").read_text())
        assert not list(Path(spec.work_dir).glob("step-*")), "checkpoints are left"
        names = ("history", "validations", "best", "stopped_early", "warnings")
        return {"weights": (folder / "model.safetensors").read_bytes(), **{name: record.get(name) for name in names}}

    def _said(self, spec: TrainSpec, codes: list[int]) -> str:
        words = [path.read_text(errors="replace")[-3000:] for path in sorted(Path(spec.output_dir).parent.glob("said-*"))]
        return "\n".join([f"exit codes {codes}", *words])


def _fork(work: Callable[[], None]) -> int:
    """A child process that does `work` and ends; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:  # noqa: BLE001  # a child must end here, whatever happens
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _wait_for(child: int, seconds: float = LONGEST_RUN_SECONDS) -> int:
    """The exit code of `child`, or the signal that ended it, negative. Kills it after so many seconds."""
    deadline = time.monotonic() + seconds
    while not _ended(child):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _end(survivor: int) -> None:
    """End a process whose fellow was killed, as torchrun does."""
    os.kill(survivor, signal.SIGTERM)
    _wait_for(survivor, GRACE_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Parse, bombard, tell."""
    parser = argparse.ArgumentParser("python -m trainpipe_tests.training_chaos", description="Kill trainings, compare what they come to.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sharding", choices=("none", "full"), default="none")
    parser.add_argument("--lora", action="store_true", help="adapters of a language model instead of a classifier")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpipe-chaos-") as folder:
        chaos = Chaos(Path(folder), options.processes, options.sharding, options.lora, options.epochs, random.Random(options.seed))
        chaos.run(options.kills)
    on = f"{options.processes} process(es), sharding {options.sharding}{', adapters' if options.lora else ''}"
    ended = f"{chaos.finished} of them brought to their end in {time.monotonic() - began:,.0f} s"
    print(f"{options.kills} kills of trainings on {on}, {ended}: the bytes of the training never killed")
    for instant, count in chaos.fell.most_common():
        print(f"  {count:5} fell {instant}")


if __name__ == "__main__":
    main()
