"""Columns within others: objects of JSON, structs of Parquet, named with dots."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from trainpipe_assets.data.schema_drift import judge
from trainpipe_assets.data.source_schema import schema_of
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.data_plane import DataPlane, put
from trainpipe_tests.unit.landed_files import good, land_bytes, problems, read_bytes, whole_file_problem

NESTED = {"text_column": "review.body.text", "label_column": "review.mood"}
ROWS: list[dict[str, Any]] = [
    {"review": {"body": {"text": "fine", "chars": 4}, "mood": "pos"}, "id": 1},
    {"review": {"body": {"text": None, "chars": 0}, "mood": "neg"}, "id": 2},
]


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def test_keys_of_objects_within_objects(tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    for name, content in (("a.jsonl", lines), ("a.json", json.dumps(ROWS).encode())):
        rows = read_bytes(tmp_path, name, content, **NESTED)
        assert [(text, label) for _, text, label in good(rows)] == [("fine", "pos"), (None, "neg")]
        assert json.loads(rows["extra"][0]) == {"review": {"body": {"chars": 4}}, "id": 1}


def test_fields_of_structs_within_structs(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.parquet", as_parquet([*ROWS, {"review": None, "id": 3}]), **NESTED)
    assert good(rows) == [(1, "fine", "pos"), (2, None, "neg"), (3, None, None)]
    assert json.loads(rows["extra"][0]) == {"review.body.chars": 4, "id": 1}


def test_a_column_whose_name_has_a_dot_is_that_column(tmp_path: Path) -> None:
    row = {"review.mood": "pos", "text": "fine", "review": {"mood": "neg"}}
    chosen = {"label_column": "review.mood"}
    assert good(read_bytes(tmp_path, "a.jsonl", json.dumps(row).encode(), **chosen)) == [(1, "fine", "pos")]
    assert good(read_bytes(tmp_path, "a.parquet", as_parquet([row]), **chosen)) == [(1, "fine", "pos")]
    assert good(read_bytes(tmp_path, "a.csv", b"text,review.mood\nfine,pos\n", **chosen)) == [(2, "fine", "pos")]


@pytest.mark.parametrize("row", [{"text": "a"}, {"text": "a", "review": None}, {"text": "a", "review": "b"}, {"text": "a", "review": {}}])
def test_what_is_not_there_is_told_by_its_whole_name(tmp_path: Path, row: dict[str, Any]) -> None:
    found = problems(read_bytes(tmp_path, "a.jsonl", json.dumps(row).encode(), label_column="review.mood"))
    assert found[0][1].startswith("the object has no key 'review.mood'; its keys are 'text'")
    if row.get("review") != {}:  # Parquet has no struct without fields
        problem = whole_file_problem(read_bytes(tmp_path, "a.parquet", as_parquet([row]), label_column="review.mood"))
        assert problem.startswith("there is no column 'review.mood'; the columns are 'text'")


def test_a_schema_needs_no_mention_of_what_other_settings_name(tmp_path: Path) -> None:
    source = SourceSettings.model_validate({**NESTED, "expected_columns": {"id": "integer"}})
    file = land_bytes(tmp_path, "a.jsonl", json.dumps(ROWS[0]).encode())
    assert judge({"a.jsonl": schema_of(file, source)}, source) == {}


def test_a_source_of_which_no_file_has_the_outer_column_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "landing" / "a.jsonl", json.dumps(ROWS[0]).encode())
    plane = DataPlane(str(tmp_path / "lake"), tmp_path / "landing", tmp_path, {"source": NESTED})
    assert next(plane.commits()) == "raw_data"
    assert plane.table("raw_data").scan().select("text", "label").collect().rows() == [("fine", "pos")]
    wrong = DataPlane(str(tmp_path / "other"), tmp_path / "landing", tmp_path, {"source": {**NESTED, "text_column": "opinion.text"}})
    with pytest.raises(ValueError, match=r"source.text_column is 'opinion\.text', and none of the 1 file\(s\) landed has such a column"):
        next(wrong.commits())
