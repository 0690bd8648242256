"""From what a user asked for to the device, precision and threads that this machine has.

Nothing falls back in silence: what was asked for by name and is not there is an error.
"""

import platform
import resource
import sys
from dataclasses import dataclass
from typing import Any

import accelerate
import torch
import transformers

from trainpipe_assets.settings import ComputeSettings
from trainpipe_assets.training.cores import available_cores, threads_of_each
from trainpipe_assets.training.products import onednn_is_faster

NATIVE_BF16_ON_CPU = ("amx_bf16", "avx512_bf16")
"""CPU features that multiply bf16 natively; without one it runs some 100 times slower than float32."""


@dataclass(frozen=True)
class Compute:
    """Resolved compute of one process: `device` is cpu, cuda or mps; `precision` is float32 or bf16."""

    device: str
    precision: str
    threads: int


def resolve_compute(settings: ComputeSettings, processes_here: int = 1) -> Compute:
    """The compute of each of `processes_here` processes on this machine.

    Raises:
        ValueError: a device or precision was named that this machine does not have.
    """
    device = _resolve_device(settings.device, processes_here)
    return Compute(device, _resolve_precision(settings.precision, device), threads_of_each(settings, processes_here))


def resolve_scoring(settings: ComputeSettings) -> Compute:
    """The compute that the figures of a report come from: in float32 unless bf16 is asked for by name.

    So they are the same on every machine but for rounding, and those that the finished model gives in plain transformers.

    Raises:
        ValueError: a device or precision was named that this machine does not have.
    """
    return resolve_compute(settings.model_copy(update={"precision": "float32"}) if settings.precision == "auto" else settings)


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Names and sizes of what a training ran on, and its peak memory so far."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": _cpu_model(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "products": "oneDNN" if device.type == "cpu" and onednn_is_faster() else "torch",
        "system": f"{platform.system()} {platform.machine()}",
        "peak_memory_bytes": _peak_memory_bytes(),
        "peak_device_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    }


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "accelerate": accelerate.__version__,
    }


def _resolve_device(asked: str, processes_here: int) -> str:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    device = next(device for device, available in present.items() if available) if asked == "auto" else asked
    if not present[device]:
        found = ", ".join(device for device, available in present.items() if available)
        raise ValueError(f"compute.device is {asked!r}, but torch {torch.__version__} finds only {found} here; choose one of those or auto")
    if device == "cuda" and processes_here > torch.cuda.device_count():
        found = f"compute.processes is {processes_here}, but this machine has {torch.cuda.device_count()} GPU(s)"
        raise ValueError(f"{found}; ask for so many at most, or for compute.device 'cpu'")
    if device == "mps" and processes_here > 1:
        if asked == "auto":
            return "cpu"
        raise ValueError(f"compute.processes is {processes_here}, but mps is one device; ask for 1, or for compute.device 'cpu'")
    return device


def _resolve_precision(asked: str, device: str) -> str:
    native = _has_native_bf16(device)
    if asked == "bf16" and not native:
        raise ValueError(f"compute.precision is 'bf16', which this machine's {device} does not compute natively; choose float32 or auto")
    return "bf16" if asked == "bf16" or (asked == "auto" and native) else "float32"


def _has_native_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "cpu":
        features = torch.cpu.get_capabilities()
        return any(features.get(name) for name in NATIVE_BF16_ON_CPU)
    return False


def _cpu_model() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor() or platform.machine())


def _peak_memory_bytes() -> int:
    """Peak resident memory of this process; the system counts it in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
