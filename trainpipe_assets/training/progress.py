"""What a training says of itself while it runs: speed, time left, and how long the device waited for data.

Measures time; nothing measured here reaches the model or its history.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Clock = Callable[[], float]

LOG_SECONDS = 10.0


@dataclass(frozen=True)
class Progress:
    """One step's report. Rates are over this process's lifetime; `seconds_left` counts all epochs that are planned."""

    step: int
    total_steps: int
    epoch: int
    loss: float
    learning_rate: float
    examples_per_second: float
    tokens_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.total_steps}, epoch {self.epoch}: loss {self.loss:.4f}, learning rate {self.learning_rate:.2e}, "
            f"{self.examples_per_second:,.1f} examples/s, {self.tokens_per_second:,.0f} tokens/s, {self.seconds_left:,.0f} s left"
        )


Report = Callable[[Progress], None]


class Meter:
    """Counts steps, examples and tokens, and the time that went into them and into waiting for data."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._started = clock()
        self.steps = 0
        self.examples = 0
        self.tokens = 0
        self.own_tokens = 0
        self.rectangle = 0
        self.waited = 0.0
        self.stepping = 0.0

    def fed(self, batches: Iterable[Item]) -> Iterator[Item]:
        """The same batches; counts the time that each lets the device wait, and the time between them as training."""
        iterator = iter(batches)
        while True:
            asked = self._clock()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            received = self._clock()
            self.waited += received - asked
            yield batch
            self.stepping += self._clock() - asked

    def count(self, examples: int, tokens: int, own_tokens: int, rectangle: int) -> None:
        """Note one step: its examples and tokens, and of this process's share the tokens without and with padding."""
        self.steps += 1
        self.examples += examples
        self.tokens += tokens
        self.own_tokens += own_tokens
        self.rectangle += rectangle

    def progress(self, step: int, total: int, epoch: int, loss: float, learning_rate: float) -> Progress:
        """The report of `step`, which must have been counted."""
        elapsed = max(self._clock() - self._started, 1e-9)
        return Progress(
            step=step,
            total_steps=total,
            epoch=epoch,
            loss=loss,
            learning_rate=learning_rate,
            examples_per_second=self.examples / elapsed,
            tokens_per_second=self.tokens / elapsed,
            seconds_left=(total - step) * elapsed / max(self.steps, 1),
        )

    def summary(self) -> dict[str, float]:
        """Totals since this process began to train. Only `seconds` include validation; the rates are over `step_seconds`."""
        return {
            "seconds": self._clock() - self._started,
            "step_seconds": self.stepping,
            "examples_per_second": self.examples / self.stepping if self.stepping else 0.0,
            "tokens_per_second": self.tokens / self.stepping if self.stepping else 0.0,
            "padding_fraction": 1.0 - self.own_tokens / self.rectangle if self.rectangle else 0.0,
            "data_wait_fraction": self.waited / self.stepping if self.stepping else 0.0,
        }


def periodic_log(log: Callable[[str], None], seconds: float = LOG_SECONDS, clock: Clock = time.monotonic) -> Report:
    """A report that logs a line for the first step, the last, and about every `seconds` between them."""
    last: float | None = None

    def report(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if last is None or now - last >= seconds or progress.step == progress.total_steps:
            last = now
            log(str(progress))

    return report


def bar_report(stream: Any) -> Report:
    """A progress bar on the terminal `stream`."""
    bar: Any = None

    def report(progress: Progress) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=progress.total_steps, initial=progress.step - 1, file=stream, unit="step", dynamic_ncols=True)
        bar.set_postfix(loss=f"{progress.loss:.4f}", examples_s=f"{progress.examples_per_second:.1f}", refresh=False)
        bar.update(progress.step - bar.n)
        if progress.step == progress.total_steps:
            bar.close()

    return report
