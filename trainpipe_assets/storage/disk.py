"""What the local disk refuses, in one message that says what to do."""

import errno
import re

_ADVICE = {
    errno.ENOENT: "A file that was there is gone. If a table has lost it, delete the folder of that table, and the next run makes it anew",
    errno.EACCES: "Let whoever runs the pipeline read and write there",
    errno.EPERM: "Let whoever runs the pipeline read and write there",
    errno.EROFS: "The disk is mounted so that nothing can be written: TRAINPIPE_LAKE or TRAINPIPE_SCRATCH has to name another place",
    errno.EFBIG: "No file may grow so large here: raise the limit of this process (ulimit -f), or name a disk that holds larger ones",
    errno.ENOSPC: "The disk is full: free some space and run again, nothing is lost. `trainpipe doctor` says how much is free where",
    errno.EDQUOT: "The quota of the disk is used up: free some space and run again, nothing is lost",
}


def refused_by_disk(error: Exception) -> str | None:
    """What the local disk refused and what to do, in one message; None where `error` is something else.

    Native libraries give the number of the error in words, and so does the copying of a folder.
    """
    words = str(error).partition(" (set POLARS_VERBOSE")[0]
    named = re.search(r"(?:os error |\[Errno )(\d+)", words)
    number = error.errno if isinstance(error, OSError) and error.errno else int(named[1]) if named else None
    advice = _ADVICE.get(number) if number is not None else None
    return f"{words}. {advice}" if advice else None
