"""Gradient descent on neural networks typically occurs at the edge of stability.

Cohen, Kaur, Li, Kolter, Talwalkar, ICLR (2021), and for adaptive methods Cohen et al.,
arXiv:2207.14484 (2022). Full-batch training: the sharpness rises to the stability threshold of the
optimiser and stays near it, while the loss falls non-monotonically. Here a two-layer tanh network
learns scikit-learn's digits by gradient descent, heavy ball, Nesterov's momentum and Adam.

One function runs an optimiser at several learning rates; others draw its result::

    from pylyap.papers import cohen2021 as study

    descent = study.train(study.Task("results"), study.OPTIMISERS["descent"])
    descent.late_ratio  # 1 at the edge of stability
    study.figures.edge(descent).savefig("descent.png")

The command ``python -m pylyap.papers.cohen2021 --output folder`` runs everything.
"""

from pylyap.papers.cohen2021 import figures
from pylyap.papers.cohen2021.experiments import Edge, train
from pylyap.papers.cohen2021.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.cohen2021.task import ASSUMED, OPTIMISERS, Optimiser, Task

__all__ = [
    "ASSUMED",
    "EXPERIMENTS",
    "FIGURES",
    "OPTIMISERS",
    "Edge",
    "Optimiser",
    "Study",
    "Task",
    "figures",
    "train",
]
