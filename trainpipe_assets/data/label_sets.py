"""Any number of labels for each text, also none."""

import json

import polars as pl

from trainpipe_assets.data.class_labels import spellings
from trainpipe_assets.data.documents import is_encodable
from trainpipe_assets.schemas import TOKENIZED_LABEL_SETS
from trainpipe_assets.settings import CleaningSettings

SHOWN_CHARS = 100  # of labels, in a reason
SET = pl.List(pl.String)


class LabelSets:
    """Sets of labels; see `labels.Labels` for the methods. The normal form is a JSON list, sorted, without repetitions.

    Case and outer space do not matter, aliases are resolved.
    """

    schema = TOKENIZED_LABEL_SETS

    def __init__(self, settings: CleaningSettings) -> None:
        self.allowed = settings.labels
        self.separator = settings.label_separator
        self.spellings = spellings(settings)

    def normalised(self, label: pl.Expr) -> pl.Expr:
        """The labels by their canonical names, those that are not allowed as they are; null where it is no list of labels."""

        def normal(labels: pl.Series) -> pl.Series:
            spelled = {text: self._normal_form(text) for text in labels.unique().drop_nulls()}
            return pl.Series(labels.name, [spelled.get(text) for text in labels], dtype=pl.String)

        return label.map_batches(normal, return_dtype=pl.String, is_elementwise=True)

    def _normal_form(self, text: str) -> str | None:
        names = _parsed(text) if text.lstrip().startswith("[") else text.split(self.separator)
        spelled = [name.strip().lower() for name in names or ()]
        if names is None or (names and not any(spelled)):
            return None
        return json.dumps(sorted({self.spellings.get(name, name) for name in spelled if name}), ensure_ascii=False)

    def rules(self) -> list[tuple[str, pl.Expr, pl.Expr]]:
        """No labels, what is no list of them, or one that is not listed."""
        blank = pl.col("label").fill_null("").str.strip_chars() == ""
        shown = pl.col("label").str.slice(0, SHOWN_CHARS)
        found = [
            ("missing_label", blank, pl.lit("the labels are null or empty; [] says that there are none")),
            ("not_a_list", pl.col("clean_label").is_null(), pl.format("'{}' is no list of labels", shown)),
        ]
        if self.allowed is None:
            return found
        unknown = names_of(pl.col("clean_label")).list.eval(pl.element().filter(~pl.element().is_in(list(self.allowed))))
        listed = unknown.list.join("', '").str.slice(0, SHOWN_CHARS)
        reason = pl.format("label(s) '{}' are not among: {}", listed, pl.lit(", ".join(self.allowed)))
        return [*found, ("unknown_label", unknown.list.len() > 0, reason)]

    def differ(self, label: pl.Expr, other: pl.Expr) -> pl.Expr:
        """Another set."""
        return label != other

    def names(self, cleaned: pl.LazyFrame, column: str) -> tuple[str, ...]:
        """The labels that are listed, else those found, sorted."""
        if self.allowed:
            return self.allowed
        found = cleaned.select(pl.col("label").unique()).select(names_of(pl.col("label")).explode()).unique().collect()["label"]
        return tuple(found.drop_nulls().sort().to_list())

    def answer(self, names: tuple[str, ...]) -> pl.Expr:
        """The positions of the labels."""
        if not names:  # then all sets are empty
            return pl.lit([], dtype=pl.List(pl.Int32)).alias("label_ids")
        position = pl.element().replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int32)
        return names_of(pl.col("label")).list.eval(position).list.sort().alias("label_ids")


def names_of(label: pl.Expr) -> pl.Expr:
    """The labels of a set in its normal form, as a list."""
    return label.str.json_decode(SET)


def _parsed(text: str) -> list[str] | None:
    """The labels in a JSON list of strings, numbers and booleans; None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or not all(isinstance(name, str | int | float) for name in found) or not is_encodable(text, found):
        return None
    return [name if isinstance(name, str) else json.dumps(name) for name in found]
