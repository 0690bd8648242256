"""Landing to tokens on generated rows: what each stage takes, against pandas with `datasets`, and what an increment costs."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generated import rows, write_csv
from benchmarks.measurement import Measurement, Section
from benchmarks.processes import run_python
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage import base_models

STAGES = ("ingest", "clean", "tokenize")
PEER_STAGES = ("pandas", "datasets")
TIMEOUT = 5400.0
MEBIBYTE = 2**20
SETTLED_SECONDS = 3600  # age given to landed files, so that nobody waits for them to stop growing


@dataclass(frozen=True)
class Stage:
    """What one stage of one side took, in a process of its own; importing libraries is not counted in `seconds`."""

    seconds: float
    peak: int  # bytes, of the process and its children
    written: int  # bytes of the files that the stage left


class Plane:
    """Generated rows under `folder`, of which `n_rows` are to come first, and the two ways from there to tokens."""

    def __init__(self, folder: Path, corpora: Path, models: Path, settings: PipelineSettings, n_rows: int = 0) -> None:
        self.folder, self.corpora, self.n_rows = folder, corpora, n_rows
        self.base = base_models.resolve(settings.model.base, str(models)).folder
        self.landing = folder / "landing"
        self.landing.mkdir(parents=True)

    def land(self, name: str, n_rows: int, seed: int, most_bytes: int | None = None) -> int:
        """`n_rows` further rows as one CSV file, landed an hour ago, or as many as fit into `most_bytes`; how many it has."""
        path = self.landing / name
        written = write_csv(path, self.corpora, n_rows, seed, most_bytes)
        _settle(path)
        return written

    def land_burst(self, n_files: int, n_rows: int) -> int:
        """As many CSV files of `n_rows` rows; how many rows they have together."""
        landed = 0
        for batch in rows(self.corpora, n_files * n_rows):
            for part in batch.iter_slices(n_rows):
                path = self.landing / f"{landed:09d}.csv"
                part.write_csv(path)
                _settle(path)
                landed += len(part)
        return landed

    def stages(self, lake: str, near_duplicates: str) -> dict[str, Stage]:
        """Each stage of the pipeline, on whatever is new to the tables in `lake`."""
        return {name: self._run(name, lake, near_duplicates) for name in STAGES}

    def proof(self, lake: str) -> Stage:
        """That all rows of the tables in `lake` are there, each once, and no group is in two splits."""
        return self._run("prove", lake, "off")

    def peer(self) -> dict[str, Stage]:
        """The same in pandas and `datasets`."""
        return {name: self._run(name, "peer", "off") for name in PEER_STAGES}

    def bare(self) -> float:
        """Seconds for the cleaned texts in the tokenizer's own `encode_batch_fast` on all cores, with nothing around it."""
        return self._run("bare", "off", "off").seconds

    def _run(self, stage: str, lake: str, near_duplicates: str) -> Stage:
        spec = {"landing": str(self.landing), "lake": str(self.folder / lake), "base": self.base, "near_duplicates": near_duplicates}
        path = self.folder / "spec.json"
        path.write_text(json.dumps(spec))
        done = run_python(["-m", "benchmarks.data_plane_stage", str(path), stage], os.environ, TIMEOUT, watch_memory=True)
        said = json.loads(done.stdout.splitlines()[-1])
        found = Stage(said["seconds"], max(sample.bytes for sample in done.memory), said["written"])
        print(f"{self.folder.name}, {lake}: {stage} {found.seconds:.1f} s, {found.peak / MEBIBYTE:,.0f} MiB", file=sys.stderr, flush=True)
        return found


def _settle(path: Path) -> None:
    at = path.stat().st_mtime - SETTLED_SECONDS
    os.utime(path, (at, at))


def measure(plane: Plane) -> Section:
    """A full build without and with the search for near-duplicates, the peer, then one per cent more, then nothing new."""
    plane.land("first.csv", plane.n_rows, seed=0)
    ours, peer = plane.stages("off", "off"), plane.peer()
    proof = plane.proof("off")
    bare = plane.bare()
    near = plane.stages("group", "group")
    plane.land("second.csv", max(1, plane.n_rows // 100), seed=1)
    more, near_more = plane.stages("off", "off"), plane.stages("group", "group")
    nothing = plane.stages("off", "off")
    measurements = [*_full(plane.n_rows, ours, peer, bare), *_proof(plane.n_rows, proof), *_near(plane.n_rows, near)]
    measurements += [
        _share("one_per_cent", "1% more rows, near-duplicates off, against the full build", more, ours),
        _share("one_per_cent_near", "1% more rows, near-duplicates grouped, against the full build", near_more, near),
        Measurement("nothing_new", "nothing new, all three stages, without starting Python", _total(nothing), "s"),
    ]
    sides = {"": ours, "near-duplicates grouped: ": near, "peer: ": peer, "1% more: ": more}
    table = [_line(plane.n_rows, f"{side}{name}", stage) for side, stages in sides.items() for name, stage in stages.items()]
    table.append(_line(plane.n_rows, "prove", proof))
    table.insert(0, ["stage", "s", "rows/s", "peak MiB", "written MiB"])
    return Section(f"The data plane, {plane.n_rows:,} rows", _READING, measurements, table)


def _full(n_rows: int, ours: Mapping[str, Stage], peer: Mapping[str, Stage], bare: float) -> list[Measurement]:
    prepared, other = ours["ingest"].seconds + ours["clean"].seconds, peer["pandas"].seconds
    whole, whole_other = _total(ours), _total(peer)
    tokenized = ours["tokenize"].seconds
    return [
        _rate("prepare", "ingest, cleaning, deduplication and split, against pandas", n_rows, prepared, other, 5.0),
        _rate("tokenize", "tokenization, read and written as Delta, against bare `encode_batch_fast`", n_rows, tokenized, bare, 0.95),
        _rate("landing_to_tokens", "end to end, against pandas and `datasets.map` on all cores", n_rows, whole, whole_other, 1.6),
        Measurement("peak_memory", "the most memory of any stage", max(stage.peak for stage in ours.values()) / MEBIBYTE, "MiB"),
    ]


def _proof(n_rows: int, proof: Stage) -> list[Measurement]:
    return [
        Measurement("prove", "the asset checks: each row there, once, and no group in two splits", n_rows / proof.seconds, "rows/s"),
        Measurement("peak_memory_prove", "the most memory of it", proof.peak / MEBIBYTE, "MiB"),
    ]


def _near(n_rows: int, near: Mapping[str, Stage]) -> list[Measurement]:
    return [
        Measurement("landing_to_tokens_near", "end to end with near-duplicates grouped", n_rows / _total(near), "rows/s"),
        Measurement("peak_memory_near", "the most memory of any stage of it", max(stage.peak for stage in near.values()) / MEBIBYTE, "MiB"),
    ]


def _rate(name: str, description: str, n_rows: int, seconds: float, other: float, aim: float) -> Measurement:
    return Measurement(name, description, n_rows / seconds, "rows/s", n_rows / other, other / seconds, aim)


def _share(name: str, description: str, part: Mapping[str, Stage], whole: Mapping[str, Stage]) -> Measurement:
    return Measurement(name, description, _total(part), "s", _total(whole), _total(part) / _total(whole))


def _total(stages: Mapping[str, Stage]) -> float:
    return sum(stage.seconds for stage in stages.values())


def _line(n_rows: int, name: str, stage: Stage) -> list[str]:
    rate = f"{n_rows / stage.seconds:,.0f}" if "1%" not in name else ""
    return [name, f"{stage.seconds:.2f}", rate, f"{stage.peak / MEBIBYTE:,.0f}", f"{stage.written / MEBIBYTE:,.0f}"]


_READING = (
    "Halves of real sentences put together anew, a tenth of them repeated, landed as one CSV file. Each stage is a process of its own that "
    "reads what the stage before wrote and commits to Delta; its time starts after the imports. The peer reads the same file with "
    "pandas, does the same cleaning, exact deduplication, contradictions, hash and split, writes Parquet, and tokenizes with "
    "`datasets.map(batched, num_proc=cores)`; it keeps no rejected rows, no line numbers and no increments. Both leave the same number of "
    "examples and of ids and the same sum of ids, which is checked. `encode_batch_fast` is measured on texts that lie in memory already. "
    "Near-duplicates are off where the peer is measured, since it does not look for them. A share of the full build is to be 0.03 at most."
)
