"""What bad input gets: a row that says what is wrong, and neighbours that are unharmed."""

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainpipe_assets.data.reading import delimited
from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.reading.records import Window
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.unit.landed_files import HEADER, NOW, good, land_bytes, ordinals, problems, read_bytes, whole_file_problem

bounded = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BEFORE, AFTER = (2, "before", "pos"), ("after", "neg")


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def between(folder: Path, bad: bytes, after_line: int = 4, **changes: Any) -> str:
    """The problem of the `bad` line between two good ones, which must both survive."""
    rows = read_bytes(folder, "a.csv", HEADER + b"before,pos\n" + bad + b"\nafter,neg\n", **changes)
    assert good(rows) == [BEFORE, (after_line, *AFTER)]
    assert ordinals(rows) == [1, 2, 3]
    ((line, problem),) = problems(rows)
    assert line == 3
    assert rows["label"][1] is None
    return problem


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (b"only one", "the record has 1 field; the header has 2"),
        (b"one,two,three", "the record has 3 fields; the header has 2"),
        (b'"quoted, too",two,three', "the record has 3 fields; the header has 2"),
        (b"caf\xe9,pos", "the record is not valid UTF-8 (byte 0xe9 at byte 4); save the file as UTF-8, or set source.encoding"),
        (b"n\0ul,pos", "the record holds NUL bytes; the file is damaged or not text"),
        (b'"closed" early,pos', "field 1 goes on after its closing quote; double a quote that is text"),
        (b'pos,"he said "hi" to me"', "field 2 goes on after its closing quote; double a quote that is text"),
        (b'"never closed,pos', "a quote opens in field 1 and does not close before the end of the file; double a quote that is text"),
    ],
)
def test_a_bad_csv_record_harms_no_other(tmp_path: Path, bad: bytes, problem: str) -> None:
    assert between(tmp_path, bad) == problem


def test_the_raw_record_is_kept_with_what_cannot_be_decoded_replaced(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.csv", HEADER + b"caf\xe9," + b"x" * 5000 + b"\n")
    assert rows["text"][0] == ("caf\ufffd," + "x" * 5000)[:1000]
    assert rows["extra"][0] == "{}"


def test_a_quote_within_an_unquoted_field_is_text(tmp_path: Path) -> None:
    assert good(read_bytes(tmp_path, "a.csv", HEADER + b'a 5" pipe,pos\n')) == [(2, 'a 5" pipe', "pos")]


def test_an_unbalanced_quote_costs_its_line_only(tmp_path: Path) -> None:
    lines = b"".join(b'"text, %d",pos\n' % n for n in range(5000))
    rows = read_bytes(tmp_path, "a.csv", HEADER + b'"open,pos\n' + lines)
    assert problems(rows) == [(2, "field 1 goes on after its closing quote; double a quote that is text")]
    assert [row[1] for row in good(rows)] == [f"text, {n}" for n in range(5000)]


def test_an_unbalanced_quote_swallows_no_more_than_the_longest_record(tmp_path: Path) -> None:
    lines = b"".join(b"text %d,pos\n" % n for n in range(5000))
    rows = read_bytes(tmp_path, "a.csv", HEADER + b'"open,pos\n' + lines, max_record_bytes=1000)
    assert problems(rows) == [(2, "a quote opens in field 1 and does not close within 1,000 bytes; double a quote that is text")]
    assert len(good(rows)) == 5000


def test_a_record_that_is_too_long_is_rejected_with_its_length(tmp_path: Path) -> None:
    bad = b"x" * 5_000_000 + b",pos"
    expected = "the record is 5,000,004 bytes long; at most 1,048,576 are read (source.max_record_bytes)"
    assert between(tmp_path, bad) == expected
    rows = read_bytes(tmp_path, "b.jsonl", b'{"text": "a", "label": "b"}\n' + bad + b'\n{"text": "c", "label": "d"}')
    assert (good(rows), problems(rows)) == ([(1, "a", "b"), (3, "c", "d")], [(2, expected)])
    assert rows["text"][1] == "x" * 1000


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("length", [64, 65, 2**21 - 30, 2**21 - 20, 2**21 - 11])
def test_the_limit_is_exact_and_line_breaks_do_not_count(tmp_path: Path, terminator: bytes, length: int) -> None:
    record = b"x" * (length - 4) + b",pos"
    rows = read_bytes(tmp_path, "a.csv", terminator.join([b"text,label", record, b"after,neg", b""]), max_record_bytes=64)
    assert good(rows) == ([(2, "x" * 60, "pos")] if length == 64 else []) + [(3, *AFTER)]
    assert len(problems(rows)) == (length != 64)


LONG_QUOTED = b'"' + b"x" * 40 + b"\n" + b"y" * 40 + b'",'  # of 84 bytes


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("rest", [b"pos", b"pos,", b'"p\n,""s"', b"z" * 100])
def test_a_quoted_record_over_the_limit_is_rejected_with_all_its_lines(tmp_path: Path, terminator: bytes, rest: bytes) -> None:
    bad = LONG_QUOTED + rest
    rows = read_bytes(tmp_path, "a.csv", terminator.join([b"text,label", bad, b"after,neg", b""]), max_record_bytes=64)
    assert good(rows) == [(4 + rest.count(b"\n"), *AFTER)]
    assert problems(rows) == [(2, f"the record is {len(bad)} bytes long; at most 64 are read (source.max_record_bytes)")]


@pytest.mark.parametrize(("rest", "further"), [(b"pos,", 15), (b'"pos', 1 << 20), (b'"p"os', 1 << 20)])
def test_where_a_long_quoted_record_does_not_end_its_first_line_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: bytes, further: int
) -> None:
    monkeypatch.setattr(delimited, "FURTHER_BYTES", further)
    rows = read_bytes(tmp_path, "a.csv", HEADER + LONG_QUOTED + rest + b"\nafter,neg\n", max_record_bytes=64)
    assert good(rows)[-1] == (4, *AFTER)
    assert problems(rows)[0] == (2, "a quote opens in field 1 and does not close within 64 bytes; double a quote that is text")


def test_a_window_that_is_asked_for_much_is_not_copied_for_each_record() -> None:
    content, asked = io.BytesIO(b"x" * 40_000_000), list[int]()

    class Stream:
        def read(self, size: int) -> bytes:
            asked.append(size)
            return content.read(size)

    window = Window(Stream())
    for _ in range(20_000):
        window.fill(5_000_000)
        assert len(window) >= 5_000_000
        window.advance(window.start + 1000, 0)
    assert len(asked) <= 6


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"\r"])
def test_line_breaks_of_every_kind_and_blank_lines(tmp_path: Path, terminator: bytes) -> None:
    rows = read_bytes(tmp_path, "a.csv", terminator.join([b"", b"text,label", b"", b"a,b", b"", b"", b"c,d"]))
    assert (good(rows), problems(rows), ordinals(rows)) == ([(4, "a", "b"), (7, "c", "d")], [], [1, 2])
    lines = [b"", b'{"text": "a", "label": "b"}', b" ", b'{"text": "c", "label": "d"}']
    rows = read_bytes(tmp_path, "a.jsonl", terminator.join(lines))
    assert (good(rows), problems(rows)) == ([(2, "a", "b"), (4, "c", "d")], [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_byte_order_marks(tmp_path: Path, encoding: str) -> None:
    mark = "" if encoding == "utf-8-sig" else "\ufeff"
    rows = read_bytes(tmp_path, "a.csv", f"{mark}text,label\nein schöner Tag 😀,pos\n".encode(encoding))
    assert (good(rows), problems(rows)) == ([(2, "ein schöner Tag 😀", "pos")], [])
    rows = read_bytes(tmp_path, "a.jsonl", (mark + '{"text": "schön 😀", "label": "pos"}\n').encode(encoding))
    assert good(rows) == [(1, "schön 😀", "pos")]


def test_utf16_that_is_not_valid_harms_one_row(tmp_path: Path) -> None:
    content = "\ufefftext,label\nbefore,pos\n".encode("utf-16-le") + b"\x00\xd8" + ",neg\nafter,neg\n".encode("utf-16-le")
    rows = read_bytes(tmp_path, "a.csv", content)
    assert good(rows) == [BEFORE, (4, *AFTER)]
    assert "not valid UTF-8" in problems(rows)[0][1]
    rows = read_bytes(tmp_path, "a.csv", "\ufefftext,label\nbefore,pos\nend,neg".encode("utf-16-le") + b"x")
    assert good(rows) == [BEFORE]


def test_utf16_without_a_mark_is_recognised(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.csv", "text,label\na,b\n".encode("utf-16-le")))
    assert "the header line cannot be used: the record holds NUL bytes" in problem
    assert "UTF-16 without a byte order mark" in problem


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "the file is empty; a header line and one record or more are expected"),
        ("a.csv", b"\n\r\n", "the file is empty; a header line and one record or more are expected"),
        ("a.csv", b"\xef\xbb\xbf", "the file is empty; a header line and one record or more are expected"),
        ("a.csv", b"text,label\n", "the file has a header (text, label) and no records"),
        ("a.tsv", b"text\tlabel", "the file has a header (text, label) and no records"),
        ("a.jsonl", b"", "the file is empty; one JSON object a line is expected"),
        ("a.jsonl", b"\n \n", "the file is empty; one JSON object a line is expected"),
        ("a.csv.gz", b"", "the file is empty; a header line and one record or more are expected"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "the file is empty; a header line and one record or more are expected"),
        ("a.jsonl.zst", b"", "the file is empty; one JSON object a line is expected"),
        ("a.parquet", parquet({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), "the file holds no rows"),
    ],
)
def test_a_file_without_records_is_one_row(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    assert whole_file_problem(read_bytes(tmp_path, name, content)) == problem


def test_a_missing_column_names_those_found_and_the_setting(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.csv", b"id,review,label\n1,fine,pos\n"))
    assert problem == "there is no column 'text'; the columns are 'id', 'review', 'label'. Set source.text_column"
    problem = whole_file_problem(read_bytes(tmp_path, "a.tsv", b"text\tstars\nfine\tpos\n"))
    assert problem == "there is no column 'label'; the columns are 'text', 'stars'. Set source.label_column"
    problem = whole_file_problem(read_bytes(tmp_path, "a.parquet", parquet({"text": ["fine"], "n": [1]})))
    assert problem == "there is no column 'label'; the columns are 'text', 'n'. Set source.label_column"


@pytest.mark.parametrize(("header", "mark"), [(b"text;label", "';'"), (b"text\tlabel", "'\\t'"), (b"text|label", "'|'")])
def test_a_wrong_delimiter_is_told_from_a_wrong_column(tmp_path: Path, header: bytes, mark: str) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.csv", header + b"\nfine;pos\n"))
    assert problem is not None
    assert problem.endswith(f". They look separated by {mark}: set source.delimiter")


@pytest.mark.parametrize("found", ["Text", " text", "TEXT "])
def test_a_column_that_is_spelled_otherwise_is_suggested(tmp_path: Path, found: str) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.csv", f"{found},label\nfine,pos\n".encode()))
    assert problem.endswith(f"did you mean {found!r}? Names must match exactly")


def test_columns_of_the_same_name_are_refused(tmp_path: Path) -> None:
    expected = "more than one column is called 'n'; the columns are 'text', 'n', 'label', 'n'. Rename or remove them"
    assert whole_file_problem(read_bytes(tmp_path, "a.csv", b"text,n,label,n\na,b,c,d\n")) == expected
    table = pa.Table.from_arrays([pa.array(["a"])] * 4, names=["text", "n", "label", "n"])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    assert whole_file_problem(read_bytes(tmp_path, "a.parquet", buffer.getvalue())) == expected


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (gzip.compress(HEADER, mtime=0), "gzip"),
        (zstandard.compress(HEADER), "Zstandard"),
        (parquet({"a": [1]}), "Parquet"),
        (b"PK\x03\x04", "ZIP"),
    ],
)
def test_a_file_whose_name_tells_the_wrong_format(tmp_path: Path, content: bytes, kind: str) -> None:
    assert whole_file_problem(read_bytes(tmp_path, "a.csv", content)).startswith(f"the file holds {kind}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": "a", "label": ', "the record is not valid JSON: Expecting value at character 23"),
        (b"text", "the record is not valid JSON: Expecting value at character 1"),
        (b'{"text": "a", "label": "b"} x', "the record is not valid JSON: it goes on after its value, at character 28"),
        (
            b'{"text": "a", "label": "b"}{"text": "c", "label": "d"}',
            "the record is not valid JSON: it goes on after its value, at character 28",
        ),
        (b'["a", "b"]', "the record is \"['a', 'b']\" (list); a JSON object is expected"),
        (b"null", "the record is 'None' (NoneType); a JSON object is expected"),
        (b'{"text": "a", "label": NaN}', "the record is not valid JSON: NaN is not a JSON value; use null"),
        (b'{"text": "a", "label": "b", "n": -Infinity}', "the record is not valid JSON: -Infinity is not a JSON value; use null"),
        (b'{"text": 5, "label": "b"}', "the text is the number 5; a string is expected"),
        (b'{"text": true, "label": "b"}', "the text is a boolean; a string is expected"),
        (b'{"text": {"a": 1}, "label": "b"}', "the text is an object; a string is expected"),
        (b'{"text": "a", "label": ["b"]}', "the label is a list; a string, a number or a boolean is expected"),
        (b'{"text": "a", "label": 1e999}', "the label is the number inf; a string, a number or a boolean is expected"),
        (b'{"text": "a", "stars": "b"}', "the object has no key 'label'; its keys are 'text', 'stars'. Set source.label_column"),
        (b"{}", "the object has no key 'text'; its keys are none. Set source.text_column"),
        (b'{"text": "caf\xe9", "label": "b"}', "the record is not valid UTF-8 (byte 0xe9 at byte 14); save the file as UTF-8"),
        (b'{"text": "a\0", "label": "b"}', "the record holds NUL bytes; the file is damaged or not text"),
        (rb'{"text": "\ud800", "label": "b"}', r"the record holds half of a surrogate pair (\ud800 to \udfff), which is not a character"),
        (
            rb'{"text": "a", "label": "b", "\udfff": 1}',
            r"the record holds half of a surrogate pair (\ud800 to \udfff), which is not a character",
        ),
        (b'{"text": "a", "label": "b", "n": 1e999}', "the record holds a number or a nesting out of range"),
        (b'{"text": "a", "label": "b", "n": ' + b"9" * 5000 + b"}", "the record holds a number that is too long"),
        (b'{"text": "a", "label": "b", "n": ' + b"[" * 100_000, "the record is nested too deeply"),
    ],
)
def test_a_bad_json_line_harms_no_other(tmp_path: Path, line: bytes, problem: str) -> None:
    lines = [b'{"text": "before", "label": "pos"}', line, b'{"text": "after", "label": "neg"}']
    rows = read_bytes(tmp_path, "a.jsonl", b"\n".join(lines))
    assert good(rows) == [(1, "before", "pos"), (3, *AFTER)]
    ((number, found),) = problems(rows)
    assert number == 2
    assert found.startswith(problem)


def test_nulls_of_json_and_parquet_stay_null(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.jsonl", b'{"text": null, "label": null, "n": null}')
    assert rows.select("text", "label", "extra", "problem").rows() == [(None, None, '{"n":null}', None)]
    rows = read_bytes(tmp_path, "a.parquet", parquet({"text": pa.nulls(1), "label": pa.nulls(1, pa.string())}))
    assert rows.select("text", "label", "problem").rows() == [(None, None, None)]


@pytest.mark.parametrize(
    ("name", "compress"), [("a.csv.gz", gzip.compress), ("a.csv.zst", zstandard.compress), ("a.jsonl.gz", gzip.compress)]
)
def test_a_compressed_file_that_was_cut_off_keeps_what_came_before(tmp_path: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    generator = random.Random(0)
    texts = [f"{generator.random()} {generator.random()}" for _ in range(20_000)]
    if "csv" in name:
        plain = HEADER + "".join(f"{text},pos\n" for text in texts).encode()
    else:
        plain = "".join(json.dumps({"text": text, "label": "pos"}) + "\n" for text in texts).encode()
    compressed = compress(plain)
    rows = read_bytes(tmp_path, name, compressed[: len(compressed) // 2])
    kept = [row[1] for row in good(rows)]
    assert len(kept) > 1000
    assert kept == texts[: len(kept)]
    ((line, problem),) = problems(rows)
    assert line == len(kept) + (2 if "csv" in name else 1)
    assert problem.startswith(f"the file cannot be read from line {line} on: ")
    assert "ends early: the file was cut off" in problem
    assert ordinals(rows) == list(range(1, len(kept) + 2))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.jsonl.gz", "a.parquet.gz", "a.parquet.zst"])
def test_a_compressed_file_that_is_not_one(tmp_path: Path, name: str) -> None:
    assert "data is damaged" in whole_file_problem(read_bytes(tmp_path, name, HEADER + b"a,b\n"))


def test_a_member_that_is_damaged_after_a_good_one(tmp_path: Path) -> None:
    first, second = gzip.compress(HEADER + b"before,pos\n"), bytearray(gzip.compress(b"after,neg\n"))
    assert good(read_bytes(tmp_path, "a.csv.gz", first + bytes(second))) == [BEFORE, (3, *AFTER)]
    second[-8] ^= 1  # its checksum
    rows = read_bytes(tmp_path, "a.csv.gz", first + bytes(second))
    assert good(rows)[0] == BEFORE
    assert "the gzip data is damaged" in problems(rows)[0][1]


@pytest.mark.parametrize(
    "damage", [lambda good: b"", lambda good: b"PAR1", lambda good: good[:-20], lambda good: b"x" * 100, lambda good: good[50:]]
)
def test_a_corrupt_parquet_file_is_one_row(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    content = damage(parquet({"text": ["a"] * 100, "label": ["b"] * 100}))
    assert whole_file_problem(read_bytes(tmp_path, "a.parquet", content)).startswith("the file is not a readable Parquet file")


def test_damage_within_a_parquet_file_is_a_row_of_its_own(tmp_path: Path) -> None:
    columns = {"text": [f"text {n} {n * 7919 % 1013}" for n in range(2000)], "label": ["pos"] * 2000}
    content = bytearray(parquet(columns, row_group_size=1000, write_page_checksum=True, use_dictionary=False, compression="none"))
    at = content.rindex(b"text 1500 ")
    content[at] ^= 0xFF
    rows = read_bytes(tmp_path, "a.parquet", bytes(content))
    assert [row[1] for row in good(rows)] == columns["text"][: len(good(rows))]
    ((line, problem),) = problems(rows)
    assert (line, ordinals(rows)[-1]) == (0, 0)
    assert problem.startswith("the file is not a readable Parquet file")


def test_parquet_columns_of_every_kind_end_up_in_extra(tmp_path: Path) -> None:
    columns = {
        "text": ["a"],
        "label": ["b"],
        "unsigned": pa.array([2**64 - 1], pa.uint64()),
        "category": pa.array(["x"]).dictionary_encode(),
        "binary": pa.array([b"\xff\0"]),
        "list": pa.array([[1, None]]),
        "struct": pa.array([{"x": 1, "y": {"z": "deep"}}]),
        "bytes_within": pa.array([[b"\xff"]]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "when": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns")),
        "day": pa.array([1], pa.date32()),
        "price": pa.array([Decimal("1.00")]),
        "nan": pa.array([float("nan")]),
        "null": pa.nulls(1),
    }
    rows = read_bytes(tmp_path, "a.parquet", parquet(columns))
    assert good(rows) == [(1, "a", "b")]
    assert json.loads(rows["extra"][0]) == {
        "unsigned": 2**64 - 1,
        "category": "x",
        "binary": "/wA=",
        "list": [1, None],
        "struct": {"x": 1, "y": {"z": "deep"}},
        "bytes_within": "[b'\\xff']",
        "map": {"k": 1},
        "when": "2023-11-14 22:13:20.000000001",
        "day": "1970-01-02",
        "price": "1.00",
        "nan": None,
        "null": None,
    }


@pytest.mark.parametrize(
    ("column", "array", "kind", "setting"),
    [
        ("text", pa.array([1]), "int64", "text_column"),
        ("text", pa.array([["a"]]), "list", "text_column"),
        ("label", pa.array([{"a": 1}]), "struct", "label_column"),
    ],
)
def test_parquet_columns_of_the_wrong_kind(tmp_path: Path, column: str, array: Any, kind: str, setting: str) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.parquet", parquet({"text": ["a"], "label": ["b"]} | {column: array})))
    assert problem.startswith(f"column '{column}' is of type {kind}")
    assert problem.endswith(f"Set source.{setting}")


@pytest.mark.parametrize("column", ["text", "label", "other"])
def test_a_parquet_value_that_is_not_utf8_harms_one_row(tmp_path: Path, column: str) -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"a", b"\xff", b"c"]).buffers())
    rows = read_bytes(
        tmp_path, "a.parquet", parquet({"text": ["a", "b", "c"], "label": ["x", "y", "z"], "other": ["", "", ""]} | {column: bad})
    )
    assert [row[0] for row in good(rows)] == [1, 3]
    assert problems(rows) == [(2, f"the value of column '{column}' is not valid UTF-8")]


def test_a_parquet_value_that_is_too_long_harms_one_row(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.parquet", parquet({"text": ["a", "x" * 5000, "c"], "label": ["p", "q", "r"]}), max_record_bytes=1000)
    assert good(rows) == [(1, "a", "p"), (3, "c", "r")]
    assert problems(rows)[0][1].startswith("the record is 5,003 bytes long; at most 1,000 are read")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.csv.zst", "a.parquet", "a.parquet.gz"])
def test_a_storage_fault_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class Faulty(io.BytesIO):
        """A file whose storage fails before its end."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() >= 50 or name == "a.parquet":  # which is so short that one read takes it all
                raise TimeoutError("the storage did not answer")
            return super().read(50 if size is None or size < 0 else min(size, 50))

    file = land_bytes(tmp_path, name, _originals()[name])
    parts = iter([io.BytesIO(_originals()[name]), Faulty(_originals()[name])])  # the first is read for the file's id
    monkeypatch.setattr("trainpipe_assets.data.reading.readers.open_landed", lambda _: next(parts))
    with pytest.raises(TimeoutError, match="did not answer"):
        list(read_file(file, SourceSettings(), NOW))


lines_of_bytes = st.lists(
    st.binary(min_size=1, max_size=30).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"") or b"x"), min_size=1, max_size=20
)


@bounded
@given(lines=lines_of_bytes)
def test_every_line_of_any_bytes_is_one_row(tmp_path: Path, lines: list[bytes]) -> None:
    """Without quotes a line is a record, whatever it holds; in JSON Lines it always is."""
    rows = read_bytes(tmp_path, "a.csv", HEADER + b"\n".join(lines), quote_char="")
    assert rows["line_number"].to_list() == list(range(2, len(lines) + 2))
    filled = [number for number, line in enumerate(lines, 1) if line.strip(b" \t\r\n")]
    if filled:
        rows = read_bytes(tmp_path, "a.jsonl", b"{}\n" + b"\n".join(lines))
        assert rows["line_number"].to_list() == [1, *(number + 1 for number in filled)]


@bounded
@given(
    kinds=st.lists(
        st.sampled_from([b"fine,pos", b'"quoted ""and""\r\nlong",neg', b"too,many,fields", b"few", b"\xff,pos", b"\0,pos", b'"a"b,neg']),
        min_size=1,
        max_size=40,
    )
)
def test_good_and_bad_csv_records_are_conserved(tmp_path: Path, kinds: list[bytes]) -> None:
    rows = read_bytes(tmp_path, "a.csv", HEADER + b"\n".join(kinds))
    assert ordinals(rows) == list(range(1, len(kinds) + 1))
    assert rows["problem"].is_null().to_list() == [kind in (b"fine,pos", b'"quoted ""and""\r\nlong",neg') for kind in kinds]


def _originals() -> dict[str, bytes]:
    rows = [{"text": f'film {n}, "quoted" é', "label": "pos" if n % 2 else "neg", "n": n} for n in range(60)]
    frame = pl.DataFrame(rows)
    plain_csv = frame.write_csv().encode()
    plain_json = frame.write_ndjson().encode()
    nested = {"text": frame["text"].to_list(), "label": frame["label"].to_list(), "l": [[n] for n in range(60)], "s": [{"a": "x"}] * 60}
    return {
        "a.csv": plain_csv,
        "a.csv.gz": gzip.compress(plain_csv, mtime=0),
        "a.csv.zst": zstandard.compress(plain_csv),
        "a.tsv": frame.write_csv(separator="\t", quote_style="never").encode(),
        "a.jsonl": plain_json,
        "a.jsonl.gz": gzip.compress(plain_json, mtime=0),
        "a.parquet": parquet(nested),
        "a.parquet.gz": gzip.compress(parquet(nested, compression="none"), mtime=0),
    }


def _mutated(content: bytes, generator: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 5, 20))):
        at = generator.randrange(len(damaged)) if damaged else 0
        span = generator.randrange(1, 20)
        match generator.randrange(5):
            case 0 if damaged:
                damaged[at] = generator.randrange(256)
            case 1:
                del damaged[at : at + span]
            case 2:
                damaged[at:at] = damaged[at : at + span]
            case 3:
                damaged[at:at] = generator.choice((b'"', b"\n", b"\r", b"\0", b"\xff\xfe", b",", b"{", b"\t"))
            case _:
                del damaged[at + len(damaged) // 2 :]
    return bytes(damaged)


@pytest.mark.parametrize("name", list(_originals()))
def test_damaged_files_always_end_in_rows(tmp_path: Path, name: str) -> None:
    original = _originals()[name]
    for seed in range(80):
        rows = read_bytes(tmp_path, name, _mutated(original, random.Random(f"{name} {seed}")), max_record_bytes=2000)
        assert rows.height >= 1


def test_memory_stays_bounded_however_long_a_record_or_small_its_compressed_form(tmp_path: Path) -> None:
    """A 300 MB cell, and as much behind a decompression of 1 : 1000, within 150 MB above what the imports take."""
    with gzip.open(tmp_path / "a.csv.gz", "wb", compresslevel=1) as file:
        file.write(HEADER + b"before,pos\n")
        for _ in range(300):
            file.write(b"x" * 1_000_000)
        file.write(b",pos\nafter,neg\n")
    program = """
import resource, sys
from datetime import UTC, datetime
from trainpipe_assets.data.reading import delimited
from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.reading.records import Window
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.settings import SourceSettings
(file,) = list_landed(sys.argv[1], SourceSettings())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = [row for batch in read_file(file, SourceSettings(), datetime.now(UTC)) for row in batch["problem"]]
print(len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, rows[1])
"""
    result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120)
    rows, kilobytes, problem = result.stdout.split(" ", 2)
    assert rows == "3"
    assert problem.startswith("the record is 300,000,004 bytes long")
    assert int(kilobytes) < 150_000 * (1 if sys.platform == "linux" else 1024)


@pytest.mark.timeout(60)  # a look at each name for each name took minutes
def test_a_header_of_a_hundred_thousand_columns_is_refused_at_once(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.csv", b"text,label" + b",ab" * 200_000 + b"\na,b\n"))
    assert problem.startswith("more than one column is called 'ab'")


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "Müller’s café – 5 €"), ("shift_jis", "映画は良かった"), ("utf-16-le", "ja 😀")])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.csv.gz"])
def test_other_encodings_by_setting(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    objects = [{"text": text, "label": "pos"}, {"text": "after", "label": "neg"}]
    as_json = "\n".join(json.dumps(found, ensure_ascii=False) for found in objects) if name == "a.jsonl" else json.dumps(objects)
    plain = f"text,label\n{text},pos\nafter,neg\n" if "csv" in name else as_json
    content = plain.encode(encoding)
    rows = read_bytes(tmp_path, name, gzip.compress(content, mtime=0) if name.endswith("gz") else content, encoding=encoding)
    assert rows.select("text", "label").rows() == [(text, "pos"), AFTER]
    assert rows["problem"].null_count() == 2


def test_a_byte_order_mark_overrides_the_encoding_that_is_set(tmp_path: Path) -> None:
    for mark in ("utf-8-sig", "utf-16"):
        rows = read_bytes(tmp_path, "a.csv", "text,label\nschön,pos\n".encode(mark), encoding="cp1252")
        assert rows.select("text", "label").rows() == [("schön", "pos")]


@pytest.mark.parametrize(("encoding", "damage"), [("cp1252", b"\x81"), ("shift_jis", b"\xff"), ("ascii", b"\xe9"), ("utf-8", b"\xe9")])
def test_a_byte_that_the_encoding_does_not_have_harms_one_row(tmp_path: Path, encoding: str, damage: bytes) -> None:
    rows = read_bytes(tmp_path, "a.csv", HEADER + b"before,pos\nbad" + damage + b",neg\nafter,neg\n", encoding=encoding)
    assert good(rows) == [BEFORE, (4, *AFTER)]
    ((line, problem),) = problems(rows)
    assert line == 3
    assert problem.startswith("the record is not valid UTF-8")
    assert problem.endswith("save the file as UTF-8, or set source.encoding")


@pytest.mark.parametrize(
    ("encoding", "damage"),
    [
        ("utf-8-sig", b"\xff"),
        ("utf-7", b"\xff"),
        ("utf-16-le", b"\x00\xdc"),
        ("utf-32-le", b"\xff" * 4),
        ("utf-32", b"\xff" * 4),
        ("hz", b"\xff"),
        ("cp424", b"\x70"),
        ("gb18030", b"\xff"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_damaged_in_any_encoding_harms_its_own_record_alone(
    tmp_path: Path, encoding: str, damage: bytes, *, compressed: bool
) -> None:
    spelt = {"utf-8-sig": "utf-8", "utf-32": "utf-32-le"}.get(encoding, encoding)  # without a mark
    head, tail = ("".join(f"text number {i},pos\n" for i in range(start, start + 9_000)) for start in (0, 10_000))
    content = ("text,label\n" + head + "bad ").encode(spelt) + damage + (",neg\n" + tail).encode(spelt)
    name, content = ("a.csv.gz", gzip.compress(content, mtime=0)) if compressed else ("a.csv", content)
    rows = read_bytes(tmp_path, name, content, encoding=encoding)
    assert rows.height == 18_001
    assert rows.filter(pl.col("problem").is_not_null())["line_number"].to_list() == [9_002]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_encoding_that_expects_a_mark_does_without(tmp_path: Path, encoding: str) -> None:
    content = "text,label\nein schöner Tag 😀,pos\n"
    marked = read_bytes(tmp_path, "a.csv", content.encode(encoding), encoding="cp1252")
    unmarked = read_bytes(tmp_path, "a.csv", content.encode(f"{encoding}-le"), encoding=encoding)
    assert marked["text"].to_list() == unmarked["text"].to_list() == ["ein schöner Tag 😀"]


@pytest.mark.parametrize("encoding", ["utf8", "UTF-8", "U8"])
def test_an_encoding_has_one_name(encoding: str) -> None:
    assert SourceSettings(encoding=encoding) == SourceSettings()


@pytest.mark.parametrize("encoding", ["", "excel", "base64", "rot13", "undefined"])
def test_what_is_no_encoding_of_text_is_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match="is no encoding of text that Python knows"):
        SourceSettings(encoding=encoding)
