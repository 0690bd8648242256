"""What a materialization says of itself in the UI: schema, lineage of columns, previews and pictures."""

import base64
from collections.abc import Iterable, Mapping

import dagster as dg
import polars as pl

from trainpipe_assets.schemas import meanings_of
from trainpipe_assets.storage.delta import Table

PREVIEW = "preview"  # the name of a table's first rows
PREVIEW_ROWS, PREVIEW_CHARS = 5, 80

_AS_IT_IS = str.maketrans({**{mark: f"\\{mark}" for mark in "\\*~|`[]"}, "&": "&amp;", "<": "&lt;", "\n": " ", "\r": " "})
"""What Markdown would take for a sign of its own."""


def column_schema(schema: pl.Schema) -> dg.TableSchema:
    """A Polars schema in Dagster's terms, with what its columns mean where it is one of the lake's."""
    meanings = meanings_of(schema)
    columns = [dg.TableColumn(name=name, type=str(dtype), description=meanings.get(name)) for name, dtype in schema.items()]
    return dg.TableSchema(columns=columns)


def column_lineage(upstream: dg.AssetKey, columns: Mapping[str, tuple[str, ...]]) -> dg.TableColumnLineage:
    """Which upstream columns each column is made from."""
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(asset_key=upstream, column_name=origin) for origin in origins] for name, origins in columns.items()}
    )


def preview(table: Table) -> dg.MarkdownMetadataValue:
    """The first rows as a Markdown table; long cells are cut."""
    return markdown_table(table.scan().head(PREVIEW_ROWS).collect())


def markdown_table(frame: pl.DataFrame) -> dg.MarkdownMetadataValue:
    """A frame as a Markdown table."""
    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.width]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in frame.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def bullets(lines: Iterable[str]) -> dg.MarkdownMetadataValue:
    """A list with one item a line; what is Markdown in them is shown as it is, for labels and names are anybody's."""
    return dg.MetadataValue.md("\n".join(f"- {_escaped(line)}" for line in lines))


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return _escaped(text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…")


def _escaped(text: str) -> str:
    return text.translate(_AS_IT_IS)


def picture(png: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A PNG picture, shown inline."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")
