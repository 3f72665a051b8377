"""Plots of results, one function each. Matplotlib is imported at the first call."""

from pylyap.plotting.deviation import plot_deviation, plot_deviation_along, plot_joint, plot_mark
from pylyap.plotting.distributions import plot_along, plot_distributions
from pylyap.plotting.ensembles import plot_ensemble, plot_growth
from pylyap.plotting.local import plot_covariant, plot_gali, plot_hyperbolicity
from pylyap.plotting.prediction import plot_prediction, plot_skill
from pylyap.plotting.regimes import plot_bifurcation, plot_scan
from pylyap.plotting.results import (
    plot_growth_law,
    plot_growth_rate,
    plot_restart_policy,
    plot_strip,
)
from pylyap.plotting.series import plot_autocorrelation, plot_expansion_rates
from pylyap.plotting.sharpness import (
    plot_edge_of_stability,
    plot_hessian_spectrum,
    plot_sharpness,
)
from pylyap.plotting.spectrum import plot_ftle, plot_spectrum
from pylyap.plotting.stability import (
    plot_box_dimension,
    plot_stability,
    plot_uncertainty,
)
from pylyap.plotting.subspaces import plot_subspace_overlap
from pylyap.plotting.training import plot_history, plot_trainability
from pylyap.plotting.training_jacobian import plot_training_jacobian
from pylyap.plotting.trajectories import plot_knock_out, plot_travel

__all__ = [
    "plot_along",
    "plot_autocorrelation",
    "plot_bifurcation",
    "plot_box_dimension",
    "plot_covariant",
    "plot_deviation",
    "plot_deviation_along",
    "plot_distributions",
    "plot_edge_of_stability",
    "plot_ensemble",
    "plot_expansion_rates",
    "plot_ftle",
    "plot_gali",
    "plot_growth",
    "plot_growth_law",
    "plot_growth_rate",
    "plot_hessian_spectrum",
    "plot_history",
    "plot_hyperbolicity",
    "plot_joint",
    "plot_knock_out",
    "plot_mark",
    "plot_prediction",
    "plot_restart_policy",
    "plot_scan",
    "plot_sharpness",
    "plot_skill",
    "plot_spectrum",
    "plot_stability",
    "plot_strip",
    "plot_subspace_overlap",
    "plot_trainability",
    "plot_training_jacobian",
    "plot_travel",
    "plot_uncertainty",
]
