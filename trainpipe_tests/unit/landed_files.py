"""What the tests of sources and readers share: landing bytes, and reading them back."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.sources import LandedFile, list_landed
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import SourceSettings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HEADER = b"text,label\n"


def land_bytes(folder: Path, name: str, content: bytes, **settings: Any) -> LandedFile:
    """Write a file into the landing folder and return it as listed."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return next(file for file in list_landed(str(folder), SourceSettings(**settings)) if file.path == name)


def read_bytes(folder: Path, name: str, content: bytes, **settings: Any) -> pl.DataFrame:
    """The rows of a landed file, checked for what holds for every file: the schema, and unique row ids in order."""
    file = land_bytes(folder, name, content, **settings)
    batches = list(read_file(file, SourceSettings(**settings), NOW))
    assert all(batch.schema == RAW_DATA for batch in batches)
    rows = pl.concat(batches)
    assert rows["row_id"].is_unique().all()
    assert set(rows["source_file"]) == {name}
    assert set(rows["file_version"]) == {file.version}
    return rows


def ordinals(rows: pl.DataFrame) -> list[int]:
    """The numbers of the records."""
    return [int(row_id.split("-")[1]) for row_id in rows["row_id"]]


def good(rows: pl.DataFrame) -> list[tuple[int, str, str]]:
    """Line number, text and label of the usable records."""
    return rows.filter(pl.col("problem").is_null()).select("line_number", "text", "label").rows()


def problems(rows: pl.DataFrame) -> list[tuple[int, str]]:
    """Line number and problem of the unusable records."""
    return rows.filter(pl.col("problem").is_not_null()).select("line_number", "problem").rows()


def whole_file_problem(rows: pl.DataFrame) -> str:
    """The problem of a file that is one row, because it cannot be used at all."""
    assert rows.height == 1
    assert ordinals(rows) == [0]
    assert rows["line_number"].to_list() == [0]
    assert rows["label"].to_list() == [None]
    problem = rows["problem"][0]
    assert isinstance(problem, str)
    return problem
