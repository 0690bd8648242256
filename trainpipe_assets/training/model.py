"""Loading models: a base model for training, a classifier with a new head, and a finished model for scoring.

Safetensors only, never code that comes with a model, float32 whatever the base was saved in.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainpipe_assets.training.errors import first_line
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.products import use_fast_products

Problem = Literal["single_label_classification", "regression", "multi_label_classification"]


def load_classifier(base: str, labels: Sequence[str], seed: int, problem: Problem | None = None) -> PreTrainedModel:
    """The base model `base` with a head that has an output for each of `labels`, in float32 on the CPU.

    `problem` is transformers' name for what the head does, kept in the config. A head that the base does not have, or has for another
    number of labels, is drawn from `seed`.

    Raises:
        ValueError: `base` is no model folder, cannot be fetched, has no safetensors, or is no text model.
    """
    set_seed(seed)
    model = _ready(_load(base, "base model", list(labels)), base)
    model.config.problem_type = problem
    return model


def load_language_model(base: str, seed: int) -> PreTrainedModel:
    """The language model `base`, in float32 on the CPU; what is drawn afterwards, such as adapters, is drawn from `seed`.

    Raises:
        ValueError: `base` is no model folder, cannot be fetched, has no safetensors, or is no language model.
    """
    model = _ready(_load(base, "base model", None, AutoModelForCausalLM), base)
    set_seed(seed)
    return model


def load_trained_language_model(folder: str | Path) -> PreTrainedModel:
    """The finished language model in `folder`, ready to score: float32, on the CPU, dropout off.

    Raises:
        ValueError: there is no loadable model in `folder`.
    """
    _require_folder(folder)
    model = _ready(_load(str(folder), "model", None, AutoModelForCausalLM), folder)
    model.train(False)
    use_fast_products(model)
    return model


def load_trained(folder: str | Path) -> PreTrainedModel:
    """The finished model in `folder`, ready to score: float32, on the CPU, dropout off. Its labels are in `label_names`.

    Raises:
        ValueError: there is no loadable model in `folder`.
    """
    _require_folder(folder)
    model = _load(str(folder), "model", None)
    model.train(False)
    skip_unused_tokens(model)
    use_fast_products(model)
    return model


def _require_folder(folder: str | Path) -> None:
    if not Path(folder).is_dir():
        raise ValueError(f"there is no model folder {folder}; train a model first")


def load_tokenizer(base: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the model folder or hub id `base`.

    Raises:
        ValueError: there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(base), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"the tokenizer of {base} cannot be loaded: {first_line(error)}") from error
    return tokenizer


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up a batch: the tokenizer's padding, else its end of text (the attention mask hides it)."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not isinstance(found, int):
        raise ValueError(f"the tokenizer {tokenizer.name_or_path} has neither a padding nor an end-of-text token; give it a pad_token")
    return found


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that the model takes, special ones included."""
    return min(int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)), tokenizer.model_max_length)


def label_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Names of the labels in the order of their ids."""
    names = {int(index): name for index, name in (model.config.id2label or {}).items()}
    return tuple(names[index] for index in range(len(names)))


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many different tokens the model knows."""
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    return embeddings.num_embeddings


def frozen_digest(model: PreTrainedModel) -> str:
    """SHA-256 of the parameters of `model`, on the CPU, that do not learn."""
    content = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            content.update(name.encode())
            content.update(parameter.detach().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest()


def _ready(model: PreTrainedModel, source: str | Path) -> PreTrainedModel:
    for parameter in model.parameters():  # memory of its own: aligned the same in every run, never a view into a mapped file
        parameter.data = parameter.data.clone()
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id(load_tokenizer(source))
    return model


def _load(source: str, role: str, labels: list[str] | None, kind: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    names = {} if labels is None else {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    try:
        model: PreTrainedModel = kind.from_pretrained(
            source,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=labels is not None,
            **names,
        )
    except (OSError, ValueError, KeyError) as error:
        hint = "name a local folder with config.json, a tokenizer and model.safetensors, or go online once"
        raise ValueError(f"the {role} {source} cannot be loaded: {first_line(error)}; {hint}") from error
    return model
