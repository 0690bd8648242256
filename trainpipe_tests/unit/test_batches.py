"""Rows batch by batch: made ahead, read in turn, set down in parts."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import polars as pl
import pytest
from psutil import Process

from trainpipe_assets.data.batches import ahead, in_turn
from trainpipe_assets.data.spilling import in_parts

PATIENCE_SECONDS = 30.0


def test_the_next_item_is_made_while_the_consumer_is_at_work() -> None:
    begun = Event()

    def items() -> Iterator[int]:
        yield 1
        begun.set()
        yield 2

    coming = ahead(items())
    assert next(coming) == 1
    assert begun.wait(PATIENCE_SECONDS)
    assert list(coming) == [2]


def test_what_was_made_before_a_failure_is_delivered() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the file breaks off")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="breaks off"):
        next(coming)


def test_only_the_columns_asked_for_are_computed() -> None:
    def fail(texts: pl.Series) -> pl.Series:
        raise AssertionError("nobody asked for it")

    frames = [pl.LazyFrame({"a": [n, n + 1]}).with_columns(b=pl.col("a").map_batches(fail, return_dtype=pl.Int64)) for n in (0, 10)]
    assert in_turn(frames).filter(pl.col("a") > 0).select("a").collect()["a"].to_list() == [1, 10, 11]


def test_parts_hold_all_rows_and_those_of_a_key_together(tmp_path: Path) -> None:
    rows = pl.LazyFrame({"key": [n % 700 for n in range(7000)], "n": range(7000)}, schema={"key": pl.UInt64, "n": pl.Int64})
    before = Process().num_fds()
    parts = [part.collect() for part in in_parts(rows, pl.col("key"), 7000, 20, tmp_path / "parts")]
    assert len(parts) == 350
    assert pl.concat(parts).sort("n").equals(rows.collect())
    assert sum(part["key"].n_unique() for part in parts) == 700
    assert Process().num_fds() <= before + 10
