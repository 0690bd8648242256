"""The picture of a drift comparison: the tests against their thresholds, label shares and lengths side by side."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from trainpipe_assets.evaluation.drift import DriftComparison, Shift, labelled
from trainpipe_assets.evaluation.figures import LIGHT, Theme, edges_of, new_figure, png, short, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 32  # of the lengths, up to their 99% point
MAX_LABELS = 8  # the labels whose shares moved most
TITLES = {
    "label_shift": "labels\ntotal variation",
    "length_shift": "lengths\nKolmogorov-Smirnov",
    "vocabulary_shift": "words\nJensen-Shannon, bits",
    "domain_auc": "classifier\nROC AUC",
}

NUMERIC = {"label_shift": "numbers\nKolmogorov-Smirnov"}


def drift_plot(comparison: DriftComparison, theme: Theme = LIGHT) -> bytes:
    """What the model was trained on (first colour) against what arrived (second), and what each test makes of it."""
    with_labels = labelled(comparison.reference, comparison.arrival)
    figure = new_figure(10.6 if with_labels else 7.8, 3.5, theme)
    tests, *labels, lengths = figure.subplots(1, 3 if with_labels else 2, width_ratios=(1.25, 1, 1.1) if with_labels else (1.25, 1.1))
    _draw_tests(tests, comparison.shifts, TITLES | (NUMERIC if comparison.numeric else {}), theme)
    for axes in labels:
        if comparison.numeric:
            _draw_distribution(axes, comparison.labels, _edges_of_numbers, "numbers", theme)
        else:
            _draw_labels(axes, comparison, theme)
    sides = (comparison.reference["n_chars"], comparison.arrival["n_chars"])
    _draw_distribution(lengths, sides, _edges_of_lengths, "lengths", theme)
    lengths.set_xlabel("characters")
    handles = [*lengths.get_legend_handles_labels()[0], *tests.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=theme.ink, fontsize=9)
    return png(figure)


def _draw_tests(axes: "Axes", shifts: tuple[Shift, ...], titles: Mapping[str, str], theme: Theme) -> None:
    """One bar a test, from what chance gives to what is possible at most, and its threshold as a mark."""
    rows = np.arange(len(shifts))[::-1]
    for row, shift in zip(rows, shifts, strict=True):
        reached, threshold = ((value - shift.chance) / (1.0 - shift.chance) for value in (shift.statistic, shift.threshold))
        axes.barh(row, 1.0, height=0.34, color=theme.grid)
        axes.barh(row, max(0.0, reached), height=0.34, color=theme.second if shift.drifted else theme.muted)
        axes.vlines(threshold, row - 0.27, row + 0.27, color=theme.ink, linewidth=2, label="threshold" if row == 0 else "_")
        verdict = "drift" if shift.drifted else "no drift"
        axes.text(0.0, row + 0.4, f"{shift.statistic:.2f}", color=theme.ink, fontsize=9, va="center", fontweight="bold")
        axes.text(0.12, row + 0.4, f"threshold {shift.threshold:.2f}: {verdict}", color=theme.muted, fontsize=8, va="center")
    axes.set_yticks(rows, [titles[shift.name] for shift in shifts])
    axes.set_ylim(-0.5, len(shifts) - 0.3)
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks([0.0, 1.0], ["chance", "all different"])
    chance, different = axes.get_xticklabels()
    chance.set_horizontalalignment("left")
    different.set_horizontalalignment("right")
    axes.set_title("tests", color=theme.ink, fontsize=10, loc="left")
    style(axes, theme, grid_axes="")
    axes.tick_params(axis="y", labelcolor=theme.ink)


def _draw_labels(axes: "Axes", comparison: DriftComparison, theme: Theme) -> None:
    names, shares = label_shares(*comparison.labels)
    rows = np.arange(len(names))[::-1]
    for offset, side, colour in ((0.2, 0, theme.first), (-0.2, 1, theme.second)):
        axes.barh(rows + offset, shares[side], height=0.36, color=colour)
        for row, share in zip(rows, shares[side], strict=True):
            axes.text(share + 0.01, row + offset, f"{share:.0%}", va="center", fontsize=8, color=theme.ink)
    axes.set_yticks(rows, [short(name) for name in names])
    axes.set_xlim(0.0, min(1.12, float(shares.max()) * 1.25))
    axes.set_xticks([])
    axes.set_title("label shares", color=theme.ink, fontsize=10, loc="left")
    style(axes, theme, grid_axes="")
    axes.tick_params(axis="y", labelcolor=theme.ink)


def _draw_distribution(
    axes: "Axes", sides: tuple[pl.Series, pl.Series], edges_of: Callable[[np.ndarray], np.ndarray], title: str, theme: Theme
) -> None:
    values = [side.to_numpy() for side in sides]
    edges = edges_of(np.concatenate(values))
    for found, colour, name in zip(values, (theme.first, theme.second), ("trained on", "arrived"), strict=True):
        held, _ = np.histogram(found, edges)
        axes.stairs(held / len(found), edges, color=colour, linewidth=1.6, label=f"{name} ({len(found):,})")
        axes.stairs(held / len(found), edges, color=colour, fill=True, alpha=0.12)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_yticks([])
    axes.set_title(title, color=theme.ink, fontsize=10, loc="left")
    style(axes, theme, grid_axes="x")


def _edges_of_lengths(lengths: np.ndarray) -> np.ndarray:
    """From 0 to where nearly all lengths end, in whole characters, so that no bin holds more lengths than another."""
    longest = int(np.quantile(lengths, 0.99)) + 1
    width = -(-longest // BINS)
    return np.arange(0, longest + width, width)


def _edges_of_numbers(numbers: np.ndarray) -> np.ndarray:
    """Around nearly all of the numbers."""
    return edges_of(np.clip(numbers, *np.quantile(numbers, (0.005, 0.995))), BINS)


def label_shares(reference: pl.Series, arrival: pl.Series) -> tuple[list[str], np.ndarray]:
    """The labels that moved most, by name, and their shares on both sides, [2, labels]."""
    sides = [side.fill_null("").value_counts(normalize=True, name="share") for side in (reference.rename("label"), arrival.rename("label"))]
    both = sides[0].join(sides[1], on="label", how="full", coalesce=True).fill_null(0.0)
    moved = both.sort((pl.col("share") - pl.col("share_right")).abs(), "label", descending=[True, False]).head(MAX_LABELS).sort("label")
    return moved["label"].to_list(), moved.select("share", "share_right").to_numpy().T
