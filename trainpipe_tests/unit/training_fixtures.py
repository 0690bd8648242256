"""A BERT of a few thousand weights, a dataset that it can learn, and specs that train it in a second."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, set_seed

from trainpipe_assets.schemas import TOKENIZED_DATASET
from trainpipe_assets.training.spec import TrainSpec
from trainpipe_assets.training.tasks.examples import Examples, from_frame

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = 64
LONGEST = 32
LABELS = ("negative", "positive")


def write_tiny_base(folder: Path, dropout: float = 0.1, longest: int = LONGEST) -> Path:
    """A base model without a classification head, of 2 layers and 32 dimensions, with its tokenizer; it takes `longest` tokens."""
    words = [*SPECIAL, *(f"w{index}" for index in range(len(SPECIAL), VOCABULARY))]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=longest
    ).save_pretrained(folder)
    set_seed(1)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=longest,
        initializer_range=0.2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def make_rows(train: int = 120, validation: int = 30, test: int = 10, seed: int = 0) -> pl.DataFrame:
    """Rows of a tokenized dataset: the label says whether words of the upper half of the vocabulary prevail."""
    random = np.random.default_rng(seed)
    count = train + validation + test
    lengths = random.integers(4, LONGEST, count)
    label_ids = random.integers(0, 2, count)
    halves = [random.random(length - 2) < (0.85 if label else 0.15) for length, label in zip(lengths, label_ids, strict=True)]
    words = [np.where(half, random.integers(34, 64, len(half)), random.integers(4, 34, len(half))) for half in halves]
    return pl.DataFrame(
        {
            "row_id": [f"row-{index:04d}" for index in range(count)],
            "file_id": "file",
            "split": ["train"] * train + ["validation"] * validation + ["test"] * test,
            "label_id": label_ids,
            "input_ids": [[2, *word, 3] for word in words],
            "n_tokens": lengths,
        },
        schema=TOKENIZED_DATASET,
    )


def make_examples(count: int = 40) -> Examples:
    """Examples in memory, in the order of their ids."""
    return from_frame(make_rows(count, 0, 0))


def write_dataset(folder: Path, rows: pl.DataFrame | None = None) -> Path:
    """A Delta table with `rows`, at version 0."""
    (make_rows() if rows is None else rows).write_delta(str(folder))
    return folder


def make_spec(root: Path, **changes: Any) -> TrainSpec:
    """A spec over `root`/base and `root`/dataset that saves a checkpoint at every step; `changes` replace whole fields."""
    training = {"epochs": 2, "batch_tokens": 128, "learning_rate": 0.01, "checkpoint_seconds": 0, "early_stopping_patience": 5}
    fields = {
        "dataset_uri": str(root / "dataset"),
        "dataset_version": 0,
        "labels": LABELS,
        "base_model": str(root / "base"),
        "compute": {"device": "cpu", "precision": "float32", "threads": 1},
        "work_dir": str(root / "work"),
        "output_dir": str(root / "model"),
        "fingerprint": "tiny",
        **changes,
        "model": {"max_length": LONGEST, **changes.get("model", {})},
        "training": {**training, **changes.get("training", {})},
    }
    return TrainSpec.model_validate(fields)
