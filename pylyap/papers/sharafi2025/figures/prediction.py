"""How well indicators predict the final loss, and what stopping by them saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._tangent.sharpness import hessian_spectrum
from pylyap.papers.sharafi2025.definition import WINDOW, assumptions
from pylyap.papers.sharafi2025.figures.common import DARK, LIGHT, caption, counts, outcome
from pylyap.papers.sharafi2025.indicators import (
    LAST,
    LOSS,
    SHARPNESS,
    SMALLEST,
    STEPS,
    SUM,
    TRACE,
    TRAILING,
    UNITS,
    Prediction,
)
from pylyap.plotting.style import canvas, entitle, tidy_log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LOOK: dict[str, dict[str, Any]] = {
    LOSS: {"color": "black"},
    LAST: {"color": DARK},
    SUM: {"color": "#35b779"},
    TRAILING: {"color": "#c8553d"},
    SMALLEST: {"color": "#c8553d", "linestyle": (0, (3, 2))},
    SHARPNESS: {"color": LIGHT, "marker": "o"},
    TRACE: {"color": LIGHT, "marker": "s", "linestyle": (0, (3, 2))},
    UNITS: {"color": "#7a5195", "marker": "^"},
}
_LABELS = {
    LOSS: "loss",
    LAST: r"$\lambda_{13}$",
    SUM: r"$\Sigma_i\,\lambda_i$",
    TRAILING: "angle 12–13",
    SMALLEST: "smallest angle",
    SHARPNESS: r"$\lambda_{\max}(H)$",
    TRACE: "tr $H$",
    UNITS: "inactive or saturated units",
}


def skill(some: Sequence[Prediction]) -> Figure:
    """Draw the area under the ROC curve of every indicator against the step at which it is known.

    Parameters
    ----------
    some : sequence of Prediction
        Result of `measure_predictions`.

    Returns
    -------
    Figure
        The figure.
    """
    with canvas((9.0, 7.2)) as figure:
        axes = figure.subplots(2, -(-len(some) // 2), sharex=True, sharey=True, squeeze=False)
        handles: dict[str, Any] = {}
        for ax, found in zip(axes.ravel(), some, strict=False):
            handles = _skills(ax, found) | handles
            ax.set_title(counts(found.ensemble))
        for ax in axes[-1]:
            ax.set(xlabel="known at optimiser step")
        for ax in axes[:, 0]:
            ax.set(ylabel="area under the ROC curve")
        order = [*_LOOK, "other exponents"]
        names = [name for name in order if name in handles]
        entitle(
            figure, [handles[n] for n in names], [_LABELS.get(n, n) for n in names],
            "Prediction of {low, high} final loss",
        )  # fmt: skip
        caption(
            figure,
            f"0.5 is chance, 0 is as good as 1; bands: 95 % intervals (DeLong). λ: exponents over "
            f"windows of {WINDOW} steps, known at the end of the window; angles between covariant "
            f"vectors of {some[0].n_vectors} runs each, known 100 steps after their record; "
            "markers: from the state alone, also at step 0 (drawn at 25). Thresholds: half-way "
            f"between clusters (He), median (σ = 20). "
            f"{assumptions(n_steps=some[0].ensemble.n_steps)}",
        )
    return figure


def _skills(ax: Axes, found: Prediction) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    ax.axhline(0.5, color="0.3", linewidth=0.8, zorder=0)
    for name, curve in found.curves.items():
        fine = np.isfinite(curve.auc)
        x = np.maximum(curve.known[fine], WINDOW / 2)
        if name.startswith("FTLE ") and name != LAST:
            (handles["other exponents"],) = ax.plot(
                x, curve.auc[fine], color="0.75", linewidth=0.5, zorder=1
            )
        elif name in _LOOK and x.size:
            look = {"linewidth": 1.3, "markersize": 4, "zorder": 3} | _LOOK[name]
            ax.fill_between(
                x, curve.low[fine], curve.high[fine], color=look["color"], alpha=0.12, linewidth=0
            )
            (handles[name],) = ax.plot(x, curve.auc[fine], **look)
    ax.set(xscale="log", ylim=(0, 1))
    tidy_log_axis(ax.xaxis)
    return handles


def saved(some: Sequence[Prediction]) -> Figure:
    """Draw the steps saved by stopping runs by each indicator, on runs the rule has not seen.

    Parameters
    ----------
    some : sequence of Prediction
        Result of `measure_predictions`.

    Returns
    -------
    Figure
        The figure.
    """
    names = list(dict.fromkeys(name for found in some for name in found.policies))
    with canvas((9.0, 5.0)) as figure:
        axes = figure.subplots(2, -(-len(some) // 2), sharex=True, sharey=True, squeeze=False)
        place = np.arange(len(names))[::-1]
        lowest = 0.0
        for ax, found in zip(axes.ravel(), some, strict=False):
            for y, name in zip(place, names, strict=True):
                if name not in found.policies:
                    continue
                policy, error = found.policies[name]
                if not np.isfinite(policy.saved):
                    continue
                percent = 100.0 * policy.saved
                color = "0.35" if name == "loss" else DARK
                color = LIGHT if name in ("Hessian", "gradient", "units, signs") else color
                bar = None if np.isnan(error) else 196.0 * error
                ax.barh(y, percent, xerr=bar, color=color, height=0.65, error_kw={"linewidth": 0.9})
                lowest = min(lowest, percent)
                ax.text(
                    148.0, y, f"step {policy.at}, stops {100 * policy.stopped:.0f} %", fontsize=7,
                    ha="right", va="center",
                )  # fmt: skip
            ax.axvline(0.0, color="0.3", linewidth=0.8)
            ax.set_title(found.ensemble.name)
            ax.set_yticks(place, names)
        axes[0, 0].set_xlim(max(-40.0, min(-5.0, lowest - 5.0)), 150.0)
        axes[0, 0].set_xticks([0, 25, 50, 75, 100])
        for ax in axes[-1]:
            ax.set(xlabel="steps saved per run that ends low (%)")
        caption(
            figure,
            "1 − (steps per run that ends low, runs stopped at the given step and replaced by new "
            "ones) / (without stopping). Indicator, step "
            f"({', '.join(map(str, STEPS))}), side and cut are chosen on four fifths of the runs "
            f"and judged on the last, in turn; bars: 95 % intervals from 8 disjoint parts of the "
            f"runs. {some[0].ensemble.runs} runs each, angles {some[0].n_vectors}. Dark: loss and "
            "tangent dynamics; orange: from the state alone. "
            f"{assumptions(n_steps=some[0].ensemble.n_steps)}",
        )
    return figure


def causes(some: Sequence[Prediction]) -> Figure:
    """Draw exponents of the first window against the curvature at the start.

    Parameters
    ----------
    some : sequence of Prediction
        Result of `measure_predictions`.

    Returns
    -------
    Figure
        The figure.
    """
    with canvas((10.0, 5.0)) as figure:
        axes = figure.subplots(2, len(some), squeeze=False)
        for column, found in zip(axes.T, some, strict=True):
            ensemble = found.ensemble
            window = ensemble.growth[:, 0]
            eigenvalues = hessian_spectrum(ensemble.system, ensemble.start).eigenvalues
            lr = ensemble.kind.lr
            with np.errstate(divide="ignore"):
                law = np.log(np.abs(1.0 - lr * eigenvalues[:, 0]))
            for ax, x, y, rank in (
                (column[0], law, window[:, -1] / WINDOW, found.window_sharpness),
                (column[1], -lr * eigenvalues.sum(axis=1), window.sum(axis=1) / WINDOW,
                 found.window_trace),
            ):  # fmt: skip
                fine = np.isfinite(x) & np.isfinite(y)
                for name, color in (("low", DARK), ("high", LIGHT)):
                    part = fine & (ensemble.high == (name == "high"))
                    ax.plot(
                        x[part], y[part], ".", color=color, markersize=1.5, alpha=0.4,
                        rasterized=True,
                    )  # fmt: skip
                low, high = np.quantile(np.concatenate([x[fine], y[fine]]), [0.01, 0.995])
                ax.plot([low, high], [low, high], color="0.3", linewidth=0.8)
                room = 0.05 * (high - low)
                ax.set(xlim=(low - room, high + room), ylim=(low - room, high + room))
                text = f"Spearman {rank:.2f}".replace("-", "−")
                ax.set_title(text, loc="right", fontsize=8)
                ax.locator_params(nbins=4)
                ax.tick_params(labelsize=8)
            column[0].set_title(ensemble.name)
            column[0].set(xlabel=r"$\ln|1 - \eta\,\lambda_{\max}(H_0)|$")
            column[1].set(xlabel=r"$-\eta\,\mathrm{tr}\,H_0$")
        axes[0, 0].set(ylabel=r"$\lambda_{13}$, steps 0–50")
        axes[1, 0].set(ylabel=r"$\Sigma_i\,\lambda_i$, steps 0–50")
        entitle(
            figure,
            *outcome(dots=True),
            "Exponents of the first window against the initial curvature",
        )
        caption(
            figure,
            "Nats per step; line: identity. η: learning rate, H₀: Hessian of the initial weights; "
            f"{some[0].ensemble.runs} runs each. {assumptions(n_steps=some[0].ensemble.n_steps)}",
        )
    return figure
