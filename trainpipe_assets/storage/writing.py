"""What a commit to a Delta table adds and removes: rows written to new data files, and files written anew where rows go.

delta-rs's writer encodes on one core, and its merge takes all columns of the table apart to join them. Here Polars encodes on all, and one
column tells in which files the rows to go are, and what remains of those files is streamed to new ones. When that is done, and the commit,
are `delta.py`'s.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction
from polars.io.partition import FileProviderArgs

from trainpipe_assets.storage import s3
from trainpipe_assets.storage.data_files import FILE, FILE_BYTES, PACKED, data_files, read_files, row_group
from trainpipe_assets.storage.uris import open_filesystem


@dataclass(frozen=True)
class Written:
    """New files that lie there but are not part of the table yet: what a commit has to say, and how many keys come and go with it."""

    actions: Sequence[AddAction | RemoveAction]
    added: int
    removed: int


def write_rows(
    uri: str, delta: DeltaTable, rows: pl.LazyFrame, schema: pl.Schema, *, overwrite: bool, row_bytes: float | None = None
) -> Written:
    """Write `rows` to new files of `delta` at `uri`, whose columns are `schema`, or will be where they `overwrite` what is there.

    `row_bytes` is how many one has in memory, about, where that is known.
    """
    files = _Files(uri, schema, row_bytes)
    new = files.write(rows)
    removed = _rows_of(data_files(delta)) if overwrite else 0
    return Written(files.additions(new), _rows_of(new), removed)


def write_replacement(
    uri: str, delta: DeltaTable, rows: pl.LazyFrame, schema: pl.Schema, key: str, removed: pl.Series, row_bytes: float | None = None
) -> Written:
    """Write what it takes for `delta` at `uri`, whose columns are `schema`, to have `rows` and lose those whose `key` is in `removed`."""
    files, standing = _Files(uri, schema, row_bytes), data_files(delta)
    gone = files.read(standing["path"]).select(key, FILE).filter(pl.col(key).is_in(removed.implode())).collect(engine="streaming")
    leaving = standing.filter(files.uris(standing["path"]).is_in(gone[FILE].unique().implode()))
    went = pl.col(key).is_in(gone[key].implode())
    new = files.write(rows)
    updated = int(files.read(new["path"]).select(went.sum()).collect().item())
    staying = [files.write(files.read(portion["path"]).filter(~went)) for portion in _portions(leaving)]
    return Written([*files.additions(pl.concat([new, *staying])), *_removals(leaving)], _rows_of(new) - updated, gone.height - updated)


def _portions(files: pl.DataFrame) -> list[pl.DataFrame]:
    """`files` in portions of about one new file: written one after the other, they take the memory of one."""
    return files.with_columns(portion=pl.col("size_bytes").cum_sum() // FILE_BYTES).partition_by("portion")


def _rows_of(files: pl.DataFrame) -> int:
    return int(files["num_records"].sum())


class _Files:
    """Data files of the table at `uri` with the columns `schema`, of about `row_bytes` a row in memory."""

    def __init__(self, uri: str, schema: pl.Schema, row_bytes: float | None) -> None:
        self._uri, self._schema, self._row_group = uri, schema, row_group(row_bytes)
        self._options = s3.options(self._uri)

    def uris(self, paths: pl.Series) -> pl.Series:
        """Where the files at `paths` are."""
        return self._uri + "/" + paths

    def read(self, paths: pl.Series) -> pl.LazyFrame:
        """Their rows, with the URI of the file of each."""
        return read_files(self.uris(paths).to_list(), self._schema, self._options)

    def write(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """The new files that `rows` are in: `path` and `num_records`. One that came out without any is removed."""
        batch, paths = uuid4(), list[str]()

        def path_of(file: FileProviderArgs) -> str:
            paths.append(f"part-{file.index_in_partition:05d}-{batch}.parquet")
            return paths[-1]

        rows.select(self._schema.names()).cast(self._schema).sink_parquet(
            pl.PartitionBy(self._uri, file_path_provider=path_of, approximate_bytes_per_file=PACKED * FILE_BYTES),
            compression="zstd",
            compression_level=1,
            row_group_size=self._row_group,
            maintain_order=False,
            storage_options=self._options,
            engine="streaming",
        )
        written = self.read(pl.Series(paths, dtype=pl.String)).group_by(FILE).agg(num_records=pl.len()).collect()
        new = written.select(pl.col(FILE).str.strip_prefix(f"{self._uri}/").alias("path"), "num_records")
        filesystem, _ = open_filesystem(self._uri)
        for path in set(paths) - set(new["path"]):
            filesystem.rm_file(f"{self._uri}/{path}")
        return new

    def additions(self, new: pl.DataFrame) -> list[AddAction]:
        """What a commit says of new files."""
        filesystem, _ = open_filesystem(self._uri)
        now = _milliseconds()
        return [
            AddAction(
                path=path,
                size=filesystem.size(f"{self._uri}/{path}"),
                partition_values={},
                modification_time=now,
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            )
            for path, rows in new.select("path", "num_records").iter_rows()
        ]


def _removals(files: pl.DataFrame) -> list[RemoveAction]:
    now = _milliseconds()
    return [RemoveAction(path, True, now, size, {}) for path, size in files.select("path", "size_bytes").iter_rows()]


def _milliseconds() -> int:
    """The time that a commit gives: a vacuum counts from there."""
    return time.time_ns() // 1_000_000
