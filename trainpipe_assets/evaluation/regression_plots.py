"""Pictures of a regression's predictions, as PNG bytes."""

import numpy as np
from numpy.typing import NDArray

from trainpipe_assets.evaluation.figures import LIGHT, Theme, edges_of, new_figure, png, style
from trainpipe_assets.evaluation.metrics import FloatArray
from trainpipe_assets.evaluation.regression_metrics import Numbers

MAX_POINTS = 4000  # of a cloud; more are thinned evenly, in the order of the targets
RUNS = 12  # of equally many examples, whose mean residual is drawn


def prediction_plot(numbers: Numbers, target: str, training_mean: float, theme: Theme = LIGHT) -> bytes:
    """Predicted against true numbers: the diagonal is right, the dotted line always predicts the training mean."""
    figure = new_figure(5.2, 4.8, theme)
    axes = figure.subplots()
    shown = _thinned(numbers.targets)
    both = np.concatenate([numbers.targets, numbers.predicted])
    margin = 0.04 * (float(np.ptp(both)) or 1.0)
    low, high = float(both.min()) - margin, float(both.max()) + margin
    axes.plot([low, high], [low, high], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), label="perfect")
    axes.axhline(training_mean, color=theme.second, linewidth=1.2, linestyle=":", label="mean of the training split")
    axes.scatter(numbers.targets[shown], numbers.predicted[shown], s=12, alpha=_alpha(len(shown)), color=theme.first, linewidths=0)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_xlabel(f"true {target}")
    axes.set_ylabel(f"predicted {target}")
    axes.legend(loc="upper left", frameon=False, labelcolor=theme.ink, fontsize=9)
    style(axes, theme)
    return png(figure)


def residual_plot(numbers: Numbers, target: str, theme: Theme = LIGHT) -> bytes:
    """Residuals against predictions with their mean in runs of examples, and how they are spread."""
    figure = new_figure(5.2, 4.8, theme)
    top, bottom = figure.subplots(2, 1, height_ratios=(2.2, 1))
    residuals, shown = numbers.residuals, _thinned(numbers.targets)
    top.scatter(numbers.predicted[shown], residuals[shown], s=12, alpha=_alpha(len(shown)), color=theme.first, linewidths=0)
    top.axhline(0.0, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    runs = np.array_split(np.argsort(numbers.predicted, kind="stable"), min(RUNS, len(residuals)))
    means = [(float(numbers.predicted[run].mean()), float(residuals[run].mean())) for run in runs]
    top.plot(*zip(*means, strict=True), color=theme.second, linewidth=1.8, marker="s", markersize=4, label="mean")
    top.set_xlabel(f"predicted {target}")
    top.set_ylabel("predicted minus true")
    top.legend(loc="upper right", frameon=False, labelcolor=theme.ink, fontsize=9)
    bottom.hist(residuals, bins=edges_of(residuals, min(40, max(8, len(residuals) // 8))), color=theme.first)
    bottom.axvline(0.0, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    bottom.set_xlabel("predicted minus true")
    bottom.set_ylabel("examples")
    for axes in (top, bottom):
        style(axes, theme)
    return png(figure)


def _thinned(targets: FloatArray) -> NDArray[np.intp]:
    """Which examples are drawn."""
    order = np.argsort(targets, kind="stable")
    return order if len(order) <= MAX_POINTS else order[np.linspace(0, len(order) - 1, MAX_POINTS).astype(np.int64)]


def _alpha(points: int) -> float:
    return 0.75 if points <= 200 else 0.35 if points <= 1500 else 0.2
