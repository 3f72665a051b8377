"""Panels that several figures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap.papers.danovski2024.experiments import nearest
from pylyap.papers.danovski2024.task import Floats
from pylyap.plotting.style import canvas, entitle, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap._perturbations.series import ExpansionRates
    from pylyap.papers.danovski2024.results import Perturbed

STEP = "optimiser step"
THIN: dict[str, Any] = {"color": "0.7", "linewidth": 0.5, "zorder": 1}
DARK, LIGHT = "#31688e", "#e08214"  # two quantities in one panel
DOTS: dict[str, Any] = {  # one per step of a long series
    "color": DARK,
    "linestyle": "none",
    "marker": "o",
    "markersize": 1.4,
    "markeredgewidth": 0,
    "rasterized": True,
}


def over_time(runs: Perturbed) -> Figure:
    j = nearest(runs.eps, 1e-8)
    shown = min(3, len(runs.loss))
    with canvas((9.0, 4.4)) as figure:
        axes = figure.subplots(2, shown, sharex=True, squeeze=False)
        for r in range(shown):
            above, below = axes[:, r]
            above.plot(runs.steps, runs.loss[r], color=DARK)
            above.set_title(f"run {r + 1}")
            copies = runs.ensemble.distances[r, j] / runs.eps[j]
            below.plot(runs.steps, copies.T, **THIN)
            below.plot(runs.steps, runs.mean[r, j] / runs.eps[j], color=DARK, linewidth=1.4)
            above.set(ylim=(0, None))
            below.set(xlabel=STEP, ylim=(0, None))
        axes[0, 0].set(ylabel="loss")
        axes[1, 0].set(ylabel=rf"$d(t)\,/\,\varepsilon$, $\varepsilon$ = {size_text(runs.eps[j])}")
        title = f"{copies.shape[0]} copies (grey) and their mean; learning rate {runs.lr:g}"
        entitle(figure, [], None, title)
    return figure


def scaled_panel(ax: Axes, runs: Perturbed, r: int) -> list[Any]:
    ax.axhline(0.5, color="0.3", linewidth=0.8, linestyle=":", zorder=0)
    lines = [
        ax.plot(runs.steps, values, color=color, linewidth=1.0)[0]
        for values, color in zip(runs.scaled[r], palette(len(runs.eps)), strict=True)
    ]
    ax.set(ylim=(0, 1.08 * np.nanmax(runs.scaled[r])))
    return lines


def legend_of_sizes(figure: Figure, lines: Sequence[Any], eps: Floats) -> None:
    names = [size_text(size) for size in eps]
    figure.legend(
        lines, names, loc="outside right center", title=r"$\varepsilon$", handlelength=1.2
    )


def examples(found: ExpansionRates) -> tuple[int | None, int | None]:
    """The exponential point with the median rate, and the other point with the median R²."""
    result: list[int | None] = []
    for some, values in ((found.exponential, found.slope), (~found.exponential, found.r2)):
        those = np.flatnonzero(some & np.isfinite(values))
        middle = those[values[those].argsort()][len(those) // 2] if len(those) else None
        result.append(None if middle is None else int(middle))
    return result[0], result[1]


def example_panel(
    ax: Axes, found: ExpansionRates, point: int | None, start: int, name: str
) -> None:
    ax.set(xlabel="steps $n$", ylabel="$d_n$", yscale="log")
    if point is None:
        ax.set_title(f"{name}: no point")
        return
    steps = np.arange(found.distances.shape[1])
    ax.plot(steps, found.distances[point], ".-", color=DARK, linewidth=0.8)
    line = steps[1 : found.stop[point] + 1]
    ax.plot(line, np.exp(found.intercept[point] + found.slope[point] * line), color=LIGHT)
    n = found.n_neighbours[point]
    returns = "1 return" if n == 1 else f"{n} returns"
    ax.set_title(
        rf"{name}: step {start + found.points[point]}, {returns}, "
        rf"$\Lambda$ = {found.slope[point]:.2f}"
    )


def size_text(eps: float) -> str:
    """Format a perturbation size.

    Parameters
    ----------
    eps : float
        The size.

    Returns
    -------
    str
        Text such as ``1e-8``.
    """
    return f"{eps:.0e}".replace("e-0", "e-")


def with_error(value: float, error: float) -> str:
    """Format a number with its standard error, at the digits that the error leaves.

    Parameters
    ----------
    value, error : float
        The number and its standard error; nan if unknown.

    Returns
    -------
    str
        Text such as ``0.047 ± 0.030``.
    """
    known = np.isfinite(error) and error > 0
    digits = int(np.clip(1 - np.floor(np.log10(error)), 3, 6)) if known else 3
    rounded = round(float(value), digits) + 0.0  # no negative zero
    return f"{rounded:.{digits}f}" + (f" ± {error:.{digits}f}" if known else "")
