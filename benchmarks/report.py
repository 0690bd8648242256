"""The page for people and the list for programs, both from the same measurements."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measurement import Measurement, Section

FIELDS = ("name", "value", "unit", "against", "ratio", "aim")
SIGNIFICANT = 6


def write_latest(path: Path, sections: Sequence[Section]) -> None:
    """All measurements as a JSON list of objects with the keys `FIELDS`; null where one does not apply."""
    measurements = [measurement for section in sections for measurement in section.measurements]
    path.write_text(json.dumps([as_json(measurement) for measurement in measurements], indent=2) + "\n")


def as_json(measurement: Measurement) -> dict[str, object]:
    """A measurement as it stands in `latest.json`."""
    fields = asdict(measurement)
    return {name: _rounded(fields[name]) for name in FIELDS}


def page(sections: Sequence[Section], machine: Mapping[str, str], run: str) -> str:
    """The whole page. `run` says in a sentence how and when this run was done."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`, like `benchmarks/latest.json`: do not edit. " + run,
        "The columns: what was measured, what its peer was measured at in the same run, the ratio of the two (ours divided by the "
        "peer's), and the ratio that is aimed for at least. Speeds of a shared machine drift by tens of per cent: trust ratios more than "
        "values, and ratios of pairs most.",
        "## Machine",
        "\n".join(f"- {heading}: {text}" for heading, text in machine.items()),
    ]
    for section in sections:
        parts += [f"## {section.title}", section.reading, _table(_rows(section.measurements))]
        if section.rounds:
            parts += ["Round by round:", _table(section.rounds)]
    return "\n\n".join(parts) + "\n"


def as_text(section: Section) -> str:
    """A section for the terminal."""
    return "\n".join(
        [section.title, *(" | ".join(row) for row in _rows(section.measurements)), *(" | ".join(row) for row in section.rounds)]
    )


def verdict(measurement: Measurement) -> str:
    """The aim and whether it was reached; empty where there is none."""
    if measurement.aim is None or measurement.ratio is None:
        return ""
    return f"{measurement.aim:g}, {'reached' if measurement.ratio >= measurement.aim else 'missed'}"


def _rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    rows = [
        [
            one.description,
            f"{_shown(one.value)} {one.unit}",
            _shown(one.against),
            "" if one.ratio is None else f"{one.ratio:.2f}",
            verdict(one),
        ]
        for one in measurements
    ]
    return [["measured", "value", "against", "ratio", "aim"], *rows]


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *body])


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.4f}"


def _rounded(value: object) -> object:
    return float(f"{value:.{SIGNIFICANT}g}") if isinstance(value, float) else value
