"""What the figures share: colours, captions, pairs of runs that end low and high."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

STEP = "optimiser step"
RATE = "nats per step"
DARK, LIGHT = "#31688e", "#e08214"  # runs that end low and high; ReLU and tanh
LOG_LOSS = r"$\log_{10} c_f$"
KINDS = {"low": DARK, "high": LIGHT}
COLORS = {"relu": DARK, "tanh": LIGHT}
_PER_INCH = 18.5  # characters of a caption


def caption(figure: Figure, text: str) -> None:
    """Write a caption below the panels.

    Parameters
    ----------
    figure : Figure
        With constrained layout.
    text : str
        Sentences; broken into lines here.
    """
    lines = textwrap.wrap(text, int(_PER_INCH * figure.get_figwidth()))
    figure.supxlabel("\n".join(lines), x=0.01, horizontalalignment="left", fontsize=7, color="0.25")


def outcome(
    low: str = "low", high: str = "high", *, dots: bool = False
) -> tuple[list[Any], list[str]]:
    """Return legend handles and labels of runs that end low and high.

    Parameters
    ----------
    low, high : str
        What the two are called.
    dots : bool, default False
        Whether runs are drawn as dots.

    Returns
    -------
    handles, labels : list
        For `Figure.legend`.
    """
    from matplotlib.lines import Line2D

    look: dict[str, Any] = {"linewidth": 1.6}
    if dots:
        look = {"linestyle": "none", "marker": "o", "markersize": 4, "markeredgewidth": 0}
    handles = [Line2D([], [], color=color, **look) for color in (DARK, LIGHT)]
    return handles, [f"{low} $c_f$", f"{high} $c_f$"]


def counts(ensemble: Any, runs: int | None = None) -> str:
    """Return how many runs end low and high.

    Parameters
    ----------
    ensemble : Ensemble
        The runs.
    runs : int, optional
        The first of them; all by default.

    Returns
    -------
    str
        Such as "ReLU, He: 215 low, 185 high".
    """
    high = ensemble.high[:runs]
    return f"{ensemble.name}: {(~high).sum()} low, {high.sum()} high"


def split_at(ensemble: Any) -> str:
    """Return where low and high are divided.

    Parameters
    ----------
    ensemble : Ensemble
        The runs.

    Returns
    -------
    str
        Such as "log₁₀ c_f = −1.84".
    """
    return f"log₁₀ c_f = {minus(np.log10(ensemble.threshold), '.2f')}"


def minus(value: float, form: str) -> str:
    """Format a number with a typographic minus sign.

    Parameters
    ----------
    value : float
        The number.
    form : str
        Format specification.

    Returns
    -------
    str
        The text.
    """
    return format(value, form).replace("-", "−")


def histogram(ax: Axes, values: Floats, edges: Floats, color: Any, **style: Any) -> Any:
    """Draw the fraction of finite values in each bin.

    Parameters
    ----------
    ax : Axes
        Where.
    values : array
        Values; those that are not finite or outside the bins count in no bin.
    edges : (m + 1,) array
        Of the bins.
    color : color
        Of the line.
    **style : dict
        Of `Axes.stairs`.

    Returns
    -------
    StepPatch
        The line.
    """
    finite = values[np.isfinite(values)]
    shares = np.histogram(finite, edges)[0] / max(finite.size, 1)
    return ax.stairs(shares, edges, color=color, **({"linewidth": 1.2} | style))


def few_ticks(ax: Axes) -> None:
    """Reduce the ticks of a small panel, whose layout takes most of the time of a figure.

    Parameters
    ----------
    ax : Axes
        The panel.
    """
    ax.tick_params(labelsize=7)
    ax.minorticks_off()
    if ax.get_xscale() == "linear":
        ax.locator_params(axis="x", nbins=4)
    if ax.get_yscale() == "linear":
        ax.locator_params(axis="y", nbins=4)


def common_edges(values: Floats, bins: int = 40, trim: float = 0.002) -> Floats:
    """Return bins from one extreme quantile of the finite values to the other.

    Parameters
    ----------
    values : array
        Values.
    bins : int, default 40
        Number of bins.
    trim : float, default 0.002
        Fraction outside the bins on each side.

    Returns
    -------
    (bins + 1,) array
        Edges.
    """
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [trim, 1.0 - trim]) if finite.size else (0.0, 1.0)
    room = 0.02 * (high - low) + 1e-12 * max(1.0, abs(high))
    edges: Floats = np.linspace(low - room, high + room, bins + 1)
    return edges
