"""Pictures of what early indicators foretell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.plotting.style import canvas, checked, entitle, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pylyap.prediction import PredictionCurve, PredictionSkill


@checked
def plot_prediction(
    curves: PredictionCurve | Sequence[PredictionCurve],
    *,
    highlight: Sequence[str] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Skill of early indicators as a function of when they are known, one panel per curve.

    Lines are areas under the ROC curve, bands their 95 % intervals; indicators that are not
    highlighted are thin and grey. One half is chance.

    Parameters
    ----------
    curves
        Results of `prediction_curve`.
    highlight
        Names of indicators. By default the loss, the outermost exponents, their sum, and angles.
    titles
        A name for each panel.

    Raises
    ------
    ValueError
        If there is no curve, `titles` does not name each, or no curve has a highlighted name.
    ImportError
        If Matplotlib is not installed.
    """
    from pylyap.prediction import PredictionCurve

    panels: list[Any] = [curves]
    if not isinstance(curves, PredictionCurve):
        panels = list(_checks.sequence("curves", curves, "a PredictionCurve, or a list of them"))
        for i, curve in enumerate(panels):
            _checks.instance(f"curves[{i}]", curve, PredictionCurve)
    if not panels:
        raise ArgumentError("curves", "must have at least one curve, got none")
    if titles is not None and len(titles) != len(panels):
        raise ArgumentError("titles", f"must name {len(panels)} curves, got {len(titles)}")
    if highlight is None:
        exponents = [name for name in panels[0].names if name.startswith("FTLE ")]
        outermost = dict.fromkeys(exponents[:1] + exponents[-1:])
        highlight = ["loss", *outermost, "sum of FTLEs", "smallest angle"]
    names = [name for name in highlight if any(name in curve.names for curve in panels)]
    if not names:
        raise ArgumentError("highlight", f"must have names of {panels[0].names}, got {highlight}")
    colors = dict(zip(names, ["black", *palette(max(len(names) - 1, 2))], strict=False))
    with canvas((4.8 * max(len(panels), 1.2), 4.0)) as figure:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        handles: dict[str, Any] = {}
        for p, (ax, curve) in enumerate(zip(axes, panels, strict=True)):
            ax.axhline(0.5, color="0.3", linewidth=0.8, zorder=0)
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
            ends = f"{curve.n_high} end above {curve.threshold:.2g}, {curve.n_low} below"
            ax.set_title(ends if titles is None else f"{titles[p]}: {ends}")
            ax.set(xlabel="known at optimiser step", ylim=(0, 1))
        axes[0].set(ylabel="area under the ROC curve")
        order = [name for name in (*names, "other exponents") if name in handles]
        entitle(figure, [handles[name] for name in order], order, None)
    return figure


@checked
def plot_skill(skill: PredictionSkill, *, title: str | None = None) -> Figure:
    """ROC curve of an indicator: share of high runs found against share of low ones mistaken.

    Raises ImportError if Matplotlib is not installed.
    """
    with canvas((4.2, 4.2)) as figure:
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color="0.3", linewidth=0.8)
        x, y = np.append(0.0, skill.false_positive), np.append(0.0, skill.true_positive)
        ax.plot(x, y, color=palette(1)[0], linewidth=1.4)
        text = f"AUC {skill.auc:.3f} [{skill.low:.3f}–{skill.high:.3f}]"
        ax.text(0.98, 0.04, text, horizontalalignment="right")
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(
            xlabel=f"share of {skill.n_low} low runs", ylabel=f"share of {skill.n_high} high runs"
        )
        if title is not None:
            ax.set_title(title)
    return figure
