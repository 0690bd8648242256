"""Frames that are made batch by batch while they are being consumed, so that memory does not grow with the data."""

from collections.abc import Callable, Iterator

import polars as pl
from polars.io.plugins import register_io_source


def from_batches(batches: Callable[[], Iterator[pl.DataFrame]], schema: pl.Schema) -> pl.LazyFrame:
    """A frame of the rows that `batches` yields, called anew each time the frame is consumed. It is always read whole."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del n_rows, batch_size
        for batch in batches():
            selected = batch if with_columns is None else batch.select(with_columns)
            yield selected if predicate is None else selected.filter(predicate)

    return register_io_source(source, schema=schema, is_pure=False)


def mapped(frame: pl.LazyFrame, function: Callable[[pl.DataFrame], pl.DataFrame], schema: pl.Schema, rows: int) -> pl.LazyFrame:
    """`function`, whose result has `schema`, of at most `rows` rows of `frame` at a time."""

    def batches() -> Iterator[pl.DataFrame]:
        for chunk in frame.collect_batches(chunk_size=rows, engine="streaming"):
            for part in chunk.iter_slices(rows):
                yield function(part)

    return from_batches(batches, schema)
