"""The Parquet files that a Delta table is made of: which they are, and their rows. What they mean to a table is `delta.py`'s."""

from collections.abc import Mapping, Sequence

import polars as pl
from deltalake import DeltaTable, WriterProperties

FILE = "_file"
"""Column with the URI of the file that a row is in."""

FILE_BYTES = 8 << 20  # of a data file, about: it is rewritten whole for one row that changes
PACKED = 4  # bytes in memory for one in a file, about
ROW_GROUP = 16_384  # rows that a reader has to decode at once, several times over: it reads ahead
DICTIONARY_BYTES = 1 << 16  # of a column in a row group; one of texts or keys never repeats, and gives up its dictionary the sooner
WRITER = WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP, dictionary_page_size_limit=DICTIONARY_BYTES)
"""How delta-rs has to write data files, where it does: when it compacts a table."""


def row_group(row_bytes: float | None) -> int:
    """Rows of a row group: fewer where they are long, of about `row_bytes` in memory each, since a writer and a reader hold them all."""
    return ROW_GROUP if row_bytes is None else max(1, min(ROW_GROUP, int(PACKED * FILE_BYTES / max(1.0, row_bytes))))


def data_files(delta: DeltaTable) -> pl.DataFrame:
    """`path` (relative to the table), `size_bytes` and `num_records` of each."""
    return pl.DataFrame(delta.get_add_actions(flatten=True)).select("path", "size_bytes", "num_records")


def read_files(uris: Sequence[str], schema: Mapping[str, pl.DataType], options: dict[str, str] | None) -> pl.LazyFrame:
    """Their rows, of the columns `schema`, with `FILE`; `options` are those of the storage."""
    if not uris:
        return pl.LazyFrame(schema={**schema, FILE: pl.String()})
    return pl.scan_parquet(list(uris), hive_partitioning=False, glob=False, storage_options=options, include_file_paths=FILE)
