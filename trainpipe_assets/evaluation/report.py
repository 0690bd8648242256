"""The evaluation report: one self-contained HTML page for people, and a short Markdown summary of it.

Presents what `evaluate.py` found; decides and measures nothing. Texts and labels are hostile input: the template
engine escapes every value, and the page forbids itself scripts and the network.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trainpipe_assets.evaluation import plots
from trainpipe_assets.evaluation.evaluate import Comparison, Evaluation, SliceRow
from trainpipe_assets.evaluation.figures import DARK, LIGHT, Theme
from trainpipe_assets.evaluation.intervals import HEADLINE_METRICS, LOWER_IS_BETTER, Estimate
from trainpipe_assets.evaluation.language import LanguageEvaluation

TEMPLATE, LANGUAGE_TEMPLATE = "report.html.j2", "language_report.html.j2"
MAX_TEXT = 600  # characters of a text that the page shows
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
    "perplexity": "Perplexity",
    "token_accuracy": "Token accuracy",
}
METRIC_NOTES = {
    "accuracy": "share of examples predicted right",
    "macro_f1": "mean F1 over the classes",
    "log_loss": "nats per example; lower is better",
    "calibration_error": "gap of confidence and accuracy; lower is better",
    "perplexity": "of the tokens to be predicted; lower is better",
    "token_accuracy": "share of them that were the most probable ones",
}


@dataclass(frozen=True)
class ReportContext:
    """What an evaluation does not know of itself: what was evaluated, and how the model came to be.

    `settings` and `lineage` are shown as they are (nested settings as JSON); `history` holds step and loss of the training,
    `validations` step, loss and accuracy of each validation, `efficiency` and `warnings` what `training.json` says under these names.
    Leave out what is not known.
    """

    title: str
    evaluation_id: str
    evaluated_at: datetime
    model_uri: str
    model_fingerprint: str
    dataset_uri: str
    dataset_version: int
    base_model: str
    previous_model_uri: str | None = None
    previous_fingerprint: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    lineage: Mapping[str, object] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    validations: Sequence[Mapping[str, float]] = ()
    efficiency: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """One picture drawn for light and for dark pages, as data URIs, and what it shows in words."""

    light: str
    dark: str
    alt: str


def render_report(evaluation: Evaluation, context: ReportContext) -> str:
    """The report as one HTML document that needs nothing beside it: no script, no network, no other file."""
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            evaluation=evaluation,
            context=context,
            headline=[(METRIC_TITLES[name], METRIC_NOTES[name], evaluation.metrics[name]) for name in HEADLINE_METRICS],
            comparison=_comparison_rows(evaluation.metrics, evaluation.comparison),
            slices=_slices_by_dimension(evaluation.slices),
            mistakes=evaluation.mistakes.to_dicts(),
            lineage=_lineage(context),
            confusion_picture=_picture(
                _confusion_words(evaluation), lambda theme: plots.confusion_plot(evaluation.confusion, evaluation.labels, theme)
            ),
            reliability_picture=_picture(
                "Accuracy against confidence", lambda theme: plots.reliability_plot(evaluation.calibration, theme)
            ),
            slices_picture=_slices_picture(evaluation),
            curves_picture=_curves_picture(context),
            phases_picture=_phases_picture(context),
            dark_colour=DARK.surface,
            light_colour=LIGHT.surface,
        )
    )


def render_language_report(evaluation: LanguageEvaluation, context: ReportContext) -> str:
    """The same for a language model."""
    headline = [(METRIC_TITLES[name], METRIC_NOTES[name], evaluation.metrics[name]) for name in evaluation.metrics]
    overall, names = evaluation.metrics["perplexity"], [row.name for row in evaluation.slices]
    estimates = [row.perplexity for row in evaluation.slices]
    return (
        _environment()
        .get_template(LANGUAGE_TEMPLATE)
        .render(
            evaluation=evaluation,
            context=context,
            headline=[
                (title, note if title != METRIC_TITLES["log_loss"] else "nats per token; lower is better", estimate)
                for title, note, estimate in headline
            ],
            previous=_comparison_rows(evaluation.metrics, evaluation.comparison),
            base=_comparison_rows(evaluation.metrics, evaluation.base),
            hardest=evaluation.hardest.to_dicts(),
            lineage=_lineage(context),
            slices_picture=_picture(
                "Perplexity of each slice with its 95% interval",
                lambda theme: plots.slices_plot(names, estimates, overall, "perplexity", theme),
            )
            if names
            else None,
            curves_picture=_curves_picture(context),
            dark_colour=DARK.surface,
            light_colour=LIGHT.surface,
        )
    )


def summary_markdown(evaluation: Evaluation | LanguageEvaluation) -> str:
    """The headline numbers, the gate's verdict and reasons, and the comparison, as Markdown."""
    comparison = evaluation.comparison
    header = "| metric | value | 95% interval |" + (" previous | difference (95% interval) |" if comparison else "")
    lines = [
        f"**Gate {'passed' if evaluation.verdict.passed else 'failed'}** on {evaluation.n_examples:,} test examples.",
        "",
        *(f"- {reason}" for reason in evaluation.verdict.reasons),
        "",
        header,
        "| --- |" + " --- |" * (4 if comparison else 2),
        *(_summary_row(name, evaluation.metrics[name], comparison) for name in evaluation.metrics),
    ]
    return "\n".join(lines) + "\n"


def _summary_row(name: str, estimate: Estimate, comparison: Comparison | None) -> str:
    row = f"| {METRIC_TITLES[name]} | {estimate.value:.4f} | {_interval(estimate)} |"
    if comparison is None:
        return row
    difference = comparison.differences[name]
    return f"{row} {comparison.metrics[name].value:.4f} | {difference.value:+.4f} ({_signed_interval(difference)}) |"


def _comparison_rows(metrics: Mapping[str, Estimate], comparison: Comparison | None) -> list[dict[str, Any]]:
    if comparison is None:
        return []
    return [
        {
            "title": METRIC_TITLES[name],
            "candidate": metrics[name],
            "previous": comparison.metrics[name],
            "difference": comparison.differences[name],
            "meaning": _meaning(name, comparison.differences[name]),
        }
        for name in metrics
    ]


def _meaning(metric: str, difference: Estimate) -> str:
    """better or worse where the interval leaves out zero, else undecided."""
    if difference.low <= 0.0 <= difference.high:
        return "undecided"
    return "better" if (difference.value > 0.0) != (metric in LOWER_IS_BETTER) else "worse"


def _slices_by_dimension(slices: Sequence[SliceRow]) -> dict[str, list[SliceRow]]:
    grouped: dict[str, list[SliceRow]] = {}
    for row in slices:
        grouped.setdefault(row.dimension, []).append(row)
    return grouped


def _lineage(context: ReportContext) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("Evaluation", context.evaluation_id),
        ("Evaluated at", context.evaluated_at.isoformat(timespec="seconds")),
        ("Model", context.model_uri),
        ("Model fingerprint", context.model_fingerprint),
        ("Base model", context.base_model),
        ("Dataset", context.dataset_uri),
        ("Dataset version", context.dataset_version),
        ("Previous model", context.previous_model_uri),
        ("Previous fingerprint", context.previous_fingerprint),
        *context.lineage.items(),
    ]
    return [(name, value) for name, value in rows if value is not None]


def _slices_picture(evaluation: Evaluation) -> Picture | None:
    if not evaluation.slices:
        return None
    names, estimates = [row.name for row in evaluation.slices], [row.accuracy for row in evaluation.slices]
    overall = evaluation.metrics["accuracy"]
    return _picture(
        "Accuracy of each slice with its 95% interval", lambda theme: plots.slices_plot(names, estimates, overall, "accuracy", theme)
    )


def _curves_picture(context: ReportContext) -> Picture | None:
    if not context.history and not context.validations:
        return None
    return _picture("Loss and accuracy by training step", lambda theme: plots.loss_curves(context.history, context.validations, theme))


def _phases_picture(context: ReportContext) -> Picture | None:
    if not context.efficiency:
        return None
    phases, computing = context.efficiency["phases"], context.efficiency["computing"]
    return _picture("Seconds of each phase of the training", lambda theme: plots.phases_plot(phases, computing, theme))


def _confusion_words(evaluation: Evaluation) -> str:
    return (
        f"Confusion matrix of {len(evaluation.labels)} classes on {evaluation.n_examples} examples; the table of classes holds its margins"
    )


def _picture(alt: str, draw: Callable[[Theme], bytes]) -> Picture:
    return Picture(_data_uri(draw(LIGHT)), _data_uri(draw(DARK)), alt)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainpipe_assets.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": _interval,
        "signed_interval": _signed_interval,
        "shortened": _shortened,
        "shown": _shown,
        "picture": _picture_markup,
    }
    return environment


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.4f} to {estimate.high:.4f}"


def _signed_interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.4f} to {estimate.high:+.4f}"


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"


def _shown(value: object) -> str:
    """A setting as text: nested ones as JSON, all others as Python prints them."""
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, Mapping | list | tuple) else str(value)


def _picture_markup(picture: Picture) -> Markup:
    """Markup fills in escaped values, so that only what is written here is HTML."""
    return Markup('<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}"><img src="{light}" alt="{alt}"></picture>').format(
        dark=picture.dark, light=picture.light, alt=picture.alt
    )
