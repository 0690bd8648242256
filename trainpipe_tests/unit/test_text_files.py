"""Text files: whole, by paragraphs, by lines; the folder as label; too long, damaged, cut off, empty."""

import gzip
import io
import os
from pathlib import Path
from typing import Any
from unittest import mock

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpipe_assets.data.landing import land
from trainpipe_assets.data.reading import lines, records
from trainpipe_assets.data.reading.plain_text import read_text
from trainpipe_assets.data.reading.records import UnreadableFile, Window
from trainpipe_assets.data.source_schema import Column, SourceSchema, schema_of
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.unit.landed_files import good, land_bytes, problems, read_bytes, whole_file_problem

AS_TEXT, BY_FOLDER = {"kind": "text"}, {"label_column": "folder"}
POEM = "\n first line\nsecond line  \n\n \t\r\nthird  line\r\n\n"
PIECES = ["a", " b", "é😀", "\n", "\n\n", "\r\n", " \n", "\t", "\r", "word " * 5]


def texts(rows: pl.DataFrame) -> list[tuple[int, str]]:
    return rows.filter(pl.col("problem").is_null()).select("line_number", "text").rows()


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        ("document", [(2, " first line\nsecond line  \n\n \t\nthird  line\n")]),
        ("paragraph", [(2, " first line\nsecond line  "), (6, "third  line")]),
        ("line", [(2, " first line"), (3, "second line  "), (6, "third  line")]),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.TXT.gz"])
def test_a_sample_is_a_document_a_paragraph_or_a_line(tmp_path: Path, name: str, sample_by: str, expected: list[tuple[int, str]]) -> None:
    content = gzip.compress(POEM.encode()) if name.endswith("gz") else POEM.encode()
    rows = read_bytes(tmp_path, name, content, sample_by=sample_by, **AS_TEXT)
    assert texts(rows) == expected
    assert rows["extra"].unique().to_list() == ['{"folder":null}']


@pytest.mark.parametrize("sample_by", ["document", "paragraph", "line"])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), fill=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_nothing_that_is_too_long_vanishes(sample_by: str, pieces: list[str], fill: int) -> None:
    content = "".join(piece for piece in pieces if "\r" not in piece) + " " * 150 + "end"
    with mock.patch.object(records, "FILL_BYTES", fill), mock.patch.object(lines, "FILL_BYTES", fill):
        source = SourceSettings(sample_by=sample_by, max_record_bytes=100, **AS_TEXT)
        found = pl.concat(list(read_text(Window(io.BytesIO(content.encode())), "x/a.txt", source)))
    assert "at most 100 are read" in found["problem"][-1]
    if sample_by == "line":
        assert len(found) == sum(bool(line.strip()) for line in content.split("\n"))


@pytest.mark.parametrize("sample_by", ["document", "paragraph", "line"])
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=30), fill=st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_however_far_is_read_ahead_the_samples_are_those_of_the_whole_text(sample_by: str, pieces: list[str], fill: int) -> None:
    content = "".join(pieces)
    whole = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    with mock.patch.object(records, "FILL_BYTES", fill), mock.patch.object(lines, "FILL_BYTES", fill):
        try:
            frames = list(read_text(Window(io.BytesIO(content.encode())), "x/a.txt", SourceSettings(sample_by=sample_by, **AS_TEXT)))
        except UnreadableFile:
            frames = []
    found = pl.concat(frames)["text"].to_list() if frames else []
    if sample_by == "line":
        assert found == [line for line in whole if line.strip()]
    elif sample_by == "paragraph":
        paragraphs = "\n".join(line if line.strip() else "" for line in whole).split("\n\n")
        assert found == [text for paragraph in paragraphs if (text := paragraph.strip("\n")).strip()]
    else:
        first = next((number for number, line in enumerate(whole) if line.strip()), len(whole))
        lines_left = whole[first : len(whole) - (whole[-1] == "")]
        assert found == (["\n".join(lines_left)] if lines_left else [])


def test_the_folder_is_a_label_where_the_settings_say_so_and_else_another_column(tmp_path: Path) -> None:
    assert good(read_bytes(tmp_path, "train/pos/0_9.txt", b"fine film", **BY_FOLDER)) == [(1, "fine film", "pos")]
    (row,) = read_bytes(tmp_path, "train/neg/1_2.txt", b"dull film", kind="text", text_column="body").rows(named=True)
    assert (row["text"], row["label"], row["extra"]) == ("dull film", None, '{"folder":"neg"}')
    problem = whole_file_problem(read_bytes(tmp_path, "top.txt", b"in no folder", **BY_FOLDER))
    assert problem.startswith("the file lies in the folder of the source itself: put it into one below that is called like its label")


def test_folders_land_whole_and_are_labels(tmp_path: Path) -> None:
    for name in ("pos/1.txt", "pos/deep/2.txt", "neg/3.txt", "pos/.hidden", "pos/_work/4.txt"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"text of {name}")
    mine, landing, source = tmp_path / "mine", tmp_path / "landing", SourceSettings(**BY_FOLDER)
    landed = land([mine / "pos", mine / "neg"], landing, source)
    assert landed == [str(landing / name) for name in ("pos/1.txt", "pos/deep/2.txt", "neg/3.txt")]
    assert [(landing / name).read_text() for name in ("pos/1.txt", "neg/3.txt")] == ["text of pos/1.txt", "text of neg/3.txt"]
    with pytest.raises(ValueError, match="the file lies in the folder of the source itself"):
        land([mine / "pos" / "1.txt"], landing, source)
    (mine / "great").symlink_to(mine / "pos")
    assert land([mine / "great"], landing, source)[0] == str(landing / "great/1.txt")
    (mine / "pos").rename(mine / "_pos")
    with pytest.raises(ValueError, match="hidden or unfinished"):
        land([mine / "_pos"], landing, source)
    os.mkfifo(mine / "neg" / "pipe.txt")
    with pytest.raises(ValueError, match=r"pipe\.txt cannot be landed: it is not a regular file"):
        land([mine / "neg"], landing, source)


def test_a_column_that_text_files_have_not_is_named(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.txt", b"text"))
    assert problem == "there is no column 'label'; the columns are 'text', 'folder'. Set source.label_column"
    with pytest.raises(ValueError, match="there is no column 'messages'; the columns are 'text', 'folder'"):
        land([tmp_path / "a.txt"], tmp_path / "landing", SourceSettings(kind="chat"))


def test_a_text_column_cannot_be_called_as_the_other_one(tmp_path: Path) -> None:
    problem = whole_file_problem(read_bytes(tmp_path, "a.txt", b"text", kind="text", text_column="folder"))
    assert problem.startswith("source.text_column is 'folder', as the other column of a text file is called")


def test_the_schema_of_a_text_file_needs_no_reading(tmp_path: Path) -> None:
    file = land_bytes(tmp_path, "a.txt", b"", text_column="body")
    expected = SourceSchema((Column("body", "string"), Column("folder", "string")), typed=False, ordered=True)
    assert schema_of(file, SourceSettings(text_column="body")) == expected


@pytest.mark.parametrize("content", [b"", b"\n \r\n\t"])
def test_a_file_without_text_is_one_row_that_says_so(tmp_path: Path, content: bytes) -> None:
    assert whole_file_problem(read_bytes(tmp_path, "a.txt", content, **AS_TEXT)) == "the file is empty; text is expected"


@pytest.mark.parametrize(
    ("sample_by", "usable", "unusable"),
    [
        ("line", [(1, "short"), (3, "also short")], [(2, 300)]),
        ("paragraph", [(1, "short\n" + "x" * 300 + "\nalso short")], []),
        ("document", [], [(1, 317)]),
    ],
)
def test_what_is_too_long_is_rejected_alone(
    tmp_path: Path, sample_by: str, usable: list[tuple[int, str]], unusable: list[tuple[int, int]]
) -> None:
    content = b"short\n" + b"x" * 300 + b"\nalso short"
    longest = 400 if sample_by == "paragraph" else 200
    rows = read_bytes(tmp_path, "a.txt", content, sample_by=sample_by, max_record_bytes=longest, **AS_TEXT)
    assert texts(rows) == usable
    message = "the record is {} bytes long; at most {} are read (source.max_record_bytes)"
    assert problems(rows) == [(line, message.format(size, longest)) for line, size in unusable]


def test_a_document_beyond_any_limit_is_counted_and_not_held(tmp_path: Path) -> None:
    rows = read_bytes(tmp_path, "a.txt.gz", gzip.compress(b"a line of text\n" * 3_000_000), **AS_TEXT)
    assert problems(rows) == [(1, "the record is 44,999,999 bytes long; at most 1,048,576 are read (source.max_record_bytes)")]
    assert rows["text"].str.len_chars().to_list() == [1000]


def test_damage_rejects_the_sample_that_has_it(tmp_path: Path) -> None:
    content = "gut\nschön\nnul\0\nende".encode("latin-1")
    found = problems(read_bytes(tmp_path, "a.txt", content, sample_by="line", **AS_TEXT))
    assert [line for line, _ in found] == [2, 3]
    assert found[0][1].startswith("the record is not valid UTF-8 (byte 0xf6 at byte 4); save the file as UTF-8, or set source.encoding")
    assert found[1][1] == "the text holds NUL bytes; the file is damaged or not text"
    rows = read_bytes(tmp_path, "b.txt", "schön".encode("latin-1"), encoding="latin-1", **AS_TEXT)
    assert texts(rows) == [(1, "schön")]


@pytest.mark.parametrize(("sample_by", "whole"), [("line", True), ("paragraph", True), ("document", False)])
def test_of_a_file_that_is_cut_off_the_whole_samples_stay(tmp_path: Path, sample_by: str, whole: bool) -> None:
    numbered = "".join(f"sample number {number} of {number * 7919 % 1000}\n\n" for number in range(100_000)).encode()
    rows: Any = read_bytes(tmp_path, "a.txt.gz", gzip.compress(numbered)[:-2000], sample_by=sample_by, **AS_TEXT)
    *before, last = rows.rows(named=True)
    assert "the file cannot be read from line" in last["problem"]
    assert bool(before) == whole
    assert all(row["text"].startswith("sample number") and row["problem"] is None for row in before)
