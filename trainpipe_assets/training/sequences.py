"""Token sequences of one split in flat arrays, whatever is learnt from them; and padding them to a rectangle."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
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
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each sequence, shape [n]."""
        return np.diff(self.offsets)

    def lengths_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of the sequences `indices`."""
        return self.offsets[indices + 1] - self.offsets[indices]

    def places_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the tokens of the sequences `indices` lie in the flat arrays, one sequence after the other."""
        lengths = self.lengths_of(indices)
        starts = np.cumsum(lengths) - lengths
        return np.asarray(np.arange(lengths.sum()) + np.repeat(self.offsets[indices] - starts, lengths))


def padded(sequences: Sequences, indices: NDArray[np.int64], pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and attention mask of the sequences `indices`, each of shape [count, longest], padded at the end."""
    lengths = sequences.lengths_of(indices)
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    input_ids = np.full(mask.shape, pad_id, dtype=np.int64)
    input_ids[mask] = sequences.tokens[(sequences.offsets[indices][:, None] + columns)[mask]]
    return input_ids, mask.astype(np.int64)
