"""Rows set down on local disk between two steps, whole or in parts, so that neither step has to hold them all.

The files lie in a scratch folder of the caller's, who removes it.
"""

from io import FileIO
from pathlib import Path

import polars as pl
from polars.io.partition import FileProviderArgs

ROW_GROUP = 8_192  # rows of each part that are gathered in memory before they are written; fewer where rows are long
GATHERED_BYTES = 64 << 20  # of all parts together, about


def spilled(frame: pl.LazyFrame, path: Path, row_bytes: float | None = None) -> pl.LazyFrame:
    """The rows of `frame`, of about `row_bytes` each where that is known, computed once and kept at `path`, in any order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileIO(path, "wb") as file:
        _sink(frame, file, 1, row_bytes)
    return pl.scan_parquet(path, glob=False)


def in_parts(
    frame: pl.LazyFrame, key: pl.Expr, n_rows: int, part_rows: int, folder: Path, row_bytes: float | None = None
) -> list[pl.LazyFrame]:
    """The rows of `frame`, about `n_rows`, computed once and kept in `folder` in parts of about `part_rows` or less.

    Those with the same `key`, an unsigned integer, share a part.
    """
    n_parts = -(-n_rows // part_rows)
    if n_parts <= 1:
        return [spilled(frame, folder / "all.parquet", row_bytes)]
    folder.mkdir(parents=True, exist_ok=True)

    def file_of(part: FileProviderArgs) -> _Handed:
        return _Handed(folder / f"{part.partition_keys.item()}-{part.index_in_partition}.parquet", "wb")

    part = (key % n_parts).alias("part")
    # Without a limit on their bytes, so that a part is one file.
    one_file_each = pl.PartitionBy(folder, key=part, include_key=False, approximate_bytes_per_file=None, file_path_provider=file_of)
    _sink(frame, one_file_each, n_parts, row_bytes)
    files = sorted(folder.glob("*.parquet"))
    return [pl.scan_parquet(path, glob=False) for path in files] or [spilled(frame, folder / "none.parquet")]


class _Handed(FileIO):
    """A file for Polars, which keeps a descriptor of its own."""

    def __del__(self) -> None:
        self.close()


def _sink(frame: pl.LazyFrame, target: FileIO | pl.PartitionBy, n_parts: int, row_bytes: float | None) -> None:
    """Write to files that are open already: those that Polars opens itself, twice, ext4 puts on the disk as soon as they are closed."""
    frame.sink_parquet(
        target,
        compression="uncompressed",  # compressing costs more than the rest of it
        statistics=False,
        row_group_size=ROW_GROUP if row_bytes is None else max(1, min(ROW_GROUP, int(GATHERED_BYTES / n_parts / max(1.0, row_bytes)))),
        maintain_order=False,
        engine="streaming",
    )
