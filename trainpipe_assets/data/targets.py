"""A number for each text, which a regression learns."""

import polars as pl

from trainpipe_assets.schemas import TOKENIZED_TARGETS
from trainpipe_assets.settings import CleaningSettings

SHOWN_CHARS = 100  # of a label, in a reason
LARGEST = 1e30  # models compute in 32 bits, which end at 3e38


class Targets:
    """Numbers; see `labels.Labels` for the methods. The normal form is the shortest decimal that gives the number back."""

    schema = TOKENIZED_TARGETS

    def __init__(self, settings: CleaningSettings) -> None:
        self.range = settings.target_range or (-LARGEST, LARGEST)
        self.tolerance = settings.target_tolerance

    def normalised(self, label: pl.Expr) -> pl.Expr:
        """The number as text; null where it is none, or not finite."""
        number = label.str.strip_chars().cast(pl.Float64, strict=False)
        return pl.when(number == 0.0).then(0.0).when(number.is_finite()).then(number).cast(pl.String)  # there is one zero only

    def rules(self) -> list[tuple[str, pl.Expr, pl.Expr]]:
        """No number, or one out of range."""
        given, shown = pl.col("label").fill_null("").str.strip_chars(), pl.col("label").str.slice(0, SHOWN_CHARS)
        rules = [
            ("missing_label", given == "", pl.lit("the number is null or empty")),
            ("not_a_number", pl.col("clean_label").is_null(), pl.format("'{}' is not a finite number, such as 2.5", shown)),
        ]
        low, high = self.range
        outside = ~_number(pl.col("clean_label")).is_between(low, high)
        return [*rules, ("out_of_range", outside, pl.format(f"{{}} is out of cleaning.target_range, {low:g} to {high:g}", "clean_label"))]

    def differ(self, label: pl.Expr, other: pl.Expr) -> pl.Expr:
        """Numbers further apart than what is tolerated."""
        return (_number(label) - _number(other)).abs() > self.tolerance

    def names(self, cleaned: pl.LazyFrame, column: str) -> tuple[str, ...]:
        """The column that the numbers come from."""
        return (column,)

    def answer(self, names: tuple[str, ...]) -> pl.Expr:
        """The number."""
        return _number(pl.col("label")).alias("target")


def _number(label: pl.Expr) -> pl.Expr:
    return label.cast(pl.Float64)
