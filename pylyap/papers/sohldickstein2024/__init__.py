"""The boundary of neural network trainability.

Sohl-Dickstein, arXiv 2402.06184 (2024). A network of 16-16-1 units without biases is trained by
gradient descent with one learning rate for each layer, and the border between rates for which it
converges and diverges is mapped.

Weights and data are those of the published notebook (its random numbers, drawn once with JAX, are
in the package). What is published is known from the notebook; the dimensions are quoted
from secondary sources that cite table 1 of the paper.

One function per experiment returns results; one function per figure draws them::

    from pylyap.papers import sohldickstein2024 as study

    task = study.Task()
    found = study.landscape(task, shape=(128, 128))
    study.figures.landscape(found).savefig("landscape.png")

The command ``python -m pylyap.papers.sohldickstein2024 --output figures`` runs everything.
"""

from pylyap.papers.sohldickstein2024 import figures
from pylyap.papers.sohldickstein2024.experiments import (
    Zooms,
    conditions,
    landscape,
    offset,
    offsets,
    zooms,
)
from pylyap.papers.sohldickstein2024.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.sohldickstein2024.task import CONDITIONS, OFFSETS, RATES, Condition, Task

__all__ = [
    "CONDITIONS",
    "EXPERIMENTS",
    "FIGURES",
    "OFFSETS",
    "RATES",
    "Condition",
    "Study",
    "Task",
    "Zooms",
    "conditions",
    "figures",
    "landscape",
    "offset",
    "offsets",
    "zooms",
]
