"""Rows set down on local disk between two steps, whole or in parts, so that neither step has to hold them all.

The files lie in a scratch folder of the caller's, who removes it.
"""

from pathlib import Path

import polars as pl


def spilled(frame: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """The rows of `frame`, computed once and kept at `path`, in any order."""
    frame.sink_parquet(path, compression="lz4", statistics=False, maintain_order=False, engine="streaming")
    return pl.scan_parquet(path)


def in_parts(frame: pl.LazyFrame, key: pl.Expr, rows: int, folder: Path) -> list[pl.LazyFrame]:
    """The rows of `frame` in parts of about `rows` rows or less; those with the same `key`, an unsigned integer, share a part."""
    n_parts = -(-frame.select(pl.len()).collect().item() // rows)
    if n_parts <= 1:
        return [frame]
    by_part = pl.PartitionBy(folder, key=(key % n_parts).alias("part"), include_key=False, approximate_bytes_per_file=None)
    frame.sink_parquet(by_part, compression="lz4", statistics=False, mkdir=True, maintain_order=False, engine="streaming")
    return [pl.scan_parquet(part / "*.parquet", hive_partitioning=False) for part in sorted(folder.iterdir())]
