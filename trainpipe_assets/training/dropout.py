"""Dropout whose random bits cost little on a CPU, for any model of transformers.

torch draws a number of 64 bits from a serial generator for each value, a sixth of a training step of a small encoder; 16 bits from a
faster generator do. What is dropped, and how often, is the same; on other devices torch's own dropout is left in place.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "trainpipe_dropout"
_LEVELS = 2**16


class FastDropout(nn.Dropout):
    """`nn.Dropout` with masks from `keep_mask`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`input` with a share `p` of its values set to 0 and the others scaled up to the same mean; itself outside training."""
        return drop(input, self.p) if self.training else input


def drop(values: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout (Srivastava et al., 2014), inverted: values kept are scaled by 1 / (1 - p), so the mean stays."""
    return values * keep_mask(values.shape, p).to(values.dtype) if p > 0.0 else values


def keep_mask(shape: torch.Size, p: float) -> torch.Tensor:
    """A random mask of `shape`, float32: 0 with a probability of `p`, to within 1 / 131,072, else 1 / (share that is kept).

    It follows from the state of torch's default generator, which moves on by one number.
    """
    dropped = min(round(p * _LEVELS), _LEVELS - 1)
    count = math.prod(shape)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-count // 4))
    bits = torch.from_numpy(words.view(np.int16)[:count])
    kept = torch.empty(count)
    torch.ge(bits, dropped - _LEVELS // 2, out=kept)  # straight into float32: a quarter of the time of comparing, then converting
    return kept.mul_(_LEVELS / (_LEVELS - dropped)).view(shape)


def use_fast_dropout(model: PreTrainedModel) -> None:
    """Have `model`, on a CPU, drop with cheap masks wherever it drops."""
    dropouts = {name: module for name, module in model.named_modules() if type(module) is nn.Dropout}
    for name, module in dropouts.items():
        model.set_submodule(name, FastDropout(module.p).train(module.training))
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ATTENTION)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention as transformers calls it, with `drop` for its weights.

    All else is torch's fused kernel's: attention without dropout, and kinds that classifiers do not use.

    Args:
        module: the attention layer.
        query, key, value: shape [examples, heads, tokens, dimensions].
        attention_mask: true where a query may look; of a shape that broadcasts to [examples, heads, queries, keys].
        dropout: share of the attention weights to drop.
        scaling: factor of the scores; by default 1 / sqrt(dimensions).
        options: what other kinds of attention need.
    """
    plain = not getattr(module, "is_causal", True) and query.shape[1] == key.shape[1] and options.get("position_bias") is None
    if dropout == 0.0 or not plain or (attention_mask is not None and attention_mask.dtype != torch.bool):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options)
    scores = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)  # a padding query may see nothing
    weights = drop(torch.softmax(scores, dim=-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
