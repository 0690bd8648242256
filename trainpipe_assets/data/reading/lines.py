"""Lines of a stream, many at a time and in bounded memory, for formats whose records are lines or made of lines."""

from collections.abc import Iterator
from dataclasses import dataclass

from trainpipe_assets.data.reading.records import FILL_BYTES, Window


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines one after the other without their breaks, numbered from `first`; or the beginning of one that is `size` bytes long."""

    first: int
    contents: list[bytes]
    size: int | None = None


def line_batches(window: Window, longest: int) -> Iterator[Lines]:
    """All lines, as many at a time as are read ahead; one of more than `longest` bytes comes alone and cut off.

    Raises:
        UnreadableFile: the stream breaks off after the lines delivered.
    """
    while True:
        window.fill(FILL_BYTES)
        if not len(window):
            break
        yield _next_batch(window, longest)
    window.check_whole(b"")


def _next_batch(window: Window, longest: int) -> Lines:
    first, cut = window.line_number, _whole_lines(window)
    if cut < 0:
        window.fill(longest + 2)
        cut = _whole_lines(window)
    if cut < 0:
        if len(window) > longest:
            beginning = window.data[window.start :][:longest]
            return Lines(first, [beginning], window.skip_line())
        window.check_whole(window.data[window.start :])
        cut = len(window.data)
    contents = window.data[window.start : cut].splitlines()
    window.advance(cut, len(contents))
    return Lines(first, contents)


def _whole_lines(window: Window) -> int:
    """Where the last line break in the window ends; -1 where there is none."""
    feed = window.data.rfind(b"\n", window.start)
    if feed >= 0:
        return feed + 1
    carriage = window.data.rfind(b"\r", window.start, len(window.data) if window.ended else len(window.data) - 1)
    return carriage + 1 if carriage >= 0 else -1
