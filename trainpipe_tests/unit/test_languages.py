"""The language filter: what it rejects, what it keeps for want of certainty, and how often it is wrong on hand-written sentences."""

import polars as pl
import pytest

from trainpipe_assets.data.languages import judge_languages, known_languages
from trainpipe_assets.settings import LANGUAGES, CleaningSettings

ENGLISH = CleaningSettings(languages=("en",))
OTHERS = {
    "de": (
        "Ich habe das Produkt gestern bekommen und bin sehr zufrieden.",
        "Das Wetter ist heute schön.",
        "Schlechter Service, nie wieder.",
    ),
    "fr": ("J'ai reçu le produit hier et j'en suis très content.", "Il fait beau aujourd'hui."),
    "es": (
        "Por desgracia, el aparato dejó de funcionar a las dos semanas.",
        "Muy recomendable, volveré a comprar.",
        "Hoy hace buen tiempo.",
    ),
    "it": ("Ottimo rapporto qualità prezzo, lo consiglio.", "Purtroppo l'apparecchio non funziona più.", "Oggi fa bel tempo, per fortuna."),
    "nl": ("Helaas werkt het apparaat na twee weken niet meer.", "Het is mooi weer vandaag.", "Absolute aanrader, graag weer."),
    "pt": ("Recebi o produto ontem e estou muito satisfeito.", "Péssimo atendimento, nunca mais.", "Hoje está um dia bonito."),
    "pl": ("Niestety urządzenie przestało działać po dwóch tygodniach.", "Dzisiaj jest ładna pogoda."),
    "sv": ("Tyvärr slutade apparaten fungera efter två veckor.", "Det är fint väder idag."),
    "tr": ("Maalesef cihaz iki hafta sonra bozuldu.", "Ürünü dün aldım ve çok memnunum."),
    "ru": ("Я получил товар вчера и очень доволен.", "Сегодня хорошая погода."),
    "ja": ("昨日商品を受け取りましたが、とても満足しています。",),
    "zh": ("这部电影太长了，情节毫无意义。", "今天天气很好。"),
}
KEPT = (
    "An intermittently pleasing but mostly routine effort.",
    "the phone gets great reception & has a loud speaker",
    "@SomeOne lol that's soooo funny!!! :) #fail",
    "Works as advertised, would buy it again for the price.",
    "Its maudlin ending might not have gotten him into film school in the first place.",
    "Taxes on the rich are a distraction, the senator said on Tuesday.",
)


def rejected(*texts: str, settings: CleaningSettings = ENGLISH) -> list[str | None]:
    frame = pl.DataFrame(
        {"clean_text": texts, "rule": [None] * len(texts), "reason": [None] * len(texts)},
        schema_overrides={"rule": pl.String, "reason": pl.String},
    )
    result = judge_languages(frame, settings)
    assert result["rule"].is_null().equals(result["reason"].is_null())
    assert set(result["rule"].drop_nulls()) <= {"language"}
    return result["reason"].to_list()


@pytest.mark.parametrize("language", OTHERS)
def test_other_languages_are_rejected_by_name(language: str) -> None:
    for text, reason in zip(OTHERS[language], rejected(*OTHERS[language]), strict=True):
        assert reason is not None, text
        assert reason.startswith(f"the language is {language} (confidence ")
        assert reason.endswith("wanted are: en")
    assert rejected(*OTHERS[language], settings=CleaningSettings(languages=("en", language))) == [None] * len(OTHERS[language])


def test_what_is_wanted_is_kept() -> None:
    assert rejected(*KEPT) == [None] * len(KEPT)
    assert None not in rejected(*KEPT, settings=CleaningSettings(languages=("fi",), language_confidence=0.0))


def test_nobody_can_tell_the_language_of_a_short_text() -> None:
    assert rejected("Sehr gut.", "Muy bien!", "Das Wetter ist gut.", "很好。") == [None] * 4
    assert rejected("Das Wetter ist sehr gut.", settings=CleaningSettings(languages=("en",), language_min_bytes=25)) == [None]
    assert rejected("12345 67890 12345 67890 12345", ":-) :-) :-) :-) :-) :-)") == [None, None]


def test_a_text_that_could_be_either_is_kept() -> None:
    (reason,) = rejected("Das Wetter ist heute schön.")
    assert reason is not None
    assert rejected("Service client lamentable.") == [None]  # French, and nearly English
    assert rejected("Das Wetter ist heute schön.", settings=CleaningSettings(languages=("en",), language_confidence=1.0)) == [None]


def test_records_rejected_before_are_left_alone_and_without_languages_nothing_is() -> None:
    frame = pl.DataFrame({"clean_text": [OTHERS["de"][0], None], "rule": ["too_long", "missing_text"], "reason": ["a", "b"]})
    assert judge_languages(frame, ENGLISH).equals(frame)
    assert rejected(OTHERS["de"][0], settings=CleaningSettings()) == [None]


def test_an_unknown_language_is_named_with_those_that_are_known() -> None:
    assert set(known_languages()) == LANGUAGES
    with pytest.raises(ValueError, match=r"xx cannot be told; known are: .*\ben\b"):
        CleaningSettings(languages=("en", "xx"))
    with pytest.raises(ValueError, match="languages"):
        CleaningSettings(languages=("English",))
