"""`python -m benchmarks.gemm [float32|bf16]`: the matrix-product peak of this machine in that precision, as JSON on standard output.

The yardstick for training: no loop can compute faster than its matrix products do.
"""

import json
import sys

import torch

from trainpipe_assets.training.cores import available_cores
from trainpipe_assets.training.efficiency import matmul_rate

SIZES = (1024, 2048, 3072)
SECONDS_OF_EACH = 0.7

if __name__ == "__main__":
    threads = available_cores()
    torch.set_num_threads(threads)
    kind = {"float32": torch.float32, "bf16": torch.bfloat16}[sys.argv[1] if sys.argv[1:] else "float32"]
    rates = [matmul_rate(torch.device("cpu"), kind, threads, SECONDS_OF_EACH, size) for size in SIZES]
    print(json.dumps({"gflops": max(rates) / 1e9}))
