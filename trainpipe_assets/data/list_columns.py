"""Columns of lists made of numpy's arrays: all values in a row, and where each list begins."""

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray


def offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several runs begins, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)])


def list_column(name: str, values: NDArray[np.generic], bounds: NDArray[np.int64], dtype: pl.DataType) -> pl.Series:
    """The lists between `bounds`, which are the `offsets` of their lengths. Arrow's own `array` would import pandas for it."""
    arrow = pa.LargeListArray.from_arrays(pl.Series(bounds).to_arrow(), pl.Series(values).to_arrow())
    return pl.Series(name, arrow, dtype=dtype)
