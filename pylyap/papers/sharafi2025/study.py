"""Which experiments and figures there are, and what was measured beside what was published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pylyap.papers import study
from pylyap.papers.sharafi2025 import figures
from pylyap.papers.sharafi2025.attractors import Attractors, examine_attractors
from pylyap.papers.sharafi2025.definition import HE, Task
from pylyap.papers.sharafi2025.ensembles import (
    EarlyVectors,
    Ensemble,
    Vectors,
    run_early_vectors,
    run_ensembles,
    run_vectors,
)
from pylyap.papers.sharafi2025.indicators import (
    CHEAP,
    LAST,
    LOSS,
    STEPS,
    SUM,
    TANGENT,
    WITH_CHEAP,
    WITH_EXPONENTS,
    Comparison,
    Prediction,
    measure_predictions,
)
from pylyap.papers.sharafi2025.operator import OperatorErrors, compare_operators
from pylyap.papers.sharafi2025.sensitivity import (
    BASE,
    VARIANTS,
    VariantResult,
    vary_assumptions,
)
from pylyap.papers.sharafi2025.sensitivity import (
    LAST as CONTRACTING,
)
from pylyap.papers.study import Drawing, Experiment, Row


class Study(study.Study):
    """All experiments, each computed when it is first needed.

    Parameters
    ----------
    task : Task
        Folder of the stored results, and seed.
    quick : bool, default False
        Small sizes.
    """

    def __init__(self, task: Task, *, quick: bool = False) -> None:
        super().__init__(EXPERIMENTS, FIGURES, task, quick=quick)


def _interval(auc: tuple[float, float, float]) -> str:
    return f"{auc[0]:.2f} [{auc[1]:.2f}–{auc[2]:.2f}]"


def _ensembles(some: Sequence[Ensemble]) -> Iterator[Row]:
    for ensemble in some:
        logs = ensemble.log_loss[np.isfinite(ensemble.log_loss)]
        if ensemble.kind == HE:
            text = ", ".join(f"{c.peak:.2f} ({100 * c.share:.1f} %)" for c in ensemble.clusters)
            yield Row(f"clusters of log₁₀ c_f, {ensemble.name}", text, "distinct clusters")
        else:
            low, high = np.quantile(logs, [0.05, 0.95])
            text = f"{low:.2f} … {high:.2f} (5–95 %)"
            yield Row(f"log₁₀ c_f, {ensemble.name}", text, "one broad spread")
        diverged = int((~np.isfinite(ensemble.final_loss)).sum())
        yield Row(f"runs, diverged, {ensemble.name}", f"{ensemble.runs}, {diverged}", "4000")
        mean, spread = ensemble.exponents.mean(axis=0), ensemble.exponents.std(axis=0, ddof=1)
        text = f"{mean[0]:.2g} ± {spread[0]:.2g}, {mean[-1]:.2g} ± {spread[-1]:.2g}"
        yield Row(f"first and last exponent, {ensemble.name}", text)


def _vectors(some: Sequence[Vectors]) -> Iterator[Row]:
    for found in some:
        errors = np.nanmedian(found.contamination, axis=0)
        fixed = [str(i + 1) for i in np.flatnonzero(errors < 0.1)]
        yield Row(
            f"vectors with a median error below 0.1, {found.ensemble.name}",
            ", ".join(fixed) or "none",
        )


def _early(some: Sequence[EarlyVectors]) -> Iterator[Row]:
    for found in some:
        errors = np.nanmedian(found.error, axis=(0, 1))
        text = ", ".join(f"{errors[i]:.2g}" for i in (0, 1, -2, -1))
        yield Row(
            f"error after {found.delay} steps, vectors 1, 2, 12, 13, {found.ensemble.name}", text
        )


def verdicts(comparisons: Sequence[Comparison], name: str, other: str) -> str:
    """Return at which steps an indicator is significantly better or worse than another.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Of one ensemble.
    name, other : str
        The two indicators.

    Returns
    -------
    str
        Such as "better at 50, 100; worse at 1000".
    """
    words: dict[int, list[str]] = {1: [], -1: []}
    some = [c for c in comparisons if c.name == name and c.other == other]
    for c in some:
        if c.verdict:
            words[c.verdict].append(str(c.step))
    texts = [
        f"{word} at {', '.join(words[sign])}" for word, sign in (("better", 1), ("worse", -1))
        if words[sign]
    ]  # fmt: skip
    return "; ".join(texts) or ("no difference" if some else "–")


def _predictions(some: Sequence[Prediction]) -> Iterator[Row]:
    claims = {LAST: "predicts c_f", SUM: "predicts c_f", TANGENT[-1]: "claimed in the preprint"}
    for found in some:
        name = found.ensemble.name
        for indicator in (LOSS, LAST, SUM, TANGENT[-1], *CHEAP[:2]):
            texts = [_interval(found.skill(indicator, step)) for step in (200, STEPS[-1])]
            texts = [text.replace("nan [nan–nan]", "–") for text in texts]
            published = claims.get(indicator, "–")
            yield Row(f"AUC of {indicator} at 200, 1000, {name}", ", ".join(texts), published)
        for indicator in (LAST, SUM, TANGENT[-1], WITH_EXPONENTS):
            yield Row(
                f"{indicator} against the loss, {name}",
                verdicts(found.against_loss, indicator, LOSS),
            )
        for indicator in CHEAP[:3]:
            yield Row(
                f"{indicator} against {LAST}, {name}",
                verdicts(found.against_exponent, indicator, LAST),
            )
        yield Row(
            f"{WITH_EXPONENTS} against {WITH_CHEAP}, {name}",
            verdicts(found.against_exponent, WITH_EXPONENTS, WITH_CHEAP),
        )
        yield Row(
            f"rank correlation of the first window with −lr tr H₀, ln|1 − lr λ_max|, {name}",
            f"{found.window_trace:.2f}, {found.window_sharpness:.2f}",
        )
        for indicator in (LOSS, LAST, SUM):
            step, early, late = found.reaches(indicator)
            text = f"{step:.0f} [{early:.0f}–{late:.0f}]".replace("nan", "never")
            yield Row(f"step at which {indicator} reaches an AUC of 0.75, {name}", text)
        for group, (policy, error) in found.policies.items():
            bar = "" if np.isnan(error) else f" ± {196 * error:.0f}"
            text = f"{100 * policy.saved:.0f}{bar} % (step {policy.at})"
            yield Row(f"steps saved by {group}, {name}", text.replace("inf", "∞"))


def _attractors(some: Sequence[Attractors]) -> Iterator[Row]:
    for found in some:
        high = found.ensemble.high
        for label, part in (("low", ~high), ("high", high)):
            count = max(int(part.sum()), 1)
            idle = np.bincount(found.idle[part], minlength=4) / count
            text = ", ".join(f"{100 * share:.0f}" for share in idle) + " %"
            yield Row(f"0, 1, 2, 3 idle units, {found.ensemble.name}, {label}", text)
            ranks = np.quantile(found.rank[part], [0.25, 0.5, 0.75]) if part.any() else [0, 0, 0]
            text = f"{ranks[1]:.0f} [{ranks[0]:.0f}–{ranks[2]:.0f}]"
            yield Row(f"rank of H, {found.ensemble.name}, {label}", text)
        worst = np.nanmedian(found.difference, axis=0).max()
        yield Row(
            f"|exponent − ln|1 − lr h||, largest median, {found.ensemble.name}", f"{worst:.1e}"
        )
        yield Row(
            f"within the drift: exponents, their sum, {found.ensemble.name}",
            f"{100 * found.within:.0f} %, {100 * found.sum_within:.0f} %",
            "equal at a fixed point",
        )


def _sensitivity(some: Sequence[VariantResult]) -> Iterator[Row]:
    for found in some:
        text = f"{100 * found.share_high:.0f} % high, {100 * found.explained:.0f} % explained"
        if found.diverged:
            text += f", {found.diverged} diverged"
        yield Row(found.name, text)
    for activation in dict.fromkeys(found.activation for found in some):
        results = [found for found in some if found.activation == activation]
        steps = sorted({step for found in results for _, step in found.skills})
        for step in steps:
            signs = [
                f.better[CONTRACTING, step] for f in results if (CONTRACTING, step) in f.better
            ]
            text = f"{signs.count(1)} better, {signs.count(0)} equal, {signs.count(-1)} worse"
            yield Row(f"{CONTRACTING} against the loss, step {step}, {activation}", text)


def _operator(found: OperatorErrors) -> Iterator[Row]:
    for name, errors in found.errors.items():
        yield Row(name, f"{np.nanmax(errors):.1e} at most")


EXPERIMENTS = {
    "ensembles": Experiment(run_ensembles, _ensembles, {"runs": 60, "n_steps": 500}),
    "vectors": Experiment(
        run_vectors,
        _vectors,
        {"runs": 20, "n_steps": 400, "n_tail": 100, "every": 50},
        needs=("ensembles",),
    ),
    "early vectors": Experiment(
        run_early_vectors,
        _early,
        {"runs": 30, "n_steps": 300, "n_tail": 100, "delay": 100},
        needs=("ensembles",),
    ),
    "predictions": Experiment(
        measure_predictions, _predictions, {}, needs=("ensembles", "early vectors")
    ),
    "attractors": Experiment(examine_attractors, _attractors, {}, needs=("ensembles",)),
    "sensitivity": Experiment(
        vary_assumptions,
        _sensitivity,
        {"runs": 40, "n_early": 200, "variants": (BASE, VARIANTS[-3])},
    ),
    "operator": Experiment(
        compare_operators, _operator, {"widths": (1, 3), "states": 2, "jax_widths": ()}
    ),
}

FIGURES = {
    "network": Drawing(figures.network, ("ensembles",)),
    "data": Drawing(figures.data, ("ensembles",)),
    "final-loss": Drawing(figures.final_loss, ("ensembles",)),
    "final-loss-wide": Drawing(figures.final_loss_wide, ("ensembles",)),
    "exponents": Drawing(figures.exponents, ("ensembles",)),
    "exponents-wide": Drawing(figures.exponents_wide, ("ensembles",)),
    "exponents-loss": Drawing(figures.exponents_loss, ("ensembles",)),
    "training": Drawing(figures.training, ("ensembles",)),
    "training-wide": Drawing(figures.training_wide, ("ensembles",)),
    "distributions": Drawing(figures.distributions, ("ensembles",)),
    "distributions-wide": Drawing(figures.distributions_wide, ("ensembles",)),
    "angles": Drawing(figures.angles, ("vectors",)),
    "angle-distributions": Drawing(figures.angle_distributions, ("vectors",)),
    "skill": Drawing(figures.skill, ("predictions",)),
    "saved": Drawing(figures.saved, ("predictions",)),
    "causes": Drawing(figures.causes, ("predictions",)),
    "attractors": Drawing(figures.attractors, ("attractors",)),
    "sensitivity": Drawing(figures.sensitivity, ("sensitivity",)),
    "windows": Drawing(figures.windows, ("sensitivity",)),
    "operator": Drawing(figures.operator, ("operator",)),
}
