"""Child processes: each with a time limit, timed, and watched for the memory of its whole tree where asked."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
POLL_SECONDS = 0.05
FAMILY_SECONDS = 0.5  # between looks for new children, which cost more than reading the memory of known ones
SHOWN_CHARS = 2000


@dataclass(frozen=True)
class Sample:
    """Resident memory of a process tree, in bytes, at `at` (seconds since the epoch)."""

    at: float
    bytes: int


@dataclass(frozen=True)
class Finished:
    """A child that ended well."""

    seconds: float
    stdout: str
    memory: Sequence[Sample] = field(default_factory=tuple)


def run_python(arguments: Sequence[str], environment: Mapping[str, str], timeout: float, *, watch_memory: bool = False) -> Finished:
    """Run this interpreter with `arguments` in the root of the project, in `environment`.

    As a user's Python it keeps the bytecode of what it imports, whatever the environment says.

    Raises:
        RuntimeError: it took longer than `timeout` seconds, or failed; with the end of what it said.
    """
    command = [sys.executable, *arguments]
    environment = {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
    samples: list[Sample] = []
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        watcher = threading.Thread(target=_watch, args=(process.pid, samples), daemon=True)
        if watch_memory:
            watcher.start()
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _kill_tree(process.pid)
            raise RuntimeError(f"{' '.join(arguments)} took longer than {timeout:g} s") from None
    seconds = time.perf_counter() - started
    if watch_memory:
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed with exit code {process.returncode}: {(stderr or stdout)[-SHOWN_CHARS:]}")
    return Finished(seconds, stdout, samples)


def _watch(pid: int, samples: list[Sample]) -> None:
    """Sum up the resident memory of process `pid` and all that it started, until it ends."""
    family: list[psutil.Process] = []
    looked = 0.0
    while True:
        try:
            now = time.monotonic()
            if now - looked >= FAMILY_SECONDS:
                root, looked = psutil.Process(pid), now
                family = [root, *root.children(recursive=True)]
            samples.append(Sample(time.time(), sum(_resident(member) for member in family)))
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(POLL_SECONDS)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _kill_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        members = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    for member in members:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
