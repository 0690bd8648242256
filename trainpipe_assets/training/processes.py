"""What several processes of one training tell each other beside gradients; alone, each answer is one's own.

Every process must ask the same questions in the same order: an answer waits for all of them.
"""

import torch
from accelerate import Accelerator

from trainpipe_assets.training.compute import Compute

_ALL = torch.iinfo(torch.int64).max  # stands for a budget of None: everything at once


def join_processes(compute: Compute) -> Accelerator:
    """This process on its device, in contact with the others."""
    torch.set_num_threads(compute.threads)
    accelerator = Accelerator(cpu=compute.device == "cpu", mixed_precision="bf16" if compute.precision == "bf16" else "no")
    if accelerator.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    return accelerator


def agree(accelerator: Accelerator, budget: int | None, *flags: bool) -> tuple[int | None, list[bool]]:
    """The smallest budget of all processes, and each flag, true on all if it is true on any."""
    if accelerator.num_processes == 1:
        return budget, list(flags)
    own = torch.tensor([_ALL if budget is None else budget, *(-int(flag) for flag in flags)], device=accelerator.device)
    smallest, *raised = torch.as_tensor(accelerator.gather(own)).view(accelerator.num_processes, -1).amin(dim=0).tolist()
    return None if smallest == _ALL else smallest, [flag < 0 for flag in raised]


def together(accelerator: Accelerator, number: float) -> float:
    """The sum of a number over all processes."""
    return float(accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum"))
