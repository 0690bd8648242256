"""What the examples are made of, for a report: how many of each label and of each file there are in each split."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from trainpipe_assets.settings import Task

SPLITS = ("train", "validation", "test")
SHOWN = 40  # labels, and files; the others are summed up


@dataclass(frozen=True)
class Part:
    """How many examples of one kind there are in each split."""

    name: str
    train: int
    validation: int
    test: int

    @property
    def total(self) -> int:
        """In all splits."""
        return self.train + self.validation + self.test


@dataclass(frozen=True)
class Composition:
    """All examples, and how they are spread over labels and over files, the largest first; no labels where a task has no classes."""

    everything: Part
    labels: Sequence[Part]
    files: Sequence[Part]


def composition(texts: pl.LazyFrame, task: Task) -> Composition:
    """The composition of `texts`, which have the columns of `cleaned_features`."""
    everything = _parts(texts.with_columns(kind=pl.lit("all examples")))
    files = _parts(texts.with_columns(kind=pl.col("source_file")))
    if task == "text-classification":
        labels = _parts(texts.with_columns(kind=pl.col("label")))
    elif task == "multi-label-classification":
        labels = _parts(texts.select("split", kind=pl.col("label").str.json_decode(pl.List(pl.String))).explode("kind").drop_nulls("kind"))
    else:
        labels = []
    return Composition(everything[0], labels, files)


def _parts(examples: pl.LazyFrame) -> list[Part]:
    counted = examples.group_by("kind").agg(*((pl.col("split") == split).sum().alias(split) for split in SPLITS))
    ordered = counted.sort(pl.sum_horizontal(SPLITS), "kind", descending=[True, False]).collect(engine="streaming")
    parts = [Part(*row) for row in ordered.head(SHOWN).iter_rows()]
    others = ordered.slice(SHOWN)
    return [*parts, Part(f"{others.height:,} more", *others.select(SPLITS).sum().row(0))] if others.height else parts
