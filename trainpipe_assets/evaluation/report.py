"""The evaluation report: one self-contained HTML page for people, and a short Markdown summary of it.

Presents what `classification.py` found; decides and measures nothing. Texts and labels are hostile input: the template
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
from trainpipe_assets.evaluation.candidate import Comparison
from trainpipe_assets.evaluation.classification import Evaluation, SliceRow
from trainpipe_assets.evaluation.composition import Composition
from trainpipe_assets.evaluation.figures import DARK, LIGHT, Theme
from trainpipe_assets.evaluation.history import Judged
from trainpipe_assets.evaluation.intervals import HEADLINE_METRICS, Estimate, signed_interval, written
from trainpipe_assets.evaluation.language import LanguageEvaluation
from trainpipe_assets.settings import LOWER_IS_BETTER

TEMPLATE, LANGUAGE_TEMPLATE = "report.html.j2", "language_report.html.j2"
MAX_TEXT = 600  # characters of a text that the page shows
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "calibration_error": "Calibration error",
    "micro_f1": "Micro F1",
    "subset_accuracy": "Subset accuracy",
    "hamming_loss": "Hamming loss",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "pearson": "Pearson's r",
    "spearman": "Spearman's rho",
    "perplexity": "Perplexity",
    "token_accuracy": "Token accuracy",
}
METRIC_NOTES = {
    "accuracy": "share of examples predicted right",
    "macro_f1": "mean F1 over the classes that occur",
    "log_loss": "nats per {unit}; lower is better",
    "calibration_error": "gap of confidence and accuracy; lower is better",
    "micro_f1": "F1 over all labels together",
    "subset_accuracy": "share of examples with all labels right",
    "hamming_loss": "share of labels that are wrong; lower is better",
    "rmse": "root of the mean squared error, in the numbers' units; lower is better",
    "mae": "mean absolute error, in the numbers' units; lower is better",
    "r2": "share of the variance that is explained",
    "pearson": "correlation of the numbers",
    "spearman": "correlation of their ranks",
    "perplexity": "of the tokens to be predicted; lower is better",
    "token_accuracy": "share of them that were the most probable ones",
}


@dataclass(frozen=True)
class ReportContext:
    """What an evaluation does not know of itself: what was evaluated, and how the model came to be.

    `settings` and `lineage` are shown as they are (nested settings as JSON); `history` holds step and loss of the training,
    `validations` step, loss and the metrics of each validation, `trained_on`, `efficiency` and `warnings` what `training.json` says (as
    `examples` the first), `n_cut` how many test examples are as long as the `longest` input, in tokens. Leave out what is not known.
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
    composition: Composition | None = None
    n_cut: int = 0
    longest: int = 0
    trained_on: Mapping[str, int] = field(default_factory=dict)
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
    """The report of a classifier as one HTML document that needs nothing beside it: no script, no network, no other file."""
    confusion = drawn(_confusion_words(evaluation), lambda theme: plots.confusion_plot(evaluation.confusion, evaluation.labels, theme))
    reliability = drawn("Accuracy against confidence", lambda theme: plots.reliability_plot(evaluation.calibration, theme))
    return render(
        TEMPLATE,
        context,
        evaluation=evaluation,
        headline=headline({name: evaluation.metrics[name] for name in HEADLINE_METRICS}),
        comparison=comparison_rows(evaluation.metrics, evaluation.comparison),
        slices=_slices_by_dimension(evaluation.slices),
        mistakes=evaluation.mistakes.to_dicts(),
        unseen_classes=sum(not row.support for row in evaluation.classes),
        confusion_picture=confusion,
        reliability_picture=reliability,
        slices_picture=slices_picture(evaluation.slices, evaluation.metrics, "accuracy"),
    )


def render_language_report(evaluation: LanguageEvaluation, context: ReportContext) -> str:
    """The same of a language model."""
    return render(
        LANGUAGE_TEMPLATE,
        context,
        evaluation=evaluation,
        headline=[
            (title, note if title != METRIC_TITLES["log_loss"] else "nats per token; lower is better", estimate)
            for title, note, estimate in headline(evaluation.metrics)
        ],
        previous=comparison_rows(evaluation.metrics, evaluation.comparison),
        base=comparison_rows(evaluation.metrics, evaluation.base),
        hardest=evaluation.hardest.to_dicts(),
        slices_picture=slices_picture(evaluation.slices, evaluation.metrics, "perplexity"),
    )


def render(template: str, context: ReportContext, **values: object) -> str:
    """The page of `template`, with what every report says of the training and of where it comes from."""
    common = {
        "context": context,
        "lineage": _lineage(context),
        "curves_picture": _curves_picture(context),
        "phases_picture": _phases_picture(context),
        "dark_colour": DARK.surface,
        "light_colour": LIGHT.surface,
    }
    return _environment().get_template(template).render(common | values)


def headline(metrics: Mapping[str, Estimate]) -> list[tuple[str, str, Estimate]]:
    """Title, note and estimate of each metric."""
    unit = "label of an example" if "hamming_loss" in metrics else "token to be predicted" if "perplexity" in metrics else "example"
    return [(METRIC_TITLES[name], METRIC_NOTES[name].format(unit=unit), estimate) for name, estimate in metrics.items()]


def summary_markdown(evaluation: Judged) -> str:
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
    row = f"| {METRIC_TITLES[name]} | {written(estimate.value)} | {_interval(estimate)} |"
    if comparison is None:
        return row
    difference = comparison.differences[name]
    return f"{row} {written(comparison.metrics[name].value)} | {written(difference.value, '+')} ({signed_interval(difference)}) |"


def comparison_rows(metrics: Mapping[str, Estimate], comparison: Comparison | None) -> list[dict[str, Any]]:
    """One row a metric: this model, the other, and the difference; none without a comparison."""
    if comparison is None:
        return []
    return [
        {
            "title": METRIC_TITLES[name],
            "candidate": comparison.candidate[name],
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


def slices_picture(slices: Sequence[Any], metrics: Mapping[str, Estimate], metric: str) -> Picture | None:
    """The `metric` of each of the slices, which have a name and an attribute called like it, against that of the whole test split."""
    if not slices:
        return None
    names, estimates = [row.name for row in slices], [getattr(row, metric) for row in slices]
    words = f"{METRIC_TITLES[metric]} of each slice with its 95% interval"
    return drawn(words, lambda theme: plots.slices_plot(names, estimates, metrics[metric], metric, theme))


def _curves_picture(context: ReportContext) -> Picture | None:
    if not context.history and not context.validations:
        return None
    return drawn("Loss and validation by training step", lambda theme: plots.loss_curves(context.history, context.validations, theme))


def _phases_picture(context: ReportContext) -> Picture | None:
    if not context.efficiency:
        return None
    phases, computing = context.efficiency["phases"], context.efficiency["computing"]
    return drawn("Seconds of each phase of the training", lambda theme: plots.phases_plot(phases, computing, theme))


def _confusion_words(evaluation: Evaluation) -> str:
    return (
        f"Confusion matrix of {len(evaluation.labels)} classes on {evaluation.n_examples} examples; the table of classes holds its margins"
    )


def drawn(alt: str, draw: Callable[[Theme], bytes]) -> Picture:
    """A picture on light and on dark ground; `alt` says in words what it shows."""
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
        "number": written,
        "signed_number": lambda value: written(value, "+"),
        "interval": _interval,
        "signed_interval": signed_interval,
        "shortened": _shortened,
        "shown": _shown,
        "picture": _picture_markup,
    }
    return environment


def _interval(estimate: Estimate) -> str:
    return f"{written(estimate.low)} to {written(estimate.high)}"


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
