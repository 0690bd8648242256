"""Parquet: columns of any type as text, label and one JSON object of the others.

Values that are not what their column promises (text that is not UTF-8) are the row's problem; damage is the file's.
"""

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from trainpipe_assets.data.reading.decompression import PIECE, BrokenStream, FaultRecorder, decompressed
from trainpipe_assets.data.reading.records import (
    UnreadableFile,
    Unusable,
    as_json,
    as_label,
    check_columns,
    excerpt,
    in_order,
    over_long,
)
from trainpipe_assets.data.sources import Compression
from trainpipe_assets.settings import SourceSettings

BATCH_BYTES = 1 << 24  # of a batch as the file's own statistics tell it
BATCH_ROWS = 20_000


def read_parquet(raw: BinaryIO, compression: Compression | None, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet file in batches of the schema `PARSED`; the line number is the row's number.

    In `extra`, binary values are base64, times ISO 8601, decimals strings, and numbers that are not finite null.

    Raises:
        UnreadableFile: the file is damaged or its columns cannot be used.
    """
    with _opened(raw, compression) as file:
        yield from _read_batches(file, settings)


def column_kinds(raw: BinaryIO, compression: Compression | None) -> list[tuple[str, str | None]]:
    """The columns of a Parquet file in their order, each with the coarse type of its values; None where all are null.

    Raises:
        UnreadableFile: the file is damaged.
    """
    with _opened(raw, compression) as file:
        return [(field.name, _kind(_value_type(field.type))) for field in file.schema_arrow]


def _kind(kind: Any) -> str | None:
    if pa.types.is_null(kind):
        return None
    if _is_textual(kind):
        return "string"
    tests = {
        "boolean": (pa.types.is_boolean,),
        "integer": (pa.types.is_integer,),
        "number": (pa.types.is_floating, pa.types.is_decimal),
        "time": (pa.types.is_temporal,),
        "object": (pa.types.is_struct, pa.types.is_map),
        "list": (pa.types.is_nested,),
    }
    return next((name for name, which in tests.items() if any(test(kind) for test in which)), str(kind))


@contextmanager
def _opened(raw: BinaryIO, compression: Compression | None) -> Iterator[Any]:
    """The Parquet file in `raw`; what goes wrong with it inside becomes an `UnreadableFile`, unless the storage failed."""
    if compression is None:
        with _explained(raw) as file:
            yield file
        return
    with tempfile.TemporaryFile() as plain:  # Parquet is read from its end
        stream = decompressed(raw, compression)
        try:
            while piece := stream.read(PIECE):
                plain.write(piece)
        except BrokenStream as error:
            raise UnreadableFile(f"the file cannot be read: {error}") from error
        plain.seek(0)
        with _explained(cast(BinaryIO, plain)) as file:
            yield file


@contextmanager
def _explained(raw: BinaryIO) -> Iterator[Any]:
    recorder = FaultRecorder(raw)
    try:
        yield pyarrow.parquet.ParquetFile(
            pa.PythonFile(recorder, mode="r"), pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
        )
    except UnreadableFile:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError, MemoryError) as error:
        if recorder.fault is not None:
            raise recorder.fault from error
        raise UnreadableFile(f"the file is not a readable Parquet file: {' '.join(str(error).split())[:200]}") from error


def _read_batches(file: Any, settings: SourceSettings) -> Iterator[pl.DataFrame]:
    schema = _reaching(file.schema_arrow.empty_table(), settings).schema
    check_columns(schema.names, settings.columns)
    _check_types(schema, settings)
    row, names = 1, _class_names(schema.metadata, settings)
    for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
        if schema != file.schema_arrow:
            (batch,) = _reaching(pa.Table.from_batches([batch]), settings).combine_chunks().to_batches()
        yield _parse_batch(batch, row, settings, names)
        row += batch.num_rows
    if row == 1:
        raise UnreadableFile("the file holds no rows")


def _reaching(table: Any, settings: SourceSettings) -> Any:
    """`table` with its structs taken apart as far as the settings name columns in them with dots (review.text)."""
    wanted = [name for name in settings.columns.values() if name not in table.schema.names]
    within = {f"{field.name}." for field in table.schema if pa.types.is_struct(field.type)}
    if any(name.startswith(tuple(within)) for name in wanted):
        return _reaching(table.flatten(), settings)
    return table


def _class_names(metadata: Mapping[bytes, bytes] | None, settings: SourceSettings) -> list[str]:
    """The names of the classes that the label's numbers stand for, as `datasets` writes them into its files; none elsewhere."""
    column = settings.columns.get("label_column")
    try:
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        names = feature.get("feature", feature)["names"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def _batch_rows(metadata: Any) -> int:
    total: int = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    rows: int = metadata.num_rows
    return max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, rows) // max(1, total)))


def _check_types(schema: Any, settings: SourceSettings) -> None:
    chosen = [(setting, name, _value_type(schema.field(name).type)) for setting, name in settings.columns.items()]
    setting, name, text = chosen[0]
    listed = settings.kind == "chat" and _is_list(text)
    if not (_is_textual(text) or pa.types.is_null(text) or listed):
        raise UnreadableFile(f"column {name!r} is of type {text}; text is expected. Set source.{setting}")
    for setting, name, label in chosen[1:]:
        if settings.kind == "multi-labelled" and _is_list(label):
            continue
        numeric = pa.types.is_integer(label) or pa.types.is_floating(label) or pa.types.is_boolean(label)
        if not (_is_textual(label) or numeric or pa.types.is_null(label)):
            raise UnreadableFile(f"column {name!r} is of type {label}; text, a number or a boolean is expected. Set source.{setting}")


def _is_list(kind: Any) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_textual(kind: Any) -> bool:
    """Whether values of the type are text, or bytes that may be."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(kind) for test in tests) or _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _parse_batch(batch: Any, first_row: int, settings: SourceSettings, class_names: Sequence[str]) -> pl.DataFrame:
    problems: dict[int, Unusable] = {}
    columns: dict[str, pl.Series] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        chosen = name in settings.columns.values()
        columns[name] = _as_series(name, column, chosen, first_row, problems)
    first, *second = (columns[name] for name in settings.columns.values())
    answers = second[0] if second else pl.repeat(None, batch.num_rows, eager=True)
    text, label = _as_text(first), _as_labels(_named(answers, class_names))
    others = [series for name, series in columns.items() if name not in settings.columns.values()]
    rows = pl.int_range(first_row, first_row + batch.num_rows, eager=True).alias("line_number")
    nothing = pl.repeat(None, batch.num_rows, dtype=pl.String, eager=True).alias("problem")
    frame = pl.DataFrame([rows, text, label, as_json(others, batch.num_rows), nothing])
    sizes = frame.select(pl.sum_horizontal(pl.col("text", "label", "extra").str.len_bytes()))["text"]
    for position in (sizes > settings.max_record_bytes).arg_true():
        shown = excerpt((frame["text"][position] or "").encode())
        problems.setdefault(position, Unusable(first_row + position, shown, over_long(sizes[position], settings.max_record_bytes)))
    if not problems:
        return frame
    keep = ~pl.Series(range(batch.num_rows)).is_in(list(problems))
    return in_order(frame.filter(keep), list(problems.values()))


def _as_series(name: str, column: Any, chosen: bool, first_row: int, problems: dict[int, Unusable]) -> pl.Series:
    """A column as strings, or as a type that can be written as JSON; what is not UTF-8 goes to `problems`, by position."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    kind = column.type
    if _is_binary(kind) and not chosen:
        values = [None if value is None else base64.b64encode(value).decode() for value in column.to_pylist()]
        return pl.Series(name, values, dtype=pl.String)
    if _is_textual(kind):
        return _decoded(name, column, first_row, problems)
    column.validate(full=True)
    if (pa.types.is_temporal(kind) and not pa.types.is_interval(kind)) or pa.types.is_decimal(kind):
        return pl.Series(name, pl.from_arrow(column.cast(pa.string())), dtype=pl.String)
    if not _writable(kind):
        return pl.Series(name, [None if value is None else str(value) for value in column.to_pylist()], dtype=pl.String)
    return pl.Series(name, pl.from_arrow(column))


def _decoded(name: str, column: Any, first_row: int, problems: dict[int, Unusable]) -> pl.Series:
    binary = pc.cast(column, pa.large_binary())
    try:
        return pl.Series(name, pl.from_arrow(pc.cast(binary, pa.large_string())), dtype=pl.String)
    except pa.ArrowInvalid:
        pass  # some value is not UTF-8: find out which
    texts: list[str | None] = []
    for position, value in enumerate(binary.to_pylist()):
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            texts.append(None)
            problems[position] = Unusable(first_row + position, excerpt(value), f"the value of column {name[:60]!r} is not valid UTF-8")
    return pl.Series(name, texts, dtype=pl.String)


def _writable(kind: Any) -> bool:
    """Whether Polars can write values of the type as JSON."""
    if pa.types.is_map(kind):
        return _writable(kind.key_type) and _writable(kind.item_type)
    if pa.types.is_nested(kind):
        return not pa.types.is_union(kind) and all(_writable(kind.field(index).type) for index in range(kind.num_fields))
    return not (_is_binary(kind) or pa.types.is_interval(kind) or isinstance(kind, pa.BaseExtensionType))


def _as_text(column: pl.Series) -> pl.Series:
    """The column as text: messages as JSON, without the keys that a message lacks."""
    if not column.dtype.is_nested():
        return column.cast(pl.String).alias("text")
    values = [None if value is None else json.dumps(_present(value), ensure_ascii=False) for value in column.to_list()]
    return pl.Series("text", values, dtype=pl.String)


def _present(messages: list[Any]) -> list[Any]:
    """Parquet gives each message every key; null stands for one that it lacks."""
    return [
        {key: value for key, value in message.items() if value is not None} if isinstance(message, dict) else message
        for message in messages
    ]


def _named(labels: pl.Series, class_names: Sequence[str]) -> pl.Series:
    """Numbers, or lists of them, by the names that they stand for; -1 is no label, and other numbers stay what they are."""
    numbers = labels.dtype.inner if isinstance(labels.dtype, pl.List) else labels.dtype
    if not class_names or not numbers.is_integer():
        return labels
    names = {-1: None, **dict(enumerate(class_names))}

    def name(number: pl.Expr) -> pl.Expr:
        return number.cast(pl.Int64).replace_strict(names, default=number.cast(pl.String), return_dtype=pl.String)

    column = pl.col(labels.name)
    return labels.to_frame().select(column.list.eval(name(pl.element())) if isinstance(labels.dtype, pl.List) else name(column)).to_series()


def _as_labels(column: pl.Series) -> pl.Series:
    if column.dtype == pl.String or column.dtype == pl.Null:
        return column.cast(pl.String).alias("label")
    if column.dtype.is_nested():
        return _as_text(column).alias("label")
    if column.dtype.is_float():
        column = column.fill_nan(None)
    spelled = {value: _spelled(value) for value in column.unique().to_list()}
    return pl.Series("label", [spelled[value] for value in column.to_list()], dtype=pl.String)


def _spelled(value: object) -> str | None:
    return str(value) if isinstance(value, float) else as_label(value)
