"""The tokenized examples of one split, held in flat arrays: loaded once, checked once, padded batch by batch.

Where they come from is `storage/delta.py`'s business; which of them share a batch is `batching.py`'s.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.schemas import TOKENIZED_DATASET
from trainpipe_assets.storage import delta

COLUMNS = ("row_id", "split", "label_id", "input_ids")


@dataclass(frozen=True)
class Examples:
    """Examples in ascending order of row_id, whatever order the table stores them in."""

    row_ids: pl.Series
    labels: NDArray[np.int64]
    """Label ids, shape [n]."""
    tokens: NDArray[np.int32]
    """Token ids of all examples, one after the other, shape [sum of lengths]."""
    offsets: NDArray[np.int64]
    """Where each example starts in `tokens`, and the end of the last, shape [n + 1]."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each example, shape [n]."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the examples `indices`."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def digest(self) -> str:
        """SHA-256 of everything here: equal for the same examples in any table, version and order of storage."""
        content = hashlib.sha256("\n".join(self.row_ids).encode())
        for values in (self.labels, self.tokens, self.offsets):
            content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()


def load_examples(uri: str, version: int, split: str) -> Examples:
    """The examples of `split` in version `version` of the tokenized dataset at `uri`.

    Raises:
        ValueError: a column is missing, the split is empty, or an example has no label, no tokens or a repeated row_id.
    """
    table = delta.scan(uri, version)
    missing = [name for name in COLUMNS if name not in table.collect_schema().names()]
    if missing:
        raise ValueError(f"{uri} version {version} has no column {missing}; a tokenized dataset has {TOKENIZED_DATASET.names()}")
    rows = table.filter(pl.col("split") == split).select(COLUMNS).collect().sort("row_id")
    if rows.is_empty():
        raise ValueError(f"{uri} version {version} has no rows in split {split!r}; land more data or change the split's share")
    _refuse_unusable(rows, f"{uri} version {version}, split {split!r}")
    return from_frame(rows)


def from_frame(rows: pl.DataFrame) -> Examples:
    """Examples from the columns row_id, label_id and input_ids of `rows`, in the order of `rows`."""
    lengths = rows["input_ids"].list.len().to_numpy()
    return Examples(
        row_ids=rows["row_id"],
        labels=rows["label_id"].cast(pl.Int64).to_numpy(),
        tokens=rows["input_ids"].explode(empty_as_null=False).cast(pl.Int32).to_numpy(),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
    )


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
    wrong = np.flatnonzero(examples.lengths > longest)
    if len(wrong):
        found = f"row {examples.row_ids[int(wrong[0])]} has {examples.lengths[wrong[0]]} tokens"
        raise ValueError(f"{found}, but the base model takes {longest} at most; set model.max_length to {longest} or less")
    if examples.tokens.min() < 0 or examples.tokens.max() >= vocabulary:
        found = f"token ids reach from {examples.tokens.min()} to {examples.tokens.max()}"
        raise ValueError(f"{found}, but the base model knows {vocabulary} tokens: the dataset was tokenized for another base model")


def padded(examples: Examples, indices: NDArray[np.int64], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask of the examples `indices`, each of shape [count, longest], padded at the end."""
    lengths = examples.lengths_of(indices)
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = examples.tokens[(examples.offsets[indices][:, None] + columns)[mask]]
    return input_ids, mask.astype(np.int64)


def _refuse_unusable(rows: pl.DataFrame, where: str) -> None:
    unusable = rows.filter(pl.any_horizontal(pl.col("row_id", "label_id", "input_ids").is_null()) | (pl.col("input_ids").list.len() == 0))
    if not unusable.is_empty():
        first = unusable["row_id"][0]
        raise ValueError(f"{where}: {len(unusable)} rows lack a label or tokens, the first is {first!r}; rebuild the tokenized dataset")
    repeated = rows.filter(pl.col("row_id") == pl.col("row_id").shift(1))
    if not repeated.is_empty():
        raise ValueError(f"{where}: row_id {repeated['row_id'][0]!r} occurs more than once; rebuild the tokenized dataset")
