"""Token sequences of one split in flat arrays, whatever is learnt from them: checked, told apart by a digest, padded to a rectangle."""

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sequences:
    """Sequences in ascending order of row_id, whatever order the table stores them in."""

    row_ids: pl.Series
    tokens: NDArray[np.int32]
    """Token ids of all sequences, one after the other, shape [sum of lengths]."""
    offsets: NDArray[np.int64]
    """Where each sequence starts in `tokens`, and the end of the last, shape [n + 1]."""

    def __len__(self) -> int:
        return len(self.row_ids)

    @cached_property
    def examples(self) -> int:
        """How many examples they are of: a long document is several sequences."""
        return self.row_ids.n_unique()

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, shape [n]."""
        return np.diff(self.offsets)

    def digest(self) -> str:
        """SHA-256 of all arrays: equal for the same sequences in any table, version and order of storage."""
        content = hashlib.sha256("\n".join(self.row_ids).encode())
        for values in (getattr(self, field.name) for field in fields(self)):
            if isinstance(values, np.ndarray):
                content.update(np.ascontiguousarray(values).data)
        return content.hexdigest()

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the sequences `indices`."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def places_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the tokens of the sequences `indices` lie in the flat arrays, one sequence after the other."""
        lengths = self.lengths_of(indices)
        starts = np.cumsum(lengths) - lengths
        return np.asarray(np.arange(lengths.sum()) + np.repeat(self.offsets[indices] - starts, lengths))


def padded(sequences: Sequences, indices: NDArray[np.int64], pad_id: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids and attention mask of the sequences `indices`, each of shape [count, longest], padded at the end; no mask where none is."""
    lengths = sequences.lengths_of(indices)
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = sequences.tokens[(sequences.offsets[indices][:, None] + columns)[mask]]
    return torch.from_numpy(input_ids), None if mask.all() else torch.from_numpy(mask.astype(np.int64))


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
