"""A corpus as a tokenized Delta table, made once by the pipeline's own functions, so that all trainers see the same tokens and splits."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from trainpipe_assets.data import cleaning, document_tokens, ingestion, tokenization
from trainpipe_assets.data.encoding import labels_of
from trainpipe_assets.data.landing import land
from trainpipe_assets.data.sources import list_landed
from trainpipe_assets.settings import PipelineSettings
from trainpipe_assets.storage import base_models
from trainpipe_assets.storage.increments import Upstream

SUBSET_SEED = 0
VALIDATION_DOCUMENTS = 20  # of a language model: the training program wants some


@dataclass(frozen=True)
class Dataset:
    """One version of a tokenized table, and what a trainer needs beside it."""

    uri: str
    version: int
    labels: tuple[str, ...]
    base_model: str
    train_rows: int
    test_rows: int
    test_texts: Path
    """Parquet, the text of each test row, in the order of row_id."""


@dataclass(frozen=True)
class Documents:
    """One version of a table of tokenized documents. `count` and `tokens` are those of the training split."""

    uri: str
    version: int
    base_model: str
    count: int
    tokens: int


def build(corpus: Path, settings: PipelineSettings, models: Path, folder: Path, train_rows: int | None) -> Dataset:
    """`corpus` ingested, cleaned and tokenized under `folder`, with at most `train_rows` rows in the training split.

    Which rows those are is a function of the row ids alone. Validation and test splits stay whole.

    Raises:
        ValueError: the corpus or the base model cannot be used, and why.
    """
    base = base_models.resolve(settings.model.base, str(models))
    tokenizer = tokenization.load_tokenizer(base.folder, settings.model.max_length)
    cleaned = _cleaned(corpus, settings, folder)
    labels = labels_of(cleaned, settings)
    rows = _subset(tokenization.tokenize(cleaned, tokenizer, labels).collect(), train_rows)
    uri = str(folder / "tokenized")
    rows.write_delta(uri)
    texts = folder / "test.parquet"
    cleaned.filter(pl.col("split") == "test").select("row_id", "text").collect().sort("row_id").write_parquet(texts)
    counts = dict(rows.group_by("split").len().iter_rows())
    return Dataset(uri, 0, labels, base.folder, counts["train"], counts["test"], texts)


def build_documents(corpus: Path, settings: PipelineSettings, models: Path, folder: Path, tokens: int) -> Documents:
    """`corpus` as documents of a language model, some of them: `tokens` at most for training, and a few for validation.

    Raises:
        ValueError: the corpus or the base model cannot be used, and why.
    """
    base = base_models.resolve(settings.model.base, str(models))
    tokenizer = document_tokens.load_document_tokenizer(base.folder, settings.source.kind, settings.model)
    rows = document_tokens.tokenize_documents(_cleaned(corpus, settings, folder), tokenizer).collect().sort("row_id")
    train = rows.filter(pl.col("split") == "train").sample(fraction=1.0, shuffle=True, seed=SUBSET_SEED)
    chosen = train.filter(pl.col("n_tokens").cum_sum() <= tokens)
    uri = str(folder / "tokenized")
    pl.concat([chosen, rows.filter(pl.col("split") == "validation").head(VALIDATION_DOCUMENTS)]).write_delta(uri)
    return Documents(uri, 0, base.folder, chosen.height, int(chosen["n_tokens"].sum()))


def _cleaned(corpus: Path, settings: PipelineSettings, folder: Path) -> pl.LazyFrame:
    landing = folder / "landing"
    land([corpus], landing, settings.source)
    landed = list_landed(str(landing), settings.source)
    increment = ingestion.ingest(str(folder / "raw"), None, landed, frozenset(), settings.source, datetime.now(UTC)).increment
    raw = increment.commit({}).table
    changes = Upstream(raw, {name: str(folder / name) for name in ("cleaned_features", "rejected_rows")}).changes(version=cleaning.VERSION)
    (folder / "scratch").mkdir()
    examples, _ = cleaning.clean_changes(changes, settings.cleaning, settings.split, folder / "scratch", settings.source.kind)
    return examples.added


def _subset(rows: pl.DataFrame, train_rows: int | None) -> pl.DataFrame:
    train, others = rows.filter(pl.col("split") == "train").sort("row_id"), rows.filter(pl.col("split") != "train")
    if train_rows is None or train_rows >= train.height:
        return rows
    chosen = np.sort(np.random.default_rng(SUBSET_SEED).permutation(train.height)[:train_rows])
    return pl.concat([train[chosen], others])
