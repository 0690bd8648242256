"""What a machine offers, and that nothing falls back in silence."""

import pytest
import torch
from accelerate.utils import environment

from trainpipe_assets.settings import ComputeSettings
from trainpipe_assets.training import compute
from trainpipe_assets.training.compute import Compute, describe_hardware, library_versions, resolve_compute
from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.errors import is_out_of_memory
from trainpipe_assets.training.processes import join_processes


def pretend(monkeypatch: pytest.MonkeyPatch, *, gpus: int = 0, cpu_features: tuple[str, ...] = ()) -> None:
    """Let torch report so many GPUs, with bf16, and these features of the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: gpus > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(cpu_features, True))


@pytest.mark.parametrize(
    ("gpus", "features", "device", "precision"),
    [
        (0, (), "cpu", "float32"),
        (0, ("avx512_f",), "cpu", "float32"),
        (0, ("avx512_bf16",), "cpu", "bf16"),
        (0, ("amx_bf16",), "cpu", "bf16"),
        (2, (), "cuda", "bf16"),
    ],
)
def test_auto_takes_the_best_that_is_native(
    monkeypatch: pytest.MonkeyPatch, gpus: int, features: tuple[str, ...], device: str, precision: str
) -> None:
    pretend(monkeypatch, gpus=gpus, cpu_features=features)
    assert resolve_compute(ComputeSettings(threads=3)) == Compute(device, precision, 3)


@pytest.mark.parametrize(
    ("settings", "gpus", "said"),
    [
        ({"device": "cuda"}, 0, "compute.device is 'cuda', but torch .* finds only cpu"),
        ({"device": "mps"}, 1, "compute.device is 'mps'.*finds only cuda, cpu"),
        ({"precision": "bf16"}, 0, "compute.precision is 'bf16'.*choose float32 or auto"),
        ({"device": "cuda"}, 1, r"compute.processes is 2, but this machine has 1 GPU\(s\)"),
        ({"device": "auto"}, 1, r"compute.processes is 2, but this machine has 1 GPU\(s\); ask for so many at most, or for .*'cpu'"),
    ],
)
def test_what_is_asked_for_by_name_and_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], gpus: int, said: str
) -> None:
    pretend(monkeypatch, gpus=gpus)
    with pytest.raises(ValueError, match=said):
        resolve_compute(ComputeSettings.model_validate(settings), processes_here=2)


def test_cores_are_shared_out_and_never_fewer_than_one() -> None:
    assert resolve_compute(ComputeSettings(device="cpu"), processes_here=1).threads == available_cores()
    assert resolve_compute(ComputeSettings(device="cpu"), processes_here=1000).threads == 1


def test_accelerate_does_not_empty_the_environment_that_other_threads_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def emptied() -> None:
        raise AssertionError("a thread that reads it now brings the process down")

    monkeypatch.setattr(environment, "clear_environment", emptied)
    join_processes(resolve_compute(ComputeSettings(device="cpu", precision="float32"), processes_here=1), deterministic=True)
    assert environment.clear_environment is emptied


def test_hardware_and_versions_are_described_without_blanks() -> None:
    described = describe_hardware(torch.device("cpu"))
    assert described["device"] == "cpu"
    assert described["cpu"]
    assert described["peak_memory_bytes"] > 10_000_000
    assert library_versions()["torch"] == torch.__version__


def test_out_of_memory_is_told_from_other_faults() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("an illegal memory access was encountered"))
    assert compute.NATIVE_BF16_ON_CPU == ("amx_bf16", "avx512_bf16")
