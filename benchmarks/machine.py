"""What the numbers were measured on: processor, cores, memory, system, versions, and how busy it already was."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from trainpipe_assets.training.cores import available_cores

LIBRARIES = ("torch", "transformers", "accelerate", "dagster", "polars", "deltalake", "tokenizers")
CPU_INFO = Path("/proc/cpuinfo")


def describe() -> Mapping[str, str]:
    """The machine and its software, by heading."""
    return {
        "processor": _processor(),
        "cores": f"{available_cores()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
    }


def busy_cores(seconds: float = 5.0) -> float:
    """Cores that others kept busy over the `seconds` just before."""
    return psutil.cpu_percent(interval=seconds) / 100.0 * (os.cpu_count() or 1)


def _processor() -> str:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
