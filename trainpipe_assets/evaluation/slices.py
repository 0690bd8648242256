"""Parts of a test split that are looked at one by one: where an example came from, how long it is."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

MAX_SOURCES = 20  # the largest source files get a slice each; those beyond share one
LENGTH_QUANTILES = (0.25, 0.5, 0.75)

Slices = Iterator[tuple[str, NDArray[np.bool_]]]


def slice_masks(dimension: str, examples: pl.DataFrame) -> Slices:
    """The slices of `dimension` as (name, mask [n]); each example is in exactly one.

    `source` reads the column `source_file`, `length` the column `n_tokens`. Raises ValueError for another dimension.
    """
    if dimension == "source":
        return _by_source(examples["source_file"].fill_null("(no file)"))
    if dimension == "length":
        return _by_length(examples["n_tokens"].to_numpy())
    raise ValueError(f"evaluation.slices knows 'source' and 'length', found {dimension!r}")


def _by_source(source_files: pl.Series) -> Slices:
    """One slice a source file, the largest first, the name deciding between equals."""
    counts = source_files.value_counts(name="n").sort(["n", source_files.name], descending=[True, False])
    names = counts[source_files.name].to_list()
    own = names if len(names) <= MAX_SOURCES else names[: MAX_SOURCES - 1]
    for name in own:
        yield name, (source_files == name).to_numpy()
    if len(own) < len(names):
        yield f"{len(names) - len(own)} other files", (~source_files.is_in(own)).to_numpy()


def _by_length(n_tokens: NDArray[np.integer]) -> Slices:
    """Slices between the quartiles of length, the shortest first; fewer where quartiles coincide."""
    quartiles = np.quantile(n_tokens, LENGTH_QUANTILES, method="inverted_cdf")
    tops = sorted({int(top) for top in quartiles} | {int(n_tokens.max())})
    bottom = int(n_tokens.min())
    for top in tops:
        yield (f"{bottom} to {top} tokens" if bottom < top else f"{top} tokens"), (n_tokens >= bottom) & (n_tokens <= top)
        bottom = top + 1
