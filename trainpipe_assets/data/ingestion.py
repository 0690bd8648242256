"""From the landing folder to `raw_data`: which file versions are new, and their records as one increment.

Listing is `sources.py`'s, parsing is `readers.py`'s. What was ingested before is read from the table itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from trainpipe_assets.data.batches import from_batches, runs
from trainpipe_assets.data.reading.readers import content_id, parse_file, read_file
from trainpipe_assets.data.reading.records import UnreadableFile, delimiter_advice
from trainpipe_assets.data.schema_drift import QUARANTINED, drift_table, judge, quarantine
from trainpipe_assets.data.source_schema import UNREADABLE, SourceSchema, from_json, schema_of
from trainpipe_assets.data.sources import BARRED, UNLISTABLE, UNOPENABLE, FileChangedWhileReading, LandedFile, file_kind
from trainpipe_assets.prefetching import one_ahead
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.delta import Table
from trainpipe_assets.storage.identity import fingerprint
from trainpipe_assets.storage.increments import Increment

VERSION = "6"  # raise it when the same file would be read differently: the table is then rebuilt
OPENED_AT_ONCE = 8
TOGETHER_BYTES, TOGETHER_FILES = 1 << 20, 500  # of small files that are read at the same time, and held at once
SHOWN_COLUMNS, SHOWN_FILES = 20, 5

_NOT_OF_READING = {"uri", "settle_seconds", "schema_drift", "expected_columns"}


@dataclass(frozen=True)
class Arrivals:
    """How the landing folder differs from what `raw_data` holds."""

    new: tuple[LandedFile, ...]
    withdrawn: tuple[str, ...]  # paths whose rows go: replaced ones and those that are not there any more
    barred: tuple[str, ...]  # paths whose rows stay, since nobody may look whether they are as they were

    @property
    def empty(self) -> bool:
        """Whether there is nothing to ingest and nothing to remove."""
        return not self.new and not self.withdrawn


@dataclass(frozen=True)
class Ingestion:
    """What a run makes of the landing folder: the increment of `raw_data`, the schema drift of the files in it (`DRIFT`), and the paths
    whose rows stay although they cannot be read now."""

    increment: Increment
    drift: pl.DataFrame
    barred: tuple[str, ...]


def determinants(settings: SourceSettings) -> Mapping[str, Any]:
    """Everything that fixes how files are read, by name; where they lie, and which of them are quarantined, does not matter to it."""
    return {"version": VERSION, "source": settings.model_dump(mode="json", exclude=_NOT_OF_READING)}


def source_fingerprint(settings: SourceSettings) -> int:
    """Identity of how files are read."""
    return fingerprint("raw_data", *determinants(settings).values())


@lru_cache(maxsize=4)  # a tick of a sensor asks several times, and most ticks find the table as it was
def ingested_files(table: Table | None) -> pl.DataFrame:
    """The file versions that the table holds, and the schema and the problem of the first record of each."""
    columns = ("source_file", "file_id", "file_version", "source_schema", "problem", "ingested_at")
    if table is None or "source_schema" not in table.schema:  # made by an older version
        return pl.DataFrame(schema={name: RAW_DATA[name] for name in columns})
    return table.scan().filter(pl.col("source_schema").is_not_null()).select(columns).collect()


def find_arrivals(landed: list[LandedFile], table: Table | None, keep: frozenset[str] = frozenset()) -> Arrivals:
    """Compare the landing folder with the table; paths in `keep` (still being written) are left for later.

    What was ingested from a file that cannot be opened now, or a folder that cannot be listed, stays.
    """
    ingested = dict(ingested_files(table).select("source_file", "file_version").iter_rows())
    present = {file.path: file for file in landed}
    hidden = tuple(f"{file.path}/" for file in landed if file.problem == UNLISTABLE)
    shut = {file.path for file in landed if file.problem == UNOPENABLE}
    barred = {
        path
        for path, version in ingested.items()
        if (path in shut or (path not in present and path.startswith(hidden))) and not version.endswith(BARRED)
    }
    new = tuple(file for path, file in present.items() if path not in keep | barred and ingested.get(path) != file.version)
    gone = [path for path in ingested if path not in present and path not in barred]
    replaced = [file.path for file in new if file.path in ingested]
    return Arrivals(new, tuple(sorted(gone + replaced)), tuple(sorted(barred)))


def ingest(
    uri: str, table: Table | None, landed: list[LandedFile], growing: frozenset[str], settings: SourceSettings, now: datetime
) -> Ingestion:
    """The increment that brings `raw_data` at `uri` up to the landing folder.

    Files in `growing` are not read. Where the table was made by other settings or another version of the reader, all files are
    read anew; a file that is quarantined or not any more is read anew too.

    Raises:
        ValueError: there is nothing at all to read, no file has a column that every record needs, the schema of a file drifted and that
            is to stop the pipeline, or a file would have to be read anew that cannot be.
        FileChangedWhileReading: a file would have to be read anew that is being written to.
    """
    if not landed:
        raise ValueError(
            f"there is no file to read for {uri}: the landing folder is empty. Land one with `trainpipe land FILE`"
            + (", or delete the table by hand if all its data is really to go" if table else "")
        )
    wanted, made_by = source_fingerprint(settings), determinants(settings)
    current = table if table is not None and table.fingerprint == wanted else None
    if current is None:
        _require_all_there(uri, table, find_arrivals(landed, table, growing).barred, growing)
    arrivals = find_arrivals(landed, current, growing)
    standing = ingested_files(current).filter(~pl.col("source_file").is_in(list(arrivals.withdrawn)))
    schemas = _schemas_of(arrivals.new, settings)
    known = _known_schemas(standing) | schemas
    _require_columns([schema for schema in known.values() if schema], settings)
    drifts = judge(known, settings)
    problems = quarantine(drifts, settings)
    again = _judged_otherwise(landed, growing.union(arrivals.barred), standing, problems)
    schemas |= _schemas_of(again, settings)
    new = tuple(sorted((*arrivals.new, *again), key=lambda file: file.path))
    rows = _records([(file, schemas[file.path], problems.get(file.path)) for file in new], settings, now)
    row_bytes = _row_bytes(max(new, key=lambda file: file.size), settings) if new else None
    found = drift_table({path: drift for path, drift in drifts.items() if path in schemas})
    if current is None:
        return Ingestion(Increment(uri, table, rows, None, wanted, upstream=0, made_by=made_by, row_bytes=row_bytes), found, ())
    gone = [*arrivals.withdrawn, *(file.path for file in again)]
    increment = Increment(
        uri,
        current,
        rows,
        _rows_of(current, gone),
        wanted,
        upstream=0,
        empty=not new and not gone,
        made_by=made_by,
        row_bytes=row_bytes,
    )
    return Ingestion(increment, found, arrivals.barred)


def _require_all_there(uri: str, table: Table | None, barred: Sequence[str], growing: frozenset[str]) -> None:
    """To make the table anew takes all that it was made from."""
    anew = f"{uri} was made by other settings and is to be made anew"
    if barred:
        raise ValueError(
            f"{anew}, and {len(barred)} file(s) that it came from cannot be read now, permission denied: {first_of(barred, SHOWN_FILES)}. "
            "Let their owner grant it, or move away what is to go"
        )
    written = sorted(growing.intersection(ingested_files(table)["source_file"]))
    if written:
        raise FileChangedWhileReading(
            f"{anew}, and {len(written)} file(s) that it came from are being written to: {first_of(written, SHOWN_FILES)}. Run again once "
            "they rest, or move away what is to go"
        )


def _require_columns(schemas: Sequence[SourceSchema], settings: SourceSettings) -> None:
    """One file that lacks a column is a file to be rejected; where all do, it is the setting that is wrong."""
    found = sorted({column.name for schema in schemas for column in schema.columns})
    for setting, name in settings.columns.items():
        if schemas and name not in found and name.split(".")[0] not in found:
            there = first_of(found, SHOWN_COLUMNS)
            advice = delimiter_advice(found) or f"Correct source.{setting}, or land files that have it"
            raise ValueError(
                f"source.{setting} is {name!r}, and none of the {len(schemas)} file(s) landed has such a column; there are: {there}. "
                f"{advice}"
            )


def find_drift(table: Table, settings: SourceSettings) -> pl.DataFrame:
    """The schema drift of all files in the table, in the schema `DRIFT`, with `newest` on those that came last."""
    files = ingested_files(table)
    newest = files.filter(pl.col("ingested_at") == pl.col("ingested_at").max())["source_file"]
    return drift_table(judge(_known_schemas(files), settings)).with_columns(newest=pl.col("file").is_in(newest.implode()))


def _known_schemas(files: pl.DataFrame) -> dict[str, SourceSchema | None]:
    return {path: from_json(text) for path, text in files.select("source_file", "source_schema").iter_rows()}


def _schemas_of(files: Sequence[LandedFile], settings: SourceSettings) -> dict[str, SourceSchema | None]:
    """The schema of each file by path. Several at a time, since an object store is asked for each."""
    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        return dict(zip([file.path for file in files], pool.map(lambda file: schema_of(file, settings), files), strict=True))


def _judged_otherwise(
    landed: Sequence[LandedFile], growing: frozenset[str], standing: pl.DataFrame, problems: Mapping[str, str]
) -> tuple[LandedFile, ...]:
    """Files in the table that were quarantined and are not to be any more, or the other way round, or for another reason."""
    quarantined = pl.col("problem").str.starts_with(QUARANTINED).fill_null(False)
    held = dict(standing.select("source_file", pl.when(quarantined).then("problem")).iter_rows())
    return tuple(file for file in landed if file.path not in growing and file.path in held and held[file.path] != problems.get(file.path))


def _rows_of(table: Table, paths: Sequence[str]) -> pl.DataFrame:
    if not paths:
        return pl.DataFrame(schema={"row_id": pl.String})
    return table.scan().filter(pl.col("source_file").is_in(list(paths))).select("row_id").collect(engine="streaming")


Reading = tuple[LandedFile, SourceSchema | None, str | None]  # a file, its schema, and the problem that its records are quarantined for


def _records(files: Sequence[Reading], settings: SourceSettings, now: datetime) -> pl.LazyFrame:
    """The records of all files in their order, read while the frame is being consumed: a large one ahead, small ones several at a time."""

    def read(reading: Reading) -> Iterator[pl.DataFrame]:
        file, schema, problem = reading
        return read_file(file, settings, now, UNREADABLE if schema is None else schema.as_json(), problem)

    def batches() -> Iterator[pl.DataFrame]:
        sizes = np.array([_most_bytes(file, settings) for file, _, _ in files], dtype=np.int64)
        for few in runs(sizes, TOGETHER_BYTES, TOGETHER_FILES):
            if few.stop - few.start == 1:
                yield from read(files[few.start])
                continue
            with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
                yield pl.concat(
                    [frame for frames in pool.map(lambda reading: list(read(reading)), files[few]) for frame in frames], rechunk=True
                )

    return from_batches(lambda: one_ahead(batches()), RAW_DATA)


def _row_bytes(file: LandedFile, settings: SourceSettings) -> float | None:
    """Bytes of a record of `file` in memory, by the first of them; None where there is none."""
    try:
        first = next(parse_file(file, settings), None)
    except UnreadableFile:
        return None
    return first.estimated_size() / first.height if first is not None and first.height else None


def _most_bytes(file: LandedFile, settings: SourceSettings) -> int:
    """What is read of a file at most; beyond all bounds where it may hold more than its size."""
    kind = file_kind(file.path, settings)
    plain = kind is None or (kind.compression is None and kind.format != "parquet")
    return file.size if plain else TOGETHER_BYTES + 1


def first_of(names: Sequence[str], shown: int, between: str = ", ") -> str:
    """The first of `names`, and a sign that there are more."""
    return between.join(names[:shown]) + (" …" if len(names) > shown else "")


def pending(landed: list[LandedFile], table: Table | None) -> tuple[LandedFile, ...]:
    """Files whose content the table does not hold yet, checked by content where the cheap sign differs, and those being written to."""
    known = dict(ingested_files(table).select("source_file", "file_id").iter_rows())  # an id is of a path, too

    def is_known(file: LandedFile) -> bool:
        try:
            return not file.problem and file.path in known and _known_id(file) == known[file.path]
        except FileChangedWhileReading:
            return False

    return tuple(file for file in find_arrivals(landed, table).new if not is_known(file))


@lru_cache(maxsize=10_000)
def _known_id(file: LandedFile) -> str:
    """The `file_id` of a version, read once by a process: a sensor asks for it at every tick until a run has noted the version."""
    return content_id(file)
