"""Rows set down on local disk between two steps, whole or in parts, so that neither step has to hold them all.

The files lie in a scratch folder of the caller's, who removes it.
"""

from pathlib import Path

import polars as pl

ROW_GROUP = 8_192  # rows of each part that are gathered in memory before they are written


def spilled(frame: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    """The rows of `frame`, computed once and kept at `path`, in any order."""
    _sink(frame, path)
    return pl.scan_parquet(path)


def in_parts(frame: pl.LazyFrame, key: pl.Expr, n_rows: int, part_rows: int, folder: Path) -> list[pl.LazyFrame]:
    """The rows of `frame`, about `n_rows`, computed once and kept in `folder` in parts of about `part_rows` or less.

    Those with the same `key`, an unsigned integer, share a part.
    """
    n_parts = -(-n_rows // part_rows)
    if n_parts <= 1:
        return [spilled(frame, folder / "all.parquet")]
    _sink(frame, pl.PartitionBy(folder, key=(key % n_parts).alias("part"), include_key=False, approximate_bytes_per_file=None))
    return [pl.scan_parquet(part / "*.parquet", hive_partitioning=False) for part in sorted(folder.glob("part=*"))]


def _sink(frame: pl.LazyFrame, target: Path | pl.PartitionBy) -> None:
    frame.sink_parquet(
        target,
        compression="uncompressed",  # compressing costs more than the rest of it
        statistics=False,
        row_group_size=ROW_GROUP,
        mkdir=True,
        maintain_order=False,
        engine="streaming",
    )
