"""The finished model folder: weights, tokenizer, config and `training.json`, there whole or not at all."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from trainpipe_assets.storage.objects import sha256_of
from trainpipe_assets.training.durable import whole_folder
from trainpipe_assets.training.spec import TrainSpec

RECORD, WEIGHTS = "training.json", "model.safetensors"
UNSHARDED = 2**60  # bytes: the weights are one file, so that one hash identifies them


@dataclass(frozen=True)
class FinishedModel:
    """A finished model: its folder, the SHA-256 of its weights and what `training.json` says."""

    folder: Path
    weights_sha256: str
    record: Mapping[str, Any]


def save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Put the weights and the config of `model` into `folder`."""
    model.save_pretrained(folder, max_shard_size=UNSHARDED)


def write_finished(
    folder: Path,
    model: PreTrainedModel,
    base: str,
    record: Mapping[str, Any],
    save: Callable[[PreTrainedModel, str, Path], None],
) -> FinishedModel:
    """Put `model`, by `save`, with the tokenizer of the folder `base` and `record` into the new folder `folder`."""
    with whole_folder(folder) as partial:
        save(model, base, partial)
        (partial / WEIGHTS).chmod(0o644)  # safetensors makes it readable by this user alone
        (partial / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return FinishedModel(folder, sha256_of(folder / WEIGHTS), record)


def find_finished(spec: TrainSpec) -> FinishedModel | None:
    """The model that this very training has already finished; None where its folder is not there.

    Raises:
        ValueError: something else is in its place.
    """
    folder = Path(spec.output_dir)
    if not folder.exists():
        return None
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        fingerprint = record["fingerprint"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"output_dir {folder} exists and holds no finished training; name a new folder or remove it") from error
    if fingerprint != spec.fingerprint:
        found = f"holds the training {fingerprint}, not {spec.fingerprint}"
        raise ValueError(f"output_dir {folder} {found}; name a new folder or remove it")
    return FinishedModel(folder, sha256_of(folder / WEIGHTS), record)
