"""The figures, each drawn from the numbers of its experiment."""

from pylyap.papers.sharafi2025.figures.along import (
    angle_distributions,
    angles,
    distributions,
    distributions_wide,
    training,
    training_wide,
)
from pylyap.papers.sharafi2025.figures.checks import attractors, operator, sensitivity, windows
from pylyap.papers.sharafi2025.figures.losses import data, final_loss, final_loss_wide, network
from pylyap.papers.sharafi2025.figures.prediction import causes, saved, skill
from pylyap.papers.sharafi2025.figures.spectra import exponents, exponents_loss, exponents_wide

__all__ = [
    "angle_distributions",
    "angles",
    "attractors",
    "causes",
    "data",
    "distributions",
    "distributions_wide",
    "exponents",
    "exponents_loss",
    "exponents_wide",
    "final_loss",
    "final_loss_wide",
    "network",
    "operator",
    "saved",
    "sensitivity",
    "skill",
    "training",
    "training_wide",
    "windows",
]
