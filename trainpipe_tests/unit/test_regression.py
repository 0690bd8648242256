"""The metrics of a regression against scikit-learn and scipy, their intervals, the evaluation and its page."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from trainpipe_assets.evaluation.intervals import draws, paired_difference
from trainpipe_assets.evaluation.regression import evaluate_regression
from trainpipe_assets.evaluation.regression_metrics import Numbers, bootstrap_regression, mae, measure, rmse
from trainpipe_assets.evaluation.regression_plots import MAX_POINTS, prediction_plot, residual_plot
from trainpipe_assets.evaluation.regression_report import render_regression_report
from trainpipe_assets.evaluation.report import ReportContext, summary_markdown
from trainpipe_assets.settings import EvaluationSettings, GateSettings, PipelineSettings
from trainpipe_assets.training.tasks.target_scale import scale_from_config, scale_of_targets

SETTINGS = EvaluationSettings(bootstrap_samples=200, mistakes=2)
CONTEXT = ReportContext(
    title="Evaluation",
    evaluation_id="e",
    evaluated_at=datetime(2026, 1, 1, tzinfo=UTC),
    model_uri="m",
    model_fingerprint="f",
    dataset_uri="d",
    dataset_version=1,
    base_model="b",
    history=[{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}],
    validations=[{"step": 2, "loss": 0.6, "rmse": 3.0}],
)


def simulated(count: int, seed: int = 0, noise: float = 0.5, ties: bool = False) -> Numbers:
    """Predictions that follow the targets with noise, far from 0; with ties on both sides where asked for."""
    random = np.random.default_rng(seed)
    targets = random.normal(size=count)
    predicted = 0.8 * targets + noise * random.normal(size=count)
    if ties:
        targets, predicted = np.round(targets, 1), np.round(predicted, 1)
    return Numbers(50.0 + targets, 50.0 + predicted)


def by_others(numbers: Numbers) -> dict[str, float]:
    """The metrics by scikit-learn and scipy."""
    return {
        "rmse": root_mean_squared_error(numbers.targets, numbers.predicted),
        "mae": mean_absolute_error(numbers.targets, numbers.predicted),
        "r2": r2_score(numbers.targets, numbers.predicted),
        "pearson": pearsonr(numbers.targets, numbers.predicted).statistic,
        "spearman": spearmanr(numbers.targets, numbers.predicted).statistic,
    }


@pytest.mark.parametrize("ties", [False, True])
def test_the_metrics_are_those_of_scikit_learn_and_scipy(ties: bool) -> None:
    numbers = simulated(300, ties=ties)
    assert measure(numbers) == pytest.approx(by_others(numbers), rel=1e-9)
    assert rmse(numbers.targets, numbers.predicted) == pytest.approx(measure(numbers)["rmse"])
    assert mae(numbers.targets, numbers.predicted) == pytest.approx(measure(numbers)["mae"])


def test_each_resample_has_the_metrics_of_the_rows_that_it_drew() -> None:
    numbers = simulated(80, ties=True)
    found = bootstrap_regression(numbers, 12, seed=3).resampled
    rows = np.concatenate(list(draws(80, 12, 3)))
    for index, drawn in enumerate(rows):
        expected = by_others(Numbers(numbers.targets[drawn], numbers.predicted[drawn]))
        assert {name: values[index] for name, values in found.items()} == pytest.approx(expected, rel=1e-9)


@hypothesis_settings(max_examples=30)
@given(values=st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12), move=st.sampled_from([0.0, 1e6]))
def test_the_metrics_stay_within_their_bounds_whatever_the_numbers(values: list[tuple[int, int]], move: float) -> None:
    targets, predicted = np.array(values, dtype=float).T + move
    found = measure(Numbers(targets, predicted))
    assert found["rmse"] >= found["mae"] - 1e-9 >= -1e-9
    assert found["r2"] <= 1.0
    assert -1.0 <= found["pearson"] <= 1.0
    ranks = [rankdata(side) for side in (targets, predicted)]
    varied = all(np.ptp(side) for side in ranks)
    assert found["spearman"] == pytest.approx(np.corrcoef(*ranks)[0, 1] if varied else 0.0, abs=1e-9)


def test_numbers_that_are_all_the_same_explain_nothing() -> None:
    constant = measure(Numbers(np.array([1.1, 2.2, 3.3]), np.full(3, 2.2)))
    assert constant["r2"] == pytest.approx(0.0)
    assert constant["pearson"] == constant["spearman"] == 0.0
    assert measure(Numbers(np.full(3, 0.1), np.array([0.1, 0.2, 0.3])))["r2"] == 0.0


@pytest.mark.parametrize(
    ("targets", "predicted", "said"),
    [([], [], "at least one example"), ([1.0], [1.0, 2.0], "same examples"), ([1.0], [float("nan")], "1 predictions are not finite")],
)
def test_what_cannot_be_measured_is_refused(targets: list[float], predicted: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Numbers(np.array(targets), np.array(predicted))


def test_an_interval_of_rmse_holds_the_true_error_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        targets = random.normal(size=150)
        estimate = bootstrap_regression(Numbers(targets, targets + random.normal(size=150)), 200, seed).estimate("rmse")
        inside += estimate.low <= 1.0 <= estimate.high
    assert inside >= 50  # of 60 at 95%: fewer than 50 in one of 10,000 such tests


def test_sharing_the_rows_narrows_the_difference_of_two_models() -> None:
    one = simulated(400, noise=0.5)
    better = Numbers(one.targets, one.targets + 0.9 * (one.predicted - one.targets))
    resamples = [bootstrap_regression(numbers, 300) for numbers in (better, one)]
    difference = paired_difference(*resamples, "rmse")
    own = resamples[1].estimate("rmse")
    assert difference.high < 0
    assert difference.high - difference.low < (own.high - own.low) / 2


def examples_of(numbers: Numbers) -> pl.DataFrame:
    count = len(numbers.targets)
    return pl.DataFrame(
        {
            "row_id": [f"r{index:03d}" for index in range(count)],
            "source_file": [f"{index % 2}.csv" for index in range(count)],
            "text": ["<b>text</b>"] * count,
            "target": numbers.targets,
            "n_tokens": [5 + index % 7 for index in range(count)],
        }
    )


def test_an_evaluation_puts_everything_together() -> None:
    numbers = simulated(120)
    worse = numbers.targets + 2 * numbers.residuals
    found = evaluate_regression(examples_of(numbers), "price", numbers.predicted, worse, 49.0, SETTINGS)
    assert {name: estimate.value for name, estimate in found.metrics.items()} == pytest.approx(measure(numbers))
    assert found.baseline["rmse"] == pytest.approx(np.sqrt(np.mean((numbers.targets - 49.0) ** 2)))
    assert found.baseline["r2"] < 0.0
    assert found.comparison is not None
    assert found.comparison.fixed == 120
    assert found.comparison.differences["rmse"].high < 0.0
    assert found.verdict.passed
    assert found.mistakes["residual"].abs().to_list() == sorted(np.abs(numbers.residuals))[:-3:-1]
    squares = sum(row.n * row.rmse.value**2 for row in found.slices if row.dimension == "source")
    assert squares == pytest.approx(np.square(numbers.residuals).sum())
    fields = found.history_fields()
    assert fields["n_examples"] == 120
    assert "rmse" not in fields, "the history has no column of this name"


@pytest.mark.parametrize(
    ("gate", "passed", "said"),
    [
        (GateSettings(max_value=1.0), True, "stays within the ceiling of 1.0000"),
        (GateSettings(max_value=0.1), False, "is above the ceiling of 0.1000"),
        (GateSettings(metric="r2", min_value=0.9), False, "is below the floor of 0.9000"),
        (GateSettings(metric="spearman", min_value=0.5), True, "is above the 0.0000 of always predicting the mean of the training split"),
    ],
)
def test_the_gate_looks_at_any_metric(gate: GateSettings, passed: bool, said: str) -> None:
    numbers = simulated(120)
    found = evaluate_regression(examples_of(numbers), "price", numbers.predicted, None, 50.0, SETTINGS.model_copy(update={"gate": gate}))
    assert found.verdict.passed is passed
    assert any(said in reason for reason in found.verdict.reasons), found.verdict.reasons


def test_the_page_shows_what_was_found_and_is_safe() -> None:
    numbers = simulated(120)
    worse = numbers.targets + 2 * numbers.residuals
    found = evaluate_regression(examples_of(numbers), "<i>price", numbers.predicted, worse, 49.0, SETTINGS)
    page = render_regression_report(found, CONTEXT)
    assert "<b>" not in page
    assert "<i>price" not in page
    assert page.count("data:image/png;base64,") == 2 * 4  # two of predictions, slices, curves; light and dark
    for words in ("R²", "better", "Always predicting 49.0000", "By source", "Mean residual", "This model is nearer to 120 examples"):
        assert words in page, words
    assert f"| RMSE | {found.metrics['rmse'].value:.4f} |" in summary_markdown(found)


def test_a_large_cloud_is_thinned_and_one_point_is_drawn() -> None:
    for count in (1, MAX_POINTS + 500):
        for png in (prediction_plot(simulated(count), "price", 50.0), residual_plot(simulated(count), "price")):
            assert png.startswith(b"\x89PNG")


@pytest.mark.parametrize("error", [0.0, 2e29, -2e150])
def test_errors_that_are_all_the_same_are_drawn(error: float) -> None:
    numbers = Numbers(np.full(50, 1.0), np.full(50, 1.0 + error))
    assert residual_plot(numbers, "price").startswith(b"\x89PNG")


def test_numbers_come_back_in_their_own_units() -> None:
    targets = np.array([1e6, 1e6 + 1, 1e6 + 2.5])
    scale = scale_of_targets(targets)
    assert scale.restored(scale.standardized(targets)) == pytest.approx(targets, abs=1e-6)
    assert scale_from_config(scale.as_config(), "m") == scale
    with pytest.raises(ValueError, match="was not trained for text-regression"):
        scale_from_config({}, "m")
    with pytest.raises(ValueError, match="cannot be standardized"):
        scale_of_targets(np.array([7.0, 7.0, 7.0 + 1e-14]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cleaning": {"labels": ["a", "b"]}}, "cleaning.target_range"),
        ({"cleaning": {"target_range": [3, 3]}}, "a smaller number and then a larger one"),
        ({"task": "text-classification", "cleaning": {"target_range": [0, 1]}}, "are for task text-regression"),
        ({"training": {"label_smoothing": 0.1}}, "label_smoothing is for classes"),
        ({"evaluation": {"gate": {"metric": "accuracy"}}}, "looks at rmse or mae or r2"),
        ({"evaluation": {"gate": {"metric": "r2", "max_regression": 2}}}, "r2 is 1 at most: name a smaller one"),
        ({"evaluation": {"gate": {"metric": "rmse", "min_value": 0.9}}}, "lower is better for rmse: set max_value"),
        ({"evaluation": {"gate": {"min_value": 0.9}}}, "lower is better for rmse: set max_value"),
        ({"evaluation": {"gate": {"metric": "r2", "max_value": 0.9}}}, "higher is better for r2: set min_value"),
        ({"validation": {"rules": [{"kind": "class_balance", "name": "even", "min_share": 0.1}]}}, "about texts of one label each"),
    ],
)
def test_settings_that_make_no_sense_for_numbers_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PipelineSettings.model_validate({"task": "text-regression", **changes})
