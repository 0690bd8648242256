"""Bringing files into the landing folder: checked first, then there whole or not at all.

What any other program puts there is as welcome; this is the careful way by hand.
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import polars as pl

from trainpipe_assets.data.batches import concurrently
from trainpipe_assets.data.reading.readers import parse_file
from trainpipe_assets.data.reading.records import UnreadableFile
from trainpipe_assets.data.sources import LandedFile, as_landed, is_ignored
from trainpipe_assets.settings import SourceSettings
from trainpipe_assets.storage.objects import send, sha256_of
from trainpipe_assets.storage.uris import absolute, is_remote

COPIED_AT_ONCE = 8
CHECKED_RECORDS = 100  # a file none of whose first records can be used is refused


def land(files: Sequence[str | Path], landing_root: str | Path, settings: SourceSettings, *, force: bool = False) -> list[str]:
    """Copy `files` into the landing folder and return their URIs there, in the same order; of a folder all files below it, by path.

    All files are checked before the first is copied: each must be of a known format, have the columns that `settings` name, and
    begin with at least one usable record in a hundred. A file appears under its own name only when it is complete, and keeps its
    modification time. One of the same name is replaced; one with the same bytes is left as it is, so that nothing is ingested anew.

    Args:
        files: local files and folders; what is in a folder lands in one of its name, but for files that are never read.
        landing_root: a folder, made where missing, or an `s3://` prefix.
        settings: how the pipeline reads its source.
        force: land files even if the pipeline may not be able to read them.

    Raises:
        ValueError: a file was refused, and why. Nothing was landed.
    """
    named = dict.fromkeys(one for file in files for one in _named(Path(file)))
    _refuse_namesakes(named)
    for name, path in named:
        check_landable(path, settings, name, force=force)
    root = absolute(str(landing_root))

    def bring(one: tuple[str, Path]) -> str:
        name, path = one
        return _upload(path, f"{root}/{name}") if is_remote(root) else _copy(path, Path(root) / name)

    return list(concurrently(bring, named, COPIED_AT_ONCE))


def _refuse_namesakes(named: Iterable[tuple[str, Path]]) -> None:
    paths: dict[str, Path] = {}
    for name, path in named:
        if name in paths:
            both = f"{_shown(paths[name])} and {_shown(path)}"
            raise ValueError(f"{both} are both called {name!r}: only one of them can lie in the landing folder. Rename the other")
        paths[name] = path


def _named(path: Path) -> Iterator[tuple[str, Path]]:
    """What is to land, with its path below the landing folder."""
    if not path.is_dir():
        yield path.name, path
        return
    folder = path.resolve() if ".." in path.parts else path.absolute()  # a link has the name that it has here
    walked = list(os.walk(folder, onerror=_refuse))
    folders = sorted(Path(root, name) for root, names, _ in walked for name in names)
    linked = next((one for one in folders if one.is_symlink() and not any(map(is_ignored, one.relative_to(folder).parts))), None)
    if linked is not None:
        raise ValueError(f"{_shown(path)} cannot be landed: {_shown(linked)} is a link to a folder. Land what it points to by itself")
    below = sorted(Path(root, name).relative_to(folder) for root, _, names in walked for name in names)
    read = [file for file in below if not any(is_ignored(part) for part in file.parts)]
    if not read:
        raise ValueError(f"{path} cannot be landed: no file is in this folder that would be read")
    yield from ((f"{folder.name}/{file.as_posix()}", folder / file) for file in read)


def _shown(path: Path) -> str:
    """The path as it can be printed: the system takes names of any bytes."""
    return str(path).encode(errors="backslashreplace").decode()


def _refuse(error: OSError) -> NoReturn:
    raise ValueError(f"{error.filename} cannot be landed: {error.strerror}")


def check_landable(path: Path, settings: SourceSettings, name: str | None = None, *, force: bool = False) -> None:
    """Make sure that the pipeline will be able to read the file, by `name` where it lands; with `force`, only that it will look at it.

    Raises:
        ValueError: it will not, and why.
    """
    if not path.is_file():
        raise ValueError(f"{path} cannot be landed: {'it is not a regular file' if path.exists() else 'there is no such file'}")
    if _shown(path) != str(path):
        raise ValueError(f"{_shown(path)} cannot be landed: its name is not in UTF-8. Rename it")
    if any(is_ignored(part) for part in (name or path.name).split("/")):
        raise ValueError(f"{path} cannot be landed: files with such a name count as hidden or unfinished and are never read. Rename it")
    if force:
        return
    try:
        first = _first_records(replace(as_landed(path), path=name or path.name), settings)
    except UnreadableFile as error:
        raise ValueError(f"{path} cannot be landed: {error}. To land it anyway, force it") from error
    problems = first["problem"].drop_nulls()
    if len(problems) == len(first):
        line = first["line_number"][0]
        found = f"none of its first {len(first)} records can be used; line {line}: {problems[0]}"
        raise ValueError(f"{path} cannot be landed: {found}. To land it anyway, force it")


def _first_records(file: LandedFile, settings: SourceSettings) -> pl.DataFrame:
    parts: list[pl.DataFrame] = []
    for frame in parse_file(file, settings):
        parts.append(frame)
        if sum(len(part) for part in parts) >= CHECKED_RECORDS:
            break
    return pl.concat(parts).head(CHECKED_RECORDS)


def _copy(path: Path, target: Path) -> str:
    folder = target.parent
    if target.is_file() and sha256_of(target) == sha256_of(path):
        return str(target)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".landing-{secrets.token_hex(8)}"
    try:
        with path.open("rb") as source, temporary.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            status = os.fstat(source.fileno())
            os.utime(copy.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(copy.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(folder)
    return str(target)


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself outlast a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _upload(path: Path, uri: str) -> str:
    """Put the file at `uri`, unless the same is there. An object store shows an object only when it is whole."""
    send(path, uri, sha256_of(path))
    return uri
