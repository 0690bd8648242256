"""The generated pages of the reference say what the code says."""

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_reference.py"), run_name="generate_reference")


@pytest.mark.parametrize("page", ["settings.md", "tables.md"])
def test_a_generated_page_is_up_to_date(generator: dict[str, Any], page: str) -> None:
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert written == generator["pages"]()[page], f"docs/reference/{page} is out of date: run `python docs/generate_reference.py`"


def test_a_column_is_described_by_the_comment_behind_it(generator: dict[str, Any]) -> None:
    lines = (
        "_A: C = {",
        '    "x": pl.String,  # of x',
        '    "y": pl.List("z"),',
        "    # of nothing",
        '    "z": pl.Int64,  # of z',
        "}",
        "",
    )
    source = "\n".join(lines)
    assert generator["column_comments"](source) == {("A", "x"): "of x", ("A", "z"): "of z"}


@pytest.mark.parametrize(
    ("column", "comments", "found"),
    [("new", {}, "no description"), ("text", {("RAW_DATA", "text"): "of text"}, "two descriptions")],
    ids=["none", "two"],
)
def test_a_column_needs_one_description(generator: dict[str, Any], column: str, comments: dict[tuple[str, str], str], found: str) -> None:
    with pytest.raises(ValueError, match=rf"RAW_DATA\.{column} has {found}"):
        generator["_described"]("RAW_DATA", column, comments)
