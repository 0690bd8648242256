"""No work that cannot reach the result: the last layer of a classifier that looks at the first token alone.

There the queries, the feed-forward part and the norms of all other tokens change nothing, forward or backward: at six layers a seventh
of the arithmetic. Models are left as they are unless their layers are built like BERT's and a trial shows that nothing changes.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from trainpipe_assets.training.inference import inference

LIKE_BERT = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie", "data2vec-text", "roberta-prelayernorm"})
_TRIAL_TOLERANCE = 1e-5  # of logits of the order of 1 in float32


def skip_unused_tokens(model: PreTrainedModel) -> bool:
    """Have the last encoder layer of `model` compute its first token only; whether that could be done.

    It is where the model is of a kind built like BERT, and gives the same logits as before for a trial batch.
    """
    layer = _last_layer(model)
    if layer is None:
        return False
    before = _trial(model)
    layer.forward = partial(_first_token, layer)
    if torch.allclose(before, _trial(model), rtol=_TRIAL_TOLERANCE, atol=_TRIAL_TOLERANCE):
        return True
    del layer.forward
    return False


def _last_layer(model: PreTrainedModel) -> Any | None:
    """The last layer of an encoder like BERT's; None for other models."""
    config = model.config
    if config.model_type not in LIKE_BERT or config.is_decoder or config.add_cross_attention:
        return None
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
    return layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None


def _first_token(
    layer: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_: Any, **options: Any
) -> torch.Tensor:
    """What the encoder layer `layer` gives for the first token: shape [examples, 1, dimensions]."""
    attention, first = layer.attention.self, hidden_states[:, :1]
    query, key, value = (
        project(states).unflatten(-1, (-1, attention.attention_head_size)).transpose(1, 2)
        for project, states in ((attention.query, first), (attention.key, hidden_states), (attention.value, hidden_states))
    )
    attend = ALL_ATTENTION_FUNCTIONS[attention.config._attn_implementation]
    seen = None if attention_mask is None else attention_mask[:, :, :1]
    dropout = attention.dropout.p if attention.training else 0.0
    attended, _weights = attend(attention, query, key, value, seen, dropout=dropout, scaling=attention.scaling)
    output: torch.Tensor = layer.feed_forward_chunk(layer.attention.output(attended.flatten(2), first))
    return output


def _trial(model: PreTrainedModel) -> torch.Tensor:
    """Logits for two short texts of different lengths."""
    ids = torch.arange(12, device=model.device).remainder(model.config.vocab_size).view(2, 6)
    seen = torch.tensor([[1] * 6, [1] * 4 + [0] * 2], device=model.device)
    with inference(model):
        logits: torch.Tensor = model(input_ids=ids, attention_mask=seen).logits
    return logits
