"""What changed of a table between two versions, in memory of some bytes a row and not of the rows.

A file that is rewritten, by a replacement of rows or a compaction, holds mostly rows that were there before. Which of them are new is
told by a number for each row, those of all files that came against those of all files that went.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.storage import s3
from trainpipe_assets.storage.data_files import FILE, read_files
from trainpipe_assets.storage.delta import KEY, MissingTable, Table, find

CHANGES = ("split",)  # what may change of a row, and matters downstream: the rest follows from its record

Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class Difference:
    """Rows that came (`added`, whole rows) and went (`removed`, keys only) between two versions of a table."""

    added: pl.LazyFrame
    removed: pl.DataFrame


def difference(table: Table, since: int) -> Difference | None:
    """What changed in `table` after version `since`; None where that cannot be told (any more).

    Only data files that came or went between the two versions are read. Rows on both sides cancel out; of a row with another of
    `CHANGES` one goes and one comes.
    """
    try:
        before = find(table.uri, since)
    except MissingTable:
        return None
    if before is None or before.version > table.version:
        return None
    old, new = before.file_uris(), table.file_uris()
    gone, come = sorted(old - new), sorted(new - old)
    if not gone or not come:
        return Difference(_read(table, come), _keys(_read(before, gone)))
    were = _numbers(before, gone)
    stay = np.zeros(len(were), dtype=bool)
    added, n_come = dict[str, Numbers](), 0
    for file in come:
        numbers = _numbers(table, [file])
        at = np.searchsorted(were, numbers)
        known = were.take(at, mode="clip") == numbers
        stay[at[known]] = True
        added[file] = numbers[~known]
        n_come += len(numbers)
    if n_come - sum(map(len, added.values())) != stay.sum():
        return None  # two keys have the same number, as one pair in 2^64 does
    return Difference(_having(table, added), _keys(_only(before, gone, were[~stay])))


def _read(table: Table, files: list[str]) -> pl.LazyFrame:
    return read_files(files, table.schema, s3.options(table.uri)).drop(FILE)


def _keys(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.select(KEY).collect(engine="streaming")


def _number(table: Table) -> pl.Expr:
    """Of a row, by its key and what may change of it."""
    columns = [name for name in (KEY, *CHANGES) if name in table.schema]
    return reduce(xor, (pl.col(name).hash(seed) for seed, name in enumerate(columns)))


def _numbers(table: Table, files: list[str]) -> Numbers:
    """The numbers of the rows of `files`, in ascending order."""
    return np.sort(_read(table, files).select(_number(table)).collect(engine="streaming").to_series().to_numpy())


def _only(table: Table, files: list[str], numbers: Numbers) -> pl.LazyFrame:
    """The rows of `files` with these numbers."""
    return _read(table, files).filter(_number(table).is_in(pl.Series(numbers).implode()))


def _having(table: Table, numbers: Mapping[str, Numbers]) -> pl.LazyFrame:
    """The rows with these numbers, by their files: where these are all rows of a file, nobody has to look for them."""
    whole = [file for file, some in numbers.items() if len(some) == table.rows_by_file[file]]
    others = [file for file, some in numbers.items() if 0 < len(some) < table.rows_by_file[file]]
    wanted = np.concatenate([np.empty(0, dtype=np.uint64), *(numbers[file] for file in others)])
    return pl.concat([_read(table, whole), _only(table, others, wanted)])
