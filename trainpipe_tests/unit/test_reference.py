"""The generated pages of the reference say what the code says."""

import runpy
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from trainpipe_assets import schemas

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate_reference.py"), run_name="generate_reference")


@pytest.mark.parametrize("page", ["settings.md", "tables.md"])
def test_a_generated_page_is_up_to_date(generator: dict[str, Any], page: str) -> None:
    written = (DOCS / "reference" / page).read_text(encoding="utf-8")
    assert written == generator["pages"]()[page], f"docs/reference/{page} is out of date: run `python docs/generate_reference.py`"


def test_every_table_is_in_the_reference_with_what_its_columns_mean(generator: dict[str, Any]) -> None:
    tables = {name for name, value in vars(schemas).items() if isinstance(value, pl.Schema)}
    assert tables == set(generator["TABLES"])
    for name in tables:
        meanings = schemas.meanings_of(getattr(schemas, name))
        assert list(meanings) == getattr(schemas, name).names()
        assert all(meanings.values()), name


def test_other_tables_have_no_meanings() -> None:
    assert schemas.meanings_of(pl.Schema({"row_id": pl.String})) == {}
