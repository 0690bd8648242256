"""Schema drift: how the columns of landed files differ from those that the source agreed on, and what is done about it.

The verdict on a file is a function of the settings and the set of files, never of the order in which they arrived. What columns a
file has is `source_schema.py`'s to tell.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from trainpipe_assets.data.source_schema import Column, SourceSchema, columns_of
from trainpipe_assets.settings import SourceSettings

QUARANTINED = "schema drift: "  # what the problem of a quarantined record begins with
DRIFT = pl.Schema(dict.fromkeys(("file", "column", "change", "before", "after"), pl.String))
SHOWN = 5  # differences that a message lists

_WIDTH = {"boolean": 0, "integer": 1, "number": 2, "string": 3, "mixed": 3}


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between the schema that was agreed on (`before`) and that of a file (`after`)."""

    column: str
    change: Literal["added", "dropped", "retyped", "reordered"]
    before: str | None
    after: str | None

    def __str__(self) -> str:
        name = f"column {self.column[:60]!r}"
        if self.change == "added":
            return f"{name} is new ({self.after or 'of no known type'})"
        if self.change == "dropped":
            return f"{name} is missing (was {self.before or 'of no known type'})"
        return f"{name} was {self.before} and is {self.after}"


def judge(schemas: Mapping[str, SourceSchema | None], settings: SourceSettings) -> dict[str, tuple[Drift, ...]]:
    """How each file (path → schema; None for an unreadable one) differs from what was agreed on; files that do not are left out.

    Agreed on are `source.expected_columns`. Without them it is the first file by path, and after it what the files up to there made of it:
    a column whose values were all null takes the first type told, and where drift is accepted the file that drifted is the new
    reference. A quarantined file changes nothing.
    """
    agreed = None if settings.expected_columns is None else SourceSchema(columns_of(settings.expected_columns), typed=True, ordered=False)
    found: dict[str, tuple[Drift, ...]] = {}
    for path in sorted(schemas):
        schema = schemas[path]
        if schema is None:
            continue
        drifts = () if agreed is None else differences(agreed, schema, settings)
        if drifts:
            found[path] = drifts
        if settings.expected_columns is None and (settings.schema_drift == "accept" or not harmful(drifts)):
            agreed = _refined(schema, agreed)
    return found


def harmful(drifts: tuple[Drift, ...]) -> bool:
    """Whether any of them can matter: columns are read by name, so their order cannot."""
    return any(drift.change != "reordered" for drift in drifts)


def differences(agreed: SourceSchema, found: SourceSchema, settings: SourceSettings) -> tuple[Drift, ...]:
    """What has to be said of a file with the schema `found`, by the names of the columns."""
    before, after = ({column.name: column for column in schema.columns} for schema in (agreed, found))
    drifts = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old is None and new is not None:
            drifts += [] if _is_implied(name, settings) else [Drift(name, "added", None, new.kind)]
        elif new is None and old is not None:
            drifts += [] if old.optional else [Drift(name, "dropped", old.kind, None)]
        elif old is not None and new is not None and not _fits(new, old, typed=found.typed):
            drifts.append(Drift(name, "retyped", old.kind, new.kind))
    return (*drifts, *_reordered(agreed, found))


def _is_implied(name: str, settings: SourceSettings) -> bool:
    """Whether a column needs no mention in `source.expected_columns`, since another setting names it."""
    return settings.expected_columns is not None and any(name in (column, column.split(".")[0]) for column in settings.columns.values())


def _fits(new: Column, old: Column, *, typed: bool) -> bool:
    """Whether values of the kind `new` may stand where `old` was agreed on. Untyped text may look narrower than it is meant."""
    if new.kind is None or old.kind is None or new.kind == old.kind:
        return True
    if (old.kind, new.kind) == ("number", "integer"):
        return True
    if typed:
        return False
    wide = _WIDTH.get(old.kind, 3)
    return wide == 3 or (_WIDTH[new.kind] <= wide and "boolean" not in (old.kind, new.kind))


def _reordered(agreed: SourceSchema, found: SourceSchema) -> list[Drift]:
    if not (agreed.ordered and found.ordered):
        return []
    names, known = [column.name for column in found.columns], [column.name for column in agreed.columns]
    before, after = [name for name in known if name in set(names)], [name for name in names if name in set(known)]
    moved = next((name for name, old in zip(after, before, strict=True) if name != old), None)
    return [Drift(moved, "reordered", ", ".join(before)[:200], ", ".join(after)[:200])] if moved is not None else []


def _refined(schema: SourceSchema, agreed: SourceSchema | None) -> SourceSchema:
    """What is agreed on after a file with `schema` was taken: nothing that was known before is forgotten, unless it contradicts."""
    if agreed is None:
        return schema
    known = {column.name: column for column in agreed.columns}
    columns = tuple(_merged(column, known.pop(column.name, None), typed=schema.typed) for column in schema.columns)
    missing = tuple(column for column in known.values() if column.optional)
    return SourceSchema(columns + missing, schema.typed and agreed.typed, schema.ordered and agreed.ordered)


def _merged(column: Column, known: Column | None, *, typed: bool) -> Column:
    if known is None:
        return column
    kind = known.kind if known.kind is not None and _fits(column, known, typed=typed) else column.kind
    return replace(column, kind=kind, optional=column.optional or known.optional)


def quarantine(found: Mapping[str, tuple[Drift, ...]], settings: SourceSettings) -> dict[str, str]:
    """The problem of each file (by path) that is not to be used because of its drift.

    Raises:
        ValueError: drift is to stop the pipeline.
    """
    bad = {path: drifts for path, drifts in found.items() if harmful(drifts)}
    if bad and settings.schema_drift == "stop":
        path = min(bad)
        more = f", and {len(bad) - 1} more file(s) differ" if len(bad) > 1 else ""
        raise ValueError(
            f"schema drift in {path}: {_listed(bad[path])}{more}. Nothing was written. Correct or withdraw the file, or set "
            "source.schema_drift to accept or quarantine, or source.expected_columns to the columns that are right"
        )
    if settings.schema_drift != "quarantine":
        return {}
    return {path: f"{QUARANTINED}{_listed(drifts)}; nothing of this file is used (source.schema_drift)" for path, drifts in bad.items()}


def _listed(drifts: tuple[Drift, ...]) -> str:
    matter = [str(drift) for drift in drifts if drift.change != "reordered"]
    more = [f"{len(matter) - SHOWN} more differences"] if len(matter) > SHOWN else []
    return ", ".join([*matter[:SHOWN], *more])


def drift_table(found: Mapping[str, tuple[Drift, ...]]) -> pl.DataFrame:
    """One row for each difference, in the schema `DRIFT`."""
    rows = [(path, drift.column, drift.change, drift.before, drift.after) for path, drifts in found.items() for drift in drifts]
    return pl.DataFrame(rows, schema=DRIFT, orient="row")


def row_mark(problem: str | None) -> str:
    """What sets the row ids of a quarantined file apart from those it has once it is accepted, since a row never changes."""
    return "" if problem is None else f"~{hashlib.sha256(problem.encode()).hexdigest()[:8]}"
