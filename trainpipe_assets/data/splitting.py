"""Train, validation and test: which split an example belongs to, for ever.

The split is a function of the duplicate group and the seed alone, so that texts that count as the same share a split
and no example moves when data grows. Finding the groups is `deduplication.py`'s.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import polars as pl

from trainpipe_assets.data.mixing import mix
from trainpipe_assets.schemas import SPLITS
from trainpipe_assets.settings import SplitSettings, Task

_OWN_SPLIT = re.compile(r"(^|[/_.-])(test|dev|valid|validation|eval)([/_.-]|$)", re.IGNORECASE)
SHOWN_LABELS = 20
MANY_CUT = 0.1  # share of texts as long as the longest input, from which on it is told


def named_like_splits(paths: Iterable[str]) -> list[str]:
    """Those of the files at `paths` whose names say that they are a split of their own, which they are not here."""
    return [path for path in paths if _OWN_SPLIT.search(path)]


def assign_split(group: pl.Expr, settings: SplitSettings) -> pl.Expr:
    """The split of each duplicate group (a hexadecimal hash) as a column of `SPLITS` values."""
    offset = int.from_bytes(hashlib.sha256(f"split:{settings.seed}".encode()).digest()[:8], "big")

    def place(hashes: pl.Series) -> pl.Series:
        bits = hashes.str.slice(0, 15).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
        position = pl.lit(pl.Series(mix(bits ^ np.uint64(offset)) / 2.0**64))
        test, validation = position < settings.test, position < settings.test + settings.validation
        split = pl.when(test).then(pl.lit("test")).when(validation).then(pl.lit("validation")).otherwise(pl.lit("train"))
        return pl.select(split).to_series()

    return group.map_batches(place, return_dtype=pl.String, is_elementwise=True)


def split_sizes(examples: pl.LazyFrame, longest: int) -> pl.DataFrame:
    """One row for each `split` with its number `n` of tokenized examples, how many of them reach the `longest` input, in tokens, and the
    different `answers` to them, null for documents."""
    answers = {
        "label_id": pl.col("label_id").unique(),
        "label_ids": pl.col("label_ids").explode().unique(),
        "target": pl.col("target").unique().head(2),
    }
    found = [answer for column, answer in answers.items() if column in examples.collect_schema()]
    counts = {"n": pl.len(), "reaching": (pl.col("n_tokens") >= longest).sum(), "answers": found[0] if found else pl.lit(None)}
    return examples.group_by("split").agg(**counts).collect(engine="streaming")


def require_trainable(counts: pl.DataFrame, task: Task, labels: tuple[str, ...], settings: SplitSettings) -> list[str]:
    """Refuse a dataset that cannot train and evaluate a model of `task`; `counts` are its `split_sizes`. What makes a worse model is told.

    Raises:
        ValueError: a split is too small, or the training split has examples of one class only, or of one number.
    """
    sizes = {split: int(counts.filter(pl.col("split") == split)["n"].sum()) for split in SPLITS}
    found = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    if task in ("text-classification", "multi-label-classification") and len(labels) < 2:
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
    if task == "causal-lm":
        return []
    answers = set(counts.filter(pl.col("split") == "train")["answers"].explode().to_list())
    if task == "text-regression":
        if len(answers) < 2:
            raise ValueError(
                f"all examples of the training split have the number {answers.pop():g}: there is nothing to learn; land others"
            )
        return _cut(counts)
    missing = [label for number, label in enumerate(labels) if number not in answers]
    if len(labels) - len(missing) < 2:
        raise ValueError(
            f"label(s) {', '.join(missing)} have no example in the training split ({found}), a classifier needs two or more that have: "
            "land examples of them"
        )
    named = ", ".join(missing[:SHOWN_LABELS]) + (f" and {len(missing) - SHOWN_LABELS} more" if len(missing) > SHOWN_LABELS else "")
    untrained = f"label(s) {named} have no example in the training split: the model cannot learn them; land more, or list cleaning.labels"
    return [*([untrained] if missing else []), *_cut(counts)]


def _cut(counts: pl.DataFrame) -> list[str]:
    reaching, total = int(counts["reaching"].sum()), int(counts["n"].sum())
    if reaching < MANY_CUT * total:
        return []
    return [f"{reaching:,} of {total:,} texts ({reaching / total:.0%}) fill the longest input: what is longer was cut (model.max_length)"]
