"""What else the cores of this machine did during a training: a speed measured beside other work says little about the training.

Read from the counters of the operating system, before and after: nothing is done while the training runs.
"""

import time
from collections.abc import Mapping

import psutil

FULL, WORTH_SAYING = 0.9, 0.1
"""Shares of the machine's cores: from the first on they are all taken, from the second on what others take is worth a word."""

_IDLE = ("idle", "iowait")
_WITHIN_USER = ("guest", "guest_nice")  # Linux counts them twice


class Cores:
    """The cores of this machine in use since it was made, on average."""

    def __init__(self) -> None:
        self._since, self._machine, self._own = time.monotonic(), _machine_seconds(), time.process_time()

    def in_use(self) -> tuple[float, float]:
        """By this process, and by everything that runs here."""
        elapsed = max(time.monotonic() - self._since, 1e-9)
        return (time.process_time() - self._own) / elapsed, (_machine_seconds() - self._machine) / elapsed


def describe_crowding(own: float, everything: float, cores: int) -> dict[str, float]:
    """What `training.json` says of them.

    Args:
        own: cores that the training's processes used, all together.
        everything: cores that all processes of the machine used.
        cores: how many it has.
    """
    return {"cores": cores, "cores_used": own, "cores_used_by_others": max(everything - own, 0.0)}


def crowded(found: Mapping[str, float]) -> str | None:
    """That others took cores which the training could have used, in words; None where it had what it could use."""
    cores, others = found["cores"], found["cores_used_by_others"]
    if found["cores_used"] + others < FULL * cores or others < WORTH_SAYING * cores:
        return None
    return f"other processes took {others:.1f} of this machine's {cores:g} cores meanwhile: alone on it, this training would be faster"


def _machine_seconds() -> float:
    times = psutil.cpu_times()._asdict()
    return float(sum(seconds for kind, seconds in times.items() if kind not in _IDLE + _WITHIN_USER))
