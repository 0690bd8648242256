"""The normal form of texts: entities, Unicode form, control characters, white space, in this order.

Which records are kept is `cleaning.py`'s; personal data is `redaction.py`'s.
"""

import html
from collections.abc import Callable

import polars as pl

from trainpipe_assets.settings import CleaningSettings

UNTIDY = r"[^ -~]|&|  |^ | $"  # what a text may hold that is not in its normal form; most texts hold none of it


def normalise_text(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text on one line: for a classifier, to which layout says nothing."""

    def on_one_line(texts: pl.Series) -> pl.Series:
        return _without_marks(texts, settings).str.replace_all(r"\s+", " ").str.strip_chars()

    return text.map_batches(lambda texts: _mended(texts, on_one_line), return_dtype=pl.String, is_elementwise=True)


def normalise_document(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text with its layout: a language model learns line breaks and indentation too. Lines end in LF; outer white space goes."""

    def with_layout(texts: pl.Series) -> pl.Series:
        return _without_marks(texts, settings).str.replace_all(r"\r\n?", "\n").str.strip_chars()

    return text.map_batches(lambda texts: _mended(texts, with_layout), return_dtype=pl.String, is_elementwise=True)


def _mended(texts: pl.Series, mend: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts` with those mended that need it: the work on a tidy text costs more than finding out that it is one."""
    untidy = texts.str.contains(UNTIDY).fill_null(False)
    return texts.scatter(untidy.arg_true(), mend(texts.filter(untidy))) if untidy.any() else texts


def _without_marks(texts: pl.Series, settings: CleaningSettings) -> pl.Series:
    if settings.unescape_html:
        texts = pl.Series(texts.name, [html.unescape(text) for text in texts], dtype=pl.String)
    return texts.str.normalize(settings.unicode_form).str.replace_all(r"[\p{Cc}&&[^\s]]|\u{FEFF}|\u{200B}", "")
