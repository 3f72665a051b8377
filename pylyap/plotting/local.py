"""Plots of covariant vectors and alignment indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    Curves,
    Floats,
    band,
    log_scale,
    palette,
    reference_line,
    step_label,
    tidy_log_axis,
    whole_numbers,
    windowed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._tangent.covariant_vectors import CovariantVectors, Hyperbolicity


_ROUNDING = 1e-16  # of the components of a unit vector
_UNDETERMINED = 0.5  # contamination above which a vector is reported as undetermined


@plots("CovariantVectors")
def plot_covariant(
    vectors: CovariantVectors,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Growth of covariant vectors, angles between them, and their numerical errors.

    Four panels: growth of the leading vector and smallest angle between any two vectors along the
    run (medians over the runs with quartiles; dotted for early vectors), the distribution of that
    angle over runs and times, and for each vector its contamination by the others (circles; not
    estimated for the last of k < n vectors) and its largest covariance residual (crosses), as
    medians with the range over the runs. The title of that panel counts the runs with a vector that
    their steps do not determine (a contamination of 0.5 or more). Errors below 1e-16, the rounding
    of a unit vector, are drawn there. Runs of more than
    400 records are drawn in windows, whose median and quartiles are those of all their records.

    Parameters
    ----------
    vectors : CovariantVectors
        Result of `covariant_lyapunov_vectors`, k >= 2. Of two batch axes without names the first
        are the curves.
    labels : sequence of str, optional
        A name for each of the n_curves curves. By default the settings of the optimiser.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If k = 1, there are more than two batch axes, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> vectors = pl.covariant_lyapunov_vectors(system, w0, 20, 2, 5, 5)
    >>> figure = pl.plotting.plot_covariant(vectors)
    >>> len(figure.axes)
    4
    """
    if vectors.k < 2:
        raise ArgumentError("vectors", "must be at least two for an angle, got k=1")
    every = int(vectors.settings["every"])
    found = Curves("vectors", vectors, vectors.status.shape, labels)
    growth, angles, contamination, residual = (
        found(a)
        for a in (
            vectors.growth[..., 0] / every,
            np.degrees(vectors.angles().min(axis=-1)),
            vectors.contamination,
            vectors.residual.max(axis=-2),
        )
    )
    early = None
    if vectors.early_coefficients is not None:
        early = found(np.degrees(vectors.angles(early=True).min(axis=-1)))
    colors = palette(found.n)
    with sheet((9.0, 4.8), target) as page:
        axes = page.mosaic([["growth", "density"], ["angle", "errors"]], "growth")
        page.share(axes["angle"], axes["growth"])
        reference_line(axes["growth"])
        lines: list[Any] = []
        edges = np.linspace(0.0, 90.0, 46)
        size = 1
        for i, color in enumerate(colors):
            starts, rates, _ = windowed(vectors.steps[:-1], growth[i])
            lines.append(band(axes["growth"], starts, rates, color))
            times, smallest, size = windowed(vectors.steps, angles[i])
            band(axes["angle"], times, smallest, color)
            if early is not None:
                times, smallest, _ = windowed(vectors.steps, early[i])
                middle = quartiles(smallest)[1]
                axes["angle"].plot(times, middle, ":", color=color, linewidth=1.2)
            seen = angles[i][np.isfinite(angles[i])]
            if seen.size:
                density = np.histogram(seen, edges, density=True)[0]
                axes["density"].stairs(density, edges, color=color, linewidth=1.2)
        windows = f", windows of {size * every} steps" if size > 1 else ""
        axes["growth"].set_title(f"Growth of the leading vector{windows}")
        axes["growth"].set(ylabel="nats per step")
        axes["angle"].set_title(f"Smallest angle between two vectors{windows}")
        axes["angle"].set(xlabel=step_label(vectors), ylabel="degrees", ylim=(0, None))
        axes["density"].set_title("Smallest angle, distribution over runs and steps")
        axes["density"].set(xlabel="degrees", ylabel="density", xlim=(0, 90), ylim=(0, None))
        axes["density"].set_xticks(range(0, 91, 15))
        _draw_errors(axes["errors"], contamination, residual, colors)
        page.entitle(*found.legend(lines), title)
    return page.figure


def _draw_errors(ax: Axes, contamination: Floats, residual: Floats, colors: list[Any]) -> None:
    """Plot medians and ranges over the runs of both errors (n_curves, n_runs, k) by vector."""
    index = np.arange(1, contamination.shape[-1] + 1)
    unknown = index[np.isnan(contamination).all(axis=(0, 1))]
    names = ["contamination by the other vectors", "covariance residual"]
    if 0 < len(unknown) < len(index):
        names[0] += f",\nnot estimated for vector {', '.join(map(str, unknown))}"
    several, clipped = contamination.shape[1] > 1, False
    for values, name, marker in zip((contamination, residual), names, "ox", strict=True):
        for i, color in enumerate(colors):
            middle = quartiles(values[i])[1]
            known = values[i][np.isfinite(values[i]).any(axis=1)]
            clipped |= bool((middle < _ROUNDING).any())
            if len(known) > 1:
                least, most = (np.maximum(of(known, axis=0), _ROUNDING) for of in (np.min, np.max))
                ax.vlines(index, least, most, color=color, linewidth=0.8, alpha=0.6)
            ax.plot(
                index,
                np.where(middle < _ROUNDING, _ROUNDING, middle),
                marker,
                color=color,
                markersize=5,
                markerfacecolor="none",
                label=name if i == 0 else None,
            )
    ax.set_title("Numerical errors of the vectors" + _undetermined(contamination))
    ax.set(xlabel="index of the vector", yscale=log_scale(contamination, residual))
    what = "median and range" if several else "error"
    ax.set(ylabel=what + "\n(below 1e-16 drawn at 1e-16)" * clipped)
    reference_line(ax, 1.0)
    if ax.get_yscale() == "log":
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, 0.1 * _ROUNDING), max(top, 10.0))
        tidy_log_axis(ax.yaxis)
    whole_numbers(ax)
    ax.legend(loc="best", fontsize=8)


def _undetermined(contamination: Floats) -> str:
    """Second line of a title: how many runs have a vector that their steps do not determine."""
    runs = contamination.reshape(-1, contamination.shape[-1])
    runs = runs[np.isfinite(runs).any(axis=1)]
    count = int((runs >= _UNDETERMINED).any(axis=1).sum())
    if count == 0:
        return ""
    if len(runs) == 1:
        return "\n(a vector is not determined by these steps)"
    return f"\n(a vector is not determined in {count} of {len(runs)} runs)"


@plots()
def plot_gali(
    log_gali: Floats,
    steps: ArrayLike,
    *,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Generalised alignment indices: median over the runs and quartiles, one line per order.

    Parameters
    ----------
    log_gali : ndarray, shape (..., n_times, k - 1)
        Result of `gali`.
    steps : array_like, shape (n_times,)
        Step of each time.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If shapes do not match.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> log_gali = pl.gali(system, w0, 20, 3, 5)
    >>> figure = pl.plotting.plot_gali(log_gali, range(0, 21, 5))
    >>> figure.axes[0].get_ylabel()
    'ln GALI'
    """
    values, times = np.asarray(log_gali, float), np.asarray(steps)
    if values.ndim < 2 or times.shape != values.shape[-2:-1]:
        raise ArgumentError(
            "log_gali",
            f"must have shape (..., n_times, k - 1) and steps (n_times,), "
            f"got {values.shape} and {times.shape}",
        )
    orders = values.shape[-1]
    runs = values.reshape(-1, *values.shape[-2:])
    with sheet((6.0, 3.6), target) as page:
        ax = page.single()
        lines = [band(ax, times, runs[..., j], color) for j, color in enumerate(palette(orders))]
        ax.set(xlabel="step", ylabel="ln GALI")
        names = [rf"$\mathrm{{GALI}}_{{{j + 2}}}$" for j in range(orders)]
        page.entitle(lines, names, title)
    return page.figure


@plots("Hyperbolicity")
def plot_hyperbolicity(
    found: Hyperbolicity,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Smallest angle between the two subspaces against the fraction of dominated records.

    Runs in the upper right corner are far from a tangency and have separated growth rates.

    Parameters
    ----------
    found : Hyperbolicity
        Result of `CovariantVectors.hyperbolicity`.
    labels : sequence of str, optional
        A name for each of the n_curves curves. By default the settings of the optimiser.
    title : str, optional
        Title above the panel.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are more than two batch axes without names, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> vectors = pl.covariant_lyapunov_vectors(system, w0, 20, 3, 5, 5)
    >>> figure = pl.plotting.plot_hyperbolicity(vectors.hyperbolicity(1))
    >>> figure.axes[0].get_ylabel()
    'smallest angle, degrees'
    """
    curves = Curves("found", found, np.shape(found.angle), labels)
    angle, dominated = curves(np.degrees(found.angle)), curves(found.dominated)
    with sheet((4.8, 3.6), target) as page:
        ax = page.single()
        lines = [
            ax.plot(x, y, "o", color=color, markersize=4, clip_on=False)[0]
            for x, y, color in zip(dominated, angle, palette(curves.n), strict=True)
        ]
        ax.set(xlabel="fraction of dominated records", ylabel="smallest angle, degrees")
        ax.set(xlim=(0, 1), ylim=(0, None))
        page.entitle(*curves.legend(lines), title)
    return page.figure
