"""What every evaluation has, whatever the task, and what the history keeps of it."""

import json
from collections.abc import Mapping
from typing import Protocol

from trainpipe_assets.evaluation.candidate import Comparison
from trainpipe_assets.evaluation.gate import Verdict
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.schemas import EVAL_REPORT


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
