"""Texts in languages that nobody asked for, told by py3langid, whose model is part of its package.

A text too short to tell, or that could be either, is kept: what is lost is lost, what is kept can be looked at.
"""

from functools import cache
from typing import TYPE_CHECKING

import polars as pl

from trainpipe_assets.settings import CleaningSettings

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

NO_LANGUAGE = "zxx"  # what ISO 639 calls content without a language
LOOKED_AT = 500  # characters of a text; more do not make it surer


def judge_languages(judged: pl.DataFrame, settings: CleaningSettings) -> pl.DataFrame:
    """`judged` with `rule` and `reason` set where a text that passed so far is surely in a language that is not wanted."""
    if not settings.languages:
        return judged
    suspects = judged["rule"].is_null() & (judged["clean_text"].str.len_bytes() >= settings.language_min_bytes)
    if not suspects.fill_null(False).any():
        return judged
    places = suspects.fill_null(False).arg_true()
    reasons = pl.Series([_reason(text, settings) for text in judged["clean_text"].gather(places)], dtype=pl.String)
    foreign = pl.Series("_reason", [None] * len(judged), dtype=pl.String).scatter(places, reasons)
    return judged.with_columns(
        rule=pl.when(foreign.is_not_null()).then(pl.lit("language")).otherwise("rule"), reason=pl.coalesce("reason", foreign)
    )


def _reason(text: str, settings: CleaningSettings) -> str | None:
    """Why the text is not wanted, else None."""
    language, confidence = _identifier().classify(text[:LOOKED_AT])
    if language in (*settings.languages, NO_LANGUAGE) or confidence < settings.language_confidence:
        return None
    return f"the language is {language} (confidence {confidence:.2f}); wanted are: {', '.join(settings.languages)}"


def known_languages() -> tuple[str, ...]:
    """The codes (ISO 639) of all languages that can be told."""
    return tuple(sorted(set(_identifier().labels) - {NO_LANGUAGE}))


@cache
def _identifier() -> "LanguageIdentifier":
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # takes a second to load, and most pipelines do not need it

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
