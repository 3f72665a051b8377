"""Effect of the initial configuration of weights on training: the study, on other images.

Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021). Networks with two
equal hidden layers, from narrow to wide, learn images by stochastic gradient descent: how far their
weights end from where they started, which widths can be trained, and whether a letter printed into
the initial weights can still be read.

One function per experiment returns numbers, one per figure draws them::

    from pylyap.papers import jesus2021 as study

    images, labels = pylyap.datasets.mnist("folder", "test")
    task = study.Task(images.reshape(len(images), -1), labels, widths=(16, 64), epochs=50)
    clipped = study.clipped(task)
    study.figures.deviation(clipped).savefig("deviation.png")

or, from a shell, all of it: ``python -m pylyap.papers.jesus2021 --folder folder --output figures``.
"""

from pylyap.papers.jesus2021 import figures
from pylyap.papers.jesus2021.experiments import (
    CEILING,
    LEVELS,
    WIDTHS,
    Letter,
    Plateau,
    Precision,
    Rates,
    Task,
    Widths,
    clipped,
    inverse,
    inverted_rates,
    letters,
    logits,
    plateau,
    precision,
    rates,
)
from pylyap.papers.jesus2021.study import EXPERIMENTS, FIGURES, Study

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
