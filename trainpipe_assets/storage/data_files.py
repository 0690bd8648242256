"""The Parquet files that a Delta table is made of: which they are, and their rows. What they mean to a table is `delta.py`'s."""

from collections.abc import Mapping, Sequence

import polars as pl
from deltalake import DeltaTable

FILE = "_file"
"""Column with the URI of the file that a row is in."""


def data_files(delta: DeltaTable) -> pl.DataFrame:
    """`path` (relative to the table), `size_bytes` and `num_records` of each."""
    return pl.DataFrame(delta.get_add_actions(flatten=True)).select("path", "size_bytes", "num_records")


def read_files(uris: Sequence[str], schema: Mapping[str, pl.DataType], options: dict[str, str] | None) -> pl.LazyFrame:
    """Their rows, of the columns `schema`, with `FILE`; `options` are those of the storage."""
    if not uris:
        return pl.LazyFrame(schema={**schema, FILE: pl.String()})
    return pl.scan_parquet(list(uris), hive_partitioning=False, glob=False, storage_options=options, include_file_paths=FILE)
