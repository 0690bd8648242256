"""The report of a regression: its sections. What all reports have in common is `sections.py`'s and `report.py`'s."""

from collections.abc import Sequence
from itertools import groupby

from trainpipe_assets.evaluation.intervals import written
from trainpipe_assets.evaluation.regression import RegressionEvaluation, RegressionSlice
from trainpipe_assets.evaluation.regression_plots import prediction_plot, residual_plot
from trainpipe_assets.evaluation.report import ReportContext, drawn, slices_picture
from trainpipe_assets.evaluation.sections import Cell, Quoted, Section, SectionTable, render_sections


def render_regression_report(evaluation: RegressionEvaluation, context: ReportContext) -> str:
    """The report as one HTML document that needs nothing beside it."""
    comparison, baseline = evaluation.comparison, evaluation.baseline
    compared = f"This model is nearer to {comparison.fixed:,} examples, the previous one to {comparison.broken:,}." if comparison else ""
    constant = f"Always predicting {written(evaluation.training_mean)}, the mean of the training split, has"
    words = f"{constant} RMSE {written(baseline['rmse'])} and MAE {written(baseline['mae'])}."
    sections = [_predictions(evaluation), *_slices(evaluation), _furthest_off(evaluation)]
    return render_sections(evaluation, context, compared, words, sections)


def _predictions(evaluation: RegressionEvaluation) -> Section:
    numbers, target = evaluation.numbers, evaluation.target
    against = drawn(f"Predicted against true {target}", lambda theme: prediction_plot(numbers, target, evaluation.training_mean, theme))
    residuals = drawn("Residuals against predictions, and their histogram", lambda theme: residual_plot(numbers, target, theme))
    pictures = [("Predicted and true", "one point an example", against), ("Residuals", "is it off in one direction somewhere?", residuals)]
    return Section("Predictions", pictures)


def _slices(evaluation: RegressionEvaluation) -> Sequence[Section]:
    picture = slices_picture(evaluation.slices, evaluation.metrics, "rmse")
    if picture is None:
        return []
    header = ("Slice", "Examples", "RMSE", "MAE", "Mean residual")
    tables = [
        SectionTable(header, [_row(one) for one in rows], f"By {dimension}")
        for dimension, rows in groupby(evaluation.slices, lambda one: one.dimension)
    ]
    return [Section("Slices", [("RMSE", "of each slice", picture)], tables)]


def _row(one: RegressionSlice) -> tuple[Cell, ...]:
    return one.name, one.n, one.rmse, one.mae, one.bias


def _furthest_off(evaluation: RegressionEvaluation) -> Section:
    rows = [
        (Quoted(row["text"], f"{row['source_file']} · {row['row_id']}"), row["target"], row["predicted"], row["residual"])
        for row in evaluation.mistakes.iter_rows(named=True)
    ]
    return Section("Furthest off", tables=[SectionTable(("Text", "True", "Predicted", "Residual"), rows)])
