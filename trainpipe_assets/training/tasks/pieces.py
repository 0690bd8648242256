"""Documents cut into pieces that a language model can take, with no token lost.

A document of n tokens is n - 1 predictions, of each token from those before it. Cut are the predictions: a piece reads the tokens s to e
and predicts s + 1 to e + 1, so that the first token of the next piece is predicted too (docs/decisions/0015).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.schemas import TOKENIZED_DOCUMENTS
from trainpipe_assets.training.sequences import Sequences
from trainpipe_assets.training.tasks.examples import load_rows

COLUMNS = ("row_id", "split", "input_ids", "loss_mask")


@dataclass(frozen=True)
class Pieces(Sequences):
    """Pieces of documents, those of a document in a row; `row_ids` are the documents', `tokens` what is read."""

    targets: NDArray[np.int32]
    """The token that follows each of `tokens`."""
    learnt: NDArray[np.bool_]
    """Whether it is to be learnt."""

    @cached_property
    def answers(self) -> NDArray[np.int64]:
        """Tokens to be learnt in each piece, shape [n]."""
        return np.add.reduceat(self.learnt.astype(np.int64), self.offsets[:-1]) if len(self) else np.zeros(0, np.int64)


def load_pieces(uri: str, version: int, split: str, longest: int) -> Pieces:
    """The documents of `split` in version `version` of the tokenized dataset at `uri`, in pieces of at most `longest` tokens.

    Raises:
        ValueError: a column is missing, the split is empty, or there is nothing to learn in it.
    """
    rows = load_rows(uri, version, split, COLUMNS, TOKENIZED_DOCUMENTS)
    pieces = cut_documents(rows, longest)
    if not len(pieces):
        raise ValueError(f"{uri} version {version}: no document of split {split!r} has a token to learn; look into its loss_mask")
    return pieces


def cut_documents(rows: pl.DataFrame, longest: int) -> Pieces:
    """Pieces of the documents `rows` (columns row_id, input_ids and loss_mask), in their order.

    Where nothing is to be learnt there is no piece, and a piece ends where the last of it is learnt.
    """
    lengths = rows["input_ids"].list.len().to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    ids = rows["input_ids"].explode(empty_as_null=False).cast(pl.Int32).to_numpy()
    mask = rows["loss_mask"].explode(empty_as_null=False).cast(pl.Boolean).to_numpy()
    spans = list(_spans(ends - lengths, ends, mask, longest))
    starts, stops = (np.array([span[side] for span in spans], dtype=np.int64) for side in (1, 2))
    documents = np.array([span[0] for span in spans], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], stops - starts)
    return Pieces(rows["row_id"].gather(documents), ids[places], offsets, ids[places + 1], mask[places + 1])


def _spans(starts: NDArray[np.int64], ends: NDArray[np.int64], mask: NDArray[np.bool_], longest: int) -> Iterable[tuple[int, int, int]]:
    """Number of the document, and first and last place but one that a piece reads."""
    for document, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        for first in range(start, end - 1, longest):
            learnt = np.flatnonzero(mask[first + 1 : min(first + longest, end - 1) + 1])
            if len(learnt):
                yield document, first, first + int(learnt[-1]) + 1
