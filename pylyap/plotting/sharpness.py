"""Plots of sharpness and Hessian spectra."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap import _checks
from pylyap._batches import RUN
from pylyap._errors import ArgumentError
from pylyap._statistics import quartiles
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    LARGEST,
    Curves,
    Floats,
    band,
    log_scale,
    palette,
    reference_line,
    symlog,
    tidy_log_axis,
    whole_numbers,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._tangent.sharpness import HessianSpectrum, Sharpness


_NAMES = {
    "hessian": "sharpness",
    "preconditioned": "preconditioned sharpness",
    "batch": "batch sharpness",
    "gradient": "curvature along the gradient",
    "critical": "critical sharpness",
}


@plots("Sharpness")
def plot_sharpness(
    sharpness: Sharpness,
    steps: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Sharpness relative to the stability threshold of the optimiser, along training.

    At 1 the sharpness equals the threshold: the edge of stability. Lines are medians over the runs,
    bands the quartiles. The result of `sharpness`, which has no steps, is drawn as one point per
    state. Where no threshold is known, the sharpness itself is drawn.

    Parameters
    ----------
    sharpness : Sharpness
        Result of `sharpness_along` or of `sharpness`. Of two batch axes without names the first are
        the curves.
    steps : array_like, shape (n_times,), optional
        Step of each time. By default those of the result.
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
    >>> figure = pl.plotting.plot_sharpness(sharpness)
    >>> figure.axes[0].get_ylabel()
    'sharpness / stability threshold'
    """
    values, name = np.asarray(sharpness.ratio), _NAMES[sharpness.kind]
    ylabel = f"{name} / stability threshold"
    if not np.isfinite(values).any():
        values, ylabel = np.asarray(sharpness.value), name
    times = sharpness.steps if steps is None else np.asarray(steps)
    with sheet((6.0, 3.6), target) as page:
        ax = page.single()
        if ylabel != name:
            reference_line(ax, 1.0)
        if times is None:
            lines, legend = _draw_states(ax, sharpness, values, labels)
        else:
            found = _along(sharpness, values, times, labels)
            lines = [
                band(ax, times, runs, color)
                for runs, color in zip(found(values), palette(found.n), strict=True)
            ]
            lines, legend = found.legend(lines)
            ax.set(xlabel="optimiser step")
        ax.set(ylabel=ylabel, ylim=(0 if (values[np.isfinite(values)] >= 0).all() else None, None))
        page.entitle(lines, legend, title)
    return page.figure


def _along(
    sharpness: Sharpness, values: Floats, times: Any, labels: Sequence[str] | None
) -> Curves:
    """The curves of values (..., n_times)."""
    if times.shape != values.shape[-1:]:
        wanted = values.shape[-1] if values.ndim else 1
        raise ArgumentError("steps", f"must have shape ({wanted},), got {times.shape}")
    return Curves("sharpness", sharpness, values.shape[:-1], labels)


def _draw_states(
    ax: Axes, sharpness: Sharpness, values: Floats, labels: Sequence[str] | None
) -> tuple[list[Any], list[str] | None]:
    """One point per state; returns the handles and names of the legend."""
    dims = tuple("batch_0" if d == "time" else d for d in sharpness.dims)
    if RUN not in sharpness.dims and len(dims) == 1 and dims[0] in sharpness.coords:
        ax.plot(sharpness.coords[dims[0]], values, "o-", color=palette(1)[0], markersize=4)
        ax.set(xlabel="learning rate" if dims[0] == "lr" else dims[0].replace("_", " "))
        return [], None
    found = Curves("sharpness", sharpness, values.shape, labels)
    lines = [
        ax.plot(np.arange(len(runs)), runs, "o", color=color, markersize=4)[0]
        for runs, color in zip(found(values), palette(found.n), strict=True)
    ]
    ax.set(xlabel="state")
    whole_numbers(ax)
    return found.legend(lines)


@plots()
def plot_edge_of_stability(
    sharpness: Sharpness,
    loss: ArrayLike | None = None,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Loss, and sharpness beside the threshold of the optimiser, along training.

    One colour for each learning rate, or other setting of the optimiser. Solid lines are medians
    over the runs, bands the quartiles, dashed lines the sharpness above which a step on a parabola
    is unstable: 2/lr for plain gradient descent; momentum, weight decay and a schedule are
    included. For Adam they are that of the preconditioned sharpness. At the edge of stability the
    sharpness stays near that line. Of batch sharpness with momentum the threshold of large batches
    is dotted.

    Parameters
    ----------
    sharpness : Sharpness
        Result of `sharpness_along`.
    loss : array_like, shape (..., n_times), optional
        Loss at each time. By default that of the result.
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
        If `sharpness` is not along a run, or `loss` or `labels` do not match.
    ImportError
        If Matplotlib is not installed.

    References
    ----------
    Cohen et al., ICLR (2021).

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1), activation="tanh")
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=[0.3, 0.6]))
    >>> found = pl.sharpness_along(system, net.init(seed=0), 50, every=10)
    >>> figure = pl.plotting.plot_edge_of_stability(found)
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['loss', 'sharpness']
    """
    if sharpness.steps is None:
        raise ArgumentError(
            "sharpness", "must be a result of sharpness_along, got one of sharpness"
        )
    found = _along(sharpness, sharpness.value, sharpness.steps, labels)
    losses = sharpness.loss if loss is None else _checks.floats("loss", loss, finite=False)
    if losses is None or losses.shape != sharpness.value.shape:
        shape = None if losses is None else losses.shape
        raise ArgumentError("loss", f"must have shape {sharpness.value.shape}, got {shape}")
    losses = np.where(losses < LARGEST, losses, np.nan)
    with sheet((6.4, 5.4), target) as page:
        upper, lower = page.subplots(2, 1, main=1, height_ratios=[1.0, 1.4])[:, 0]
        page.share(lower, upper)
        colors = palette(found.n)
        for runs, color in zip(found(losses), colors, strict=True):
            band(upper, sharpness.steps, runs, color)
        upper.set(ylabel="loss", yscale=log_scale(losses))
        if upper.get_yscale() == "log":
            tidy_log_axis(upper.yaxis)
        lines = [
            band(lower, sharpness.steps, runs, color)
            for runs, color in zip(found(sharpness.value), colors, strict=True)
        ]
        known = sharpness.threshold is not None and bool(np.isfinite(sharpness.threshold).any())
        if sharpness.threshold is not None and known:
            upper_one = sharpness.upper_threshold
            if upper_one is not None and np.array_equal(upper_one, sharpness.threshold):
                upper_one = None
            _draw_thresholds(
                lower, sharpness.steps, found(sharpness.threshold),
                None if upper_one is None else found(upper_one), colors,
                _NAMES[sharpness.kind],
            )  # fmt: skip
        lower.set(xlabel="optimiser step", ylabel=_NAMES[sharpness.kind])
        page.align([upper, lower])
        page.entitle(*found.legend(lines), title)
    return page.figure


def _draw_thresholds(
    ax: Axes,
    steps: Any,
    thresholds: Floats,
    upper: Floats | None,
    colors: list[Any],
    name: str,
) -> None:
    """Plot thresholds (n_curves, n_runs, n_times) dashed, and name the kinds of lines.

    Those of large batches, `upper`, are dotted.
    """
    drawn = {"--": thresholds} if upper is None else {"--": thresholds, ":": upper}
    for style, values in drawn.items():
        for runs, color in zip(values, colors, strict=True):
            middle = quartiles(np.where(np.isfinite(runs), runs, np.nan))[1]
            ax.plot(steps, middle, style, color=color, linewidth=1.0)
    names = {
        "-": name,
        "--": "stability threshold of the optimiser",
        ":": "threshold of large batches",
    }
    if upper is not None:
        names["--"] = "threshold of small batches"
    keys = [ax.plot([], [], style, color="0.3", linewidth=1.1)[0] for style in ("-", *drawn)]
    ax.legend(keys, [names[style] for style in ("-", *drawn)], loc="best", fontsize=8)


@plots("HessianSpectrum")
def plot_hessian_spectrum(
    spectrum: HessianSpectrum,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Eigenvalues of the Hessian in descending order.

    Points are medians over the runs, bands the quartiles. If the eigenvalues span more than two
    decades, the axis is logarithmic on both sides of zero.

    Parameters
    ----------
    spectrum : HessianSpectrum
        Result of `hessian_spectrum`. Of two batch axes without names the first are the curves.
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
    >>> found = pl.hessian_spectrum(system, net.init(runs=4, seed=0))
    >>> figure = pl.plotting.plot_hessian_spectrum(found)
    >>> figure.axes[0].get_xlabel()
    'index of the eigenvalue'
    """
    found = Curves("spectrum", spectrum, spectrum.eigenvalues.shape[:-1], labels)
    curves = found(spectrum.eigenvalues)
    with sheet((6.0, 3.6), target) as page:
        ax = page.single()
        reference_line(ax)
        index = np.arange(1, curves.shape[-1] + 1)
        lines = []
        for runs, color in zip(curves, palette(found.n), strict=True):
            low, middle, high = quartiles(runs)
            ax.fill_between(index, low, high, color=color, alpha=0.2, linewidth=0)
            size = float(np.clip(100 / len(index), 2.0, 5.0))
            lines += ax.plot(index, middle, "o", color=color, markersize=size)
        ax.set(xlabel="index of the eigenvalue", ylabel="eigenvalue of the Hessian")
        sizes = np.abs(curves[np.isfinite(curves) & (curves != 0)])
        if sizes.size and sizes.max() > 100 * np.median(sizes):
            symlog(ax, 10.0 ** (np.floor(np.log10(sizes.max())) - 4))
        whole_numbers(ax)
        page.entitle(*found.legend(lines), title)
    return page.figure
