"""Plain text: each file one text, or one text a paragraph or a line. The folder that a file is in can be its label."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import polars as pl

from trainpipe_assets.data.reading.lines import Lines, line_batches
from trainpipe_assets.data.reading.records import (
    PARSED,
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

FOLDER = "folder"  # the column that holds the name of the file's folder

Sample = tuple[int, bytes, int]  # line, bytes and size; of one that is too long only its first bytes


def columns_of_text(settings: SourceSettings) -> tuple[str, str]:
    """The columns that a text file has: that of the text, called as the settings call it, and `FOLDER`."""
    return settings.text_column, FOLDER


def read_text(window: Window, path: str, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The samples of a text file at `path` below the folder of its source, in batches of the schema `PARSED`.

    Raises:
        UnreadableFile: the file holds no text, the settings want other columns, or the stream breaks off after the samples delivered.
    """
    if settings.text_column == FOLDER:
        raise UnreadableFile(f"source.text_column is {FOLDER!r}, as the other column of a text file is called; call it otherwise")
    check_columns(columns_of_text(settings), settings.columns)
    folder = PurePosixPath(path).parent.name or None
    if folder is None and FOLDER in settings.columns.values():
        raise UnreadableFile(
            "the file lies in the folder of the source itself: put it into one below that is called like its label "
            f"(source.label_column is {FOLDER!r})"
        )
    samples = _Samples(settings)
    seen = False
    for lines in line_batches(window, settings.max_record_bytes):
        if found := samples.in_lines(lines):
            seen = True
            yield _parsed(found, folder, settings)
    if last := samples.rest():
        yield _parsed(last, folder, settings)
    elif not seen:
        raise UnreadableFile("the file is empty; text is expected")


class _Samples:
    """Puts lines together to samples. Of one that is too long no more is kept than tells so."""

    def __init__(self, settings: SourceSettings) -> None:
        self._by, self._longest = settings.sample_by, settings.max_record_bytes
        self._first, self._size, self._pieces = 0, 0, list[bytes]()

    def in_lines(self, lines: Lines) -> list[Sample]:
        """The samples that end within `lines`."""
        numbered = enumerate(lines.contents, lines.first)
        if self._by == "line":
            return [(number, line, lines.size or len(line)) for number, line in numbered if line.strip() or lines.size]
        found: list[Sample] = []
        for number, line in numbered:
            blank = not line.strip() and lines.size is None
            if blank and (self._by == "paragraph" or not self._pieces):
                found += self.rest()
                continue
            if not self._pieces:
                self._first = number
            if self._size <= self._longest:
                self._pieces.append(line)
            self._size += (lines.size or len(line)) + 1
        return found

    def rest(self) -> list[Sample]:
        """The sample that has begun, if one has."""
        found = [(self._first, b"\n".join(self._pieces), self._size - 1)] if self._pieces else []
        self._size, self._pieces = 0, []
        return found


def _parsed(samples: Iterable[Sample], folder: str | None, settings: SourceSettings) -> pl.DataFrame:
    numbers: list[int] = []
    texts: list[str] = []
    unusable: list[Unusable] = []
    for number, content, size in samples:
        problem, text = _judged(content, size, settings.max_record_bytes)
        if problem is None:
            numbers.append(number)
            texts.append(text)
        else:
            unusable.append(Unusable(number, text, problem))
    found = pl.DataFrame(
        {settings.text_column: texts, FOLDER: [folder] * len(texts)}, schema=dict.fromkeys(columns_of_text(settings), pl.String)
    )
    wanted = list(settings.columns.values())
    columns = {
        "line_number": numbers,
        "text": found[wanted[0]],
        "label": found[wanted[1]] if len(wanted) > 1 else [None] * len(texts),
        "extra": as_json([column for column in found if column.name not in wanted], len(texts)),
        "problem": [None] * len(texts),
    }
    return in_order(pl.DataFrame(columns, schema=PARSED), unusable)


def _judged(content: bytes, size: int, longest: int) -> tuple[str | None, str]:
    """The problem of a sample, if it has one, and its text, of which an excerpt where it has."""
    if size > longest:
        return over_long(size, longest), excerpt(content)
    if b"\0" in content:
        return "the text holds NUL bytes; the file is damaged or not text", excerpt(content)
    try:
        return None, content.decode()
    except UnicodeDecodeError as error:
        return not_utf8(error), excerpt(content)
