"""The sample corpora as examples, for tests that want texts that people wrote: four domains, two labels."""

from pathlib import Path

import polars as pl

from trainpipe_assets.pipeline.resources import lake_from_environment
from trainpipe_assets.samples import fetch_samples

REPOSITORY = Path(__file__).parents[1]
READERS = {
    ".csv": pl.read_csv,
    ".gz": pl.read_ndjson,
    ".tsv": lambda path: pl.read_csv(path, separator="\t", quote_char=None),
    ".parquet": pl.read_parquet,
}


def read_corpora() -> dict[str, pl.DataFrame]:
    """Text and label of what is positive or negative, by corpus: movies, amazon, tweets, editorials; shuffled, always the same way."""
    found = fetch_samples(REPOSITORY / "data" / "samples", REPOSITORY / lake_from_environment().models).corpora
    corpora = {name: READERS[path.suffix](path).select("text", "label") for name, path in found.items()}
    return {name: rows.filter(pl.col("label") != "neutral").sample(fraction=1.0, shuffle=True, seed=0) for name, rows in corpora.items()}
