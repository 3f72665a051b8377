"""Plots of the predictive skill of early indicators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.plotting.sheet import Target, plots, sheet
from pylyap.plotting.style import (
    palette,
    reference_line,
    require_names,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.prediction import PredictionCurve, PredictionSkill


@plots("PredictionCurve")
def plot_prediction(
    curves: PredictionCurve | Sequence[PredictionCurve],
    *,
    highlight: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
    title: str | None = None,
    **target: Unpack[Target],
) -> Figure:
    """Skill of early indicators against the step at which they are known, one panel per curve.

    Lines are areas under the ROC curve, bands their 95 % intervals; indicators that are not
    highlighted are thin and grey. One half is chance.

    Parameters
    ----------
    curves : PredictionCurve or sequence of PredictionCurve
        Results of `prediction_curve`.
    highlight : sequence of str, optional
        Names of indicators. By default the loss, the first and last exponent, the sum of exponents
        and the smallest angle.
    titles : sequence of str, optional
        A name for each panel.
    title : str, optional
        Title above the panels.

    Returns
    -------
    matplotlib.figure.Figure
        The figure; ``figure.savefig(path)`` writes it.

    Raises
    ------
    ArgumentError
        If there is no curve, `titles` does not name each, or no curve has a highlighted name.
    ImportError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=20, seed=0)
    >>> spectrum = pl.lyapunov_spectrum(system, w0, 40, 2, record_every=10)
    >>> curve = pl.prediction_curve(spectrum)
    >>> figure = pl.plotting.plot_prediction(curve)
    >>> figure.axes[0].get_ylabel()
    'area under the ROC curve'
    """
    from pylyap.prediction import PredictionCurve

    panels: list[Any] = [curves]
    if not isinstance(curves, PredictionCurve):
        panels = list(_checks.sequence("curves", curves, "a PredictionCurve, or a list of them"))
        for i, curve in enumerate(panels):
            _checks.instance(f"curves[{i}]", curve, PredictionCurve)
    if not panels:
        raise ArgumentError("curves", "must have at least one curve, got none")
    require_names("titles", titles, len(panels))
    if highlight is None:
        exponents = panels[0].names[: panels[0].n_exponents]
        outermost = dict.fromkeys(exponents[:1] + exponents[-1:])
        highlight = ["loss", *outermost, "sum of FTLEs", "smallest angle"]
    names = [name for name in highlight if any(name in curve.names for curve in panels)]
    if not names:
        raise ArgumentError("highlight", f"must have names of {panels[0].names}, got {highlight}")
    colors = dict(zip(names, ["black", *palette(max(len(names) - 1, 2))], strict=False))
    with sheet((4.8 * max(len(panels), 1.2), 4.0), target) as page:
        axes = page.subplots(1, len(panels), sharey=True)[0]
        handles: dict[str, Any] = {}
        for p, (ax, curve) in enumerate(zip(axes, panels, strict=True)):
            reference_line(ax, 0.5)
            for m, name in enumerate(curve.names):
                fine = np.isfinite(curve.auc[m])
                x, auc = curve.known[m, fine], curve.auc[m, fine]
                if name not in colors:
                    (handles["other exponents"],) = ax.plot(
                        x, auc, color="0.7", linewidth=0.6, zorder=1
                    )
                    continue
                low, high = curve.low[m, fine], curve.high[m, fine]
                ax.fill_between(x, low, high, color=colors[name], alpha=0.15, linewidth=0)
                (handles[name],) = ax.plot(x, auc, color=colors[name], linewidth=1.4, zorder=3)
            ends = f"{curve.n_high} runs end above {curve.threshold:.2g}, {curve.n_low} below"
            ax.set_title(ends if titles is None else f"{titles[p]}: {ends}")
            ax.set(xlabel="optimiser step at which it is known", ylim=(0, 1))
        axes[0].set(ylabel="area under the ROC curve")
        order = [name for name in (*names, "other exponents") if name in handles]
        page.entitle([handles[name] for name in order], order, title)
    return page.figure


@plots("PredictionSkill")
def plot_skill(
    skill: PredictionSkill, *, title: str | None = None, **target: Unpack[Target]
) -> Figure:
    """ROC curve of an indicator: true positive rate against false positive rate.

    A positive is a run that ends above the threshold of the final loss.

    Parameters
    ----------
    skill : PredictionSkill
        Result of `prediction_skill`.
    title : str, optional
        Title above the panel.

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
    >>> import numpy as np
    >>> import pylyap as pl
    >>> final_loss = np.random.default_rng(0).uniform(size=40)
    >>> skill = pl.prediction_skill(final_loss**2, final_loss, threshold=0.5)
    >>> figure = pl.plotting.plot_skill(skill)
    >>> figure.axes[0].texts[0].get_text()[:9]
    'AUC 1.000'
    """
    with sheet((4.2, 4.2), target) as page:
        ax = page.single()
        ax.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
        x, y = np.append(0.0, skill.false_positive), np.append(0.0, skill.true_positive)
        ax.plot(x, y, color=palette(1)[0], linewidth=1.4)
        text = f"AUC {skill.auc:.3f} [{skill.low:.3f}–{skill.high:.3f}]"
        ax.text(0.98, 0.04, text, horizontalalignment="right")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(
            xlabel=f"false positive rate ({skill.n_low} low runs)",
            ylabel=f"true positive rate ({skill.n_high} high runs)",
        )
        if title is not None:
            ax.set_title(title)
    return page.figure
