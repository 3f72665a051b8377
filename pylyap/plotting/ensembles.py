"""Pictures of perturbed copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap.plotting.style import band, canvas, entitle, palette, per_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.ensembles import Ensemble


def plot_ensemble(
    ensemble: Ensemble,
    *,
    titles: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Mean distance of perturbed copies to their run, on a logarithmic scale.

    Lines are medians over the runs, bands their quartiles; a line for each size of the perturbation
    and a panel for each of the curves of a batch (n_curves, n_runs). Zeros are left out.

    Parameters
    ----------
    ensemble
        Result of `perturbation_ensemble` with batch shape (), (n_runs,) or (n_curves, n_runs).
    titles
        A name for each panel.
    title
        A line above the panels.

    Raises
    ------
    ValueError
        If there are more than two batch axes, or `titles` does not name each panel.
    ImportError
        If Matplotlib is not installed.
    """
    eps = np.atleast_1d(np.asarray(ensemble.settings["eps"]))
    several = isinstance(ensemble.settings["eps"], list)
    mean = ensemble.mean if several else ensemble.mean[..., np.newaxis, :]
    values = per_curve("ensemble", np.where(mean > 0, mean, np.nan), mean.ndim - 2)
    panels = len(values)
    if titles is not None and len(titles) != panels:
        raise ValueError(f"titles must name {panels} panels, got {len(titles)}")
    with canvas((max(4.0 * min(panels, 3), 6.0), 3.6 * -(-panels // 3))) as figure:
        axes = figure.subplots(-(-panels // 3), min(panels, 3), sharey=True, squeeze=False)
        lines: list[Any] = []
        for p, ax in enumerate(axes.ravel()):
            if p >= panels:
                ax.set_axis_off()
                continue
            lines = [
                band(ax, ensemble.steps, values[p, :, j], color)
                for j, color in enumerate(palette(len(eps)))
            ]
            ax.set(yscale="log", xlabel="optimiser step")
            if titles is not None:
                ax.set_title(titles[p])
        for row in axes:
            row[0].set(ylabel=f"mean distance ({ensemble.settings['norm']})")
        entitle(figure, lines, [rf"$\varepsilon$ = {e:g}" for e in eps], title)
    return figure
