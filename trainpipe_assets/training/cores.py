"""How many CPU cores a process may use. Imports no torch: the answer is needed before torch starts its threads."""

import os
from pathlib import Path

from trainpipe_assets.settings import ComputeSettings

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def threads_of_each(settings: ComputeSettings, processes_here: int) -> int:
    """CPU threads of each of `processes_here` processes: those asked for, else the cores shared out evenly."""
    return settings.threads or max(1, available_cores() // processes_here)


def available_cores() -> int:
    """CPU cores that this process may use: its affinity, or its container's CPU quota where that is less."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affine, quota_cores(CPU_QUOTA) or affine))


def quota_cores(cpu_max: Path) -> int | None:
    """Whole cores in a cgroup v2 `cpu.max` file ("quota period" in microseconds, or "max period"); None without a limit."""
    if not cpu_max.is_file():
        return None
    quota, period = cpu_max.read_text().split()
    return None if quota == "max" else max(1, int(quota) // int(period))
