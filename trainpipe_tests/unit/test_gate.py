"""The gate: what passes, what fails, and the sentence that says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpipe_assets.evaluation.gate import judge
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.settings import GateSettings

METRICS = {"accuracy": Estimate(0.9, 0.85, 0.95), "macro_f1": Estimate(0.8, 0.75, 0.85)}
BASELINE = 0.375
AHEAD = Estimate(0.4, 0.3, 0.5)


def test_a_first_model_above_baseline_and_floor_passes():
    verdict = judge(GateSettings(min_value=0.7), METRICS, None, BASELINE, AHEAD)
    assert verdict.passed
    assert verdict.reasons == (
        "macro_f1 0.8000 reaches the floor of 0.7000.",
        "macro_f1 0.8000 is above the 0.3750 of always predicting the most frequent label.",
        "There is no previous model to compare with.",
    )


def test_a_value_at_the_floor_reaches_it():
    assert judge(GateSettings(min_value=0.8), METRICS, None, BASELINE, AHEAD).passed


def test_a_value_below_the_floor_fails():
    verdict = judge(GateSettings(min_value=0.81), METRICS, None, BASELINE, AHEAD)
    assert not verdict.passed
    assert verdict.reasons[0] == "macro_f1 0.8000 is below the floor of 0.8100."


def test_the_gate_reads_the_metric_that_it_was_set_to():
    settings = GateSettings(metric="accuracy", min_value=0.85)
    assert judge(settings, METRICS, None, BASELINE, AHEAD).passed
    assert judge(settings, METRICS, None, BASELINE, AHEAD).reasons[0].startswith("accuracy 0.9000")


@pytest.mark.parametrize(("baseline", "passed"), [(0.79, True), (0.8, False), (0.81, False)])
def test_a_model_must_beat_the_majority_class(baseline, passed):
    verdict = judge(GateSettings(), METRICS, None, baseline, AHEAD)
    assert verdict.passed is passed
    assert ("is not above" in verdict.reasons[1]) is not passed


@pytest.mark.parametrize(
    ("high", "max_regression", "passed"),
    [(0.0, 0.0, True), (-0.001, 0.0, False), (0.01, 0.0, True), (-0.01, 0.01, True), (-0.011, 0.01, False)],
)
def test_only_a_loss_beyond_the_interval_and_what_is_forgiven_fails(high, max_regression, passed):
    difference = Estimate(high - 0.02, high - 0.04, high)
    verdict = judge(GateSettings(max_regression=max_regression), METRICS, difference, BASELINE, AHEAD)
    assert verdict.passed is passed


def test_the_sentence_on_a_regression_has_its_numbers():
    verdict = judge(GateSettings(max_regression=0.01), METRICS, Estimate(-0.05, -0.08, -0.02), BASELINE, AHEAD)
    assert verdict.reasons[2] == (
        "macro_f1 differs from the previous model's by -0.0500 (95% interval -0.0800 to -0.0200), "
        "which is a loss beyond the 0.0100 allowed."
    )


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.none() | st.floats(-1, 1))
def test_every_verdict_has_a_sentence_for_each_thing_looked_at(value, floor, baseline, change):
    difference = None if change is None else Estimate(change, change - 0.1, change + 0.1)
    estimate = {"macro_f1": Estimate(value, value, value)}
    verdict = judge(GateSettings(min_value=floor), estimate, difference, baseline, AHEAD)
    assert verdict.passed == (value >= floor and value > baseline and (change is None or change + 0.1 >= 0))
    assert len(verdict.reasons) == 3
    assert all(reason.endswith(".") and "\n" not in reason for reason in verdict.reasons)


PERPLEXITY = {"perplexity": Estimate(8.0, 7.5, 8.6), "log_loss": Estimate(2.08, 2.01, 2.15)}


@pytest.mark.parametrize(("ceiling", "baseline", "passed"), [(None, 9.0, True), (8.0, 9.0, True), (7.9, 9.0, False), (None, 8.0, False)])
def test_of_a_language_model_lower_is_better(ceiling: float | None, baseline: float, passed: bool) -> None:
    verdict = judge(GateSettings(max_value=ceiling), PERPLEXITY, None, baseline, AHEAD, "causal-lm")
    assert verdict.passed is passed
    assert "of the base model before training" in verdict.reasons[1]


@pytest.mark.parametrize(("difference", "passed"), [(Estimate(0.3, -0.1, 0.7), True), (Estimate(0.3, 0.1, 0.7), False)])
def test_a_language_model_loses_only_where_all_of_the_interval_is_above(difference: Estimate, passed: bool) -> None:
    assert judge(GateSettings(), PERPLEXITY, difference, 20.0, AHEAD, "causal-lm").passed is passed


def test_a_language_model_may_be_judged_by_the_tokens_it_gets_right():
    settings = GateSettings(metric="token_accuracy", min_value=0.4)
    verdict = judge(settings, {"token_accuracy": Estimate(0.5, 0.45, 0.55)}, None, 0.3, AHEAD, "causal-lm")
    assert verdict.passed
    assert verdict.reasons[1] == "token_accuracy 0.5000 is above the 0.3000 of the base model before training."


def test_a_model_that_may_beat_the_baseline_by_chance_passes_and_says_so():
    ahead = Estimate(0.125, -0.01, 0.26)
    verdict = judge(GateSettings(metric="accuracy"), {"accuracy": Estimate(0.5, 0.33, 0.67)}, None, 0.375, ahead)
    assert verdict.passed
    assert verdict.reasons[1].endswith(
        "most frequent label, which may be chance: the 95% interval of the difference is -0.0100 to +0.2600."
    )


def test_numbers_that_differ_are_told_apart() -> None:
    ahead = Estimate(1e-6, 1e-7, 2e-6)
    verdict = judge(GateSettings(metric="accuracy", min_value=0.75), {"accuracy": Estimate(0.749999, 0.7, 0.8)}, None, 0.749998, ahead)
    assert verdict.reasons[:2] == (
        "accuracy 0.749999 is below the floor of 0.75.",
        "accuracy 0.749999 is above the 0.749998 of always predicting the most frequent label.",
    )
    at_floor = judge(GateSettings(metric="accuracy", min_value=0.75), {"accuracy": Estimate(0.75, 0.7, 0.8)}, None, 0.5, ahead)
    assert at_floor.reasons[0] == "accuracy 0.7500 reaches the floor of 0.7500."
