"""How well a training uses its device, and what the device waits for, in numbers and in words.

Pure but for `matmul_rate`, which measures what the device could do.
"""

import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import torch

from trainpipe_assets.training.crowding import crowded
from trainpipe_assets.training.products import onednn_is_faster, product
from trainpipe_assets.training.timeline import Phase

COMPUTING = (Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)
OUTSIDE_STEPS = (Phase.START, Phase.VALIDATION, Phase.CHECKPOINT)
WORTH_SAYING = 0.1
"""Share of the time from which on a phase that does not compute is called a bottleneck."""

BOTTLENECKS: Mapping[str, tuple[str, str]] = {
    Phase.DATA: (
        "the device waited {share} of the time for data",
        "batches are made more slowly than they are computed; try one thread less (TRAINPIPE_THREADS), which leaves a core to the thread "
        "that makes them, and look at what else runs on this machine",
    ),
    Phase.TRANSFER: ("the device waited {share} of the time for copies from the host", "try a larger training.batch_tokens"),
    Phase.COMMUNICATION: (
        "the device waited {share} of the time for the other processes and their gradients",
        "try a larger training.batch_tokens, or fewer processes (TRAINPIPE_PROCESSES)",
    ),
    Phase.VALIDATION: ("validation took {share} of the time", "try a smaller split.validation"),
    Phase.CHECKPOINT: (
        "the device waited {share} of the time for checkpoints",
        "try a larger training.checkpoint_seconds, or a faster disk for TRAINPIPE_SCRATCH",
    ),
    Phase.OTHER: ("Python around the steps took {share} of the time", "try a larger training.batch_tokens"),
}
"""What is said of a phase that takes long, and what to try."""


def bottleneck(phases: Mapping[str, float]) -> tuple[str, float] | None:
    """The longest phase that does not compute, with its share of the time since the first batch; None where none is long."""
    total = sum(phases.values()) - phases[Phase.START]
    longest = max(BOTTLENECKS, key=lambda phase: phases[phase])
    share = phases[longest] / total if total else 0.0
    return (longest, share) if share >= WORTH_SAYING else None


def computing_share(phases: Mapping[str, float]) -> float:
    """Share of the time since the first batch that went into forward, backward and optimizer."""
    total = sum(phases.values()) - phases[Phase.START]
    return sum(phases[phase] for phase in COMPUTING) / total if total else 0.0


def in_short(phases: Mapping[str, float]) -> str:
    """Where the time goes, for a line of a log."""
    found = bottleneck(phases)
    waits = "" if found is None else f", {found[1]:.0%} {found[0]}"
    return f"{computing_share(phases):.0%} computing{waits}"


def verdict(phases: Mapping[str, float], utilization: float, rate: float) -> str:
    """What the device waited for, in a sentence a person can act on; `rate` in operations per second, `utilization` as a share of it."""
    if computing_share(phases) == 0.0:
        return "no step was taken by this process"
    split = ", ".join(f"{phases[phase] / sum(phases[one] for one in COMPUTING):.0%} {phase}" for phase in COMPUTING)
    use = f"at {utilization:.1%} of the {rate / 1e9:,.0f} GFLOP/s that matrix products reach here"
    computed = f"{computing_share(phases):.0%} of the time in forward, backward and optimizer ({split})"
    found = bottleneck(phases)
    if found is None:
        return f"compute-bound: {computed}, {use}"
    said, advice = BOTTLENECKS[found[0]]
    return f"{said.format(share=f'{found[1]:.0%}')}: {advice}; {computed}, {use}"


def describe_efficiency(
    phases: Mapping[str, float],
    tokens: int,
    operations: int,
    rate: float,
    price_per_hour: float | None,
    crowding: Mapping[str, float],
    earlier: float = 0.0,
) -> dict[str, Any]:
    """What `training.json` says of the use of the device.

    Args:
        phases: seconds of each phase.
        tokens: tokens trained on, without padding, on all processes.
        operations: those that the model asks of a step for each token, see `operations_per_token`.
        rate: operations per second that matrix products reach, all processes together.
        price_per_hour: price of all that this training occupies.
        crowding: what else ran on the machine, see `describe_crowding`.
        earlier: seconds spent on it before it was gone on with, of which the cost alone tells.
    """
    stepping = sum(seconds for phase, seconds in phases.items() if phase not in OUTSIDE_STEPS)
    achieved = float(operations) * tokens / stepping if stepping else 0.0
    return {
        "verdict": "; ".join(filter(None, [verdict(phases, achieved / rate, rate), crowded(crowding)])),
        **crowding,
        "phases": dict(phases),
        "computing": list(COMPUTING),
        "model_flops_per_second": achieved,
        "matmul_flops_per_second": rate,
        "model_flops_utilization": achieved / rate,
        "cost": None if price_per_hour is None else price_per_hour * (earlier + sum(phases.values())) / 3600.0,
    }


def operations_per_token(model: Any) -> int:
    """Operations of a training step for each token: 6 for a parameter that learns, 4 for a frozen one (LoRA's base model).

    2 forward, 2 backward to what comes before, and 2 for the gradient of the parameter itself, which a frozen one has not (Kaplan et al.,
    2020, section 2.1). Embedding tables are looked up, not multiplied, and a pooler or a classification head sees one token of a text:
    neither counts. The output layer of a language model does, also where it shares its weights with the embedding. The model is taken as
    a whole: work that is saved counts as done. The products inside the attention scores are left out.
    """
    tables = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    named = model.base_model.named_parameters()
    multiplied = [found for name, found in named if id(found) not in tables and not name.startswith("pooler.")]
    output = model.get_output_embeddings()
    if output is not None and all(output.weight is not found for found in multiplied):
        multiplied.append(output.weight)
    return sum((6 if found.requires_grad else 4) * int(found.numel()) for found in multiplied)


@lru_cache
def matmul_rate(device: torch.device, dtype: torch.dtype, threads: int, seconds: float = 0.2, size: int | None = None) -> float:
    """Operations per second of the fastest square matrix product within `seconds`, 2·size³ operations each, by as many `threads` as now.

    By the library that trainings use for them here.
    """
    usual, at_once = (1024, 1) if device.type == "cpu" else (4096, 10)  # a wait for the device costs more than a Python call
    size = size or usual
    numbers = torch.Generator(device).manual_seed(0)  # a GPU multiplies numbers that are all the same faster; nobody else's are drawn
    left, right, out = (torch.rand((size, size), dtype=dtype, device=device, generator=numbers) for _ in range(3))
    by_onednn = device.type == "cpu" and dtype == torch.float32 and onednn_is_faster()
    multiply = partial(product, left, right) if by_onednn else partial(torch.mm, left, right, out=out)
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or fastest == float("inf"):
        _synchronize(device)
        began = time.perf_counter()
        for _ in range(at_once):
            multiply()
        _synchronize(device)
        fastest = min(fastest, (time.perf_counter() - began) / at_once)
    return 2.0 * size**3 / fastest


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
