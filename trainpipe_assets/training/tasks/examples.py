"""The tokenized examples of one split: loaded once, checked once.

Where they come from is `storage/delta.py`'s business; which of them share a batch is `batching.py`'s. Documents of a language model are in
`pieces.py`.
"""

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


def load_examples(uri: str, version: int, split: str, labels: int) -> Examples:
    """The examples of `split`, with ids of `labels` labels, in version `version` of the tokenized dataset at `uri`.

    Raises:
        ValueError: a column is missing, the split is empty, or an example has no label, no such label, no tokens or a repeated row_id.
    """
    rows = load_answered(uri, version, split, "label_id", TOKENIZED_DATASET)
    check_label_ids(rows["row_id", "label_id"], labels)
    return from_frame(rows)


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


def check_label_ids(found: pl.DataFrame, labels: int) -> None:
    """Refuse ids, in the second column of `found` beside the row_id, of labels that there are not.

    Raises:
        ValueError: names the first row concerned.
    """
    wrong = found.filter(~found.to_series(1).is_between(0, labels - 1))
    if not wrong.is_empty():
        row, label_id = wrong.row(0)
        said = f"row {row} has {wrong.columns[1]} {label_id}, but the spec names {labels} labels (ids 0 to {labels - 1})"
        raise ValueError(f"{said}; rebuild the tokenized dataset")
