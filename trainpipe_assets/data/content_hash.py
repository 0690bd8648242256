"""The identity of a text, case aside, and a number that stands for it where millions are compared."""

from typing import TypeVar

import polars as pl
import polars_hash  # noqa: F401  # gives expressions their `chash`

HASH_DIGITS = 32

Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def content_hash(text: pl.Expr) -> pl.Expr:
    """The first 128 bits of the BLAKE3 of the case-folded text, in hexadecimal: the same on every machine and in every version."""
    digest: pl.Expr = text.str.to_lowercase().chash.blake3()  # type: ignore[attr-defined]  # polars_hash adds it
    return digest.str.head(HASH_DIGITS)


def leading_bits(digest: pl.Expr) -> pl.Expr:
    """The first 64 bits of a content hash, as a number: in the same order."""
    return digest.str.head(16).str.to_integer(base=16, dtype=pl.UInt64)


def with_number(texts: Frame) -> Frame:
    """`texts` with a `number`: the leading bits of their `content_hash`."""
    return texts.with_columns(number=leading_bits(pl.col("content_hash")))
