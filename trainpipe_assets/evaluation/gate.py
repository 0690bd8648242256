"""The gate: whether a model may become the current one, and why.

Judges numbers that `evaluate.py` took; it measures nothing and stores nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.settings import GateSettings


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, and one sentence with numbers for each thing it looked at, passed or failed."""

    passed: bool
    reasons: tuple[str, ...]


def judge(
    settings: GateSettings,
    metrics: Mapping[str, Estimate],
    difference_to_previous: Estimate | None,
    baseline: Mapping[str, float],
) -> Verdict:
    """Judge a model by `settings.metric`: its floor, the majority-class baseline, and the previous model.

    `metrics` and `baseline` hold values by metric name, of which the gate reads one. `difference_to_previous` is
    candidate minus previous in that metric on the same examples (None when there is no previous model); the gate
    fails on it only when the whole paired interval lies below -max_regression, so that noise alone refuses no model.
    """
    value = metrics[settings.metric].value
    checks = (
        _floor(settings, value),
        _above_baseline(settings.metric, value, baseline[settings.metric]),
        _no_regression(settings, difference_to_previous),
    )
    return Verdict(all(passed for passed, _ in checks), tuple(reason for _, reason in checks))


def _floor(settings: GateSettings, value: float) -> tuple[bool, str]:
    passed = value >= settings.min_value
    verb = "reaches" if passed else "is below"
    return passed, f"{settings.metric} {value:.4f} {verb} the floor of {settings.min_value:.4f}."


def _above_baseline(metric: str, value: float, baseline: float) -> tuple[bool, str]:
    passed = value > baseline
    verb = "is above" if passed else "is not above"
    return passed, f"{metric} {value:.4f} {verb} the {baseline:.4f} of always predicting the most frequent label."


def _no_regression(settings: GateSettings, difference: Estimate | None) -> tuple[bool, str]:
    if difference is None:
        return True, "There is no previous model to compare with."
    passed = difference.high >= -settings.max_regression
    found = f"{settings.metric} differs from the previous model's by {difference.value:+.4f} (95% interval {_interval(difference)})"
    verdict = f"which {'shows no' if passed else 'is a'} loss beyond the {settings.max_regression:.4f} allowed"
    return passed, f"{found}, {verdict}."


def _interval(estimate: Estimate) -> str:
    """The interval of a difference, signed: `-0.0120 to +0.0310`."""
    return f"{estimate.low:+.4f} to {estimate.high:+.4f}"
