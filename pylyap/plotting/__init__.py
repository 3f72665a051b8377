"""Pictures of results, one function each. Matplotlib is imported when the first is drawn."""

from pylyap.plotting.ensembles import plot_ensemble
from pylyap.plotting.local import plot_covariant, plot_gali, plot_sharpness
from pylyap.plotting.prediction import plot_prediction, plot_skill
from pylyap.plotting.spectrum import plot_spectrum

__all__ = [
    "plot_covariant",
    "plot_ensemble",
    "plot_gali",
    "plot_prediction",
    "plot_sharpness",
    "plot_skill",
    "plot_spectrum",
]
