"""Pictures of an evaluation and of a training, as PNG bytes: numbers in, pictures out. How they look is `figures.py`'s."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainpipe_assets.evaluation.figures import LIGHT, Theme, new_figure, png, short, style
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.evaluation.metrics import CalibrationBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CLASSES = 16  # of a confusion matrix; the rarer classes share its last row and column
MAX_POINTS = 300  # of a loss curve; more are averaged in runs
VALIDATED = {
    "accuracy": "accuracy",
    "micro_f1": "micro F1",
    "rmse": "RMSE",
}  # the metric beside the loss of validations: the first that they have
SMOOTHED_OVER = 25  # points of a loss curve that its running mean spans


def confusion_plot(matrix: NDArray[np.int64], labels: Sequence[str], theme: Theme = LIGHT) -> bytes:
    """A confusion matrix [label, predicted]: colour is the share of the row, text is the count, with the share where there is room.

    Beyond `MAX_CLASSES` classes the rarest are summed up as one, with what was predicted rightly and wrongly of them apart.
    """
    from matplotlib.colors import LinearSegmentedColormap

    matrix, names, columns = _fold_rare(matrix, [short(label) for label in labels])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = min(8.5, max(4.6, 2.2 + 0.62 * len(columns)))
    figure = new_figure(size + 0.6, size - 0.5, theme)
    axes = figure.subplots()
    style(axes, theme, grid_axes="")
    ramp = LinearSegmentedColormap.from_list("ramp", theme.ramp)
    axes.imshow(shares, cmap=ramp, vmin=0.0, vmax=1.0, aspect="auto")
    _write_cells(axes, matrix, shares, theme)
    level = _fit_side_by_side(columns)
    axes.set_xticks(range(len(columns)), columns, rotation=0 if level else 40, ha="center" if level else "right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color=theme.surface, linewidth=2)
    axes.tick_params(which="both", length=0, labelcolor=theme.ink)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    return png(figure)


def reliability_plot(bins: Sequence[CalibrationBin], theme: Theme = LIGHT, names: tuple[str, str] = ("confidence", "accuracy")) -> bytes:
    """Accuracy against confidence in each bin, and below it how the examples are spread over the bins; `names` of the two axes."""
    figure = new_figure(5.2, 4.6, theme)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
    held = [b for b in bins if b.count]
    top.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), label="perfectly calibrated")
    total = max(1, sum(b.count for b in bins))
    confidence, share_right = [b.mean_confidence for b in held], [b.accuracy for b in held]
    top.vlines(confidence, confidence, share_right, color=theme.second, linewidth=2, label="gap")
    top.plot(confidence, share_right, color=theme.first, linewidth=1.2)
    top.scatter(confidence, share_right, s=[24 + 200 * b.count / total for b in held], color=theme.first, zorder=3, label="bin, by size")
    top.set_ylim(-0.06, 1.06)
    top.set_xlim(-0.03, 1.03)
    top.set_ylabel(names[1])
    top.legend(loc="upper left", frameon=False, labelcolor=theme.ink, fontsize=9)
    bottom.bar([(b.low + b.high) / 2 for b in bins], [b.count / total for b in bins], width=0.92 / len(bins), color=theme.first)
    bottom.set_ylabel("share")
    bottom.set_xlabel(names[0])
    for axes in (top, bottom):
        style(axes, theme)
    return png(figure)


def loss_curves(history: Sequence[Mapping[str, float]], validations: Sequence[Mapping[str, float]], theme: Theme = LIGHT) -> bytes:
    """Training loss by step (`history`: step, loss) and validation loss (`validations`: step, loss, and a metric of `VALIDATED`).

    The metric has a panel of its own, since a second axis would suggest a relation that is not there.
    """
    figure = new_figure(8.4, 3.3, theme)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    steps, losses = _thinned(history)
    many = len(steps) > SMOOTHED_OVER
    left.plot(steps, losses, color=theme.first, linewidth=1, alpha=0.35 if many else 1.0, marker="" if many else ".", label="training")
    if many:
        left.plot(steps, _running_mean(losses), color=theme.first, linewidth=1.8, label="training, running mean")
    at = [row["step"] for row in validations]
    if at:
        left.plot(at, [row["loss"] for row in validations], color=theme.second, marker="s", markersize=6, linewidth=1.6, label="validation")
        metric = next(name for name in VALIDATED if validations[0].get(name) is not None)
        right.plot(at, [row[metric] for row in validations], color=theme.second, marker="s", markersize=6, linewidth=1.6)
        right.set_ylabel(f"validation {VALIDATED[metric]}")
    left.set_ylabel("loss")
    left.legend(loc="upper right", frameon=False, labelcolor=theme.ink, fontsize=9)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlim(0, max([1.0, *steps, *at]) * 1.03)
        style(axes, theme)
    return png(figure)


def slices_plot(
    names: Sequence[str],
    estimates: Sequence[Estimate],
    overall: Estimate,
    metric: str,
    theme: Theme = LIGHT,
    dashed: str = "whole test split",
) -> bytes:
    """The estimate of each slice with its interval, against the overall one (line and band), which `dashed` names."""
    figure = new_figure(8.4, 1.1 + 0.34 * max(1, len(names)), theme)
    axes = figure.subplots()
    rows = np.arange(len(names))[::-1]
    values = np.array([estimate.value for estimate in estimates], dtype=float)
    below = values - np.array([estimate.low for estimate in estimates], dtype=float)
    above = np.array([estimate.high for estimate in estimates], dtype=float) - values
    axes.axvspan(overall.low, overall.high, color=theme.grid, linewidth=0, zorder=0)
    axes.axvline(overall.value, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    axes.errorbar(values, rows, xerr=np.maximum([below, above], 0), fmt="o", color=theme.first, markersize=6, elinewidth=2, capsize=0)
    axes.set_yticks(rows, [short(name) for name in names])
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"{metric.replace('_', ' ')} (dashed: {dashed})")
    style(axes, theme, grid_axes="x")
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    return png(figure)


def history_plot(names: Sequence[str], estimates: Sequence[Estimate], passed: Sequence[bool], metric: str, theme: Theme = LIGHT) -> bytes:
    """The estimate of each of several evaluations with its interval, in the order of time; hollow where the gate refused the model."""
    figure = new_figure(max(4.2, min(8.4, 2.0 + 0.7 * len(names))), 3.0, theme)
    axes = figure.subplots()
    values = [estimate.value for estimate in estimates]
    axes.plot(range(len(names)), values, color=theme.grid, linewidth=1.2, zorder=1)
    for at, (estimate, good) in enumerate(zip(estimates, passed, strict=True)):
        colour = theme.first if good else theme.second
        axes.vlines(at, estimate.low, estimate.high, color=colour, linewidth=2, zorder=2)
        axes.scatter(at, estimate.value, s=44, color=colour if good else theme.surface, edgecolors=colour, linewidths=1.6, zorder=3)
    axes.set_xticks(
        range(len(names)),
        [short(name) for name in names],
        rotation=0 if len(names) <= 4 else 40,
        ha="center" if len(names) <= 4 else "right",
    )
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.set_ylabel(metric.replace("_", " "))
    axes.set_xlabel("evaluated at (hollow: refused by the gate)")
    style(axes, theme, grid_axes="y")
    return png(figure)


def phases_plot(phases: Mapping[str, float], computing: Sequence[str], theme: Theme = LIGHT) -> bytes:
    """The seconds of each phase of a training with its share of all; the phases in `computing` have a colour of their own."""
    figure = new_figure(8.4, 0.7 + 0.3 * max(1, len(phases)), theme)
    axes = figure.subplots()
    rows, seconds, total = np.arange(len(phases))[::-1], list(phases.values()), sum(phases.values()) or 1.0
    bars = axes.barh(rows, seconds, height=0.62, color=[theme.first if name in computing else theme.second for name in phases])
    axes.bar_label(bars, [f"{one:,.1f} s, {one / total:.0%}" for one in seconds], padding=4, color=theme.ink, fontsize=9)
    axes.set_yticks(rows, list(phases))
    axes.set_xlim(0, max([*seconds, 1e-9]) * 1.2)
    axes.set_xlabel("seconds")
    style(axes, theme, grid_axes="x")
    axes.tick_params(axis="y", length=0, labelcolor=theme.ink)
    return png(figure)


def _write_cells(axes: "Axes", matrix: NDArray[np.int64], shares: NDArray[np.float64], theme: Theme) -> None:
    """Share and count in each cell; a cell without examples stays empty."""
    few = len(matrix) <= 8
    dark_page = theme.surface != LIGHT.surface
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            strong = shares[row, column] > (0.6 if dark_page else 0.5)
            colour = theme.surface if strong else theme.ink
            text = f"{shares[row, column]:.0%}\n{count:,}" if few else f"{count:,}"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9 if few else 7.5, linespacing=1.4)


def _fold_rare(matrix: NDArray[np.int64], names: list[str]) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """The matrix and the names of its rows and columns, all but the most frequent classes summed up: into one row, and into two columns."""
    if len(names) <= MAX_CLASSES:
        return matrix, names, names
    order = np.argsort(-matrix.sum(axis=1), kind="stable")
    kept = np.sort(order[: MAX_CLASSES - 1])
    rest = MAX_CLASSES - 1
    group = np.full(len(names), rest)
    group[kept] = np.arange(rest)
    folded = np.zeros((MAX_CLASSES, MAX_CLASSES + 1), dtype=np.int64)
    wrong = (group == rest)[None, :] & ~np.eye(len(names), dtype=bool)
    np.add.at(folded, (group[:, None], np.where(wrong, rest + 1, group[None, :])), matrix)
    shown, others = [names[i] for i in kept], f"{len(names) - len(kept)} others"
    return folded, [*shown, others], [*shown, f"{others}, right", f"{others}, wrong"]


def _thinned(history: Sequence[Mapping[str, float]]) -> tuple[list[float], list[float]]:
    """Steps and losses of the training, means of equal runs of entries where there are more than `MAX_POINTS`."""
    points = np.array([(row["step"], row["loss"]) for row in history], dtype=float).reshape(-1, 2)
    if len(points) > MAX_POINTS:
        points = np.array([run.mean(axis=0) for run in np.array_split(points, MAX_POINTS)])
    return points[:, 0].tolist(), points[:, 1].tolist()


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of the `SMOOTHED_OVER` values around each, of fewer at both ends."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    starts, ends = np.maximum(at - SMOOTHED_OVER // 2, 0), np.minimum(at + SMOOTHED_OVER // 2 + 1, len(values))
    means: list[float] = ((sums[ends] - sums[starts]) / (ends - starts)).tolist()
    return means


def _fit_side_by_side(names: list[str]) -> bool:
    return max(map(len, names)) <= (12 if len(names) <= 4 else 5)
