"""Schema drift: what a file's schema is told to be, what counts as drift, and what each setting makes of it, in any order of arrival."""

import gzip
import io
import json
from datetime import UTC, date, datetime
from itertools import permutations
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from trainpipe_assets.data.ingestion import find_drift, ingest
from trainpipe_assets.data.schema_drift import judge
from trainpipe_assets.data.source_schema import Column, SourceSchema, from_json, schema_of
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.delta import find
from trainpipe_tests.data_plane import DataPlane, put
from trainpipe_tests.pipelines import read_words
from trainpipe_tests.unit.landed_files import land_bytes
from trainpipe_tests.unit.training_fixtures import write_tiny_base

PLAIN = b"text,label,stars\nw4 w5,negative,3\nw6 w7,positive,4\n"
WORDS = b"text,label,stars\nw8 w9,negative,three\nw10 w11,positive,4\n"
NO_STARS = b"text,label\nw12 w13,negative\n"


def as_parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pl.DataFrame({"text": ["w4"], "label": ["negative"], **columns}).write_parquet(buffer)
    return buffer.getvalue()


def kinds(folder: Path, name: str, content: bytes) -> dict[str, str | None]:
    schema = schema_of(land_bytes(folder, name, content), SourceSettings())
    assert schema is not None
    assert from_json(schema.as_json()) == schema
    return {column.name: column.kind for column in schema.columns}


@pytest.mark.parametrize(
    ("values", "kind"),
    [("1 -2 +30", "integer"), ("1 2.5 1e3", "number"), ("true FALSE", "boolean"), ("1 true", "string"), ("1 x", "string"),
     ("", None), ("007 12", "integer"), ("1" * 30, "number")],
)  # fmt: skip
def test_text_is_told_by_its_values(tmp_path: Path, values: str, kind: str | None) -> None:
    lines = [f"w4,negative,{value}\n" for value in [*values.split(), ""]]
    assert kinds(tmp_path, "a.csv", ("text,label,x\n" + "".join(lines)).encode())["x"] == kind


def test_json_lines_and_parquet_have_types_of_their_own(tmp_path: Path) -> None:
    lines = [{"text": "w4", "label": 1, "n": 1, "tags": ["a"], "from": None}, {"text": "w5", "label": 0, "n": 1.5, "note": "x"}]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    expected = {"text": "string", "label": "integer", "n": "number", "tags": "list", "from": None, "note": "string"}
    assert kinds(tmp_path, "a.jsonl", content) == expected
    columns = {"n": [1], "f": [0.5], "on": [True], "at": [date(2026, 1, 1)], "tags": [["a"]], "who": [{"id": 1}], "none": [None]}
    found = kinds(tmp_path, "a.parquet", as_parquet(**columns))
    assert list(found.values())[2:] == ["integer", "number", "boolean", "time", "list", "object", None]
    assert kinds(tmp_path, "b.parquet.gz", gzip.compress(as_parquet(**columns))) == found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("b.csv", b"text,text\n1,2\n"),
        ("c.parquet", b"PAR1 no"),
        ("d.jsonl", b"[1]\nno\n"),
        ("e.csv.gz", b"no"),
        ("f.doc", b""),
    ],
)
def test_a_file_that_cannot_be_read_has_no_schema(tmp_path: Path, name: str, content: bytes) -> None:
    assert schema_of(land_bytes(tmp_path, name, content), SourceSettings()) is None


def schema(*columns: str, typed: bool = False) -> SourceSchema:
    """Columns as `name:kind`, with a question mark behind those that are optional."""
    pairs = [column.split(":") for column in columns]
    parsed = (Column(name, kind.rstrip("?") or None, kind.endswith("?")) for name, kind in pairs)
    return SourceSchema(tuple(parsed), typed=typed, ordered=not typed)


def told(*schemas: SourceSchema | None, **settings: Any) -> list[str]:
    found = judge({f"{number}.csv": one for number, one in enumerate(schemas)}, SourceSettings(**settings))
    return [f"{path[0]} {drift.change}: {drift}" for path, drifts in found.items() for drift in drifts]


def test_each_kind_of_drift_is_named() -> None:
    agreed = schema("text:string", "a:integer", "b:string")
    assert told(agreed, schema("text:string", "a:integer")) == ["1 dropped: column 'b' is missing (was string)"]
    assert told(agreed, schema("text:string", "a:integer", "b:string", "c:number")) == ["1 added: column 'c' is new (number)"]
    assert told(agreed, schema("text:string", "a:string", "b:string")) == ["1 retyped: column 'a' was integer and is string"]
    assert told(agreed, schema("text:string", "b:string", "a:integer")) == ["1 reordered: column 'b' was text, a, b and is text, b, a"]
    assert told(agreed, None, agreed) == []


@pytest.mark.parametrize(
    ("before", "after", "typed", "drifts"),
    [
        ("string", "integer", False, False),
        ("string", "integer", True, True),
        ("number", "integer", True, False),
        ("integer", "number", False, True),
        ("", "integer", True, False),
        ("integer", "", True, False),
        ("boolean", "integer", False, True),
        ("time", "string", False, False),
    ],
)
def test_untyped_text_may_look_narrower_than_it_is_meant(before: str, after: str, typed: bool, drifts: bool) -> None:
    assert bool(told(schema(f"x:{before}", typed=typed), schema(f"x:{after}", typed=typed))) == drifts


def test_nulls_take_the_first_type_told() -> None:
    assert told(schema("x:"), schema("x:integer"), schema("x:string"), schema_drift="quarantine") == [
        "2 retyped: column 'x' was integer and is string"
    ]


def test_accepted_drift_is_the_new_reference_and_quarantined_drift_is_not() -> None:
    files = schema("x:integer"), schema("x:integer", "y:string"), schema("x:integer", "y:string")
    assert told(*files) == ["1 added: column 'y' is new (string)"]
    assert len(told(*files, schema_drift="quarantine")) == 2


def test_keys_that_some_objects_lack_may_be_missing() -> None:
    files = (
        schema("x:integer", typed=True),
        schema("x:integer?", typed=True),
        schema("y:string", typed=True),
        schema("x:string", typed=True),
    )
    assert told(*files, schema_drift="quarantine") == [
        "2 added: column 'y' is new (string)",
        "3 retyped: column 'x' was integer and is string",
    ]


def test_declared_columns_are_the_reference() -> None:
    files = schema("text:string", "label:string", "x:integer"), schema("text:string", "label:string", "z:number", "y:string")
    assert told(*files, expected_columns={"x": "any?", "y": "string?"}) == ["1 added: column 'z' is new (number)"]
    assert told(*files, expected_columns={"x": "string", "y": "string?", "z": "number?"}) == [
        "1 dropped: column 'x' is missing (was string)"
    ]


@pytest.fixture
def plane(tmp_path: Path) -> DataPlane:
    read_words(write_tiny_base(tmp_path / "base"))
    (tmp_path / "landing").mkdir()
    return DataPlane(str(tmp_path / "lake"), tmp_path / "landing", tmp_path / "base", {"source": {"schema_drift": "quarantine"}})


def test_a_quarantined_file_is_rejected_whole_and_taken_once_it_is_accepted(plane: DataPlane) -> None:
    put(plane.landing / "a.csv", PLAIN)
    put(plane.landing / "b.csv", WORDS)
    plane.run()
    plane.check_conservation()
    rejected = plane.rows("rejected_rows")
    assert rejected["source_file"].to_list() == ["b.csv", "b.csv"]
    assert rejected["rule"].unique().to_list() == ["unreadable"]
    assert "column 'stars' was integer and is string" in rejected["reason"][0]
    untouched = plane.rows("cleaned_features")["row_id"].to_list()
    accepting = DataPlane(plane.lake, plane.landing, plane.base, {})
    accepting.run()
    accepting.check_conservation()
    assert accepting.rows("rejected_rows").is_empty()
    assert set(untouched) < set(accepting.rows("cleaned_features")["row_id"])
    table = accepting.table("raw_data")
    assert table is not None
    source = SourceSettings()
    assert find_drift(table, source).select("file", "change", "newest").rows() == [("b.csv", "retyped", True)]


@pytest.mark.parametrize("order", list(permutations(("a.csv", "b.csv", "c.csv"))))
def test_the_order_of_arrival_does_not_matter(plane: DataPlane, order: tuple[str, ...]) -> None:
    content = {"a.csv": PLAIN, "b.csv": WORDS, "c.csv": NO_STARS}
    for name in order:
        put(plane.landing / name, content[name])
        plane.run()
    assert plane.rows("cleaned_features")["source_file"].unique().to_list() == ["a.csv"]
    plane.check_conservation()
    (plane.landing / "a.csv").unlink()
    plane.run()
    assert plane.rows("cleaned_features")["source_file"].unique().to_list() == ["b.csv"]


def test_stop_writes_nothing_and_says_what_to_do(plane: DataPlane) -> None:
    landing, uri = str(plane.landing), f"{plane.lake}/raw_data"
    settings = SourceSettings(schema_drift="stop", settle_seconds=0)
    put(plane.landing / "a.csv", PLAIN)
    ingest(uri, None, list_landed(landing, settings), frozenset(), settings, datetime.now(UTC)).increment.commit({})
    put(plane.landing / "b.csv", b"label,stars,text\nnegative,5,w5\n")  # another order only
    ingest(uri, find(uri), list_landed(landing, settings), frozenset(), settings, datetime.now(UTC)).increment.commit({})
    put(plane.landing / "c.csv", WORDS)
    put(plane.landing / "d.csv", NO_STARS)
    message = r"schema drift in c.csv: column 'stars' was integer and is string, and 1 more file\(s\) differ. Nothing was written"
    with pytest.raises(ValueError, match=message):
        ingest(uri, find(uri), list_landed(landing, settings), frozenset(), settings, datetime.now(UTC))
    table = find(uri)
    assert table is not None
    assert table.rows == 3
