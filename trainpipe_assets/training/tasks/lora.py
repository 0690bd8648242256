"""Low-rank adapters by peft: onto a language model before training, and into its weights afterwards."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from trainpipe_assets.settings import LoraSettings

ADAPTER = "adapter"  # folder of the adapters by themselves, beside the weights that they were added to


def adapt(model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
    """`model` with adapters on its linear layers but the output; they alone learn."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted: Any = get_peft_model(model, config)
    return adapted  # type: ignore[no-any-return]  # it stands for the model that it wraps


def merge(model: Any, folder: Path) -> PreTrainedModel:
    """The model with its adapters added to its weights, and the adapters in `folder`/adapter; a model without any as it is."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return model  # type: ignore[no-any-return]
    model.save_pretrained(str(folder / ADAPTER))
    with torch.no_grad():
        merged: PreTrainedModel = model.merge_and_unload()
    return merged
