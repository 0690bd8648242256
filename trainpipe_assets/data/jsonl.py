"""JSON Lines: one JSON object a line, each judged by itself."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import polars as pl

from trainpipe_assets.data.records import (
    FILL_BYTES,
    PARSED,
    BadRecord,
    UnreadableFile,
    Unusable,
    Window,
    as_label,
    as_text,
    excerpt,
    in_order,
    not_utf8,
    over_long,
)
from trainpipe_assets.settings import SourceSettings

Parsed = tuple[str | None, str | None, str]  # text, label, extra


def _refuse_constant(name: str) -> NoReturn:
    raise BadRecord(f"the line is not valid JSON: {name} is not a JSON value; use null")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def read_jsonl(window: Window, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The records of a JSON Lines file in batches of the schema `PARSED`. Blank lines are not records.

    Raises:
        UnreadableFile: the file holds no record, or the stream breaks off after the records delivered.
    """
    seen = False
    while True:
        window.fill(FILL_BYTES)
        if not len(window):
            break
        frame = _next_batch(window, settings)
        seen = seen or len(frame) > 0
        yield frame
    window.check_whole(b"")
    if not seen:
        raise UnreadableFile("the file is empty; one JSON object a line is expected")


def _next_batch(window: Window, settings: SourceSettings) -> pl.DataFrame:
    cut = _whole_lines(window)
    if cut < 0:
        window.fill(settings.max_record_bytes + 2)
        cut = _whole_lines(window)
    if cut < 0:
        if len(window) > settings.max_record_bytes:
            first, beginning = window.line_number, excerpt(window.data[window.start :][:4096])
            problem = over_long(window.skip_line(), settings.max_record_bytes)
            return in_order(PARSED.to_frame(), [Unusable(first, beginning, problem)])
        window.check_whole(window.data[window.start :])
        cut = len(window.data)
    lines = window.data[window.start : cut].splitlines()
    frame = _parse_lines(lines, window.line_number, settings)
    window.advance(cut, len(lines))
    return frame


def _whole_lines(window: Window) -> int:
    """Where the last line break in the window ends; -1 where there is none."""
    feed = window.data.rfind(b"\n", window.start)
    if feed >= 0:
        return feed + 1
    carriage = window.data.rfind(b"\r", window.start, len(window.data) if window.ended else len(window.data) - 1)
    return carriage + 1 if carriage >= 0 else -1


def _parse_lines(lines: list[bytes], first: int, settings: SourceSettings) -> pl.DataFrame:
    numbers: list[int] = []
    rows: list[Parsed] = []
    unusable: list[Unusable] = []
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            row = parse_line(line, settings)
        except BadRecord as error:
            unusable.append(Unusable(number, excerpt(line), str(error)))
        else:
            numbers.append(number)
            rows.append(row)
    texts, labels, extras = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {"line_number": numbers, "text": texts, "label": labels, "extra": extras, "problem": [None] * len(rows)}
    return in_order(pl.DataFrame(columns, schema=PARSED), unusable)


def parse_line(line: bytes, settings: SourceSettings) -> Parsed:
    """Text, label and the other keys (as one JSON object) of the object in `line`.

    Raises:
        BadRecord: the line is too long, is not a JSON object, lacks a key, or a value is of the wrong type.
    """
    if len(line) > settings.max_record_bytes:
        raise BadRecord(over_long(len(line), settings.max_record_bytes))
    found = _decode_line(line)
    if not isinstance(found, dict):
        raise BadRecord(f"the line holds {type(found).__name__} {str(found)[:40]!r}; a JSON object is expected")
    for setting, key in (("text_column", settings.text_column), ("label_column", settings.label_column)):
        if key not in found:
            keys = ", ".join(repr(name[:60]) for name in list(found)[:20]) or "none"
            raise BadRecord(f"the object has no key {key!r}; its keys are {keys}. Set source.{setting}")
    text, label = as_text(found[settings.text_column]), as_label(found[settings.label_column])
    extra = {key: value for key, value in found.items() if key not in (settings.text_column, settings.label_column)}
    try:
        row = text, label, _encode(extra) if extra else "{}"
        if b"\\u" in line:
            "".join(part or "" for part in row).encode()
    except UnicodeEncodeError as error:
        raise BadRecord("the line holds half of a surrogate pair (\\ud800 to \\udfff), which is not a character") from error
    except (ValueError, RecursionError) as error:
        raise BadRecord(f"the line holds a number or a nesting out of range ({error})") from error
    return row


def _decode_line(line: bytes) -> Any:
    try:
        return _decode(line.decode())
    except UnicodeDecodeError as error:
        raise BadRecord(not_utf8(error)) from error
    except json.JSONDecodeError as error:
        if b"\0" in line:
            raise BadRecord("the record holds NUL bytes; the file is damaged or not text") from error
        raise BadRecord(f"the line is not valid JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise BadRecord("the line is nested too deeply") from error
    except BadRecord:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise BadRecord(f"the line holds a number that is too long ({error})") from error
