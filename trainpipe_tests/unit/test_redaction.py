"""Personal data: found with its checksum, counted, replaced before anything else sees the text; nothing that only looks like it."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stdnum import luhn

from trainpipe_assets.data.redaction import KINDS, redact


def redacted(text: str, *kinds: str, region: str | None = None) -> tuple[str, int]:
    found = redact(pl.Series([text]), kinds or KINDS, region)
    return found["text"][0], found["n_redacted"][0]


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("write to Ann.Lee+news@mail.example.co.uk, please", "write to [EMAIL], please", 1),
        ("<a@b.io> and (c_d@e-f.org).", "<[EMAIL]> and ([EMAIL]).", 2),
        ("call +44 20 7946 0958 today", "call [PHONE] today", 1),
        ("call \uff0b44 20 7946 0958 today", "call [PHONE] today", 1),
        ("call +1 (650) 253-0000 or +49 30 901820", "call [PHONE] or [PHONE]", 2),
        ("call +81ー3ー1234ー5678 or +1\u00ad650\u00ad253\u00ad0000 or +1∼650∼253∼0000", "call [PHONE] or [PHONE] or [PHONE]", 3),
        ("card 4111 1111 1111 1111.", "card [CARD].", 1),
        ("card 5500-0000-0000-0004, 378282246310005", "card [CARD], [CARD]", 2),
        ("call +1‑415‑555‑2671 or +1–650–253–0000 or +44−207−946−0958", "call [PHONE] or [PHONE] or [PHONE]", 3),
        ("card 4111‑1111‑1111‑1111, 5500–0000–0000–0004", "card [CARD], [CARD]", 2),
        ("pay to DE89-3704-0044-0532-0130-00", "pay to [IBAN]", 1),
        ("http://10.0.0.1:8080/x, 10.0.0.2:", "http://[IP]:8080/x, [IP]:", 2),
        ("pay to DE89 3704 0044 0532 0130 00 now", "pay to [IBAN] now", 1),
        ("gb29nwbk60161331926819", "[IBAN]", 1),
        ("from 192.168.0.17 and 2001:db8::8a2e:370:7334", "from [IP] and [IP]", 2),
        ("a@b.com +44 20 7946 0958 8.8.8.8", "[EMAIL] [PHONE] [IP]", 3),
        ("é ü 漢字 a@b.com 漢字", "é ü 漢字 [EMAIL] 漢字", 1),
        ("from addr:192.168.10.20, IP:10.20.30.40 or ::ffff:192.168.10.20", "from addr:[IP], IP:[IP] or ::ffff:[IP]", 3),
        ("_john@example.com_, ann@example.com- or user@example.xn--p1ai", "[EMAIL]_, [EMAIL]- or [EMAIL]", 3),
    ],
)
def test_what_is_personal_is_replaced_and_counted(text: str, expected: str, count: int) -> None:
    assert redacted(text) == (expected, count)


@pytest.mark.parametrize(
    "text",
    [
        "rated 10/10, released 2019-11-02 at 12:30:15",
        "card 4111 1111 1111 1112",  # wrong checksum
        "0000 0000 0000 0000",
        "DE89 3704 0044 0532 0130 01 has a wrong checksum",
        "version 1.2.3.4.5, 300.1.1.1 and 999.999.999.999",
        "@mention and me@ and a @ b.com",
        "std::vector, a::b and ::",
        "order 20240513-778123, ISBN 978-3-16-148410-0",
        "ratio 3:2:1",
        "",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redacted(text) == (text, 0)


def test_only_the_kinds_asked_for_are_replaced() -> None:
    assert redacted("a@b.com from 8.8.8.8", "ip") == ("a@b.com from [IP]", 1)
    found = redact(pl.Series(["a@b.com", None, "plain"]), (), None)
    assert found["text"].to_list() == ["a@b.com", None, "plain"]
    assert found["n_redacted"].to_list() == [0, 0, 0]


def test_numbers_without_a_country_code_need_a_region() -> None:
    assert redacted("ring 020 7946 0958", "phone") == ("ring 020 7946 0958", 0)
    assert redacted("ring 020 7946 0958", "phone", region="GB") == ("ring [PHONE]", 1)


def test_a_number_behind_a_long_table_of_others_is_found() -> None:
    table = " ".join(["12345678"] * 70_000)  # more than the library tries by default
    assert redacted(f"{table} call +1 650 253 0000") == (f"{table} call [PHONE]", 1)


def test_null_and_plain_texts_among_others_stay_in_place() -> None:
    found = redact(pl.Series(["plain", "a@b.com", None, "8.8.8.8 and 9.9.9.9"]), KINDS, None)
    assert found["text"].to_list() == ["plain", "[EMAIL]", None, "[IP] and [IP]"]
    assert found["n_redacted"].to_list() == [0, 1, 0, 2]


@given(st.integers(10**14, 10**15 - 1))
@settings(max_examples=200, deadline=None)
def test_a_number_of_card_length_is_replaced_if_and_only_if_its_checksum_holds(number: int) -> None:
    for digit in "0123456789":
        candidate = f"{number}{digit}"
        assert redacted(candidate, "card")[1] == int(luhn.is_valid(candidate))


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_text_is_taken_and_redacting_again_finds_nothing_more(text: str) -> None:
    once, _ = redacted(text)
    again, more = redacted(once)
    assert (again, more) == (once, 0)
