"""Plot of the principal angles between subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import Curves, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._tangent.subspaces import SubspaceOverlap

_MAX_PAIRS = 20


@plots("SubspaceOverlap")
def plot_subspace_overlap(
    overlap: SubspaceOverlap,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Squared cosines of the principal angles between subspaces, in descending order.

    The area below a curve is the overlap. The dashed line is the mean overlap of random subspaces
    of the same dimensions, the band around it one standard deviation.

    Parameters
    ----------
    overlap : SubspaceOverlap
        Result of `subspace_overlap`; of many pairs the first 20 of each curve are drawn.
    labels : sequence of str, optional
        Names of the curves, of two batch axes of the entries of the first.
    title : str, optional
        Title above the panel. By default overlap and mean of random subspaces.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If the result has more than two batch axes, or `labels` does not name each curve.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> U, V = np.random.default_rng(0).normal(size=(2, 200, 50))
    >>> figure = pl.plotting.plot_subspace_overlap(pl.subspace_overlap(U, V))
    >>> figure.axes[0].get_ylabel()
    'squared cosine of the principal angle'
    """
    angles = overlap.angles
    found = Curves("overlap", overlap, angles.shape[:-1], labels)
    cosines = found(np.cos(angles) ** 2)[:, :_MAX_PAIRS]
    place = (np.arange(angles.shape[-1]) + 0.5) / angles.shape[-1]
    marker = "o" if len(place) <= 30 else ""
    with sheet((5.4, 3.6), target) as page:
        ax = page.single()
        low, high = overlap.expected - overlap.spread, overlap.expected + overlap.spread
        ax.axhspan(low, high, color="0.9", zorder=0)
        ax.axhline(overlap.expected, color="0.4", linestyle=(0, (3, 2)), linewidth=1.0)
        lines = []
        for pairs, color in zip(cosines, palette(found.n), strict=True):
            for pair in pairs:
                (line,) = ax.plot(place, pair, color=color, marker=marker, markersize=3,
                                  alpha=1.0 if len(pairs) == 1 else 0.5)  # fmt: skip
            lines.append(line)
        ax.set(xlabel="fraction of the angles", ylabel="squared cosine of the principal angle")
        ax.set(xlim=(0, 1), ylim=(0, 1.02))
        if title is None:
            mean = float(np.mean(overlap.overlap))
            title = f"overlap {mean:.3f}, random {overlap.expected:.3f} ± {overlap.spread:.2g}"
        page.entitle(*found.legend(lines), title)
    return page.figure
