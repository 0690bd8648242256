"""Whether rows are all there: those of a file, those made from others, those of a group in one split.

Told by a number for each row, so that tables of any length are proved in some bytes a row. The keys themselves are looked at only where
numbers do not agree.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from trainpipe_assets.schemas import SPLITS
from trainpipe_assets.storage.delta import KEY
from trainpipe_assets.storage.row_numbers import having, number_of, numbers_of, repeated


@dataclass(frozen=True)
class Partition:
    """How many keys of the parts are there more than once, how many of the whole are in none, and how many are not of the whole."""

    repeated: int
    missing: int
    from_elsewhere: int


def partition(whole: pl.LazyFrame, parts: pl.LazyFrame) -> Partition:
    """Whether the keys of `whole` are those of all `parts`, none missing, none twice, none from elsewhere."""
    wanted, found = numbers_of(whole, KEY), numbers_of(parts, KEY)
    twice = repeated(found)
    if not len(twice) and np.array_equal(wanted, found):
        return Partition(0, 0, 0)
    doubtful = np.union1d(np.setxor1d(wanted, found), twice)
    keys, together = (having(rows, doubtful, KEY).select(KEY) for rows in (whole, parts))
    return Partition(
        repeated=_count(together.group_by(KEY).len().filter(pl.col("len") > 1)),
        missing=_count(keys.join(together, on=KEY, how="anti")),
        from_elsewhere=_count(together.join(keys, on=KEY, how="anti")),
    )


def groups_in_two_splits(examples: pl.LazyFrame) -> int:
    """How many duplicate groups have examples in more than one split."""
    group, n_splits = "duplicate_group", len(SPLITS)
    number = number_of(group) // n_splits
    marked = number * n_splits + pl.col("split").cast(pl.Enum(SPLITS)).to_physical()
    found = np.sort(examples.select(marked).collect(engine="streaming").to_series().to_numpy())
    different = found[np.append(True, found[1:] != found[:-1])[: len(found)]]
    doubtful = repeated(different // np.uint64(n_splits))
    if not len(doubtful):
        return 0
    groups = examples.filter(number.is_in(pl.Series(doubtful).implode())).group_by(group).agg(splits=pl.col("split").n_unique())
    return _count(groups.filter(pl.col("splits") > 1))


def files_of(raw: pl.LazyFrame) -> pl.DataFrame:
    """The files of `raw_data`, one row each: `rows`, how many `different` keys, `first` and `last` position of a record, `problems`.

    Keys carry the record's position: positions without gap or repeat mean that no record was lost or doubled.
    """
    position = pl.col(KEY).str.extract(r"-(\d+)$").cast(pl.Int64)
    file = ("file_id", "source_file")
    files = raw.group_by(file).agg(rows=pl.len(), first=position.min(), last=position.max(), problems=pl.col("problem").count())
    again = having(raw, repeated(numbers_of(raw, KEY)), KEY).group_by(file).agg(again=pl.len() - pl.col(KEY).n_unique())
    return (
        files.collect(engine="streaming")
        .join(again.collect(), on=file, how="left", nulls_equal=True)
        .with_columns(different=pl.col("rows") - pl.col("again").fill_null(0))
        .drop("again")
    )


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect().item())
