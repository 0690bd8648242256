"""What a user gets whom permissions stop: the tests may run as root, whom nothing is denied."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

NOBODY = 65534  # the user without privileges

Result = TypeVar("Result")


@contextmanager
def folder_for_everyone() -> Iterator[Path]:
    """A folder that a user without privileges may list, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def as_nobody(action: Callable[[], Result]) -> Result:
    """What `action` returns or raises for a user without privileges; it runs in a process of its own where this one is root's."""
    if os.geteuid() != 0:
        return action()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            theirs.send((action(), None))
        except (ValueError, OSError) as error:
            theirs.send((None, error))
        finally:
            os._exit(0)
    theirs.close()  # so that nothing is waited for where the child says nothing
    found, error = ours.recv()
    os.waitpid(child, 0)
    if error is not None:
        raise error
    return found  # type: ignore[no-any-return]
