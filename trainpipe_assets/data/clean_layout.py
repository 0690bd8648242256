"""The quick way through CSV and TSV: find, a whole segment at once, where its records lie, and let Arrow take their fields out.

It vouches for a segment or leaves it: what it leaves, `delimited.py` reads record by record.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv

from trainpipe_assets.data.reading.dialect import Dialect

LF, CR = 10, 13


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the records of a segment lie. Offsets and lines count from 0; one element of an array is one record."""

    end: int  # where the last whole record ends, with its line break
    lines: int  # how many lines that spans
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]  # before the line break
    first_lines: npt.NDArray[np.int64]
    fields: npt.NDArray[np.int64]  # how many the record has


def without(segment: bytes, layout: Layout, left_out: npt.NDArray[np.intp]) -> bytes:
    """The whole records of `segment` but for some."""
    pieces, at = [], 0
    for position in left_out:
        pieces.append(segment[at : layout.starts[position]])
        at = int(layout.stops[position])
    return b"".join([*pieces, segment[at : layout.end]])


def clean_layout(segment: bytes, dialect: Dialect) -> Layout | None:
    """Where the whole records of `segment` lie, blank lines left out.

    None unless they are well formed: each quote opens a field, closes one or is doubled; CR only before LF; no NUL; no record over
    the limit. Then, and only then, an odd number of quotes before a byte means that it lies inside a field.
    """
    if b"\0" in segment or (b"\r" in segment and b"\r" in segment.removesuffix(b"\r").replace(b"\r\n", b"")):
        return None
    a = np.frombuffer(segment, dtype=np.uint8)
    delimiter, quote = dialect.delimiter[0], dialect.quote[0] if dialect.quote else None
    marks = (a == LF) | (a == delimiter)
    at = np.flatnonzero(marks | (a == quote) if quote is not None else marks)
    kinds = a[at]
    inside = (np.cumsum(kinds == quote) & 1).astype(bool) if quote is not None else np.zeros(len(at), dtype=bool)
    ends = np.flatnonzero((kinds == LF) & ~inside)
    if not len(ends):
        return None
    whole = at[: ends[-1] + 1]
    if quote is not None and not _quotes_fit(a, whole[kinds[: len(whole)] == quote], delimiter, quote):
        return None
    breaks = at[ends]
    starts = np.concatenate([[0], breaks[:-1] + 1])
    stops = breaks - ((a[breaks - 1] == CR) & (breaks > starts))
    if (stops - starts).max() > dialect.max_record_bytes:
        return None
    fields = np.diff(np.cumsum((kinds == delimiter) & ~inside)[ends], prepend=0) + 1
    lines = np.cumsum(kinds == LF)[ends]
    filled = stops > starts
    first_lines = np.concatenate([[0], lines[:-1]])
    return Layout(int(breaks[-1]) + 1, int(lines[-1]), starts[filled], stops[filled], first_lines[filled], fields[filled])


def _quotes_fit(a: npt.NDArray[np.uint8], quotes: npt.NDArray[np.intp], delimiter: int, quote: int) -> bool:
    """Whether each quote that opens stands at the start of a field, or repeats the one before, and each that closes ends a field."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = a[opening - 1]
    before[opening == 0] = LF
    after = a[closing + 1]
    opens = (before == delimiter) | (before == LF) | (before == quote)
    closes = (after == delimiter) | (after == LF) | (after == CR) | (after == quote)
    return bool(opens.all() and closes.all())


def arrow_fields(segment: bytes, dialect: Dialect, n_columns: int) -> pl.DataFrame | None:
    """The fields of well-formed records as string columns; None where they are not valid UTF-8."""
    names = [f"f{position}" for position in range(n_columns)]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(segment),
            read_options=pyarrow.csv.ReadOptions(column_names=names, block_size=len(segment) + 1),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=dialect.delimiter.decode(),
                quote_char=dialect.quote.decode() if dialect.quote else False,
                double_quote=True,
                escape_char=False,
                newlines_in_values=dialect.quote is not None,
            ),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid:
        return None
    return pl.DataFrame(pl.from_arrow(table))
