"""The model that is evaluated: its answers resampled, beside the previous model's, in parts, and before the gate; whatever the task."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainpipe_assets.evaluation.gate import Verdict, judge
from trainpipe_assets.evaluation.intervals import Bootstrap, Estimate, paired_difference
from trainpipe_assets.evaluation.slices import slice_masks
from trainpipe_assets.settings import LOWER_IS_BETTER, GateSettings, Task


@dataclass(frozen=True)
class Comparison:
    """The `candidate` and the previous model (`metrics`) on the same examples; a difference is candidate minus previous.

    `fixed` counts examples that only the candidate gets right, `broken` those that only the previous model did; where there is no right and
    wrong, those that either predicts better.
    """

    candidate: dict[str, Estimate]
    metrics: dict[str, Estimate]
    differences: dict[str, Estimate]
    fixed: int
    broken: int

    @property
    def values(self) -> dict[str, float]:
        """What the previous model scores, without intervals."""
        return {name: estimate.value for name, estimate in self.metrics.items()}


@dataclass(frozen=True)
class Unseen:
    """The test examples that the previous model was neither trained nor validated on (`rows` [n]), and what the verdict says of the
    others."""

    rows: NDArray[np.bool_]
    note: str


class Sample(Protocol):
    """What a model answers to n examples."""

    def take(self: "Answers", rows: NDArray[np.bool_]) -> "Answers":
        """The answers to those where `rows` [n] is true."""


Answers = TypeVar("Answers", bound=Sample)


@dataclass(frozen=True)
class Weighed:
    """The metrics of a model, its comparison with the previous one where there is one, and what the gate says to both."""

    metrics: dict[str, Estimate]
    comparison: Comparison | None
    verdict: Verdict


@dataclass(frozen=True)
class Candidate(Generic[Answers]):
    """The `answers` of the model that is evaluated.

    `resample` takes the metrics of answers and of their resamples; `better` [n] says where the first of two has the better answer.
    """

    answers: Answers
    resample: Callable[[Answers], Bootstrap]
    better: Callable[[Answers, Answers], NDArray[np.bool_]]

    @cached_property
    def resampled(self) -> Bootstrap:
        """Its metrics and those of its resamples."""
        return self.resample(self.answers)

    def against(self, previous: Answers) -> Comparison:
        """The answers of two models to the same examples, side by side."""
        others = self.resample(previous)
        return Comparison(
            candidate=self.resampled.estimates(),
            metrics=others.estimates(),
            differences={name: paired_difference(self.resampled, others, name) for name in others.values},
            fixed=int(self.better(self.answers, previous).sum()),
            broken=int(self.better(previous, self.answers).sum()),
        )

    def weighed(
        self,
        previous: Answers | None,
        unseen: Unseen | None,
        baselines: Sequence[Comparison],
        settings: GateSettings,
        task: Task,
        incomparable: str = "",
    ) -> Weighed:
        """Metrics, the comparison with the `previous` model on what that has not seen, and the verdict beside the best of `baselines`.

        Those are comparisons with answers that need no training. Where there is a previous model that cannot be compared with,
        `incomparable` says why.
        """
        metric, metrics = settings.metric_of(task), self.resampled.estimates()
        comparison = None if previous is None else self._on_unseen(previous, unseen)
        best = max if metric not in LOWER_IS_BETTER else min
        baseline = best(baselines, key=lambda other: other.metrics[metric].value)
        difference = comparison.differences[metric] if comparison else None
        note = f"; {incomparable}" if incomparable else unseen.note if unseen is not None and previous is not None else ""
        ahead = baseline.differences[metric]
        return Weighed(metrics, comparison, judge(settings, metrics, difference, baseline.metrics[metric].value, ahead, task, note))

    def parts(self, examples: pl.DataFrame, dimensions: Sequence[str]) -> Iterator[tuple[str, str, Answers]]:
        """The answers to each part of the `examples`, with its dimension and name."""
        for dimension in dimensions:
            for name, mask in slice_masks(dimension, examples):
                yield dimension, name, self.answers.take(mask)

    def _on_unseen(self, previous: Answers, unseen: Unseen | None) -> Comparison | None:
        """None where the previous model has seen all examples."""
        if unseen is None or unseen.rows.all():
            return self.against(previous)
        if not unseen.rows.any():
            return None
        return replace(self, answers=self.answers.take(unseen.rows)).against(previous.take(unseen.rows))


def require_examples(examples: pl.DataFrame, columns: Collection[str]) -> None:
    """Make sure that there is something to evaluate on.

    Raises:
        ValueError: there is no example, or one of the `columns` is missing.
    """
    missing = [name for name in columns if name not in examples.columns]
    if missing:
        raise ValueError(f"the examples of an evaluation lack the columns {missing}; found {examples.columns}")
    if examples.is_empty():
        raise ValueError("there is no example to evaluate on: the test split is empty; raise split.test or land more data")
