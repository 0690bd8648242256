"""What every evaluation has, whatever the task: metrics, a comparison, a verdict; and what the history keeps of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.intervals import Bootstrap, Estimate, paired_difference
from trainpipe_assets.schemas import EVAL_REPORT


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


@dataclass(frozen=True)
class Unseen:
    """The test examples that the previous model was neither trained nor validated on (`rows` [n]), and what the verdict says of the
    others."""

    rows: NDArray[np.bool_]
    note: str


def note_of(unseen: Unseen | None, previous: object | None) -> str:
    """What the verdict says of examples that were left out of the comparison with the answers of the `previous` model, if there are any."""
    return unseen.note if unseen is not None and previous is not None else ""


class Sample(Protocol):
    """What a model answers to n examples."""

    def take(self: "Answers", rows: NDArray[np.bool_]) -> "Answers":
        """The answers to those where `rows` [n] is true."""


Answers = TypeVar("Answers", bound=Sample)


def compare(
    candidate: Answers,
    resampled: Bootstrap,
    previous: Answers,
    unseen: Unseen | None,
    resample: Callable[[Answers], Bootstrap],
    better: Callable[[Answers, Answers], NDArray[np.bool_]],
) -> Comparison | None:
    """The answers of two models side by side, on what the previous one has not seen; None where it has seen all.

    `resample` takes the metrics of answers and of their resamples, as `resampled` are the candidate's; `better` [n] says where the first of
    two has the better answer.
    """
    if unseen is not None and not unseen.rows.all():
        if not unseen.rows.any():
            return None
        candidate, previous = candidate.take(unseen.rows), previous.take(unseen.rows)
        resampled = resample(candidate)
    others = resample(previous)
    return Comparison(
        candidate=resampled.estimates(),
        metrics=others.estimates(),
        differences={name: paired_difference(resampled, others, name) for name in others.values},
        fixed=int(better(candidate, previous).sum()),
        broken=int(better(previous, candidate).sum()),
    )


class Judged(Protocol):
    """What every evaluation has."""

    @property
    def n_examples(self) -> int:
        """Test examples."""

    @property
    def metrics(self) -> Mapping[str, Estimate]:
        """The headline metrics."""

    @property
    def comparison(self) -> Comparison | None:
        """With the previous model."""

    @property
    def verdict(self) -> Verdict:
        """The gate's."""

    def history_fields(self) -> dict[str, object]:
        """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides."""


def history_fields(n_examples: int, metrics: Mapping[str, Estimate], verdict: Verdict) -> dict[str, object]:
    """The fields of a row of `schemas.EVAL_REPORT` that an evaluation decides; the others say what was evaluated.

    A metric has a column of its own only where the table has one of its name; `metrics` holds all of them.
    """
    values: dict[str, object] = {name: estimate.value for name, estimate in metrics.items() if name in EVAL_REPORT}
    return values | {
        "n_examples": n_examples,
        "metrics": json.dumps({name: estimate.as_dict() for name, estimate in metrics.items()}),
        "gate_passed": verdict.passed,
        "gate_reasons": json.dumps(list(verdict.reasons), ensure_ascii=False),
    }
