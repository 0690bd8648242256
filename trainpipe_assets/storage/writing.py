"""What a commit to a Delta table adds and removes: rows written to new data files, and files written anew where rows go.

delta-rs's writer encodes on one core, and its merge takes all columns of the table apart to join them. Here Polars encodes on all, and one
column tells in which files the rows to go are: what remains of those files is streamed to new ones together with what comes. When that is
done, and the commit, are `delta.py`'s.
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
from trainpipe_assets.storage.data_files import FILE, FILE_BYTES, ROW_GROUP, data_files, read_files
from trainpipe_assets.storage.uris import absolute, open_filesystem

PACKED = 4  # bytes in memory for one in a file, about


@dataclass(frozen=True)
class Written:
    """New files that lie there but are not part of the table yet: what a commit has to say, and how many keys come and go with it."""

    actions: Sequence[AddAction | RemoveAction]
    added: int
    removed: int


def write_rows(delta: DeltaTable, rows: pl.LazyFrame, schema: pl.Schema, *, overwrite: bool) -> Written:
    """Write `rows` to new files of `delta`, whose columns are `schema`, or will be where they `overwrite` what is there."""
    files = _Files(delta, schema)
    counts = files.count(files.write(rows))
    standing = int(data_files(delta)["num_records"].sum())
    return Written(files.additions(counts), added=int(counts["rows"].sum()), removed=standing if overwrite else 0)


def write_replacement(delta: DeltaTable, rows: pl.LazyFrame, schema: pl.Schema, key: str, removed: pl.Series) -> Written:
    """Write what it takes for `delta`, whose columns are `schema`, to have `rows` and to lose those whose `key` is in `removed`."""
    table, files = _Files(delta, schema), data_files(delta)
    gone = table.read(files["path"]).select(key, FILE).filter(pl.col(key).is_in(removed.implode())).collect(engine="streaming")
    leaving = files.filter(table.uris(files["path"]).is_in(gone[FILE].unique().implode()))
    went = pl.col(key).is_in(gone[key].implode())
    paths = table.write(table.read(leaving["path"]).filter(~went), rows)
    counts, updated = table.count(paths), int(table.read(paths).select(went.sum()).collect().item())
    n_kept = int(leaving["num_records"].sum()) - gone.height
    added = int(counts["rows"].sum()) - updated - n_kept
    return Written([*table.additions(counts), *_removals(leaving)], added, removed=gone.height - updated)


class _Files:
    """Data files of the table `delta` with the columns `schema`."""

    def __init__(self, delta: DeltaTable, schema: pl.Schema) -> None:
        self._uri, self._schema = absolute(delta.table_uri), schema
        self._options = s3.options(self._uri)

    def uris(self, paths: pl.Series) -> pl.Series:
        """Where the files at `paths` are."""
        return self._uri + "/" + paths

    def read(self, paths: pl.Series) -> pl.LazyFrame:
        """Their rows, with the URI of the file of each."""
        return read_files(self.uris(paths).to_list(), self._schema, self._options)

    def write(self, *rows: pl.LazyFrame) -> pl.Series:
        """Paths of the new files that all `rows` are in."""
        batch, paths = uuid4(), list[str]()

        def path(file: FileProviderArgs) -> str:
            paths.append(f"part-{file.index_in_partition:05d}-{batch}.parquet")
            return paths[-1]

        together = pl.concat([frame.select(self._schema.names()).cast(self._schema) for frame in rows])
        together.sink_parquet(
            pl.PartitionBy(self._uri, file_path_provider=path, approximate_bytes_per_file=PACKED * FILE_BYTES),
            compression="zstd",
            compression_level=1,
            row_group_size=ROW_GROUP,
            maintain_order=False,
            storage_options=self._options,
            engine="streaming",
        )
        return pl.Series(paths, dtype=pl.String)

    def count(self, paths: pl.Series) -> pl.DataFrame:
        """How many `rows` each of the new files at `paths` has. One without any is removed."""
        counts = self.read(paths).group_by(FILE).agg(rows=pl.len()).collect()
        filesystem, _ = open_filesystem(self._uri)
        for uri in set(self.uris(paths)) - set(counts[FILE]):
            filesystem.rm_file(uri)
        return counts

    def additions(self, counts: pl.DataFrame) -> list[AddAction]:
        """What a commit says of new files."""
        filesystem, _ = open_filesystem(self._uri)
        now = _milliseconds()
        return [
            AddAction(
                path=uri.removeprefix(f"{self._uri}/"),
                size=filesystem.size(uri),
                partition_values={},
                modification_time=now,
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            )
            for uri, rows in counts.select(FILE, "rows").iter_rows()
        ]


def _removals(files: pl.DataFrame) -> list[RemoveAction]:
    now = _milliseconds()
    return [RemoveAction(path, True, now, size, {}) for path, size in files.select("path", "size_bytes").iter_rows()]


def _milliseconds() -> int:
    """The time that a commit gives: a vacuum counts from there."""
    return time.time_ns() // 1_000_000
