"""A training whose memory is really taken away: `python -m trainpipe_tests.tight_training SPEC.json STEP:MIB ...`.

After each STEP the process may hardly grow any further, and all that it holds beyond so many MIB is taken. Of several processes under
torchrun it is the last one's memory that is taken. The training itself is the real one.
"""

import os
import resource
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainpipe_assets.training import __main__ as program
from trainpipe_assets.training.complaint import Complaint
from trainpipe_assets.training.heap import keep_freed_memory
from trainpipe_assets.training.loop import run
from trainpipe_assets.training.micro_batches import PreparedBatch
from trainpipe_assets.training.progress import Progress
from trainpipe_assets.training.spec import load_spec
from trainpipe_assets.training.step import Stepper

BLOCK = 2**20
GROWTH = 4 * 2**20
"""Bytes by which the process may still grow, for what is not a tensor."""


class Thief:
    """Takes memory after certain steps; not while a batch is made ahead, which must not meet the moment in which there is none left."""

    def __init__(self, rooms: dict[int, int]) -> None:
        self.rooms = rooms
        self.taken: list[torch.Tensor] = []
        self.at_work = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        if progress.record.step in self.rooms:
            with self.at_work:
                self.leave(self.rooms[progress.record.step])

    def undisturbed(self, prepare: Callable[[Stepper, Any], PreparedBatch]) -> Callable[[Stepper, Any], PreparedBatch]:
        """`prepare`, which makes a batch in a thread of its own, never at the same time."""

        def waiting(stepper: Stepper, effective: Any) -> PreparedBatch:
            with self.at_work:
                return prepare(stepper, effective)

        return waiting

    def leave(self, mebibytes: int) -> None:
        """Leave so many MiB to be had."""
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held, resource.RLIM_INFINITY))
        try:
            while True:
                self.taken.append(torch.empty(BLOCK, dtype=torch.uint8))
        except RuntimeError:
            del self.taken[-mebibytes:]
        resource.setrlimit(resource.RLIMIT_DATA, (held + GROWTH, resource.RLIM_INFINITY))


def main() -> int:
    """Train; 0, or 2 with one line for what a person has to mend."""
    path, *rooms = sys.argv[1:]
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    robbed = {int(step): int(mebibytes) for step, mebibytes in (room.split(":") for room in rooms)}
    thief = Thief(robbed if rank == processes - 1 else {})
    Stepper.prepare = thief.undisturbed(Stepper.prepare)  # type: ignore[method-assign]
    program._start_logging(rank, None)
    keep_freed_memory()
    torch.backends.mkldnn.enabled = False  # it compiles code for each new shape, which fails without memory however small the batch is
    try:
        run(load_spec(Path(path)), thief, processes_here=processes)
    except ValueError as error:
        return program._complain(Complaint(str(error)), Path(path), 0, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
