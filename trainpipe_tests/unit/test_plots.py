"""Pictures: that they are pictures, show what they are given, and survive any name."""

import io

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry
from matplotlib.text import Text
from PIL import Image

from trainpipe_assets.evaluation import figures, plots
from trainpipe_assets.evaluation.intervals import Estimate
from trainpipe_assets.evaluation.metrics import CalibrationBin

HOSTILE = ("$\\frac{1}{0$", "<script>alert(1)</script>", "日本語 \U0001f600", "two\nlines\tand\x00more", "", "x" * 500)
BINS = (CalibrationBin(0.0, 0.5, 0, float("nan"), float("nan")), CalibrationBin(0.5, 1.0, 9, 0.8, 0.7))
HISTORY = [{"step": float(step), "loss": 1.0 / step} for step in range(1, 1001)]
VALIDATIONS = [{"step": 500.0, "loss": 0.5, "accuracy": 0.8}, {"step": 1000.0, "loss": 0.4, "accuracy": 0.9}]


def opened(png: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return image.convert("RGB")


@pytest.fixture
def drawn(monkeypatch) -> list[str]:
    """The words of the pictures that are drawn in the test."""
    words: list[str] = []
    save = Figure.savefig

    def savefig(figure: Figure, *args: object, **kwargs: object) -> None:
        save(figure, *args, **kwargs)
        words.extend(text.get_text() for text in figure.findobj(Text) if text.get_visible())

    monkeypatch.setattr(Figure, "savefig", savefig)
    return words


@pytest.mark.parametrize("theme", [figures.LIGHT, figures.DARK])
@pytest.mark.filterwarnings("error")
def test_every_picture_is_drawn_on_the_surface_of_its_theme(theme):
    estimate = Estimate(0.5, 0.4, 0.6)
    pictures = [
        plots.confusion_plot(np.array([[3, 1], [0, 4]]), ("no", "yes"), theme),
        plots.reliability_plot(BINS, theme),
        plots.loss_curves(HISTORY, VALIDATIONS, theme),
        plots.phases_plot({"forward": 30.0, "data": 0.0, "backward": 61.2}, ("forward", "backward"), theme),
        plots.slices_plot(["a", "b"], [estimate, estimate], estimate, "accuracy", theme),
        plots.history_plot(["11-22 13:05", "11-22 14:05"], [estimate, estimate], [True, False], "accuracy", theme),
    ]
    for picture in pictures:
        image = opened(picture)
        assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((2, 2))) == theme.surface
        assert len(image.getcolors(maxcolors=1_000_000)) > 20


def test_letters_that_the_usual_font_lacks_are_looked_for_in_installed_ones(monkeypatch):
    installed = [FontEntry(name=name) for name in ("Yu Gothic", "Comic Sans MS", "Noto Sans CJK JP")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist, *installed])
    figures.fonts.cache_clear()
    found = figures.fonts()
    figures.fonts.cache_clear()
    assert found[0] == "DejaVu Sans"
    assert [name for name in found if name in ("Yu Gothic", "Comic Sans MS", "Noto Sans CJK JP")] == ["Noto Sans CJK JP", "Yu Gothic"]


def test_the_same_numbers_draw_the_same_picture():
    first, second = (plots.loss_curves(HISTORY, VALIDATIONS) for _ in range(2))
    assert first == second


def test_the_confusion_matrix_shows_counts_and_shares_of_the_label(drawn):
    plots.confusion_plot(np.array([[3, 1], [0, 1234]]), ("no", "yes"))
    assert {"75%\n3", "25%\n1", "100%\n1,234", "no", "yes"} <= set(drawn)


def test_rare_classes_of_a_large_confusion_matrix_are_summed_up(drawn):
    n_classes = plots.MAX_CLASSES + 10
    matrix = np.diag(np.arange(1, n_classes + 1)) + 1
    plots.confusion_plot(matrix, [f"class {index}" for index in range(n_classes)])
    assert {"11 others", "11 others, right", "11 others, wrong"} <= set(drawn)
    assert f"class {n_classes - 1}" in drawn
    assert "class 0" not in drawn
    counts = [int(word.replace(",", "")) for word in drawn if word.replace(",", "").isdigit()]
    assert sum(counts) == matrix.sum()


def test_what_is_predicted_wrongly_among_the_rare_classes_does_not_look_right():
    n_classes = plots.MAX_CLASSES + 4
    matrix = np.diag([50] * (plots.MAX_CLASSES - 1) + [1] * 5)
    matrix[-1, -2] = 3  # one of the rare for another
    matrix[0, -1] = 2  # a frequent one for a rare one
    folded, rows, columns = plots._fold_rare(matrix, [str(index) for index in range(n_classes)])
    assert rows[-1] == "5 others"
    assert columns[-2:] == ["5 others, right", "5 others, wrong"]
    assert folded[-1, -2:].tolist() == [5, 3]
    assert folded[0, -2:].tolist() == [0, 2]
    assert folded.sum() == matrix.sum()


@pytest.mark.filterwarnings("error")
def test_names_of_any_kind_can_be_drawn(drawn):
    opened(plots.confusion_plot(np.ones((len(HOSTILE), len(HOSTILE)), dtype=np.int64), HOSTILE))
    estimate = Estimate(0.5, 0.4, 0.6)
    opened(plots.slices_plot(HOSTILE, [estimate] * len(HOSTILE), estimate, "accuracy"))
    assert "$\\frac{1}{0$" in drawn
    assert "two lines and more" in drawn
    assert max(len(word) for word in drawn if word.startswith("x")) <= figures.MAX_NAME


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("history", "validations"), [([], []), (HISTORY[:1], []), ([], VALIDATIONS[:1]), (HISTORY[:2], VALIDATIONS)])
def test_trainings_of_any_length_can_be_drawn(history, validations):
    assert opened(plots.loss_curves(history, validations)).width > 800


def test_a_long_training_is_thinned_to_means():
    steps, losses = plots._thinned(HISTORY)
    assert len(steps) == plots.MAX_POINTS
    assert steps == sorted(steps)
    assert losses[0] == pytest.approx(np.mean([row["loss"] for row in HISTORY[:4]]))


def test_the_running_mean_of_a_straight_line_is_the_line():
    line = [2.0 * index for index in range(100)]
    middle = slice(plots.SMOOTHED_OVER, -plots.SMOOTHED_OVER)
    assert plots._running_mean(line)[middle] == pytest.approx(line[middle])


@pytest.mark.filterwarnings("error")
def test_an_evaluation_without_slices_or_filled_bins_can_be_drawn():
    opened(plots.slices_plot([], [], Estimate(0.5, 0.4, 0.6), "accuracy"))
    opened(plots.reliability_plot(BINS[:1]))
