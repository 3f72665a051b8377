"""Finite-time exponents and angles between covariant vectors along training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap.papers.sharafi2025.definition import (
    HE,
    NAMES,
    WIDE,
    WINDOW,
    Floats,
    Initialisation,
    assumptions,
)
from pylyap.papers.sharafi2025.ensembles import SMALLEST, Ensemble, Vectors
from pylyap.papers.sharafi2025.figures.common import (
    KINDS,
    RATE,
    STEP,
    caption,
    common_edges,
    counts,
    histogram,
    outcome,
)
from pylyap.plotting.style import band, canvas, entitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN = (0, 6, 10, 11, 12)  # exponents
_ENDS = (50, 500, 2000)  # of windows
_RECORDS = (100, 500, 2000)  # of vectors


def training(some: Sequence[Ensemble]) -> Figure:
    """Draw finite-time exponents along training from He weights, low and high c_f apart.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _training(some, HE)


def training_wide(some: Sequence[Ensemble]) -> Figure:
    """Draw the same from wide-range weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _training(some, WIDE)


def _training(some: Sequence[Ensemble], kind: Initialisation) -> Figure:
    chosen = [ensemble for ensemble in some if ensemble.kind == kind]
    with canvas((10.0, 5.0)) as figure:
        axes = figure.subplots(len(chosen), len(_SHOWN) + 1, squeeze=False, sharex=True)
        for row, ensemble in zip(axes, chosen, strict=True):
            rates = ensemble.growth / WINDOW
            for ax, i in zip(row, (*_SHOWN, None), strict=True):
                values = rates.sum(axis=-1) if i is None else rates[..., i]
                for name, color in KINDS.items():
                    band(ax, ensemble.known, values[ensemble.high == (name == "high")], color)
                ax.axhline(0.0, color="0.6", linewidth=0.6, zorder=0)
                ax.set(xscale="log")
                ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
                ax.yaxis.get_offset_text().set_fontsize(7)
                ax.tick_params(labelsize=7)
            row[0].set(ylabel=f"{NAMES[ensemble.activation]}\n{RATE}")
        for ax, i in zip(axes[0], (*_SHOWN, None), strict=True):
            ax.set_title("sum" if i is None else f"$\\lambda_{{{i + 1}}}$")
        for ax in axes[-1]:
            ax.set_xlabel("step", fontsize=8)
        entitle(figure, *outcome(), f"Finite-time exponents, initial weights: {kind.name}")
        caption(
            figure,
            f"Medians (lines) and quartiles (bands) of exponents over windows of {WINDOW} steps, "
            "at the end of the window; in the first one the random start frame still aligns. "
            f"{'; '.join(counts(e) for e in chosen)}. "
            f"{assumptions(kind, n_steps=chosen[0].n_steps)}",
        )
    return figure


def distributions(some: Sequence[Ensemble]) -> Figure:
    """Draw distributions of finite-time exponents given low or high c_f, from He weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _distributions(some, HE)


def distributions_wide(some: Sequence[Ensemble]) -> Figure:
    """Draw the same from wide-range weights.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.

    Returns
    -------
    Figure
        The figure.
    """
    return _distributions(some, WIDE)


def _distributions(some: Sequence[Ensemble], kind: Initialisation) -> Figure:
    chosen = [ensemble for ensemble in some if ensemble.kind == kind]
    panels: list[tuple[Ensemble, str, Floats]] = []
    for ensemble in chosen:
        rates = ensemble.growth / WINDOW
        panels += [
            (ensemble, r"$\lambda_{13}$", rates[..., -1]), (ensemble, "sum", rates.sum(axis=-1))
        ]  # fmt: skip
    with canvas((9.0, 7.0)) as figure:
        axes = figure.subplots(len(panels), len(_ENDS), squeeze=False)
        for row, (ensemble, name, values) in zip(axes, panels, strict=True):
            for ax, end in zip(row, _ENDS, strict=True):
                _given_outcome(ax, values[:, ensemble.at(end)], ensemble.high)
                ax.set(xlabel=f"{name} ({RATE})")
            row[0].set(ylabel=f"{NAMES[ensemble.activation]}\nfraction of the runs")
        for ax, end in zip(axes[0], _ENDS, strict=True):
            known = chosen[0].known[chosen[0].at(end)]
            ax.set_title(f"Steps {known - WINDOW}–{known}")
        entitle(figure, *outcome(), f"Finite-time exponents, initial weights: {kind.name}")
        caption(
            figure,
            f"Fractions of the runs of each outcome, without the outer 0.2 %; windows of {WINDOW} "
            f"steps. {'; '.join(counts(e) for e in chosen)}. "
            f"{assumptions(kind, n_steps=chosen[0].n_steps)}",
        )
    return figure


def _given_outcome(ax: Axes, values: Floats, high: Any) -> None:
    edges = common_edges(values)
    for name, color in KINDS.items():
        histogram(ax, values[high == (name == "high")], edges, color)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(-2, 3))
    ax.xaxis.get_offset_text().set_fontsize(7)
    ax.tick_params(labelsize=7)


def angles(some: Sequence[Vectors]) -> Figure:
    """Draw angles between covariant vectors along training from He weights.

    Parameters
    ----------
    some : sequence of Vectors
        Result of `run_vectors`.

    Returns
    -------
    Figure
        The figure.
    """
    chosen = [vectors for vectors in some if vectors.ensemble.kind == HE]
    shown = _shown()
    with canvas((10.0, 5.0)) as figure:
        axes = figure.subplots(len(chosen), len(shown) + 1, squeeze=False, sharex=True)
        for row, vectors in zip(axes, chosen, strict=True):
            for ax, (index, apart) in zip(row, shown.values(), strict=False):
                values = _angle(vectors, index, apart)
                for name, color in KINDS.items():
                    band(ax, vectors.steps[1:], values[vectors.high == (name == "high")], color)
                ax.set(xscale="log", **({"yscale": "log"} if apart else {"ylim": (0, None)}))
                ax.tick_params(labelsize=7)
            errors = vectors.contamination[1:]
            image = row[-1].pcolormesh(
                vectors.steps[1:], np.arange(1, errors.shape[1] + 1), errors.T, vmin=0.0,
                vmax=1.0, cmap="viridis", shading="nearest",
            )  # fmt: skip
            row[-1].invert_yaxis()
            row[-1].tick_params(labelsize=7)
            figure.colorbar(image, ax=row[-1])
            row[0].set(ylabel=f"{NAMES[vectors.ensemble.activation]}\ndegrees")
            row[-1].set(ylabel="vector")
        for ax, name in zip(axes[0], (*shown, "error (sine)"), strict=True):
            ax.set_title(name)
        for ax in axes[-1]:
            ax.set_xlabel(STEP, fontsize=8)
        entitle(figure, *outcome(), "Angles between covariant vectors, initial weights: He")
        caption(
            figure,
            _vector_caption(chosen, "Medians (lines) and quartiles (bands).")
            + " Error: median estimated contamination by other vectors, 0 … 1; where it is 1 these "
            "steps do not determine the vector: at the end vectors 1 and 2 stand at the "
            "arbitrary angle that all runs are given there.",
        )
    return figure


def angle_distributions(some: Sequence[Vectors]) -> Figure:
    """Draw distributions of angles at three times given low or high c_f, from He weights.

    Parameters
    ----------
    some : sequence of Vectors
        Result of `run_vectors`.

    Returns
    -------
    Figure
        The figure.
    """
    chosen = [vectors for vectors in some if vectors.ensemble.kind == HE]
    shown = list(_shown().items())
    panels = [(vectors, *shown[i]) for vectors in chosen for i in (3, 1)]
    with canvas((9.0, 7.0)) as figure:
        axes = figure.subplots(len(panels), len(_RECORDS), squeeze=False)
        for i, (vectors, name, (index, apart)) in enumerate(panels):
            values = _angle(vectors, index, apart)
            if apart:
                values, name = np.log10(np.maximum(values, 1e-8)), f"log₁₀ ({name})"
            for ax, step in zip(axes[i], _RECORDS, strict=True):
                t = int(np.abs(vectors.steps[1:] - step).argmin())
                _given_outcome(ax, values[:, t], vectors.high)
                ax.set(xlabel=f"{name} (degrees)")
                if i == 0:
                    ax.set_title(f"Step {vectors.steps[1 + t]}")
            axes[i, 0].set(ylabel=f"{NAMES[vectors.ensemble.activation]}\nfraction of the runs")
        entitle(figure, *outcome(), "Angles between covariant vectors, initial weights: He")
        caption(figure, _vector_caption(chosen, "Fractions of the runs of each outcome."))
    return figure


def _shown() -> dict[str, tuple[str, bool]]:
    """Titles and names of the angles that are shown, and whether their deviation from 90° is."""
    near = {f"90° − ({name})": (name, True) for name in ("11–12", "12–13", "1–13")}
    return {"1–2": ("1–2", False), SMALLEST: (SMALLEST, False), **near}


def _angle(vectors: Vectors, name: str, apart: bool) -> Floats:
    """(runs, T) degrees, without the first record, where the frame is still the random one."""
    angle = np.rad2deg(vectors.angles[name][:, 1:])
    result: Floats = 90.0 - angle if apart else angle
    return result


def _vector_caption(chosen: Sequence[Vectors], what: str) -> str:
    ends = "; ".join(counts(v.ensemble, v.runs) for v in chosen)
    return (
        f"{what} The vectors draw on all later steps. {ends}. "
        f"{assumptions(HE, n_steps=chosen[0].ensemble.n_steps)}"
    )
