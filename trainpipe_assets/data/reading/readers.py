"""From a landed file to rows of `raw_data`: every record exactly one row, usable or not, in bounded batches.

The formats themselves are in the modules beside this one; listing and opening are in `sources.py`.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

import polars as pl
from blake3 import blake3

from trainpipe_assets.data.reading.decompression import as_utf8
from trainpipe_assets.data.reading.delimited import read_delimited
from trainpipe_assets.data.reading.json_array import read_json
from trainpipe_assets.data.reading.jsonl import read_jsonl
from trainpipe_assets.data.reading.parquet import read_parquet
from trainpipe_assets.data.reading.plain_text import read_text
from trainpipe_assets.data.reading.records import UnreadableFile, Unusable, Window, unusable_frame
from trainpipe_assets.data.schema_drift import row_mark
from trainpipe_assets.data.source_schema import UNREADABLE
from trainpipe_assets.data.sources import FileChangedWhileReading, LandedFile, check_unchanged, file_kind, open_landed, unknown_format
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.s3 import explained

__all__ = ["FileChangedWhileReading", "content_id", "count_records", "parse_file", "read_file"]

BATCH_ROWS = 50_000
BATCH_BYTES = 1 << 25
HASH_BYTES = 1 << 20


def content_id(file: LandedFile) -> str:
    """The `file_id`: the same for the same bytes at the same path below the landing folder, on any machine.

    It is the first 16 hex digits of BLAKE3 over the path, a NUL, and the hex BLAKE3 of the bytes as landed. A file that must not be
    read has its version in the place of its bytes.

    Raises:
        FileChangedWhileReading: the file is no longer the version that was listed.
    """
    content = f"unread {file.version}" if file.problem else _digest_of(file)
    return blake3(f"{file.path}\0{content}".encode()).hexdigest()[:16]


def read_file(
    file: LandedFile, settings: SourceSettings, ingested_at: datetime, schema: str = UNREADABLE, quarantine: str | None = None
) -> Iterator[pl.DataFrame]:
    """The records of `file` in the schema `RAW_DATA`, at most 50,000 and about 32 MB at a time.

    Records are numbered from 1 in their `row_id`, unusable ones too. A file that cannot be used at all is one row, numbered 0, with
    the problem. Where a file breaks off, the records before stay and one more row says why: numbered on in a text file, 0 in Parquet.

    The first row carries `schema`. Where the file is to be quarantined, `quarantine` is the problem of every row, and their ids are
    others than without it.

    Raises:
        FileChangedWhileReading: the file is not the version that was listed, at the start or at the end: nothing of it may be kept.
        ValueError: the settings cannot be used for any file.
        OSError: the storage failed, which is not the file's fault.
    """
    file_id = content_id(file)
    constants = {
        "file_id": pl.lit(file_id),
        "source_file": pl.lit(file.path),
        "file_version": pl.lit(file.version),
        "ingested_at": pl.lit(ingested_at).cast(RAW_DATA["ingested_at"]),
    } | ({} if quarantine is None else {"problem": pl.lit(quarantine)})
    row_ids = f"{file_id}{row_mark(quarantine)}"
    read = 0
    try:
        for frame in _batched(parse_file(file, settings)):
            yield _as_raw(frame, pl.int_range(read + 1, read + len(frame) + 1, eager=True), row_ids, constants, None if read else schema)
            read += len(frame)
    except UnreadableFile as error:
        _check(file)
        line_number = error.line_number if read else 0
        frame = unusable_frame([Unusable(line_number, error.text, str(error))])
        ordinal = read + 1 if line_number else 0
        yield _as_raw(frame, pl.Series([ordinal], dtype=pl.Int64), row_ids, constants, None if read else schema)
    else:
        _check(file)


def count_records(files: Iterable[LandedFile], settings: SourceSettings, enough: int) -> int:
    """How many rows `files` would come to, counted no further than to `enough` or a little above.

    Raises:
        FileChangedWhileReading: a file is not there any more.
    """
    counted = 0
    for file in files:
        try:
            for frame in parse_file(file, settings):
                counted += len(frame)
                if counted >= enough:
                    return counted
        except UnreadableFile:
            counted += 1
    return counted


def parse_file(file: LandedFile, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The records of `file` in the schema `records.PARSED`, as they are read.

    Raises:
        UnreadableFile: the file, or the rest of it, cannot be used.
        FileChangedWhileReading: it is not there any more.
        S3Problem: S3 fails or refuses.
    """
    kind = file_kind(file.path, settings)
    if file.problem or kind is None:
        raise UnreadableFile(file.problem or unknown_format(file.path))
    with explained(file.uri), open_landed(file) as raw:
        if kind.format == "parquet":
            yield from read_parquet(raw, kind.compression, settings)
            return
        window = Window(as_utf8(raw, kind.compression, settings.encoding))
        if kind.format == "json":
            yield from read_json(window, settings)
        elif kind.format == "jsonl":
            yield from read_jsonl(window, settings)
        elif kind.format == "text":
            yield from read_text(window, file.path, settings)
        else:
            yield from read_delimited(window, settings, tabs=kind.format == "tsv")


def _digest_of(file: LandedFile) -> str:
    digest = blake3()
    with explained(file.uri), open_landed(file) as raw:
        while piece := raw.read(HASH_BYTES):
            digest.update(piece)
    check_unchanged(file)
    return digest.hexdigest()


def _check(file: LandedFile) -> None:
    if not file.problem:
        check_unchanged(file)


def _batched(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, in batches neither tiny nor large. Those before a failure are delivered before it is raised."""
    pending: list[pl.DataFrame] = []
    try:
        for frame in frames:
            pending.append(frame)
            if sum(len(part) for part in pending) >= BATCH_ROWS // 2 or sum(part.estimated_size() for part in pending) >= BATCH_BYTES // 4:
                complete, pending = pending, []
                yield from _slices(pl.concat(complete))
    except UnreadableFile:
        if pending:
            yield from _slices(pl.concat(pending))
        raise
    if pending:
        yield from _slices(pl.concat(pending))


def _slices(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    parts = max(1, round(frame.estimated_size() / BATCH_BYTES))
    yield from frame.iter_slices(max(1, min(BATCH_ROWS, len(frame) // parts)))


def _as_raw(frame: pl.DataFrame, ordinals: pl.Series, row_ids: str, constants: dict[str, pl.Expr], schema: str | None) -> pl.DataFrame:
    """Parsed records as raw rows; `schema` goes to the first of them."""
    columns = {
        "row_id": pl.lit(f"{row_ids}-") + pl.lit(ordinals).cast(pl.String).str.zfill(9),
        **{name: pl.col(name) for name in ("line_number", "text", "label", "extra", "problem")},
        "source_schema": pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(schema, pl.String)),
        **constants,
    }
    return frame.select(**{name: columns[name] for name in RAW_DATA.names()})
