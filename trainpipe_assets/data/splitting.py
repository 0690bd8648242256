"""Train, validation and test: which split an example belongs to, for ever.

The split is a function of the duplicate group and the seed alone, so that texts that count as the same share a split
and no example moves when data grows. Files can be a split of their own: then no example of another file repeats theirs.
Finding the groups, and who stands for them, is `deduplication.py`'s.
"""

import hashlib
import re
from collections.abc import Iterable

import numpy as np
import polars as pl

from trainpipe_assets.data.mixing import mix
from trainpipe_assets.schemas import SPLITS
from trainpipe_assets.settings import SplitSettings, Task
from trainpipe_assets.storage.uris import matches

_OWN_SPLIT = re.compile(r"(^|[/_.-])(test|dev|val|valid|validation|eval)([/_.-]|$)", re.IGNORECASE)
RANKS = {"test": 0, "validation": 1, None: 2}  # of the files of a split, and of all others
SHOWN_LABELS = 20
MANY_CUT = 0.1  # share of texts as long as the longest input, from which on it is told


def named_like_splits(paths: Iterable[str], settings: SplitSettings) -> list[str]:
    """Those of the files at `paths` whose names say that they are a split of their own, while the settings do not."""
    return [path for path in paths if _OWN_SPLIT.search(path) and own_split(path, settings) is None]


def own_split(path: str, settings: SplitSettings) -> str | None:
    """The split that the file at `path` is by itself; None where its examples are split like those of other files."""
    return next((split for split, patterns in settings.files.items() if matches(path, patterns)), None)


def split_rank(source_file: pl.Expr, settings: SplitSettings) -> pl.Expr:
    """The place in `RANKS` of each record's file. Of records that say the same, the one of the lowest rank stands."""
    if not settings.by_file:
        return pl.lit(RANKS[None], pl.UInt8)

    def rank(paths: pl.Series) -> pl.Series:
        ranks = {path: RANKS[own_split(path, settings)] for path in paths.unique().to_list()}
        return paths.replace_strict(ranks, return_dtype=pl.UInt8) if ranks else pl.Series(dtype=pl.UInt8)

    return source_file.map_batches(rank, return_dtype=pl.UInt8, is_elementwise=True)


def with_split(examples: pl.LazyFrame, settings: SplitSettings) -> pl.LazyFrame:
    """`examples` with their `split`, one of `SPLITS`, by the `split_rank` of their file and their `duplicate_group`, a hexadecimal hash."""
    offset = int.from_bytes(hashlib.sha256(f"split:{settings.seed}".encode()).digest()[:8], "big")
    test_share, validation_share = settings.drawn

    def draw(hashes: pl.Series) -> pl.Series:
        bits = hashes.str.slice(0, 15).str.to_integer(base=16, dtype=pl.UInt64).to_numpy()
        position = pl.lit(pl.Series(mix(bits ^ np.uint64(offset)) / 2.0**64))
        return pl.select(_chosen(position < test_share, position < test_share + validation_share, pl.lit("train"))).to_series()

    drawn = examples.with_columns(split=pl.col("duplicate_group").map_batches(draw, return_dtype=pl.String, is_elementwise=True))
    if not settings.by_file:
        return drawn
    rank = pl.col("split_rank")
    return drawn.with_columns(split=_chosen(rank == RANKS["test"], rank == RANKS["validation"], pl.col("split")))


def _chosen(test: pl.Expr, validation: pl.Expr, otherwise: pl.Expr) -> pl.Expr:
    return pl.when(test).then(pl.lit("test")).when(validation).then(pl.lit("validation")).otherwise(otherwise)


def split_sizes(examples: pl.LazyFrame, longest: int) -> pl.DataFrame:
    """One row for each `split` with its number `n` of tokenized examples, how many of them reach the `longest` input, in tokens, and the
    different `answers` to them, null for documents. A chat that was refused has no tokens and is none of them."""
    answers = {
        "label_id": pl.col("label_id").unique(),
        "label_ids": pl.col("label_ids").explode().unique(),
        "target": pl.col("target").unique().head(2),
    }
    columns = examples.collect_schema()
    found = [answer for column, answer in answers.items() if column in columns]
    if "loss_mask" in columns:
        examples = examples.filter(pl.col("n_tokens") > 0)
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
        files = [f"split.{split}_files is {', '.join(patterns)}" for split, patterns in settings.files.items() if patterns]
        where = f"; {' and '.join(files)}: the metadata of raw_data says which files these are" if files else ""
        share = " or give the split a larger share" if not all(settings.files.values()) else ""
        refused = ", and at chats_fit_the_template, a check of tokenized_dataset, for chats that were" if task == "causal-lm" else ""
        raise ValueError(
            f"too few examples in split(s) {', '.join(small)}: found {found}, each needs at least {settings.min_examples} "
            f"(split.min_examples){where}. Land more data{share}, or look into rejected_rows for what was refused and why{refused}. Texts "
            "that are nearly the same share a split (cleaning.near_duplicates)"
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
