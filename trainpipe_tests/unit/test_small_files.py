"""Many small files, which are read several at a time: in order, in bounded batches, and none that changed meanwhile."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from trainpipe_assets.data import ingestion
from trainpipe_assets.data.sources import FileChangedWhileReading, list_landed
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.data_plane import put

SOURCE = SourceSettings(settle_seconds=0)


def ingested(folder: Path) -> pl.LazyFrame:
    landed = list_landed(str(folder / "landing"), SOURCE)
    increment = ingestion.ingest(str(folder / "raw_data"), None, landed, frozenset(), SOURCE, datetime.now(UTC)).increment
    return increment.added


def test_small_files_come_in_order_beside_large_and_empty_ones(tmp_path: Path) -> None:
    names = []
    for number in range(1_100):
        name, content = f"{number:05d}.csv", f"text,label\nfirst {number},a\nsecond {number},b\n".encode()
        if number % 300 == 7:
            name, content = f"{number:05d}.csv.gz", gzip.compress(content * 50_000)
        put(tmp_path / "landing" / name, b"" if number % 100 == 6 else content)
        names.append(name)
    rows = ingested(tmp_path).select("source_file", "line_number", "text", "problem").collect()
    assert rows["source_file"].unique(maintain_order=True).to_list() == names
    assert rows.filter(pl.col("problem").is_not_null() & pl.col("source_file").str.ends_with("csv")).height == 11
    assert rows.filter(pl.col("text") == "first 8")["line_number"].to_list() == [2]


def test_a_compressed_file_is_never_held_whole(tmp_path: Path) -> None:
    put(tmp_path / "landing" / "a.csv", b"")
    put(tmp_path / "landing" / "b.csv.gz", gzip.compress(b"text,label\n" + b"some text,a\n" * 400_000))
    put(tmp_path / "landing" / "c.csv", b"")
    sizes = [len(batch) for batch in ingested(tmp_path).select("text").collect_batches(maintain_order=True)]
    assert sum(sizes) == 400_002
    files = list_landed(str(tmp_path / "landing"), SOURCE)
    assert [ingestion._most_bytes(file, SOURCE) > ingestion.TOGETHER_BYTES for file in files] == [False, True, False]


def test_one_that_changes_among_them_stops_the_step(tmp_path: Path) -> None:
    for number in range(20):
        put(tmp_path / "landing" / f"{number:02d}.csv", f"text,label\nfirst {number},a\n".encode())
    rows = ingested(tmp_path)
    put(tmp_path / "landing" / "11.csv", b"text,label\nanother,a\nand one more,b\n")
    with pytest.raises((FileChangedWhileReading, pl.exceptions.ComputeError), match=r"11\.csv changed while it was being read"):
        rows.collect(engine="streaming")
