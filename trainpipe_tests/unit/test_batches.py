"""Rows batch by batch: made ahead, read in turn, set down in parts."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from psutil import Process

from trainpipe_assets.data.batches import from_batches, in_turn, mapped
from trainpipe_assets.data.spilling import in_parts


def test_only_the_columns_asked_for_are_computed() -> None:
    def fail(texts: pl.Series) -> pl.Series:
        raise AssertionError("nobody asked for it")

    frames = [pl.LazyFrame({"a": [n, n + 1]}).with_columns(b=pl.col("a").map_batches(fail, return_dtype=pl.Int64)) for n in (0, 10)]
    assert in_turn(frames).filter(pl.col("a") > 0).select("a").collect()["a"].to_list() == [1, 10, 11]


def test_no_more_rows_are_made_than_were_asked_for() -> None:
    made = []

    def batches() -> Iterator[pl.DataFrame]:
        for number in range(5):
            made.append(number)
            yield pl.DataFrame({"a": [2 * number, 2 * number + 1]})

    frame = from_batches(batches, pl.Schema({"a": pl.Int64}))
    assert frame.head(3).collect()["a"].to_list() == [0, 1, 2]
    assert made == [0, 1]
    assert in_turn([frame, frame]).head(11).collect()["a"].to_list() == [*range(10), 0]


def test_long_rows_come_in_smaller_batches() -> None:
    sizes = []

    def note(batch: pl.DataFrame) -> pl.DataFrame:
        sizes.append((len(batch), batch["text"].str.len_bytes().sum()))
        return batch

    schema = pl.Schema({"text": pl.String})
    texts = pl.LazyFrame({"text": ["short"] * 40 + ["x" * 1_000_000] * 40})
    halves = (texts.head(40), texts.tail(40))
    assert pl.concat([mapped(half, note, schema, rows=20, most_bytes=5_000_000) for half in halves]).collect().equals(texts.collect())
    assert max(rows for rows, _ in sizes) <= 20
    assert max(size for _, size in sizes) <= 5_000_000
    assert len(sizes) < 20


def test_long_rows_are_not_gathered_by_their_number() -> None:
    texts = [pl.LazyFrame({"text": ["x" * 1_000_000] * 10}) for _ in range(20)]
    made = []

    def batches() -> Iterator[pl.DataFrame]:
        for frame in texts:
            made.append(len(made))
            yield frame.collect()

    schema = pl.Schema({"text": pl.String})
    first = []

    def note(batch: pl.DataFrame) -> pl.DataFrame:
        first.append(len(made))
        return batch

    assert mapped(from_batches(batches, schema), note, schema, rows=50_000, most_bytes=20_000_000).collect().height == 200
    assert first[0] < 10, "most rows were there before the first was worked on"


def test_parts_hold_all_rows_and_those_of_a_key_together(tmp_path: Path) -> None:
    rows = pl.LazyFrame({"key": [n % 700 for n in range(7000)], "n": range(7000)}, schema={"key": pl.UInt64, "n": pl.Int64})
    before = Process().num_fds()
    parts = [part.collect() for part in in_parts(rows, pl.col("key"), 7000, 20, tmp_path / "parts")]
    assert len(parts) == 350
    assert pl.concat(parts).sort("n").equals(rows.collect())
    assert sum(part["key"].n_unique() for part in parts) == 700
    assert Process().num_fds() <= before + 10
