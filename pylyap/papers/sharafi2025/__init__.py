"""Weight dynamics of learning networks: the whole study.

Sharafi, Martin, Hallerberg, Phys. Rev. E 111, 054208 (2025), arXiv 2405.00743. Small networks
learn a quadratic relation from He-initialised and from wide-range weights; Lyapunov exponents,
finite-time exponents and covariant vectors of thousands of runs are compared with their final loss.

One function per experiment returns numbers, one per figure draws them::

    from pylyap.papers import sharafi2025 as study

    task = study.Task("results")  # computed once, kept there
    some = study.ensembles(task, runs=400)
    study.figures.final_loss(some).savefig("final-loss.png")

or, from a shell, all of it: ``python -m pylyap.papers.sharafi2025 --output folder``.
"""

from pylyap.papers.sharafi2025 import figures
from pylyap.papers.sharafi2025.attractors import Attractors, attractors
from pylyap.papers.sharafi2025.definition import (
    ASSUMED,
    HE,
    INITIALISATIONS,
    WIDE,
    Initialisation,
    Task,
    early_vectors_study,
    exponents_study,
    vectors_study,
)
from pylyap.papers.sharafi2025.ensembles import (
    Cluster,
    EarlyVectors,
    Ensemble,
    Vectors,
    early_vectors,
    ensembles,
    find_clusters,
    vectors,
)
from pylyap.papers.sharafi2025.indicators import Comparison, Prediction, predictions
from pylyap.papers.sharafi2025.operator import (
    OperatorErrors,
    differentiated_operator,
    operator_errors,
    paper_operator,
)
from pylyap.papers.sharafi2025.sensitivity import VARIANTS, Variant, VariantResult, sensitivity
from pylyap.papers.sharafi2025.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.sharafi2025.table import table

__all__ = [
    "ASSUMED",
    "EXPERIMENTS",
    "FIGURES",
    "HE",
    "INITIALISATIONS",
    "VARIANTS",
    "WIDE",
    "Attractors",
    "Cluster",
    "Comparison",
    "EarlyVectors",
    "Ensemble",
    "Initialisation",
    "OperatorErrors",
    "Prediction",
    "Study",
    "Task",
    "Variant",
    "VariantResult",
    "Vectors",
    "attractors",
    "differentiated_operator",
    "early_vectors",
    "early_vectors_study",
    "ensembles",
    "exponents_study",
    "figures",
    "find_clusters",
    "operator_errors",
    "paper_operator",
    "predictions",
    "sensitivity",
    "table",
    "vectors",
    "vectors_study",
]
