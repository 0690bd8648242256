"""Linear layers in float32 by oneDNN, on processors where torch's own choice is slow.

On x86 torch multiplies float32 by Intel's MKL, which takes AVX2 on processors of others even where they have AVX-512: on a recent AMD EPYC
186 GFLOP/s, where oneDNN, which torch brings along too, does 436. Results are the same but for rounding. Only linear layers go this way,
for that is where the work is; all other precisions, devices and processors keep torch's own way.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import nn


@lru_cache
def onednn_is_faster() -> bool:
    """Whether this processor has AVX-512 and is not one that MKL uses it on: a fact of the machine, so that trainings repeat to the bit.

    Where oneDNN is turned off in torch, it is not.
    """
    found = torch.cpu.get_capabilities()
    overlooked = bool(found.get("avx512_f")) and "AMD" in str(found.get("cpu_name"))
    return overlooked and bool(torch.backends.mkldnn.enabled) and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def use_fast_products(model: nn.Module) -> None:
    """Have the linear layers of `model` multiply by oneDNN, where that is faster. Weights and names stay as they are."""
    if onednn_is_faster():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = OneDnnLinear


class OneDnnLinear(nn.Linear):
    """`nn.Linear` whose products are oneDNN's where they are in float32 on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input` [..., in] times the weights [out, in], and the bias: [..., out]."""
        plain = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if not plain or input.ndim == 1 or not input.numel() or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        rows: torch.Tensor = _Linear.apply(input.flatten(0, -2), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return rows.view(*input.shape[:-1], -1)  # what a function of its own gives as a view, some models could not change in place


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        (gradient,), (input, weight) = gradients, ctx.saved_tensors
        of_input, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight.t()) if of_input else None,
            _gradient_of_weight(gradient, input) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _gradient_of_weight(rows: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The transpose of `rows` [n, out] times `seen` [n, in], where the narrower one is transposed in memory, as oneDNN wants of one.

    The other has to lie in one piece: of rows that lie apart, oneDNN takes a hundred times as long.
    """
    if rows.shape[1] > seen.shape[1]:
        return product(seen.t(), rows.contiguous().t()).t()
    return product(rows.t(), seen.contiguous().t())


def product(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """`input` [..., in] times the transpose of `weight` [out, in], plus `bias`, by oneDNN; float32, on a CPU."""
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return result
