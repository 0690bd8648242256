"""One number and what it stands against, and how repeated pairs of numbers become one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Measurement:
    """A measured `value` in `unit`.

    `against` is what the peer was measured at in the same run, in the same unit; `ratio` is value / against, from pairs where the two
    were measured in pairs; `aim` is the ratio that is aimed for at least. Each of the three is None where it does not apply.
    """

    name: str
    description: str
    value: float
    unit: str
    against: float | None = None
    ratio: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Section:
    """One benchmark's part of the report: how to read it, its measurements, and single rounds as a table (header row first)."""

    title: str
    reading: str
    measurements: Sequence[Measurement]
    rounds: Sequence[Sequence[str]] = field(default_factory=tuple)


def paired(
    name: str, description: str, values: Sequence[float], against: Sequence[float], unit: str, aim: float | None = None
) -> Measurement:
    """Two things measured in turn, round by round: medians of both, and the median of each round's ratio, in which drift cancels.

    Args:
        name, description, unit, aim: as in `Measurement`.
        values: one value a round.
        against: the peer's, one a round.
    """
    ratios = [value / other for value, other in zip(values, against, strict=True)]
    return Measurement(name, description, median(values), unit, median(against), median(ratios), aim)
