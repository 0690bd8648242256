"""What control groups leave of memory and cores, of files as the kernel has them."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from trainpipe_assets.training import cgroups
from trainpipe_assets.training.cgroups import memory_rooms, quota_cores

UNLIMITED = 2**63 - 4096
VERSION_2 = {"memory.current": "700", "memory.stat": "anon 600\ninactive_file 50"}
VERSION_1 = {"memory.usage_in_bytes": "700", "memory.stat": "inactive_file 1\ntotal_inactive_file 50"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for the file system of control groups, and what says in which this process is."""
    monkeypatch.setattr(cgroups, "ROOT", tmp_path / "groups")
    monkeypatch.setattr(cgroups, "MEMBERSHIP", tmp_path / "membership")
    return tmp_path / "groups"


def put(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a group."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("membership", "own", "around"),
    [
        ("0::/slurm/job\n", "slurm/job", "slurm"),
        ("4:memory:/slurm/job\n3:cpu,cpuacct:/slurm/job\n0::/\n", "memory/slurm/job", "memory/slurm"),
        ("0::/docker/1f2e\n", "", "elsewhere"),  # a container, which sees its own group as the topmost
    ],
)
def test_the_memory_of_each_group_that_has_a_limit(root: Path, membership: str, own: str, around: str) -> None:
    first = own.startswith("memory")
    limit, files = ("memory.limit_in_bytes", VERSION_1) if first else ("memory.max", VERSION_2)
    cgroups.MEMBERSHIP.write_text(membership)
    assert list(memory_rooms()) == []
    put(root / own, {limit: "1000", **files})
    assert list(memory_rooms()) == [1000 - 700 + 50]
    put(root / around, {limit: "2000" if around != "elsewhere" else "1", **files})
    put(root / "of nobody", {limit: "1", **files})
    assert list(memory_rooms()) == ([350] if around == "elsewhere" else [350, 1350])
    put(root / own, {limit: f"{UNLIMITED}" if first else "max"})
    assert min(memory_rooms(), default=UNLIMITED) == (UNLIMITED if around == "elsewhere" else 1350)


@pytest.mark.parametrize(("quota", "cores"), [(None, []), (250_000, [2]), (50_000, [1])])
@pytest.mark.parametrize("version", [1, 2])
def test_the_cores_of_a_quota(root: Path, version: int, quota: int | None, cores: list[int]) -> None:
    cgroups.MEMBERSHIP.write_text("0::/job\n" if version == 2 else "3:cpu,cpuacct:/job\n")
    if version == 2:
        put(root / "job", {"cpu.max": f"{quota or 'max'} 100000"})
    else:
        put(root / "cpu" / "job", {"cpu.cfs_quota_us": f"{quota or -1}", "cpu.cfs_period_us": "100000"})
    assert list(quota_cores()) == cores


def test_a_system_without_control_groups_has_no_limits(root: Path) -> None:
    assert not root.exists()
    assert (list(memory_rooms()), list(quota_cores())) == ([], [])
