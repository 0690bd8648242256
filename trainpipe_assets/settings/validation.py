"""Rules about the content of the data."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, field_validator, model_validator
from pydantic_core import SchemaError

from trainpipe_assets.settings.base import Fraction, Settings


class Rule(Settings):
    """What all validation rules have."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", description="Name of the rule, as it is shown and stored.")
    severity: Literal["warn", "block"] = Field(
        default="warn",
        description="A record that breaks a rule about records is kept and counted (warn) or rejected (block). Where a rule about all "
        "records is broken, a check warns, or fails so that nothing is made from them.",
    )


class RangeRule(Rule):
    """A number of each record: `n_chars` and `n_words` of its text, or another column of the source. Null is no number and passes."""

    kind: Literal["range"]
    column: str = Field(min_length=1, description="Column with the number.")
    min: float | None = Field(default=None, allow_inf_nan=False, description="Smallest number allowed.")
    max: float | None = Field(default=None, allow_inf_nan=False, description="Largest number allowed.")

    @model_validator(mode="after")
    def _bounded(self) -> "RangeRule":
        _require_order(self.name, self.min, self.max, "min", "max")
        return self


class PatternRule(Rule):
    """What a text of each record must look like, or must not: `text` and `label` as they are cleaned, or another column. Null passes."""

    kind: Literal["pattern"]
    column: str = Field(default="text", min_length=1, description="Column with the text.")
    must_match: str | None = Field(default=None, description="Regular expression (of Rust's regex crate) that is found in it.")
    must_not_match: str | None = Field(default=None, description="Regular expression that is not found in it.")

    @model_validator(mode="after")
    def _usable(self) -> "PatternRule":
        patterns = [pattern for pattern in (self.must_match, self.must_not_match) if pattern is not None]
        if len(patterns) != 1:
            raise ValueError(f"rule {self.name} needs either must_match or must_not_match, found {len(patterns)} of them")
        try:
            TypeAdapter(Annotated[str, Field(pattern=patterns[0])])
        except SchemaError as error:
            cause = " ".join(str(error).split())[:200]
            raise ValueError(f"rule {self.name}: {patterns[0]!r} is not a regular expression of Rust's regex crate: {cause}") from error
        return self


class AllowedRule(Rule):
    """The values that a column of each record may have. Null passes."""

    kind: Literal["allowed"]
    column: str = Field(default="label", min_length=1, description="Column with the value.")
    values: tuple[str, ...] = Field(min_length=1, description="Values allowed.")


class ClassBalanceRule(Rule):
    """text-classification: the share of each label among the cleaned examples."""

    kind: Literal["class_balance"]
    min_share: Fraction | None = Field(default=None, description="Smallest share that a label may have.")
    max_share: Fraction | None = Field(default=None, description="Largest share that a label may have.")

    @model_validator(mode="after")
    def _bounded(self) -> "ClassBalanceRule":
        _require_order(self.name, self.min_share, self.max_share, "min_share", "max_share")
        return self


class NullRateRule(Rule):
    """The share of the readable records without a value in a column of the source: null, empty or blank."""

    kind: Literal["null_rate"]
    column: str = Field(min_length=1, description="Column of the source: text, label, or another by its name.")
    max: Fraction = Field(description="Largest share allowed.")

    @field_validator("column")
    @classmethod
    def _of_the_source(cls, column: str) -> str:
        if column in ("n_chars", "n_words"):
            raise ValueError(f"{column} is made from the text and is never null; use a range rule")
        return column


class RowCountRule(Rule):
    """The records of each file that came last, as a multiple of what is usual: the median of the files that came before."""

    kind: Literal["row_count"]
    min_ratio: float | None = Field(default=None, ge=0.0, description="Smallest multiple allowed.")
    max_ratio: float | None = Field(default=None, gt=0.0, description="Largest multiple allowed.")

    @model_validator(mode="after")
    def _bounded(self) -> "RowCountRule":
        _require_order(self.name, self.min_ratio, self.max_ratio, "min_ratio", "max_ratio")
        return self


def _require_order(name: str, low: float | None, high: float | None, low_setting: str, high_setting: str) -> None:
    if low is None and high is None:
        raise ValueError(f"rule {name} needs {low_setting}, {high_setting} or both, found neither")
    if low is not None and high is not None and low > high:
        raise ValueError(f"rule {name}: {low_setting} ({low:g}) is larger than {high_setting} ({high:g})")


RecordRule = RangeRule | PatternRule | AllowedRule
ValidationRule = Annotated[RecordRule | ClassBalanceRule | NullRateRule | RowCountRule, Field(discriminator="kind")]
RULES_OF_CLEANING = (
    "unreadable", "missing_text", "missing_label", "unknown_label", "not_a_list", "not_a_number", "out_of_range", "missing_completion",
    "no_conversation", "empty_text", "too_short", "too_long", "language", "conflicting_label", "duplicate", "near_duplicate",
)  # fmt: skip


class ValidationSettings(Settings):
    """Rules about the content of the data, beside those that cleaning always has."""

    rules: tuple[ValidationRule, ...] = Field(default=(), description="The rules, each a mapping with a kind; see below.")
    max_rejected_share: Fraction = Field(
        default=0.2,
        description="Share of the records that came last from which their rejection is worth a warning; those that only repeat others are "
        "not counted.",
    )

    @model_validator(mode="after")
    def _told_apart(self) -> "ValidationSettings":
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"validation.rules has more than one rule called {', '.join(twice)}; give each a name of its own")
        taken = sorted(set(names) & set(RULES_OF_CLEANING))
        if taken:
            raise ValueError(f"validation.rules cannot call a rule {', '.join(taken)}: cleaning has rules of that name; choose another")
        return self

    @property
    def record_rules(self) -> tuple[RecordRule, ...]:
        """The rules that look at one record alone, in their order."""
        return tuple(rule for rule in self.rules if isinstance(rule, RecordRule))
