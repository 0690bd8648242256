"""Base models: from the name in a `defs.yaml` to a local folder and the hash of what is in it.

A folder on S3 and a GGUF file become local folders in the user's cache first. Loading the model is `training`'s. Only safetensors are
accepted, a GGUF file is converted to them, and no code of a model is ever run.
"""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from trainpipe_assets.storage.artifacts import file_sha256
from trainpipe_assets.storage.model_cache import cached
from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.uris import absolute, is_s3, open_filesystem

_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "chat_template.jinja", "*.safetensors*",
)  # fmt: skip
_CONVERTER = ("-m", "trainpipe_assets.training.gguf")  # a process of its own: torch must not come into this one
CONVERT_SECONDS = 3600


@dataclass(frozen=True)
class BaseModel:
    """A base model on local disk; `digest` is one SHA-256 over the names and contents of the files that matter."""

    name: str
    folder: str
    digest: str


def resolve(name: str, models_folder: str, *, download: bool = True) -> BaseModel:
    """The base model `name`: a folder, a GGUF file, either also under `models_folder`, a folder on S3, or else a Hugging Face hub id.

    What comes over the network is kept, and by default looked for anew: a folder on S3 is copied again when one of its files changes, and a
    hub id is the newest version of it.

    Raises:
        ValueError: it is none of them, the hub cannot be reached, or there are no safetensors in it.
        S3Problem: S3 refuses, and why.
        OSError: the folder, or a file in it, may not be read.
    """
    folder = _locate(name, models_folder, download)
    files = sorted(path for path in folder.iterdir() if any(fnmatch(path.name, pattern) for pattern in _FILES))
    if not any(path.name.endswith(".safetensors") for path in files):
        raise ValueError(f"base model {name!r} in {folder} has no .safetensors file; convert it, other weight formats are not loaded")
    if not (folder / "config.json").is_file():
        raise ValueError(f"base model {name!r} in {folder} has no config.json; name the folder that holds the whole model")
    summary = "\n".join(f"{path.name} {file_sha256(path)}" for path in files)
    return BaseModel(name, str(folder), hashlib.sha256(summary.encode()).hexdigest())


def _locate(name: str, models_folder: str, download: bool) -> Path:
    if is_s3(name):
        return _from_s3(absolute(name))
    candidates = [Path(name).expanduser(), Path(models_folder).expanduser() / name]
    for path in candidates:
        if path.is_dir():
            packed = sorted(path.glob("*.gguf"))
            return _from_gguf(packed[0]) if len(packed) == 1 and not (path / "config.json").is_file() else path.absolute()
        if path.is_file() and path.suffix == ".gguf":
            return _from_gguf(path)
    return _from_hub(name, candidates, download)


def _from_gguf(file: Path) -> Path:
    """The file as a folder with safetensors and a tokenizer, converted once by the training program's own code."""

    def convert(folder: Path) -> None:
        command = [sys.executable, *_CONVERTER, str(file.absolute()), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONVERT_SECONDS, check=False)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ValueError(f"the base model {file} cannot be converted: {said}")

    return cached(f"gguf-{file_sha256(file)[:32]}", convert, lambda folder: (folder / "config.json").is_file())


def _from_s3(uri: str) -> Path:
    """A copy of the files of the folder at `uri`, named by their ETags, so that another upload is another copy."""
    filesystem, root = open_filesystem(uri)
    with explained(uri):
        listed = filesystem.ls(root, detail=True) if filesystem.exists(root) else []
    names = {str(entry["name"]).rsplit("/", 1)[-1]: entry for entry in listed if entry["type"] == "file"}
    wanted = {name: entry for name, entry in sorted(names.items()) if any(fnmatch(name, pattern) for pattern in _FILES)}
    if not wanted:
        raise ValueError(
            f"base model {uri!r} (model.base) is no folder on S3 with a model in it; put config.json, tokenizer and weights there"
        )
    version = "\n".join(f"{name} {entry.get('ETag')} {entry['size']}" for name, entry in wanted.items())

    def fetch(folder: Path) -> None:
        for name in wanted:
            with explained(uri):
                filesystem.get_file(f"{root}/{name}", str(folder / name))

    key = hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()[:32]
    return cached(f"base-{key}", fetch, lambda folder: all((folder / name).is_file() for name in wanted))


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
