"""Effect of the initial configuration of weights on training, with other images.

Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021). Networks with two
hidden layers of equal width are trained on images by stochastic gradient descent. The experiments
measure the deviation of the weights from their initial values, the widths that can be trained, and
the legibility of a letter imprinted on the initial weights.

One function per experiment returns results; one function per figure draws them::

    from pylyap.papers import jesus2021 as study

    images, labels = pylyap.datasets.mnist("folder", "test")
    task = study.Task(images.reshape(len(images), -1), labels, widths=(16, 64), epochs=50)
    clipped = study.clipped(task)
    study.figures.deviation(clipped).savefig("deviation.png")

The command ``python -m pylyap.papers.jesus2021 --folder folder --output figures`` runs everything.
"""

from pylyap.papers.jesus2021 import figures
from pylyap.papers.jesus2021.experiments import (
    clipped,
    inverted_rates,
    letters,
    logits,
    plateau,
    precision,
    rates,
)
from pylyap.papers.jesus2021.results import Letter, Plateau, Precision, Rates, Widths
from pylyap.papers.jesus2021.study import EXPERIMENTS, FIGURES, Study
from pylyap.papers.jesus2021.task import CEILING, LEVELS, WIDTHS, Task, inverse

__all__ = [
    "CEILING",
    "EXPERIMENTS",
    "FIGURES",
    "LEVELS",
    "WIDTHS",
    "Letter",
    "Plateau",
    "Precision",
    "Rates",
    "Study",
    "Task",
    "Widths",
    "clipped",
    "figures",
    "inverse",
    "inverted_rates",
    "letters",
    "logits",
    "plateau",
    "precision",
    "rates",
]
