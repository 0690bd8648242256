"""Token ids of the cleaned examples, by the base model's own fast tokenizer.

Uses the `tokenizers` library directly, on all cores; padding is left to the batches of training and scoring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from tokenizers import Tokenizer as FastTokenizer

from trainpipe_assets.schemas import CLEANED_FEATURES, TOKENIZED_DATASET
from trainpipe_assets.storage.artifacts import file_sha256
from trainpipe_assets.storage.increments import Changes, Increment

VERSION = "1"  # raise it when the same text would be tokenized differently: the table is then rebuilt


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with its truncation set, and the hash that identifies it."""

    fast: FastTokenizer
    digest: str
    max_length: int

    def encode(self, texts: Sequence[str]) -> pl.Series:
        """Token ids of each text as a `List(Int32)` series, special tokens included, at most `max_length` each."""
        ids = [encoding.ids for encoding in self.fast.encode_batch_fast(list(texts))]
        offsets = np.zeros(len(ids) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in ids], out=offsets[1:])
        values = np.fromiter(chain.from_iterable(ids), dtype=np.int32, count=int(offsets[-1]))
        return pl.Series("input_ids", pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)), dtype=pl.List(pl.Int32))


def load_tokenizer(folder: str, max_length: int) -> Tokenizer:
    """The fast tokenizer of the base model in `folder`.

    Raises:
        ValueError: the folder has no tokenizer.json.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise ValueError(f"the base model in {folder} has no tokenizer.json; a fast tokenizer is needed, choose a base model that has one")
    fast = FastTokenizer.from_file(str(path))
    fast.no_padding()
    fast.enable_truncation(max_length=max_length)
    return Tokenizer(fast, file_sha256(path), max_length)


def labels_of(examples: pl.LazyFrame) -> tuple[str, ...]:
    """The labels found in the cleaned examples, sorted; their positions are the label ids."""
    return tuple(examples.select(pl.col("label").unique().sort()).collect()["label"].to_list())


def tokenize(examples: pl.LazyFrame, tokenizer: Tokenizer, labels: tuple[str, ...]) -> pl.LazyFrame:
    """`examples` (schema `CLEANED_FEATURES`) as rows of `TOKENIZED_DATASET`, batch by batch as they stream by."""

    def encode(batch: pl.DataFrame) -> pl.DataFrame:
        return batch.select(
            "row_id",
            "file_id",
            "split",
            label_id=pl.col("label").replace_strict(list(labels), list(range(len(labels))), return_dtype=pl.Int32),
            input_ids=tokenizer.encode(batch["text"].to_list()),
        ).with_columns(n_tokens=pl.col("input_ids").list.len().cast(pl.Int32))

    needed = examples.select(name for name in CLEANED_FEATURES.names() if name in {"row_id", "file_id", "split", "label", "text"})
    return needed.map_batches(encode, schema=TOKENIZED_DATASET, streamable=True, predicate_pushdown=False, projection_pushdown=False)


def tokenize_changes(changes: Changes, tokenizer: Tokenizer, labels: tuple[str, ...]) -> Increment:
    """The increment of `tokenized_dataset` that `changes` of `cleaned_features` call for."""
    return changes.increment("tokenized_dataset", tokenize(changes.added, tokenizer, labels), changes.removed)
