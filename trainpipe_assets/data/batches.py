"""Frames that are made batch by batch while they are being consumed, so that memory does not grow with the data."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

import polars as pl
from polars.io.plugins import register_io_source

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4  # each holds a batch in memory


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


def in_turn(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """The rows of all `frames`, of the same columns. As one query, each of them would be read ahead at the same time."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del n_rows, batch_size
        for frame in frames:
            selected = frame if with_columns is None else frame.select(with_columns)
            chosen = selected if predicate is None else selected.filter(predicate)
            yield from chosen.collect_batches(engine="streaming")

    return register_io_source(source, schema=frames[0].collect_schema(), is_pure=False)


def mapped(
    frame: pl.LazyFrame, function: Callable[[pl.DataFrame], pl.DataFrame], schema: pl.Schema, rows: int, *, threads: bool = False
) -> pl.LazyFrame:
    """`function`, whose result has `schema`, of at most `rows` rows of `frame` at a time, in several threads where that is safe."""
    slices = partial(_slices, frame, rows)
    return from_batches(lambda: concurrently(function, slices()) if threads else map(function, slices()), schema)


def concurrently(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`function` of each of `items` in order, a few ahead of the consumer, in as many threads as Polars uses or `MOST_THREADS`."""
    threads = min(MOST_THREADS, pl.thread_pool_size())
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made by a thread of its own while the consumer is at work on the one before."""
    nothing = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, nothing)
        while (item := coming.result()) is not nothing:
            coming = pool.submit(next, items, nothing)
            yield cast(Item, item)


def _slices(frame: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    for chunk in frame.collect_batches(chunk_size=rows, engine="streaming"):
        yield from chunk.iter_slices(rows)
