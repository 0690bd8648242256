"""The JSON contract of the training program: everything it needs, resolved by whoever launches it.

Reads, writes and compares specs. It imports no torch, so that a launcher can use it too.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from trainpipe_assets.settings import ComputeSettings, ModelSettings, Task, TrainingSettings

_PLACES = {"work_dir", "output_dir", "checkpoints_uri", "training.checkpoint_seconds", "training.micro_batch_tokens"}
_COMPUTE = {f"compute.{name}" for name in ComputeSettings.model_fields} - {"compute.precision"}
_SEEN_OTHERWISE = {"dataset_uri", "dataset_version", "base_model", "model.base"}
WITHOUT_INFLUENCE = _PLACES | _COMPUTE | _SEEN_OTHERWISE
"""What may differ between a checkpoint and the spec that resumes it: where things are, and how to compute but for the precision.

Maintenance gives the same examples a new table version; that they are the same is seen from their digest. The weights come from the
checkpoint.
"""


GRACE_SECONDS = 20.0
"""What a training that is to stop is given to leave a checkpoint, before it is killed."""


class TrainSpec(BaseModel):
    """One training: its pinned inputs, its settings and where its files go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset_uri: str = Field(
        min_length=1, description="Delta table with the columns of schemas.TOKENIZED_DATASET, or of the task's other form of it."
    )
    dataset_version: int = Field(ge=0, description="Version of that table; a newer one is never read instead.")
    task: Task = Field(default="text-classification", description="What is trained.")
    labels: tuple[str, ...] = Field(default=(), description="Names of the outputs: labels in the order of their ids, or the one number.")
    base_model: str = Field(min_length=1, description="Base model: a local folder, or a Hugging Face hub id.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="Settings of the model.")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="Hyper-parameters.")
    compute: ComputeSettings = Field(default_factory=ComputeSettings, description="Device, processes and precision.")
    work_dir: str = Field(min_length=1, description="Local folder of the checkpoints; keep it, and a killed training resumes.")
    checkpoints_uri: str | None = Field(
        default=None, description="Where checkpoints are also kept, sent in the background: another machine goes on from there."
    )
    output_dir: str = Field(min_length=1, description="Local folder where the finished model appears, whole or not at all.")
    fingerprint: str = Field(min_length=1, description="Identity of the training: equal fingerprints, equal model but for rounding.")

    def computed_in(self, precision: str) -> "TrainSpec":
        """The same with the precision that `auto` came to."""
        return self.model_copy(update={"compute": self.compute.model_copy(update={"precision": precision})})

    @field_validator("labels")
    @classmethod
    def _different_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels repeat: {list(labels)}")
        return labels

    @model_validator(mode="after")
    def _labels_of_task(self) -> "TrainSpec":
        if self.task in ("text-classification", "multi-label-classification") and len(self.labels) < 2:
            raise ValueError(f"labels: {self.task} needs at least 2, found {list(self.labels)}")
        if self.task == "text-regression" and len(self.labels) != 1:
            raise ValueError(f"labels: text-regression needs 1, the name of the number, found {list(self.labels)}")
        return self

    @field_validator("work_dir", "output_dir")
    @classmethod
    def _local_folder(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError(f"{folder!r} is not a local folder; train into a local one and upload the finished model from there")
        return str(Path(folder).expanduser().absolute())


def load_spec(path: Path) -> TrainSpec:
    """The spec in the JSON file `path`.

    Raises:
        ValueError: the file is missing, is no JSON, or has a key or a value that is not allowed; names each one.
    """
    try:
        return TrainSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the spec {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(_one_line(problem) for problem in error.errors(include_url=False))
        raise ValueError(f"the spec {path} is not valid: {problems}") from error


def save_spec(spec: TrainSpec, path: Path) -> None:
    """Write `spec` as JSON to `path`, whose folder must exist."""
    path.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")


def spec_differences(earlier: Mapping[str, Any], spec: TrainSpec) -> list[str]:
    """What distinguishes the training of the dumped spec `earlier` from that of `spec`, one sentence each."""
    return differences(earlier, spec.model_dump(mode="json"))


def differences(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    """Which values, however deeply nested, were others in `earlier`, one sentence each; not those that have no influence on the result."""
    then, now = dict(_flat(earlier)), dict(_flat(later))
    return [
        f"{key} was {then.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and key not in WITHOUT_INFLUENCE
    ]


def _one_line(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "the whole file"
    found = "" if problem["type"] in ("missing", "json_invalid") else f" (found {problem['input']!r})"
    return f"{where}: {problem['msg']}{found}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
