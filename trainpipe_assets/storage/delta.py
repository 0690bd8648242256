"""Delta tables: pinned reads, and one commit for each increment.

Every commit is a compare-and-swap on the table's version and carries, in Delta's own application transactions,
what the table was made by and from. Which assets exist, and what their rows mean, is not known here.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from trainpipe_assets.storage import s3
from trainpipe_assets.storage.data_files import FILE, FILE_BYTES, PACKED, data_files, read_files
from trainpipe_assets.storage.identity import data_version, fingerprint
from trainpipe_assets.storage.s3_problems import S3Problem
from trainpipe_assets.storage.uris import absolute, is_remote, is_s3, open_filesystem
from trainpipe_assets.storage.writing import Written, write_replacement, write_rows

KEY = "row_id"  # the key of every table
FIRST_COMMIT = 1  # the version with the first rows; version 0 is the creation of the table

_FINGERPRINT, _UPSTREAM, _CONTENT = "trainpipe/fingerprint", "trainpipe/upstream", "trainpipe/content"
_UPSTREAM_IDENTITY = "trainpipe/upstream_identity"
MADE_BY = "trainpipe/made_by"  # in the note of a commit: what the fingerprint is of, by name, as JSON
_IDENTITY, _ADDED, _REMOVED = "trainpipe/commit", "trainpipe/rows_added", "trainpipe/rows_removed"
_COMMITS_ASKED = 20  # for what made a table: the newest may be of maintenance


class ConcurrentWrite(RuntimeError):
    """Another writer committed to the table after this one had read it: nothing was written, run again."""


class MissingTable(ValueError):
    """A table, or a version of it, that cannot be read."""


@dataclass(frozen=True)
class Table:
    """One version of a Delta table.

    `content` is the version of the last commit that changed rows; maintenance moves `version` but not `content`.
    `upstream` is the content version of the upstream table that the rows cover, and `upstream_identity` tells which table that was: one
    that was deleted and made anew counts its versions from the beginning.
    """

    uri: str
    version: int
    fingerprint: int | None
    upstream: int | None
    upstream_identity: int | None
    content: int
    identity: int

    @cached_property
    def _delta(self) -> DeltaTable:
        with s3.explained(self.uri):
            return open_delta(self.uri, self.version)

    @cached_property
    def _files(self) -> pl.DataFrame:
        return data_files(self._delta)

    @property
    def committed_at(self) -> float:
        """When this version was committed, in seconds since the epoch."""
        with s3.explained(self.uri):
            return float(self._delta.history(1)[0]["timestamp"]) / 1000

    @cached_property
    def made_by(self) -> Mapping[str, Any] | None:
        """What fixed the rows beside those of the upstream: version of the code, settings, and under `upstream` the same of that table.

        None where none of the newest commits says so: it was last written by an older version.
        """
        with s3.explained(self.uri):
            commits = self._delta.history(_COMMITS_ASKED)
        return next((json.loads(commit[MADE_BY]) for commit in commits if MADE_BY in commit), None)

    @property
    def rows(self) -> int:
        """Rows at this version, from the log alone."""
        return int(self._files["num_records"].sum())

    @property
    def size_bytes(self) -> int:
        """Bytes of the data files at this version."""
        return int(self._files["size_bytes"].sum())

    @property
    def row_bytes(self) -> float | None:
        """Bytes of a row in memory, about; None where there is none."""
        return PACKED * self.size_bytes / self.rows if self.rows else None

    @property
    def schema(self) -> pl.Schema:
        """Columns and dtypes."""
        return self.scan().collect_schema()

    @property
    def data_version(self) -> str:
        """Identity of the rows: unchanged by runs that had nothing to do and by maintenance."""
        return data_version(self.fingerprint, self.content)

    def is_of(self, upstream: "Table") -> bool:
        """Whether the rows came from the table `upstream`, at whatever version, as far as is noted."""
        return self.upstream_identity in (None, upstream.identity)

    def covers(self, upstream: "Table") -> bool:
        """Whether the rows are all that follows from those of `upstream`."""
        return self.is_of(upstream) and self.upstream == upstream.content

    def scan(self) -> pl.LazyFrame:
        """All rows of this version, lazily."""
        if absolute(self._delta.table_uri) == self.uri:
            return pl.scan_delta(self._delta)
        schema = pl.Schema(self._delta.schema())  # of a path with blanks or umlauts, which the library encodes and Polars does not decode
        return read_files(sorted(self.file_uris()), schema, s3.options(self.uri)).drop(FILE)

    def file_uris(self) -> set[str]:
        """The data files of this version."""
        return set(self.rows_by_file)

    @cached_property
    def rows_by_file(self) -> Mapping[str, int]:
        """The data files of this version, and how many rows each has."""
        return {f"{self.uri}/{path}": rows for path, rows in self._files.select("path", "num_records").iter_rows()}


def find(uri: str, version: int | None = None) -> Table | None:
    """The table at `uri`, now or at `version`; None where there is none.

    Raises:
        MissingTable: the table is there but not at that version any more.
        S3Problem: S3 refuses, and why. A failure of S3 that may pass is an OSError.
    """
    gone = (DeltaError, FileNotFoundError) if is_s3(uri) else (DeltaError, OSError)
    try:
        with s3.explained(uri):
            table = _describe(uri, open_delta(uri, version))
    except TableNotFoundError:
        _require_absent(uri)
        return None
    except gone as error:
        raise MissingTable(f"table {uri} cannot be read at version {version}: {error}") from error
    if version is not None and not _all_exist(uri, sorted(table.file_uris())):
        raise MissingTable(
            f"version {version} of table {uri} cannot be read any more: its data files were vacuumed. Read the newest version, "
            "or materialize again what needs this one; maintenance.retention_hours says how long old versions are kept"
        )
    return table


def _require_absent(uri: str) -> None:
    """Make sure that there is no log at `uri`, and not only none that may be looked at. Raises PermissionError."""
    if not is_remote(uri):
        with suppress(FileNotFoundError, NotADirectoryError):
            (Path(absolute(uri)) / "_delta_log").stat()


def content_of(uri: str, version: int) -> int:
    """The version of the last commit that changed rows, as of `version`, whose data files need not be there any more.

    Raises:
        MissingTable: the log does not go back so far.
    """
    try:
        with s3.explained(uri):
            return _describe(uri, open_delta(uri, version)).content
    except (DeltaError, FileNotFoundError) as error:
        raise MissingTable(f"table {uri} cannot be read at version {version}: {error}") from error


def open_delta(uri: str, version: int | None = None) -> DeltaTable:
    """The table itself, for what this module has no function for."""
    return DeltaTable(absolute(uri), version=version, storage_options=s3.options(uri))


def _describe(uri: str, delta: DeltaTable) -> Table:
    """The table at `uri`, which the library would give back with its blanks and umlauts encoded."""
    content = delta.transaction_version(_CONTENT)
    return Table(
        uri=absolute(uri),
        version=delta.version(),
        fingerprint=delta.transaction_version(_FINGERPRINT),
        upstream=delta.transaction_version(_UPSTREAM),
        upstream_identity=delta.transaction_version(_UPSTREAM_IDENTITY),
        content=delta.version() if content is None else content,
        identity=fingerprint(str(delta.metadata().id)),
    )


def scan(uri: str, version: int) -> pl.LazyFrame:
    """All rows of the table at exactly `version`.

    Raises:
        MissingTable: no such table or version.
    """
    table = find(uri, version)
    if table is None:
        raise MissingTable(f"there is no Delta table at {uri}; materialize the asset that makes it")
    return table.scan()


def _all_exist(folder: str, files: list[str]) -> bool:
    """Whether all data files are there: one listing on an object store, where each look is a request."""
    filesystem, root = open_filesystem(folder)
    if not is_remote(folder):
        return all(filesystem.exists(file) for file in files)
    with s3.explained(folder):
        present = set(filesystem.find(root))
    return all(file.partition("://")[2] in present for file in files)


@dataclass(frozen=True)
class Commit:
    """What a commit did: the table after it, and how many rows came and went."""

    table: Table
    added: int
    removed: int


def commit(
    uri: str,
    base: Table | None,
    added: pl.LazyFrame,
    removed: pl.DataFrame | None,
    *,
    fingerprint: int,
    upstream: int,
    upstream_identity: int | None = None,
    row_bytes: float | None = None,
    note: Mapping[str, str],
) -> Commit:
    """Apply an increment to `base` in one Delta commit.

    `removed` holds keys; None replaces every row of the table. A key on both sides is updated. `row_bytes` is how many a row has in
    memory, about, where that is known. `note` goes to the commit's history (run id, asset, upstream versions).

    Raises:
        ConcurrentWrite: the table is not at `base` any more. Nothing was written.
        UnsafeServer: it would be written to an S3 server that loses commits.
        S3Problem: S3 refuses, and why.
    """
    uri = absolute(uri)
    s3.require_safe_commits(uri)
    with s3.explained(uri):
        delta = _open_at(uri, base, added.collect_schema())
        before = _describe(uri, delta)
        if base is None and before.fingerprint is not None:
            raise ConcurrentWrite(f"another run made {uri} meanwhile; nothing was written here, run again")
        schema = added.collect_schema() if removed is None else before.schema
        if removed is not None and removed.height:
            written = write_replacement(uri, delta, added, schema, KEY, removed[KEY].unique(), row_bytes)
        else:
            written = write_rows(uri, delta, added, schema, overwrite=removed is None, row_bytes=row_bytes)
        mode = "overwrite" if removed is None else "append"
        counted = {_ADDED: str(written.added), _REMOVED: str(written.removed)}
        made_from = {_FINGERPRINT: fingerprint, _UPSTREAM: upstream, _UPSTREAM_IDENTITY: upstream_identity}
        after = _commit(uri, delta, written, mode, schema, _properties(delta, made_from, {**note, **counted}))
        return Commit(_describe(uri, after), written.added, written.removed)


def _properties(delta: DeltaTable, made_from: Mapping[str, int | None], note: Mapping[str, str]) -> CommitProperties:
    """What a commit says beside its rows; of `made_from` what is None stays as it was."""
    noted = {**made_from, _CONTENT: delta.version() + 1}
    return CommitProperties(
        custom_metadata={**note, _IDENTITY: uuid4().hex},
        max_commit_retries=0,  # a retry would commit onto rows that the increment has not seen
        app_transactions=[Transaction(name, value) for name, value in noted.items() if value is not None],
    )


def _commit(uri: str, delta: DeltaTable, written: Written, mode: str, schema: pl.Schema, properties: CommitProperties) -> DeltaTable:
    """The table with what was `written` in it.

    On S3 an answer may be lost after the commit was made: the library then fails, or tries again and takes its own commit for another's.
    """
    version = delta.version() + 1
    try:
        delta.create_write_transaction([*written.actions], mode, _delta_schema(schema), commit_properties=properties)
        return open_delta(uri, version)
    except (DeltaError, OSError) as error:
        standing = _standing(uri, version, properties)
        if standing is not None:
            return standing
        if isinstance(error, CommitFailedError):
            raise ConcurrentWrite(f"another run committed to {uri} meanwhile; nothing was written here, run again ({error})") from error
        raise


def _standing(uri: str, version: int, properties: CommitProperties) -> DeltaTable | None:
    """The table at `version` if that is this very commit; None where it is not, or where that cannot be told: the next run will see."""
    try:
        delta = open_delta(uri, version)
        made = delta.history(1)[0].get(_IDENTITY) if delta.version() == version else None
    except (DeltaError, OSError, S3Problem):
        return None
    return delta if made is not None and made == (properties.custom_metadata or {})[_IDENTITY] else None


def _open_at(uri: str, base: Table | None, schema: pl.Schema) -> DeltaTable:
    if base is not None:
        return open_delta(base.uri, base.version)
    location = absolute(uri)
    if not is_remote(location):
        open_filesystem(location)[0].makedirs(location, exist_ok=True)
    once = CommitProperties(max_commit_retries=0)  # a retry after a lost answer would make the table a second time, as another version
    try:
        return DeltaTable.create(
            location,
            schema=_delta_schema(schema),
            mode="ignore",
            storage_options=s3.options(location),
            configuration=_CONFIGURATION,
            commit_properties=once,
        )
    except (DeltaError, OSError):
        if find(location) is None:
            raise
        return open_delta(location)  # made meanwhile: by another run, or by this one, whose answer was lost


def _delta_schema(schema: pl.Schema) -> Schema:
    return Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)


# The log is small, and a version whose log entries were cleaned away could not be read although a model was made from it.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false", "delta.targetFileSize": str(FILE_BYTES)}
