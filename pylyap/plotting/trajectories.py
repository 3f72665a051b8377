"""Pictures of how far weights travel and what each is worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pylyap._errors import ArgumentError
from pylyap.plotting.style import band, canvas, checked, palette, per_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

    from pylyap._weights.travel import Travel


@checked
def plot_travel(travel: Travel, *, title: str | None = None) -> Figure:
    """Norm of the weights along training, and path length of each weight against its displacement.

    The norm is the median over the runs with a band between the quartiles; the weights of all runs
    are in one cloud. Weights that start at 0 have no displacement and are left out.

    Parameters
    ----------
    travel
        Result of `travel` with at most two batch axes.
    title
        A line above the panels.

    Raises ValueError if there are more batch axes, ImportError if Matplotlib is not installed.
    """
    depth = np.ndim(travel.displacement)
    norm = per_curve("travel", travel.norm, depth)
    far = per_curve("travel", travel.weight_displacement, depth)
    length = per_curve("travel", travel.path_length, depth)
    with canvas((8.4, 3.6)) as figure:
        along, cloud = figure.subplots(1, 2)
        for i, color in enumerate(palette(len(norm))):
            band(along, travel.steps, norm[i], color)
            there = (far[i] > 0) & (length[i] > 0)
            cloud.plot(far[i][there], length[i][there], ".", color=color, markersize=2, alpha=0.6)
        along.set(xlabel="optimiser step", ylabel=r"$\Sigma\,|w|$")
        cloud.set(xscale="log", yscale="log")
        cloud.set(xlabel="displacement over the first size", ylabel="path length")
        if title is not None:
            figure.suptitle(title, x=0.01, horizontalalignment="left")
    return figure


@checked
def plot_knock_out(ratios: ArrayLike, *, title: str | None = None) -> Figure:
    """Loss without each weight of a layer over the loss with it; white is 1.

    Parameters
    ----------
    ratios : (n_out, n_in) array
        Result of `knock_out` for one run.
    title
        A line above the picture.

    Raises ValueError if there is more than one run, ImportError if Matplotlib is not installed.
    """
    values = np.asarray(ratios, float)
    if values.ndim != 2 or values.size == 0:
        raise ArgumentError("ratios", f"must have shape (n_out, n_in), got {values.shape}")
    shown = np.log10(np.where(values > 0, values, np.nan))
    finite = np.abs(shown[np.isfinite(shown)])
    reach = max(float(finite.max()) if finite.size else 0.0, 1e-3)
    with canvas((1.6 + 0.35 * values.shape[1], 1.2 + 0.35 * values.shape[0])) as figure:
        ax = figure.subplots()
        picture = ax.imshow(shown, cmap="RdBu_r", vmin=-reach, vmax=reach, aspect="equal")
        bar = figure.colorbar(picture, ax=ax)
        bar.set_label(r"$\log_{10} L_w / L$")
        ax.set(xlabel="from", ylabel="to")
        ax.set_xticks(range(values.shape[1]), [str(j + 1) for j in range(values.shape[1])])
        ax.set_yticks(range(values.shape[0]), [str(j + 1) for j in range(values.shape[0])])
        if title is not None:
            ax.set_title(title)
    return figure
