"""Speed, time left and waiting, by a clock that the test moves."""

import io
from collections.abc import Iterator

import pytest

from trainpipe_assets.training.progress import Meter, Progress, bar_report, periodic_log
from trainpipe_assets.training.state import StepRecord
from trainpipe_assets.training.timeline import Phase, Timeline


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def progress(step: int, total: int = 4) -> Progress:
    return Progress(record_of(step), total, 40.0, 1000.0, 12.0, "97% computing")


def record_of(step: int) -> StepRecord:
    return StepRecord(step=step, epoch=1, loss=0.5, learning_rate=1e-4, grad_norm=1.0)


def test_waiting_for_data_is_told_from_training_and_both_from_the_rest() -> None:
    clock = Clock()
    meter = Meter(Timeline(clock), earlier=7.0)
    clock.now = 100.0
    meter.timeline.enter(Phase.OTHER)

    def slow_batches() -> Iterator[int]:
        for batch in range(4):
            clock.now += 1.0
            yield batch

    for _ in meter.fed(slow_batches()):
        clock.now += 3.0
        meter.count(examples=8, tokens=90, own_tokens=45, rectangle=50)
    for phase in (Phase.VALIDATION, Phase.CHECKPOINT):
        with meter.timeline.phase(phase):
            clock.now += 8.0
    assert meter.summary(meter.timeline.seconds()) == {
        "seconds": 32.0,
        "step_seconds": 16.0,
        "earlier_seconds": 7.0,
        "examples_per_second": 2.0,
        "tokens_per_second": 22.5,
        "padding_fraction": pytest.approx(0.1),
        "data_wait_fraction": 0.25,
    }
    assert meter.spent() == 7.0 + 100.0 + 32.0


def test_time_left_counts_validations_and_rates_do_not() -> None:
    clock = Clock()
    meter = Meter(Timeline(clock))
    clock.now = 7.0
    meter.timeline.enter(Phase.OTHER)
    meter.count(10, 100, 100, 100)
    clock.now = 9.0
    with meter.timeline.phase(Phase.VALIDATION):
        clock.now = 12.0
    found = meter.progress(record_of(51), total_steps=101)
    assert (found.examples_per_second, found.tokens_per_second, found.seconds_left) == (5.0, 50.0, 250.0)
    summary = meter.summary(meter.timeline.seconds())
    assert (summary["examples_per_second"], summary["seconds"]) == (5.0, 5.0)


def test_a_training_that_takes_no_step_still_has_a_summary() -> None:
    meter = Meter(Timeline(Clock()))
    assert meter.summary(meter.timeline.seconds())["examples_per_second"] == 0.0


def test_lines_come_first_last_and_every_ten_seconds_between() -> None:
    clock, lines = Clock(), list[str]()
    report = periodic_log(lines.append, seconds=10.0, clock=clock)
    for step in range(1, 31):
        clock.now = float(step)
        report(progress(step, total=30))
    assert [line.split(",")[0] for line in lines] == ["step 1/30", "step 11/30", "step 21/30", "step 30/30"]
    assert "40.0 examples/s, 1,000 tokens/s, 97% computing, 12 s left" in lines[0]


def test_the_bar_of_a_resumed_training_starts_where_it_goes_on() -> None:
    terminal = io.StringIO()
    report = bar_report(terminal)
    for step in (3, 4):
        report(progress(step))
    assert "4/4" in terminal.getvalue()
    assert "0/4" not in terminal.getvalue()
