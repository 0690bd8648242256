"""A profile of examples for whoever looks at an arrival: how many, of which labels, how long."""

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


def profile(examples: pl.DataFrame) -> Profile:
    """The profile of examples with the columns `label` and `n_chars`."""
    counts = examples.group_by("label").len().sort("len", "label", descending=[True, False])
    lengths = {share: examples["n_chars"].quantile(share, "nearest") for share in QUANTILES}
    return Profile(
        rows=examples.height,
        labels={label or "": count for label, count in counts.iter_rows()},
        lengths={share: int(length) for share, length in lengths.items() if length is not None},
    )
