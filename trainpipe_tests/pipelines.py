"""A whole pipeline in a temporary folder: a tiny base model, a corpus that it can learn, and the lake around them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from trainpipe_assets.pipeline.component import build_pipeline
from trainpipe_assets.pipeline.executor import signing_in_process_executor
from trainpipe_assets.pipeline.io_managers import DeltaIOManager, ModelIOManager
from trainpipe_assets.pipeline.launcher import LocalLauncher
from trainpipe_assets.pipeline.resources import Lake
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage.delta import Table, find
from trainpipe_tests import training_forks
from trainpipe_tests.unit.training_fixtures import write_tiny_base

SETTINGS: dict[str, Any] = {
    "source": {"uri": "words", "settle_seconds": 0},
    "cleaning": {"labels": ["negative", "positive"]},
    "model": {"base": "tiny", "max_length": 32},
    "training": {"epochs": 2, "learning_rate": 3e-3, "batch_tokens": 256},
    "evaluation": {"bootstrap_samples": 200, "gate": {"min_value": 0.0}},
    "automation": {"max_retries": 0},
}


class ForkingLauncher(LocalLauncher):
    """The launcher of the shipped pipeline; alone, without torchrun, a training is spared its imports."""

    def _command(self, spec: Path) -> list[str]:
        if self.processes > 1:
            return super()._command(spec)
        python, _module_option, _module, *arguments = super()._command(spec)
        return training_forks.command(python, arguments)


@dataclass
class Workplace:
    """A lake, a landing folder and a Dagster instance of their own."""

    root: Path
    instance: dg.DagsterInstance
    name: str
    settings: PipelineSettings

    @property
    def lake(self) -> Lake:
        """The lake in the folder."""
        places = {place: str(self.root / place) for place in ("landing", "models", "scratch")}
        return Lake(root=str(self.root / "lake"), **places)

    def definitions(self, **training: Any) -> dg.Definitions:
        """The pipeline with its resources."""
        launcher = ForkingLauncher(device="cpu", precision="float32", threads=1, scratch=str(self.root / "scratch"), **training)
        resources = {
            "lake": self.lake,
            "launcher": launcher,
            "delta_io_manager": DeltaIOManager(lake=self.lake),
            "model_io_manager": ModelIOManager(lake=self.lake),
        }
        return dg.Definitions.merge(
            build_pipeline(self.name, self.settings), dg.Definitions(resources=resources, executor=signing_in_process_executor)
        )

    def land(self, name: str, content: bytes) -> Path:
        """Put a file into the landing folder, as old as if it had settled."""
        path = self.root / "landing" / self.settings.source.uri / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        stat = path.stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 3_600_000_000_000))
        return path

    def run(self, job: str = "retrain", run_config: dict[str, Any] | None = None, **options: Any) -> dg.ExecuteInProcessResult:
        """Run a job of the pipeline in process."""
        definition = self.definitions().resolve_job_def(f"{self.name}_{job}")
        return definition.execute_in_process(instance=self.instance, raise_on_error=False, run_config=run_config, **options)

    def table(self, asset: str) -> Table:
        """An asset's table as it stands."""
        table = find(self.lake.table_uri(dg.AssetKey([*self.settings.key_prefix, asset])))
        assert table is not None, f"{asset} has no table"
        return table

    def rows(self, asset: str) -> pl.DataFrame:
        """The rows of an asset's table, in a fixed order, without the time of ingestion."""
        frame = self.table(asset).scan().collect()
        return frame.drop("ingested_at", "file_version", strict=False).sort(frame.columns[0])


def read_words(base: Path) -> None:
    """Let the tokenizer of the tiny base model cut texts into words, with the marks that BERT expects around them."""
    path = str(base / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=marks)
    tokenizer.save(path)


def write_stand_in(models: Path) -> None:
    """Put a tiny base model into the place of the sample one that the shipped pipeline names, for as many tokens as that pipeline asks."""
    read_words(write_tiny_base(models / "samples" / "all-MiniLM-L6-v2", longest=128))


def make_workplace(root: Path, instance: dg.DagsterInstance, name: str = "words", **changes: Any) -> Workplace:
    """A workplace under `root`; `changes` replace whole sections of `SETTINGS`."""
    models = root / "models"
    if not models.exists():
        read_words(write_tiny_base(models / "tiny"))
    return Workplace(root, instance, name, PipelineSettings.model_validate({**SETTINGS, **changes}))


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The description of the failure that ended a run."""
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None, f"not a user's mistake: {event.step_failure_data.error}"
    return data.description or ""
