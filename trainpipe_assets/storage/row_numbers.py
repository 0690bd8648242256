"""A number for each row, where millions of rows are compared by their keys: eight bytes of each are held, and not the keys."""

from functools import reduce
from operator import xor

import numpy as np
import polars as pl
from numpy.typing import NDArray

Numbers = NDArray[np.uint64]


def number_of(*columns: str) -> pl.Expr:
    """64 bits of hash of the values in `columns`. One pair of different values in 2^64 has the same."""
    return reduce(xor, (pl.col(name).hash(seed) for seed, name in enumerate(columns)))


def numbers_of(rows: pl.LazyFrame, *columns: str) -> Numbers:
    """The numbers of all rows, in ascending order."""
    return np.sort(rows.select(number_of(*columns)).collect(engine="streaming").to_series().to_numpy())


def having(rows: pl.LazyFrame, numbers: Numbers, *columns: str) -> pl.LazyFrame:
    """The rows whose numbers are among `numbers`."""
    return rows.filter(number_of(*columns).is_in(pl.Series(numbers).implode()))


def repeated(numbers: Numbers) -> Numbers:
    """Those of ascending `numbers` that are there more than once."""
    found: Numbers = numbers[1:][numbers[1:] == numbers[:-1]]
    return found
