"""Plots of covariant vectors, alignment indices and sharpness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.style import (
    Floats,
    band,
    canvas,
    checked,
    entitle,
    log_scale,
    palette,
    per_curve,
    reference_line,
    require_names,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._tangent.covariant import CovariantVectors
    from pylyap._tangent.sharpness import Sharpness


@checked
def plot_covariant(
    vectors: CovariantVectors,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Growth of covariant vectors, angles between them, and their numerical errors.

    Four panels: growth of the leading vector and smallest angle between any two vectors along the
    run (medians over the runs with quartiles; dotted for early vectors), the distribution of that
    angle over runs and times, and for each vector its contamination by the others (circles; not
    defined for the last of k < n vectors) and its largest covariance residual (crosses).

    Parameters
    ----------
    vectors : CovariantVectors
        Result of `covariant_lyapunov_vectors`, k >= 2, with batch shape (), (n_runs,) or
        (n_curves, n_runs).
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

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
    growth, angles, contamination, residual = (
        per_curve("vectors", a, vectors.status.ndim)
        for a in (
            vectors.growth[..., 0] / every,
            np.degrees(vectors.angles().min(axis=-1)),
            vectors.contamination,
            vectors.residual.max(axis=-2),
        )
    )
    n = len(growth)
    require_names("labels", labels, n)
    colors = palette(n)
    with canvas() as figure:
        axes: dict[str, Axes] = figure.subplot_mosaic([["growth", "density"], ["angle", "errors"]])
        axes["angle"].sharex(axes["growth"])
        reference_line(axes["growth"])
        lines: list[Any] = []
        index = np.arange(1, vectors.k + 1)
        edges = np.linspace(0.0, 90.0, 46)
        for i, color in enumerate(colors):
            lines.append(band(axes["growth"], vectors.steps[:-1], growth[i], color))
            band(axes["angle"], vectors.steps, angles[i], color)
            seen = angles[i][np.isfinite(angles[i])]
            if seen.size:
                density = np.histogram(seen, edges, density=True)[0]
                axes["density"].stairs(density, edges, color=color, linewidth=1.2)
            axes["errors"].plot(
                index, quartiles(contamination[i])[1], "o", color=color, markersize=4
            )
            axes["errors"].plot(index, quartiles(residual[i])[1], "x", color=color, markersize=4)
        if vectors.early_coefficients is not None:
            early = np.degrees(vectors.angles(early=True).min(axis=-1))
            for runs, color in zip(
                per_curve("vectors", early, vectors.status.ndim), colors, strict=True
            ):
                middle = quartiles(runs)[1]
                axes["angle"].plot(vectors.steps, middle, ":", color=color, linewidth=1.2)
        axes["growth"].set_title("Growth of the leading vector")
        axes["growth"].set(ylabel="nats per step")
        axes["growth"].tick_params(labelbottom=False)
        axes["angle"].set_title("Smallest angle between two vectors")
        axes["angle"].set(xlabel="optimiser step", ylabel="degrees", ylim=(0, None))
        axes["density"].set_title("Smallest angle, distribution over runs and steps")
        axes["density"].set(xlabel="degrees", ylabel="density", xlim=(0, 90), ylim=(0, None))
        axes["density"].set_xticks(range(0, 90, 15))
        axes["errors"].set_title("Contamination (o), covariance residual (x)")
        axes["errors"].set(xlabel="index of the vector", yscale=log_scale(contamination, residual))
        reference_line(axes["errors"], 1.0)
        whole_numbers(axes["errors"])
        entitle(figure, lines, labels, title)
    return figure


@checked
def plot_sharpness(
    sharpness: Sharpness,
    steps: ArrayLike,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Sharpness along training relative to the stability threshold of the learning rate.

    At 1 the sharpness equals the threshold: the edge of stability. Lines are medians over the runs,
    bands the quartiles.

    Parameters
    ----------
    sharpness : Sharpness
        Result of `sharpness_along`, of batch shape (), (n_runs,) or (n_curves, n_runs).
    steps : array_like, shape (n_times,)
        Step of each time.
    labels : sequence of str, optional
        A name for each of the n_curves curves.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there are more than two batch axes, or `steps` or `labels` do not match.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> sharpness = pl.sharpness_along(system, w0, 20, every=10)
    >>> figure = pl.plotting.plot_sharpness(sharpness, [0, 10, 20])
    >>> figure.axes[0].get_ylabel()
    'sharpness / stability threshold'
    """
    ratio = per_curve("sharpness", sharpness.ratio, np.ndim(sharpness.ratio) - 1)
    n, times = ratio.shape[0], np.asarray(steps)
    if times.shape != ratio.shape[-1:]:
        raise ArgumentError("steps", f"must have shape ({ratio.shape[-1]},), got {times.shape}")
    require_names("labels", labels, n)
    with canvas((6.0, 3.6)) as figure:
        ax = figure.subplots()
        reference_line(ax, 1.0)
        lines = [
            band(ax, times, runs, color) for runs, color in zip(ratio, palette(n), strict=True)
        ]
        ax.set(xlabel="optimiser step", ylabel="sharpness / stability threshold", ylim=(0, None))
        entitle(figure, lines, labels, title)
    return figure


@checked
def plot_gali(
    log_gali: Floats,
    steps: ArrayLike,
    *,
    title: str | None = None,
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
        A figure outside pyplot; ``figure.savefig(path)`` writes it.

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
    with canvas((6.0, 3.6)) as figure:
        ax = figure.subplots()
        lines = [band(ax, times, runs[..., j], color) for j, color in enumerate(palette(orders))]
        ax.set(xlabel="step", ylabel="ln GALI")
        names = [rf"$\mathrm{{GALI}}_{{{j + 2}}}$" for j in range(orders)]
        entitle(figure, lines, names, title)
    return figure
