"""Rows taken out of a Delta table and others put in: only the data files that hold a row to go are written anew.

Delta's own merge takes all columns of the table apart to join them. Here one column tells in which files the rows are, and what
remains of those files is streamed to new ones together with what comes. When that is done, and the commit, are `delta.py`'s.
"""

import json
import time
from dataclasses import dataclass
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction
from polars.io.partition import FileProviderArgs

from trainpipe_assets.storage import s3
from trainpipe_assets.storage.data_files import FILE, data_files, read_files
from trainpipe_assets.storage.uris import absolute, open_filesystem

PACKED = 4  # bytes in memory for one in a file, about


@dataclass(frozen=True)
class Replacement:
    """New files that lie there but are not part of the table yet: what a commit has to say, and how many of the keys are new to it."""

    actions: list[AddAction | RemoveAction]
    inserted: int


def write_replacement(
    delta: DeltaTable, key: str, added: pl.LazyFrame, removed: pl.Series, *, file_bytes: int, row_group: int
) -> Replacement:
    """Write what it takes for `delta` to be without the rows whose `key` is in `removed`, and with those of `added`.

    Files have about `file_bytes`, their row groups `row_group` rows.
    """
    table = _Files(absolute(delta.table_uri), pl.scan_delta(delta).collect_schema())
    files = data_files(delta)
    gone = table.read(files["path"]).select(key, FILE).filter(pl.col(key).is_in(removed.implode())).collect(engine="streaming")
    leaving = files.filter(table.uris(files["path"]).is_in(gone[FILE].unique().implode()))
    went = pl.col(key).is_in(gone[key].implode())
    kept = table.cast(table.read(leaving["path"]).filter(~went))
    written = table.read(table.write(pl.concat([kept, table.cast(added)]), file_bytes, row_group))
    counts = written.group_by(FILE).agg(rows=pl.len(), updated=went.sum()).collect()
    n_kept = int(leaving["num_records"].sum()) - gone.height
    inserted = int(counts["rows"].sum()) - int(counts["updated"].sum()) - n_kept
    return Replacement([*table.additions(counts), *_removals(leaving)], inserted)


class _Files:
    """The data files of the table at `uri`."""

    def __init__(self, uri: str, schema: pl.Schema) -> None:
        self._uri, self._schema, self._options = uri, schema, s3.options(uri)

    def uris(self, paths: pl.Series) -> pl.Series:
        """Where the files at `paths` are."""
        return self._uri + "/" + paths

    def read(self, paths: pl.Series) -> pl.LazyFrame:
        """Their rows, with the URI of the file of each."""
        return read_files(self.uris(paths).to_list(), self._schema, self._options)

    def cast(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """`rows` as the table has them."""
        return rows.select(self._schema.names()).cast(self._schema)

    def write(self, rows: pl.LazyFrame, file_bytes: int, row_group: int) -> pl.Series:
        """Paths of the new files that `rows` are in."""
        batch, paths = uuid4(), list[str]()

        def path(file: FileProviderArgs) -> str:
            paths.append(f"part-{file.index_in_partition:05d}-{batch}.parquet")
            return paths[-1]

        rows.sink_parquet(
            pl.PartitionBy(self._uri, file_path_provider=path, approximate_bytes_per_file=PACKED * file_bytes),
            compression="zstd",
            compression_level=1,
            row_group_size=row_group,
            maintain_order=False,
            storage_options=self._options,
            engine="streaming",
        )
        return pl.Series(paths, dtype=pl.String)

    def additions(self, counts: pl.DataFrame) -> list[AddAction]:
        """What a commit says of new files; those without rows are left out."""
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
