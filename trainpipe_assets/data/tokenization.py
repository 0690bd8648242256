"""Token ids of the cleaned examples, by the base model's own fast tokenizer.

Uses the `tokenizers` library directly, on all cores, and that only once for a word that repeats (`word_tokens.py`). Padding is left to
the batches of training and scoring.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from trainpipe_assets.data.batches import mapped
from trainpipe_assets.data.class_labels import ClassLabels
from trainpipe_assets.data.fast_tokenizer import FILE, load_fast_tokenizer
from trainpipe_assets.data.labels import Labels
from trainpipe_assets.data.list_columns import list_column, offsets
from trainpipe_assets.data.word_tokens import WordTokens, flat, words_are_independent
from trainpipe_assets.schemas import CLEANED_FEATURES
from trainpipe_assets.settings import CleaningSettings
from trainpipe_assets.storage.artifacts import file_sha256
from trainpipe_assets.storage.increments import Changes, Increment

VERSION = "1"  # raise it when the same text would be tokenized differently: the table is then rebuilt

BATCH_ROWS = 25_000  # texts tokenized at a time
CLASSES = ClassLabels(CleaningSettings())


@dataclass(frozen=True)
class Tokenizer:
    """A fast tokenizer with its truncation set, and the hash that identifies it.

    `words` is None where its ids of a text are not those of the words.
    """

    fast: FastTokenizer
    digest: str
    max_length: int
    words: WordTokens | None

    def encode(self, texts: pl.Series) -> pl.Series:
        """Token ids of each text as a `List(Int32)` series, special tokens included, at most `max_length` each.

        The same as the tokenizer's own ids of each text; most are put together from those of the words.
        """
        if self.words is None:
            return self._encode_whole(texts)
        covered = self.words.covers(texts)
        found = self.words.encode(texts.filter(covered)) if covered.any() else None
        if found is None:
            return self._encode_whole(texts)
        order = np.argsort(np.concatenate([covered.arg_true().to_numpy(), (~covered).arg_true().to_numpy()]))
        return pl.concat([_as_lists(*found), self._encode_whole(texts.filter(~covered))]).gather(order)

    def _encode_whole(self, texts: pl.Series) -> pl.Series:
        return _as_lists(*flat([encoding.ids for encoding in self.fast.encode_batch_fast(texts.to_list())]))


def _as_lists(ids: NDArray[np.int32], lengths: NDArray[np.int64]) -> pl.Series:
    return list_column("input_ids", ids, offsets(lengths), pl.List(pl.Int32))


def load_tokenizer(folder: str, max_length: int) -> Tokenizer:
    """The fast tokenizer of the base model in `folder`.

    Raises:
        ValueError: the folder has no tokenizer.json that can be read.
    """
    fast, uncut = (load_fast_tokenizer(folder) for _ in range(2))
    fast.enable_truncation(max_length=max_length)
    words = WordTokens(uncut, max_length) if words_are_independent(uncut) else None
    return Tokenizer(fast, file_sha256(Path(folder) / FILE), max_length, words)


def tokenize(examples: pl.LazyFrame, tokenizer: Tokenizer, names: tuple[str, ...], labels: Labels = CLASSES) -> pl.LazyFrame:
    """`examples` (schema `CLEANED_FEATURES`) as rows of `labels.schema`, batch by batch as they stream by; `names` are the labels'."""

    def encode(batch: pl.DataFrame) -> pl.DataFrame:
        return batch.select("row_id", "file_id", "split", labels.answer(names), input_ids=tokenizer.encode(batch["text"])).with_columns(
            n_tokens=pl.col("input_ids").list.len().cast(pl.Int32)
        )

    needed = examples.select(name for name in CLEANED_FEATURES.names() if name in {"row_id", "file_id", "split", "label", "text"})
    return mapped(needed, encode, labels.schema, BATCH_ROWS, threads=True)


def tokenize_changes(changes: Changes, tokenizer: Tokenizer, names: tuple[str, ...], labels: Labels = CLASSES) -> Increment:
    """The increment of `tokenized_dataset` that `changes` of `cleaned_features` call for."""
    return changes.increment("tokenized_dataset", tokenize(changes.added, tokenizer, names, labels), changes.removed)
