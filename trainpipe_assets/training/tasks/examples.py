"""The tokenized examples of one split: loaded once, checked once.

Where they come from is `storage/delta.py`'s business; which of them share a batch is `batching.py`'s. Documents of a language model are in
`pieces.py`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.schemas import TOKENIZED_DATASET
from trainpipe_assets.storage import delta
from trainpipe_assets.training.sequences import Sequences


@dataclass(frozen=True)
class Examples(Sequences):
    """Sequences, each with an answer."""

    labels: NDArray[Any]
    """Label ids, or what else the task learns, as its loss takes it, shape [n]."""

    @classmethod
    def of(cls, rows: pl.DataFrame, labels: NDArray[Any]) -> "Examples":
        """Examples from the columns row_id and input_ids of `rows`, in the order of `rows`, with their `labels`."""
        lengths = rows["input_ids"].list.len().to_numpy()
        return Examples(
            row_ids=rows["row_id"],
            labels=labels,
            tokens=rows["input_ids"].explode(empty_as_null=False).cast(pl.Int32).to_numpy(),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        )

    def digest(self) -> str:
        """SHA-256 of everything here: equal for the same examples in any table, version and order of storage."""
        content = hashlib.sha256("\n".join(self.row_ids).encode())
        for values in (self.labels, self.tokens, self.offsets):
            content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()


def load_examples(uri: str, version: int, split: str) -> Examples:
    """The examples of `split`, with label ids, in version `version` of the tokenized dataset at `uri`.

    Raises:
        ValueError: a column is missing, the split is empty, or an example has no label, no tokens or a repeated row_id.
    """
    return from_frame(load_answered(uri, version, split, "label_id", TOKENIZED_DATASET))


def load_answered(uri: str, version: int, split: str, answer: str, schema: pl.Schema) -> pl.DataFrame:
    """The rows of `split`, each with tokens and an `answer`, in version `version` of the tokenized dataset, which should have `schema`.

    Raises:
        ValueError: a column is missing, the split is empty, or an example has no answer, no tokens or a repeated row_id.
    """
    rows = load_rows(uri, version, split, ("row_id", "split", answer, "input_ids"), schema)
    unusable = rows.filter(pl.any_horizontal(pl.col("row_id", answer, "input_ids").is_null()) | (pl.col("input_ids").list.len() == 0))
    if not unusable.is_empty():
        where, first = f"{uri} version {version}, split {split!r}", unusable["row_id"][0]
        raise ValueError(f"{where}: {len(unusable)} rows lack a label or tokens, the first is {first!r}; rebuild the tokenized dataset")
    return rows


def load_rows(uri: str, version: int, split: str, columns: Sequence[str], schema: pl.Schema) -> pl.DataFrame:
    """The `columns` of `split` in version `version` of the table at `uri`, which should have `schema`, in the order of row_id.

    Raises:
        ValueError: a column is missing, the split is empty, or a row_id is repeated.
    """
    table, where = delta.scan(uri, version), f"{uri} version {version}"
    missing = [name for name in columns if name not in table.collect_schema().names()]
    if missing:
        raise ValueError(f"{where} has no column {missing}; a tokenized dataset has {schema.names()}")
    rows = table.filter(pl.col("split") == split).select(columns).collect().sort("row_id")
    if rows.is_empty():
        raise ValueError(f"{where} has no rows in split {split!r}; land more data or change the split's share")
    repeated = rows.filter(pl.col("row_id") == pl.col("row_id").shift(1))
    if not repeated.is_empty():
        found = f"row_id {repeated['row_id'][0]!r} occurs more than once"
        raise ValueError(f"{where}, split {split!r}: {found}; rebuild the tokenized dataset")
    return rows


def from_frame(rows: pl.DataFrame) -> Examples:
    """Examples from the columns row_id, label_id and input_ids of `rows`, in the order of `rows`."""
    return Examples.of(rows, rows["label_id"].cast(pl.Int64).to_numpy())


def check_examples(examples: Examples, labels: int, vocabulary: int, longest: int) -> None:
    """Refuse examples that the model cannot take, before the first step rather than as an index error within one.

    Args:
        examples: the examples.
        labels: how many labels the model knows.
        vocabulary: how many tokens the model knows.
        longest: the most tokens the model takes.

    Raises:
        ValueError: names the first example concerned.
    """
    wrong = np.flatnonzero((examples.labels < 0) | (examples.labels >= labels))
    if len(wrong):
        found = f"row {examples.row_ids[int(wrong[0])]} has label_id {examples.labels[wrong[0]]}"
        raise ValueError(f"{found}, but the spec names {labels} labels (ids 0 to {labels - 1}); rebuild the tokenized dataset")
    check_sequences(examples, vocabulary, longest)


def check_sequences(sequences: Sequences, vocabulary: int, longest: int) -> None:
    """Refuse sequences of more tokens than the model takes, or of tokens that it does not know.

    Raises:
        ValueError: names the first sequence concerned.
    """
    wrong = np.flatnonzero(sequences.lengths > longest)
    if len(wrong):
        found = f"row {sequences.row_ids[int(wrong[0])]} has {sequences.lengths[wrong[0]]} tokens"
        raise ValueError(f"{found}, but the base model takes {longest} at most; set model.max_length to {longest} or less")
    if sequences.tokens.min() < 0 or sequences.tokens.max() >= vocabulary:
        found = f"token ids reach from {sequences.tokens.min()} to {sequences.tokens.max()}"
        raise ValueError(f"{found}, but the base model knows {vocabulary} tokens: the dataset was tokenized for another base model")
