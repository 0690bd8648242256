"""Where the time of a training goes: each instant belongs to exactly one phase, so that the phases add up to the whole.

On a GPU the marks between phases are events in its own queue of work, which costs no waiting: a phase's time is then that of the device,
and includes what it stood still for the host.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum, auto
from typing import Any

import torch


class Phase(StrEnum):
    """What the time of a training is spent on."""

    START = auto()
    """Everything before the first batch is asked for."""
    DATA = auto()
    TRANSFER = auto()
    FORWARD = auto()
    BACKWARD = auto()
    OPTIMIZER = auto()
    COMMUNICATION = auto()
    VALIDATION = auto()
    CHECKPOINT = auto()
    OTHER = auto()
    """What no other phase claims: logging, and Python around the steps."""


def _difference(begin: float, end: float) -> float | None:
    return end - begin


class Timeline:
    """Sums up the seconds of each phase, from `start` on. For one thread only.

    Args:
        mark: makes a mark of this instant.
        between: the seconds between two marks; None as long as they are not known.
    """

    def __init__(self, mark: Callable[[], Any] = time.perf_counter, between: Callable[[Any, Any], float | None] = _difference) -> None:
        self._mark, self._between = mark, between
        self._seconds: dict[str, float] = dict.fromkeys(Phase, 0.0)
        self._unsettled: deque[tuple[str, Any, Any]] = deque()
        self._phase, self._since = Phase.START, mark()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Count the block as `phase`, interrupting the phase that it is in."""
        interrupted = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(interrupted)

    def enter(self, phase: Phase) -> None:
        """From now on it is `phase`'s time."""
        now = self._mark()
        self._unsettled.append((self._phase, self._since, now))
        self._phase, self._since = phase, now

    def seconds(self) -> dict[str, float]:
        """The seconds of each phase up to now; on a GPU up to the last mark that it has passed, without waiting for it."""
        self.enter(self._phase)
        while self._unsettled:
            phase, begin, end = self._unsettled[0]
            passed = self._between(begin, end)
            if passed is None:
                break
            self._seconds[phase] += passed
            self._unsettled.popleft()
        return dict(self._seconds)


def timeline_of(device: torch.device) -> Timeline:
    """The timeline of `device`: a CPU is done when a call returns, a GPU works on while the host goes ahead.

    MPS has no marks that can be relied on: there a phase waits for what was begun before it, most often the optimizer for all of them.
    """
    if device.type != "cuda":
        return Timeline()

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch lacks annotations
        event.record()
        return event

    return Timeline(mark, lambda begin, end: begin.elapsed_time(end) / 1000.0 if end.query() else None)
