"""`python -m benchmarks.gemm [float32|bf16]`: the matrix-product peak of this machine in that precision, as JSON on standard output.

The yardstick for training: no loop can compute faster than its matrix products do.
"""

import json
import sys
import time

import torch

from trainpipe_assets.training.cores import available_cores

SIZES = (1024, 2048, 3072)
SECONDS_OF_EACH = 0.7


def peak_gflops(size: int, seconds: float, dtype: torch.dtype) -> float:
    """The fastest of as many square products of `size` as fit into `seconds`, in GFLOP/s (2·size³ floating-point operations each)."""
    left, right, out = (torch.rand(size, size, dtype=dtype) for _ in range(3))
    torch.mm(left, right, out=out)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        fastest = min(fastest, time.perf_counter() - started)
    return 2.0 * size**3 / fastest / 1e9


if __name__ == "__main__":
    torch.set_num_threads(available_cores())
    kind = {"float32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1] if sys.argv[1:] else "float32"]
    print(json.dumps({"gflops": max(peak_gflops(size, SECONDS_OF_EACH, kind) for size in SIZES)}))
