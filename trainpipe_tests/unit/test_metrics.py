"""Metrics and their intervals: values worked out by hand, and laws that hold for every input."""

import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from trainpipe_assets.evaluation import intervals, metrics
from trainpipe_assets.evaluation.intervals import Estimate, bootstrap, outcomes, paired_difference, proportion

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 2, 2])


@st.composite
def classified(draw):
    """Labels, predictions and the number of classes of some examples."""
    n_classes = draw(st.integers(2, 5))
    size = draw(st.integers(1, 40))
    ids = arrays.arrays(np.int64, size, elements=st.integers(0, n_classes - 1))
    return draw(ids), draw(ids), n_classes


@st.composite
def scored(draw):
    """Labels and probabilities of some examples."""
    n_classes = draw(st.integers(2, 5))
    size = draw(st.integers(1, 40))
    weights = draw(arrays.arrays(np.float64, (size, n_classes), elements=st.floats(0.01, 1.0)))
    labels = draw(arrays.arrays(np.int64, size, elements=st.integers(0, n_classes - 1)))
    return labels, weights / weights.sum(axis=1, keepdims=True)


def simulated(size: int, seed: int, n_classes: int = 3, strength: float = 2.0):
    random = np.random.default_rng(seed)
    labels = random.integers(n_classes, size=size)
    logits = random.normal(size=(size, n_classes))
    logits[np.arange(size), labels] += strength
    weights = np.exp(logits)
    return labels, weights / weights.sum(axis=1, keepdims=True)


def test_accuracy_counts_hits():
    assert metrics.accuracy(LABELS, PREDICTED) == 4 / 6


def test_macro_f1_by_hand():
    assert metrics.macro_f1(LABELS, PREDICTED, 3) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 3)


def test_macro_f1_leaves_out_a_class_that_does_not_occur():
    assert metrics.macro_f1(LABELS, PREDICTED, 7) == metrics.macro_f1(LABELS, PREDICTED, 3)


def test_macro_f1_counts_a_class_that_is_only_predicted_as_zero():
    assert metrics.macro_f1(np.array([0, 0]), np.array([0, 1]), 2) == pytest.approx((2 / 3 + 0) / 2)


def test_confusion_matrix_has_labels_in_rows():
    assert metrics.confusion_matrix(LABELS, PREDICTED, 3).tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]


def test_log_loss_by_hand():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    assert metrics.log_loss(np.array([0, 1]), probabilities) == pytest.approx(-(math.log(0.5) + math.log(0.1)) / 2)


def test_log_loss_of_an_impossible_label_is_bounded():
    loss = metrics.log_loss(np.array([1]), np.array([[1.0, 0.0]]))
    assert loss == pytest.approx(-math.log(np.finfo(np.float64).eps))
    assert 36.0 < loss < 36.1


def test_calibration_error_by_hand():
    # two examples of confidence 0.9 of which one is right, two of 0.6 of which both are right
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    labels = np.array([0, 1, 0, 1])
    assert metrics.expected_calibration_error(labels, probabilities, 10) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    # in one bin, over- and underconfidence cancel out
    assert metrics.expected_calibration_error(labels, probabilities, 1) == pytest.approx(abs(3 / 4 - 0.75))


def test_calibration_bin_includes_its_upper_end():
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.76, 0.24], [1.0, 0.0]])
    assert metrics.confidence_bins(probabilities.max(axis=1), 4).tolist() == [1, 2, 3, 3]


def test_calibration_table_holds_the_bins_of_the_error():
    labels, probabilities = simulated(200, seed=1)
    table = metrics.calibration_table(probabilities.max(axis=1), metrics.calibration_gaps(labels, probabilities), 10)
    assert sum(b.count for b in table) == 200
    assert math.isnan(table[0].accuracy)
    error = sum(b.count / 200 * abs(b.accuracy - b.mean_confidence) for b in table if b.count)
    assert error == pytest.approx(metrics.expected_calibration_error(labels, probabilities, 10))


@given(classified())
def test_the_metrics_are_those_of_another_library(case):
    labels, predicted, n_classes = case
    matrix, every = metrics.confusion_matrix(labels, predicted, n_classes), range(n_classes)
    assert matrix.tolist() == confusion_matrix(labels, predicted, labels=every).tolist()
    assert metrics.accuracy(labels, predicted) == pytest.approx(accuracy_score(labels, predicted))
    assert metrics.macro_f1(labels, predicted, n_classes) == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    counts = metrics.class_counts(labels, predicted, n_classes)
    assert (counts.hits.tolist(), counts.support.tolist()) == (np.diag(matrix).tolist(), matrix.sum(axis=1).tolist())
    assert counts.f1().tolist() == pytest.approx(f1_score(labels, predicted, labels=every, average=None, zero_division=0).tolist())


@given(classified(), st.randoms())
def test_metrics_do_not_depend_on_the_names_or_the_order_of_things(case, random):
    labels, predicted, n_classes = case
    names = np.array(random.sample(range(n_classes), n_classes))
    order = np.array(random.sample(range(len(labels)), len(labels)))
    again = names[labels][order], names[predicted][order]
    assert metrics.accuracy(*again) == pytest.approx(metrics.accuracy(labels, predicted))
    assert metrics.macro_f1(*again, n_classes) == pytest.approx(metrics.macro_f1(labels, predicted, n_classes))


@given(scored(), st.integers(1, 20))
def test_probability_metrics_keep_their_bounds(case, bins):
    labels, probabilities = case
    predicted = metrics.predictions(probabilities)
    confidence = probabilities.max(axis=1).mean()
    error = metrics.expected_calibration_error(labels, probabilities, bins)
    assert abs(metrics.accuracy(labels, predicted) - confidence) - 1e-12 <= error <= 1.0
    # the negative logarithm is convex (Jensen)
    chosen = probabilities[np.arange(len(labels)), labels]
    assert metrics.log_loss(labels, probabilities) >= -math.log(chosen.mean()) - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy(np.array([], dtype=int), np.array([], dtype=int)), "at least one example"),
        (lambda: metrics.accuracy(np.array([0, 1]), np.array([0])), "same examples"),
        (lambda: metrics.macro_f1(np.array([0, 3]), np.array([0, 1]), 3), "labels holds class ids from 0 to 3"),
        (lambda: metrics.confusion_matrix(np.array([0, 1]), np.array([0, -1]), 3), "predicted holds class ids from -1"),
        (lambda: metrics.log_loss(np.array([0, 2]), np.array([[0.5, 0.5], [0.5, 0.5]])), "2 classes allow 0 to 1"),
        (lambda: metrics.log_loss(np.array([0, 1]), np.array([[0.5, 0.5], [math.nan, 0.5]])), "the first is row 1"),
        (lambda: metrics.log_loss(np.array([0]), np.array([[1.5, -0.5]])), "negative"),
        (lambda: metrics.log_loss(np.array([0]), np.array([0.5])), "two or more classes"),
        (lambda: metrics.expected_calibration_error(np.array([0]), np.array([[0.5, 0.5]]), 0), "at least 1 bin"),
    ],
)
def test_input_that_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bootstrap_takes_the_metrics_of_the_resampled_rows(monkeypatch):
    labels, probabilities = simulated(50, seed=3)
    monkeypatch.setattr(intervals, "CHUNK_ELEMENTS", 150)  # three resamples a chunk, so that chunks meet
    result = bootstrap(outcomes(labels, probabilities, 10), samples=10, seed=7)
    random = np.random.default_rng(7)
    rows = np.concatenate([random.integers(50, size=(size, 50)) for size in (3, 3, 3, 1)])
    for index, drawn in enumerate(rows):
        resampled = labels[drawn], metrics.predictions(probabilities[drawn])
        assert result.resampled["accuracy"][index] == pytest.approx(metrics.accuracy(*resampled))
        assert result.resampled["log_loss"][index] == pytest.approx(metrics.log_loss(labels[drawn], probabilities[drawn]))
    macro = np.array([metrics.macro_f1(labels[drawn], metrics.predictions(probabilities[drawn]), 3) for drawn in rows])
    assert result.resampled["macro_f1"] == pytest.approx(macro)


def test_the_interval_of_macro_f1_lies_about_its_value_where_classes_are_rare():
    # 30 classes, most of which a resample of 200 examples does not draw; a third of the examples are wrong
    random = np.random.default_rng(0)
    shares = 1 / np.arange(1, 31) ** 1.5
    labels = random.choice(30, size=200, p=shares / shares.sum())
    answers = np.where(random.uniform(size=200) < 0.65, labels, random.integers(30, size=200))
    result = bootstrap(outcomes(labels, np.eye(30)[answers] * 0.7 + 0.01, 10), samples=1000)
    estimate, resampled = result.estimate("macro_f1"), result.resampled["macro_f1"]
    assert (resampled > estimate.value).mean() < 0.35  # as they are
    assert estimate.low < estimate.value < estimate.high
    assert 0.5 < (estimate.high - estimate.value) / (estimate.value - estimate.low) < 2.0


def test_bootstrap_values_are_the_metrics():
    labels, probabilities = simulated(80, seed=4)
    values = bootstrap(outcomes(labels, probabilities, 10), samples=100).values
    predicted = metrics.predictions(probabilities)
    assert values == pytest.approx(
        {
            "accuracy": metrics.accuracy(labels, predicted),
            "macro_f1": metrics.macro_f1(labels, predicted, 3),
            "log_loss": metrics.log_loss(labels, probabilities),
            "calibration_error": metrics.expected_calibration_error(labels, probabilities, 10),
        }
    )


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_intervals_hold_their_value(seed):
    labels, probabilities = simulated(60, seed)
    for estimate in bootstrap(outcomes(labels, probabilities, 10), samples=200, seed=seed).estimates().values():
        assert estimate.low <= estimate.value <= estimate.high


def test_the_interval_of_a_small_calibration_error_holds_it():
    # labels drawn from the very probabilities: many bins then hold noise alone, which resampling doubles
    random = np.random.default_rng(2)
    share = random.uniform(size=400)
    labels = (random.uniform(size=400) < share).astype(int)
    estimate = bootstrap(outcomes(labels, np.column_stack([1 - share, share]), 40), samples=500).estimate("calibration_error")
    assert estimate.low < estimate.value < estimate.high


def test_bootstrap_interval_agrees_with_the_normal_one_on_many_examples():
    labels, probabilities = simulated(4000, seed=5)
    estimate = bootstrap(outcomes(labels, probabilities, 10), samples=2000).estimate("log_loss")
    losses = metrics.example_losses(labels, probabilities)
    half = 1.96 * losses.std() / math.sqrt(len(losses))
    assert estimate.low == pytest.approx(losses.mean() - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(losses.mean() + half, abs=0.15 * half)


def test_bootstrap_is_a_function_of_its_seed():
    sample = outcomes(*simulated(40, seed=6), 10)
    assert bootstrap(sample, 100, seed=1).estimates() == bootstrap(sample, 100, seed=1).estimates()
    assert bootstrap(sample, 100, seed=1).estimates() != bootstrap(sample, 100, seed=2).estimates()


@pytest.mark.parametrize("counts", [(200, 3), (9, 9, 2), (1000, 3, 3)])
def test_all_right_is_no_less_certain_where_a_class_is_rare(counts: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    result = bootstrap(outcomes(labels, np.eye(len(counts))[labels] * 0.8 + 0.2 / len(counts), 10), 200)
    assert result.estimate("macro_f1") == result.estimate("accuracy") == proportion(len(labels), len(labels))


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_no_certainty(right: bool) -> None:
    labels = np.arange(40) % 2
    result = bootstrap(outcomes(labels, np.eye(2)[labels if right else 1 - labels] * 0.8 + 0.1, 10), 100)
    for metric in ("accuracy", "macro_f1"):
        estimate = result.estimate(metric)
        assert estimate == proportion(40 if right else 0, 40)
        assert estimate.value == float(right)
        assert estimate.high - estimate.low > 0.08
    assert result.estimate("log_loss").low == result.estimate("log_loss").high  # no share: as the resamples have it


def test_a_model_does_not_differ_from_itself():
    result = bootstrap(outcomes(*simulated(40, seed=8), 10), 100)
    assert paired_difference(result, result, "macro_f1") == Estimate(0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["macro_f1", "accuracy", "calibration_error"])
@pytest.mark.parametrize("already_wrong", [0, 10])
def test_one_answer_more_that_is_wrong_is_no_certain_loss(metric, already_wrong):
    for seed in range(10):
        random = np.random.default_rng(seed)
        labels = random.integers(2, size=200)
        answers = np.where(np.arange(200) < already_wrong, 1 - labels, labels)
        worse = np.where(np.arange(200) == 150, 1 - answers, answers)
        candidate, previous = (bootstrap(outcomes(labels, np.eye(2)[said] * 0.8 + 0.1, 10), 1000, seed) for said in (worse, answers))
        difference = paired_difference(candidate, previous, metric)
        assert difference.low <= 0.0 <= difference.high


def test_pairing_narrows_the_interval_of_a_difference():
    labels, probabilities = simulated(500, seed=9)
    better = 0.9 * probabilities + 0.1 * np.eye(3)[labels]
    candidate = bootstrap(outcomes(labels, better, 10), 500)
    previous = bootstrap(outcomes(labels, probabilities, 10), 500)
    difference = paired_difference(candidate, previous, "log_loss")
    own = candidate.estimate("log_loss")
    assert difference.high < 0.0
    assert difference.high - difference.low < own.high - own.low


def test_bootstraps_of_other_rows_are_not_compared():
    first, second = (bootstrap(outcomes(*simulated(size, seed=1), 10), 100) for size in (30, 31))
    with pytest.raises(ValueError, match="same resamples"):
        paired_difference(first, second, "accuracy")


def test_wilson_interval_has_its_published_values():
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert_rounds_to(proportion(81, 263), 0.2553, 0.3662)
    assert_rounds_to(proportion(15, 148), 0.0624, 0.1605)
    assert_rounds_to(proportion(0, 20), 0.0, 0.1611)
    assert_rounds_to(proportion(1, 29), 0.0061, 0.1718)


def assert_rounds_to(estimate: Estimate, low: float, high: float) -> None:
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (low, high)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_interval_holds_the_share_and_keeps_a_width(case):
    hits, total = case
    estimate = proportion(hits, total)
    assert estimate.value == float(Fraction(hits, total))
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    assert estimate.low < estimate.high


def test_nothing_of_nothing_says_nothing():
    assert proportion(0, 0) == Estimate(0.0, 0.0, 1.0)


def test_metrics_gate_and_report_need_no_torch():
    modules = ("gate", "metrics", "report", "classification", "candidate", "scoring")
    program = "import sys\n" + "".join(f"import trainpipe_assets.evaluation.{name}\n" for name in modules) + "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "False"
