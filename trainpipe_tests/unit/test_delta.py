"""Delta tables: compare-and-swap commits and pinned reads."""

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from trainpipe_assets.storage.delta import Commit, ConcurrentWrite, MissingTable, Table, commit, find, scan
from trainpipe_assets.storage.differences import difference
from trainpipe_assets.storage.identity import fingerprint
from trainpipe_assets.storage.maintenance import maintain

SCHEMA = {"row_id": pl.String, "ids": pl.List(pl.Int32), "note": pl.String}


def rows(*keys: str, note: str | None = None) -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": keys, "ids": [[len(key), 7] for key in keys], "note": [note] * len(keys)}, schema=SCHEMA)


def keys(*names: str) -> pl.DataFrame:
    return pl.DataFrame({"row_id": names}, schema={"row_id": pl.String})


def apply(uri: Path | str, base: Table | None, added: pl.LazyFrame, removed: pl.DataFrame | None) -> Commit:
    return commit(str(uri), base, added, removed, fingerprint=11, upstream=5, note={"run_id": "r1"})


def content(table: Table) -> list[str]:
    return sorted(table.scan().collect()["row_id"])


@pytest.fixture
def first(tmp_path: Path) -> Table:
    return apply(tmp_path / "t", None, rows("a", "b", "c"), None).table


def test_a_commit_records_what_made_it(first: Table) -> None:
    assert (first.fingerprint, first.upstream, first.content, first.rows) == (11, 5, 1, 3)
    assert DeltaTable(first.uri).history(1)[0]["run_id"] == "r1"
    assert first.size_bytes == sum(path.stat().st_size for path in Path(first.uri).glob("*.parquet"))


@pytest.mark.parametrize("name", ["with blanks", "größer", "a#b?c", "{x}[y]*", "100 + 1=2"])
def test_a_table_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    uri = tmp_path / name / "t"
    first = apply(uri, None, rows("a", "b", "c"), None).table
    second = apply(uri, first, rows("d"), keys("a")).table
    emptied = apply(uri, second, rows(), None).table
    assert (content(scan_of(uri, 1)), content(scan_of(uri, 2)), content(emptied)) == (["a", "b", "c"], ["b", "c", "d"], [])
    assert emptied.schema == SCHEMA
    changes = difference(second, first.version)
    assert changes is not None
    assert changes.added.collect()["row_id"].to_list() == ["d"]
    assert maintain(str(uri), {1}, retention_hours=0) is not None
    assert (content(scan_of(uri, 1)), content(scan_of(uri, emptied.version))) == (["a", "b", "c"], [])
    with pytest.raises(MissingTable, match="were vacuumed"):
        find(str(uri), 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def scan_of(uri: Path, version: int) -> Table:
    found = find(str(uri), version)
    assert found is not None
    return found


def test_deletes_updates_and_inserts_are_one_commit(first: Table) -> None:
    done = apply(first.uri, first, rows("b", "d", note="new"), keys("a", "b"))
    assert done.table.version == first.version + 1
    assert content(done.table) == ["b", "c", "d"]
    assert done.table.scan().filter(pl.col("note") == "new").collect().height == 2


def test_the_history_counts_what_came_and_went(first: Table) -> None:
    second = apply(first.uri, first, rows("b", "d", note="new"), keys("a", "b", "x")).table
    third = apply(first.uri, second, rows("e"), keys()).table
    fourth = apply(first.uri, third, rows(), keys("b", "c", "d", "e")).table
    apply(first.uri, apply(first.uri, fourth, rows("f"), keys()).table, rows(), None)
    counted = [(made["trainpipe/rows_added"], made["trainpipe/rows_removed"]) for made in DeltaTable(first.uri).history(6)]
    assert counted == [("0", "1"), ("1", "0"), ("0", "4"), ("1", "0"), ("1", "1"), ("3", "0")]
    assert all(pl.read_parquet(path).height for path in Path(first.uri).glob("*.parquet")), "a file without rows was left behind"


def test_values_survive_the_round_trip_unscrambled(tmp_path: Path) -> None:
    texts = [f"text {number} ✓ {'x' * (number % 50)}" for number in range(5000)]
    frame = pl.LazyFrame({"row_id": [f"{n:05d}" for n in range(5000)], "ids": [[n, -n] for n in range(5000)], "note": texts}, schema=SCHEMA)
    table = apply(tmp_path / "t", None, frame, None).table
    assert table.scan().collect().sort("row_id").equals(frame.collect())


@pytest.mark.parametrize("removed", [None, keys(), keys("a")], ids=["rebuild", "append", "merge"])
def test_a_commit_onto_a_table_that_moved_is_refused(first: Table, removed: pl.DataFrame | None) -> None:
    winner = apply(first.uri, first, rows("d"), keys()).table
    with pytest.raises(ConcurrentWrite, match="run again"):
        apply(first.uri, first, rows("e"), removed)
    now = find(first.uri)
    assert now == winner
    assert content(winner) == ["a", "b", "c", "d"]


def test_a_commit_after_maintenance_is_refused_too(first: Table) -> None:
    second = apply(first.uri, first, rows("d"), keys()).table
    DeltaTable(first.uri).optimize.compact()
    with pytest.raises(ConcurrentWrite):
        apply(first.uri, second, rows("e"), keys())


def test_a_rebuild_may_change_the_columns(first: Table) -> None:
    done = apply(first.uri, first, pl.LazyFrame({"row_id": ["z"], "size": [1]}), None)
    assert done.table.schema.names() == ["row_id", "size"]
    assert done.removed == 3


def test_an_old_version_reads_as_it_was(first: Table) -> None:
    apply(first.uri, first, rows("d"), keys("a"))
    assert sorted(scan(first.uri, first.version).collect()["row_id"]) == ["a", "b", "c"]


def test_a_missing_table_is_told_from_a_missing_version(first: Table, tmp_path: Path) -> None:
    assert find(str(tmp_path / "nothing")) is None
    with pytest.raises(MissingTable, match="no Delta table"):
        scan(str(tmp_path / "nothing"), 0)
    with pytest.raises(MissingTable, match="version 99"):
        find(first.uri, 99)


def test_the_fingerprint_tells_values_and_structures_apart() -> None:
    prints = [fingerprint("a", 1), fingerprint("a", 2), fingerprint("a1"), fingerprint("a", "1"), fingerprint(["a", 1])]
    assert len(set(prints)) == 5
    assert all(0 <= value < 2**63 for value in prints)
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})
