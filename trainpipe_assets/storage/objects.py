"""One local file to one object of an object store: in parts when it is large, with its hash, and not twice.

The hash travels with the object as metadata, so that what is stored can be told from a request for its headers. Which files belong
together, and what they mean, is the caller's.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.uris import is_s3, open_filesystem

PART_BYTES = 16 << 20  # a file of two parts or more is sent in parts
PARTS_AT_ONCE = 4
_HASH = "sha256"


@dataclass(frozen=True)
class Stored:
    """An object as it lies in the store. `sha256` is None where whoever put it there did not say."""

    size: int
    sha256: str | None


def stored(uri: str) -> Stored | None:
    """The object at `uri`, by its headers alone; None where there is none."""
    filesystem, path = open_filesystem(uri)
    try:
        with explained(uri):
            if not is_s3(uri):
                return Stored(int(filesystem.info(path)["size"]), None)
            bucket, key, _ = filesystem.split_path(path)
            found = filesystem.call_s3("head_object", Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    return Stored(int(found["ContentLength"]), found["Metadata"].get(_HASH))


def send(path: Path, uri: str, sha256: str) -> bool:
    """Put the file at `uri`, where it appears whole or not at all; False where the very same is there already."""
    if stored(uri) == Stored(path.stat().st_size, sha256):
        return False
    filesystem, target = open_filesystem(uri)
    with explained(uri):
        if is_s3(uri):
            parts = {"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE}
            filesystem.put_file(str(path), target, Metadata={_HASH: sha256}, **parts)
        else:
            filesystem.put_file(str(path), target)
    return True


def sha256_of(path: Path) -> str:
    """SHA-256 of the bytes that lie in a local file now, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_sha256(uri: str) -> str:
    """SHA-256 of the object at `uri`, read from its first byte to its last."""
    filesystem, path = open_filesystem(uri)
    with explained(uri), filesystem.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
