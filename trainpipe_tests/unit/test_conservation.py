"""What proves that no row was lost, doubled or leaked, on tables where some were."""

import polars as pl
import pytest

from trainpipe_assets.data import conservation
from trainpipe_assets.data.conservation import Partition, files_of, groups_in_two_splits, partition
from trainpipe_assets.storage import row_numbers


def keys(*names: str) -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": names}, schema={"row_id": pl.String})


def grouped(*rows: tuple[str, str]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema={"duplicate_group": pl.String, "split": pl.String}, orient="row")


@pytest.fixture(params=["hashes", "all rows have one number"])
def numbered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is, and where no two numbers differ: then keys alone can tell."""
    if request.param != "hashes":
        alike = pl.col("row_id").str.len_bytes().cast(pl.UInt64) * 0
        monkeypatch.setattr(row_numbers, "number_of", lambda *_: alike)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["a", "b", "c"], Partition(0, 0, 0)),
        (["c", "a", "b"], Partition(0, 0, 0)),
        (["a", "b"], Partition(0, 1, 0)),
        ([], Partition(0, 3, 0)),
        (["a", "b", "c", "b", "b"], Partition(1, 0, 0)),
        (["a", "b", "d"], Partition(0, 1, 1)),
        (["a", "a", "d", "e"], Partition(1, 2, 2)),
    ],
)
@pytest.mark.usefixtures("numbered")
def test_a_partition_is_told_from_what_is_none(parts: list[str], expected: Partition) -> None:
    assert partition(keys("a", "b", "c"), keys(*parts)) == expected


def test_nothing_is_a_partition_of_nothing() -> None:
    assert partition(keys(), keys()) == Partition(0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 0),
        ([("a", "train"), ("a", "train"), ("b", "test"), ("c", "validation")], 0),
        ([("a", "train"), ("a", "test"), ("b", "test")], 1),
        ([("a", "train"), ("a", "test"), ("a", "validation"), ("b", "test"), ("b", "train"), ("c", "train")], 2),
    ],
)
@pytest.mark.parametrize("alike", [False, True])
def test_groups_that_leak_are_counted(rows: list[tuple[str, str]], expected: int, alike: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if alike:
        monkeypatch.setattr(conservation, "number_of", lambda name: pl.col(name).str.len_bytes().cast(pl.UInt64))
    assert groups_in_two_splits(grouped(*rows)) == expected


def test_records_that_were_lost_or_doubled_show_in_their_file() -> None:
    ids = ["f1-000000001", "f1-000000002", "f1-000000003", "f2~0a1b-000000001", "f2~0a1b-000000003", "f3-000000001", "f3-000000001", "f4-0"]
    raw = pl.LazyFrame({"row_id": ids, "problem": [None] * 7 + ["damaged"]}, schema_overrides={"problem": pl.String}).with_columns(
        file_id=pl.col("row_id").str.slice(0, 2), source_file=pl.col("row_id").str.slice(0, 2) + ".csv"
    )
    files = files_of(raw).sort("file_id").select("file_id", "rows", "different", "first", "last", "problems")
    assert files.rows() == [("f1", 3, 3, 1, 3, 0), ("f2", 2, 2, 1, 3, 0), ("f3", 2, 1, 1, 1, 0), ("f4", 1, 1, 0, 0, 1)]
