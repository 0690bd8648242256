"""Loading models: a base model for training, a classifier with a new head, and a finished model for scoring.

Safetensors only, never code that comes with a model, float32 whatever the base was saved in.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
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
PADDING_TOLERANCE = 1e-3  # of the largest logit

Problem = Literal["single_label_classification", "regression", "multi_label_classification"]


def load_classifier(base: str, labels: Sequence[str], seed: int, problem: Problem | None = None) -> PreTrainedModel:
    """The base model `base` with a head that has an output for each of `labels`, in float32 on the CPU.

    `problem` is transformers' name for what the head does, kept in the config. The head is drawn from `seed`, unless the base is a
    classifier of just these labels in this order: then it is learnt on.

    Raises:
        ValueError: `base` is no model folder, cannot be fetched, has no safetensors, is no text model, lacks weights beside the head, or
            answers otherwise where a text is padded.
    """
    set_seed(seed)
    model, lost = _load(base, "base model", list(labels))
    _require_weights(base, [name for name in lost if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name])
    if _answers_otherwise(base, labels):
        _draw_head(model, seed)
    model.config.problem_type = problem
    _ready(model, base)
    _require_padding_unseen(model, base)
    return model


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


def save_tokenizer(base: str | Path, folder: Path, padding: int | None = None) -> None:
    """Put the tokenizer of the model folder `base` into `folder`, where it does what the `tokenizer.json` says by which datasets are made.

    transformers makes some kinds anew from their class and their config, which may say something else. Such a one is kept as of no
    particular kind. With `padding`, it fills up the shorter texts of a batch at their end, with the token of that id.

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
    if padding is not None:
        tokenizer.pad_token, tokenizer.padding_side = tokenizer.convert_ids_to_tokens(padding), "right"
    tokenizer.save_pretrained(folder)
    shutil.copyfile(file, folder / file.name)


def _steps(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """What it does to a text."""
    parts = json.loads(tokenizer.to_str())
    return {name: parts[name] for name in ("normalizer", "pre_tokenizer", "model", "post_processor")}


def pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that fills up a batch: the tokenizer's padding, else the model's, else the end of a text (the attention mask hides it).

    One that stands for a piece of text is the last resort: where a tokenizer is told to pad with it, it cuts texts otherwise.
    """
    configured = getattr(model.config, "pad_token_id", None)
    special = configured if configured in tokenizer.added_tokens_decoder else None
    for found in (tokenizer.pad_token_id, special, tokenizer.eos_token_id, configured):
        if isinstance(found, int) and found in range(vocabulary_size(model)):
            return found
    raise ValueError(
        f"the tokenizer {tokenizer.name_or_path} has neither a padding nor an end-of-text token that the model knows; give it a pad_token"
    )


def longest_input(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens that the model takes, special ones included.

    Beyond the length of its pretraining, `longrope` turns the tokens of short texts by other angles where a long one is in their batch.
    """
    positions = int(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length))
    rope = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        positions = min(positions, int(rope.get("original_max_position_embeddings", positions)))
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
    """The model with weights of its own, and the padding that those who are given it will pad with."""
    for parameter in model.parameters():  # memory of its own: aligned the same in every run, never a view into a mapped file
        parameter.data = parameter.data.clone()
    model.config.pad_token_id = pad_id(model, load_tokenizer(source))
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


def _require_padding_unseen(model: PreTrainedModel, base: str) -> None:
    """Refuse a model whose answer to a text depends on how far it is padded: texts of a batch would change each other's answers.

    What decodes after it has encoded needs whole texts, and is taken at its word.
    """
    if model.config.is_encoder_decoder:
        return
    padding = int(model.config.pad_token_id)
    ids = torch.arange(12, device=model.device).add(padding + 1).remainder(vocabulary_size(model))
    short, long = ids[:5], ids[5:]
    rows = torch.stack([torch.nn.functional.pad(short, (0, 2), value=padding), long])
    seen = torch.tensor([[1] * 5 + [0] * 2, [1] * 7], device=model.device)
    with inference(model):
        together = model(input_ids=rows, attention_mask=seen).logits
        alone = torch.cat([model(input_ids=tokens[None]).logits for tokens in (short, long)])
    if (together - alone).abs().max() > PADDING_TOLERANCE * alone.abs().max():
        raise ValueError(
            f"the base model {base} ({model.config.model_type}) answers a text otherwise where it is padded to the length of another, so "
            "its numbers would depend on what is scored beside it; choose a base of another kind"
        )


def _load(
    source: str, role: str, labels: list[str] | None, kind: Any = AutoModelForSequenceClassification
) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of the weights that it has not been given."""
    names = {} if labels is None else {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    load = partial(
        kind.from_pretrained,
        source,
        output_loading_info=True,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        **names,
    )
    try:
        try:
            model, found = load(attn_implementation="sdpa")
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            model, found = load(attn_implementation="eager")  # kinds that have an attention of their own
    except (OSError, ValueError, KeyError, ImportError, AssertionError, SafetensorError) as error:
        hint = "name a local folder with config.json, a tokenizer and model.safetensors, or go online once"
        raise ValueError(f"the {role} {source} cannot be loaded: {first_line(error)}; {hint}") from error
    return model, sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
