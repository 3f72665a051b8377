"""Dynamical stability and chaos in neural-network trajectories along training: the whole study.

Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). A 4-10-3 network learns Iris by
gradient descent; copies whose weights are perturbed are followed beside it at learning rates where
training settles, rides the edge of stability, and is chaotic.

One function per experiment returns numbers, at the published sizes by default; one function per
figure draws them::

    from pylyap.papers import danovski2024 as study

    low = study.low_rate()
    study.figures.scaling(low).savefig("scaling.png")

or, from a shell, all of it: ``python -m pylyap.papers.danovski2024 --output folder``.
"""

from pylyap.papers.danovski2024 import figures
from pylyap.papers.danovski2024.experiments import (
    EDGE_SIZES,
    SIZES,
    SPLIT_SEED,
    ChaoticSeries,
    LowRate,
    Perturbed,
    Task,
    Trained,
    after_learning,
    chaotic,
    chaotic_series,
    edge,
    edge_growth,
    long_run,
    low_rate,
    other_rates,
    saturated_map,
)
from pylyap.papers.danovski2024.study import EXPERIMENTS, FIGURES, Study

__all__ = [
    "EDGE_SIZES",
    "EXPERIMENTS",
    "FIGURES",
    "SIZES",
    "SPLIT_SEED",
    "ChaoticSeries",
    "LowRate",
    "Perturbed",
    "Study",
    "Task",
    "Trained",
    "after_learning",
    "chaotic",
    "chaotic_series",
    "edge",
    "edge_growth",
    "figures",
    "long_run",
    "low_rate",
    "other_rates",
    "saturated_map",
]
