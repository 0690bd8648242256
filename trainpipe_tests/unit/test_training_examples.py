"""Loading and padding examples, and refusing those that a model cannot take."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from trainpipe_assets.training.sequences import check_sequences, padded
from trainpipe_assets.training.tasks.examples import from_frame, load_examples
from trainpipe_tests.unit.training_fixtures import make_examples, make_rows, write_dataset


def test_the_order_of_storage_does_not_matter(tmp_path: Path) -> None:
    rows = make_rows()
    write_dataset(tmp_path / "sorted", rows)
    write_dataset(tmp_path / "shuffled", rows.sample(fraction=1.0, shuffle=True, seed=5))
    one, other = (load_examples(str(tmp_path / name), 0, "train", 2) for name in ("sorted", "shuffled"))
    assert one.row_ids.to_list() == other.row_ids.to_list() == sorted(rows.filter(pl.col("split") == "train")["row_id"])
    assert np.array_equal(one.tokens, other.tokens)
    assert one.digest() == other.digest()
    assert one.digest() != load_examples(str(tmp_path / "sorted"), 0, "validation", 2).digest()


def test_each_row_keeps_its_tokens_and_label(tmp_path: Path) -> None:
    rows = make_rows().sample(fraction=1.0, shuffle=True, seed=2)
    examples = load_examples(str(write_dataset(tmp_path / "dataset", rows)), 0, "validation", 2)
    stored = {row["row_id"]: row for row in rows.iter_rows(named=True)}
    for index, row_id in enumerate(examples.row_ids):
        tokens = examples.tokens[examples.offsets[index] : examples.offsets[index + 1]]
        assert tokens.tolist() == stored[row_id]["input_ids"]
        assert examples.labels[index] == stored[row_id]["label_id"]


def test_the_version_asked_for_is_read(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", make_rows(train=20))
    make_rows(train=50).write_delta(str(folder), mode="overwrite")
    assert len(load_examples(str(folder), 0, "train", 2)) == 20
    assert len(load_examples(str(folder), 1, "train", 2)) == 50


def test_padding_fills_the_end_and_the_mask_tells(tmp_path: Path) -> None:
    examples = from_frame(pl.DataFrame({"row_id": ["a", "b"], "label_id": [0, 1], "input_ids": [[5, 6, 7], [8]]}))
    input_ids, mask = padded(examples, np.array([1, 0]), pad_id=9)
    assert input_ids.tolist() == [[8, 9, 9], [5, 6, 7]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (make_rows(train=0), "no rows in split 'train'"),
        (make_rows().drop("label_id"), "no column.*label_id"),
        (make_rows().with_columns(label_id=pl.lit(None, pl.Int32)), "120 rows lack a label or tokens, the first is 'row-0000'"),
        (make_rows().with_columns(row_id=pl.lit("same")), "'same' occurs more than once"),
        (
            make_rows().with_columns(label_id=pl.lit(2, pl.Int32)),
            r"row-0000 has label_id 2, but the spec names 2 labels \(ids 0 to 1\)",
        ),
    ],
)
def test_a_dataset_that_cannot_train_is_refused(tmp_path: Path, rows: pl.DataFrame, said: str) -> None:
    write_dataset(tmp_path / "dataset", rows)
    with pytest.raises(ValueError, match=said):
        load_examples(str(tmp_path / "dataset"), 0, "train", 2)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"vocabulary": 60, "longest": 32}, "knows 60 tokens.*another base model"),
        ({"vocabulary": 64, "longest": 8}, "takes 8 at most.*model.max_length"),
    ],
)
def test_examples_that_do_not_fit_the_model_are_named(limits: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_sequences(make_examples(), **limits)
