"""The normal form of texts: entities, Unicode form, control characters, white space, in this order.

Which records are kept is `cleaning.py`'s; personal data is `redaction.py`'s.
"""

import html

import polars as pl

from trainpipe_assets.settings import CleaningSettings


def normalise_text(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text on one line: for a classifier, to which layout says nothing."""
    return _without_marks(text, settings).str.replace_all(r"\s+", " ").str.strip_chars()


def normalise_document(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text with its layout: a language model learns line breaks and indentation too. Lines end in LF; outer white space goes."""
    return _without_marks(text, settings).str.replace_all(r"\r\n?", "\n").str.strip_chars()


def _without_marks(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    if settings.unescape_html:
        text = text.map_batches(_unescape, return_dtype=pl.String, is_elementwise=True)
    return text.str.normalize(settings.unicode_form).str.replace_all(r"[\p{Cc}&&[^\s]]|\u{FEFF}|\u{200B}", "")


def _unescape(texts: pl.Series) -> pl.Series:
    escaped = texts.str.contains(r"&[#A-Za-z]").fill_null(False)
    if not escaped.any():
        return texts
    mended = pl.Series([html.unescape(text) for text in texts.filter(escaped)], dtype=pl.String)
    return texts.scatter(escaped.arg_true(), mended)
