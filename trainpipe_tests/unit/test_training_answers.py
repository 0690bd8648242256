"""What the tasks beside classification learn: their losses by the book, their symptoms, and what a spec must name."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from trainpipe_assets.schemas import TOKENIZED_LABEL_SETS, TOKENIZED_TARGETS
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.symptoms import no_label, one_number
from trainpipe_assets.training.tasks.multi_label import MULTI_LABEL
from trainpipe_assets.training.tasks.regression import REGRESSION
from trainpipe_tests.unit.training_fixtures import make_rows, make_spec, write_dataset, write_tiny_base


def numbers_spec(root: Path) -> TrainSpec:
    """A regression over numbers far from 0, one of which the tokens say nothing about."""
    rows = make_rows().with_columns(target=500.0 + 10.0 * pl.col("label_id")).select(TOKENIZED_TARGETS.names())
    write_tiny_base(root / "base")
    write_dataset(root / "dataset", rows)
    return make_spec(root, task="text-regression", labels=("price",))


def sets_spec(root: Path, **changes: object) -> TrainSpec:
    """A multi-label classification of three labels, one of which every text has."""
    ids = pl.concat_list(pl.lit(2, pl.Int32), pl.col("label_id")).list.sort()
    write_tiny_base(root / "base")
    write_dataset(root / "dataset", make_rows().with_columns(label_ids=ids).select(TOKENIZED_LABEL_SETS.names()))
    return make_spec(root, **{"task": "multi-label-classification", "labels": ("a", "b", "c"), **changes})


def test_a_regression_learns_standardized_numbers_by_squared_error(tmp_path: Path) -> None:
    spec = numbers_spec(tmp_path)
    train, validation = (REGRESSION.load(spec, split) for split in ("train", "validation"))
    assert train.labels.mean() == pytest.approx(0.0, abs=1e-6)
    assert train.labels.std() == pytest.approx(1.0, abs=1e-6)
    assert train.scale == validation.scale, "the validation split has a scale of its own"
    model = REGRESSION.load_model(spec).eval()
    inputs = REGRESSION.micro_batch(train, np.arange(8), 0)
    trained, reported = REGRESSION.losses(model, inputs, 0.0)
    logits = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits[:, 0]
    assert trained.item() == pytest.approx(reported.item())
    assert trained.item() == pytest.approx(mse_loss(logits, inputs.labels, reduction="sum").item(), rel=1e-5)
    scores = torch.from_numpy(validation.labels)[:, None]
    assert REGRESSION.summarize(validation, scores, 1, 1).loss == pytest.approx(0.0)
    assert set(REGRESSION.answers(model, scores).round(3)) == {500.0, 510.0}
    constant = REGRESSION.summarize(train, torch.zeros(len(train), 1), 1, 1)
    assert constant.loss == pytest.approx(1.0), "always predicting the mean costs one variance"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sets_of_labels_are_learnt_by_binary_cross_entropy(tmp_path: Path, smoothing: float) -> None:
    spec = sets_spec(tmp_path)
    train = MULTI_LABEL.load(spec, "train")
    assert train.labels.sum(axis=1).tolist() == [2.0] * 120
    model = MULTI_LABEL.load_model(spec).eval()
    inputs = MULTI_LABEL.micro_batch(train, np.arange(8), 0)
    trained, reported = MULTI_LABEL.losses(model, inputs, smoothing)
    logits = model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits
    hard, soft = (inputs.labels, inputs.labels * (1 - smoothing) + smoothing / 2)
    assert reported.item() == pytest.approx(8 * binary_cross_entropy_with_logits(logits, hard).item(), rel=1e-5)
    assert trained.item() == pytest.approx(8 * binary_cross_entropy_with_logits(logits, soft).item(), rel=1e-5)
    found = MULTI_LABEL.summarize(train, 20.0 * torch.from_numpy(train.labels) - 10.0, 1, 1)
    assert (found.micro_f1, found.macro_f1) == (1.0, 1.0)
    assert found.loss < 1e-3


def test_a_label_id_that_the_spec_does_not_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"but the spec names 2 labels"):
        MULTI_LABEL.load(sets_spec(tmp_path, labels=("a", "b")), "train")


@pytest.mark.parametrize(
    ("task", "labels"), [("text-regression", ()), ("text-regression", ("a", "b")), ("multi-label-classification", ("a",))]
)
def test_a_spec_names_as_many_outputs_as_its_task_has(tmp_path: Path, task: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"labels: {task} needs"):
        make_spec(tmp_path, task=task, labels=labels)


def test_answers_that_are_all_the_same_are_a_symptom() -> None:
    assert "the same number for all 3" in str(one_number(np.full(3, 0.5, np.float32), 2))
    assert one_number(np.array([0.5, 0.6], np.float32), 2) is None
    truth, nothing = np.array([[True, False], [True, True]]), np.zeros((2, 2), dtype=bool)
    assert "no label for any of 2 validation examples, which have 3" in str(no_label(truth, nothing, 1))
    assert no_label(truth, truth, 1) is None
    assert no_label(nothing, nothing, 1) is None
