"""List of experiments and figures, and tables of measured and published values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pylyap._perturbations.comparison import GrowthComparison
from pylyap.papers import study
from pylyap.papers.danovski2024 import experiments, figures
from pylyap.papers.danovski2024.experiments import nearest
from pylyap.papers.danovski2024.panels import size_text
from pylyap.papers.danovski2024.results import ChaoticSeries, LowRate, Perturbed, Trained
from pylyap.papers.danovski2024.task import PUBLISHED, Task
from pylyap.papers.study import Drawing, Experiment, Row, span


class Study(study.Study):
    """All experiments of the study; each runs once, when it is needed.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    quick : bool, default False
        Use small sizes.
    """

    def __init__(self, task: Task = PUBLISHED, *, quick: bool = False) -> None:
        super().__init__(EXPERIMENTS, FIGURES, task, quick=quick)


def _low_rate(low: LowRate) -> Iterator[Row]:
    start = low.ensemble.distances[..., 0] / (low.eps[:, np.newaxis] * low.task.n_weights)
    error = start[:, -1].std(ddof=1) / np.sqrt(start[:, -1].size)
    yield Row("d(0) / (ε N)", f"{start[:, -1].mean():.3f} ± {error:.3f}", "near 1/2")
    mean = low.displacement.mean(axis=-1)
    yield Row("⟨Δ⟩ of the runs", span(mean, ".2f"), "0.30–0.59")
    change = np.ptp(mean, axis=1) / mean.mean(axis=1)
    yield Row("largest change of ⟨Δ⟩ with ε", f"{change.max():.1%}", "none seen")
    last = low.scaled[..., -1]
    apart = np.ptp(last[:, (low.eps > 1e-13) & (low.eps < 1e-3)], axis=1) / last.mean(axis=1)
    yield Row(
        "spread of d(T) / (ε N) over ε = 1e-12 … 1e-4", f"{apart.max():.1%}", "curves collapse"
    )
    apart = np.ptp(last, axis=1) / last.mean(axis=1)
    yield Row("spread over all sizes", span(apart, ".0%"))
    yield Row("d(T) / (ε N) at ε = 1e-8", span(low.scaled[:, nearest(low.eps, 1e-8), -1], ".2f"))
    yield Row("initial ‖W‖", span(low.travel.norm[:, 0], ".0f"), "52–63")
    yield Row("final ‖W‖", span(low.travel.norm[:, -1], ".0f"), "66–78")
    yield Row("final loss", span(low.loss[:, -1], ".2f"), "0.2–0.3")
    yield Row("largest L_w / L", f"{low.knock_out.max():.1f}")


def _long_run(long: Perturbed) -> Iterator[Row]:
    yield Row("d(T) / d(0)", span(long.mean[..., -1] / long.mean[..., 0], ".2f"))
    yield Row("final loss", span(long.loss[:, -1], ".3f"))


def _after_learning(after: Perturbed) -> Iterator[Row]:
    ratio = after.mean[..., -1] / after.mean[..., 0]
    yield Row("d(T) / d(0)", span(ratio[:, after.eps > 1e-14], ".2f"), "flat")


def _edge(edge: Perturbed) -> Iterator[Row]:
    yield Row("largest d / d(0)", span(edge.mean.max(axis=-1) / edge.mean[..., 0], ".2g"))
    yield Row("final loss", span(edge.loss[:, -1], ".4f"))


def _edge_growth(growth: GrowthComparison) -> Iterator[Row]:
    runs = growth.kept.shape[0]
    for eps in (1e-14, 1e-8, 1e-4, 1e-1):
        j = nearest(growth.eps, eps)
        mean, spread, kept = growth.mean[j], growth.spread[j], growth.n_kept[j]
        text = f"{mean:.3f} ± {spread:.3f}, {kept} of {runs} kept" if kept else f"0 of {runs} kept"
        yield Row(f"λ_nMLE at ε = {size_text(eps)}", text)
    slopes = growth.best_window.slope[:, nearest(growth.eps, 1e-8)]
    yield Row("λ_nMLE at 1e-8, unfiltered", f"{np.nanmean(slopes):.3f}, mean of all runs")
    slopes = growth.until_saturation.slope[:, nearest(growth.eps, 1e-8)]
    yield Row("line until saturation at 1e-8", f"{np.nanmean(slopes):.3f}, mean of all runs")
    exponent = growth.exponent
    yield Row(
        "tangent exponent", f"{np.nanmean(exponent):.3f} ± {np.nanstd(exponent, ddof=1):.3f}, all"
    )


def _trained(trained: Trained) -> Iterator[Row]:
    scan = trained.scan
    names, counts = np.unique(scan.regime, return_counts=True)
    runs = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
    yield Row(f"runs at lr {trained.lr:g}", runs)


def _chaotic(trained: Trained) -> Iterator[Row]:
    yield from _trained(trained)
    scan = trained.scan
    late = scan.late_loss[0]
    resting = np.ptp(late[:, -len(late[0]) // 4 :], axis=1) < 1e-3
    level = span(late[resting, -1], ".4f")
    yield Row(f"plateau, loss of {resting.sum()} runs", level, "ln 3 = 1.0986")
    periods = np.unique(scan.period[0][scan.regime[0] == "periodic"])
    text = ", ".join(map(str, periods)) or "none"
    yield Row("periods in the late window", text, "periodic windows")
    yield Row("largest late exponent", f"{np.nanmax(trained.exponent):.3f}", "chaotic band")
    yield Row("final ‖W‖", span(trained.norm[:, -1], ".0f"))
    yield Row("largest difference between samples", span(trained.output_spread, ".0e"))
    for regime in np.unique(scan.regime):
        some = trained.units_on[scan.regime[0] == regime]
        yield Row(f"hidden units on (K), {regime} runs", span(some, "d"))


def _chaotic_series(series: ChaoticSeries) -> Iterator[Row]:
    exponent, error = series.tangent.exponents[0], series.tangent.stderr[0]
    yield Row(f"tangent exponent from step {series.start}", f"{exponent:.3f} ± {error:.3f}")
    yield Row(f"exponent of the saturated map, K = {series.units_on}", f"{series.reduced:.3f}")
    low, high = np.quantile(series.loss[series.start :], (0.005, 0.995))
    yield Row("loss, 99 % of the steps", f"{low:.2f}–{high:.2f}", "chaotic band")
    first = int(series.autocorrelation.decorrelation)
    outside = _outside(series).mean()
    yield Row("first lag inside the null band", str(first) if first > 0 else "none")
    yield Row("lags outside the null band", f"{outside:.0%}")
    for name, rates in (
        ("published rule", series.published),
        (f"ten steps, Theiler {series.theiler}", series.corrected),
    ):
        slope, share = rates.slope[rates.exponential], rates.exponential.mean()
        text = f"{share:.0%} of the points"
        if len(slope):
            text += f", mean Λ {slope.mean():.3f}, median {np.median(slope):.3f}"
        yield Row(f"exponential, {name}", text)


def _outside(series: ChaoticSeries) -> Any:
    found = series.autocorrelation
    return ((found.values < found.low) | (found.values > found.high))[1:]


def _other_rates(others: list[Trained]) -> Iterator[Row]:
    for trained in others:
        yield from _trained(trained)


EXPERIMENTS = {
    "low rate": Experiment(
        experiments.low_rate, _low_rate, {"runs": 2, "copies": 4, "n_steps": 200}
    ),
    "long run": Experiment(
        experiments.long_run, _long_run, {"runs": 2, "copies": 4, "n_steps": 1000}
    ),
    "after learning": Experiment(
        experiments.after_learning,
        _after_learning,
        {"runs": 2, "copies": 4, "start": 400, "n_steps": 100},
    ),
    "edge": Experiment(experiments.edge, _edge, {"runs": 2, "n_steps": 400}),
    "edge growth": Experiment(experiments.edge_growth, _edge_growth, {"runs": 10}),
    "chaotic": Experiment(
        experiments.chaotic, _chaotic, {"runs": 8, "n_steps": 800, "n_late": 200}
    ),
    "chaotic series": Experiment(
        experiments.chaotic_series,
        _chaotic_series,
        {"n_steps": 2500, "start": 300, "n_shuffles": 100, "n_points": 100, "radius": 1e-3},
        needs=("chaotic",),
    ),
    "other rates": Experiment(
        experiments.other_rates, _other_rates, {"runs": 2, "n_steps": 200, "n_late": 100}
    ),
}

FIGURES = {
    "iris": Drawing(figures.iris, ("low rate",)),
    "distances": Drawing(figures.distances, ("low rate",)),
    "sizes": Drawing(figures.sizes, ("low rate",)),
    "weights": Drawing(figures.weights, ("low rate",)),
    "scaling": Drawing(figures.scaling, ("low rate",)),
    "long-run": Drawing(figures.long_run, ("long run",)),
    "after-learning": Drawing(figures.after_learning, ("after learning",)),
    "norm": Drawing(figures.norm, ("low rate",)),
    "edge": Drawing(figures.edge, ("edge",)),
    "edge-growth": Drawing(figures.edge_growth, ("edge growth",)),
    "chaotic": Drawing(figures.chaotic, ("chaotic",)),
    "chaotic-series": Drawing(figures.chaotic_series, ("chaotic series",)),
    "expansion": Drawing(figures.expansion, ("chaotic series",)),
    "single-weights": Drawing(figures.single_weights, ("chaotic series",)),
    "other-rates": Drawing(figures.other_rates, ("other rates",)),
    "scaling-all": Drawing(figures.scaled_distances, ("low rate",)),
    "after-learning-all": Drawing(figures.scaled_distances, ("after learning",)),
}
