"""Weight dynamics of learning networks: the whole study.

Sharafi, Martin, Hallerberg, Phys. Rev. E 111, 054208 (2025), arXiv 2405.00743. Small networks
learn a quadratic relation from He-initialised and from wide-range weights; Lyapunov exponents,
finite-time exponents and covariant vectors of thousands of runs are compared with their final loss.

One function per experiment returns numbers, one per figure draws them::

    from pylyap.papers import sharafi2025 as study

    task = study.Task("results")  # computed once, kept there
    some = study.run_ensembles(task, runs=400)
    study.figures.final_loss(some).savefig("final-loss.png")

or, from a shell, all of it: ``python -m pylyap.papers.sharafi2025 --output folder``.
"""

from pylyap.papers.sharafi2025 import figures
from pylyap.papers.sharafi2025.attractors import Attractors, examine_attractors
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
    find_clusters,
    run_early_vectors,
    run_ensembles,
    run_vectors,
)
from pylyap.papers.sharafi2025.indicators import Comparison, Prediction, measure_predictions
from pylyap.papers.sharafi2025.operator import (
    OperatorErrors,
    compare_operators,
    differentiated_operator,
    paper_operator,
)
from pylyap.papers.sharafi2025.sensitivity import VARIANTS, Variant, VariantResult, vary_assumptions
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
    "compare_operators",
    "differentiated_operator",
    "early_vectors_study",
    "examine_attractors",
    "exponents_study",
    "figures",
    "find_clusters",
    "measure_predictions",
    "paper_operator",
    "run_early_vectors",
    "run_ensembles",
    "run_vectors",
    "table",
    "vary_assumptions",
    "vectors_study",
]
