"""Files of JSON: arrays in any layout, read ahead by any size, damaged anywhere; and what is no array."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpipe_assets.data.landing import land
from trainpipe_assets.data.reading import json_array, records
from trainpipe_assets.data.reading.json_array import read_json
from trainpipe_assets.data.reading.records import UnreadableFile, Window
from trainpipe_assets.data.source_schema import schema_of
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.unit.landed_files import good, land_bytes, ordinals, problems, read_bytes, whole_file_problem

bounded = settings(max_examples=200, deadline=None)
strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.text('{}[],:"\\\n é😀', max_size=20)
objects = st.fixed_dictionaries({"text": strings, "label": strings}, optional={"n": st.integers() | st.lists(strings, max_size=2)})
LAYOUTS: dict[str, Callable[[list[Any]], str]] = {
    "one line": json.dumps,
    "compact": lambda found: json.dumps(found, separators=(",", ":"), ensure_ascii=False),
    "indented": lambda found: json.dumps(found, indent=4),
    "without indentation": lambda found: json.dumps(found, indent=0, ensure_ascii=False),
    "an element a line": lambda found: "[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n",
    "CRLF": lambda found: json.dumps(found, indent="\t").replace("\n", "\r\n"),
}
BEFORE, AFTER = '{"text": "before", "label": "pos"}', '{"text": "after", "label": "neg"}'
PIECES = [*'{}[],"\\\n1é\udcff\0', "\n ", "\r\n", "x" * 40, BEFORE, AFTER, f"{BEFORE},", f"{AFTER},\n "]


def parse(content: bytes, fill: int, **changes: Any) -> tuple[pl.DataFrame, str]:
    """The parsed records of a JSON file read ahead by `fill` bytes, and why reading ended early if it did."""
    frames, failure = [pl.DataFrame(schema=records.PARSED)], ""
    with mock.patch.object(records, "FILL_BYTES", fill), mock.patch.object(json_array, "FILL_BYTES", fill):
        try:
            frames += read_json(Window(_Bytes(content)), SourceSettings(**changes))
        except UnreadableFile as error:
            failure = str(error)
    return pl.concat(frames), failure


class _Bytes:
    """A stream that gives what is asked for and no more."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        piece, self._content = self._content[:size], self._content[size:]
        return piece


@bounded
@given(found=st.lists(objects, min_size=1, max_size=8), layout=st.sampled_from(sorted(LAYOUTS)), fill=st.sampled_from([1, 7, 64, 1 << 16]))
def test_an_array_comes_back_whole_in_any_layout(found: list[dict[str, Any]], layout: str, fill: int) -> None:
    rows, failure = parse(LAYOUTS[layout](found).encode(), fill)
    assert failure == ""
    assert rows["problem"].null_count() == len(found)
    assert rows.select("text", "label").rows() == [(row["text"], row["label"]) for row in found]
    assert [json.loads(extra) for extra in rows["extra"]] == [{name: row[name] for name in row.keys() - {"text", "label"}} for row in found]


@bounded
@given(
    pieces=st.lists(
        st.sampled_from(PIECES),
        max_size=40,
    ),
    fill=st.sampled_from([1, 5, 64]),
    limit=st.sampled_from([64, 90]),
)
def test_whatever_the_bytes_all_read_ahead_sizes_give_the_same_rows(pieces: list[str], fill: int, limit: int) -> None:
    content = ("[" + "".join(pieces)).encode("utf-8", "surrogateescape")
    whole, quick = parse(content, 1 << 16, max_record_bytes=limit), parse(content, fill, max_record_bytes=limit)
    assert quick[0].equals(whole[0])
    assert quick[1] == whole[1]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_line_numbers_are_those_of_an_editor(layout: str, tmp_path: Path) -> None:
    found = [{"text": f"text {number}", "label": "a", "tags": ["x", {"y": 1}]} for number in range(3)]
    content = LAYOUTS[layout](found)
    rows = read_bytes(tmp_path, "a.json", content.encode())
    ends = [content.index(f"text {number}") for number in range(3)]
    opened = [content.rindex("{", 0, end) for end in ends]
    assert rows["line_number"].to_list() == [content.count("\n", 0, at) + 1 for at in opened]
    assert ordinals(rows) == [1, 2, 3]


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ('{"text": "a", "label": ', "the record is not valid JSON: "),
        ('{"text": "a"b", "label": "x"}', "the record is not valid JSON: Expecting ',' delimiter at character 13"),
        ('{"text": "a", "label": "x"', "the record is not valid JSON: "),
        ('{"text": "it ends \\"}', "the record is not valid JSON: "),
        ("text", "the record is not valid JSON: Expecting value at character 1"),
        ("null", "the record is 'None' (NoneType); a JSON object is expected"),
        ("[1, 2]", "the record is '[1, 2]' (list); a JSON object is expected"),
        ('{"text": "a", "label": NaN}', "the record is not valid JSON: NaN is not a JSON value; use null"),
        ('{"text": "a"}', "the object has no key 'label'; its keys are 'text'. Set source.label_column"),
        ('{"text": "caf\udce9", "label": "b"}', "the record is not valid UTF-8 (byte 0xe9 at byte 14)"),
        ('{"text": "a", "label": "b", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "the record is nested too deeply"),
        ('{"text": "' + "long " * 1_000_000 + '", "label": "b"}', "the record is 5,000,026 bytes long; at most 1,048,576 are read"),
    ],
)
@pytest.mark.parametrize("layout", ["[\n  {},\n  {},\n  {}\n]", "[\n{},\n{},\n{}]"])
def test_a_bad_element_harms_no_other(tmp_path: Path, element: str, problem: str, layout: str) -> None:
    opening, first, second, end = layout.split("{}")
    content = f"{opening}{BEFORE}{first}{element}{second}{AFTER}{end}".encode("utf-8", "surrogateescape")
    rows = read_bytes(tmp_path, "a.json", content)
    assert good(rows) == [(2, "before", "pos"), (4, "after", "neg")]
    ((line, found),) = problems(rows)
    assert line == 3
    assert found.startswith(problem)
    assert ordinals(rows) == [1, 2, 3]


def test_what_is_damaged_last_takes_no_bracket_of_the_array_along(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.json", f'[\n  {BEFORE},\n  {{"text": "a"b", "label": "x"}}\n]'.encode())
    assert good(rows) == [(2, "before", "pos")]
    assert [line for line, _ in problems(rows)] == [3]


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        (f"[{BEFORE}", 1, "',' or ']' is expected behind an element, and the file ends"),
        (f"[{BEFORE},\n", 2, "an element is expected, and the file ends"),
        (f"[{BEFORE},\n]", 2, "an element is expected, found ']'"),
        (f"[{BEFORE}\n{AFTER}]", 2, "',' or ']' is expected behind an element, found '{'"),
        (f"[{BEFORE}]\n\n{AFTER}", 3, "nothing is expected behind the array, found '{'"),
        (f'[{BEFORE},\n{{"text": "cut o', 2, "the file ends within a record"),
    ],
)
def test_where_an_array_does_not_go_on_one_row_says_so(tmp_path: Path, content: str, line: int, problem: str) -> None:
    rows = read_bytes(tmp_path, "a.json", content.encode())
    assert good(rows) == [(1, "before", "pos")]
    assert problems(rows) == [(line, f"the file cannot be read from line {line} on: {problem}")]
    assert ordinals(rows) == [1, 2]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty; one JSON object a line is expected"),
        (b" [ ]\n", "the array is empty; an array of objects, or one object a line, is expected"),
        (b"[", "the file cannot be read from line 1 on: an element is expected, and the file ends"),
        (b'{\n  "data": [\n    {"text": "a", "label": "b"}\n  ]\n}\n', "the file holds an object that goes over several lines; an array"),
        (b'{"version": 1, "data": [\n{"text": "a", "label": "b"}]}', "the file holds an object that goes over several lines; an array"),
    ],
)
def test_a_file_that_is_no_array_of_objects_is_one_row(tmp_path: Path, content: bytes, problem: str) -> None:
    assert whole_file_problem(read_bytes(tmp_path, "a.json", content)).startswith(problem)


def test_a_json_file_may_hold_an_object_a_line(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.json", f"\n{BEFORE}\nbroken\n{AFTER}\n".encode())
    assert good(rows) == [(2, "before", "pos"), (4, "after", "neg")]
    assert [line for line, _ in problems(rows)] == [3]


def test_a_compressed_array_that_was_cut_off_keeps_what_came_before(tmp_path: Path) -> None:
    content = json.dumps([{"text": f"text {number}", "label": "a"} for number in range(50_000)], indent=1)
    compressed = gzip.compress(content.encode(), mtime=0)
    rows = read_bytes(tmp_path, "a.json.gz", compressed[: len(compressed) // 2])
    kept = good(rows)
    assert len(kept) > 10_000
    assert [text for _, text, _ in kept] == [f"text {number}" for number in range(len(kept))]
    ((line, problem),) = problems(rows)
    assert line >= kept[-1][0]
    assert "the gzip data ends early" in problem


def test_many_damaged_elements_are_told_one_by_one(tmp_path: Path) -> None:
    damaged = '{"text": "a"b", "label": "x"}'
    content = "[\n" + f"{damaged},\n" * 10_000 + f"{BEFORE}\n]"
    rows = read_bytes(tmp_path, "a.json", content.encode())
    assert good(rows) == [(10_002, "before", "pos")]
    assert len(problems(rows)) == 10_000


def test_the_schema_of_an_array_is_that_of_its_elements(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.json", b'[{"text": "a", "label": 1, "n": null}, 5, {"text": "b", "label": 2, "tags": []}')
    schema = schema_of(file, SourceSettings())
    assert schema is not None
    assert {column.name: (column.kind, column.optional) for column in schema.columns} == {
        "label": ("integer", False),
        "n": (None, True),
        "tags": ("list", True),
        "text": ("string", False),
    }


def test_an_array_can_be_landed_and_one_of_something_else_not(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(f"[{BEFORE}, {AFTER}]")
    (tmp_path / "bad.json").write_text('{\n"data": 1}')
    assert land([tmp_path / "good.json"], tmp_path / "landing", SourceSettings()) == [str(tmp_path / "landing" / "good.json")]
    with pytest.raises(ValueError, match="the file holds an object that goes over several lines"):
        land([tmp_path / "bad.json"], tmp_path / "landing", SourceSettings())
