"""How many CPU cores a process may use. Imports no torch: the answer is needed before torch starts its threads."""

import os

from trainpipe_assets.settings import ComputeSettings
from trainpipe_assets.training.cgroups import quota_cores


def threads_of_each(settings: ComputeSettings, processes_here: int) -> int:
    """CPU threads of each of `processes_here` processes: those asked for, else the cores shared out evenly."""
    return settings.threads or max(1, available_cores() // processes_here)


def available_cores() -> int:
    """CPU cores that this process may use: its affinity, or the CPU quota of its control groups where that is less."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(affine, *quota_cores(), affine)
