"""The report of a multi-label classifier: its sections. What all reports have in common is `sections.py`'s and `report.py`'s."""

from collections.abc import Sequence
from itertools import groupby

from trainpipe_assets.evaluation.figures import LIGHT, Theme
from trainpipe_assets.evaluation.intervals import written
from trainpipe_assets.evaluation.label_sets import LabelRow, LabelSetEvaluation, LabelSetSlice
from trainpipe_assets.evaluation.plots import reliability_plot, slices_plot
from trainpipe_assets.evaluation.report import ReportContext, drawn, slices_picture
from trainpipe_assets.evaluation.sections import Cell, Quoted, Section, SectionTable, render_sections

OF_LABELS = ("probability of a label", "share of labels there")  # axes of the reliability
MAX_LABELS = 40  # of the picture; the most frequent ones


def render_label_set_report(evaluation: LabelSetEvaluation, context: ReportContext) -> str:
    """The report as one HTML document that needs nothing beside it."""
    comparison, baseline = evaluation.comparison, evaluation.baseline
    alone = "has all labels right where the other one has not on"
    compared = f"This model {alone} {comparison.fixed:,} examples, the previous one on {comparison.broken:,}." if comparison else ""
    constant = f"The better of always predicting {_named(evaluation.baseline_set)}, the most frequent set, and all labels has"
    words = f"{constant} macro F1 {written(baseline['macro_f1'])} and micro F1 {written(baseline['micro_f1'])}."
    sections = [_labels(evaluation), *_slices(evaluation), _mistakes(evaluation)]
    return render_sections(evaluation, context, compared, words, sections)


def labels_plot(evaluation: LabelSetEvaluation, theme: Theme = LIGHT) -> bytes:
    """Average precision of each label with its interval, the most frequent first, against the micro F1 of all."""
    by_support = sorted(evaluation.rows, key=lambda row: (-row.support, row.label))[:MAX_LABELS]
    shown = {f"{row.label} ({row.support:,})": row.average_precision for row in by_support if row.average_precision is not None}
    names, estimates = list(shown), list(shown.values())
    return slices_plot(names, estimates, evaluation.metrics["micro_f1"], "average_precision", theme, "micro F1 of all labels")


def _labels(evaluation: LabelSetEvaluation) -> Section:
    ranked = drawn("Average precision of each label with its 95% interval", lambda theme: labels_plot(evaluation, theme))
    reliable = drawn(
        "Share of labels that are there against their probability", lambda theme: reliability_plot(evaluation.calibration, theme, OF_LABELS)
    )
    pictures = [
        ("Average precision", "does the model rank the examples of a label first?", ranked),
        ("Reliability", "is a label of probability 80% there 80% of the time?", reliable),
    ]
    header = ("Label", "Examples", "Predicted", "Precision", "Recall", "F1", "Average precision", "ROC AUC")
    return Section("Labels", pictures, [SectionTable(header, [_row(row) for row in evaluation.rows])])


def _row(row: LabelRow) -> tuple[Cell, ...]:
    ranked: list[Cell] = ["" if value is None else value for value in (row.average_precision, row.roc_auc)]
    return row.label, row.support, row.predicted, row.precision, row.recall, row.f1, *ranked


def _slices(evaluation: LabelSetEvaluation) -> Sequence[Section]:
    picture = slices_picture(evaluation.slices, evaluation.metrics, "micro_f1")
    if picture is None:
        return []
    header = ("Slice", "Examples", "All labels right", "Micro F1")
    tables = [
        SectionTable(header, [_slice_row(one) for one in rows], f"By {dimension}")
        for dimension, rows in groupby(evaluation.slices, lambda one: one.dimension)
    ]
    return [Section("Slices", [("Micro F1", "of each slice", picture)], tables)]


def _slice_row(one: LabelSetSlice) -> tuple[Cell, ...]:
    return one.name, one.n, one.subset_accuracy, one.micro_f1


def _mistakes(evaluation: LabelSetEvaluation) -> Section:
    rows = [
        (Quoted(row["text"], f"{row['source_file']} · {row['row_id']}"), _named(row["labels"]), _named(row["predicted"]), row["loss"])
        for row in evaluation.mistakes.iter_rows(named=True)
    ]
    return Section("Most confident mistakes", tables=[SectionTable(("Text", "Labels", "Predicted", "Loss"), rows)])


def _named(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "no label"
