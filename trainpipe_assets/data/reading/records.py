"""What the readers of all formats share: the form of a parsed record, and a window onto a stream of lines.

What a record is differs by format and is decided in the modules of the formats.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from trainpipe_assets.data.reading.decompression import BrokenStream, ByteStream

PARSED = pl.Schema({"line_number": pl.Int64, "text": pl.String, "label": pl.String, "extra": pl.String, "problem": pl.String})
EXCERPT_CHARS = 1000  # how much of an unusable record is kept
FILL_BYTES = 1 << 21  # how far a window reads ahead: about 30,000 short records


class UnreadableFile(ValueError):
    """A file, or the rest of it, cannot be read: one further row says so. `line_number` 0 speaks of the whole file."""

    def __init__(self, problem: str, line_number: int = 0, text: str | None = None) -> None:
        super().__init__(problem)
        self.line_number = line_number
        self.text = text


class BadRecord(ValueError):
    """One record cannot be used; its neighbours can."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that could not be parsed."""

    line_number: int
    text: str | None
    problem: str


def excerpt(raw: bytes) -> str:
    """The beginning of a record, as text: what is not UTF-8 is replaced."""
    return raw[: 4 * EXCERPT_CHARS].decode("utf-8", "replace")[:EXCERPT_CHARS]


def unusable_frame(records: Sequence[Unusable]) -> pl.DataFrame:
    """Unusable records in the schema `PARSED`."""
    columns = {
        "line_number": [record.line_number for record in records],
        "text": [record.text for record in records],
        "problem": [record.problem for record in records],
    }
    return pl.DataFrame(columns, schema_overrides={name: PARSED[name] for name in columns}).select(
        "line_number", "text", pl.lit(None, pl.String).alias("label"), pl.lit("{}").alias("extra"), "problem"
    )


def in_order(usable: pl.DataFrame, unusable: Sequence[Unusable]) -> pl.DataFrame:
    """Usable and unusable records as they stand in the file. No two records start on one line."""
    return pl.concat([usable, unusable_frame(unusable)]).sort("line_number") if unusable else usable


def as_json(columns: list[pl.Series], height: int) -> pl.Series:
    """The column `extra`: each of `height` rows as one JSON object, whose keys are the columns' names."""
    if not columns:
        return pl.repeat("{}", height, dtype=pl.String, eager=True).alias("extra")
    named = {column.name: column for column in columns}  # a list would rename a column whose name is empty
    return pl.DataFrame(named).select(extra=pl.struct(pl.all()).struct.json_encode()).to_series()


def as_label(value: object) -> str | None:
    """The label that a typed value stands for, spelled as JSON spells it: 1 is "1", 1.0 is "1.0", true is "true".

    Raises:
        BadRecord: it is neither a string nor a number nor a boolean.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    raise BadRecord(f"the label is {_described(value)}; a string, a number or a boolean is expected")


def as_text(value: object) -> str | None:
    """`value`, which must be a string or null.

    Raises:
        BadRecord: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    raise BadRecord(f"the text is {_described(value)}; a string is expected")


def _described(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return f"the number {value!r}"[:100]
    return "a list" if isinstance(value, list) else "an object"


class Window:
    """The part of a UTF-8 stream that is being parsed: `data[start:]`, with `line_number` counted from 1 at `start`.

    Lines end in LF, CRLF or CR. Where the stream turns out to be broken, `broken` says why and the data before it still counts.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.data = b""
        self.start = 0
        self.line_number = 1
        self.ended = False
        self.broken: str | None = None

    def __len__(self) -> int:
        return len(self.data) - self.start

    def fill(self, size: int) -> None:
        """Have at least `size` bytes, or all that are left."""
        if len(self) >= size or self.ended:
            return
        wanted = FILL_BYTES if size <= FILL_BYTES else 2 * size  # what is asked for again and again is copied once for so much
        pieces, missing = [self.data[self.start :]], wanted - len(self)
        try:
            while missing > 0 and (piece := self._stream.read(missing)):
                pieces.append(piece)
                missing -= len(piece)
            self.ended = missing > 0
        except BrokenStream as error:
            self.broken, self.ended = str(error), True
        self.data, self.start = b"".join(pieces), 0

    def advance(self, end: int, lines: int) -> None:
        """Go on at `end`, which lies `lines` further down."""
        self.start = end
        self.line_number += lines

    def line_end(self, limit: int) -> int:
        """Where the current line ends, before its line break; -1 where it does not before `limit`."""
        feed = self.data.find(b"\n", self.start, limit)
        carriage = self.data.find(b"\r", self.start, limit if feed < 0 else feed)
        return feed if carriage < 0 else carriage

    def after_break(self, end: int) -> int:
        """Where the next line starts, for a line that ends at `end`."""
        return end + (2 if self.data[end : end + 2] == b"\r\n" else 1) if end < len(self.data) else end

    def skip_line(self) -> int:
        """Leave out the current line, however long, and return its length in bytes.

        Raises:
            UnreadableFile: the stream breaks off within it.
        """
        length, beginning = 0, self.data[self.start : self.start + 4 * EXCERPT_CHARS]
        while (end := self.line_end(len(self.data))) < 0 and not self.ended:
            length += len(self)
            self.start = len(self.data)
            self.fill(1)
        if end < 0:
            self.check_whole(beginning)
            end = len(self.data)
        length += end - self.start
        if end + 1 == len(self.data) and not self.ended:  # the LF of a CRLF may be yet to come
            self.start = end
            self.fill(2)
            end = self.start
        self.advance(self.after_break(end), 1)
        return length

    def check_whole(self, rest: bytes) -> None:
        """Make sure that the last record, `rest`, was not cut off.

        Raises:
            UnreadableFile: the stream is broken after it.
        """
        if self.broken is not None:
            raise UnreadableFile(
                f"the file cannot be read from line {self.line_number} on: {self.broken}", self.line_number, excerpt(rest) or None
            )


def over_long(length: int, limit: int) -> str:
    """The problem of a record of `length` bytes."""
    return f"the record is {length:,} bytes long; at most {limit:,} are read (source.max_record_bytes)"


def not_utf8(error: UnicodeDecodeError) -> str:
    """The problem of a record that is not valid UTF-8."""
    found = f"byte 0x{error.object[error.start]:02x} at byte {error.start + 1}"
    return f"the record is not valid UTF-8 ({found}); save the file as UTF-8, or set source.encoding"


def check_columns(found: Sequence[str], wanted: dict[str, str]) -> None:
    """Make sure that each of the `wanted` columns, by setting, is `found` exactly once.

    Raises:
        UnreadableFile: one is missing, or a name occurs twice.
    """
    twice = sorted(name for name, times in Counter(found).items() if times > 1)
    if twice:
        raise UnreadableFile(f"more than one column is called {_listed(twice)}; the columns are {_listed(found)}. Rename or remove them")
    for setting, name in wanted.items():
        if name not in found:
            near = [other for other in found if other.strip().casefold() == name.strip().casefold()]
            hint = f"; did you mean {near[0]!r}? Names must match exactly" if near else ""
            advice = delimiter_advice(found) or f"Set source.{setting}{hint}"
            raise UnreadableFile(f"there is no column {name!r}; the columns are {_listed(found)}. {advice}")


def delimiter_advice(found: Sequence[str]) -> str | None:
    """What to do where the one column `found` is rather several; None where it is not."""
    mark = next((mark for mark in (";", "\t", "|", ",") if len(found) == 1 and mark in found[0]), None)
    return None if mark is None else f"They look separated by {mark!r}: set source.delimiter"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
