"""JSON Lines: one JSON object a line, each judged by itself."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import polars as pl

from trainpipe_assets.data.reading.lines import line_batches
from trainpipe_assets.data.reading.records import (
    PARSED,
    BadRecord,
    UnreadableFile,
    Unusable,
    Window,
    as_json,
    as_label,
    as_text,
    excerpt,
    not_utf8,
    over_long,
    unusable_frame,
)
from trainpipe_assets.settings import SourceSettings

Record = tuple[int, bytes, int]  # line, bytes and size; of one that is too long only its first bytes
Parsed = tuple[str | None, str | None, dict[str, Any] | str]  # text, label and the other keys, encoded where they are not plain
DTYPES: dict[type, type[pl.DataType]] = {str: pl.String, int: pl.Int64, bool: pl.Boolean}
PLAIN = frozenset({*DTYPES, type(None)})
JSON_SPACE = b" \t\r\n"


def _refuse_constant(name: str) -> NoReturn:
    raise BadRecord(f"the record is not valid JSON: {name} is not a JSON value; use null")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def read_jsonl(window: Window, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The records of a JSON Lines file in batches of the schema `PARSED`. Blank lines are not records.

    Raises:
        UnreadableFile: the file holds no record, or the stream breaks off after the records delivered.
    """
    seen = False
    for lines in line_batches(window, settings.max_record_bytes):
        contents = enumerate((line.strip(JSON_SPACE) for line in lines.contents), lines.first)
        records = [(number, content, lines.size or len(content)) for number, content in contents if content or lines.size]
        frame = parse_records(records, settings)
        seen = seen or len(frame) > 0
        yield frame
    if not seen:
        raise UnreadableFile("the file is empty; one JSON object a line is expected")


def parse_records(records: Iterable[Record], settings: SourceSettings) -> pl.DataFrame:
    """`records`, one JSON object each without outer white space, in the schema `PARSED` and in their order."""
    numbers: list[int] = []
    rows: list[Parsed] = []
    unusable: list[Unusable] = []
    among: list[int] = []  # how many usable ones precede each unusable one
    for line, content, size in records:
        try:
            rows.append(_parse(content, size, settings))
            numbers.append(line)
        except BadRecord as error:
            unusable.append(Unusable(line, excerpt(content), str(error)))
            among.append(len(rows))
    texts, labels, extras = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {"line_number": numbers, "text": texts, "label": labels, "extra": _encode_all(extras), "problem": [None] * len(rows)}
    usable = pl.DataFrame(columns, schema=PARSED)
    if not unusable:
        return usable
    return pl.concat([usable, unusable_frame(unusable)])[np.insert(np.arange(len(rows)), among, len(rows) + np.arange(len(unusable)))]


def _parse(content: bytes, size: int, settings: SourceSettings) -> Parsed:
    """Text, label and the other keys of the object.

    Raises:
        BadRecord: the record is too long, is not a JSON object, lacks a key, or a value is of the wrong type.
    """
    if size > settings.max_record_bytes:
        raise BadRecord(over_long(size, settings.max_record_bytes))
    extra = _decode_record(content)
    if not isinstance(extra, dict):
        raise BadRecord(f"the record is {str(extra)[:40]!r} ({type(extra).__name__}); a JSON object is expected")
    values, holders = [], []
    for setting, name in settings.columns.items():
        holder, key = (extra, name) if name in extra else _holder(extra, name, setting)
        values.append(holder[key])
        holders.append((holder, key))
    first = _as_written(values[0]) if settings.kind == "chat" else values[0]
    text, label = (
        as_text(first),
        as_label(_as_written(values[1]) if settings.kind == "multi-labelled" else values[1]) if len(values) > 1 else None,
    )
    for holder, key in holders:
        holder.pop(key, None)
    if PLAIN.issuperset(map(type, extra.values())) and b"\\u" not in content:
        return text, label, extra
    return text, label, _encode_checked(text, label, extra)


def _holder(found: dict[str, Any], name: str, setting: str) -> tuple[dict[str, Any], str]:
    """The object within `found` that has what `name` says with dots (review.text), and under which key.

    Raises:
        BadRecord: there is none.
    """
    *objects, key = name.split(".")
    holder: Any = found
    for within in objects:
        holder = holder.get(within) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or key not in holder:
        keys = ", ".join(repr(there[:60]) for there in list(found)[:20]) or "none"
        raise BadRecord(f"the object has no key {name!r}; its keys are {keys}. Set source.{setting}")
    return holder, key


def _as_written(found: Any) -> Any:
    """A list, of messages or labels, as JSON; a string stays as it is. What is in a list is judged when it is cleaned."""
    try:
        return _encode(found) if isinstance(found, list) else found
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"the record holds a number or a nesting out of range ({error})") from error


def _encode_checked(text: str | None, label: str | None, extra: dict[str, Any]) -> str:
    try:
        encoded = _encode(extra)
        f"{text}{label}{encoded}".encode()
    except UnicodeEncodeError as error:
        raise BadRecord("the record holds half of a surrogate pair (\\ud800 to \\udfff), which is not a character") from error
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"the record holds a number or a nesting out of range ({error})") from error
    return encoded


def _encode_all(extras: Sequence[dict[str, Any] | str]) -> pl.Series | list[str]:
    """Each of `extras` as JSON. Where all have the same keys and types, as is usual, that is done a column at a time."""
    first = extras[0] if extras else {}
    if isinstance(first, dict) and first:
        keys = list(first)
        rows = [extra for extra in extras if isinstance(extra, dict) and list(extra) == keys]
        columns = [[row[key] for row in rows] for key in keys]
        kinds = [set(map(type, column)) - {type(None)} or {str} for column in columns]
        if len(rows) == len(extras) and all(len(kind) == 1 for kind in kinds):
            try:
                named = zip(keys, columns, kinds, strict=True)
                return as_json([pl.Series(key, column, DTYPES[kind.pop()]) for key, column, kind in named], len(rows))
            except (OverflowError, TypeError):
                pass  # an integer beyond 64 bits: one by one, then
    return [extra if isinstance(extra, str) else _encode(extra) for extra in extras]


def _decode_record(content: bytes) -> Any:
    try:
        text = content.decode()
        found, end = _decode(text)
    except UnicodeDecodeError as error:
        raise BadRecord(not_utf8(error)) from error
    except json.JSONDecodeError as error:
        if b"\0" in content:
            raise BadRecord("the record holds NUL bytes; the file is damaged or not text") from error
        raise BadRecord(f"the record is not valid JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRecord("the record is nested too deeply") from error
    except BadRecord:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise BadRecord(f"the record holds a number that is too long ({error})") from error
    if end != len(text):
        raise BadRecord(f"the record is not valid JSON: it goes on after its value, at character {end + 1}")
    return found
