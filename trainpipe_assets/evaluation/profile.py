"""A profile of examples for whoever looks at an arrival: how many, of which labels, how long."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Profile:
    """Examples in numbers: rows of each label, the most frequent first, and quantiles of the length in characters."""

    rows: int
    labels: Mapping[str, int]
    lengths: Mapping[float, int]


def profile(examples: pl.LazyFrame) -> Profile:
    """The profile of examples with the columns `label` and `n_chars`; they are counted as they stream by."""
    counts = examples.group_by("label", "n_chars").agg(n=pl.len()).collect(engine="streaming")
    labels = counts.group_by("label").agg(pl.col("n").sum()).sort("n", "label", descending=[True, False])
    lengths = counts.group_by("n_chars").agg(pl.col("n").sum()).sort("n_chars").with_columns(reached=pl.col("n").cum_sum())
    rows = int(counts["n"].sum())
    return Profile(
        rows=rows,
        labels={label or "": count for label, count in labels.iter_rows()},
        lengths={share: lengths.filter(pl.col("reached") >= share * rows)["n_chars"][0] for share in QUANTILES} if rows else {},
    )


def by_label(found: Profile) -> Mapping[str, int]:
    """Rows of each label, the most frequent first, where the labels of the profile are JSON lists of them."""
    counts: Counter[str] = Counter()
    for labels, rows in found.labels.items():
        counts.update(dict.fromkeys(json.loads(labels), rows))
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def target_quantiles(found: Profile) -> dict[float, float]:
    """Quantiles of labels that are numbers."""
    counts = pl.DataFrame({"target": list(found.labels), "n": list(found.labels.values())}).with_columns(pl.col("target").cast(pl.Float64))
    reached = counts.sort("target").with_columns(reached=pl.col("n").cum_sum())
    return {share: reached.filter(pl.col("reached") >= share * found.rows)["target"][0] for share in QUANTILES}
