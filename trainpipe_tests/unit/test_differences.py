"""What changed of a table between two versions."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from trainpipe_assets.storage import data_files, row_numbers, writing
from trainpipe_assets.storage.delta import Commit, Table, commit, find
from trainpipe_assets.storage.differences import difference


def rows(*keys: str) -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": keys, "size": [len(key) for key in keys]}, schema={"row_id": pl.String, "size": pl.Int64})


def keys(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"row_id": names}, schema={"row_id": pl.String})


def apply(uri: Path | str, base: Table | None, added: pl.LazyFrame, removed: pl.DataFrame | None) -> Commit:
    return commit(str(uri), base, added, removed, fingerprint=11, upstream=5, note={"run_id": "r1"})


@pytest.fixture
def first(tmp_path: Path) -> Table:
    return apply(tmp_path / "t", None, rows("a", "b", "c"), None).table


def test_the_difference_is_what_came_and_went(first: Table) -> None:
    second = apply(first.uri, first, rows("d", "e"), keys("a")).table
    third = apply(first.uri, second, rows("f"), keys("e")).table
    found = difference(third, first.version)
    assert found is not None
    assert sorted(found.added.collect()["row_id"]) == ["d", "f"]
    assert found.removed["row_id"].to_list() == ["a"]


def test_compaction_is_no_difference(first: Table) -> None:
    second = apply(first.uri, first, rows("d"), keys()).table
    DeltaTable(first.uri).optimize.compact()
    now = find(first.uri)
    assert now is not None
    assert now.content == second.content
    found = difference(now, second.version)
    assert found is not None
    assert found.added.collect().is_empty()
    assert found.removed.is_empty()


def test_a_rewrite_of_the_same_rows_is_no_difference(first: Table) -> None:
    again = apply(first.uri, first, rows("a", "b", "c"), None).table
    found = difference(again, first.version)
    assert found is not None
    assert found.added.collect().is_empty()
    assert found.removed.is_empty()


def test_a_vacuumed_version_has_no_difference_to_read(first: Table) -> None:
    second = apply(first.uri, first, rows("d"), keys("a")).table
    DeltaTable(first.uri).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert difference(second, first.version) is None


def test_a_row_whose_split_changes_is_gone_and_come(tmp_path: Path) -> None:
    def split(key: str, name: str) -> pl.LazyFrame:
        return pl.LazyFrame({"row_id": [key], "split": [name]})

    before = apply(tmp_path / "t", None, pl.concat([split("a", "train"), split("b", "train")]), None).table
    after = apply(before.uri, before, split("a", "test"), keys("a")).table
    found = difference(after, before.version)
    assert found is not None
    assert found.added.collect().rows() == [("a", "test")]
    assert found.removed["row_id"].to_list() == ["a"]


def test_of_files_that_were_rewritten_only_what_is_new_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (data_files, writing):
        monkeypatch.setattr(module, "FILE_BYTES", 20_000)
    generator = np.random.default_rng(3)
    held = {f"{number:06d}" for number in range(60_000)}
    first = table = apply(tmp_path / "t", None, rows(*sorted(held)), None).table
    assert len(table.rows_by_file) > 3
    for turn in range(3):
        gone = set(generator.choice(sorted(held), 5, replace=False))
        come = {f"{turn}-{number}" for number in range(7)} | set(sorted(gone)[:2])  # two are updated
        table = apply(table.uri, table, rows(*sorted(come)), keys(*gone)).table
        held = held - gone | come
    if len(table.rows_by_file) > 1:
        DeltaTable(table.uri).optimize.compact()
    now = find(table.uri)
    assert now is not None
    assert set(now.scan().collect()["row_id"]) == held
    found = difference(now, first.version)
    assert found is not None
    before = set(first.scan().collect()["row_id"])
    assert sorted(found.added.collect()["row_id"]) == sorted(held - before)
    assert sorted(found.removed["row_id"]) == sorted(before - held)


def test_rows_that_cannot_be_told_apart_mean_that_everything_is_built_anew(first: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    second = apply(first.uri, first, rows("d", "e"), keys("a")).table
    monkeypatch.setattr(row_numbers, "number_of", lambda *_: pl.col("row_id").is_in(["d"]).cast(pl.UInt64))
    assert difference(second, first.version) is None
