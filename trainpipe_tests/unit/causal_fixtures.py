"""A language model of a few thousand weights, documents that it can learn, and specs that train it in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from transformers import AutoConfig, AutoModelForCausalLM, set_seed

from trainpipe_assets.schemas import TOKENIZED_DOCUMENTS
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_tests.unit.test_documents import write_tokenizer
from trainpipe_tests.unit.training_fixtures import make_spec, write_dataset

VOCABULARY = 260  # bytes and special tokens
LONGEST = 64


def write_tiny_language_model(folder: Path, kind: str = "llama", **config: Any) -> Path:
    """A language model of 2 layers and 32 dimensions with shared keys, and a byte-level tokenizer."""
    write_tokenizer(folder)
    set_seed(1)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    limits = {"vocab_size": VOCABULARY, "max_position_embeddings": LONGEST, "initializer_range": 0.2, "pad_token_id": 0}
    chosen = AutoConfig.for_model(kind, **{**shape, **limits, "tie_word_embeddings": True, **config})
    AutoModelForCausalLM.from_config(chosen).save_pretrained(folder)
    return folder


def make_documents(train: int = 60, validation: int = 20, test: int = 10, seed: int = 0) -> pl.DataFrame:
    """Documents that count upwards from a random byte; the first quarter of each is a prompt."""
    random = np.random.default_rng(seed)
    count = train + validation + test
    lengths = random.integers(2, 150, count)
    rows = [((start + np.arange(length)) % 200).tolist() for start, length in zip(random.integers(0, 200, count), lengths, strict=True)]
    return pl.DataFrame(
        {
            "row_id": [f"row-{index:04d}" for index in range(count)],
            "file_id": "file",
            "split": ["train"] * train + ["validation"] * validation + ["test"] * test,
            "input_ids": rows,
            "loss_mask": [[place >= length // 4 for place in range(length)] for length in lengths],
            "n_tokens": lengths,
        },
        schema=TOKENIZED_DOCUMENTS,
    )


def make_causal_spec(root: Path, **changes: Any) -> TrainSpec:
    """A spec over `root`/base and `root`/dataset, which are made where missing."""
    if not (root / "base").exists():
        write_tiny_language_model(root / "base")
        write_dataset(root / "dataset", make_documents())
    model = {"max_length": 32, **changes.pop("model", {})}
    return make_spec(root, task="causal-lm", labels=(), model=model, **changes)
