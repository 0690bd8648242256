"""Model folders: hashed, sealed by a manifest, published whole or not at all, verified by whoever reads them.

What a model is, and what its manifest says beside the hashes, is the business of the caller.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainpipe_assets.storage.uris import absolute, is_remote, join, open_filesystem

MANIFEST = "manifest.json"


class DamagedArtifact(ValueError):
    """A model folder whose files are not those that its manifest names."""


@dataclass(frozen=True)
class Artifact:
    """A published model folder and what its manifest says."""

    uri: str
    manifest: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Identity of the training that made it."""
        return str(self.manifest["fingerprint"])

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of their ids."""
        return tuple(self.manifest["labels"])


def file_sha256(path: Path) -> str:
    """SHA-256 of a local file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write `manifest`, completed by the size and SHA-256 of every file, into `folder`; returns what was written."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    complete = {**manifest, "files": files}
    (folder / MANIFEST).write_text(json.dumps(complete, indent=2, sort_keys=True) + "\n")
    return complete


def read_manifest(uri: str) -> Artifact | None:
    """The artifact at `uri`, by its manifest alone; None where none is complete."""
    filesystem, path = open_filesystem(join(uri, MANIFEST))
    if not filesystem.exists(path):
        return None
    return Artifact(absolute(uri), json.loads(filesystem.cat_file(path)))


def publish(folder: Path, uri: str) -> Artifact:
    """Publish the sealed `folder` at `uri`; readers see all of it or nothing.

    Locally a rename makes it visible. On an object store the manifest goes up last and readers look for that. A complete
    artifact already there is left as it is: the same identity means the same content.
    """
    present = read_manifest(uri)
    if present is not None:
        verify(present)
        return present
    filesystem, target = open_filesystem(uri)
    if is_remote(uri):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
        for path in [*files, folder / MANIFEST]:
            filesystem.put_file(str(path), f"{target}/{path.relative_to(folder).as_posix()}")
    else:
        _publish_locally(folder, Path(target))
    artifact = read_manifest(uri)
    assert artifact is not None
    return artifact


def _publish_locally(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid4().hex[:8]}"
    shutil.copytree(folder, staging)
    if target.exists():  # no manifest in it: the remains of something that was never complete
        shutil.rmtree(target)
    staging.rename(target)


def verify(artifact: Artifact) -> None:
    """Check every file against the manifest.

    Raises:
        DamagedArtifact: a file is missing or differs, with its name.
    """
    filesystem, root = open_filesystem(artifact.uri)
    for name, expected in artifact.manifest["files"].items():
        path = f"{root}/{name}"
        if not filesystem.exists(path):
            raise DamagedArtifact(f"{artifact.uri}: {name} is missing; train again with force, or restore the folder from a backup")
        with filesystem.open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected["sha256"]:
            raise DamagedArtifact(
                f"{artifact.uri}: {name} has SHA-256 {found}, its manifest says {expected['sha256']}; "
                "train again with force, or restore the folder from a backup"
            )


def local_copy(artifact: Artifact) -> Path:
    """The verified artifact as a local folder: the folder itself, or a download of it into the user's cache."""
    if not is_remote(artifact.uri):
        verify(artifact)
        return Path(artifact.uri)
    local = Path(tempfile.gettempdir()) / "trainpipe-models" / artifact.fingerprint
    if not (local / MANIFEST).is_file():
        filesystem, root = open_filesystem(artifact.uri)
        staging = local.with_name(f"{local.name}.{uuid4().hex[:8]}")
        for name in [*artifact.manifest["files"], MANIFEST]:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(f"{root}/{name}", str(staging / name))
        shutil.rmtree(local, ignore_errors=True)
        staging.rename(local)
    verify(Artifact(str(local), artifact.manifest))
    return local


def list_artifacts(uri: str) -> list[Artifact]:
    """The complete artifacts directly under `uri`."""
    filesystem, root = open_filesystem(uri)
    if not filesystem.isdir(root):
        return []
    folders = sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in filesystem.ls(root, detail=False))
    found = (read_manifest(join(uri, name)) for name in folders if not name.startswith("."))
    return [artifact for artifact in found if artifact is not None]
