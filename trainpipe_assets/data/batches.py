"""Frames that are made batch by batch while they are being consumed, so that memory does not grow with the data."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

Item = TypeVar("Item")
Result = TypeVar("Result")
Choose = Callable[[pl.LazyFrame], pl.LazyFrame]

MOST_THREADS = 4  # each holds a batch in memory
BATCH_BYTES = 64 << 20  # of a batch that a function is given, where it has more than one row


def from_batches(batches: Callable[[], Iterator[pl.DataFrame]], schema: pl.Schema) -> pl.LazyFrame:
    """A frame of the rows that `batches` yields, called anew each time the frame is consumed."""
    return _made_of(lambda chosen: (chosen(batch.lazy()).collect() for batch in batches()), schema)


def in_turn(frames: Sequence[pl.LazyFrame]) -> pl.LazyFrame:
    """The rows of all `frames`, of the same columns. As one query, each of them would be read ahead at the same time."""

    def batches(chosen: Choose) -> Iterator[pl.DataFrame]:
        for frame in frames:
            yield from chosen(frame).collect_batches(engine="streaming")

    return _made_of(batches, frames[0].collect_schema())


def mapped(
    frame: pl.LazyFrame,
    function: Callable[[pl.DataFrame], pl.DataFrame],
    schema: pl.Schema,
    rows: int,
    *,
    threads: bool = False,
    most_bytes: int = BATCH_BYTES,
) -> pl.LazyFrame:
    """`function`, whose result has `schema`, of at most `rows` rows of `frame` at a time, in several threads where that is safe.

    Where rows are long there are fewer, about `most_bytes` together.
    """
    slices = partial(_slices, frame, rows, most_bytes)
    return from_batches(lambda: concurrently(function, slices()) if threads else map(function, slices()), schema)


def concurrently(function: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None) -> Iterator[Result]:
    """`function` of each of `items` in order, a few ahead of the consumer, in `threads`: by default as many as Polars has, or fewer."""
    threads = threads or min(MOST_THREADS, pl.thread_pool_size())
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def count_rows(frame: pl.LazyFrame) -> int:
    """How many rows there are."""
    return int(frame.select(pl.len()).collect().item())


def runs(sizes: NDArray[np.int64], most: int, most_items: int | None = None) -> Iterator[slice]:
    """All items of these `sizes` in order, as many at a time as have `most` together and are no more than `most_items`; or one."""
    ends, start = np.cumsum(sizes), 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        stop = stop if most_items is None else min(stop, start + most_items)
        yield slice(start, stop)
        start = stop


def _made_of(batches: Callable[[Choose], Iterator[pl.DataFrame]], schema: pl.Schema) -> pl.LazyFrame:
    """A frame of what `batches` yields, which chooses the columns and the rows that the consumer wants."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del batch_size

        def chosen(frame: pl.LazyFrame) -> pl.LazyFrame:
            selected = frame if with_columns is None else frame.select(with_columns)
            return selected if predicate is None else selected.filter(predicate)

        left = n_rows
        for batch in batches(chosen):
            yield batch if left is None else batch.head(left)
            left = None if left is None else left - min(left, len(batch))
            if left == 0:
                return

    return register_io_source(source, schema=schema, is_pure=False)


def _slices(frame: pl.LazyFrame, rows: int, most_bytes: int) -> Iterator[pl.DataFrame]:
    for gathered in _gathered(frame.collect_batches(engine="streaming"), rows, most_bytes):
        bytes_each = gathered.estimated_size() / max(1, len(gathered))
        yield from gathered.iter_slices(max(1, min(rows, int(most_bytes / max(1.0, bytes_each)))))


def _gathered(batches: Iterable[pl.DataFrame], rows: int, most_bytes: int) -> Iterator[pl.DataFrame]:
    """As many batches together as have `rows` rows or `most_bytes`, whichever comes first, or all that are left."""
    held: list[pl.DataFrame] = []
    n_rows, n_bytes = 0, 0.0
    for batch in batches:
        held.append(batch)
        n_rows, n_bytes = n_rows + len(batch), n_bytes + batch.estimated_size()
        if n_rows >= rows or n_bytes >= most_bytes:
            yield pl.concat(held)
            held, n_rows, n_bytes = [], 0, 0.0
    if held:
        yield pl.concat(held)
