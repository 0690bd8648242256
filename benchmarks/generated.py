"""Labelled texts in any number: halves of real sentences put together anew, about a tenth of them more than once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from trainpipe_assets.data.mixing import mix

BATCH = 250_000
POOL = 5  # texts to draw from for each row: with n of 5n drawn at random, about a tenth of the rows repeat another


def halves(corpora: Path) -> tuple[pl.Series, pl.Series]:
    """First and second halves of the sentences of two sample corpora, cut between words."""
    texts = pl.concat([pl.read_csv(corpora / "movies.csv")["text"], pl.read_parquet(corpora / "editorials.parquet")["text"]])
    words = texts.str.split(" ").to_frame("words").filter(pl.col("words").list.len() > 3)
    middle = (pl.col("words").list.len() + 1) // 2
    cut = words.select(first=pl.col("words").list.head(middle).list.join(" "), second=pl.col("words").list.slice(middle).list.join(" "))
    return cut["first"], cut["second"]


def rows(corpora: Path, n_rows: int, seed: int = 0) -> Iterator[pl.DataFrame]:
    """`n_rows` rows of `text, label`, the same for the same arguments, at most `BATCH` at a time."""
    first, second = halves(corpora)
    generator = np.random.default_rng(seed)
    for start in range(0, n_rows, BATCH):
        drawn = generator.integers(POOL * n_rows, size=min(BATCH, n_rows - start), dtype=np.uint64)
        bits = mix(drawn + np.uint64(1 + seed))
        left, right = (bits & np.uint64(0xFFFFFFFF)) % np.uint64(len(first)), (bits >> np.uint64(32)) % np.uint64(len(second))
        label = np.where(mix(left * np.uint64(len(second)) + right) & np.uint64(1), "positive", "negative")
        yield pl.DataFrame({"left": first.gather(left), "right": second.gather(right), "label": label}).select(
            pl.concat_str("left", "right", separator=" ").alias("text"), "label"
        )


def write_csv(path: Path, corpora: Path, n_rows: int, seed: int = 0, most_bytes: int | None = None) -> int:
    """`rows` as one CSV file at `path`, which ends early once it has `most_bytes`; how many it has."""
    written = 0
    with path.open("wb") as file:
        for frame in rows(corpora, n_rows, seed):
            frame.write_csv(file, include_header=not written)
            written += len(frame)
            if most_bytes is not None and file.tell() >= most_bytes:
                break
    return written
