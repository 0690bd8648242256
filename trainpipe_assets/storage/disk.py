"""The local disk: what it refuses, in one message that says what to do, and what has to be on it before anything else is done."""

import errno
import os
import re
import shutil
from pathlib import Path

from trainpipe_assets.storage.uris import TABLES

_ADVICE = {
    errno.ENOENT: "Make it, or correct the setting or variable that names it",
    errno.EACCES: "Let whoever runs the pipeline read and write there",
    errno.EPERM: "Let whoever runs the pipeline read and write there",
    errno.EROFS: "The disk is mounted so that nothing can be written: TRAINPIPE_LAKE or TRAINPIPE_SCRATCH has to name another place",
    errno.EFBIG: "No file may grow so large here: raise the limit of this process (ulimit -f), or name a disk that holds larger ones",
    errno.ENOSPC: "The disk is full: free some space and run again, nothing is lost. `trainpipe doctor` says how much is free where",
    errno.EDQUOT: "The quota of the disk is used up: free some space and run again, nothing is lost",
}

_OF_TABLES = "A table has lost a file that was there: delete the folder of that table, and the next run makes it anew"


def refused_by_disk(error: Exception) -> str | None:
    """What the local disk refused, or what a table lost on any store, and what to do, in one message; None where `error` is something else.

    Native libraries give the number of the error in words, and so does the copying of a folder.
    """
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        error = OSError(str(error.args[0][0][-1]))  # of what a copy failed for, the first
    words = str(error).partition(" (set POLARS_VERBOSE")[0].partition(" - Server returned")[0]
    named = re.search(r"(?:os error |\[Errno )(\d+)", words)
    number = error.errno if isinstance(error, OSError) and error.errno else int(named[1]) if named else None
    lost = isinstance(error, FileNotFoundError) or number == errno.ENOENT  # an object store gives no number
    advice = _OF_TABLES if lost and f"/{TABLES}/" in words else _ADVICE.get(number) if number is not None else None
    return f"{words}. {advice}" if advice else None


def force_to_disk(folder: Path, *, what_is_in_it: bool = True) -> None:
    """Return when the names in `folder`, and all that is below it, would survive the loss of power."""
    for path in (*(sorted(folder.rglob("*")) if what_is_in_it else ()), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
