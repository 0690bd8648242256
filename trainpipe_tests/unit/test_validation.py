"""Validation rules: which records break which, what is said of them, and what is found of the data as a whole."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from trainpipe_assets.data.validation import judge_records
from trainpipe_assets.data.validation_findings import findings, message, require_columns
from trainpipe_assets.settings import SourceSettings, ValidationSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RATING = {"name": "sane_rating", "kind": "range", "column": "rating", "min": 1, "max": 5}
NO_LINKS = {"name": "no_links", "kind": "pattern", "must_not_match": "https?://"}


def rules(*content: dict[str, Any]) -> ValidationSettings:
    return ValidationSettings.model_validate({"rules": content})


def judged(*content: dict[str, Any], text: str = "some text", label: str = "positive", **extra: Any) -> dict[str, Any]:
    """What becomes of one record."""
    record = {"clean_text": text, "clean_label": label, "extra": json.dumps(extra), "rule": None, "reason": None}
    frame = pl.DataFrame([record], schema=dict.fromkeys(record, pl.String))
    return judge_records(frame, rules(*content).record_rules).row(0, named=True)


@pytest.mark.parametrize(
    ("rule", "record", "reason"),
    [
        (RATING, {"rating": 7}, "rating is 7, allowed is 1 to 5"),
        (RATING, {"rating": "0.5"}, "rating is 0.5, allowed is 1 to 5"),
        (RATING, {"rating": "many"}, "rating is not a number, allowed is 1 to 5"),
        (RATING, {"rating": 5}, None),
        (RATING, {"rating": None}, None),
        (RATING, {"rating": " "}, None),
        (RATING, {}, None),
        ({**RATING, "column": "n_words", "min": 3, "max": None}, {"text": "two words"}, "n_words is 2, allowed is at least 3"),
        ({**RATING, "column": "n_chars", "min": None}, {"text": "two words"}, "n_chars is 9, allowed is at most 5"),
        ({**RATING, "column": "it's odd {} $.x"}, {"it's odd {} $.x": 9}, "it's odd {} $.x is 9, allowed is 1 to 5"),
        ({**RATING, "column": "a\\b"}, {"a\\b": 9}, "a\\b is 9, allowed is 1 to 5"),
        ({**RATING, "column": "'both\" quotes"}, {"'both\" quotes": "9"}, "'both\" quotes is 9, allowed is 1 to 5"),
        ({**RATING, "column": "a\\b"}, {"a\\b": None}, None),
        (NO_LINKS, {"text": "see http://x.org now"}, "text has 'http://', which matches https?://"),
        (NO_LINKS, {"text": "see nothing"}, None),
        ({**NO_LINKS, "must_not_match": "(?x) b.d # a word"}, {"text": "a bad one"}, "text has 'bad', which matches (?x) b.d # a word"),
        ({"kind": "pattern", "column": "sku", "must_match": "^[A-Z]{2}\\d+$"}, {"sku": "a1"}, "sku 'a1' does not match ^[A-Z]{2}\\d+$"),
        ({"kind": "pattern", "column": "sku", "must_match": "^[A-Z]{2}\\d+$"}, {"sku": "AB1"}, None),
        ({"kind": "allowed", "values": ["negative"]}, {}, "label is 'positive', allowed is one of negative"),
        ({"kind": "allowed", "column": "ok", "values": ["true"]}, {"ok": False}, "ok is 'false', allowed is one of true"),
        ({"kind": "allowed", "column": "ok", "values": ["true"]}, {"ok": True}, None),
    ],
)
def test_a_rule_about_records_says_what_was_found_and_what_is_allowed(
    rule: dict[str, Any], record: dict[str, Any], reason: str | None
) -> None:
    blocked = judged({"name": "filter", **rule, "severity": "block"}, **record)
    assert blocked["reason"] == reason
    assert blocked["rule"] == (None if reason is None else rule.get("name", "filter"))
    assert blocked["warnings"] is None
    warned = judged({"name": "filter", **rule}, **record)
    assert warned["rule"] is None
    assert warned["warnings"] == (None if reason is None else [rule.get("name", "filter")])


def test_the_first_blocking_rule_decides_and_records_rejected_before_are_not_looked_at() -> None:
    names = "warned", "first", "second"
    several = [{**RATING, "name": name, "severity": "warn" if name == "warned" else "block"} for name in names]
    found = judged(*several, rating=9)
    assert (found["rule"], found["warnings"]) == ("first", ["warned"])
    columns = ("clean_text", "clean_label", "extra", "rule", "reason")
    rows = [
        ("a", "x", '{"rating": 9}', "too_short", "why"),
        ("b", "x", '{"rating": 9}', None, None),
        ("c", "x", '{"rating": 2}', None, None),
    ]
    frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    result = judge_records(frame, rules(*several).record_rules)
    assert result["clean_text"].to_list() == ["a", "b", "c"]
    assert result["rule"].to_list() == ["too_short", "first", None]
    assert result["warnings"].to_list() == [None, ["warned"], None]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({**RATING, "kind": "rnage"}, "does not match any of the expected tags: 'range', 'pattern'"),
        ({**RATING, "min": None, "max": None}, "rule sane_rating needs min, max or both"),
        ({**RATING, "min": 6}, r"min \(6\) is larger than max \(5\)"),
        ({**RATING, "name": "too_short"}, "cannot call a rule too_short"),
        ({**RATING, "severity": "error"}, "'warn' or 'block'"),
        ({**RATING, "maximum": 3}, "Extra inputs are not permitted"),
        ({**NO_LINKS, "must_not_match": "("}, r"'\(' is not a regular expression"),
        ({**NO_LINKS, "must_match": "x"}, "either must_match or must_not_match"),
        ({"name": "a", "kind": "null_rate", "column": "n_chars", "max": 0.1}, "n_chars"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_when_it_is_loaded(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        rules(rule)


def test_rules_have_names_of_their_own() -> None:
    with pytest.raises(ValidationError, match="more than one rule called sane_rating"):
        rules(RATING, RATING)


def raw_records(*files: tuple[str, int, int]) -> pl.LazyFrame:
    """Raw rows of files, each with a name, how many records it has, and the day it came."""
    schema = '{"columns": {"text": "string", "label": "string", "rating": "integer"}, "typed": false, "ordered": true}'
    rows = [
        {
            "source_file": name,
            "text": "w",
            "label": None if n % 4 == 0 else "x",
            "extra": json.dumps({"rating": None if n % 2 else n}),
            "problem": None,
            "ingested_at": NOW + timedelta(days=day),
            "source_schema": None if n else schema,
        }
        for name, count, day in files
        for n in range(count)
    ]
    return pl.LazyFrame(rows, schema_overrides={"problem": pl.String})


def found(rule: dict[str, Any], raw: pl.LazyFrame | None = None, labels: str = "", broken: tuple[str, ...] = ()) -> tuple[str, bool]:
    examples = pl.LazyFrame(
        {"label": list(labels), "warnings": [list(broken) or None] * len(labels)}, schema_overrides={"warnings": pl.List(pl.String)}
    )
    rejected = pl.LazyFrame({"rule": ["duplicate", *broken]})
    result = findings(rules({"name": "it", **rule}).rules, ("n", "p"), raw_records() if raw is None else raw, examples, rejected)
    return result["found"].item(), result["kept"].item()


def test_class_balance_looks_at_each_label_even_those_without_examples() -> None:
    rule = {"kind": "class_balance", "min_share": 0.3}
    assert found(rule, labels="nnp") == ("n 0.6667, p 0.3333", True)
    assert found(rule, labels="nnnp") == ("n 0.75, p 0.25", False)
    assert found(rule, labels="nn") == ("n 1, p 0", False)
    assert found({"kind": "class_balance", "max_share": 0.7}, labels="nnnp") == ("n 0.75, p 0.25", False)
    assert found(rule) == ("no examples", True)


def test_null_rates_are_those_of_the_source() -> None:
    raw = raw_records(("a.csv", 8, 0))
    assert found({"kind": "null_rate", "column": "rating", "max": 0.5}, raw) == ("0.5 (4 of 8 records)", True)
    assert found({"kind": "null_rate", "column": "rating", "max": 0.4}, raw) == ("0.5 (4 of 8 records)", False)
    assert found({"kind": "null_rate", "column": "label", "max": 0.2}, raw) == ("0.25 (2 of 8 records)", False)


def test_row_counts_compare_what_came_last_with_what_is_usual() -> None:
    rule = {"kind": "row_count", "min_ratio": 0.5, "max_ratio": 2}
    assert found(rule, raw_records(("a", 10, 0), ("b", 1, 0))) == ("nothing came before", True)
    usual = ("a", 10, 0), ("b", 12, 1), ("c", 90, 1)
    assert found(rule, raw_records(*usual, ("d", 12, 2)))[1]
    words, kept = found(rule, raw_records(*usual, ("d", 12, 2), ("e", 3, 2)))
    assert (words, kept) == ("0.25 times the usual (e has 3 records, usual are 12)", False)
    assert found(rule, raw_records(*usual, ("d", 12, 2), ("e", 36, 2)))[0].startswith("3 times the usual (e has 36")


def test_records_that_break_a_rule_are_counted() -> None:
    assert found({"kind": "range", "column": "n_chars", "min": 3}, labels="np", broken=("it",)) == ("3 kept with a warning", False)
    assert found({"kind": "range", "column": "n_chars", "min": 3, "severity": "block"}, broken=("it",)) == ("1 rejected", True)
    nothing = pl.LazyFrame(schema={"rule": pl.String, "label": pl.String, "warnings": pl.List(pl.String)})
    result = findings(rules({**RATING, "severity": "block"}, NO_LINKS).rules, (), raw_records(), nothing, nothing)
    assert result["records"].to_list() == [0, 0]
    assert message(result, "warn") is None


def test_a_misspelt_column_is_named_with_those_there_are() -> None:
    raw = raw_records(("a.csv", 2, 0))
    require_columns(rules(RATING, NO_LINKS).rules, raw, SourceSettings())
    there = r"which no landed file has; there are: text, label, n_chars, n_words, rating\."
    with pytest.raises(ValueError, match=f"validation rule sane_rating looks at column 'ratign', {there}"):
        require_columns(rules({**RATING, "column": "ratign"}).rules, raw, SourceSettings())


@pytest.mark.parametrize("bound", [float("nan"), float("inf")])
def test_a_bound_is_a_finite_number(bound: float) -> None:
    with pytest.raises(ValidationError, match="finite number"):
        rules({**RATING, "max": bound})
