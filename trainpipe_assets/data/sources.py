"""What lies in the landing folder: its files, the cheap sign of each one's version, and which have stopped growing.

Listing and opening only. What is inside a file is `readers.py`'s, what the lake already holds is `ingestion.py`'s.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from trainpipe_assets.settings import FileFormat, SourceSettings
from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.uris import absolute, is_remote, modified, open_filesystem

Compression = Literal["gz", "zst"]

FORMATS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}
IGNORED_PREFIXES = (".", "_")  # hidden files, and the markers and work folders of writers such as Spark
IGNORED_SUFFIXES = (".tmp", ".part", ".crdownload", ".swp")  # still being written, by convention


UNLISTABLE = "this folder cannot be listed: permission denied. Let its owner grant it, or move it away"
BARRED = "-barred"  # at the end of the version of a file that must not be read
UNOPENABLE = "the file cannot be opened: permission denied. Let its owner grant it"


class FileChangedWhileReading(RuntimeError):
    """A landed file is no longer the version that was listed: what was read of it must not be kept. A later run reads it anew."""


@dataclass(frozen=True, slots=True)
class LandedFile:
    """One file version in the landing folder."""

    path: str  # relative to the landing folder, with '/'
    uri: str  # absolute, to open
    size: int  # bytes
    version: str  # the cheap sign of change: size and times locally, ETag on S3
    modified: float  # epoch seconds
    problem: str | None = None  # why the file must not be read, else null


@dataclass(frozen=True, slots=True)
class FileKind:
    """How a file's bytes are to be understood."""

    format: FileFormat
    compression: Compression | None


def file_kind(name: str, settings: SourceSettings) -> FileKind | None:
    """The kind of the file called `name`, or None where neither its name nor `source.format` tells. Case does not matter."""
    path = PurePosixPath(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    suffix = path.with_suffix("").suffix if compression else path.suffix
    found = FORMATS.get(suffix) if settings.format == "auto" else settings.format
    return FileKind(found, compression) if found else None


def without_endings(name: str) -> str:
    """The `name` of a file without those of its compression and its format."""
    path = PurePosixPath(name)
    path = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return path.stem if path.suffix.lower() in FORMATS else path.name


def is_ignored(name: str) -> bool:
    """Whether a file or folder called `name` is not an arrival: hidden, a marker, or still being written."""
    return name.startswith(IGNORED_PREFIXES) or name.lower().endswith(IGNORED_SUFFIXES)


def list_landed(root: str, settings: SourceSettings) -> list[LandedFile]:
    """Every file under `root`, a folder or an `s3://` prefix, sorted by path.

    A file that must not be read (of unknown format, a link that leaves the folder, not a regular file, no permission) is listed
    with its `problem`. A link to a file within the folder is followed; one to a folder within it brings nothing new and is not. Of a
    folder below `root` that cannot be listed (`UNLISTABLE`) nobody knows what is in it.

    Raises:
        ValueError: there is no such folder or bucket, or it cannot be listed.
    """
    files = _list_remote(root) if is_remote(root) else _list_local(Path(absolute(root)))
    return sorted((_with_known_format(file, settings) for file in files), key=lambda file: file.path)


def as_landed(path: Path) -> LandedFile:
    """A file on local disk as if it had landed, wherever it is."""
    status = path.stat()
    return LandedFile(path.name, str(path.absolute()), status.st_size, _local_version(status), status.st_mtime)


def split_settled(files: list[LandedFile], now: float, settle_seconds: float) -> tuple[list[LandedFile], list[LandedFile]]:
    """`files` last modified at least `settle_seconds` before `now` (epoch seconds), and the others.

    A modification time in the future says nothing about age: such a file is among the others.
    """
    settled = [file for file in files if now - file.modified >= settle_seconds]
    return settled, [file for file in files if now - file.modified < settle_seconds]


def wait_until_settled(
    root: str, files: list[LandedFile], settings: SourceSettings, *, now: float, sleep: Callable[[float], None]
) -> tuple[list[LandedFile], list[LandedFile]]:
    """The files of a listing that are complete, and those still growing, as they are now.

    Young files are looked at once more after `source.settle_seconds`. Those that did not change are complete, those that went
    away meanwhile are in neither list, and what arrived meanwhile is left for the next listing.
    """
    settled, young = split_settled(files, now, settings.settle_seconds)
    if not young:
        return settled, []
    sleep(settings.settle_seconds)
    later = {file.path: file for file in list_landed(root, settings)}
    same = [file for file in young if file.path in later and later[file.path].version == file.version]
    growing = [later[file.path] for file in young if file.path in later and later[file.path].version != file.version]
    return sorted([*settled, *same], key=lambda file: file.path), growing


def open_landed(file: LandedFile) -> BinaryIO:
    """The bytes of `file` as landed.

    Raises:
        FileChangedWhileReading: it is not there any more.
    """
    try:
        if not is_remote(file.uri):
            return open(file.uri, "rb")
        filesystem, path = open_filesystem(file.uri)
        with explained(file.uri):
            return cast(BinaryIO, filesystem.open(path, "rb"))
    except FileNotFoundError as error:
        raise FileChangedWhileReading(f"{file.path} went away before it could be read; the next run goes on without it") from error


def check_unchanged(file: LandedFile) -> None:
    """Make sure that `file` is still the version that was listed.

    Raises:
        FileChangedWhileReading: it was replaced, written to or removed.
    """
    try:
        now = _remote_version(_info(file.uri)) if is_remote(file.uri) else _local_version(Path(file.uri).stat())
    except FileNotFoundError:
        now = "gone"
    if now != file.version:
        raise FileChangedWhileReading(
            f"{file.path} changed while it was being read (version {file.version} was listed, now {now}); "
            "nothing of it was kept. Run again once it is complete; writers should write elsewhere and rename"
        )


def _with_known_format(file: LandedFile, settings: SourceSettings) -> LandedFile:
    if file.problem or file_kind(file.path, settings):
        return file
    return replace(file, problem=unknown_format(file.path))


def unknown_format(path: str) -> str:
    """The problem of a file whose name does not tell its format."""
    ending = "".join(PurePosixPath(path).suffixes[-2:])[-40:] or "no ending"
    known = f"known are {' '.join(FORMATS)}, each also with .gz or .zst"
    return f"unknown file format ({ending}); {known}: rename or convert it, or set source.format"


def _list_local(root: Path) -> Iterator[LandedFile]:
    if not root.is_dir():
        found = "it is a file" if root.exists() else "it does not exist"
        raise ValueError(f"the landing folder {root} is not a folder: {found}. Create it, or correct source.uri or TRAINPIPE_LANDING")
    base = str(root.resolve())
    folders = [base]
    while folders:
        folder = folders.pop()
        for entry in _entries(folder):
            if isinstance(entry, str) and folder == base:
                raise ValueError(f"the landing folder {root}: {entry}")
            if isinstance(entry, str):
                file = _barred(base, folder, entry)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
                continue
            else:
                file = _local_file(base, entry)
            if file is not None:
                yield file


def _entries(folder: str) -> list[os.DirEntry[str]] | list[str]:
    """What is in `folder`, or the one problem why that cannot be told."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not is_ignored(entry.name)]
    except FileNotFoundError:
        return []
    except PermissionError:
        return [UNLISTABLE]
    return found if os.access(folder, os.X_OK) else [UNLISTABLE]  # without it the names alone are known


def _local_file(base: str, entry: os.DirEntry[str]) -> LandedFile | None:
    """The entry of a folder as a landed file; None where it went away or is a link to a folder that is listed anyway."""
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if target != base and not target.startswith(base.rstrip("/") + "/"):
            return _barred(base, entry.path, "a link that leaves the landing folder is not followed: copy the file itself here")
        try:
            Path(target).stat()
        except PermissionError:
            return _barred(base, entry.path, UNOPENABLE)
        except OSError:
            return _barred(base, entry.path, "a link to nothing: what it points to does not exist")
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        hidden = any(is_ignored(part) for part in os.path.realpath(entry.path).removeprefix(base).split("/"))
        return _barred(base, entry.path, "a link to a hidden folder is not followed: copy the folder itself here") if hidden else None
    if not stat.S_ISREG(status.st_mode):
        return _barred(base, entry.path, "not a regular file but a pipe, socket or device")
    if not os.access(entry.path, os.R_OK):
        return _barred(base, entry.path, UNOPENABLE)
    return LandedFile(_relative(base, entry.path), entry.path, status.st_size, _local_version(status), status.st_mtime)


def _barred(base: str, path: str, problem: str) -> LandedFile | None:
    """A file that must not be read. Its version says so: once the cause is gone, the version is another."""
    try:
        status = Path(path).lstat()
    except FileNotFoundError:
        return None
    return LandedFile(_relative(base, path), path, status.st_size, f"{_local_version(status)}{BARRED}", status.st_mtime, problem)


def _relative(base: str, path: str) -> str:
    """`path` below `base`; bytes that are not UTF-8 are spelled out (\\xe9), since a table can only hold text."""
    return os.fsencode(os.path.relpath(path, base)).decode("utf-8", "backslashreplace")


def _local_version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"  # the last is beyond what tools that keep times set


def _list_remote(root: str) -> Iterator[LandedFile]:
    uri = absolute(root)
    filesystem, base = open_filesystem(uri)
    try:
        with explained(uri):
            found = filesystem.find(base, detail=True)
    except FileNotFoundError as error:
        raise ValueError(f"the landing place {uri} does not exist. Create it, or correct source.uri or TRAINPIPE_LANDING") from error
    for key, info in found.items():
        relative = key.removeprefix(base).removeprefix("/")
        if relative and not key.endswith("/") and not any(is_ignored(part) for part in relative.split("/")):
            yield LandedFile(relative, f"{uri}/{relative}", int(info["size"]), _remote_version(info), modified(info))


def _info(uri: str) -> dict[str, Any]:
    filesystem, path = open_filesystem(uri)
    with explained(uri):
        return cast(dict[str, Any], filesystem.info(path))


def _remote_version(info: dict[str, Any]) -> str:
    etag = info.get("ETag")
    return str(etag).strip('"') if etag else f"{info['size']}-{modified(info)}"
