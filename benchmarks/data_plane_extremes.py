"""A burst of small files, and one large file: whether landing to tokens stays within the memory of a small machine."""

import shutil
from collections.abc import Mapping

from benchmarks.data_plane import MEBIBYTE, Plane, Stage
from benchmarks.measurement import Measurement, Section

SMALL_FILES, ROWS_OF_SMALL = 10_000, 20
LARGE_BYTES = 5 * 10**9
ALLOWED = 2048  # MiB
TITLE = "Ten thousand small files, and one of 5 GB"


def measure_extremes(burst: Plane, large: Plane) -> Section:
    """All stages on each of two empty planes, whose files are removed after it."""
    n_burst = burst.land_burst(SMALL_FILES, ROWS_OF_SMALL)
    of_burst = _stages(burst)
    n_large = large.land("large.csv", _MORE_THAN_ENOUGH, seed=0, most_bytes=LARGE_BYTES)
    of_large = _stages(large)
    measurements = [
        *_memory("burst", f"{SMALL_FILES:,} files of {ROWS_OF_SMALL} rows", n_burst, of_burst),
        *_memory("large_file", f"one file of {LARGE_BYTES / 1e9:g} GB, {n_large:,} rows", n_large, of_large),
    ]
    table = [["files", "stage", "s", "rows/s", "peak MiB"]]
    for name, n_rows, stages in (("burst", n_burst, of_burst), ("large file", n_large, of_large)):
        table += [
            [name, stage, f"{took.seconds:.1f}", f"{n_rows / took.seconds:,.0f}", f"{took.peak / MEBIBYTE:,.0f}"]
            for stage, took in stages.items()
        ]
    return Section(TITLE, _READING, measurements, table)


def _stages(plane: Plane) -> dict[str, Stage]:
    try:
        return plane.stages("lake", "off")
    finally:
        shutil.rmtree(plane.folder)


def _memory(name: str, description: str, n_rows: int, stages: Mapping[str, Stage]) -> list[Measurement]:
    """Raises RuntimeError: a stage took more memory than is allowed."""
    peak = max(stage.peak for stage in stages.values()) / MEBIBYTE
    if peak > ALLOWED:
        raise RuntimeError(f"{description}: a stage took {peak:,.0f} MiB, allowed are {ALLOWED:,}")
    rate = n_rows / sum(stage.seconds for stage in stages.values())
    return [
        Measurement(f"{name}_rows", f"{description}, landing to tokens", rate, "rows/s"),
        Measurement(f"{name}_memory", f"{description}, the most memory of any stage; {ALLOWED:,} are allowed", peak, "MiB"),
    ]


_MORE_THAN_ENOUGH = 46_000_000  # rows; they are about 113 bytes long
_READING = (
    "Rows as above, near-duplicates off, the stages in processes of their own. What is asked is that both end within 2 GiB of memory; "
    "the run fails where they do not."
)
