"""Personal data in texts, replaced by the name of its kind: e-mail addresses, phone and card numbers, IBANs and IP addresses.

What has a checksum is replaced only where that is right, so that order numbers stay. Patterns find candidates; python-stdnum, phonenumbers
and the standard library judge them. What was found is counted and goes nowhere else.
"""

import ipaddress
import re
from collections.abc import Callable, Sequence

import polars as pl
from phonenumbers import Leniency, PhoneNumberMatcher
from stdnum import iban, luhn

from trainpipe_assets.settings import PersonalData

KINDS: tuple[PersonalData, ...] = ("email", "iban", "card", "ip", "phone")  # in the order of work: what is longest and surest first
_BETWEEN = " \u2010-\u2015\u2212-"  # within a class of characters: the blank, hyphens and dashes as word processors have them
_GAP = f"[{_BETWEEN}]?"
_OF_PHONES = (
    "x\u00ad\u2053\u2060\u223c\u30fc\uff08\uff09\uff0d-\uff0f\uff3b\uff3d"  # marks that may stand in a number beside the usual ones
)
_WORTH_A_LOOK = rf"@|\d[\d\s.:()/~\[\]{_OF_PHONES}{_BETWEEN}]{{5,}}|:[0-9A-Fa-f]*:|\b[A-Za-z]{{2}}\d{{2}}"

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.)+(?:xn--[A-Za-z0-9-]{1,59}|[^\W\d_]{2,63})(?![^\W_])")
_PLUS = re.compile("[+\uff0b]")
_IBAN = re.compile(rf"(?<!\w)[A-Za-z]{{2}}\d{{2}}(?:{_GAP}[A-Za-z0-9]{{4}}){{2,7}}(?:{_GAP}[A-Za-z0-9]{{1,4}})?(?!\w)")
_CARD = re.compile(rf"(?<![\w.-])\d{{4}}(?:{_GAP}\d{{4}}{_GAP}\d{{4}}{_GAP}\d{{1,7}}|{_GAP}\d{{6}}{_GAP}\d{{4,5}})(?!\w|[.-]\d)")
_IP = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?<![\w.:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:]|\.\d)")


def redact(texts: pl.Series, kinds: Sequence[PersonalData], region: str | None) -> pl.DataFrame:
    """`text` with the personal data of `kinds` replaced, and `n_redacted`: how many were, of all kinds.

    Args:
        texts: the texts; null stays null.
        kinds: what to look for.
        region: the country, as ISO 3166 has it, whose phone numbers may be without a country code; None takes those with a code only.
    """
    wanted = [kind for kind in KINDS if kind in kinds]
    counts = pl.zeros(len(texts), dtype=pl.Int64, eager=True).alias("n_redacted")
    untouched = pl.DataFrame([texts.alias("text"), counts])
    if not wanted:
        return untouched
    suspects = texts.str.contains(_WORTH_A_LOOK).fill_null(False)
    if not suspects.any():
        return untouched
    found = [_redact_text(text, wanted, region) for text in texts.filter(suspects)]
    places = suspects.arg_true()
    return pl.DataFrame(
        [
            texts.scatter(places, [text for text, _ in found]).alias("text"),
            counts.scatter(places, [number for _, number in found]).alias("n_redacted"),
        ]
    )


def _redact_text(text: str, kinds: Sequence[PersonalData], region: str | None) -> tuple[str, int]:
    total = 0
    for kind in kinds:
        text, number = _without_phones(text, region) if kind == "phone" else _without(text, kind)
        total += number
    return text, total


def _without(text: str, kind: PersonalData) -> tuple[str, int]:
    pattern, is_one = _JUDGED[kind]
    number = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal number
        if not is_one(match[0]):
            return match[0]
        number += 1
        return f"[{kind.upper()}]"

    return pattern.sub(replace, text), number


def _without_phones(text: str, region: str | None) -> tuple[str, int]:
    if region is None and not _PLUS.search(text):  # a country code is behind one, and the library takes long to find none
        return text, 0
    parts, end, number = [], 0, 0
    for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID, max_tries=len(text) + 1):  # by default it gives up in a table
        parts += [text[end : match.start], "[PHONE]"]
        end, number = match.end, number + 1
    return "".join([*parts, text[end:]]), number


def _is_card(candidate: str) -> bool:
    digits = re.sub(r"\D", "", candidate)
    return luhn.is_valid(digits) and len(set(digits)) > 1


def _is_ip(candidate: str) -> bool:
    """Whether it is an address; short ones of letters alone, such as a::b, are names in programs."""
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return False
    return len(candidate) > 4 and any(letter.isdigit() for letter in candidate)


_JUDGED: dict[PersonalData, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (_EMAIL, lambda candidate: True),
    "iban": (_IBAN, lambda candidate: bool(iban.is_valid(candidate))),
    "card": (_CARD, _is_card),
    "ip": (_IP, _is_ip),
}
