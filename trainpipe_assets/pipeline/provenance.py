"""Where a model comes from: the identity of a training, its spec, and the manifest of what it made.

The identity is taken from content, not from table versions: the same examples under the same settings are the same training, in any
lake and after any maintenance.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from trainpipe_assets import __version__
from trainpipe_assets.settings import ComputeSettings, ModelSettings, Task, TrainingSettings
from trainpipe_assets.storage.base_models import BaseModel
from trainpipe_assets.storage.delta import Table
from trainpipe_assets.training.spec import TrainSpec

TRAINING_VERSION = "2"  # raise it when the same spec would train another model
TOLD = ("best", "warnings", "distribution", "hardware", "versions", "timing", "efficiency")
"""What a manifest takes over from `training.json`."""


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
            "model": self.model.model_dump(mode="json", exclude={"base"}),
            "training": self.training.model_dump(mode="json", exclude={"checkpoint_seconds", "micro_batch_tokens"}),
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
                "fingerprint": f"{self.dataset.fingerprint or 0:016x}",
                "digest": self.digest,
                "made_by": made_by_table(self.dataset.made_by),
            },
            "lake": {name: {"uri": table.uri, "version": table.version} for name, table in tables.items()},
            "base_model": {"name": self.base.name, "digest": self.base.digest},
            "settings": {"model": self.model.model_dump(mode="json"), "training": self.training.model_dump(mode="json")},
            "seed": self.training.seed,
            **{key: record[key] for key in TOLD if key in record},
        }


def made_by_table(made_by: Mapping[str, Any] | None) -> dict[str, Any]:
    """What made the examples, versions of the code and settings, by the table that it made; without those that an older version wrote."""
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
