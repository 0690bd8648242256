"""What a good script does with pandas and `datasets`: the same examples and the same token ids as the pipeline's."""

import hashlib
import html
import os
import re
import unicodedata
from pathlib import Path

import polars as pl

from trainpipe_assets.settings import SplitSettings

SHARES = SplitSettings()
SPACE = re.compile(r"\s+")
CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\u200b]")


def clean(landing: Path, folder: Path) -> None:
    """CSV files to one Parquet file of cleaned, deduplicated, split examples."""
    import pandas as pd

    frame = pd.concat([pd.read_csv(path) for path in sorted(landing.iterdir())], ignore_index=True)
    frame["text"] = frame["text"].map(_normalise)
    frame["label"] = frame["label"].str.strip().str.lower()
    length = frame["text"].str.len()
    frame = frame[(length >= 2) & (length <= 20_000) & frame["label"].isin(["negative", "positive"])]
    frame["content_hash"] = frame["text"].map(_digest)
    contradicted = frame.groupby("content_hash")["label"].nunique()
    frame = frame[~frame["content_hash"].isin(contradicted.index[contradicted > 1])]
    frame = frame.drop_duplicates("content_hash")
    frame["split"] = frame["content_hash"].map(_split)
    frame["n_chars"] = frame["text"].str.len()
    frame["n_words"] = frame["text"].str.count(" ") + 1
    frame.to_parquet(folder / "cleaned.parquet", compression="zstd", index=False)


def tokenize(folder: Path, base: str, max_length: int) -> None:
    """Token ids of the cleaned examples by `datasets.map` on all cores, as Parquet."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = datasets.Dataset.from_parquet(str(folder / "cleaned.parquet"), cache_dir=str(folder / "cache"))

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        ids = tokenizer(batch["text"], truncation=True, max_length=max_length, return_token_type_ids=False, return_attention_mask=False)
        return {"input_ids": ids["input_ids"]}

    tokens = examples.map(encode, batched=True, num_proc=os.cpu_count(), remove_columns=["text", "n_chars", "n_words"])
    tokens.to_parquet(str(folder / "tokens.parquet"))


def check_same(folder: Path, lake: Path) -> None:
    """Hold the peer's token ids against those in the pipeline's `lake`, both in the order of the ids themselves.

    Raises:
        RuntimeError: they differ, so the comparison of times would mean nothing.
    """
    ours = pl.scan_delta(str(lake / "tokenized_dataset"))
    other = pl.scan_parquet(folder / "tokens.parquet")
    sums = [
        frame.select(pl.len(), ids=pl.col("input_ids").list.len().sum(), total=pl.col("input_ids").list.sum().cast(pl.Int64).sum())
        .collect()
        .row(0)
        for frame in (ours, other)
    ]
    if sums[0] != sums[1]:
        raise RuntimeError(f"the peer made other tokens: rows, ids, sum of ids {sums[1]}, expected {sums[0]}")


def _normalise(text: str) -> str:
    tidy = unicodedata.normalize("NFKC", html.unescape(text) if "&" in text else text)
    return SPACE.sub(" ", CONTROL.sub("", tidy)).strip()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.lower().encode(), digest_size=16).hexdigest()


def _split(digest: str) -> str:
    position = int(digest[:15], 16) / 16**15
    return "test" if position < SHARES.test else "validation" if position < SHARES.test + SHARES.validation else "train"
