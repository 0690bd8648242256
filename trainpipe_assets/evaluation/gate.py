"""The gate: whether a model may become the current one, and why.

Judges numbers that `candidate.py` took; it measures nothing and stores nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trainpipe_assets.evaluation.intervals import Estimate, signed_interval, written, written_apart
from trainpipe_assets.settings import LOWER_IS_BETTER, GateSettings, Task

BASELINES: Mapping[Task, str] = {
    "text-classification": "always predicting the most frequent label",
    "multi-label-classification": "always predicting the most frequent set of labels, or all labels, whichever is better",
    "text-regression": "always predicting the mean of the training split",
    "causal-lm": "the base model before training",
}


@dataclass(frozen=True)
class Verdict:
    """The gate's decision, and one sentence with numbers for each thing it looked at, passed or failed."""

    passed: bool
    reasons: tuple[str, ...]


def judge(
    settings: GateSettings,
    metrics: Mapping[str, Estimate],
    difference_to_previous: Estimate | None,
    baseline: float,
    ahead_of_baseline: Estimate,
    task: Task = "text-classification",
    note: str = "",
) -> Verdict:
    """Judge a model of `task` by one metric: its bound, the baseline, and the previous model.

    `metrics` holds values by metric name, of which the gate reads one. `baseline` is that of the baseline, as `BASELINES` calls it, and
    `ahead_of_baseline` candidate minus baseline on the same examples: where its interval reaches 0 the verdict says that it may be chance.
    `difference_to_previous` is candidate minus previous in that metric on the same examples (None when there is no previous model); the
    gate fails on it only when the whole paired interval is worse than max_regression, so that noise alone refuses no model. `note` says on
    which examples they were not compared.
    """
    metric = settings.metric_of(task)
    value, lower = metrics[metric].value, metric in LOWER_IS_BETTER
    checks = (
        _below_ceiling(settings, metric, value) if lower else _above_floor(settings, metric, value),
        _beats_baseline(metric, value, baseline, ahead_of_baseline, BASELINES[task], lower=lower),
        _no_regression(settings, metric, difference_to_previous, note, lower=lower),
    )
    return Verdict(all(passed for passed, _ in checks), tuple(reason for _, reason in checks))


def _above_floor(settings: GateSettings, metric: str, value: float) -> tuple[bool, str]:
    passed = value >= settings.min_value
    verb = "reaches" if passed else "is below"
    found, floor = written_apart(value, settings.min_value)
    return passed, f"{metric} {found} {verb} the floor of {floor}."


def _below_ceiling(settings: GateSettings, metric: str, value: float) -> tuple[bool, str]:
    if settings.max_value is None:
        return True, f"{metric} {written(value)} has no ceiling."
    passed = value <= settings.max_value
    verb = "stays within" if passed else "is above"
    found, ceiling = written_apart(value, settings.max_value)
    return passed, f"{metric} {found} {verb} the ceiling of {ceiling}."


def _beats_baseline(metric: str, value: float, baseline: float, ahead: Estimate, what: str, *, lower: bool) -> tuple[bool, str]:
    passed = value < baseline if lower else value > baseline
    side = "below" if lower else "above"
    verb = f"is {side}" if passed else f"is not {side}"
    may_be_chance = passed and ahead.low <= 0.0 <= ahead.high
    doubt = f", which may be chance: the 95% interval of the difference is {signed_interval(ahead)}" if may_be_chance else ""
    found, beside = written_apart(value, baseline)
    return passed, f"{metric} {found} {verb} the {beside} of {what}{doubt}."


def _no_regression(settings: GateSettings, metric: str, difference: Estimate | None, note: str, *, lower: bool) -> tuple[bool, str]:
    if difference is None:
        return True, f"The previous model is not compared with{note}." if note else "There is no previous model to compare with."
    passed = difference.low <= settings.max_regression if lower else difference.high >= -settings.max_regression
    found = f"{metric} differs from the previous model's by {written(difference.value, '+')} (95% interval {signed_interval(difference)})"
    verdict = f"which {'shows no' if passed else 'is a'} loss beyond the {written(settings.max_regression)} allowed"
    return passed, f"{found}, {verdict}{note}."
