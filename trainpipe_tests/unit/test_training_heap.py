"""Freed memory is kept or given back, as told; in a process of its own, whose heap nobody else uses."""

import subprocess
import sys

import pytest

MIB = 2**20
PROGRAM = """
import resource, sys
from trainpipe_assets.training import heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def use():
    blocks = [bytearray(b"x") * (1024 * size) for size in range(100, 1100)]  # 585 MiB, none of them large
    blocks.clear()
    return resident() - before

before = resident()
heap.keep_freed_memory()
kept = use()
heap.give_freed_memory_back()
given_back = resident() - before
print(kept, given_back, use())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_freed_memory_is_kept_until_it_is_to_be_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=True)
    kept, given_back, later = map(int, done.stdout.split())
    assert kept > 500 * MIB
    assert given_back < 50 * MIB
    assert later < 50 * MIB
