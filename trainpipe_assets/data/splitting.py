"""Train, validation and test: which split an example belongs to, for ever.

The split is a function of the duplicate group and the seed alone, so that texts that count as the same share a split
and no example moves when data grows. Finding the groups is `deduplication.py`'s.
"""

import hashlib

import numpy as np
import polars as pl

from trainpipe_assets.data.mixing import mix
from trainpipe_assets.settings import SplitSettings

SPLITS = ("train", "validation", "test")


def assign_split(group: pl.Expr, settings: SplitSettings) -> pl.Expr:
    """The split of each duplicate group (a hexadecimal hash) as a column of `SPLITS` values."""
    offset = int.from_bytes(hashlib.sha256(f"split:{settings.seed}".encode()).digest()[:8], "big")

    def place(hashes: pl.Series) -> pl.Series:
        bits = hashes.str.slice(0, 15).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
        position = mix(bits ^ np.uint64(offset)) / 2.0**64
        chosen = np.select([position < settings.test, position < settings.test + settings.validation], ["test", "validation"], "train")
        return pl.Series(chosen, dtype=pl.String)

    return group.map_batches(place, return_dtype=pl.String, is_elementwise=True)


def split_sizes(examples: pl.LazyFrame) -> pl.DataFrame:
    """How many examples there are: one row for each `split`, and each `label_id` where they have one, with their number `n`."""
    keys = [name for name in ("split", "label_id") if name in examples.collect_schema()]
    return examples.group_by(keys).agg(n=pl.len()).collect()


def require_trainable(counts: pl.DataFrame, labels: tuple[str, ...], settings: SplitSettings) -> None:
    """Refuse a dataset that cannot train and evaluate a model.

    `counts` are its `split_sizes`; examples without a `label_id` are documents, which have no `labels`.

    Raises:
        ValueError: a split is too small, or the training split lacks a class.
    """
    sizes = {split: int(counts.filter(pl.col("split") == split)["n"].sum()) for split in SPLITS}
    found = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    labelled = "label_id" in counts.columns
    if labelled and len(labels) < 2:
        raise ValueError(
            f"the cleaned examples have {len(labels)} label(s) ({', '.join(labels) or 'none'}), a classifier needs two or more: "
            "land files with other labels, or look into rejected_rows for labels that were refused"
        )
    small = [split for split, size in sizes.items() if size < settings.min_examples]
    if small:
        raise ValueError(
            f"too few examples in split(s) {', '.join(small)}: found {found}, each needs at least {settings.min_examples} "
            "(split.min_examples); land more data or give the split a larger share. Texts that are nearly the same share a split "
            "(cleaning.near_duplicates)"
        )
    if not labelled:
        return
    trained = set(counts.filter(pl.col("split") == "train")["label_id"].to_list())
    missing = [label for number, label in enumerate(labels) if number not in trained]
    if missing:
        raise ValueError(
            f"label(s) {', '.join(missing)} have no example in the training split ({found}): land examples of them, "
            "or take them off cleaning.labels"
        )
