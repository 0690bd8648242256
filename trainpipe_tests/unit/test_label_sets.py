"""Sets of labels: their normal form, their metrics against scikit-learn, the evaluation and its page."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, hamming_loss, log_loss, roc_auc_score

from trainpipe_assets.data import label_sets
from trainpipe_assets.data.reading.parquet import read_parquet
from trainpipe_assets.evaluation.intervals import draws
from trainpipe_assets.evaluation.label_set_metrics import (
    LabelSets,
    average_precision,
    bootstrap_label_sets,
    measure,
    multi_hot,
    roc_auc,
)
from trainpipe_assets.evaluation.label_set_report import render_label_set_report
from trainpipe_assets.evaluation.label_sets import evaluate_label_sets
from trainpipe_assets.evaluation.report import ReportContext, summary_markdown
from trainpipe_assets.evaluation.scoring import align_label_sets
from trainpipe_assets.settings import CleaningSettings, EvaluationSettings, PipelineSettings, SourceSettings

SETTINGS = EvaluationSettings(bootstrap_samples=100, mistakes=3)
LABELS = ("action", "comedy", "<b>drama", "rare")
CONTEXT = ReportContext(
    title="Evaluation",
    evaluation_id="e",
    evaluated_at=datetime(2026, 1, 1, tzinfo=UTC),
    model_uri="m",
    model_fingerprint="f",
    dataset_uri="d",
    dataset_version=1,
    base_model="b",
    validations=[{"step": 2, "loss": 0.6, "micro_f1": 0.5}],
    history=[{"step": 1, "loss": 1.0}],
)


def simulated(count: int, seed: int = 0, skill: float = 1.5) -> LabelSets:
    """Probabilities that follow the labels with noise, of two decimals so that some are equal; the last label is on no example."""
    random = np.random.default_rng(seed)
    truth = random.random((count, 4)) < np.array([0.5, 0.3, 0.2, 0.0])
    logits = skill * (2 * truth - 1) + random.normal(size=truth.shape)
    return LabelSets(truth, np.round(1 / (1 + np.exp(-logits)), 2).clip(0.01, 0.99))


def by_scikit_learn(sets: LabelSets) -> dict[str, float]:
    truth, predicted = sets.truth, sets.predicted
    there = truth.any(axis=0) | predicted.any(axis=0)
    return {
        "macro_f1": f1_score(truth[:, there], predicted[:, there], average="macro", zero_division=0),
        "micro_f1": f1_score(truth, predicted, average="micro", zero_division=0),
        "subset_accuracy": accuracy_score(truth, predicted),
        "hamming_loss": hamming_loss(truth, predicted),
        "log_loss": log_loss(truth.ravel(), sets.probabilities.ravel(), labels=[False, True]),
    }


def test_the_metrics_are_those_of_scikit_learn() -> None:
    sets = simulated(200)
    assert measure(sets) == pytest.approx(by_scikit_learn(sets), rel=1e-9)
    for label in range(3):
        ranked = average_precision(sets, label)
        assert ranked is not None
        assert ranked.value == pytest.approx(average_precision_score(sets.truth[:, label], sets.probabilities[:, label]))
        assert 0.0 <= ranked.low < ranked.value < ranked.high <= 1.0
        assert roc_auc(sets, label) == pytest.approx(roc_auc_score(sets.truth[:, label], sets.probabilities[:, label]))
    assert average_precision(sets, 3) is None
    assert roc_auc(sets, 3) is None


def test_each_resample_has_the_metrics_of_the_rows_that_it_drew() -> None:
    sets = simulated(60)
    found = bootstrap_label_sets(sets, 10, seed=3).resampled
    macro, expected_macro = found.pop("macro_f1"), []
    there = (sets.truth | sets.predicted).any(axis=0)
    for index, rows in enumerate(np.concatenate(list(draws(60, 10, 3)))):
        drawn = LabelSets(sets.truth[rows], sets.probabilities[rows])
        expected_metrics = by_scikit_learn(drawn)
        del expected_metrics["macro_f1"]  # that is of the labels of the sample, whichever were drawn
        expected_macro.append(f1_score(drawn.truth[:, there], drawn.predicted[:, there], average="macro", zero_division=0))
        assert {name: values[index] for name, values in found.items()} == pytest.approx(expected_metrics, rel=1e-9)
    assert macro == pytest.approx(np.array(expected_macro))


def test_no_label_anywhere_is_no_division_by_zero() -> None:
    none = LabelSets(np.zeros((3, 2), dtype=bool), np.full((3, 2), 0.1))
    found = measure(none)
    assert (found["macro_f1"], found["micro_f1"], found["subset_accuracy"], found["hamming_loss"]) == (0.0, 0.0, 1.0, 0.0)


def test_lists_of_ids_become_flags() -> None:
    flags = multi_hot(pl.Series([[0, 2], [], [1]], dtype=pl.List(pl.Int32)), 3)
    assert flags.tolist() == [[True, False, True], [False, False, False], [False, True, False]]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("b, A", '["a", "b"]'),
        ('["B", " a ", "a"]', '["a", "b"]'),
        ("[]", "[]"),
        ('["é"]', '["é"]'),
        ("[1, true]", '["1", "true"]'),
        ("film", '["movie"]'),
        ("a,,b,", '["a", "b"]'),
        ("[a, b]", None),
        ('[["a"]]', None),
        (" , ", None),
        (None, None),
    ],
)
def test_a_set_has_one_spelling(given: str | None, found: str | None) -> None:
    form = label_sets.LabelSets(CleaningSettings(label_aliases={"film": "movie"}))
    assert pl.DataFrame({"label": pl.Series([given], dtype=pl.String)}).select(form.normalised(pl.col("label"))).item() == found


def test_the_first_broken_rule_says_what_is_wrong() -> None:
    form = label_sets.LabelSets(CleaningSettings(labels=("a", "b"), label_separator="|"))
    given = pl.DataFrame({"label": ["a|b", "a|c|d", "[a", "", None, "[]"]}).with_columns(clean_label=form.normalised(pl.col("label")))
    rules = form.rules()
    found = given.select(rule=pl.coalesce([pl.when(broken).then(why) for _, broken, why in rules]))["rule"].to_list()
    missing = "the labels are null or empty; [] says that there are none"
    assert found == [None, "label(s) 'c', 'd' are not among: a, b", "'[a' is no list of labels", missing, missing, None]


def test_parquet_lists_are_read(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["x", "y", "z"], "label": [["a", "b"], [], None]}).write_parquet(tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as file:
        (frame,) = read_parquet(file, None, SourceSettings(kind="multi-labelled"))
    assert frame["label"].to_list() == ['["a", "b"]', "[]", None]
    with (tmp_path / "a.parquet").open("rb") as file, pytest.raises(ValueError, match="a number or a boolean is expected"):
        list(read_parquet(file, None, SourceSettings()))


def examples_of(sets: LabelSets) -> pl.DataFrame:
    count = len(sets.truth)
    return pl.DataFrame(
        {
            "row_id": [f"r{index:03d}" for index in range(count)],
            "source_file": [f"{index % 2}.csv" for index in range(count)],
            "text": ["<i>text</i>"] * count,
            "label_ids": pl.Series([np.flatnonzero(row).tolist() for row in sets.truth], dtype=pl.List(pl.Int32)),
            "n_tokens": [5 + index % 7 for index in range(count)],
        }
    )


def test_an_evaluation_puts_everything_together() -> None:
    sets, worse = simulated(150), simulated(150, skill=0.2)
    found = evaluate_label_sets(examples_of(sets), LABELS, sets.probabilities, worse.probabilities, SETTINGS)
    assert {name: estimate.value for name, estimate in found.metrics.items()} == pytest.approx(measure(sets))
    assert found.verdict.passed
    assert found.comparison is not None
    assert found.comparison.differences["macro_f1"].low > 0.0
    assert found.comparison.fixed - found.comparison.broken == sets.right.sum() - worse.right.sum()
    right = found.predictions.select((pl.col("labels") == pl.col("predicted")).mean()).item()
    assert right == pytest.approx(found.metrics["subset_accuracy"].value)
    assert found.mistakes.height == 3
    assert sum(b.count for b in found.calibration) == 150 * 4
    assert found.rows[0].precision.low <= found.rows[0].precision.value <= found.rows[0].precision.high
    page = render_label_set_report(found, CONTEXT)
    assert "<b>" not in page
    assert "<i>text" not in page
    for words in ("Average precision", "ROC AUC", "Hamming loss", "By length", "most frequent set", "all labels right", "better"):
        assert words in page, words
    assert "| Micro F1 |" in summary_markdown(found)


def test_the_baseline_is_the_better_constant() -> None:
    truth = np.array([[1, 0], [1, 0], [1, 1], [0, 1]], dtype=bool)
    found = evaluate_label_sets(examples_of(LabelSets(truth, truth * 0.8)), ("a", "b"), truth * 0.8, None, SETTINGS)
    assert found.baseline_set == ("a",)
    assert found.baseline["subset_accuracy"] == 0.5
    assert found.baseline["micro_f1"] == pytest.approx(2 * 5 / (5 + 8))  # all labels; the most frequent set has 2 * 3 / (5 + 4)
    assert found.baseline["hamming_loss"] == pytest.approx(3 / 8)


def test_labels_that_a_former_model_does_not_know_get_nothing() -> None:
    found = align_label_sets(np.array([[0.9, 0.8]]), ("a", "b"), ("b", "c"))
    assert found.tolist() == [[0.8, 0.0]]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "needs source.kind multi-labelled, found labelled"),
        ({"source": {"kind": "multi-labelled"}, "evaluation": {"gate": {"metric": "accuracy"}}}, "looks at macro_f1 or micro_f1"),
        ({"source": {"kind": "multi-labelled"}, "cleaning": {"target_range": [0, 1]}}, "are for task text-regression"),
    ],
)
def test_settings_that_make_no_sense_for_sets_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PipelineSettings.model_validate({"task": "multi-label-classification", **changes})
