"""Where a model comes from: the identity of a training, its spec, and the manifest of what it made.

The identity is taken from content, not from table versions: the same examples under the same settings are the same training, in any
lake and after any maintenance.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from trainpipe_assets import __version__
from trainpipe_assets.data import cleaning
from trainpipe_assets.data.encoding import Encoder
from trainpipe_assets.data.ingestion import source_fingerprint
from trainpipe_assets.settings import ComputeSettings, ModelSettings, PipelineSettings, Task, TrainingSettings
from trainpipe_assets.storage.artifacts import read_manifest
from trainpipe_assets.storage.base_models import BaseModel
from trainpipe_assets.storage.delta import Table
from trainpipe_assets.storage.identity import as_hex, as_json, fingerprint
from trainpipe_assets.storage.uris import join
from trainpipe_assets.training.spec import TrainSpec, differences

TRAINING_VERSION = "2"  # raise it when the same spec would train another model
_NOT_OF_RESULT = {"checkpoint_seconds", "micro_batch_tokens"}
_OF_LANGUAGE_MODELS = {"model": {"lora", "template"}, "training": {"packing"}}
TOLD = ("best", "warnings", "distribution", "hardware", "versions", "timing", "efficiency")
"""What a manifest takes over from `training.json`."""


def _idle(task: Task, section: str) -> set[str]:
    """Settings that change nothing for `task`."""
    return set() if task == "causal-lm" else _OF_LANGUAGE_MODELS[section]


def settings_of_result(task: Task, model: ModelSettings, training: TrainingSettings) -> dict[str, Any]:
    """Those that decide what a training comes to, beside its base model, ready for JSON."""
    return {
        "model": model.model_dump(mode="json", exclude={"base", *_idle(task, "model")}),
        "training": training.model_dump(mode="json", exclude={*_NOT_OF_RESULT, *_idle(task, "training")}),
    }


def stated(version: str, *settings: Any) -> str:
    """The version of an asset's code as Dagster knows it, with the settings that it goes by: when either changes, the asset is stale."""
    return f"{version}-{as_hex(fingerprint(*settings))}"


@dataclass(frozen=True)
class TrainingPlan:
    """A training before it starts: everything that determines its result."""

    task: Task
    dataset: Table
    digest: str  # SHA-256 over the sorted keys of the examples that train and validate
    labels: tuple[str, ...]
    base: BaseModel
    model: ModelSettings
    training: TrainingSettings
    forced_by: str | None = None  # the run that insisted on training anew

    @property
    def fingerprint(self) -> str:
        """Identity of the training, 32 hexadecimal digits."""
        identity = {
            "version": TRAINING_VERSION,
            "task": self.task,
            "dataset": {"fingerprint": self.dataset.fingerprint, "digest": self.digest},
            "labels": self.labels,
            "base": self.base.digest,
            **settings_of_result(self.task, self.model, self.training),
            "forced_by": self.forced_by,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]

    def spec(self, compute: ComputeSettings, work_dir: Path, checkpoints_uri: str | None = None) -> TrainSpec:
        """The contract with the training program."""
        return TrainSpec(
            dataset_uri=self.dataset.uri,
            dataset_version=self.dataset.version,
            task=self.task,
            labels=self.labels,
            base_model=self.base.folder,
            model=self.model,
            training=self.training,
            compute=compute,
            work_dir=str(work_dir / "checkpoints"),
            checkpoints_uri=checkpoints_uri,
            output_dir=str(work_dir / "model"),
            fingerprint=self.fingerprint,
        )

    def manifest(self, record: Mapping[str, Any], tables: Mapping[str, Table], run_id: str, trained_at: datetime) -> dict[str, Any]:
        """Everything that the model came from; the hashes of its files are added when it is sealed."""
        return {
            "fingerprint": self.fingerprint,
            "task": self.task,
            "labels": list(self.labels),
            "trained_at": trained_at.isoformat(),
            "run_id": run_id,
            "code_version": __version__,
            "training_version": TRAINING_VERSION,
            "dataset": {
                "uri": self.dataset.uri,
                "version": self.dataset.version,
                "table": as_hex(self.dataset.identity),
                "fingerprint": as_hex(self.dataset.fingerprint or 0),
                "digest": self.digest,
                "made_by": made_by_table(self.dataset.made_by),
            },
            "lake": {name: {"uri": table.uri, "version": table.version, "table": as_hex(table.identity)} for name, table in tables.items()},
            "base_model": {"name": self.base.name, "digest": self.base.digest},
            "settings": {"model": self.model.model_dump(mode="json"), "training": self.training.model_dump(mode="json")},
            "seed": self.training.seed,
            **{key: record[key] for key in TOLD if key in record},
        }


def forced(plan: TrainingPlan, run: dg.DagsterRun, models_uri: str) -> TrainingPlan:
    """The same training once more, as `run` insists on it. What retries a run goes on with its training until that has made a model."""
    first = replace(plan, forced_by=run.root_run_id or run.run_id)
    made = read_manifest(join(models_uri, first.fingerprint))
    return first if made is None or made.manifest["run_id"] == run.run_id else replace(plan, forced_by=run.run_id)


def require_made_by(settings: PipelineSettings, tokens: Table, texts: Table, encoder: Encoder) -> None:
    """Make sure that the examples are those that these settings make: a model is of the settings that it says it is of.

    Raises:
        ValueError: `tokens` or `texts` were made by other settings or another version of the code, and which, or do not belong together.
    """
    require_covered(tokens, texts)
    _require(texts, "cleaned_features", cleaning.determinants(settings), source_fingerprint(settings.source))
    _require(tokens, "tokenized_dataset", encoder.determinants, texts.fingerprint)


def require_covered(tokens: Table, texts: Table) -> None:
    """Make sure that `tokens` were made of `texts` as they are.

    Raises:
        ValueError: they were made of another version.
    """
    if not tokens.covers(texts):
        raise ValueError(
            f"tokenized_dataset was made of version {tokens.upstream} of cleaned_features, which is at version {texts.content} now; "
            "materialize tokenized_dataset first, or all assets together"
        )


def _require(table: Table, name: str, wanted: Mapping[str, Any], upstream: int | None) -> None:
    if table.fingerprint == fingerprint(*wanted.values(), upstream):
        return
    changed = made_otherwise(table, wanted)
    raise ValueError(
        f"{name} was made by other settings than the pipeline has now{': ' if changed else ''}{'; '.join(changed)}. Materialize it first, "
        "or all assets together"
    )


def made_otherwise(table: Table, wanted: Mapping[str, Any]) -> list[str]:
    """In what that which made `table` differs from what is `wanted` now, one sentence each; of what it does not tell, nothing is said."""
    told = table.made_by or {}
    now = {name: value for name, value in json.loads(as_json(wanted)).items() if name in told}
    return differences({name: told[name] for name in now}, now)


def made_by_table(made_by: Mapping[str, Any] | None) -> dict[str, Any]:
    """What made the rows of `tokenized_dataset`, versions of the code and settings, by the table that it made; without those of an older
    version."""
    found = {}
    for name in ("tokenized_dataset", "cleaned_features", "raw_data"):
        if made_by is None:
            break
        found[name] = {key: value for key, value in made_by.items() if key != "upstream"}
        made_by = made_by.get("upstream")
    return found


def dataset_digest(dataset: Table) -> str:
    """SHA-256 over the sorted keys and splits of the examples that training sees; a key stands for its content."""
    seen = dataset.scan().filter(pl.col("split") != "test").select(pl.concat_str("row_id", "split", separator=" ").alias("key")).sort("key")
    digest = hashlib.sha256()
    for key in seen.collect()["key"]:
        digest.update(key.encode() + b"\n")
    return digest.hexdigest()
