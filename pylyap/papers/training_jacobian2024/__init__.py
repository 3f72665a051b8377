"""Understanding gradient descent through the training Jacobian.

Belrose, Scherlis, arXiv:2412.07003 (2024). A 64-64-10 network learns scikit-learn's digits by
stochastic gradient descent. The singular values of the derivative of the final parameters in the
initial ones lie in three regions: chaotic, bulk and stable.

One function per experiment returns results; one function per figure draws them::

    from pylyap.papers import training_jacobian2024 as study

    task = study.Task(hidden=16, epochs=5)
    reference = study.spectrum(task)
    study.figures.spectrum(reference).savefig("spectrum.png")

The command ``python -m pylyap.papers.training_jacobian2024 --output folder`` runs everything.
"""

from pylyap.papers.training_jacobian2024 import figures
from pylyap.papers.training_jacobian2024.experiments import (
    labels,
    orders,
    restricted,
    seeds,
    spectrum,
)
from pylyap.papers.training_jacobian2024.results import (
    REGIONS,
    WIDTH,
    Jacobian,
    Overlaps,
    Reference,
    Restricted,
)
from pylyap.papers.training_jacobian2024.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.training_jacobian2024.task import Task

__all__ = [
    "EXPERIMENTS",
    "FIGURES",
    "REGIONS",
    "WIDTH",
    "Jacobian",
    "Overlaps",
    "Reference",
    "Restricted",
    "Study",
    "Task",
    "figures",
    "labels",
    "orders",
    "restricted",
    "seeds",
    "spectrum",
]
