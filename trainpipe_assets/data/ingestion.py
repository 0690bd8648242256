"""From the landing folder to `raw_data`: which file versions are new, and their records as one increment.

Listing is `sources.py`'s, parsing is `readers.py`'s. What was ingested before is read from the table itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from polars.io.plugins import register_io_source

from trainpipe_assets.data.readers import content_id, read_file
from trainpipe_assets.data.sources import LandedFile
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.delta import Table, fingerprint
from trainpipe_assets.storage.increments import Increment

VERSION = "1"  # raise it when the same file would be read differently: the table is then rebuilt


@dataclass(frozen=True)
class Arrivals:
    """How the landing folder differs from what `raw_data` holds."""

    new: tuple[LandedFile, ...]
    withdrawn: tuple[str, ...]  # paths whose rows go: replaced ones and those that are not there any more

    @property
    def empty(self) -> bool:
        """Whether there is nothing to ingest and nothing to remove."""
        return not self.new and not self.withdrawn


def source_fingerprint(settings: SourceSettings) -> int:
    """Identity of how files are read; where they lie does not matter to it."""
    return fingerprint("raw_data", VERSION, settings.model_dump(mode="json", exclude={"uri", "settle_seconds"}))


def ingested_files(table: Table | None) -> pl.DataFrame:
    """The file versions that the table holds: `source_file, file_id, file_version`."""
    columns = ("source_file", "file_id", "file_version")
    if table is None:
        return pl.DataFrame(schema={name: RAW_DATA[name] for name in columns})
    return table.scan().select(columns).unique().collect()


def find_arrivals(landed: list[LandedFile], table: Table | None, keep: frozenset[str] = frozenset()) -> Arrivals:
    """Compare the landing folder with the table; paths in `keep` (still being written) are left for later."""
    ingested = dict(ingested_files(table).select("source_file", "file_version").iter_rows())
    present = {file.path: file for file in landed}
    new = tuple(file for path, file in present.items() if path not in keep and ingested.get(path) != file.version)
    gone = [path for path in ingested if path not in present]
    replaced = [file.path for file in new if file.path in ingested]
    return Arrivals(new, tuple(sorted(gone + replaced)))


def ingest(
    uri: str, table: Table | None, landed: list[LandedFile], growing: frozenset[str], settings: SourceSettings, now: datetime
) -> Increment:
    """The increment that brings `raw_data` at `uri` up to the landing folder.

    Files in `growing` are not read. Where the table was made by other settings or another version of the reader, all files are
    read anew.

    Raises:
        ValueError: there is nothing at all to read.
    """
    if not landed:
        raise ValueError(
            f"there is no file to read for {uri}: the landing folder is empty. Land one with `trainpipe land FILE`"
            + (", or delete the table by hand if all its data is really to go" if table else "")
        )
    wanted = source_fingerprint(settings)
    current = table if table is not None and table.fingerprint == wanted else None
    arrivals = find_arrivals(landed, current, growing)
    rows = _records(arrivals.new, settings, now)
    if current is None:
        return Increment(uri, table, rows, None, wanted, upstream=0)
    gone = current.scan().filter(pl.col("source_file").is_in(list(arrivals.withdrawn))) if arrivals.withdrawn else None
    removed = gone.select("row_id").collect() if gone is not None else pl.DataFrame(schema={"row_id": pl.String})
    return Increment(uri, current, rows, removed, wanted, upstream=0, empty=arrivals.empty)


def _records(files: tuple[LandedFile, ...], settings: SourceSettings, now: datetime) -> pl.LazyFrame:
    """The records of all files, read one file after the other while the frame is being consumed."""

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del n_rows, batch_size  # an increment is always read whole
        for file in files:
            for batch in read_file(file, settings, now):
                selected = batch if with_columns is None else batch.select(with_columns)
                yield selected if predicate is None else selected.filter(predicate)

    return register_io_source(batches, schema=RAW_DATA, is_pure=False)


def pending(landed: list[LandedFile], table: Table | None) -> tuple[LandedFile, ...]:
    """Files whose content the table does not hold yet, checked by content where the cheap sign differs."""
    known = set(ingested_files(table)["file_id"].to_list())
    return tuple(file for file in find_arrivals(landed, table).new if file.problem or content_id(file) not in known)
