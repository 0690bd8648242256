"""What several processes of one training tell each other beside gradients; alone, each answer is one's own.

Every process must ask the same questions in the same order: an answer waits for all of them, and for one that writes a model or fetches a
checkpoint alone. What is no tensor goes from host to host, so that no device waits for it.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import environment

from trainpipe_assets.training.compute import Compute

PATIENCE = timedelta(days=1)
"""Of a process with the others. torchrun ends all of them when one fails, so it only has to be longer than what one does alone."""

_ALL = torch.iinfo(torch.int64).max  # stands for a budget of None: everything at once


def join_processes(compute: Compute, *, deterministic: bool) -> Accelerator:
    """This process on its device, in contact with the others; on a GPU with kernels that are `deterministic` alone, where asked for."""
    torch.set_num_threads(compute.threads)
    with _environment_left_alone():
        accelerator = Accelerator(
            cpu=compute.device == "cpu",
            mixed_precision="bf16" if compute.precision == "bf16" else "no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
    if accelerator.device.type == "cuda":
        torch.use_deterministic_algorithms(deterministic)  # with `warn_only` the fused kernels of attention would stay as they are
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    return accelerator


@contextmanager
def _environment_left_alone() -> Iterator[None]:
    """Keep accelerate from emptying this process's environment for a moment, to learn its own defaults: threads that read it then, such as
    those of Polars and NCCL, would bring the process down."""
    emptied = environment.clear_environment
    environment.clear_environment = nullcontext
    try:
        yield
    finally:
        environment.clear_environment = emptied


def agree(accelerator: Accelerator, budget: int | None, *flags: bool) -> tuple[int | None, list[bool]]:
    """The smallest budget of all processes, and each flag, true on all if it is true on any."""
    if accelerator.num_processes == 1:
        return budget, list(flags)
    own = torch.tensor([_ALL if budget is None else budget, *(-int(flag) for flag in flags)])
    torch.distributed.all_reduce(own, torch.distributed.ReduceOp.MIN, group=_hosts())
    smallest, *raised = own.tolist()
    return None if smallest == _ALL else smallest, [flag < 0 for flag in raised]


def wait_for_all(accelerator: Accelerator) -> None:
    """Go on when every process has come here."""
    agree(accelerator, None)


@functools.cache
def _hosts() -> torch.distributed.ProcessGroup:
    """The processes as they are reached without their devices."""
    group: torch.distributed.ProcessGroup = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    return group


def together(accelerator: Accelerator, number: float) -> float:
    """The sum of a number over all processes."""
    return float(accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum"))
