"""CSV and TSV: records by the rules of RFC 4180, read with exact line numbers and repaired where they break.

A stretch of records that is clean beyond doubt is parsed by Arrow; any other goes record by record. Both ways give the same rows.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from trainpipe_assets.data.clean_layout import arrow_fields, clean_layout, without
from trainpipe_assets.data.reading.dialect import Dialect, dialect_of
from trainpipe_assets.data.reading.records import (
    FILL_BYTES,
    UnreadableFile,
    Unusable,
    Window,
    as_json,
    check_columns,
    excerpt,
    in_order,
    not_utf8,
    over_long,
)
from trainpipe_assets.settings import SourceSettings

LINE_BREAKS = re.compile(rb"[\r\n]+")
FURTHER_BYTES = 1 << 24  # how far beyond the most that is read the end of a quoted record is looked for
CAREFUL_BYTES = 1 << 14  # how far the record-by-record way goes before the quick one is tried again
SIGNATURES = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard", b"PAR1": "Parquet", b"PK\x03\x04": "ZIP (or a spreadsheet)"}


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it stands in the file: its fields, or the problem why there are none."""

    line_number: int
    raw: bytes  # its beginning at least
    fields: list[str]
    problem: str | None = None


class BrokenQuoting(ValueError):
    """The quotes of a record do not balance."""


class Unended(BrokenQuoting):
    """A quoted record does not end within the most that is read."""


def read_delimited(window: Window, settings: SourceSettings, *, tabs: bool) -> Iterator[pl.DataFrame]:
    """The records of a CSV file, or with `tabs` of a TSV file, in batches of the schema `PARSED`.

    The first record is the header. Blank lines are not records. Where a quote does not close, only the line where it opens is
    given up, and reading goes on with the next line; of a record that is too long, but does end, all lines are.

    Raises:
        UnreadableFile: the header cannot be used, or the stream breaks off after the records delivered.
    """
    dialect = dialect_of(settings, tabs=tabs)
    columns = _read_header(window, dialect, settings)
    reach, seen = FILL_BYTES, False
    while True:
        window.fill(reach)
        if not len(window):
            break
        clean = _read_clean(window, dialect, columns, settings, reach)
        frame = _read_careful(window, dialect, columns, settings) if clean is None else clean
        reach = CAREFUL_BYTES if clean is None else min(4 * reach, FILL_BYTES)
        seen = seen or len(frame) > 0
        yield frame
    window.check_whole(b"")
    if not seen:
        raise UnreadableFile(f"the file has a header ({', '.join(columns)[:200]}) and no records")


def _read_header(window: Window, dialect: Dialect, settings: SourceSettings) -> list[str]:
    window.fill(4)
    kind = next((name for signature, name in SIGNATURES.items() if window.data.startswith(signature)), None)
    if kind:
        raise UnreadableFile(f"the file holds {kind} data, not text with delimiters; give it the ending of its format")
    header = next_record(window, dialect)
    if header is None:
        window.check_whole(b"")
        raise UnreadableFile("the file is empty; a header line and one record or more are expected")
    if header.problem:
        hint = " It looks like UTF-16 without a byte order mark: save it as UTF-8, or set source.encoding." if b"\0" in header.raw else ""
        raise UnreadableFile(f"the header line cannot be used: {header.problem}.{hint}")
    check_columns(header.fields, settings.columns)
    return header.fields


def _assemble(fields: pl.DataFrame, lines: pl.Series, columns: list[str], settings: SourceSettings) -> pl.DataFrame:
    """Usable records in the schema `PARSED`; `fields` are strings, one column for each of `columns`."""
    chosen = [columns.index(name) for name in settings.columns.values()]
    series = fields.get_columns()
    named = [column.alias(name) for name, column in zip(columns, series, strict=True)]
    extra = as_json([column for position, column in enumerate(named) if position not in chosen], len(lines))
    nothing = pl.repeat(None, len(lines), dtype=pl.String, eager=True)
    text, label = [series[position] for position in chosen] + [nothing] * (2 - len(chosen))
    return pl.DataFrame([lines.alias("line_number"), text.alias("text"), label.alias("label"), extra, nothing.alias("problem")])


def _read_clean(window: Window, dialect: Dialect, columns: list[str], settings: SourceSettings, reach: int) -> pl.DataFrame | None:
    """The whole records within `reach` bytes, and the window moved past them; None where any doubt is left about one of them."""
    segment = window.data[window.start : window.start + reach]
    unterminated = window.ended and window.broken is None and window.start + reach >= len(window.data) and not segment.endswith(b"\n")
    if unterminated:
        segment += b"\n"
    layout = clean_layout(segment, dialect)
    if layout is None:
        return None
    ragged = np.flatnonzero(layout.fields != len(columns))
    fields = arrow_fields(without(segment, layout, ragged), dialect, len(columns))
    if fields is None or len(fields) != len(layout.starts) - len(ragged):
        return None
    lines = layout.first_lines + window.line_number
    raws = [segment[layout.starts[position] : layout.stops[position]] for position in ragged]
    unusable = [
        Unusable(int(lines[position]), excerpt(raw), _not_utf8(raw) or _ragged(int(layout.fields[position]), len(columns)))
        for position, raw in zip(ragged, raws, strict=True)
    ]
    usable = _assemble(fields, pl.Series(np.delete(lines, ragged), dtype=pl.Int64), columns, settings)
    window.advance(min(window.start + layout.end, len(window.data)), layout.lines)
    return in_order(usable, unusable)


def _read_careful(window: Window, dialect: Dialect, columns: list[str], settings: SourceSettings) -> pl.DataFrame:
    """Some records, one by one.

    Raises:
        UnreadableFile: the stream is broken and no whole record is left.
    """
    records: list[Record] = []
    size = 0
    while size < CAREFUL_BYTES:
        try:
            record = next_record(window, dialect)
        except UnreadableFile:
            if not records:
                raise
            break
        if record is None:
            break
        records.append(_with_fields(record, len(columns)))
        size += len(record.raw) + 1
    good = [record for record in records if record.problem is None]
    schema = {f"f{position}": pl.String for position in range(len(columns))}
    fields = pl.DataFrame([record.fields for record in good], schema=schema, orient="row")
    usable = _assemble(fields, pl.Series([record.line_number for record in good], dtype=pl.Int64), columns, settings)
    return in_order(usable, [Unusable(record.line_number, excerpt(record.raw), record.problem) for record in records if record.problem])


def _with_fields(record: Record, n_columns: int) -> Record:
    if record.problem or len(record.fields) == n_columns:
        return record
    return replace(record, fields=[], problem=_ragged(len(record.fields), n_columns))


def _ragged(found: int, expected: int) -> str:
    return f"the record has {found} {'field' if found == 1 else 'fields'}; the header has {expected}"


def next_record(window: Window, dialect: Dialect) -> Record | None:
    """The next record, blank lines left out, and the window moved past it; None at the end.

    Raises:
        UnreadableFile: the stream breaks off within the record.
    """
    while True:
        window.fill(dialect.max_record_bytes + 2)
        if not len(window):
            return None
        first = window.line_number
        limit = window.start + dialect.max_record_bytes + 1
        line_end = window.line_end(limit)
        if line_end < 0 and (not window.ended or len(window.data) >= limit):
            beginning = window.data[window.start : limit]
            return Record(first, beginning, [], over_long(window.skip_line(), dialect.max_record_bytes))
        line_end = len(window.data) if line_end < 0 else line_end
        if line_end > window.start:
            return _record_at(window, dialect, line_end, limit)
        _skip_blank_lines(window)


def _skip_blank_lines(window: Window) -> None:
    """Leave out the line breaks at the window's start, all at once: a compressed file can hold a hundred million of them."""
    found = LINE_BREAKS.match(window.data, window.start)
    assert found is not None
    end = found.end()
    if end == len(window.data) and not window.ended and end - window.start > 1 and window.data.endswith(b"\r"):
        end -= 1  # the LF of a CRLF may be yet to come
    window.advance(end, _count_breaks(window.data[window.start : end]))


def _record_at(window: Window, dialect: Dialect, line_end: int, limit: int) -> Record:
    """The record that starts in the current line, which ends at `line_end`."""
    first, length, problem = window.line_number, line_end - window.start, None
    raw = window.data[window.start : line_end]
    fields = []
    if dialect.quote is None or dialect.quote not in raw:
        fields = raw.split(dialect.delimiter)
    else:
        try:
            fields, end = _split_quoted(window, dialect, limit)
            length = end - window.start
        except Unended as error:
            whole = _length_further_down(window, dialect)
            length, problem = (length, str(error)) if whole is None else (whole, over_long(whole, dialect.max_record_bytes))
        except BrokenQuoting as error:
            problem = str(error)
    start, end = window.start, window.start + length
    if end == len(window.data):
        window.check_whole(window.data[start:end])
    raw = window.data[start:end]
    window.advance(window.after_break(end), _count_breaks(raw) + 1)
    return _decoded(Record(first, raw, [], problem), fields)


def _length_further_down(window: Window, dialect: Dialect) -> int | None:
    """Bytes of the quoted record at the window's start, which is too long; None where its quotes never come to an end in a proper way."""
    most = dialect.max_record_bytes + FURTHER_BYTES
    window.fill(most + 2)
    try:
        return _split_quoted(window, dialect, window.start + most)[1] - window.start
    except (BrokenQuoting, UnreadableFile):
        return None


def _split_quoted(window: Window, dialect: Dialect, limit: int) -> tuple[list[bytes], int]:
    """The fields of the record at the window's start, and where it ends.

    Raises:
        Unended: a quote does not close before `limit`, or the record goes on there.
        BrokenQuoting: a quote does not close before the end of the file, or a field goes on after its closing quote.
        UnreadableFile: the stream breaks off within the record.
    """
    assert dialect.quote is not None
    data, quote, at = window.data, dialect.quote, window.start
    fields: list[bytes] = []
    while True:
        if data[at : at + 1] == quote:
            closing = _closing_quote(data, quote, at + 1, limit)
            if closing < 0:
                opened = f"a quote opens in field {len(fields) + 1} and does not close"
                if len(data) >= limit:
                    raise Unended(f"{opened} within {dialect.max_record_bytes:,} bytes; double a quote that is text")
                window.check_whole(data[window.start :])
                raise BrokenQuoting(f"{opened} before the end of the file; double a quote that is text")
            fields.append(data[at + 1 : closing].replace(quote + quote, quote))
            at = closing + 1
        else:
            stop = dialect.field_end.search(data, at, limit)
            end = stop.start() if stop else min(limit, len(data))
            fields.append(data[at:end])
            at = end
        if at >= limit:
            raise Unended(f"the record is longer than {dialect.max_record_bytes:,} bytes (source.max_record_bytes)")
        following = data[at : at + 1]
        if following != dialect.delimiter:
            if following in (b"\n", b"\r", b""):
                return fields, at
            raise BrokenQuoting(f"field {len(fields)} goes on after its closing quote; double a quote that is text")
        at += 1


def _closing_quote(data: bytes, quote: bytes, at: int, limit: int) -> int:
    """Where the quoted field whose content starts at `at` closes; -1 where it does not before `limit`."""
    while (found := data.find(quote, at, limit)) >= 0 and data[found + 1 : found + 2] == quote:
        at = found + 2
    return found


def _decoded(record: Record, fields: list[bytes]) -> Record:
    """`record` with its `fields` as text, or with the problem why they are not."""
    problem = record.problem
    if problem is None and b"\0" in record.raw:
        problem = "the record holds NUL bytes; the file is damaged or not text"
    problem = problem or _not_utf8(record.raw)
    return replace(record, fields=[] if problem else [field.decode() for field in fields], problem=problem)


def _not_utf8(raw: bytes) -> str | None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return not_utf8(error)
    return None


def _count_breaks(raw: bytes) -> int:
    """How many line breaks (LF, CRLF or CR) lie within `raw`."""
    return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
