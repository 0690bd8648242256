"""Landing to tokens without Dagster: the real stages over real tables, one commit at a time.

What the laws of the increments are shown with. `run_and_tell` is a process that can be killed.
"""

import os
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from trainpipe_assets.data import cleaning, ingestion, tokenization
from trainpipe_assets.data.conservation import groups_in_two_splits
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.data.splitting import own_split
from trainpipe_assets.settings import CleaningSettings, SourceKind, SourceSettings, SplitSettings, ValidationSettings
from trainpipe_assets.storage.delta import ConcurrentWrite, Table, find
from trainpipe_assets.storage.increments import Increment, Upstream
from trainpipe_assets.storage.uris import join
from trainpipe_tests.corpora import as_csv, examples

TABLES = ("raw_data", "cleaned_features", "rejected_rows", "tokenized_dataset")
COMMITS = len(TABLES)
READ_AT = ("ingested_at", "file_version")  # columns that tell when and how a row was read, not what it is
LABELS = ("negative", "positive")


@dataclass(frozen=True)
class DataPlane:
    """Tables under `lake`, files under `landing` (both may be on S3), a tokenizer in the folder `base`, and settings by section."""

    lake: str
    landing: Path | str
    base: Path
    settings: dict[str, Any] = field(default_factory=dict)

    def commits(self) -> Iterator[str]:
        """Bring all tables up to the landing folder; yields the name of each table once its commit stands."""
        source = SourceSettings.model_validate({"settle_seconds": 0, **self.settings.get("source", {})})
        landed = list_landed(str(self.landing), source)
        if not landed:
            return
        uri = self._uri("raw_data")
        increment = ingestion.ingest(uri, find(uri), landed, frozenset(), source, datetime.now(UTC)).increment
        yield self._commit("raw_data", increment)
        rules = CleaningSettings.model_validate({"labels": LABELS, **self.settings.get("cleaning", {})})
        validation = ValidationSettings.model_validate(self.settings.get("validation", {})).record_rules
        split = SplitSettings.model_validate(self.settings.get("split", {}))
        changes = self._upstream("raw_data", "cleaned_features", "rejected_rows").changes(
            version=cleaning.VERSION, cleaning=rules, split=split, rules=validation
        )
        with TemporaryDirectory() as scratch:
            examples, rejected = cleaning.clean_changes(changes, rules, split, Path(scratch), rules=validation)
            yield self._commit("rejected_rows", rejected)
            yield self._commit("cleaned_features", examples)
        tokenizer = tokenization.load_tokenizer(str(self.base), self.settings.get("max_length", 32))
        changes = self._upstream("cleaned_features", "tokenized_dataset").changes(
            version=tokenization.VERSION, max_length=tokenizer.max_length, labels=LABELS
        )
        yield self._commit("tokenized_dataset", tokenization.tokenize_changes(changes, tokenizer, LABELS))

    def run(self) -> None:
        """All of it, to the end."""
        for _ in self.commits():
            pass

    def check_splits(self) -> None:
        """Nothing that counts as the same is in two splits, and the files that are a split of their own are in no other."""
        examples = self.table("cleaned_features").scan()
        assert groups_in_two_splits(examples) == 0
        split = SplitSettings.model_validate(self.settings.get("split", {}))
        for file, found in examples.select("source_file", "split").unique().collect().iter_rows():
            own = own_split(file, split)
            assert found == own if own else not (split.test_files if found == "test" else found == "validation" and split.validation_files)

    def run_among_others(self, tries: int = 200) -> int:
        """All of it while others commit to the same tables, again after each refused commit; how many were refused."""
        for refused in range(tries):
            try:
                self.run()
            except ConcurrentWrite:
                time.sleep(random.uniform(0.0, 0.2))
            else:
                return refused
        raise AssertionError(f"refused {tries} times")

    def elsewhere(self, lake: str) -> "DataPlane":
        """The same files and settings with tables of its own."""
        return replace(self, lake=lake)

    def table(self, name: str) -> Table | None:
        """A table as it stands."""
        return find(self._uri(name))

    def rows(self, name: str) -> pl.DataFrame:
        """The rows of a table in a fixed order, without what tells when they were read."""
        table = self.table(name)
        assert table is not None, f"{name} is missing"
        return table.scan().collect().drop(READ_AT, strict=False).sort("row_id")

    def check_conservation(self) -> None:
        """Each raw row is an example or a rejected row, never both; each example has its tokens."""
        raw, examples, rejected, tokens = (self.rows(name)["row_id"] for name in TABLES)
        assert raw.is_unique().all()
        assert raw.to_list() == sorted([*examples, *rejected])
        assert tokens.to_list() == examples.to_list()

    def check_equal(self, other: "DataPlane") -> None:
        """The same rows in every table."""
        for name in TABLES:
            found, expected = self.rows(name), other.rows(name)
            assert found.equals(expected), f"{name}: {len(found)} rows, {len(expected)} expected"

    def _uri(self, name: str) -> str:
        return join(self.lake, name)

    def _upstream(self, name: str, *outputs: str) -> Upstream:
        table = self.table(name)
        assert table is not None
        return Upstream(table, {output: self._uri(output) for output in outputs})

    def _commit(self, name: str, increment: Increment) -> str:
        increment.commit({"asset": name})
        return name


@dataclass(frozen=True)
class Outcome:
    """Both results of cleaning, in memory."""

    examples: pl.DataFrame
    rejected: pl.DataFrame


def outcome(records: pl.DataFrame, rules: CleaningSettings, split: SplitSettings, kind: SourceKind = "labelled") -> Outcome:
    """What becomes of `records` alone."""
    with TemporaryDirectory() as scratch:
        cleaned = cleaning.clean(records.lazy(), rules, split, Path(scratch), kind)
        return Outcome(cleaned.examples.collect().sort("row_id"), cleaned.rejected.collect().sort("row_id"))


def land_and_run(plane: DataPlane, number: int) -> int:
    """Land one more file, then run among others."""
    put(plane.landing / f"{number}.csv", as_csv(examples(5, seed=number)))
    return plane.run_among_others()


def run_and_tell(plane: DataPlane, environment: Mapping[str, str], told: Connection) -> None:
    """One run in an environment of its own; tells "ready", the name of each table once its commit stands, and "done"."""
    os.environ.update(environment)
    told.send("ready")
    for name in plane.commits():
        told.send(name)
    told.send("done")


def put(path: Path, content: bytes) -> None:
    """Land a file as careful writers do: written elsewhere, then renamed. It has settled long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    os.utime(temporary, ns=(time.time_ns() - 3_600_000_000_000,) * 2)
    temporary.replace(path)
