"""What the examples are made of, for a report: how many of each label and of each file there are in each split."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from trainpipe_assets.schemas import SPLITS
from trainpipe_assets.settings import Task

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
    untrained: Sequence[str] = ()  # labels without an example in the training split


def composition(texts: pl.LazyFrame, task: Task, known: Sequence[str] = ()) -> Composition:
    """The composition of `texts`, which have the columns of `cleaned_features`; `known` are the labels of the model."""
    files = _parts(texts.with_columns(kind=pl.col("source_file")))
    if task == "text-classification":
        labels = _parts(texts.with_columns(kind=pl.col("label")))
    elif task == "multi-label-classification":
        labels = _parts(texts.select("split", kind=pl.col("label").str.json_decode(pl.List(pl.String))).explode("kind").drop_nulls("kind"))
    else:
        labels = []
    trained = {part.name for part in labels if part.train}
    untrained = [label for label in known if label not in trained] if labels else []
    return Composition(_together("all examples", files), _shown(labels), _shown(files), untrained)


def _parts(examples: pl.LazyFrame) -> list[Part]:
    counted = examples.group_by("kind").agg(*((pl.col("split") == split).sum().alias(split) for split in SPLITS))
    ordered = counted.sort(pl.sum_horizontal(SPLITS), "kind", descending=[True, False]).collect(engine="streaming")
    return [Part(*row) for row in ordered.iter_rows()]


def _shown(parts: list[Part]) -> list[Part]:
    others = parts[SHOWN:]
    return [*parts[:SHOWN], _together(f"{len(others):,} more", others)] if others else parts


def _together(name: str, parts: Sequence[Part]) -> Part:
    return Part(name, *(sum(getattr(part, split) for part in parts) for split in SPLITS))
