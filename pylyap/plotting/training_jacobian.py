"""Plot of the singular values of the training Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack

import numpy as np

from pylyap import _checks
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import Curves, palette, reference_line, symlog

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap._tangent.training_jacobian import TrainingJacobian

_MAX_RUNS = 20
_FAR = -10.0  # below, logarithms of the smallest hide the others on a linear axis


@plots("TrainingJacobian")
def plot_training_jacobian(
    jacobian: TrainingJacobian,
    width: float = 0.1,
    *,
    labels: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Singular values of the training Jacobian in descending order, one line per run.

    Values above the shaded band belong to directions in which displacements of the initial state
    grow, those inside the band to directions that training leaves alone, those below it to stable
    ones. Destroyed directions and runs that diverged are not drawn.

    Parameters
    ----------
    jacobian : TrainingJacobian
        Result of `training_jacobian`; of many runs the first 20 of each curve are drawn.
    width : float, default 0.1
        Half width of the band around 1, in nats, as in `TrainingJacobian.counts`.
    labels : sequence of str, optional
        Names of the curves, such as learning rates, whose runs have one colour. By default the
        settings of the optimiser along the batch.
    title : str, optional
        Title above the panel.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If `width` is negative, `labels` does not name each curve, or the result has more than two
        batch axes of unknown meaning.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> jacobian = pl.training_jacobian(system, net.init(seed=0), n_steps=50)
    >>> figure = pl.plotting.plot_training_jacobian(jacobian)
    >>> figure.axes[0].get_ylabel()
    'singular value (base-10 logarithm)'
    """
    width = _checks.real("width", width, least=0.0) / np.log(10.0)
    logs = jacobian.log_singular_values
    found = Curves("jacobian", jacobian, logs.shape[:-1], labels)
    curves = found(logs)[:, :_MAX_RUNS] / np.log(10.0)
    index = np.arange(1, logs.shape[-1] + 1)
    with sheet((6.0, 3.6), target) as page:
        ax = page.single()
        ax.axhspan(-width, width, color="0.9", zorder=0)
        reference_line(ax, 0.0)
        marker = "o" if len(index) <= 100 else ""
        lines = []
        for runs, color in zip(curves, palette(found.n), strict=True):
            for run in runs:
                shown = np.where(np.isfinite(run), run, np.nan)
                (line,) = ax.plot(index, shown, color=color, marker=marker, markersize=2.5,
                                  linewidth=0.9, alpha=1.0 if len(runs) == 1 else 0.5)  # fmt: skip
            lines.append(line)
        ax.set(xlabel="index", ylabel="singular value (base-10 logarithm)")
        if curves[np.isfinite(curves)].min(initial=0.0) < _FAR:
            symlog(ax, 1.0)
        page.entitle(*found.legend(lines), title)
    return page.figure
