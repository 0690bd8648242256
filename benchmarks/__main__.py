"""`python -m benchmarks`: measure everything in one run and write docs/benchmarks.md and benchmarks/latest.json."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from benchmarks import assets, data_plane, data_plane_extremes, language, loading, machine, report, text_scoring, training
from benchmarks.dataset import Dataset, build, build_documents
from benchmarks.measurement import Section
from benchmarks.processes import ROOT, run_python
from trainpipe_assets.pipeline.status import load_pipelines
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage import base_models

PAGE, LATEST = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "latest.json"
CORPUS, MODELS = ROOT / "data" / "samples" / "corpora" / "movies.csv", ROOT / "data" / "models"
ASSISTANT, ASSISTANT_CORPUS = ROOT / "trainpipe_assets" / "defs" / "assistant" / "defs.yaml", "amazon.jsonl.gz"
BUSY = 0.3  # cores; above it other work takes a part of the two cores
BUSY_WARNING = (
    " **The machine was busy with other work during this run: its figures, the ratios too, are no evidence. Run it again on a quiet one.**"
)
ROWS, FULL_ROWS = 1_000_000, 10_000_000  # of the data plane
LONG = "extremes"  # only with --full, or asked for by name
NATIVE_BF16 = "training-bf16"  # only where the processor computes bf16 natively, or asked for by name
PRECISION = (
    "from trainpipe_assets.settings import ComputeSettings; from trainpipe_assets.training.compute import resolve_compute; "
    "print(resolve_compute(ComputeSettings(device='cpu')).precision)"
)
LANGUAGE_TOKENS = 3000  # three rows: a step of the language model takes seconds
ANSWER_SECONDS = 120.0
TRAIN_ROWS = 2000  # a whole epoch for each seed and trainer would take half an hour on two cores


class Benchmarks:
    """The benchmarks by name, in the order they run; those of the graph share one workplace."""

    def __init__(self, folder: Path, corpus: Path, models: Path, train_rows: int | None) -> None:
        self.folder, self.corpus, self.models, self.train_rows = folder, corpus, models, train_rows
        self.by_name: dict[str, Callable[[], Section]] = {
            "loading": lambda: loading.measure(models),
            "data-plane": self._data_plane,
            "extremes": self._extremes,
            "training": lambda: training.measure(self.dataset, self.settings, self.folder / "training"),
            NATIVE_BF16: lambda: training.measure(self.dataset, self.settings, self.folder / "training", "bf16", self.seeds),
            "text-scoring": self._text_scoring,
            "language": self._language,
            "assets": lambda: assets.measure_assets(self.workplace),
            "no-op": lambda: assets.measure_no_op(self.workplace),
        }

    @property
    def seeds(self) -> Sequence[int]:
        """Those of all that is trained beside the shipped pipeline in float32, which has all three."""
        return training.SEEDS[:1] if self.train_rows else training.SEEDS

    @cached_property
    def settings(self) -> PipelineSettings:
        """The settings of the shipped pipeline."""
        return load_pipelines("reviews")["reviews"]

    @cached_property
    def dataset(self) -> Dataset:
        """The corpus as trainers take it."""
        return build(self.corpus, self.settings, self.models, self.folder / "dataset", self.train_rows)

    def require_models(self, only: str | None) -> None:
        """Look for the base models of all that is to run, before any of it does.

        Raises:
            ValueError: one is missing.
        """
        pipelines = [self.settings, *([self.assistant] if only in (None, "language") else [])]
        for pipeline in pipelines:
            base_models.resolve(pipeline.model.base, str(self.models))

    @cached_property
    def assistant(self) -> PipelineSettings:
        """The settings of the shipped language model, which loading pipelines passes over, since it is off by default."""
        return PipelineSettings.model_validate(yaml.safe_load(ASSISTANT.read_text())["attributes"])

    @cached_property
    def workplace(self) -> assets.Workplace:
        """The graph, run once on the whole corpus."""
        return assets.Workplace(self.folder / "graph", self.corpus, self.models, self.settings)

    def _data_plane(self) -> Section:
        rows = ROWS if self.train_rows else FULL_ROWS
        return data_plane.measure(data_plane.Plane(self.folder / "data-plane", self.corpus.parent, self.models, self.settings, rows))

    def _language(self) -> Section:
        corpus = self.corpus.parent / ASSISTANT_CORPUS
        documents = build_documents(corpus, self.assistant, self.models, self.folder / "documents", LANGUAGE_TOKENS)
        return language.measure(documents, self.assistant, self.folder / "language", self.seeds)

    def _extremes(self) -> Section:
        burst, large = (
            data_plane.Plane(self.folder / name, self.corpus.parent, self.models, self.settings) for name in ("burst", "large-file")
        )
        return data_plane_extremes.measure_extremes(burst, large)

    def _text_scoring(self) -> Section:
        model = training.finished_model(self.dataset, self.settings, self.folder / "training")
        return text_scoring.measure(self.dataset, self.settings, model, self.folder / "text-scoring")


def main() -> int:
    """Run the benchmarks asked for; all of them write the page and the list, some are only printed."""
    options = _parser().parse_args()
    busy, started = machine.busy_cores(), time.perf_counter()
    with TemporaryDirectory(prefix="trainpipe-bench-") as folder:
        benchmarks = Benchmarks(Path(folder), options.corpus, options.models, None if options.full else TRAIN_ROWS)
        try:
            benchmarks.require_models(options.only)
            sections = list(_run(benchmarks, options.only, full=options.full))
        except (ValueError, RuntimeError) as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 2
    if options.only is None:
        seconds = time.perf_counter() - started
        PAGE.write_text(report.page(sections, machine.describe(), _about(seconds, busy, full=options.full)))
        report.write_latest(LATEST, sections)
        print(f"written: {PAGE.relative_to(ROOT)} and {LATEST.relative_to(ROOT)} after {seconds:,.0f} s")
    return 0


def _run(benchmarks: Benchmarks, only: str | None, *, full: bool) -> Iterator[Section]:
    left_out = {*(() if full else (LONG,)), *(() if _native_bf16() else (NATIVE_BF16,))}
    for name, measure in benchmarks.by_name.items():
        if only == name or (only is None and name not in left_out):
            started = time.perf_counter()
            section = measure()
            print(f"{report.as_text(section)}\n({name}: {time.perf_counter() - started:,.0f} s)\n", flush=True)
            yield section


def _native_bf16() -> bool:
    """Asked of a process of its own, since torch would stay in the memory of this one."""
    return run_python(["-c", PRECISION], os.environ, ANSWER_SECONDS).stdout.split() == ["bf16"]


def _about(seconds: float, busy: float, *, full: bool) -> str:
    extent = (
        "the whole training split for every seed (`python -m benchmarks --full`)"
        if full
        else f"a fixed subset of {TRAIN_ROWS:,} training rows for the comparison of trainers, to keep the run short; "
        "`python -m benchmarks --full` takes the whole split"
    )
    return (
        f"This run was done on {datetime.now(UTC):%Y-%m-%d}, took {seconds / 60:.0f} minutes, and used {extent}. "
        f"Just before it began, {busy:.1f} cores were busy.{BUSY_WARNING if busy > BUSY else ''}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Measure speed against the peers.")
    parser.add_argument(
        "--only",
        choices=("loading", "data-plane", "extremes", "training", NATIVE_BF16, "text-scoring", "language", "assets", "no-op"),
        help="this one alone, printed and not written",
    )
    parser.add_argument(
        "--full", action="store_true", help="10,000,000 rows, 10,000 files, 5 GB, the whole training split, three seeds everywhere: hours"
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="labelled texts, by default the sample movie reviews")
    models = Path(os.environ.get("TRAINPIPE_MODELS") or MODELS)
    parser.add_argument("--models", type=Path, default=models, help="folder of base models, by default TRAINPIPE_MODELS or data/models")
    return parser


if __name__ == "__main__":
    sys.exit(main())
