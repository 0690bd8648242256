"""One class of several for each text."""

import re

import polars as pl

from trainpipe_assets.schemas import TOKENIZED_DATASET
from trainpipe_assets.settings import CleaningSettings

WHOLE = re.compile(r"^([+-]?\d+)\.0+$")


def spellings(settings: CleaningSettings) -> dict[str, str]:
    """The canonical label of each spelling in lower case; without a list of labels, those that aliases lead to are canonical."""
    canonical = {name.strip().lower(): name for name in settings.labels or sorted(settings.label_aliases.values())}
    return canonical | {name.strip().lower(): canonical[target.strip().lower()] for name, target in settings.label_aliases.items()}


class ClassLabels:
    """Classes; see `labels.Labels` for the methods. Case and outer space do not matter, aliases are resolved, and 1.0 is 1.

    A column of whole numbers becomes one of floats where a value is missing; its classes stay the same.
    """

    schema = TOKENIZED_DATASET

    def __init__(self, settings: CleaningSettings) -> None:
        self.allowed = settings.labels
        named = spellings(settings)
        whole = {WHOLE.sub(r"\1", name): target for name, target in named.items()}
        self.whole = len(whole) == len(named)  # unless 1 and 1.0 are both listed
        self.spellings = {name: target for name, target in (whole if self.whole else named).items() if name != target}

    def normalised(self, label: pl.Expr) -> pl.Expr:
        """The canonical label; one that is not allowed stays as it is."""
        spelled = label.str.strip_chars().str.to_lowercase()
        spelled = spelled.map_batches(_whole, return_dtype=pl.String, is_elementwise=True) if self.whole else spelled
        return spelled.replace(list(self.spellings), list(self.spellings.values())) if self.spellings else spelled

    def rules(self) -> list[tuple[str, pl.Expr, pl.Expr]]:
        """No label, or one that is not listed."""
        allowed = pl.col("clean_label").is_in(list(self.allowed)) if self.allowed is not None else pl.lit(True)
        names = pl.lit(", ".join(self.allowed or ()))
        return [
            ("missing_label", pl.col("clean_label").fill_null("") == "", pl.lit("the label is null or empty")),
            ("unknown_label", ~allowed, pl.format("label '{}' is not one of: {}", pl.col("label").str.slice(0, 100), names)),
        ]

    def differ(self, label: pl.Expr, other: pl.Expr) -> pl.Expr:
        """Another class."""
        return label != other

    def names(self, cleaned: pl.LazyFrame, column: str) -> tuple[str, ...]:
        """The classes that are listed, else those found, sorted."""
        return self.allowed or tuple(cleaned.select(pl.col("label").unique()).collect(engine="streaming")["label"].sort().to_list())

    def answer(self, names: tuple[str, ...]) -> pl.Expr:
        """The position of the class."""
        return pl.col("label").replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int32).alias("label_id")


def _whole(labels: pl.Series) -> pl.Series:
    """Whole numbers without `.0`; most labels are no numbers, and are not looked through for one."""
    return labels.str.replace(WHOLE.pattern, "$1") if labels.str.ends_with("0").any() else labels
