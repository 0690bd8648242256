"""Damaged files through the readers: `python -m trainpipe_tests.fuzz --files 10000`.

Real files of every format and compression, mutated (`mutations.py`), are read by a process of limited memory under a watchdog. Each record
must come out once, numbered, with a reason where it cannot be used; a file never ends the process that reads it. What fails is kept.
"""

import argparse
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import polars as pl
import pyarrow.parquet

from trainpipe_assets.data.reading.readers import read_file
from trainpipe_assets.data.source_schema import schema_of
from trainpipe_assets.data.sources import LandedFile, list_landed
from trainpipe_assets.schemas import RAW_DATA
from trainpipe_assets.settings import SourceSettings
from trainpipe_tests.forks import forks
from trainpipe_tests.mutations import COMPRESSIONS, FORMATS, bomb, mutated
from trainpipe_tests.unit.landed_files import NOW

NAMES = [f"a.{kind}{compression}" for kind in FORMATS for compression in COMPRESSIONS]
BOMBED = [name for name in NAMES if name.endswith((".gz", ".zst", ".parquet"))]
FILES_A_BOMB = 500  # one of so many files is a decompression bomb
LONGEST_SECONDS = 60.0
MOST_MEMORY_BYTES = 700 << 20  # beyond what the process held before its first file
FAILED = Path("artifacts/fuzz")

_FORKS = forks()


@dataclass(frozen=True)
class Outcome:
    """What became of a file; `fault` says what should not have."""

    rows: int = 0
    rejected: int = 0
    fault: str | None = None


def read_and_check(file: LandedFile, settings: SourceSettings) -> Outcome:
    """Read a file as ingestion does, and look at what came out."""
    rows, rejected, broken_off = 0, 0, False
    schema_of(file, settings)
    for batch in read_file(file, settings, NOW):
        assert batch.schema == RAW_DATA, f"schema {batch.schema}"
        assert 0 < len(batch) <= 50_000, f"a batch of {len(batch)} rows"
        assert not broken_off, "rows after the end"
        ordinals = batch["row_id"].str.split("-").list.last().cast(pl.Int64)
        broken_off = ordinals.to_list() == [0]
        assert broken_off or (ordinals == pl.int_range(rows + 1, rows + len(batch) + 1, eager=True)).all(), f"rows are numbered {ordinals}"
        rows += len(batch)
        rejected += _check_rejected(batch, file)
    assert rows, "no row at all"
    expected = None if broken_off else _expected_rows(file)
    assert expected in (None, rows), f"{expected} records, {rows} rows"
    return Outcome(rows, rejected)


def _check_rejected(batch: pl.DataFrame, file: LandedFile) -> int:
    """Each rejected row names file, line and reason; each other has no reason and stands in a line."""
    assert set(batch["source_file"]) == {file.path}
    rejected = batch.filter(pl.col("problem").is_not_null())
    assert (rejected["problem"].str.len_chars() > 5).all(), "a rejection without a reason"
    assert (rejected["problem"].str.len_chars() < 2000).all(), "a reason that nobody reads"
    assert (rejected["text"].fill_null("").str.len_chars() <= 1000).all(), "more than an excerpt is kept"
    assert (batch.filter(pl.col("problem").is_null())["line_number"] > 0).all()
    assert batch["line_number"].is_not_null().all()
    return len(rejected)


def _expected_rows(file: LandedFile) -> int | None:
    """How many records there are, counted in another way where that is beyond doubt."""
    content = Path(file.uri).read_bytes()
    if file.path.endswith(".parquet"):
        return int(pyarrow.parquet.ParquetFile(file.uri).metadata.num_rows)
    if not file.path.endswith((".jsonl", ".tsv", ".txt")) or content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    lines = content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if file.path.endswith(".txt"):
        return sum(bool(line.strip()) for line in lines)
    return sum(bool(line.strip(b" \t")) for line in lines) if file.path.endswith(".jsonl") else sum(map(bool, lines)) - 1


def settings_for(name: str) -> SourceSettings:
    """How the file called `name` is read: text files by lines, compressed ones by paragraphs and as documents."""
    sample_by = {"gz": "paragraph", "zst": "document"}.get(name.rpartition(".")[2], "line")
    return SourceSettings.model_validate({"kind": "text", "sample_by": sample_by} if ".txt" in name else {})


def _work(folder: Path, orders: Connection) -> None:
    """A process that reads one file after the other, in bounded memory."""
    settings = SourceSettings()
    limit = _address_space_bytes() + MOST_MEMORY_BYTES + 3 * (1 << 30)  # allocators reserve far more than they use
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = _peak_bytes()
    while True:
        name = orders.recv()
        (file,) = [found for found in list_landed(str(folder), settings) if found.path == name]
        try:
            outcome = read_and_check(file, settings_for(name))
        except BaseException:  # noqa: BLE001  # that is what is being looked for
            outcome = Outcome(fault=traceback.format_exc())
        grown = _peak_bytes() - before
        if outcome.fault is None and grown > MOST_MEMORY_BYTES:
            outcome = Outcome(fault=f"memory grew by {grown / 2**20:,.0f} MiB")
        orders.send(outcome)


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Reader:
    """The working process, started anew after a file that ended it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._start()

    def _start(self) -> None:
        self._orders, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_work, args=(self._folder, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def read(self, name: str) -> Outcome:
        """Have a file read."""
        self._orders.send(name)
        fault = f"not read within {LONGEST_SECONDS:.0f} s"
        try:
            if self._orders.poll(LONGEST_SECONDS):
                outcome = self._orders.recv()
                assert isinstance(outcome, Outcome)
                return outcome
        except EOFError:
            self._process.join(30)
            fault = f"the reading process ended with exit code {self._process.exitcode}"
        self.end()
        self._start()
        return Outcome(fault=fault)

    def end(self) -> None:
        """Stop the process."""
        self._process.kill()
        self._process.join(30)


@dataclass(frozen=True)
class Fuzzed:
    """The file of one seed, and what became of it."""

    seed: int
    name: str
    content: bytes
    outcome: Outcome
    seconds: float


def fuzz(folder: Path, seeds: range, bombs: bool = True) -> Iterator[Fuzzed]:
    """One damaged file after the other, formats in turn."""
    reader = Reader(folder)
    try:
        for seed in seeds:
            explosive = bombs and seed % FILES_A_BOMB == FILES_A_BOMB - 1
            name = BOMBED[seed // FILES_A_BOMB % len(BOMBED)] if explosive else NAMES[seed % len(NAMES)]
            content = _bomb(name, seed) if explosive else mutated(name, seed)
            path = folder / name
            path.write_bytes(content)
            began = time.monotonic()
            yield Fuzzed(seed, name, content, reader.read(name), time.monotonic() - began)
            path.unlink()
    finally:
        reader.end()


def _bomb(name: str, seed: int) -> bytes:
    return bomb(name, random.Random(seed))


def main() -> int:
    """Parse, fuzz, tell; 1 where a file failed."""
    parser = argparse.ArgumentParser("python -m trainpipe_tests.fuzz", description="Read damaged files of every format.")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first file")
    options = parser.parse_args()
    began, failed, slowest = time.monotonic(), 0, 0.0
    read, usable, rejected = Counter[str](), Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="trainpipe-fuzz-") as folder:
        for done in fuzz(Path(folder), range(options.seed, options.seed + options.files)):
            read[done.name] += 1
            usable[done.name] += done.outcome.rows - done.outcome.rejected
            rejected[done.name] += done.outcome.rejected
            slowest = max(slowest, done.seconds)
            if done.outcome.fault:
                failed += 1
                FAILED.mkdir(parents=True, exist_ok=True)
                (FAILED / f"{done.seed}-{done.name}").write_bytes(done.content)
                print(f"file {done.seed} ({done.name}): {done.outcome.fault}", file=sys.stderr, flush=True)
    print(f"{options.files} files in {time.monotonic() - began:,.0f} s, the slowest in {slowest:.1f} s: {failed} failed")
    for name in NAMES:
        print(f"  {name:16} {read[name]:6} files {usable[name]:10,} usable rows {rejected[name]:10,} rejected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
