"""Compaction and vacuum: the same rows in fewer files, pinned versions stay readable, the others say why they are not."""

import os
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from trainpipe_assets.storage.data_files import ROW_GROUP
from trainpipe_assets.storage.delta import MissingTable, Table, commit, find
from trainpipe_assets.storage.differences import difference
from trainpipe_assets.storage.maintenance import maintain

NO_KEYS = pl.DataFrame(schema={"row_id": pl.String})


def rows(*keys: str) -> pl.LazyFrame:
    return pl.LazyFrame({"row_id": keys}, schema={"row_id": pl.String})


def keys_of(table: Table) -> list[str]:
    return sorted(table.scan().collect()["row_id"])


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Versions 1 to 5 with one file and one row more each, as if they had been written ten days ago."""
    now = None
    for key in "abcde":
        now = commit(str(tmp_path / "t"), now, rows(key), NO_KEYS, fingerprint=1, upstream=1, note={}).table
    assert now is not None
    for path in (tmp_path / "t").rglob("*"):
        os.utime(path, (time.time() - 864_000,) * 2)
    return now


def test_rows_and_identity_stay_while_files_are_merged(table: Table) -> None:
    done = maintain(table.uri, [], retention_hours=24)
    assert done is not None
    assert (done.files_merged, done.files_written) == (5, 1)
    now = find(table.uri)
    assert now is not None
    assert keys_of(now) == keys_of(table) == ["a", "b", "c", "d", "e"]
    assert now.data_version == table.data_version
    assert now.version > table.version
    assert len(now.file_uris()) == 1
    assert list((Path(table.uri) / "_delta_log").glob("*.checkpoint.parquet"))


def test_what_was_not_processed_before_the_compaction_is_still_told_apart(table: Table) -> None:
    maintain(table.uri, [3], retention_hours=24)
    now = find(table.uri)
    assert now is not None
    found = difference(now, since=3)
    assert found is not None
    assert sorted(found.added.collect()["row_id"]) == ["d", "e"]
    assert found.removed.is_empty()


def test_pinned_versions_outlive_the_vacuum_and_others_say_that_they_did_not(table: Table) -> None:
    maintain(table.uri, [], retention_hours=24)
    age(table)
    done = maintain(table.uri, [2], retention_hours=0)
    assert done is not None
    assert done.files_deleted == 3
    pinned = find(table.uri, 2)
    assert pinned is not None
    assert keys_of(pinned) == ["a", "b"]
    with pytest.raises(MissingTable, match=r"version 4 of table .* vacuumed.*retention_hours"):
        find(table.uri, 4)


def test_versions_within_the_retention_stay(table: Table) -> None:
    maintain(table.uri, [], retention_hours=24)
    done = maintain(table.uri, [], retention_hours=24)
    assert done is not None
    assert done.files_deleted == 0
    yesterday = find(table.uri, 5)
    assert yesterday is not None
    assert keys_of(yesterday) == ["a", "b", "c", "d", "e"]


def test_done_again_it_does_nothing(table: Table) -> None:
    maintain(table.uri, [], retention_hours=0)
    first = find(table.uri)
    again = maintain(table.uri, [], retention_hours=0)
    assert first is not None
    assert again is not None
    assert (again.version, again.files_merged, again.files_deleted) == (first.version, 0, 0)


def test_the_leavings_of_a_killed_writer_go_once_they_are_old(table: Table) -> None:
    old, young = Path(table.uri) / "part-old.parquet", Path(table.uri) / "part-young.parquet"
    for path in (old, young):
        path.write_bytes(b"half of a file")
    os.utime(old, (time.time() - 864_000,) * 2)
    maintain(table.uri, [], retention_hours=24)
    assert not old.exists()
    assert young.exists()


def test_the_log_keeps_what_a_pinned_version_needs(table: Table) -> None:
    assert DeltaTable(table.uri).metadata().configuration["delta.enableExpiredLogCleanup"] == "false"


def test_merged_files_are_written_as_those_of_a_commit(tmp_path: Path) -> None:
    now = None
    for part in range(3):
        keys = (f"{part}-{number}" for number in range(ROW_GROUP // 2))
        now = commit(str(tmp_path), now, rows(*keys), NO_KEYS, fingerprint=1, upstream=1, note={}).table
    maintain(str(tmp_path), [], retention_hours=24)
    (merged,) = DeltaTable(tmp_path).file_uris()
    written = pq.ParquetFile(merged).metadata
    groups = [written.row_group(number) for number in range(written.num_row_groups)]
    assert sum(group.num_rows for group in groups) == 3 * (ROW_GROUP // 2)
    assert max(group.num_rows for group in groups) <= ROW_GROUP
    assert {group.column(0).compression for group in groups} == {"ZSTD"}


def test_no_table_is_no_mistake(tmp_path: Path) -> None:
    assert maintain(str(tmp_path / "none"), [], retention_hours=24) is None


def age(table: Table) -> None:
    """Make all files look ten days old."""
    for path in Path(table.uri).rglob("*"):
        os.utime(path, (time.time() - 864_000,) * 2)


def test_after_a_vacuum_an_increment_is_still_what_is_new(table: Table) -> None:
    for _week in range(3):
        maintain(table.uri, [], retention_hours=0)
        age(table)
    with pytest.raises(MissingTable):
        find(table.uri, table.version)
    compacted = find(table.uri)
    later = commit(table.uri, compacted, rows("f"), NO_KEYS, fingerprint=1, upstream=1, note={}).table
    maintain(table.uri, [], retention_hours=24)
    for now in (later, find(table.uri)):
        assert now is not None
        found = difference(now, since=table.content)
        assert found is not None
        assert found.added.collect()["row_id"].to_list() == ["f"]
        assert found.removed.is_empty()
