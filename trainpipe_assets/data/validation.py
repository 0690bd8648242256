"""The validation rules about single records: which record breaks which rule, and why.

dataframely evaluates them, batch by batch, between the rules of cleaning and the search for duplicates. Rules about all records
together, and what came of each rule, are `validation_findings.py`'s.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import polars as pl

from trainpipe_assets.data.normalisation import n_words
from trainpipe_assets.settings import (
    AllowedRule,
    ClassBalanceRule,
    NullRateRule,
    PatternRule,
    RangeRule,
    RecordRule,
    RowCountRule,
    ValidationRule,
)

if TYPE_CHECKING:
    import dataframely

OWN_COLUMNS = ("text", "label", "n_chars", "n_words")  # of a record as it is cleaned; every other name is a column of the source
WARNINGS = pl.List(pl.String)
SHOWN_CHARS = 60  # of a value, in a reason


def judge_records(judged: pl.DataFrame, rules: Sequence[RecordRule]) -> pl.DataFrame:
    """`judged` with the column `warnings`, and with `rule` and `reason` of the first blocking rule that a record breaks.

    Expects `clean_text`, `clean_label`, `extra`, `rule` and `reason`. Records that broke a rule before are not looked at.
    """
    place = pl.int_range(pl.len(), dtype=pl.UInt32).alias("_place")
    unwarned = judged.with_columns(place, warnings=pl.lit(None, WARNINGS))
    candidates = unwarned.filter(pl.col("rule").is_null())
    if not rules or candidates.is_empty():
        return unwarned.drop("_place")
    values = candidates.select("_place", *(_value(rule).alias(rule.name) for rule in rules))
    broken = _broken(values, rules)
    if broken.is_empty():
        return unwarned.drop("_place")
    blocking = [rule for rule in rules if rule.severity == "block"]
    reasons = pl.coalesce(pl.lit(None, pl.String), *(pl.when(pl.col("_rule") == rule.name).then(_reason(rule)) for rule in blocking))
    found = values.join(broken, on="_place", how="inner").select("_place", "_rule", "_warnings", _reason=reasons)
    return (
        unwarned.join(found, on="_place", how="left", maintain_order="left")
        .with_columns(pl.coalesce("rule", "_rule"), pl.coalesce("reason", "_reason"), warnings=pl.col("_warnings"))
        .drop("_place", "_rule", "_reason", "_warnings")
    )


def _value(rule: RecordRule) -> pl.Expr:
    """What the rule looks at: a number for a range, where NaN stands for what is none, else text."""
    own = {
        "text": pl.col("clean_text"),
        "label": pl.col("clean_label"),
        "n_chars": pl.col("clean_text").str.len_chars(),
        "n_words": n_words(pl.col("clean_text")),
    }
    value = own.get(rule.column)
    value = source_value(rule.column) if value is None else value
    if not isinstance(rule, RangeRule):
        return value.cast(pl.String)
    given = value.cast(pl.String).str.strip_chars()
    number = given.cast(pl.Float64, strict=False)
    return pl.when(given.is_null() | (given == "")).then(None).otherwise(number.fill_null(float("nan")))


def source_value(column: str) -> pl.Expr:
    """A column of the source, out of `extra`, as text."""
    if not set(column) & set("\\'\""):
        return pl.col("extra").str.json_path_match(f"$['{column}']")

    def value(extra: str) -> str | None:  # there is no way to write these characters in a path
        found = json.loads(extra).get(column)
        return found if found is None or isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    return pl.col("extra").map_elements(value, return_dtype=pl.String)


def _broken(values: pl.DataFrame, rules: Sequence[RecordRule]) -> pl.DataFrame:
    """The records that break any rule: `_place`, the first blocking one as `_rule`, and the names of all others as `_warnings`."""
    import dataframely  # most pipelines have no rules, and it takes most of a second to load

    columns = {f"column_{number}": _column(rule) for number, rule in enumerate(rules)}  # a rule may be called like a method of Schema
    schema = cast(
        "type[dataframely.Schema]", type("Rules", (dataframely.Schema,), {"place": dataframely.UInt32(alias="_place"), **columns})
    )
    details = schema.filter(values).failure.details()
    fails = {rule.name: _fails(details.columns, rule.name) for rule in rules}
    blocking, warning = ([rule for rule in rules if rule.severity == severity] for severity in ("block", "warn"))
    first = pl.coalesce(pl.lit(None, pl.String), *(pl.when(fails[rule.name]).then(pl.lit(rule.name)) for rule in blocking))
    named = [pl.when(fails[rule.name]).then(pl.lit(rule.name)) for rule in warning]
    warnings = pl.concat_list(pl.lit(None, pl.String), *named).list.drop_nulls()
    return details.select("_place", _rule=first, _warnings=pl.when(warnings.list.len() > 0).then(warnings))


def _column(rule: RecordRule) -> "dataframely.Column":
    """The rule in dataframely's terms."""
    import dataframely

    if isinstance(rule, RangeRule):
        return dataframely.Float64(nullable=True, alias=rule.name, min=rule.min, max=rule.max, allow_inf=True)
    if isinstance(rule, AllowedRule):
        values = list(rule.values)
        return dataframely.String(nullable=True, alias=rule.name, check=lambda column: column.is_in(values))
    if rule.must_match is not None:
        return dataframely.String(nullable=True, alias=rule.name, regex=rule.must_match)
    unwanted = str(rule.must_not_match)
    return dataframely.String(nullable=True, alias=rule.name, check=lambda column: ~column.str.contains(unwanted))


def _fails(columns: Sequence[str], name: str) -> pl.Expr:
    """Whether a record fails: dataframely judges each part of a rule in a column `NAME|PART`."""
    return pl.any_horizontal([pl.col(f"^{name}\\|.*$") == "invalid"]) if any(c.startswith(f"{name}|") for c in columns) else pl.lit(False)


def _reason(rule: RecordRule) -> pl.Expr:
    value, column, wanted = pl.col(rule.name), pl.lit(rule.column), pl.lit(allowed(rule))
    if isinstance(rule, RangeRule):
        number = pl.when(value.is_nan()).then(pl.lit("not a number")).otherwise(value.cast(pl.String).str.strip_suffix(".0"))
        return pl.format("{} is {}, allowed is {}", column, number, wanted)
    shown = value.str.slice(0, SHOWN_CHARS)
    if isinstance(rule, AllowedRule):
        return pl.format("{} is '{}', allowed is {}", column, shown, wanted)
    if rule.must_match is not None:
        return pl.format("{} '{}' does not match {}", column, shown, pl.lit(rule.must_match))
    found = value.str.extract(str(rule.must_not_match), group_index=0).str.slice(0, SHOWN_CHARS)
    return pl.format("{} has '{}', which matches {}", column, found.fill_null(""), pl.lit(str(rule.must_not_match)))


def allowed(rule: ValidationRule) -> str:
    """What the rule allows, in words."""
    if isinstance(rule, PatternRule):
        return f"what matches {rule.must_match}" if rule.must_match is not None else f"what does not match {rule.must_not_match}"
    if isinstance(rule, AllowedRule):
        return f"one of {', '.join(rule.values)}"
    low, high = bounds(rule)
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def bounds(rule: RangeRule | ClassBalanceRule | NullRateRule | RowCountRule) -> tuple[float | None, float | None]:
    """The smallest and the largest number allowed."""
    if isinstance(rule, RangeRule):
        return rule.min, rule.max
    if isinstance(rule, ClassBalanceRule):
        return rule.min_share, rule.max_share
    return (None, rule.max) if isinstance(rule, NullRateRule) else (rule.min_ratio, rule.max_ratio)
