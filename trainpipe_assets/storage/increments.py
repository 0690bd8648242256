"""The step that every table takes: changes of its upstream in, one increment out.

An asset asks its `Upstream` what changed for outputs that given determinants (code version, settings) fix, and returns
`Increment`s made from it. Reading and committing tables is `delta.py`'s; what the rows mean is the stages' own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from trainpipe_assets.storage.delta import KEY, MADE_BY, Commit, ConcurrentWrite, Table, commit, find
from trainpipe_assets.storage.differences import difference
from trainpipe_assets.storage.identity import as_json, data_version, fingerprint


@dataclass(frozen=True)
class Increment:
    """What one run adds to a table and removes from it.

    `removed` holds keys; None replaces all rows. `upstream` is the content that the table covers with it, of the table that
    `upstream_identity` tells; None where that is as before, or nothing. An increment that is `empty` is never committed.
    """

    uri: str
    base: Table | None
    added: pl.LazyFrame
    removed: pl.DataFrame | None
    fingerprint: int
    upstream: int
    upstream_identity: int | None = None
    empty: bool = False
    made_by: Mapping[str, Any] | None = None
    row_bytes: float | None = None  # in memory, about, where that is known

    @property
    def rebuild(self) -> bool:
        """Whether it replaces the whole table."""
        return self.removed is None

    @property
    def data_version(self) -> str:
        """The table's data version once this is committed; commits are compare-and-swap, so it is known before."""
        if self.empty:
            assert self.base is not None
            return self.base.data_version
        return data_version(self.fingerprint, self.base.version + 1 if self.base else 1)

    def commit(self, note: Mapping[str, str]) -> Commit:
        """Commit to the table, or return it unchanged where there is nothing to do.

        Raises:
            ConcurrentWrite: another run moved the table meanwhile. Nothing was written.
        """
        if self.empty:
            assert self.base is not None
            return Commit(self.base, added=0, removed=0)
        note = note if self.made_by is None else {**note, MADE_BY: as_json(self.made_by)}
        return commit(
            self.uri,
            self.base,
            self.added,
            self.removed,
            fingerprint=self.fingerprint,
            upstream=self.upstream,
            upstream_identity=self.upstream_identity,
            row_bytes=self.row_bytes,
            note=note,
        )


@dataclass(frozen=True)
class Changes:
    """What a stage has not processed yet, and its own tables as they stand.

    `added` are whole upstream rows; `removed` are keys of upstream rows that went, None where everything is built anew.
    """

    source: Table
    added: pl.LazyFrame
    removed: pl.DataFrame | None
    outputs: Mapping[str, str]
    bases: Mapping[str, Table | None]
    fingerprint: int
    made_by: Mapping[str, Any]
    empty: bool = False

    @property
    def rebuild(self) -> bool:
        """Whether every output is built anew from all of the upstream."""
        return self.removed is None

    def own(self, output: str) -> pl.LazyFrame | None:
        """The rows of an output of this stage as they stand; None where they will be replaced anyway."""
        base = self.bases[output]
        return None if self.rebuild or base is None else base.scan()

    def increment(self, output: str, added: pl.LazyFrame, removed: pl.DataFrame | None) -> Increment:
        """An increment of `output` that covers these changes."""
        return Increment(
            uri=self.outputs[output],
            base=self.bases[output],
            added=added,
            removed=None if self.rebuild else removed,
            fingerprint=self.fingerprint,
            upstream=self.source.content,
            upstream_identity=self.source.identity,
            empty=self.empty,
            made_by={**self.made_by, "upstream": self.source.made_by} if not self.empty else None,
            row_bytes=self.source.row_bytes,
        )

    def nothing(self, output: str) -> Increment:
        """The increment of `output` where these changes are empty."""
        base = self.bases[output]
        assert self.empty
        assert base is not None
        return self.increment(output, pl.LazyFrame(schema=base.schema), _no_keys())


@dataclass(frozen=True)
class Upstream:
    """A pinned upstream table, seen from the stage that makes `outputs` (name → URI) out of it."""

    table: Table
    outputs: Mapping[str, str]

    def changes(self, **determinants: Any) -> Changes:
        """What the outputs lack, when `determinants`, in this order, fix how they follow from the upstream.

        Outputs made by other determinants or other upstream settings, outputs that cover different versions (a run was
        killed between their commits), an upstream version that was vacuumed away and an upstream table that was deleted and made anew all
        mean: build anew.

        Raises:
            ConcurrentWrite: the outputs already cover a newer upstream version than this run is pinned to.
        """
        wanted = fingerprint(*determinants.values(), self.table.fingerprint)
        bases = {name: find(uri) for name, uri in self.outputs.items()}
        current = [base for base in bases.values() if base is not None and base.fingerprint == wanted and base.is_of(self.table)]
        covered = {base.upstream for base in current}
        complete = len(covered) == 1 and len(current) == len(bases)
        since = covered.pop() if complete else None
        if since is not None and since > self.table.version:
            raise ConcurrentWrite(
                f"a newer run has already processed {self.table.uri} up to version {since}; nothing was written here, run again"
            )
        if since == self.table.content:
            nothing = pl.LazyFrame(schema=self.table.schema)
            return Changes(self.table, nothing, _no_keys(), self.outputs, bases, wanted, determinants, empty=True)
        found = difference(self.table, since) if since is not None else None
        added, removed = (self.table.scan(), None) if found is None else (found.added, found.removed)
        return Changes(self.table, added, removed, self.outputs, bases, wanted, determinants)


def _no_keys() -> pl.DataFrame:
    return pl.DataFrame(schema={KEY: pl.String})
