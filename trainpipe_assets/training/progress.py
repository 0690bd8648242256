"""What a training says of itself while it runs: speed, time left, and where the time goes.

Nothing measured here reaches the model or its history.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from trainpipe_assets.training.efficiency import OUTSIDE_STEPS, in_short
from trainpipe_assets.training.state import StepRecord
from trainpipe_assets.training.timeline import Phase, Timeline

Item = TypeVar("Item")
Clock = Callable[[], float]

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """The report of one step. Rates are over the time of this process's steps; `seconds_left` counts all epochs that are planned."""

    record: StepRecord
    total_steps: int
    examples_per_second: float
    tokens_per_second: float
    seconds_left: float
    time_goes: str

    def __str__(self) -> str:
        return (
            f"step {self.record.step}/{self.total_steps}, epoch {self.record.epoch}: loss {self.record.loss:.4f}, "
            f"learning rate {self.record.learning_rate:.2e}, "
            f"{self.examples_per_second:,.1f} examples/s, {self.tokens_per_second:,.0f} tokens/s, {self.time_goes}, "
            f"{self.seconds_left:,.0f} s left"
        )


Report = Callable[[Progress], None]


class Meter:
    """Counts steps, examples and tokens beside the time of `timeline`.

    `earlier` seconds were spent on this training before, up to the checkpoint that it goes on from.
    """

    def __init__(self, timeline: Timeline, earlier: float = 0.0) -> None:
        self.timeline = timeline
        self.earlier = earlier
        self.steps = 0
        self.examples = 0.0
        self.tokens = 0
        self.own_tokens = 0
        self.rectangle = 0

    def fed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The same batches; the time that each lets the device wait is the phase `data`."""
        iterator = iter(batches)
        while True:
            try:
                with self.timeline.phase(Phase.DATA):
                    batch = next(iterator)
            except StopIteration:
                return
            yield batch

    def count(self, examples: float, tokens: int, own_tokens: int, rectangle: int) -> None:
        """Note one step: its examples and tokens, and of this process's share the tokens without and with padding."""
        self.steps += 1
        self.examples += examples
        self.tokens += tokens
        self.own_tokens += own_tokens
        self.rectangle += rectangle

    def progress(self, record: StepRecord, total_steps: int) -> Progress:
        """The report of the step of `record`, which must have been counted."""
        phases = self.timeline.seconds()
        elapsed, stepping = _elapsed(phases), _stepping(phases)
        return Progress(
            record=record,
            total_steps=total_steps,
            examples_per_second=self.examples / stepping if stepping else 0.0,
            tokens_per_second=self.tokens / stepping if stepping else 0.0,
            seconds_left=(total_steps - record.step) * elapsed / max(self.steps, 1),
            time_goes=in_short(phases),
        )

    def spent(self) -> float:
        """Seconds that this training took up to now, its start included."""
        return self.earlier + sum(self.timeline.seconds().values())

    def summary(self, phases: Mapping[str, float]) -> dict[str, float]:
        """Totals since the first batch was asked for. Only `seconds` include validation and checkpoints; rates are over `step_seconds`.

        Nothing but `earlier_seconds` tells of what was killed or stopped, and gone on with.
        """
        stepping = _stepping(phases)
        return {
            "seconds": _elapsed(phases),
            "step_seconds": stepping,
            "earlier_seconds": self.earlier,
            "examples_per_second": self.examples / stepping if stepping else 0.0,
            "tokens_per_second": self.tokens / stepping if stepping else 0.0,
            "padding_fraction": 1.0 - self.own_tokens / self.rectangle if self.rectangle else 0.0,
            "data_wait_fraction": phases[Phase.DATA] / stepping if stepping else 0.0,
        }


def _elapsed(phases: Mapping[str, float]) -> float:
    return sum(phases.values()) - phases[Phase.START]


def _stepping(phases: Mapping[str, float]) -> float:
    return sum(seconds for phase, seconds in phases.items() if phase not in OUTSIDE_STEPS)


def periodic_log(log: Callable[[str], None], seconds: float = LOG_SECONDS, clock: Clock = time.monotonic) -> Report:
    """A report that logs a line for the first step, the last, and about every `seconds` between them."""
    last: float | None = None

    def report(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or now - last >= seconds or progress.record.step == progress.total_steps:
            last = now
            log(str(progress))

    return report


def bar_report(stream: Any) -> Report:
    """A progress bar on the terminal `stream`."""
    bar: Any = None

    def report(progress: Progress) -> None:
        nonlocal bar
        step = progress.record.step
        if bar is None:
            bar = tqdm(total=progress.total_steps, initial=step - 1, file=stream, unit="step", dynamic_ncols=True)
        bar.set_postfix(loss=f"{progress.record.loss:.4f}", examples_s=f"{progress.examples_per_second:.1f}", refresh=False)
        bar.update(step - bar.n)
        if step == progress.total_steps:
            bar.close()

    return report
