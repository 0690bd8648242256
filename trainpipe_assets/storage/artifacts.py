"""Model folders: hashed, sealed by a manifest, published whole or not at all, verified by whoever reads them.

What a model is, and what its manifest says beside the hashes, is the business of the caller.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainpipe_assets.storage.disk import force_to_disk
from trainpipe_assets.storage.model_cache import cached
from trainpipe_assets.storage.objects import read_sha256, send, sha256_of, stored
from trainpipe_assets.storage.s3 import explained
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

    @property
    def task(self) -> str:
        """What it was trained for."""
        return str(self.manifest.get("task", "text-classification"))

    def reads_like(self, other: "Artifact") -> bool:
        """Whether it has the same tokens for the same text as `other`, and is for the same task."""
        files = (artifact.manifest["files"].get("tokenizer.json", {}).get("sha256") for artifact in (self, other))
        return self.task == other.task and len(set(files)) == 1


def file_sha256(path: Path) -> str:
    """SHA-256 of a local file, in hexadecimal; read once by a process for as long as its size, times and inode stay."""
    status = path.stat()
    return _file_sha256(path, (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


@lru_cache(maxsize=256)
def _file_sha256(path: Path, _version: tuple[int, ...]) -> str:
    return sha256_of(path)


def seal(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Write `manifest`, completed by the size and SHA-256 of every file, into `folder`; returns what was written."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    complete = {**manifest, "files": files}
    (folder / MANIFEST).write_text(_as_json(complete))
    return complete


def manifest_of(folder: Path) -> dict[str, Any]:
    """What `seal` wrote into the local `folder`."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return manifest


def _as_json(manifest: Mapping[str, Any]) -> str:
    return json.dumps(dict(manifest), indent=2, sort_keys=True) + "\n"


def read_manifest(uri: str) -> Artifact | None:
    """The artifact at `uri`, by its manifest alone; None where none is complete.

    Raises:
        DamagedArtifact: the manifest is none.
        S3Problem: S3 refuses, and why.
    """
    filesystem, path = open_filesystem(join(uri, MANIFEST))
    try:
        with explained(uri):
            content = filesystem.cat_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or "files" not in manifest:
        raise DamagedArtifact(f"{absolute(uri)}: its {MANIFEST} is cut off, or not one of trainpipe's; {_REMEDY}")
    return Artifact(absolute(uri), manifest)


def publish(folder: Path, uri: str) -> Artifact:
    """Publish the sealed `folder` at `uri`; readers see all of it or nothing.

    Locally a rename makes it visible. On an object store the manifest goes up last and readers look for that; a file that an attempt
    before has sent is not sent again. A complete artifact already there is left as it is: the same identity means the same content.

    Raises:
        DamagedArtifact: what is there is not what its manifest says.
        S3Problem: S3 refuses, and why.
    """
    present = read_manifest(uri)
    if present is not None:
        verify(present)
        return present
    if is_remote(uri):
        _publish_remotely(folder, absolute(uri))
    else:
        _publish_locally(folder, Path(absolute(uri)))
    artifact = read_manifest(uri)
    assert artifact is not None
    if is_remote(uri):
        verify(artifact)
    return artifact


def _publish_remotely(folder: Path, uri: str) -> None:
    manifest = manifest_of(folder)
    for name, entry in manifest["files"].items():
        send(folder / name, f"{uri}/{name}", entry["sha256"])
    verify(Artifact(uri, manifest))
    send(folder / MANIFEST, f"{uri}/{MANIFEST}", file_sha256(folder / MANIFEST))


def _publish_locally(folder: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f".{target.name}.{uuid4().hex[:8]}"
    try:
        shutil.copytree(folder, staging)
        force_to_disk(staging)
        try:
            staging.rename(target)
        except OSError:
            if (target / MANIFEST).is_file():  # another run has published it meanwhile
                return
            shutil.rmtree(target)  # the remains of something that was never complete
            staging.rename(target)
        force_to_disk(target.parent, what_is_in_it=False)
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # where the disk was full, say


def verify(artifact: Artifact) -> None:
    """Check every file against the manifest: its size and SHA-256, the latter on S3 as noted when it was put there, where it was.

    Raises:
        DamagedArtifact: a file is missing or differs, with its name.
        S3Problem: S3 refuses, and why.
    """
    for name, expected in artifact.manifest["files"].items():
        uri = f"{artifact.uri}/{name}"
        found = stored(uri)
        if found is None:
            raise DamagedArtifact(f"{artifact.uri}: {name} is missing; {_REMEDY}")
        read = found.sha256 or (read_sha256(uri) if is_remote(uri) else file_sha256(Path(uri)))
        _require_same(artifact, name, read, expected["sha256"])


def has_all_files(artifact: Artifact) -> bool:
    """Whether every file of the manifest is there in its size: what can be told without reading them."""
    found = {name: stored(f"{artifact.uri}/{name}") for name in artifact.manifest["files"]}
    return all(one is not None and one.size == artifact.manifest["files"][name]["bytes"] for name, one in found.items())


_REMEDY = "delete this folder and run again, which trains the model anew, or restore it from a backup"


def _require_same(artifact: Artifact, name: str, found: str, expected: str) -> None:
    if found != expected:
        raise DamagedArtifact(f"{artifact.uri}: {name} has SHA-256 {found}, its manifest says {expected}; {_REMEDY}")


def read_file(artifact: Artifact, name: str) -> bytes:
    """One small file of a published artifact, checked against the manifest.

    Raises:
        DamagedArtifact: it is missing or is not the one that the manifest names.
        S3Problem: S3 refuses, and why.
    """
    filesystem, path = open_filesystem(f"{artifact.uri}/{name}")
    try:
        with explained(artifact.uri):
            content: bytes = filesystem.cat_file(path)
    except FileNotFoundError as error:
        raise DamagedArtifact(f"{artifact.uri}: {name} is missing; {_REMEDY}") from error
    _require_same(artifact, name, hashlib.sha256(content).hexdigest(), artifact.manifest["files"][name]["sha256"])
    return content


def local_copy(artifact: Artifact) -> Path:
    """The verified artifact as a local folder: the folder itself, or a download of it into the user's cache.

    Raises:
        DamagedArtifact: a file is missing or is not the one that the manifest names.
        S3Problem: S3 refuses, and why.
    """
    if not is_remote(artifact.uri):
        verify(artifact)
        return Path(artifact.uri)
    name = hashlib.sha256(_as_json(artifact.manifest).encode()).hexdigest()[:32]
    return cached(name, lambda folder: download(artifact, folder), lambda folder: _is_whole(artifact, folder))


def download(artifact: Artifact, folder: Path) -> None:
    """Copy the artifact into `folder`, its manifest last.

    Raises:
        DamagedArtifact: a file is missing or is not the one that the manifest names.
        S3Problem: S3 refuses, and why.
    """
    filesystem, root = open_filesystem(artifact.uri)
    for name, expected in artifact.manifest["files"].items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with explained(artifact.uri):
                filesystem.get_file(f"{root}/{name}", str(target))
        except FileNotFoundError as error:
            raise DamagedArtifact(f"{artifact.uri}: {name} is missing; {_REMEDY}") from error
        _require_same(artifact, name, file_sha256(target), expected["sha256"])
    (folder / MANIFEST).write_text(_as_json(artifact.manifest))


def _is_whole(artifact: Artifact, folder: Path) -> bool:
    try:
        verify(Artifact(str(folder), artifact.manifest))
    except DamagedArtifact:
        return False
    return True


def is_whole(folder: Path) -> bool:
    """Whether the local `folder` holds exactly the bytes that were sealed."""
    try:
        artifact = read_manifest(str(folder))
        return artifact is not None and _is_whole(artifact, folder)
    except (ValueError, KeyError):  # a manifest that is no JSON, or another program's
        return False


def list_artifacts(uri: str) -> list[Artifact]:
    """The complete artifacts directly under `uri`."""
    filesystem, root = open_filesystem(uri)
    with explained(uri):
        try:
            folders = sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in filesystem.ls(root, detail=False))
        except (FileNotFoundError, NotADirectoryError):  # but not where it may not be looked into
            return []
    found = (read_manifest(join(uri, name)) for name in folders if not name.startswith("."))
    return [artifact for artifact in found if artifact is not None]
