"""What becomes of memory that was freed: kept for the next step, or given back to the system, which has less in use and takes longer.

Of glibc alone, by its `mallopt`; another C library does as ever.
"""

import ctypes
from typing import Any

GROWTH = 5
"""How many times the bytes in use a heap that keeps what was freed may come to take, as blocks of ever other sizes leave gaps: measured
2.6 to 4.7 times (docs/log.md). Given back at once, it takes what is in use."""

# <malloc.h>; the values below are glibc's own where nothing is set, and the threshold no longer grows
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
_GIVEN_BACK = {_MMAP_MAX: 2**16, _MMAP_THRESHOLD: 2**17, _TRIM_THRESHOLD: 2**17, _TOP_PAD: 2**17}


def keep_freed_memory() -> None:
    """Keep it for what is allocated next: getting it back from the system, page by page, costs up to a third of the time."""
    _set(_KEPT)


def give_freed_memory_back() -> None:
    """Give it back to the system, from now on, and what was kept so far."""
    library = _set(_GIVEN_BACK)
    if library is not None:
        library.malloc_trim(0)


def _set(options: dict[int, int]) -> Any:
    """The C library, once told; None where it is another one, or another system's."""
    try:
        library = ctypes.CDLL(None)
        for option, value in options.items():
            library.mallopt(option, value)
    except (OSError, AttributeError, TypeError):
        return None
    return library
