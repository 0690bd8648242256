"""Loading models: a base model for training, a classifier with a new head, and a finished model for scoring.

Safetensors only, never code that comes with a model, float32 whatever the base was saved in.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from trainpipe_assets.training.errors import first_line
from trainpipe_assets.training.first_token import skip_unused_tokens
from trainpipe_assets.training.inference import inference
from trainpipe_assets.training.products import use_fast_products

SHOWN_WEIGHTS = 3
CAUSAL_TOLERANCE = 1e-4  # of logits in float32, between two forward passes

Problem = Literal["single_label_classification", "regression", "multi_label_classification"]


def load_classifier(base: str, labels: Sequence[str], seed: int, problem: Problem | None = None) -> PreTrainedModel:
    """The base model `base` with a head that has an output for each of `labels`, in float32 on the CPU.

    `problem` is transformers' name for what the head does, kept in the config. The head is drawn from `seed`, unless the base is a
    classifier of just these labels in this order: then it is learnt on.

    Raises:
        ValueError: `base` is no model folder, cannot be fetched, has no safetensors, is no text model, or lacks weights beside the head.
    """
    set_seed(seed)
    model, lost = _load(base, "base model", list(labels))
    _require_weights(base, [name for name in lost if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name])
    if _answers_otherwise(base, labels):
        _draw_head(model, seed)
    model.config.problem_type = problem
    return _ready(model, base)


def load_language_model(base: str, seed: int) -> PreTrainedModel:
    """The language model `base`, in float32 on the CPU; what is drawn afterwards, such as adapters, is drawn from `seed`.

    Raises:
        ValueError: `base` is no model folder, cannot be fetched, has no safetensors, lacks weights, or is no language model that tells each
            token from those before it.
    """
    model, lost = _load(base, "base model", None, AutoModelForCausalLM)
    _require_weights(base, lost)
    _require_causal(model, base)
    set_seed(seed)
    return _ready(model, base)


def load_trained_language_model(folder: str | Path) -> PreTrainedModel:
    """The finished language model in `folder`, ready to score: float32, on the CPU, dropout off.

    Raises:
        ValueError: there is no loadable model in `folder`.
    """
    _require_folder(folder)
    model, lost = _load(str(folder), "model", None, AutoModelForCausalLM)
    _require_weights(folder, lost)
    model = _ready(model, folder)
    model.train(False)
    use_fast_products(model)
    return model


def load_trained(folder: str | Path) -> PreTrainedModel:
    """The finished model in `folder`, ready to score: float32, on the CPU, dropout off. Its labels are in `label_names`.

    Raises:
        ValueError: there is no loadable model in `folder`.
    """
    _require_folder(folder)
    model, lost = _load(str(folder), "model", None)
    _require_weights(folder, lost)
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


def save_tokenizer(base: str | Path, folder: Path) -> None:
    """Put the tokenizer of the model folder `base` into `folder`, where it does what the `tokenizer.json` says by which datasets are made.

    transformers makes some kinds anew from their class and their config, which may say something else. Such a one is kept as of no
    particular kind.

    Raises:
        ValueError: there is none.
    """
    tokenizer, file = load_tokenizer(base), Path(base) / "tokenizer.json"
    read = Tokenizer.from_file(str(file))
    if _steps(tokenizer.backend_tokenizer) != _steps(read):
        tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers lacks annotations
            tokenizer_object=read,
            model_max_length=tokenizer.model_max_length,
            padding_side=tokenizer.padding_side,
            chat_template=tokenizer.chat_template,
            **tokenizer.special_tokens_map,
        )
    tokenizer.save_pretrained(folder)
    shutil.copyfile(file, folder / file.name)


def _steps(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """What it does to a text."""
    parts = json.loads(tokenizer.to_str())
    return {name: parts[name] for name in ("normalizer", "pre_tokenizer", "model", "post_processor")}


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up a batch: the tokenizer's padding, else its end of text (the attention mask hides it)."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not isinstance(found, int):
        raise ValueError(f"the tokenizer {tokenizer.name_or_path} has neither a padding nor an end-of-text token; give it a pad_token")
    return found


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that the model takes, special ones included."""
    positions = int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length))
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:  # RoBERTa and its like count from behind it
            positions = table.num_embeddings - table.padding_idx - 1
    return min(positions, tokenizer.model_max_length)


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


def _answers_otherwise(base: str, labels: Sequence[str]) -> bool:
    """Whether the model in `base` is a classifier of other labels, or of these in another order."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    is_classifier = any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    return is_classifier and [names[index] for index in sorted(names)] != list(labels)


def _draw_head(model: PreTrainedModel, seed: int) -> None:
    """Draw anew all that is not the base model: what it may have had there answered something else."""
    set_seed(seed)
    for name, module in model.named_modules():
        if name and name.split(".")[0] != model.base_model_prefix:
            for parameter in module.parameters(recurse=False):
                parameter._is_hf_initialized = False  # else it is left as it was loaded
            model._init_weights(module)  # type: ignore[no-untyped-call]  # transformers lacks annotations


def _require_weights(source: str | Path, lost: Sequence[str]) -> None:
    if lost:
        named = ", ".join(lost[:SHOWN_WEIGHTS]) + (f" and {len(lost) - SHOWN_WEIGHTS} more" if len(lost) > SHOWN_WEIGHTS else "")
        raise ValueError(
            f"the weights in {source} are not those of the model that its config.json describes: {named} would be random, as they are not "
            "there under these names or are of another shape. Save the model anew, without a wrapper around it"
        )


def _require_causal(model: PreTrainedModel, base: str) -> None:
    """Refuse a model whose answer to a token depends on what comes after it: it would be told what it is to say."""
    ids = torch.arange(8, device=model.device).remainder(vocabulary_size(model))[None]
    other = ids.clone()
    other[0, -1] = 0
    with inference(model):
        before, after = (model(input_ids=tokens).logits[:, :-1] for tokens in (ids, other))
    if not torch.allclose(before, after, rtol=CAUSAL_TOLERANCE, atol=CAUSAL_TOLERANCE):
        raise ValueError(
            f"the base model {base} ({model.config.model_type}) looks at what comes after a token, so it can be no causal-lm: name a "
            "decoder, or one whose config.json says is_decoder"
        )


def _load(
    source: str, role: str, labels: list[str] | None, kind: Any = AutoModelForSequenceClassification
) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of the weights that it has not been given."""
    names = {} if labels is None else {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    try:
        model, found = kind.from_pretrained(
            source,
            output_loading_info=True,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,
            **names,
        )
    except (OSError, ValueError, KeyError, ImportError, AssertionError, SafetensorError) as error:
        hint = "name a local folder with config.json, a tokenizer and model.safetensors, or go online once"
        if "scaled_dot_product_attention" in str(error):
            hint = "models of its kind cannot be trained here, as docs/guide/training.md says: choose another base"
        raise ValueError(f"the {role} {source} cannot be loaded: {first_line(error)}; {hint}") from error
    return model, sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
