"""Real files of every format, and ways to damage them as disks, networks, editors and hostile senders do."""

import csv
import functools
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import zstandard

from trainpipe_tests.corpora import examples

CORPORA = Path(__file__).parent.parent / "data" / "samples" / "corpora"
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet", "txt")
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"": lambda content: content, ".gz": gzip.compress, ".zst": zstandard.compress}
BOMB_BYTES = 96 << 20
ODD = ['she said "no"', "two\nlines", "a,b\tc", "", " ", "naïve 😀", "\ufeffmark", "null", "x" * 3000]

Mutation = Callable[[bytes, random.Random], bytes]


def records(count: int, seed: int) -> list[dict[str, str]]:
    """Records of a sample corpus where the samples were fetched, else made-up ones; odd texts among them."""
    chooser = random.Random(seed)
    movies = _movies()
    found = examples(count, seed) if movies is None else movies.sample(count, seed=seed).rows()
    rows = [*found, *((chooser.choice(ODD), "positive") for _ in range(5))]
    chooser.shuffle(rows)
    return [{"id": str(number), "text": str(text), "label": str(label)} for number, (text, label) in enumerate(rows)]


@functools.cache
def _movies() -> pl.DataFrame | None:
    file = CORPORA / "movies.csv"
    return pl.read_csv(file, columns=["text", "label"], infer_schema=False) if file.is_file() else None


def written(kind: str, rows: list[dict[str, str]], chooser: random.Random) -> bytes:
    """The records as a file of a format."""
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=chooser.random() < 0.5) + "\n" for row in rows).encode()
    if kind == "json":
        indent, ascii_only = chooser.choice([None, 0, 2]), chooser.random() < 0.5
        return json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode()
    if kind == "txt":
        return chooser.choice(["\n", "\n\n", "\r\n"]).join(row["text"] for row in rows).encode()
    if kind == "tsv":  # no quoting: what would break a line is replaced, as writers of TSV do
        return "".join(
            "\t".join(re.sub(r"[\t\r\n]", " ", row[key]) for row in [row] for key in row) + "\n" for row in _headed(rows)
        ).encode()
    if kind == "csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator=chooser.choice(["\n", "\r\n"]))
        writer.writerows(row.values() for row in _headed(rows))
        return text.getvalue().encode()
    return _as_parquet(rows, chooser)


def _headed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: key for key in rows[0]}, *rows]


def _as_parquet(rows: list[dict[str, str]], chooser: random.Random) -> bytes:
    table = pa.Table.from_pylist(rows)
    if chooser.random() < 0.5:
        table = table.append_column("score", pa.array([float(number) for number in range(len(rows))]))
        table = table.append_column("tags", pa.array([[f"t{number % 3}"] * (number % 4) for number in range(len(rows))]))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        table,
        buffer,
        compression=chooser.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=chooser.random() < 0.5,
        data_page_size=chooser.choice([256, 1 << 20]),
        row_group_size=chooser.choice([10, 1000]),
        data_page_version=chooser.choice(["1.0", "2.0"]),
        write_page_checksum=chooser.random() < 0.5,
    )
    return buffer.getvalue()


def _position(content: bytes, chooser: random.Random) -> int:
    return chooser.randrange(len(content) + 1)


def _insert(content: bytes, chooser: random.Random, piece: bytes) -> bytes:
    at = _position(content, chooser)
    return content[:at] + piece + content[at:]


def flip_bytes(content: bytes, chooser: random.Random) -> bytes:
    """Some bytes become others."""
    changed = bytearray(content)
    for _ in range(chooser.choice([1, 1, 3, 30])):
        if changed:
            changed[chooser.randrange(len(changed))] = chooser.randrange(256)
    return bytes(changed)


def truncate(content: bytes, chooser: random.Random) -> bytes:
    """The end, or the beginning, is missing."""
    at = _position(content, chooser)
    return content[:at] if chooser.random() < 0.8 else content[at:]


def splice(content: bytes, chooser: random.Random) -> bytes:
    """A stretch is cut out, or swapped with another."""
    first, second, third = sorted(_position(content, chooser) for _ in range(3))
    return content[:first] + (content[second:third] + content[first:second] if chooser.random() < 0.5 else b"") + content[third:]


def double(content: bytes, chooser: random.Random) -> bytes:
    """A stretch, or everything, comes twice."""
    first, second = sorted(_position(content, chooser) for _ in range(2))
    return content + content if chooser.random() < 0.2 else content[:second] + content[first:]


def overwrite_end(content: bytes, chooser: random.Random) -> bytes:
    """The last bytes are damaged: a Parquet footer and its length, a checksum of gzip."""
    length = min(len(content), chooser.choice([4, 8, 12, 400]))
    return content[: len(content) - length] + flip_bytes(content[len(content) - length :], chooser)


def huge_field(content: bytes, chooser: random.Random) -> bytes:
    """A field of some megabytes."""
    return _insert(content, chooser, chooser.choice([b"x", b" ", b'"', b"\xc3\xa9", b"ab,"]) * chooser.choice([100_000, 1_100_000]))


def nulls(content: bytes, chooser: random.Random) -> bytes:
    """NUL bytes, as a crashed writer leaves them."""
    return _insert(content, chooser, b"\0" * chooser.choice([1, 3, 4096]))


def marks(content: bytes, chooser: random.Random) -> bytes:
    """A byte order mark that belongs there, or not."""
    mark = chooser.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0"])
    return mark + content if chooser.random() < 0.7 else _insert(content, chooser, mark)


def recode(content: bytes, chooser: random.Random) -> bytes:
    """Saved in another encoding."""
    encoding = chooser.choice(["utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252", "utf-32"])
    return content.decode("utf-8", "replace").encode(encoding, "replace")


def broken_utf8(content: bytes, chooser: random.Random) -> bytes:
    """Bytes that are not UTF-8."""
    return _insert(content, chooser, chooser.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80\x80", b"\xe9"]))


def quotes(content: bytes, chooser: random.Random) -> bytes:
    """Quotes and delimiters where they do not belong."""
    for _ in range(chooser.choice([1, 2, 20])):
        content = _insert(
            content, chooser, chooser.choice([b'"', b'""', b'"\n', b'","', b"\r", b"\r\n", b"\t", b",", b"\n\n", b"\x1c", b"\x0b"])
        )
    return content


def nested(content: bytes, chooser: random.Random) -> bytes:
    """JSON that is nested deeply, or odd."""
    depth = chooser.choice([10, 900, 100_000])
    deep = chooser.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth])
    odd = chooser.choice(
        [b"1" * 5000, b"1e999", b"NaN", b'"\\ud800"', b"-0", b"{}", b'{"text": {}, "label": []}', b'{"text": 1, "text": 2}']
    )
    value = deep if chooser.random() < 0.5 else odd
    line = chooser.choice([value, b'{"text": "a", "label": "b", "more": ' + value + b"}", b'{"text": ' + value + b', "label": "b"}'])
    return _insert(content, chooser, b"\n" + line + b"\n")


ALL: tuple[Mutation, ...] = (
    flip_bytes,
    truncate,
    splice,
    double,
    overwrite_end,
    huge_field,
    nulls,
    marks,
    recode,
    broken_utf8,
    quotes,
    nested,
)


def bomb(name: str, chooser: random.Random) -> bytes:
    """A small compressed file that is large once it is not: one endless record, or many."""
    kind, _, compression = name.partition(".")[2].partition(".")
    if kind == "parquet":
        table = pa.table({"text": pa.array(["x" * 100] * (BOMB_BYTES // 100)), "label": ["positive"] * (BOMB_BYTES // 100)})
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, row_group_size=BOMB_BYTES)
        return COMPRESSIONS[f".{compression}" if compression else ""](buffer.getvalue())
    filling = chooser.choice([b"x", b"\0", b"[", b'"', b"\n", b"text,label\n"])
    size = BOMB_BYTES // 8 if filling.startswith(b"text") else BOMB_BYTES  # a million records are enough
    begin = chooser.choice([b"[", b"[\n{", b'[{"text": "', b"[" + b'{"text": "a", "label": "b"},']) if kind == "json" else b"text,label\n"
    content = begin + filling * (size // len(filling))
    return COMPRESSIONS[f".{compression}"](content)


def mutated(name: str, seed: int) -> bytes:
    """The file called `name` (`a.csv.gz`), damaged as the seed says."""
    chooser = random.Random(seed)
    kind, _, compression = name.partition(".")[2].partition(".")
    compress = COMPRESSIONS[f".{compression}" if compression else ""]
    content = written(kind, records(chooser.choice([1, 20, 200]), seed), chooser)
    inside = not compression or chooser.random() < 0.6
    for _ in range(chooser.choice([1, 1, 2, 4])):
        if inside:
            content = chooser.choice(ALL)(content, chooser)
    content = compress(content)
    return content if inside else chooser.choice((flip_bytes, truncate, splice, double, overwrite_end, nulls))(content, chooser)
