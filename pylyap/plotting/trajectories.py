"""Plots of the path lengths of weights and of the effect of removing each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import Curves, band, palette, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._weights.travel import Travel


@plots("Travel")
def plot_travel(
    travel: Travel,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Norm of the weights along training, and path length against displacement of each weight.

    The norm is the median over the runs with quartiles; the right panel shows the weights of all
    runs. Weights that start at 0 have no relative displacement and are omitted.

    Parameters
    ----------
    travel : Travel
        Result of `travel`. Of two batch axes without names the first are the curves.
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
        If there are more than two batch axes.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> figure = pl.plotting.plot_travel(pl.travel(system, w0, 20, 5))
    >>> len(figure.axes)
    2
    """
    found = Curves("travel", travel, np.shape(travel.displacement), labels)
    norm, far, length = (
        found(a) for a in (travel.norm, travel.weight_displacement, travel.path_length)
    )
    with sheet((8.4, 3.6), target) as page:
        along, cloud = page.subplots(1, 2)[0]
        lines = []
        for i, color in enumerate(palette(found.n)):
            lines.append(band(along, travel.steps, norm[i], color))
            there = (far[i] > 0) & (length[i] > 0)
            cloud.plot(far[i][there], length[i][there], ".", color=color, markersize=2, alpha=0.6)
        along.set(xlabel="step", ylabel=r"$\ell_1$ norm of the weights")
        cloud.set(xscale="log", yscale="log")
        cloud.set(xlabel="displacement / initial absolute value", ylabel="path length")
        tidy_log_axis(cloud.xaxis)
        tidy_log_axis(cloud.yaxis)
        page.entitle(*found.legend(lines), title)
    return page.figure


@plots()
def plot_knock_out(
    ratios: ArrayLike, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """Loss without each weight of a layer relative to the loss with it; white is 1.

    Parameters
    ----------
    ratios : array_like, shape (n_out, n_in)
        Result of `knock_out` for one run.
    title : str, optional
        Title above the panel.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there is more than one run.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=4, seed=0)
    >>> figure = pl.plotting.plot_knock_out(pl.knock_out(system, w0)[0])
    >>> figure.axes[0].get_xlabel()
    'input'
    """
    values = np.asarray(ratios, float)
    if values.ndim != 2 or values.size == 0:
        raise ArgumentError("ratios", f"must have shape (n_out, n_in), got {values.shape}")
    shown = np.log10(np.where(values > 0, values, np.nan))
    finite = np.abs(shown[np.isfinite(shown)])
    reach = max(float(finite.max()) if finite.size else 0.0, 1e-3)
    with sheet((1.6 + 0.35 * values.shape[1], 1.2 + 0.35 * values.shape[0]), target) as page:
        ax = page.single()
        picture = ax.imshow(shown, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="equal")
        bar = ax.figure.colorbar(picture, ax=ax)
        bar.set_label(r"$\log_{10}$ loss ratio")
        ax.set(xlabel="input", ylabel="output")
        ax.set_xticks(range(values.shape[1]), [str(j + 1) for j in range(values.shape[1])])
        ax.set_yticks(range(values.shape[0]), [str(j + 1) for j in range(values.shape[0])])
        if title is not None:
            ax.set_title(title)
    return page.figure
