"""Good files come back whole: round trips of each format, and the two ways through CSV against each other."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainpipe_assets.data.clean_layout import clean_layout
from trainpipe_assets.data.reading import delimited, records
from trainpipe_assets.data.reading.dialect import dialect_of
from trainpipe_assets.data.reading.readers import content_id, count_records, read_file
from trainpipe_assets.data.reading.records import UnreadableFile, Window
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.unit.landed_files import NOW, good, land_bytes, ordinals, problems, read_bytes

bounded = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, max_size=30)
tricky = st.text(st.sampled_from('a,"\n\r\t é😀'), max_size=12)
values = texts | tricky

COMPRESSIONS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("", lambda content: content),
    (".gz", gzip.compress),
    (".gz", lambda content: gzip.compress(content[:7]) + gzip.compress(content[7:])),
    (".zst", lambda content: zstandard.compress(content)),
    (".zst", lambda content: zstandard.compress(content[:7]) + zstandard.compress(content[7:])),
]


def as_csv(rows: list[tuple[str, ...]], terminator: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=terminator, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue().encode()


def parse(content: bytes, fill: int, careful_only: bool = False, **changes: Any) -> tuple[pl.DataFrame, str]:
    """The parsed records of a CSV file read ahead by `fill` bytes, and why reading ended early if it did."""
    chosen = SourceSettings(**changes)
    frames, failure = [pl.DataFrame(schema=records.PARSED)], ""
    with (
        mock.patch.object(records, "FILL_BYTES", fill),
        mock.patch.object(delimited, "FILL_BYTES", fill),
        mock.patch.object(delimited, "CAREFUL_BYTES", max(1, fill // 4)),
        mock.patch.object(delimited, "_read_clean", (lambda *_: None) if careful_only else delimited._read_clean),
    ):
        try:
            frames += delimited.read_delimited(Window(io.BytesIO(content)), chosen, tabs=False)
        except UnreadableFile as error:
            failure = str(error)
    return pl.concat(frames), failure


def test_a_line_of_json_that_is_too_long_is_told_of_whatever_it_begins_with(tmp_path: Path) -> None:
    content = b'{"text": "a", "label": "b"}\n' + b" " * 3_000_000 + b'{"text": "lost", "label": "b"}\n'
    rows = read_bytes(tmp_path, "a.jsonl", content)
    assert good(rows) == [(1, "a", "b")]
    assert [line for line, problem in problems(rows) if "3,000,030 bytes long" in problem] == [2]


@pytest.mark.parametrize(("ending", "compress"), COMPRESSIONS)
def test_each_format_reads_the_same_rows_in_each_compression(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]) -> None:
    rows = [("fine film", "pos", "1"), ("ein schöner Tag 😀", "neg", "2")]
    table = pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows], "n": [row[2] for row in rows]})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    contents = {
        "a.csv": as_csv([("text", "label", "n"), *rows]),
        "a.tsv": b"text\tlabel\tn\n" + "".join("\t".join(row) + "\n" for row in rows).encode(),
        "a.jsonl": "".join(json.dumps(dict(zip(("text", "label", "n"), row, strict=True))) + "\n" for row in rows).encode(),
        "a.parquet": buffer.getvalue(),
    }
    for name, content in contents.items():
        read = read_bytes(tmp_path, name + ending, compress(content))
        assert read.select("text", "label").rows() == [row[:2] for row in rows], name
        assert [json.loads(extra) for extra in read["extra"]] == [{"n": "1"}, {"n": "2"}], name
        assert read["problem"].null_count() == 2
        assert ordinals(read) == [1, 2]
        assert read["ingested_at"].to_list() == [NOW, NOW]


@bounded
@given(rows=st.lists(st.tuples(values, values, values), min_size=1, max_size=20), terminator=st.sampled_from(["\n", "\r\n", "\r"]))
def test_csv_round_trip(tmp_path: Path, rows: list[tuple[str, str, str]], terminator: str) -> None:
    read = read_bytes(tmp_path, "a.csv", as_csv([("text", "label", "other"), *rows], terminator))
    assert problems(read) == []
    assert read.select("text", "label").rows() == [row[:2] for row in rows]
    assert [json.loads(extra)["other"] for extra in read["extra"]] == [row[2] for row in rows]
    assert ordinals(read) == list(range(1, len(rows) + 1))


@bounded
@given(rows=st.lists(st.tuples(values, values), min_size=1, max_size=12), terminator=st.sampled_from(["\n", "\r\n"]))
def test_line_numbers_are_those_of_an_editor(rows: list[tuple[str, str]], terminator: str) -> None:
    expected, line = [], 2
    for row in rows:
        expected.append(line)
        line += (
            sum(value.count("\r\n") + value.replace("\r\n", "").count("\n") + value.replace("\r\n", "").count("\r") for value in row) + 1
        )
    read, _ = parse(as_csv([("text", "label"), *rows], terminator), 1 << 16)
    assert read["line_number"].to_list() == expected


@bounded
@given(
    content=st.lists(
        st.sampled_from([b",", b'"', b'""', b'"a"', b"\n", b"\n", b"\r\n", b"\r", b"ab", "é".encode(), b"\xff", b"\0", b"x,y\n"]),
        max_size=60,
    ),
    fill=st.sampled_from([4, 16, 64, 4096]),
    limit=st.sampled_from([64, 100]),
)
def test_whatever_the_bytes_both_ways_and_all_read_ahead_sizes_give_the_same_rows(content: list[bytes], fill: int, limit: int) -> None:
    file = b"text,label\n" + b"".join(content)
    reference = parse(file, 1 << 16, careful_only=True, max_record_bytes=limit)
    quick = parse(file, fill, max_record_bytes=limit)
    assert quick[0].equals(reference[0])
    assert quick[1] == reference[1]


@pytest.mark.parametrize("careful_only", [False, True])
@pytest.mark.parametrize("blank", ["\n", "\r\n", "\r", "\n\r\r\n"])
def test_any_number_of_blank_lines_is_left_out_and_counted(blank: str, careful_only: bool) -> None:
    before = f"{blank * 1000}text,label{blank * 1001}"
    frame, problem = parse(f"{before}good,positive{blank * 999}".encode(), 61, careful_only)
    assert frame["line_number"].to_list() == [len(before.splitlines()) + 1]
    assert problem == ""


def test_the_quick_way_is_taken_for_clean_and_for_ragged_records() -> None:
    content = (
        as_csv([("text", "label"), *[(f'some "text", {n}\nof two lines', "pos") for n in range(2000)]]) + b"too,many,fields\nfine,neg\n"
    )
    taken = []

    def watched(segment: bytes, dialect: Any) -> Any:
        layout = clean_layout(segment, dialect)
        taken.append(layout is not None)
        return layout

    with mock.patch.object(delimited, "clean_layout", watched):
        read, _ = parse(content, 1 << 14)
    assert all(taken)
    assert len(taken) > 1
    assert len(read) == 2002
    assert problems(read) == [(4002, "the record has 3 fields; the header has 2")]


def test_a_quick_layout_counts_lines_and_leaves_out_blank_ones() -> None:
    dialect = dialect_of(SourceSettings(), tabs=False)
    layout = clean_layout(b'a,b\n\n"x\ny",z\r\n\r\nc\nrest', dialect)
    assert layout is not None
    assert (layout.end, layout.lines) == (18, 6)
    assert layout.first_lines.tolist() == [0, 2, 5]
    assert layout.fields.tolist() == [2, 2, 1]


@pytest.mark.parametrize("content", [b'a,5" pipe\n', b'"a"b,c\n', b'"open,a\n', b"a,b\rc,d\n", b"a,b\r\r\n", b"a\0,b\n", b"no end"])
def test_the_quick_way_vouches_for_nothing_doubtful(content: bytes) -> None:
    assert clean_layout(content, dialect_of(SourceSettings(), tabs=False)) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@bounded
@given(
    rows=st.lists(
        st.tuples(
            st.none() | texts,
            st.none() | texts,
            st.dictionaries(texts.filter(lambda key: key not in ("text", "label")), json_values, max_size=3),
        ),
        min_size=1,
        max_size=12,
    ),
    ascii_only=st.booleans(),
)
def test_jsonl_round_trip(tmp_path: Path, rows: list[tuple[str | None, str | None, dict[str, Any]]], ascii_only: bool) -> None:
    lines = [json.dumps({"text": text, "label": label, **extra}, ensure_ascii=ascii_only) for text, label, extra in rows]
    read = read_bytes(tmp_path, "a.jsonl", "\n".join(lines).encode())
    assert problems(read) == []
    assert read.select("text", "label").rows() == [row[:2] for row in rows]
    assert [json.loads(extra) for extra in read["extra"]] == [row[2] for row in rows]
    assert read["line_number"].to_list() == list(range(1, len(rows) + 1))


@bounded
@given(columns=st.lists(st.tuples(texts, st.integers(), st.booleans()), min_size=1, max_size=10), odd=st.booleans())
def test_extra_reads_alike_a_column_at_a_time_and_one_by_one(tmp_path: Path, columns: list[tuple[str, int, bool]], odd: bool) -> None:
    lines = [json.dumps({"text": "t", "label": "l", "s": s, "i": i, "b": b}) for s, i, b in columns]
    odd_one = [json.dumps({"text": "t", "label": "l", "other": [1.5]})] if odd else []  # breaks the uniformity, so no columns
    read = read_bytes(tmp_path, "a.jsonl", "\n".join(lines + odd_one).encode())
    encoded = [json.dumps({"s": s, "i": i, "b": b}, ensure_ascii=False, separators=(",", ":")) for s, i, b in columns]
    assert read["extra"].to_list()[: len(columns)] == encoded


@bounded
@given(
    rows=st.lists(st.tuples(st.none() | values, st.none() | values, st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20),
    group=st.integers(1, 7),
)
def test_parquet_round_trip(tmp_path: Path, rows: list[tuple[str | None, str | None, int | None]], group: int) -> None:
    table = pa.table(
        {
            "text": pa.array([row[0] for row in rows], pa.string()),
            "label": pa.array([row[1] for row in rows], pa.string()),
            "n": pa.array([row[2] for row in rows], pa.int64()),
        }
    )
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, row_group_size=group)
    read = read_bytes(tmp_path, "a.parquet", buffer.getvalue())
    assert read.select("text", "label").rows() == [row[:2] for row in rows]
    assert [json.loads(extra) for extra in read["extra"]] == [{"n": row[2]} for row in rows]
    assert read["line_number"].to_list() == ordinals(read) == list(range(1, len(rows) + 1))


def test_batches_are_bounded_and_lose_nothing(tmp_path: Path) -> None:
    count = 120_000
    content = b"label,text\n" + b"".join(b"pos,text %d\n" % n for n in range(count))
    batches = list(read_file(land_bytes(tmp_path, "a.csv", content), SourceSettings(), NOW))
    assert max(len(batch) for batch in batches) <= 50_000
    read = pl.concat(batches)
    assert read["text"].to_list() == [f"text {n}" for n in range(count)]
    assert ordinals(read) == list(range(1, count + 1))


def test_batches_of_long_records_are_bounded_by_size(tmp_path: Path) -> None:
    content = b"label,text\n" + b"".join(b"pos," + b"x" * 500_000 + b"\n" for _ in range(100))
    batches = list(read_file(land_bytes(tmp_path, "a.csv", content), SourceSettings(), NOW))
    assert sum(len(batch) for batch in batches) == 100
    assert max(batch.estimated_size() for batch in batches) <= 40_000_000


def test_any_order_of_columns_and_other_names_for_them(tmp_path: Path) -> None:
    content = b"id,stars,review\n7,good,fine\n"
    read = read_bytes(tmp_path, "a.csv", content, text_column="review", label_column="stars")
    assert (good(read), read["extra"].to_list()) == ([(2, "fine", "good")], ['{"id":"7"}'])


def test_columns_named_like_those_of_the_table_stay_the_sources_own(tmp_path: Path) -> None:
    content = b"text,label,problem,row_id,line_number,extra,\nfine,pos,p,r,9,e,empty\n"
    read = read_bytes(tmp_path, "a.csv", content)
    assert good(read) == [(2, "fine", "pos")]
    assert json.loads(read["extra"][0]) == {"problem": "p", "row_id": "r", "line_number": "9", "extra": "e", "": "empty"}


def test_without_other_columns_extra_is_an_empty_object(tmp_path: Path) -> None:
    assert read_bytes(tmp_path, "a.csv", b"text,label\nfine,pos\n")["extra"].to_list() == ["{}"]
    assert read_bytes(tmp_path, "a.jsonl", b'{"text": "fine", "label": "pos"}')["extra"].to_list() == ["{}"]


def test_an_empty_csv_field_is_an_empty_string(tmp_path: Path) -> None:
    assert good(read_bytes(tmp_path, "a.csv", b'text,label\n,pos\n"",neg\nfine,\n')) == [(2, "", "pos"), (3, "", "neg"), (4, "fine", "")]


def test_nothing_in_csv_is_taken_for_null_or_a_number(tmp_path: Path) -> None:
    rows = [("NA", "1.0"), ("null", "007"), ("nan", "true"), ("2020-01-01", "1e5")]
    assert read_bytes(tmp_path, "a.csv", as_csv([("text", "label"), *rows])).select("text", "label").rows() == rows


def test_tsv_has_no_quotes_unless_they_are_set(tmp_path: Path) -> None:
    content = b'text\tlabel\n"a "quoted" word\tpos\n"b"\tneg\n'
    assert good(read_bytes(tmp_path, "a.tsv", content)) == [(2, '"a "quoted" word', "pos"), (3, '"b"', "neg")]
    assert good(read_bytes(tmp_path, "a.tsv", b"text\tlabel\n'b\tc'\tneg\n", quote_char="'")) == [(2, "b\tc", "neg")]


def test_delimiter_and_quote_can_be_set(tmp_path: Path) -> None:
    assert good(read_bytes(tmp_path, "a.csv", b"text;label\na, b;pos\n", delimiter=";")) == [(2, "a, b", "pos")]
    assert good(read_bytes(tmp_path, "a.csv", b'text,label\n"a,pos\nb",neg\n', quote_char="")) == [(2, '"a', "pos"), (3, 'b"', "neg")]
    assert good(read_bytes(tmp_path, "a.csv", b"text|label\na|pos\n", delimiter="|")) == [(2, "a", "pos")]


def test_the_format_setting_beats_the_name(tmp_path: Path) -> None:
    assert good(read_bytes(tmp_path, "a.txt", b'{"text": "fine", "label": "pos"}\n', format="jsonl")) == [(1, "fine", "pos")]
    assert good(read_bytes(tmp_path, "a.csv.gz", gzip.compress(b"text\tlabel\nfine\tpos"), format="tsv")) == [(2, "fine", "pos")]


@pytest.mark.parametrize(
    ("value", "label"),
    [("true", "true"), ("false", "false"), ("1", "1"), ("-7", "-7"), ("1.0", "1.0"), ("0.5", "0.5"), ("null", None), ('"x"', "x")],
)
def test_labels_of_json_are_spelled_as_json_spells_them(tmp_path: Path, value: str, label: str | None) -> None:
    read = read_bytes(tmp_path, "a.jsonl", f'{{"text": "fine", "label": {value}}}'.encode())
    assert read.select("label", "problem").rows() == [(label, None)]


@pytest.mark.parametrize(
    ("array", "labels"),
    [
        (pa.array([1, None], pa.uint8()), ["1", None]),
        (pa.array([2**64 - 1, 0], pa.uint64()), ["18446744073709551615", "0"]),
        (pa.array([1.0, 0.5]), ["1.0", "0.5"]),
        (pa.array([float("nan"), None]), [None, None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([b"a", None]), ["a", None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_labels_of_parquet_are_spelled_alike(tmp_path: Path, array: Any, labels: list[str | None]) -> None:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"text": ["t", "u"], "label": array}), buffer)
    read = read_bytes(tmp_path, "a.parquet", buffer.getvalue())
    assert read["label"].to_list() == labels
    assert problems(read) == []


HUB_FEATURES = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["World", "Sports"], "_type": "ClassLabel"},
    "topics": {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"},
}


def hub_file(columns: dict[str, Any], features: object) -> bytes:
    """A Parquet file as `datasets` writes it."""
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    return buffer.getvalue()


def test_classes_of_a_file_of_the_hub_have_their_names(tmp_path: Path) -> None:
    columns = {"text": ["a", "b", "c", "d"], "label": [1, 0, -1, 7], "topics": [[0, 1], [], None, [1]]}
    rows = read_bytes(tmp_path, "a.parquet", hub_file(columns, HUB_FEATURES))
    assert rows["label"].to_list() == ["Sports", "World", None, "7"]
    assert json.loads(rows["extra"][0]) == {"topics": [0, 1]}  # what is not the label stays as it is
    sets = read_bytes(tmp_path, "b.parquet", hub_file(columns, HUB_FEATURES), kind="multi-labelled", label_column="topics")
    assert [None if label is None else json.loads(label) for label in sets["label"]] == [["a", "b"], [], None, ["b"]]


@pytest.mark.parametrize("features", [None, [], {"label": None}, {"label": {"names": 5}}, {"label": {"names": [1, 2]}}, {"text": {}}])
def test_a_file_of_the_hub_without_names_keeps_its_numbers(tmp_path: Path, features: object) -> None:
    rows = read_bytes(tmp_path, "a.parquet", hub_file({"text": ["a", "b"], "label": [1, 0]}, features))
    assert rows["label"].to_list() == ["1", "0"]


def test_counting_stops_early_and_counts_a_bad_file_as_its_one_row(tmp_path: Path) -> None:
    files = [
        land_bytes(tmp_path, "a.csv", b"text,label\na,b\nc\n"),
        land_bytes(tmp_path, "b.csv", b""),
        land_bytes(tmp_path, "c.pdf", b"%PDF"),
    ]
    assert count_records(files, SourceSettings(), 100) == 4
    (tmp_path / "b.csv").unlink()
    assert count_records(files, SourceSettings(), 2) == 2  # never came to the file that is gone


def test_the_id_can_be_known_without_parsing(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.csv", b"text,label\na,b\n")
    assert next(iter(read_file(file, SourceSettings(), NOW)))["file_id"][0] == content_id(file)
