"""A report of which only the sections differ by task: what all have in common, and tables and pictures in an order of their own.

Texts and labels are hostile input: cells are values, which the template escapes, and never markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trainpipe_assets.evaluation.history import Judged
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.evaluation.report import Picture, ReportContext, comparison_rows, headline, render

TEMPLATE = "sections_report.html.j2"


@dataclass(frozen=True)
class Quoted:
    """A text of the user's data, and where it comes from."""

    text: str
    source: str


Cell = str | int | float | Estimate | Quoted


@dataclass(frozen=True)
class SectionTable:
    """A table; cells that are numbers stand to the right. An estimate is shown with its interval."""

    header: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    title: str | None = None


@dataclass(frozen=True)
class Section:
    """A part of a report: pictures side by side, each with a caption and a question that it answers, and then tables."""

    title: str
    pictures: Sequence[tuple[str, str, Picture]] = ()
    tables: Sequence[SectionTable] = ()


def render_sections(evaluation: Judged, context: ReportContext, compared: str, baseline: str, sections: Sequence[Section]) -> str:
    """The report as one HTML document. `compared` says how many examples each model does better, `baseline` what the baseline reaches."""
    return render(
        TEMPLATE,
        context,
        evaluation=evaluation,
        headline=headline(evaluation.metrics),
        comparison=comparison_rows(evaluation.metrics, evaluation.comparison),
        compared=compared,
        baseline=baseline,
        sections=sections,
    )
