"""JSON files: one array of objects, laid out in any way, each judged by itself; or one object a line, as in JSON Lines.

Only a piece of the file lies in memory. Where an element is damaged, the next one is looked for: behind the bracket that closes it, or at
the next line that begins as its own did.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator

import polars as pl

from trainpipe_assets.data.reading.jsonl import JSON_SPACE, Record, parse_records, read_jsonl
from trainpipe_assets.data.reading.records import EXCERPT_CHARS, FILL_BYTES, UnreadableFile, Window
from trainpipe_assets.settings import SourceSettings

EXPECTED = "an array of objects, or one object a line, is expected"
BATCH_RECORDS = 20_000
FORGOTTEN = 12  # times the root of what is held: about where the lines that are counted cost as much as what is copied

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r'[^ \t\r\n,\[\]{}"]+')
_LINES = r"\n(?:[ \t\r]*+\n)*+"  # like ones are taken together, for files that hold nothing else
_BRACKETS = rf"[{{\[]+|[}}\]]+|{_LINES}"
_STRINGS = r'(?:"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"[^"{}\[\]\n]*+)++'  # whole ones, and what stands between them
_WITHIN, _OUTSIDE = re.compile(rf'{_STRINGS}|"|{_BRACKETS}'), re.compile(rf'"|{_BRACKETS}')
_WITHIN_STRING = re.compile(rf'(?:\\[^\n])++|"|{_LINES}')
_decode = json.JSONDecoder().raw_decode


def read_json(window: Window, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The records of a JSON file in batches of the schema `PARSED`.

    Raises:
        UnreadableFile: the file holds no record, or, after the records delivered, breaks off or does not go on as an array does.
    """
    if not holds_array(window):
        _require_lines(window, settings)
        yield from read_jsonl(window, settings)
        return
    for records in _batches(array_elements(window, settings.max_record_bytes)):
        yield parse_records(records, settings)


def holds_array(window: Window) -> bool:
    """Whether an array begins in `window`, which is left as it is but for being filled."""
    window.fill(FILL_BYTES)
    return window.data[window.start :].lstrip(JSON_SPACE).startswith(b"[")


def _require_lines(window: Window, settings: SourceSettings) -> None:
    """Make sure that the first object does not go over several lines: each of them would be a record that cannot be read."""
    window.fill(settings.max_record_bytes + 2)
    first, *more = window.data[window.start :].lstrip(JSON_SPACE).split(b"\n", 1)
    text = first.decode("utf-8", "replace").rstrip()
    try:
        _decode(text)
    except json.JSONDecodeError as error:
        if more and text.startswith("{") and error.pos >= len(text) - 1:
            raise UnreadableFile(f"the file holds an object that goes over several lines; {EXPECTED}") from error
    except (ValueError, RecursionError):
        pass  # that line is judged when it is read


def _batches(records: Iterator[Record]) -> Iterator[list[Record]]:
    """The same, many at a time. Those before a failure are delivered before it is raised."""
    pending, held = list[Record](), 0
    try:
        for record in records:
            pending.append(record)
            held += len(record[1])
            if len(pending) >= BATCH_RECORDS or held >= FILL_BYTES:
                yield pending
                pending, held = [], 0
    except UnreadableFile:
        if pending:
            yield pending
        raise
    if pending:
        yield pending


def array_elements(window: Window, longest: int) -> Iterator[Record]:
    """The elements of the array that `window` holds, undecoded; of those longer than `longest` bytes only the beginning.

    Raises:
        UnreadableFile: the array is empty, or, after the elements delivered, not closed, or something else stands where it should go on.
    """
    text = _Text(window)
    text.next_mark()
    text.skip(1)
    if text.next_mark() == "]":
        raise UnreadableFile(f"the array is empty; {EXPECTED}")
    while True:
        yield text.element(longest)
        mark = text.next_mark()
        if mark == ",":
            text.skip(1)
            text.next_mark()
        elif mark == "]":
            text.skip(1)
            break
        elif not text.resumed:
            raise text.unreadable("',' or ']' is expected behind an element")
    if text.next_mark():
        raise text.unreadable("nothing is expected behind the array")


class _Text:
    """The text of a JSON file from where it is being read, piece by piece. Bytes that are not UTF-8 are kept as surrogates.

    `resumed` says that the last element was damaged and ended where the next line looks like another one.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._line = "", 0, window.line_number
        self._indent: str | None = None  # of the line that begins with what comes next; None where something stands before it
        self.resumed = False

    def next_mark(self) -> str:
        """Leave out white space; the character that follows, or "" at the end."""
        indent = None
        while True:
            space = _SPACE.match(self._text, self._at)
            assert space is not None  # it matches nothing, too
            _, broken, after = space[0].rpartition("\n")
            indent = after if broken else None if indent is None else indent + after
            self.skip(len(space[0]))
            if self._at < len(self._text) or not self._more():
                self._indent = indent
                return self._text[self._at : self._at + 1]

    def skip(self, length: int) -> None:
        """Go on `length` characters further."""
        self._line += self._text.count("\n", self._at, self._at + length)
        self._at += length

    def element(self, longest: int) -> Record:
        """The element that begins here.

        Raises:
            UnreadableFile: none begins here, or the file ends within it.
        """
        self.resumed = False
        while True:
            try:
                _, end = _decode(self._text, self._at)
            except (ValueError, RecursionError):
                self._forget()
                end = len(self._text)
            whole = end < len(self._text) and end - self._at <= longest
            if whole or len(self._text) - self._at > longest or not self._more():
                return self._taken(end) if whole else self._undecodable(longest)

    def _taken(self, end: int) -> Record:
        line, content = self._line, _encoded(self._text[self._at : end])
        self.skip(end - self._at)
        return line, content, len(content)

    def _undecodable(self, longest: int) -> Record:
        """The element that begins here and is damaged, or too long to be decoded."""
        line, scan = self._line, _Scan(self._indent)
        beginning, size, last = "", 0, False
        while (end := scan.end(self._text, self._at, last=last)) is None:
            if last:
                raise self.unreadable("the file ends within a record", line, beginning or self._text[self._at : self._at + longest])
            if len(self._text) - self._at > longest:
                beginning = beginning or self._text[self._at : self._at + longest]
                size += len(_encoded(self._text[self._at : self._at + scan.seen]))
                self.skip(scan.seen)
                scan.seen = 0
            last = not self._more()
        if end == self._at and not size:
            raise self.unreadable("an element is expected")
        rest = _encoded(self._text[self._at : end])
        self.skip(end - self._at)
        self.resumed, size = scan.resumed, size + len(rest)
        return line, rest if size <= longest else (_encoded(beginning) or rest)[:longest], size

    def unreadable(self, why: str, line: int | None = None, beginning: str = "") -> UnreadableFile:
        """What to raise where the file does not go on as it should."""
        line = line or self._line
        rest = (beginning or self._text[self._at :])[:EXCERPT_CHARS]
        self._window.line_number = line
        self._window.check_whole(_encoded(rest))
        found = "" if beginning else f", found {_shown(rest[0])!r}" if rest else ", and the file ends"
        return UnreadableFile(f"the file cannot be read from line {line} on: {why}{found}", line, _shown(rest) or None)

    def _more(self) -> bool:
        """Read the next piece; False where there is none. What was left behind is forgotten."""
        self._window.fill(FILL_BYTES)
        piece = self._window.data[self._window.start :]
        self._window.advance(len(self._window.data), 0)
        decoded = self._decoder.decode(piece, final=self._window.ended)
        if decoded:
            self._text, self._at = self._text[self._at :] + decoded, 0
        return bool(piece)

    def _forget(self) -> None:
        """Drop what was left behind, where it is much: each message of a failed decoding counts its lines, which adds up, as copies do."""
        if self._at > FORGOTTEN * math.isqrt(len(self._text)):
            self._text, self._at = self._text[self._at :], 0


class _Scan:
    """Looks for the end of an element, by brackets and quotes alone, in text that may go on. Strings end with their line at the latest."""

    def __init__(self, indent: str | None) -> None:
        self._begins_like = None if indent is None else re.compile(rf"{indent}\{{|[ \t]{{0,{len(indent)}}}\]")
        self._ahead = 2 + len(indent or "")  # characters behind a mark that are needed to understand it
        self._depth, self._quoted, self._begun = 0, False, False
        self.seen = 0  # characters since where the element was left
        self.resumed = False

    def end(self, text: str, start: int, *, last: bool) -> int | None:
        """Where the element that is at `start` ends; None where that is not in `text`, which is the `last` of it or goes on."""
        if not self._begun and text[start : start + 1] not in ('"', "{", "["):
            scalar = _SCALAR.match(text, start)
            end = scalar.end() if scalar else start
            self.seen = end - start
            return end if end < len(text) or last else None
        self._begun = True
        while mark := self._next_mark(text, start + self.seen):
            first, length, self.seen = mark[0][0], len(mark[0]), mark.end() - start
            if first == "\n":
                self._quoted = False
                if mark.end() + self._ahead > len(text) and not last:
                    self.seen -= 1
                    return None
                if self._begins_like and self._begins_like.match(text, mark.end()):
                    self.resumed = True
                    return mark.end() - 1
            elif first == '"' and length == 1:
                self._quoted = not self._quoted
                if not self._quoted and not self._depth:
                    return mark.end()
            elif not self._quoted and first in "{[":
                self._depth += length
            elif not self._quoted and first in "}]":
                if length >= self._depth:
                    return mark.start() + self._depth
                self._depth -= length
        self.seen = len(text) - start - (self._quoted and text.endswith("\\") and not last)
        return None

    def _next_mark(self, text: str, start: int) -> re.Match[str] | None:
        """What comes next of quotes, brackets and line breaks; or escaped characters within a string, whole strings within brackets."""
        return (_WITHIN_STRING if self._quoted else _WITHIN if self._depth else _OUTSIDE).search(text, start)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return _encoded(text).decode("utf-8", "replace")
