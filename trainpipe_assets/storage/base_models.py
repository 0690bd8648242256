"""Base models: from the name in a `defs.yaml` to a local folder and the hash of what is in it.

Loading the model is `training`'s. Only safetensors are accepted and no code of a model is ever run.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trainpipe_assets.storage.artifacts import file_sha256

_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "*.safetensors*")


@dataclass(frozen=True)
class BaseModel:
    """A base model on local disk; `digest` is one SHA-256 over the names and contents of the files that matter."""

    name: str
    folder: str
    digest: str


def resolve(name: str, models_folder: str, *, download: bool = True) -> BaseModel:
    """The base model `name`: a folder, a folder under `models_folder`, or else a Hugging Face hub id, by default downloaded once.

    Raises:
        ValueError: it is neither, the hub cannot be reached, or there are no safetensors in it.
    """
    candidates = [Path(name).expanduser(), Path(models_folder).expanduser() / name]
    folder = next((path.absolute() for path in candidates if path.is_dir()), None) or _from_hub(name, candidates, download)
    files = sorted({path for pattern in _FILES for path in folder.glob(pattern)})
    if not any(path.name.endswith(".safetensors") for path in files):
        raise ValueError(f"base model {name!r} in {folder} has no .safetensors file; convert it, other weight formats are not loaded")
    if not (folder / "config.json").is_file():
        raise ValueError(f"base model {name!r} in {folder} has no config.json; name the folder that holds the whole model")
    summary = "\n".join(f"{path.name} {file_sha256(path)}" for path in files)
    return BaseModel(name, str(folder), hashlib.sha256(summary.encode()).hexdigest())


def _from_hub(name: str, tried: list[Path], download: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    looked = " and ".join(str(path.absolute()) for path in tried)
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES), local_files_only=not download))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"base model {name!r} (model.base) is not a folder ({looked} do not exist) and cannot be had from the Hugging Face hub "
            f"({type(error).__name__}); correct the name, run `trainpipe samples` for the sample model, or go online once"
        ) from error
