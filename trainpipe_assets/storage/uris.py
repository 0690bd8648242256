"""Where things are: local folders and `s3://` prefixes under one notation.

Joins and opens URIs. What is stored there, and how, belongs to `delta.py` and `artifacts.py`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

S3 = "s3://"
TABLES, MODELS = "tables", "models"  # the two folders of a lake
CHECKPOINTS = "checkpoints"  # a third on S3, of trainings under way

# s3fs tries each request five times more, whatever botocore does below it. With both at their defaults a server that takes connections and
# never answers would be given up after six minutes.
_S3_PATIENCE = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 10, "retries": {"mode": "standard", "total_max_attempts": 2}}}


def is_remote(uri: str) -> bool:
    """Whether `uri` names an object store rather than a local folder."""
    return "://" in uri and not uri.startswith("file://")


def is_s3(uri: str) -> bool:
    """Whether `uri` is on S3."""
    return uri.startswith(S3)


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URI."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    return bucket, key


def absolute(uri: str) -> str:
    """`uri` without a trailing slash; a local one as an absolute path."""
    if is_remote(uri):
        return uri.rstrip("/")
    return str(Path(uri.removeprefix("file://")).expanduser().absolute())


def join(root: str, *parts: str) -> str:
    """`root` and `parts` joined by '/'; an absolute part starts anew, as with `pathlib`."""
    joined = root
    for part in parts:
        if part:
            joined = part if is_remote(part) or part.startswith(("/", "~")) else f"{joined.rstrip('/')}/{part}"
    return joined


def matches(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether the relative `path` matches one of `patterns`, in which `*` and `?` stay within a name and `**` are any folders."""
    return any(_pattern(pattern).match(path) for pattern in patterns)


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(glob_translate(pattern))


def lake_of(table_uri: str) -> str | None:
    """The root of the lake that the table at `table_uri` is in; None where it is in none."""
    return table_uri.rpartition(f"/{TABLES}/")[0] or None


def relocated(uri: str, root: str | None) -> str:
    """The `uri` of a table, a model or of what lies in one, in the lake at `root`: that may have been moved since it was noted."""
    at = max(uri.rfind(f"/{TABLES}/"), uri.rfind(f"/{MODELS}/"))
    return uri if at < 0 or root is None or uri.startswith(f"{root}/") else f"{root}{uri[at:]}"


def open_filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec filesystem of `uri` and the path of `uri` on it.

    Credentials and endpoint of S3 come from the environment, as the AWS tools read them. Listings are not cached: a sensor must see
    what arrived a moment ago. Only the bucket is parsed as a URI: a key may hold '::', '?' or '#'.
    """
    if not is_remote(uri):
        filesystem, path = fsspec.core.url_to_fs(absolute(uri))
        return filesystem, path
    scheme, _, rest = absolute(uri).partition("://")
    bucket, _, key = rest.partition("/")
    patience = _S3_PATIENCE if scheme == "s3" else {}
    filesystem, root = fsspec.core.url_to_fs(f"{scheme}://{bucket}", use_listings_cache=False, **patience)
    return filesystem, f"{root}/{key}" if key else root


def modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, in epoch seconds, by what fsspec says of it: each file system calls that by another name."""
    when = next((info[key] for key in ("LastModified", "mtime", "created") if info.get(key)), 0.0)
    return when.timestamp() if isinstance(when, datetime) else float(when)
