"""How pictures look: colours, axes, names, and the way to PNG bytes. What they show is drawn in `plots.py` and `drift_plot.py`.

Drawn on matplotlib's own Figure objects, so that no state is shared between threads and no display is needed.
Colours are Okabe and Ito's, which colour-blind readers tell apart ("Color Universal Design", 2008).
matplotlib is imported where a picture is drawn, so that importing this module stays quick.
"""

import io
import unicodedata
import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from trainpipe_assets.evaluation.metrics import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NAME = 26  # characters of a class or slice name
DOTS_PER_INCH = 110
FONT = "DejaVu Sans"  # comes with matplotlib
OTHER_SCRIPTS = (  # free ones, then those of Windows and macOS
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Droid Sans Fallback", "WenQuanYi Zen Hei", "Noto Sans Thai",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Hiragino Sans", "Arial Unicode MS",
)  # fmt: skip
"""Fonts that have scripts which `FONT` lacks."""


@dataclass(frozen=True)
class Theme:
    """Colours of a picture, for a page of one brightness."""

    surface: str
    ink: str
    muted: str
    grid: str
    first: str
    second: str
    ramp: tuple[str, str, str]


LIGHT = Theme("#ffffff", "#1f2430", "#656d7b", "#e4e7ec", "#0072b2", "#d55e00", ("#f3f7fb", "#6aaed6", "#08519c"))
DARK = Theme("#1a1d24", "#e6e9ef", "#9aa3b2", "#343a46", "#56b4e9", "#e69f00", ("#1f2630", "#2b6c99", "#8fd0f5"))


def new_figure(width: float, height: float, theme: Theme) -> "Figure":
    """An empty picture; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor=theme.surface, layout="constrained")


def style(axes: "Axes", theme: Theme, grid_axes: str = "xy") -> None:
    """Quiet axes in the colours of the theme, with a grid along `grid_axes`."""
    axes.set_facecolor(theme.surface)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0)
    axes.xaxis.label.set_color(theme.muted)
    axes.yaxis.label.set_color(theme.muted)
    axes.set_axisbelow(True)
    for name in grid_axes:
        axes.grid(axis="x" if name == "x" else "y", color=theme.grid, linewidth=0.8)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom" and bool(grid_axes))
        spine.set_color(theme.grid)


def short(name: str) -> str:
    """A name of the user's data for a picture: on one line, printable, its middle left out where it is long."""
    visible = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in name)
    line = " ".join(visible.split()) or "(empty)"
    if len(line) <= MAX_NAME:
        return line
    half = MAX_NAME // 2 - 1
    return f"{line[:half]}…{line[-half:]}"


def png(figure: "Figure") -> bytes:
    """Draw; text is taken literally ('$' is no formula), and a script that no font of the machine has shows as boxes."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily(fonts())
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


@cache
def fonts() -> list[str]:
    """The fonts that a letter is looked for in, one after the other: of those for other scripts only the installed ones."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return [FONT, *(name for name in OTHER_SCRIPTS if name in installed)]


def edges_of(values: FloatArray, bins: int) -> FloatArray:
    """The edges of `bins` bins; of one where the values lie so close that there are not so many numbers between them."""
    edges = np.linspace(values.min(), values.max(), bins + 1)
    if len(np.unique(edges)) == bins + 1:
        return edges
    margin = max(0.5, float(np.abs(values).max()) / 100)
    return np.array([values.min() - margin, values.max() + margin])
