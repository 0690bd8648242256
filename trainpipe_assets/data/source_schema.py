"""What columns a landed file has, and of which coarse types: from its schema where it has one, else from its first records.

Reading only; which schema a source should have, and what differs, is `schema_drift.py`'s.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from trainpipe_assets.data.reading.decompression import as_utf8
from trainpipe_assets.data.reading.delimited import next_record
from trainpipe_assets.data.reading.dialect import dialect_of
from trainpipe_assets.data.reading.json_array import array_elements, holds_array
from trainpipe_assets.data.reading.parquet import column_kinds
from trainpipe_assets.data.reading.plain_text import columns_of_text
from trainpipe_assets.data.reading.records import UnreadableFile, Window
from trainpipe_assets.data.sources import LandedFile, file_kind, open_landed
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.s3 import explained

SAMPLE_RECORDS = 100  # what is further down may be of another type: that is for rules about values, not about schemas
UNREADABLE = "{}"

_NARROW = (  # kinds that text can be told to be, narrow before wide
    ("boolean", re.compile(r"true|false", re.IGNORECASE)),
    ("integer", re.compile(r"[+-]?\d{1,18}")),
    ("number", re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")),
)
_JSON_KINDS: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "list", dict: "object"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column; `kind` is None where all values looked at are null, `optional` where some records do not have it at all."""

    name: str
    kind: str | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class SourceSchema:
    """The columns of a file in their order. `typed` says that a value has a type of its own, which in CSV and TSV it has not."""

    columns: tuple[Column, ...]
    typed: bool
    ordered: bool

    def as_json(self) -> str:
        """One line; `from_json` reads it back."""
        columns = {column.name: f"{column.kind or 'unknown'}{'?' * column.optional}" for column in self.columns}
        return json.dumps({"columns": columns, "typed": self.typed, "ordered": self.ordered}, ensure_ascii=False)


def from_json(text: str) -> SourceSchema | None:
    """The schema that `as_json` wrote; None of a file that could not be read."""
    if text == UNREADABLE:
        return None
    content = json.loads(text)
    return SourceSchema(columns_of(content["columns"]), content["typed"], content["ordered"])


def columns_of(kinds: Mapping[str, str]) -> tuple[Column, ...]:
    """Columns from their names and kinds, where a question mark means optional and `unknown` or `any` means not told."""
    return tuple(
        Column(name, None if kind.rstrip("?") in ("unknown", "any") else kind.rstrip("?"), kind.endswith("?"))
        for name, kind in kinds.items()
    )


def schema_of(file: LandedFile, settings: SourceSettings) -> SourceSchema | None:
    """The schema of `file`, from its beginning alone; None where it cannot be read, which reading it will explain.

    Raises:
        FileChangedWhileReading: it is not there any more.
        OSError: the storage failed.
    """
    kind = file_kind(file.path, settings)
    if file.problem or kind is None:
        return None
    if kind.format == "text":
        return SourceSchema(tuple(Column(name, "string") for name in columns_of_text(settings)), typed=False, ordered=True)
    try:
        with explained(file.uri), open_landed(file) as raw:
            if kind.format == "parquet":
                kinds = column_kinds(raw, kind.compression)
                return SourceSchema(tuple(Column(name, told) for name, told in kinds), typed=True, ordered=True)
            window = Window(as_utf8(raw, kind.compression, settings.encoding))
            if kind.format in ("json", "jsonl"):
                return _of_objects(_lines_or_elements(window, settings, array=kind.format == "json"))
            return _of_fields(window, settings, tabs=kind.format == "tsv")
    except UnreadableFile:
        return None


def _of_fields(window: Window, settings: SourceSettings, *, tabs: bool) -> SourceSchema | None:
    dialect = dialect_of(settings, tabs=tabs)
    header = next_record(window, dialect)
    if header is None or header.problem or len(set(header.fields)) < len(header.fields):
        return None
    records = (next_record(window, dialect) for _ in range(SAMPLE_RECORDS))
    rows = [record.fields for record in records if record is not None and len(record.fields) == len(header.fields)]
    values = zip(*rows, strict=True) if rows else ((),) * len(header.fields)
    columns = (Column(name, _kind_of_text(column)) for name, column in zip(header.fields, values, strict=True))
    return SourceSchema(tuple(columns), typed=False, ordered=True)


def _kind_of_text(values: Iterable[str]) -> str | None:
    told = {value.strip() for value in values} - {""}
    if not told:
        return None
    return next((kind for kind, pattern in _NARROW if all(map(pattern.fullmatch, told))), "string")


def _of_objects(records: Iterable[bytes]) -> SourceSchema | None:
    objects = list(islice(_objects(records), SAMPLE_RECORDS))
    if not objects:
        return None
    names = sorted({name for found in objects for name in found if _is_text(name)})
    columns = (Column(name, _kind_of_values(name, objects), any(name not in found for found in objects)) for name in names)
    return SourceSchema(tuple(columns), typed=True, ordered=False)


def _lines_or_elements(window: Window, settings: SourceSettings, *, array: bool) -> Iterable[bytes]:
    """The first records: elements of an array, or the lines of the window's first fill."""
    if array and holds_array(window):
        with suppress(UnreadableFile):  # what it holds before counts
            yield from (content for _, content, _ in array_elements(window, settings.max_record_bytes))
        return
    window.fill(settings.max_record_bytes + 2)
    while len(window):
        end = window.line_end(len(window.data))
        if end < 0 and not window.ended:
            return
        yield window.data[window.start : end if end >= 0 else len(window.data)]
        window.advance(window.after_break(end) if end >= 0 else len(window.data), 1)


def _objects(records: Iterable[bytes]) -> Iterable[dict[str, Any]]:
    for record in records:
        try:
            found = json.loads(record)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found


def _is_text(name: str) -> bool:
    """Whether it can be written: half of a surrogate pair cannot."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _kind_of_values(name: str, objects: list[dict[str, Any]]) -> str | None:
    kinds = {_JSON_KINDS[type(value)] for found in objects if (value := found.get(name)) is not None}
    if len(kinds) < 2:
        return kinds.pop() if kinds else None
    return "number" if kinds == {"integer", "number"} else "mixed"
