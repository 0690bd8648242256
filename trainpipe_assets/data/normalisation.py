"""The normal form of texts: entities, control characters, Unicode form, white space, in this order.

Which records are kept is `cleaning.py`'s; personal data is `redaction.py`'s.
"""

import html
from collections.abc import Callable

import polars as pl

from trainpipe_assets.settings import CleaningSettings

UNTIDY = r"[^ -~]|&|  |^ | $"  # what a text may hold that is not in its normal form; most texts hold none of it
_BEYOND_UNICODE = "&#[1-9][0-9]{7,};?"
WIDE_SPACE = r"\s{2,}|[^\S ]"  # every run of white space but a single space, which would only be replaced by itself


def normalise_text(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text on one line: for a classifier, to which layout says nothing."""

    def on_one_line(texts: pl.Series) -> pl.Series:
        return _without_marks(texts, settings).str.replace_all(WIDE_SPACE, " ").str.strip_chars()

    return text.map_batches(lambda texts: _mended(texts, on_one_line), return_dtype=pl.String, is_elementwise=True)


def normalise_document(text: pl.Expr, settings: CleaningSettings) -> pl.Expr:
    """A text with its layout: a language model learns line breaks and indentation too. Lines end in LF; outer white space goes."""

    def with_layout(texts: pl.Series) -> pl.Series:
        return _without_marks(texts, settings).str.replace_all(r"\r\n?", "\n").str.strip_chars()

    return text.map_batches(lambda texts: _mended(texts, with_layout), return_dtype=pl.String, is_elementwise=True)


def n_words(text: pl.Expr) -> pl.Expr:
    """How many words a normalised text has; a class of one character is counted twice as fast as the character itself."""
    return text.str.count_matches("[ ]") + 1


def _mended(texts: pl.Series, mend: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`texts` with those mended that need it: the work on a tidy text costs more than finding out that it is one."""
    return _where(texts.str.contains(UNTIDY), texts, mend)


def _where(chosen: pl.Series, texts: pl.Series, mend: Callable[[pl.Series], pl.Series]) -> pl.Series:
    chosen = chosen.fill_null(False)
    return texts.scatter(chosen.arg_true(), mend(texts.filter(chosen))) if chosen.any() else texts


def _without_marks(texts: pl.Series, settings: CleaningSettings) -> pl.Series:
    if settings.unescape_html:
        texts = _where(texts.str.contains("&", literal=True), texts, _unescaped)
    texts = texts.str.replace_all(r"[\p{Cc}&&[^\s]]|\u{FEFF}|\u{200B}", "")  # which may stand between a letter and its accent
    foreign = texts.str.len_bytes() != texts.str.len_chars()  # ASCII is the same in every Unicode form
    return _where(foreign, texts, lambda others: others.str.normalize(settings.unicode_form))


def _unescaped(texts: pl.Series) -> pl.Series:
    # Python's own refuses to read more than some thousand digits.
    bounded = texts.str.replace_all("&#0+([0-9])", "&#${1}").str.replace_all(_BEYOND_UNICODE, "\ufffd")
    return pl.Series(texts.name, [html.unescape(text) for text in bounded], dtype=pl.String)
