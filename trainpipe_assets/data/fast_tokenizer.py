"""The fast tokenizer of a base model, and what its config says: read, or refused with what is wrong with the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"


def load_fast_tokenizer(folder: str) -> Tokenizer:
    """The tokenizer in `folder`, which neither pads nor cuts a text.

    Raises:
        ValueError: there is none, or what is there is none.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"the base model in {folder} has no {FILE}; a fast tokenizer is needed, choose a base model that has one")
    content = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library has no kind of its own
        raise ValueError(f"{path} is no fast tokenizer: {error}; save the base model's tokenizer anew") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_tokenizer_config(folder: str) -> dict[str, Any]:
    """What `tokenizer_config.json` in `folder` says; nothing where there is none.

    Raises:
        ValueError: it is no JSON object.
    """
    path = Path(folder) / CONFIG
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; save the base model's tokenizer anew") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not an object; save the base model's tokenizer anew")
    return found


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The special tokens of a tokenizer's config by name: eos_token, bos_token and so on."""
    named = {name: value.get("content") if isinstance(value, dict) else value for name, value in config.items() if name.endswith("_token")}
    return {name: value for name, value in named.items() if isinstance(value, str)}
