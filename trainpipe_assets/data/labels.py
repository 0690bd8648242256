"""What the label of a text is in each task: its one spelling, which ones are refused, and what a model learns of it.

Classes are in `class_labels.py`, sets of labels in `label_sets.py`, numbers in `targets.py`. Documents of a language model have no label.
"""

from collections.abc import Mapping
from typing import Protocol

import polars as pl

from trainpipe_assets.data.class_labels import ClassLabels
from trainpipe_assets.data.label_sets import LabelSets
from trainpipe_assets.data.targets import Targets
from trainpipe_assets.settings import CleaningSettings, Task

Rule = tuple[str, pl.Expr, pl.Expr]  # its name, where a record breaks it, and why


class Labels(Protocol):
    """The labels of one task, from records to tokens."""

    schema: pl.Schema
    """Columns of `tokenized_dataset`."""

    def __init__(self, settings: CleaningSettings) -> None: ...

    def normalised(self, label: pl.Expr) -> pl.Expr:
        """The label as text, spelled in one way only; null where it cannot be used at all."""

    def rules(self) -> list[Rule]:
        """Which records cannot be used, by `label` as it arrived and `clean_label`."""

    def differ(self, label: pl.Expr, other: pl.Expr) -> pl.Expr:
        """Whether two labels of the same text, both normalised, contradict each other."""

    def names(self, cleaned: pl.LazyFrame, column: str) -> tuple[str, ...]:
        """What a model answers, in the order of its outputs, for all examples `cleaned`; `column` is that of the source."""

    def answer(self, names: tuple[str, ...]) -> pl.Expr:
        """The column of `schema` that is learnt, from the column `label`."""


FORMS: Mapping[Task, type[Labels]] = {
    "text-classification": ClassLabels,
    "multi-label-classification": LabelSets,
    "text-regression": Targets,
}


def labels_of_task(task: Task, settings: CleaningSettings) -> Labels | None:
    """The labels of `task`; None where it has none."""
    form = FORMS.get(task)
    return form(settings) if form else None
