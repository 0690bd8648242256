"""Housekeeping of Delta tables: few large files, a short way through the log, and nothing kept that nobody can ask for.

Rows never change here, and versions that somebody pins stay readable. Who pins what is for the caller to know.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from deltalake.exceptions import CommitFailedError

from trainpipe_assets.storage.data_files import WRITER
from trainpipe_assets.storage.delta import ConcurrentWrite, find, open_delta
from trainpipe_assets.storage.uris import open_filesystem


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


def _present(uri: str, names: Collection[str]) -> list[str]:
    """Those of the data files that are there: a vacuum also names those that it has deleted before."""
    filesystem, root = open_filesystem(uri)
    found = {path.removeprefix(f"{root}/") for path in filesystem.find(root)} if names else set()
    return [name for name in names if name in found]
