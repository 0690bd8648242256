"""What the control groups of this process leave it of memory and cores: those of a container, a batch system or systemd, versions 1 and 2.

A limit holds for all that is in the group and in those below it, so the tightest counts. Imports no torch.
"""

from collections.abc import Iterator
from pathlib import Path

ROOT, MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def memory_rooms() -> Iterator[int]:
    """Bytes below the memory limit of each group that has one; files that it caches can be dropped, so they count as room."""
    for group in _groups("memory"):
        for limit, used, cached in MEMORY_FILES:
            bound = _read(group / limit)
            if bound not in ("", "max"):
                statistics = dict(line.split() for line in _read(group / "memory.stat").splitlines())
                yield int(bound) - int(_read(group / used)) + int(statistics[cached])


def quota_cores() -> Iterator[int]:
    """Whole cores, at least one, of the CPU time that each group may take."""
    for group in _groups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota not in ("", "max", "-1"):
            yield max(1, int(quota) // int(period))


def _groups(controller: str) -> Iterator[Path]:
    """The folder of the group of this process that `controller` bounds, and of those around it.

    In a container the own group is often the topmost one that can be seen, whatever its name.
    """
    for _, controllers, path in (line.split(":", 2) for line in _read(MEMBERSHIP).splitlines()):
        if controllers == "" or controller in controllers.split(","):
            top = ROOT / controller if controllers else ROOT
            own = top / path.strip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _read(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""
