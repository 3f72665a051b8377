"""Dynamical stability and chaos in neural-network trajectories along training.

Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024). A 4-10-3 network is trained on
Iris by gradient descent, together with copies whose weights are perturbed. The learning rates lie
in the convergent regime, at the edge of stability, and in the chaotic regime.

One function per experiment returns results, at the published sizes by default; one function per
figure draws them::

    from pylyap.papers import danovski2024 as study

    low = study.low_rate()
    study.figures.scaling(low).savefig("scaling.png")

The command ``python -m pylyap.papers.danovski2024 --output folder`` runs everything.
"""

from pylyap.papers.danovski2024 import figures
from pylyap.papers.danovski2024.experiments import (
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
from pylyap.papers.danovski2024.results import ChaoticSeries, LowRate, Perturbed, Trained
from pylyap.papers.danovski2024.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.danovski2024.task import EDGE_SIZES, SIZES, SPLIT_SEED, Task

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
