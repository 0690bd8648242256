"""What changed of a table between two versions, in memory of some bytes a row and not of the rows.

A file that is rewritten, by a replacement of rows or a compaction, holds mostly rows that were there before. Which of them are new is
told by a number for each row, those of all files that came against those of all files that went.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from trainpipe_assets.storage import s3
from trainpipe_assets.storage.data_files import FILE, read_files
from trainpipe_assets.storage.delta import KEY, MissingTable, Table, content_of, find
from trainpipe_assets.storage.row_numbers import Numbers, having, numbers_of

CHANGES = ("split",)  # what may change of a row, and matters downstream: the rest follows from its record


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
        before = _last_of(table, since)
    except MissingTable:
        return None
    if before is None or before.version > table.version:
        return None
    old, new = before.file_uris(), table.file_uris()
    gone, come = sorted(old - new), sorted(new - old)
    if not gone or not come:
        return Difference(_read(table, come), _keys(_read(before, gone)))
    columns = [name for name in (KEY, *CHANGES) if name in table.schema]
    were = numbers_of(_read(before, gone), *columns)
    stay = np.zeros(len(were), dtype=bool)
    added, n_come = dict[str, Numbers](), 0
    for file in come:
        numbers = numbers_of(_read(table, [file]), *columns)
        at = np.searchsorted(were, numbers)
        known = were.take(at, mode="clip") == numbers
        stay[at[known]] = True
        added[file] = numbers[~known]
        n_come += len(numbers)
    if n_come - sum(map(len, added.values())) != stay.sum():
        return None  # two keys have the same number, as one pair in 2^64 does
    return Difference(_rows_of(table, added, columns), _keys(having(_read(before, gone), were[~stay], *columns)))


def _last_of(table: Table, since: int) -> Table | None:
    """The newest version with the rows of version `since`. Maintenance after it left other files, which are those that later ones share,
    and has removed the former ones by and by."""
    version = since
    while version + 1 < table.version and content_of(table.uri, version + 1) == since:
        version += 1
    return find(table.uri, version)


def _read(table: Table, files: list[str]) -> pl.LazyFrame:
    return read_files(files, table.schema, s3.options(table.uri)).drop(FILE)


def _keys(rows: pl.LazyFrame) -> pl.DataFrame:
    return rows.select(KEY).collect(engine="streaming")


def _rows_of(table: Table, numbers: Mapping[str, Numbers], columns: list[str]) -> pl.LazyFrame:
    """The rows with these numbers, by their files: where these are all rows of a file, nobody has to look for them."""
    whole = [file for file, some in numbers.items() if len(some) == table.rows_by_file[file]]
    others = [file for file, some in numbers.items() if 0 < len(some) < table.rows_by_file[file]]
    wanted = np.concatenate([np.empty(0, dtype=np.uint64), *(numbers[file] for file in others)])
    return pl.concat([_read(table, whole), having(_read(table, others), wanted, *columns)])
