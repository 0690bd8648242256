"""What a dataset must have to be trained on, and what is told of one that makes a worse model."""

import polars as pl
import pytest

from trainpipe_assets.data.splitting import named_like_splits, require_trainable, split_rank, split_sizes
from trainpipe_assets.settings import SplitSettings

SETTINGS = SplitSettings()


def tokens(train: list[int], others: list[int], n_tokens: int = 5) -> pl.LazyFrame:
    """Tokenized examples: the label ids of the training split, and those of each of the other two."""
    labels = {"train": train, "validation": others, "test": others}
    rows = [(split, label, n_tokens) for split, ids in labels.items() for label in ids]
    return pl.LazyFrame(rows, schema=["split", "label_id", "n_tokens"], orient="row")


def told(examples: pl.LazyFrame, *labels: str) -> list[str]:
    return require_trainable(split_sizes(examples, longest=8), "text-classification", labels, SETTINGS)


def test_a_dataset_with_all_classes_is_told_nothing_of() -> None:
    assert told(tokens([0, 1] * 10, [0, 1] * 4), "a", "b") == []


def test_a_class_without_training_examples_stops_nothing_and_is_named() -> None:
    (warning,) = told(tokens([0, 1] * 10, [0, 1, 2] * 4), "a", "b", "rare")
    assert warning.startswith("label(s) rare have no example in the training split: the model cannot learn them")
    many = [f"label {number}" for number in range(30)]
    (warning,) = told(tokens([0, 1] * 10, [0, 1] * 4), *many)
    assert "label 21 and 8 more have no example" in warning


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"label\(s\) b have no example in the training split .*, a classifier needs two or more"):
        told(tokens([0] * 20, [0, 1] * 4), "a", "b")


def test_that_many_texts_are_cut_is_told() -> None:
    (warning,) = told(tokens([0, 1] * 10, [0, 1] * 4, n_tokens=8), "a", "b")
    assert warning == "36 of 36 texts (100%) fill the longest input: what is longer was cut (model.max_length)"
    few = pl.concat([tokens([0, 1] * 20, [0, 1] * 20), tokens([0, 1], [], n_tokens=8)])
    assert told(few, "a", "b") == []


def test_files_named_like_splits_are_known() -> None:
    own = ["test-00000-of-00001.parquet", "data/validation.csv", "movies_TEST.jsonl.gz", "dev/a.csv", "eval.json"]
    others = ["latest.csv", "contest.csv", "train-00000.parquet", "developers.csv", "evaluation-of-films.csv"]
    assert named_like_splits([*own, *others], SETTINGS) == own
    named = SplitSettings(test_files=("test-*.parquet", "*.gz"), validation_files="**/dev/*")
    assert named_like_splits([*own, *others, "val.csv"], named) == ["data/validation.csv", "eval.json", "val.csv"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("test.csv", {"test.csv"}),
        ("**/test.csv", {"test.csv", "a/test.csv", "a/b/test.csv"}),
        ("*/test*", {"a/test.csv"}),
        ("a/**", {"a/test.csv", "a/b/test.csv", "a/b/train.csv"}),
        ("**/t????.csv", {"a/b/train.csv"}),
    ],
)
def test_patterns_of_files(pattern: str, matched: set[str]) -> None:
    paths = ["test.csv", "a/test.csv", "a/b/test.csv", "a/b/train.csv"]
    ranks = pl.DataFrame({"path": paths}).select(split_rank(pl.col("path"), SplitSettings(test_files=pattern))).to_series()
    assert {path for path, rank in zip(paths, ranks, strict=True) if rank == 0} == matched


@pytest.mark.parametrize(
    "pattern", ["", "/data/test.csv", "../test.csv", "test/", "te**st.csv", "s3://bucket/test.csv", "./test.csv", "test.csv "]
)
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"is no pattern of files: paths below the folder of the source, as test\.csv"):
        SplitSettings(test_files=pattern)


def test_a_share_may_be_nothing_where_files_are_the_split() -> None:
    assert SplitSettings(test=0.0, test_files="test.csv").drawn == (0.0, 0.1)
    assert SplitSettings(test=0.9, validation=0.2, test_files="test.csv").drawn == (0.0, 0.2)
    with pytest.raises(ValueError, match=r"split\.validation must be above 0, or split\.validation_files name some"):
        SplitSettings(validation=0.0, test_files="test.csv")


def test_that_no_file_matches_is_part_of_the_message() -> None:
    named = SplitSettings(test_files=("tset.csv",))
    counts = split_sizes(tokens([0, 1] * 10, [0, 1] * 4).filter(pl.col("split") != "test"), longest=8)
    found = r"split\(s\) test: found train 20, validation 8, test 0.*; split\.test_files is tset\.csv: the metadata .*\. Land more data or"
    with pytest.raises(ValueError, match=found):
        require_trainable(counts, "text-classification", ("a", "b"), named)
