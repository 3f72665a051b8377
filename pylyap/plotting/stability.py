"""Pictures of stability maps and of the dimension of their borders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import Floats, palette, setting_in_words, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pylyap.stability_maps import BoxDimension, StabilityMap, UncertaintyExponent

# Ends of the two scales in CIELAB, dark blues and light oranges: straight lines, so that equal
# steps look equal. Lightness alone tells them apart, in print without colours as well.
_CONVERGED = (10.0, 14.0, -32.0), (54.0, -6.0, -40.0)
_DIVERGED = (96.0, -4.0, 22.0), (62.0, 38.0, 62.0)
_SHADES = 128  # of each scale
_NARROW = 0.05  # relative width of a range whose ticks are written as differences
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)  # ranks at which scores are written


@plots("StabilityMap")
def plot_stability(
    found: StabilityMap, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Which runs of a map converge, and how fast.

    Runs that converged are blue, others orange. Colours follow the rank of the score among the runs
    that end alike, so that all of a scale is used: the fastest runs of both kinds have the
    strongest colours, at the ends of the scales, and the slowest, as at the border, the middle
    ones. Both scales are perceptually uniform, and differ in lightness.

    Parameters
    ----------
    found : StabilityMap
        Result of `stability_map`.
    title : str, optional
        Title above the map.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent())
    >>> rates = (0.01, 10.0, "log")
    >>> found = pl.stability_map(system, ("lr_0", rates), ("lr_1", rates), (8, 8), n_steps=40)
    >>> figure = pl.plotting.plot_stability(found)
    >>> figure.axes[0].get_xlabel()
    'learning rate of layer 0'
    """
    from matplotlib.colors import ListedColormap

    score = np.asarray(found.score)
    converged = np.asarray(found.converged) == 1
    ranks, levels = _ranks(score, converged)
    # The first half of the colours is for converged runs, from fast to slow.
    shade = np.where(converged, 0.5 * ranks, 1.0 - 0.5 * ranks)
    colors = ListedColormap(np.concatenate([_scale(*_CONVERGED), _scale(*_DIVERGED)]))
    shade = np.clip(shade, *np.where(converged, [[[0.0]], [[0.4999]]], [[[0.5]], [[1.0]]]))
    y, x = found.dims
    with sheet((6.6, 5.0), target) as page:
        ax = page.single()
        mesh = ax.pcolormesh(
            _edges(found.coords[x], _scale_of(found, "x")),
            _edges(found.coords[y], _scale_of(found, "y")),
            np.ma.array(shade, mask=np.isnan(score)),  # runs that a study has not done yet
            cmap=colors,
            vmin=0.0,
            vmax=1.0,
            rasterized=True,
        )
        ax.set(xlabel=setting_in_words(x), ylabel=setting_in_words(y))
        _axis(ax, "x", _scale_of(found, "x"))
        _axis(ax, "y", _scale_of(found, "y"))
        if page.own:
            _key(page.figure, ax, mesh, levels)
        page.entitle([], None, title)
    return page.figure


@plots("BoxDimension")
def plot_box_dimension(
    found: BoxDimension, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Counts of boxes that contain the border, against their size.

    The line has the estimated slope. Points that leave it in one direction show that there is no
    power law over these scales.

    Parameters
    ----------
    found : BoxDimension
        Result of `box_dimension`.
    title : str, optional
        Title above the plot.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there is no border.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> y, x = np.mgrid[:257, :257]
    >>> figure = pl.plotting.plot_box_dimension(pl.box_dimension(y > 0.3 * x + 80))
    >>> figure.axes[0].get_ylabel()
    'boxes with the border'
    """
    _require_border(found.counts, found.reason)
    with sheet((5.0, 3.8), target) as page:
        ax = page.single()
        name = f"dimension {found.dimension:.3f} ± {found.stderr:.3f}"
        _power_law(ax, found.sizes, found.counts, -found.dimension, name)
        ax.set(xlabel="side of a box, pixels", ylabel="boxes with the border")
        page.entitle([], None, title)
    return page.figure


@plots("UncertaintyExponent")
def plot_uncertainty(
    found: UncertaintyExponent, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Fractions of pairs that end differently, against their distance.

    The line has the estimated slope. Points that leave it in one direction show that there is no
    power law over these scales.

    Parameters
    ----------
    found : UncertaintyExponent
        Result of `uncertainty_exponent`.
    title : str, optional
        Title above the plot.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there is no border.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> y, x = np.mgrid[:257, :257]
    >>> figure = pl.plotting.plot_uncertainty(pl.uncertainty_exponent(y > 0.3 * x + 80))
    >>> figure.axes[0].get_ylabel()
    'fraction of pairs that differ'
    """
    _require_border(found.fractions, found.reason)
    with sheet((5.0, 3.8), target) as page:
        ax = page.single()
        name = f"exponent {found.exponent:.3f} ± {found.stderr:.3f}"
        _power_law(ax, found.distances, found.fractions, found.exponent, name)
        ax.set(xlabel="distance, pixels", ylabel="fraction of pairs that differ")
        page.entitle([], None, title)
    return page.figure


def _require_border(values: Any, reason: str) -> None:
    if not (np.asarray(values) > 0).any():
        raise ArgumentError("found", f"must have a border, got none: {reason}")


def _power_law(ax: Axes, scales: Any, values: Any, slope: float, name: str) -> None:
    """Points, and a line of this slope (if it is not nan) through them."""
    (color,) = palette(1)
    x, y = np.asarray(scales, float), np.asarray(values, float)
    some = y > 0
    ax.plot(x[some], y[some], "o", color=color, markersize=5)
    if np.isfinite(slope):
        level = np.average(np.log(y[some]) - slope * np.log(x[some]), weights=1.0 / x[some])
        ax.plot(x, np.exp(level) * x**slope, color=color, linewidth=1.2, label=name)
        ax.legend()
    ax.set(xscale="log", yscale="log")
    tidy_log_axis(ax.xaxis)
    tidy_log_axis(ax.yaxis)


def _ranks(score: Floats, converged: Any) -> tuple[Floats, dict[bool, Floats]]:
    """Rank of |score| among the runs that end alike, 0 … 1, and |score| at some ranks."""
    ranks, levels = np.zeros(score.shape), {}
    for kind in (True, False):
        chosen = (converged == kind) & ~np.isnan(score)
        values = np.abs(score[chosen])
        if not values.size:
            continue
        ordered = np.sort(values)
        places = np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")
        ranks[chosen] = (places - 1) / max(2 * values.size - 2, 1)
        levels[kind] = np.quantile(ordered, _TICKS, method="nearest")
    return ranks, levels


def _key(figure: Figure, ax: Axes, mesh: Any, levels: dict[bool, Floats]) -> None:
    """The two scales with the scores at some ranks."""
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, aspect=28)
    ticks, texts = [], []
    for kind, values in levels.items():
        for rank, value in zip(_TICKS, values, strict=True):
            at = 0.5 * rank if kind else 1.0 - 0.5 * rank
            inside = 0.012 if at < 0.5 or (at == 0.5 and not kind) else -0.012
            ticks.append(at + (inside if rank in (0.0, 1.0) else 0.0))
            texts.append(f"{value:.3g}")
    bar.set_ticks(ticks, labels=texts)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.ax.minorticks_off()
    for at, text in ((0.25, "converged, sum of losses"), (0.75, "diverged, sum of inverse losses")):
        bar.ax.text(3.6, at, text, rotation=90, va="center", ha="left",
                    transform=bar.ax.transAxes, fontsize=8)  # fmt: skip


def _scale_of(found: Any, letter: str) -> str:
    return str(found.settings.get(f"{letter}_scale", "linear"))


def _edges(values: Floats, scale: str) -> Floats:
    """Borders of pixels around values."""
    v = np.log(values) if scale == "log" else np.asarray(values)
    middle = 0.5 * (v[1:] + v[:-1])
    ends = np.concatenate([[2 * v[0] - middle[0]], middle, [2 * v[-1] - middle[-1]]])
    return np.exp(ends) if scale == "log" else ends


def _axis(ax: Axes, letter: str, scale: str) -> None:
    """The scale of an axis; narrow ranges are written as differences from a number."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axis = ax.xaxis if letter == "x" else ax.yaxis
    low, high = sorted(axis.get_view_interval())
    if high - low < _NARROW * max(abs(low), abs(high)):
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(ScalarFormatter(useOffset=True))
    elif scale == "log":
        (ax.set_xscale if letter == "x" else ax.set_yscale)("log")
        tidy_log_axis(axis)


def _scale(first: tuple[float, ...], last: tuple[float, ...]) -> Floats:
    """sRGB colours (_SHADES, 3) on a straight line in CIELAB (D65)."""
    part = np.linspace(0.0, 1.0, _SHADES)[:, np.newaxis]
    lightness, a, b = ((1.0 - part) * first + part * last).T
    y = (lightness + 16.0) / 116.0
    f = np.stack([y + a / 500.0, y, y - b / 200.0], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.95047, 1.0, 1.08883]
    to_rgb = np.array([
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ])  # fmt: skip
    linear = np.clip(xyz @ to_rgb.T, 0.0, 1.0)
    bright = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, bright))
