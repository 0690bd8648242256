"""Whether a training fits the memory: what it needs against what is there, before the first step.

What happens when memory runs out all the same is `step.py`'s.
"""

import logging
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.distributed.fsdp import FSDPModule

from trainpipe_assets.training.cgroups import memory_rooms
from trainpipe_assets.training.distribution import local

log = logging.getLogger(__name__)

MOMENTS = 2
"""Numbers that AdamW keeps beside each parameter (Kingma and Ba, 2015, algorithm 1: the two moments), as large as the parameter."""

MEMINFO, STATM = Path("/proc/meminfo"), Path("/proc/self/statm")


@dataclass(frozen=True)
class Need:
    """Bytes that a training adds to those of its loaded model; activations are those kept from the forward for the backward pass.

    Of a model that is shared out: of this process's share.
    """

    parameters: int
    gradients: int
    moments: int
    activations_anyway: int
    activations_each: int
    """Of each further example of `longest` tokens: the worst case, as attention grows with the square of the length."""
    longest: int
    whole_at_once: int = 0
    """Of a model that is shared out: parameters and gradients of the layers that are put together at the same time."""

    def bytes_for(self, examples: int) -> int:
        """Bytes to add for micro-batches of so many examples."""
        return self.gradients + self.moments + self.whole_at_once + self.activations_anyway + examples * self.activations_each

    def examples_of(self, tokens: int) -> int:
        """How many of the longest examples a micro-batch of so many tokens has."""
        return max(1, tokens // self.longest)

    def examples_within(self, available: int) -> int:
        """How many examples fit into so many bytes; negative where not even gradients and moments do."""
        return (available - self.bytes_for(0)) // max(1, self.activations_each)

    def __str__(self) -> str:
        parts = {"parameters": self.parameters, "gradients": self.gradients, "AdamW's moments": self.moments}
        if self.whole_at_once:
            parts |= {"layers put together": self.whole_at_once}
        words = [f"{name} {_readable(size)}" for name, size in parts.items()]
        return ", ".join([*words, f"activations {_readable(self.activations_each)} for an example of {self.longest} tokens"])


def measure_need(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[int], torch.Tensor], longest: int, whole_at_once: int = 0
) -> Need:
    """What training `model` needs, by a trial.

    Args:
        model: the model, on its device.
        optimizer: an AdamW, whose moments count as needed unless they are there.
        forward: the loss of so many examples of `longest` tokens.
        longest: tokens of the longest example.
        whole_at_once: see `Need`.
    """
    sizes = [(local(parameter).nbytes, parameter.requires_grad) for parameter in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    one, two = (_kept_for_backward(model, partial(forward, count)) for count in (1, 2))
    optimizer.zero_grad()
    return Need(
        parameters=sum(size for size, _ in sizes),
        gradients=trained,
        moments=0 if optimizer.state else MOMENTS * trained,
        activations_anyway=max(0, 2 * one - two),
        activations_each=two - one,
        longest=longest,
        whole_at_once=whole_at_once,
    )


def fitting_micro_batch(need: Need, available: int, micro_batch_tokens: int | None, batch_tokens: int, advice: str = "") -> int | None:
    """`micro_batch_tokens` where it fits (None: all of a process's `batch_tokens` at once), else the largest that does.

    `advice` is what else may help where nothing does.

    Raises:
        ValueError: not even a single example fits.
    """
    examples = need.examples_of(micro_batch_tokens or batch_tokens)
    found = f"{need}; beside the parameters {_readable(available)} are there"
    if need.bytes_for(examples) <= available:
        log.info("memory: %s", found)
        return micro_batch_tokens
    fitting = need.examples_within(available)
    if fitting < 1:
        usual = "lower model.max_length, take a smaller base model or free memory"
        raise ValueError(f"the training does not fit the memory: {found}; {usual}{advice}")
    log.warning(
        "a batch does not fit the memory at once: %s. Going on in micro-batches of %d tokens, with the same effective batch "
        "(training.micro_batch_tokens: %d makes it a choice)",
        found,
        fitting * need.longest,
        fitting * need.longest,
    )
    return fitting * need.longest


def available_bytes(device: torch.device, processes_here: int) -> int:
    """Bytes that this process, one of `processes_here` on this machine, may still take on `device`."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min([*(room // processes_here for room in _rooms_of_machine()), *_rooms_of_process()])


def _rooms_of_machine() -> Iterator[int]:
    if MEMINFO.is_file():
        lines = (line.split() for line in MEMINFO.read_text().splitlines())
        yield next(int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:")
    yield from memory_rooms()


def _rooms_of_process() -> Iterator[int]:
    """Below the limits of `ulimit -v` and `ulimit -d`; a very large number where there are none."""
    yield 2**62
    if not STATM.is_file():
        return
    pages = [int(count) for count in STATM.read_text().split()]
    for kind, used in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit - used * resource.getpagesize()


def _kept_for_backward(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the tensors that `forward` keeps for a backward pass, without the parameters themselves."""
    parameters = {local(parameter).untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: list[torch.UntypedStorage] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    sizes = {storage.data_ptr(): storage.nbytes() for storage in kept}  # of a layer that was taken apart again, nothing is left
    if isinstance(model, FSDPModule):
        torch.autograd.backward(loss)  # it expects one after each forward pass
    del loss
    return sum(size for place, size in sizes.items() if place not in parameters)


def _readable(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
