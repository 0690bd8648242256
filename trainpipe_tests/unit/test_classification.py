"""The whole evaluation from probabilities, and the probabilities from a real (tiny) model."""

import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from trainpipe_assets.evaluation import metrics
from trainpipe_assets.evaluation.candidate import Unseen
from trainpipe_assets.evaluation.classification import PREDICTION_COLUMNS, evaluate
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.evaluation.scoring import align_labels, score
from trainpipe_assets.evaluation.slices import MAX_SOURCES, slice_masks
from trainpipe_assets.schemas import EVAL_REPORT, PREDICTIONS
from trainpipe_assets.settings import ComputeSettings, EvaluationSettings, GateSettings

LABELS = ("negative", "neutral", "positive")
QUICK = EvaluationSettings(bootstrap_samples=200)


def make_examples(size: int = 120, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    ids = random.integers(3, size=size)
    return pl.DataFrame(
        {
            "row_id": [f"row{index:04d}" for index in range(size)],
            "source_file": [f"part{index % 3}.csv" for index in range(size)],
            "text": [f"text {index}" for index in range(size)],
            "label": [LABELS[index] for index in ids],
            "label_id": pl.Series(ids, dtype=pl.Int32),
            "n_tokens": pl.Series(random.integers(4, 60, size=size), dtype=pl.Int32),
        }
    )


def make_probabilities(examples: pl.DataFrame, strength: float, seed: int = 1) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(examples.height, 3))
    logits[np.arange(examples.height), examples["label_id"].to_numpy()] += strength
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.fixture
def examples() -> pl.DataFrame:
    return make_examples()


def test_headline_metrics_are_those_of_metrics(examples):
    probabilities = make_probabilities(examples, 2.0)
    result = evaluate(examples, LABELS, probabilities, None, QUICK)
    ids, predicted = examples["label_id"].to_numpy(), probabilities.argmax(axis=1)
    assert {name: estimate.value for name, estimate in result.metrics.items()} == pytest.approx(
        {
            "accuracy": metrics.accuracy(ids, predicted),
            "macro_f1": metrics.macro_f1(ids, predicted, 3),
            "log_loss": metrics.log_loss(ids, probabilities),
            "calibration_error": metrics.expected_calibration_error(ids, probabilities, 10),
        }
    )
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in result.metrics.values())


def test_class_rows_are_those_of_another_library(examples):
    probabilities = make_probabilities(examples, 1.0)
    result = evaluate(examples, LABELS, probabilities, None, QUICK)
    expected = precision_recall_fscore_support(examples["label_id"].to_numpy(), probabilities.argmax(axis=1), labels=range(3))
    found = [(row.precision.value, row.recall.value, row.f1, row.support) for row in result.classes]
    assert found == [pytest.approx(row) for row in zip(*expected, strict=True)]
    assert [row.label for row in result.classes] == list(LABELS)
    assert [row.predicted for row in result.classes] == result.confusion.sum(axis=0).tolist()


def test_slices_cover_the_split_once_in_each_dimension(examples):
    result = evaluate(examples, LABELS, make_probabilities(examples, 1.0), None, QUICK)
    for dimension in ("source", "length"):
        rows = [row for row in result.slices if row.dimension == dimension]
        assert sum(row.n for row in rows) == examples.height
        mean = sum(row.n * row.accuracy.value for row in rows) / examples.height
        assert mean == pytest.approx(result.metrics["accuracy"].value)


def test_slices_that_are_not_asked_for_are_not_taken(examples):
    only_length = EvaluationSettings(bootstrap_samples=100, slices=("length",))
    result = evaluate(examples, LABELS, make_probabilities(examples, 1.0), None, only_length)
    assert {row.dimension for row in result.slices} == {"length"}


def test_mistakes_are_the_most_confident_wrong_predictions(examples):
    result = evaluate(examples, LABELS, make_probabilities(examples, 1.0), None, EvaluationSettings(bootstrap_samples=100, mistakes=5))
    wrong = result.predictions.filter(pl.col("label") != pl.col("predicted"))
    assert wrong.height > 5
    assert result.mistakes["confidence"].to_list() == sorted(wrong["confidence"], reverse=True)[:5]
    assert (result.mistakes["label"] != result.mistakes["predicted"]).all()


def test_predictions_are_rows_of_their_schema(examples):
    probabilities = make_probabilities(examples, 1.0)
    table = evaluate(examples, LABELS, probabilities, None, QUICK).predictions
    assert dict(table.schema) == {name: dtype for name, dtype in PREDICTIONS.items() if name != "evaluation_id"}
    assert tuple(table.columns) == PREDICTION_COLUMNS
    assert table["row_id"].to_list() == examples["row_id"].to_list()
    assert np.array_equal(np.array(table["probabilities"].to_list()), probabilities)
    assert table["predicted"].to_list() == [LABELS[index] for index in probabilities.argmax(axis=1)]
    assert table["confidence"].to_list() == probabilities.max(axis=1).tolist()


def test_the_baseline_predicts_the_most_frequent_label():
    examples = make_examples(10).with_columns(
        label_id=pl.Series([2] * 7 + [0] * 3, dtype=pl.Int32), label=pl.Series(["positive"] * 7 + ["negative"] * 3)
    )
    result = evaluate(examples, LABELS, make_probabilities(examples, 3.0), None, QUICK)
    assert result.baseline_label == "positive"
    assert result.baseline == pytest.approx({"accuracy": 0.7, "macro_f1": (2 * 7 / 17) / 2})


def test_a_much_worse_model_fails_against_the_previous_one(examples):
    good, poor = make_probabilities(examples, 4.0), make_probabilities(examples, 1.2, seed=2)
    result = evaluate(examples, LABELS, poor, good, QUICK)
    assert result.comparison is not None
    assert result.comparison.differences["macro_f1"].high < 0
    assert not result.verdict.passed
    assert "loss beyond" in result.verdict.reasons[2]
    assert evaluate(examples, LABELS, good, poor, QUICK).verdict.passed


def test_comparison_turns_around_with_the_models(examples):
    first, second = make_probabilities(examples, 2.0), make_probabilities(examples, 1.0, seed=2)
    one, other = (evaluate(examples, LABELS, *pair, QUICK).comparison for pair in ((first, second), (second, first)))
    assert one is not None
    assert other is not None
    assert (one.fixed, one.broken) == (other.broken, other.fixed)
    for name, difference in one.differences.items():
        mirrored = other.differences[name]
        assert (difference.value, difference.low, difference.high) == pytest.approx((-mirrored.value, -mirrored.high, -mirrored.low))


def test_fixed_and_broken_explain_the_difference_in_accuracy(examples):
    result = evaluate(examples, LABELS, make_probabilities(examples, 2.0), make_probabilities(examples, 1.0, seed=2), QUICK)
    assert result.comparison is not None
    change = (result.comparison.fixed - result.comparison.broken) / examples.height
    assert result.comparison.differences["accuracy"].value == pytest.approx(change)


def test_the_same_model_again_passes(examples):
    probabilities = make_probabilities(examples, 1.0)
    result = evaluate(examples, LABELS, probabilities, probabilities, QUICK)
    assert result.verdict.passed
    assert result.comparison is not None
    assert result.comparison.differences["macro_f1"] == Estimate(0.0, 0.0, 0.0)


def test_the_gate_settings_are_applied(examples):
    strict = EvaluationSettings(bootstrap_samples=100, gate=GateSettings(metric="accuracy", min_value=1.0))
    assert not evaluate(examples, LABELS, make_probabilities(examples, 1.0), None, strict).verdict.passed


def test_an_evaluation_is_deterministic(examples):
    probabilities, previous = make_probabilities(examples, 2.0), make_probabilities(examples, 1.0)
    first, second = (evaluate(examples, LABELS, probabilities, previous, QUICK) for _ in range(2))
    assert (first.metrics, first.slices, first.comparison, first.verdict) == (
        second.metrics,
        second.slices,
        second.comparison,
        second.verdict,
    )
    assert first.mistakes.equals(second.mistakes)


def test_history_fields_fill_their_part_of_the_history(examples):
    fields = evaluate(examples, LABELS, make_probabilities(examples, 2.0), None, QUICK).history_fields()
    assert set(fields) == {
        "n_examples", "accuracy", "macro_f1", "log_loss", "calibration_error", "metrics", "gate_passed", "gate_reasons",
    }  # fmt: skip
    row = pl.DataFrame([fields], schema={name: EVAL_REPORT[name] for name in fields}).row(0, named=True)
    stored = json.loads(row["metrics"])
    assert stored["accuracy"]["low"] <= row["accuracy"] == stored["accuracy"]["value"] <= stored["accuracy"]["high"]
    assert len(json.loads(row["gate_reasons"])) == 3


def test_a_handful_of_examples_can_be_evaluated():
    examples = make_examples(8)
    perfect = np.eye(3)[examples["label_id"].to_numpy()]
    result = evaluate(examples, LABELS, perfect, perfect, QUICK)
    assert result.metrics["accuracy"].value == 1.0
    assert all(row.accuracy.low < 1.0 for row in result.slices)  # a slice keeps a width where nothing was wrong
    assert result.mistakes.is_empty()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop("n_tokens"), r"lack the columns \['n_tokens'\]"),
        (lambda frame: frame.clear(), "test split is empty"),
        (lambda frame: frame.with_columns(label_id=pl.lit(3, pl.Int32)), "does not know, the first is row row0000"),
        (lambda frame: frame.with_columns(label_id=pl.lit(None, pl.Int32)), "does not know"),
        (lambda frame: frame.head(5), r"the model have shape \(120, 3\); 5 examples"),
    ],
)
def test_examples_that_do_not_fit_are_refused(examples, change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(change(examples), LABELS, make_probabilities(examples, 1.0), None, QUICK)


def test_previous_probabilities_that_do_not_fit_are_refused(examples):
    probabilities = make_probabilities(examples, 1.0)
    with pytest.raises(ValueError, match="the previous model have shape"):
        evaluate(examples, LABELS, probabilities, probabilities[:, :2], QUICK)


def test_diverged_probabilities_are_refused(examples):
    with pytest.raises(ValueError, match="not finite"):
        evaluate(examples, LABELS, np.full((examples.height, 3), math.nan), None, QUICK)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=60), st.lists(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=60, max_size=60)
)
@settings(max_examples=50)
def test_each_example_is_in_exactly_one_slice(lengths, sources):
    frame = pl.DataFrame({"n_tokens": pl.Series(lengths, dtype=pl.Int32), "source_file": sources[: len(lengths)]})
    for dimension in ("source", "length"):
        slices = list(slice_masks(dimension, frame))
        assert np.array_equal(sum(mask.astype(int) for _, mask in slices), np.ones(len(lengths)))
        assert all(mask.any() for _, mask in slices)
        assert len({name for name, _ in slices}) == len(slices)


def test_many_source_files_share_a_last_slice():
    names = [f"file{index:02d}" for index in range(MAX_SOURCES + 5) for _ in range(1 + (index < 3))]
    slices = list(slice_masks("source", pl.DataFrame({"source_file": names})))
    assert len(slices) == MAX_SOURCES
    assert [name for name, _ in slices[:3]] == ["file00", "file01", "file02"]
    assert slices[-1][0] == "6 other files"
    assert slices[-1][1].sum() == 6


def test_align_labels_moves_drops_and_adds_labels():
    probabilities = np.array([[0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    aligned = align_labels(probabilities, ("a", "b", "gone"), ("b", "a", "new"))
    assert aligned == pytest.approx(np.array([[0.3 / 0.9, 0.6 / 0.9, 0.0], [1 / 3, 1 / 3, 1 / 3]]))
    assert np.array_equal(align_labels(aligned, ("a", "b", "c"), ("a", "b", "c")), aligned)


def test_models_without_a_common_label_are_not_aligned():
    with pytest.raises(ValueError, match="share none"):
        align_labels(np.array([[0.5, 0.5]]), ("a", "b"), ("c", "d"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    """A tiny BERT classifier with random weights: real files, real forward pass."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(59))]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=40,
        initializer_range=0.5, num_labels=3, id2label=dict(enumerate(LABELS)), label2id={name: index for index, name in enumerate(LABELS)},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(vocabulary), model_max_length=40).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tokenized() -> pl.DataFrame:
    random = np.random.default_rng(0)
    rows = [[2, *random.integers(5, 64, size=random.integers(0, 30)).tolist(), 3] for _ in range(40)]
    return pl.DataFrame({"row_id": [f"row{index}" for index in range(40)], "input_ids": pl.Series(rows, dtype=pl.List(pl.Int32))})


CPU = ComputeSettings(device="cpu", precision="float32", threads=1)


def test_scores_are_those_of_each_example_alone_in_the_order_of_the_rows(model_folder, tokenized):
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(model_folder).eval()
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([row])).logits.softmax(-1)[0].tolist() for row in tokenized["input_ids"].to_list()]
    probabilities = score(model_folder, tokenized, CPU, batch_tokens=128)
    assert probabilities.dtype == np.float64
    assert probabilities == pytest.approx(np.array(alone), abs=1e-5)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(40), abs=1e-12)
    assert len(set(probabilities.argmax(axis=1))) > 1  # the model does tell examples apart


@pytest.mark.parametrize("batch_tokens", [16, 64, 100_000])
def test_scores_do_not_depend_on_the_batches(model_folder, tokenized, batch_tokens):
    found = score(model_folder, tokenized, CPU, batch_tokens)
    assert found == pytest.approx(score(model_folder, tokenized, CPU, 128), abs=1e-5)


def test_a_report_is_in_float32_also_where_training_is_not_unless_bf16_is_asked_for(model_folder, tokenized, monkeypatch):
    from trainpipe_assets.training import compute

    monkeypatch.setattr(compute, "_has_native_bf16", lambda _device: True)
    exact, found, rounded = (
        score(model_folder, tokenized, ComputeSettings(device="cpu", precision=precision, threads=1), 128)
        for precision in ("float32", "auto", "bf16")
    )
    assert (found == exact).all()
    assert not (rounded == exact).all()
    assert rounded == pytest.approx(exact, abs=0.05)


def test_scoring_leaves_the_threads_of_the_process_as_they_were(model_folder, tokenized):
    import torch

    before = torch.get_num_threads()
    score(model_folder, tokenized, ComputeSettings(device="cpu", precision="float32", threads=before + 1), 128)
    assert torch.get_num_threads() == before


def test_a_batch_that_does_not_fit_the_memory_is_halved(model_folder, tokenized, monkeypatch):
    import torch

    from trainpipe_assets.training.tasks import classification

    sizes = []

    def tight(model, inputs, real=classification.outputs):
        sizes.append(inputs.input_ids.numel())
        if inputs.input_ids.numel() > 100:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, inputs)

    expected = score(model_folder, tokenized, CPU, 64)
    monkeypatch.setattr(classification, "outputs", tight)
    assert score(model_folder, tokenized, CPU, 512) == pytest.approx(expected, abs=1e-5)
    assert max(sizes) > 100


def test_a_fault_that_is_not_of_memory_is_not_retried(model_folder, tokenized, monkeypatch):
    from trainpipe_assets.training.tasks import classification

    calls = []

    def broken(model, inputs):
        calls.append(1)
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(classification, "outputs", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        score(model_folder, tokenized, CPU, 512)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no example to score"),
        ([[2, 3], []], "no tokens, the first is row 'row1'"),
        ([[2, 64, 3]], "64 tokens"),
        ([[5] * 41], "41 tokens"),
    ],
)
def test_tokens_that_the_model_cannot_take_are_refused(model_folder, rows, message):
    frame = pl.DataFrame({"row_id": [f"row{index}" for index in range(len(rows))], "input_ids": pl.Series(rows, dtype=pl.List(pl.Int32))})
    with pytest.raises(ValueError, match=message):
        score(model_folder, frame, CPU, 128)


def test_a_folder_without_a_model_is_refused(tmp_path, tokenized):
    with pytest.raises(ValueError, match="no model folder"):
        score(str(tmp_path / "nothing"), tokenized, CPU, 128)


def test_only_what_the_previous_model_has_not_seen_is_compared(examples):
    probabilities, honest = make_probabilities(examples, 2.0), make_probabilities(examples, 2.0, seed=3)
    seen = np.arange(examples.height) % 3 > 0
    perfect = np.eye(3)[examples["label_id"].to_numpy()] * 0.98 + 0.01 * np.ones((examples.height, 3)) * (2 / 3)
    contaminated = np.where(seen[:, None], perfect / perfect.sum(axis=1, keepdims=True), honest)
    found = evaluate(examples, LABELS, probabilities, contaminated, QUICK, unseen=Unseen(~seen, "; some were left out"))
    alone = evaluate(examples.filter(~seen), LABELS, probabilities[~seen], honest[~seen], QUICK)
    assert found.comparison == alone.comparison
    assert found.comparison.candidate == alone.metrics
    assert found.verdict.reasons[-1].endswith("; some were left out.")
    assert not evaluate(examples, LABELS, probabilities, contaminated, QUICK).verdict.passed
    nothing = evaluate(examples, LABELS, probabilities, contaminated, QUICK, unseen=Unseen(np.zeros_like(seen), "; all were left out"))
    assert nothing.comparison is None
    assert nothing.verdict.reasons[-1] == "The previous model is not compared with; all were left out."
    everything = evaluate(examples, LABELS, probabilities, honest, QUICK, unseen=Unseen(np.ones_like(seen), ""))
    assert everything.comparison == evaluate(examples, LABELS, probabilities, honest, QUICK).comparison
