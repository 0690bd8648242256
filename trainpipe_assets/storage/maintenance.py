"""Housekeeping of a lake: tables of few large files, with a short way through the log, and nothing kept that nobody can ask for.

Rows never change here, and versions that somebody pins stay readable. Who pins what is for the caller to know.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from deltalake.exceptions import CommitFailedError

from trainpipe_assets.storage.data_files import WRITER
from trainpipe_assets.storage.delta import ConcurrentWrite, find, open_delta
from trainpipe_assets.storage.mirror import discard
from trainpipe_assets.storage.s3 import explained
from trainpipe_assets.storage.uris import modified, open_filesystem

_FINGERPRINT = re.compile(r"[0-9a-f]{32}")  # of a training: no other folder is touched


@dataclass(frozen=True)
class Maintained:
    """What was done to a table: files merged into how many, and data files deleted that only old versions used."""

    version: int
    files_merged: int
    files_written: int
    files_deleted: int


def maintain(uri: str, pinned: Collection[int], retention_hours: int) -> Maintained | None:
    """Compact the table at `uri`, checkpoint its log, and delete data files that no version in reach needs.

    In reach are the newest version, those that were the newest within the last `retention_hours`, and those in `pinned`. Files that
    killed writers left behind go too, once they are as old. Done again, it does nothing.

    Returns None where there is no table.

    Raises:
        ConcurrentWrite: another run committed meanwhile; the table is whole, and the next time will do.
    """
    if find(uri) is None:
        return None
    delta = open_delta(uri)
    try:
        merged = delta.optimize.compact(writer_properties=WRITER)
        if merged["numFilesAdded"]:
            delta.create_checkpoint()
        keep = [version for version in sorted(set(pinned)) if version <= delta.version()]
        vacuum = partial(delta.vacuum, retention_hours, enforce_retention_duration=False, full=True, keep_versions=keep)
        deletable = _present(uri, vacuum(dry_run=True))
        if deletable:
            vacuum(dry_run=False)
    except CommitFailedError as error:
        raise ConcurrentWrite(f"another run committed to {uri} meanwhile; its maintenance is left for the next time ({error})") from error
    return Maintained(delta.version(), merged["numFilesRemoved"], merged["numFilesAdded"], len(deletable))


def discard_abandoned(root: str, before: float, is_ours: Callable[[str], bool] = lambda _fingerprint: True) -> list[str]:
    """Remove what trainings set down below `root` that wrote nothing since `before` (epoch seconds); their fingerprints.

    Only what `is_ours`. One that is under way writes a checkpoint every few minutes, unless its settings say otherwise.
    """
    filesystem, path = open_filesystem(root)
    newest: dict[str, float] = {}
    with explained(root):
        for found, info in (filesystem.find(path, detail=True) if filesystem.exists(path) else {}).items():
            name = found.removeprefix(path).lstrip("/").partition("/")[0]
            if _FINGERPRINT.fullmatch(name):
                newest[name] = max(newest.get(name, 0.0), modified(info))
    abandoned = sorted(name for name, moment in newest.items() if moment < before and is_ours(name))
    for name in abandoned:
        discard(f"{root}/{name}")
    return abandoned


def _present(uri: str, names: Collection[str]) -> list[str]:
    """Those of the data files that are there: a vacuum also names those that it has deleted before."""
    filesystem, root = open_filesystem(uri)
    found = {path.removeprefix(f"{root}/") for path in filesystem.find(root)} if names else set()
    return [name for name in names if name in found]
