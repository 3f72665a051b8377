"""Plots of results, one function each. Matplotlib is imported at the first call."""

from collections.abc import Callable
from typing import Any

from pylyap._results import drawn_by
from pylyap.plotting.deviation import plot_deviation, plot_deviation_along, plot_joint, plot_mark
from pylyap.plotting.distributions import plot_along, plot_distributions
from pylyap.plotting.ensembles import plot_ensemble, plot_growth
from pylyap.plotting.local import plot_covariant, plot_gali, plot_sharpness
from pylyap.plotting.prediction import plot_prediction, plot_skill
from pylyap.plotting.regimes import plot_bifurcation, plot_scan
from pylyap.plotting.series import plot_autocorrelation, plot_expansion_rates
from pylyap.plotting.spectrum import plot_ftle, plot_spectrum
from pylyap.plotting.training import plot_history, plot_trainability
from pylyap.plotting.trajectories import plot_knock_out, plot_travel

__all__ = [
    "plot_along",
    "plot_autocorrelation",
    "plot_bifurcation",
    "plot_covariant",
    "plot_deviation",
    "plot_deviation_along",
    "plot_distributions",
    "plot_ensemble",
    "plot_expansion_rates",
    "plot_ftle",
    "plot_gali",
    "plot_growth",
    "plot_history",
    "plot_joint",
    "plot_knock_out",
    "plot_mark",
    "plot_prediction",
    "plot_scan",
    "plot_sharpness",
    "plot_skill",
    "plot_spectrum",
    "plot_trainability",
    "plot_travel",
]

_DRAWN: dict[str, Callable[..., Any]] = {
    "Autocorrelation": plot_autocorrelation,
    "CovariantVectors": plot_covariant,
    "Ensemble": plot_ensemble,
    "ExpansionRates": plot_expansion_rates,
    "GrowthComparison": plot_growth,
    "History": plot_history,
    "JointHistogram": plot_joint,
    "LearningRateScan": plot_scan,
    "PredictionCurve": plot_prediction,
    "PredictionSkill": plot_skill,
    "Spectrum": plot_spectrum,
    "Trainability": plot_trainability,
    "Travel": plot_travel,
    "WeightDeviation": plot_deviation,
}
for _kind, _draw in _DRAWN.items():
    drawn_by(_draw, _kind)
