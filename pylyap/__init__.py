"""Training as a dynamical system: weights are the state, one optimiser step is the map."""

from importlib.metadata import version as _version

from pylyap import datasets, plotting
from pylyap._bridges.jax import from_jax
from pylyap._bridges.torch import TangentMonitor, from_torch
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._perturbations.comparison import GrowthComparison, compare_growth
from pylyap._perturbations.ensembles import Ensemble, perturbation_ensemble
from pylyap._perturbations.growth import GrowthLaw, GrowthRate, growth_law, growth_rate
from pylyap._perturbations.series import (
    Autocorrelation,
    ExpansionRates,
    autocorrelation,
    expansion_rates,
    find_period,
)
from pylyap._projected_map import ProjectedMap
from pylyap._results import load
from pylyap._status import Status
from pylyap._tangent.covariant import CovariantVectors, Hyperbolicity, covariant_lyapunov_vectors
from pylyap._tangent.exponents import Spectrum, kaplan_yorke_dimension, lyapunov_spectrum
from pylyap._tangent.finite_time import ftle
from pylyap._tangent.gali import gali
from pylyap._tangent.sharpness import (
    HessianSpectrum,
    Sharpness,
    batch_sharpness,
    hessian_spectrum,
    sharpness,
    sharpness_along,
)
from pylyap._tangent.subspaces import SubspaceOverlap, subspace_overlap
from pylyap._tangent.training_jacobian import TrainingJacobian, training_jacobian
from pylyap._weights.deviation import (
    JointHistogram,
    WeightDeviation,
    WeightStrip,
    joint_histogram,
    weight_deviation,
)
from pylyap._weights.letters import apply_letter_mask, legibility, letter_mask, mark
from pylyap._weights.trainability import PHASES, Trainability, TrainabilityRule, trainability
from pylyap._weights.training import History, train
from pylyap._weights.travel import Travel, knock_out, travel
from pylyap.activations import Activation
from pylyap.maps import DiscreteMap, Map, TrainingMap
from pylyap.network import Network
from pylyap.optimizers import Adam, GradientDescent
from pylyap.prediction import (
    PredictionCurve,
    PredictionSkill,
    RestartPolicy,
    prediction_curve,
    prediction_skill,
    restart_policy,
)
from pylyap.regimes import (
    REGIMES,
    LearningRateScan,
    RegimeRule,
    learning_rate_scan,
    spectrum_regime,
)
from pylyap.stability_maps import (
    BoxDimension,
    StabilityMap,
    UncertaintyExponent,
    box_dimension,
    stability_map,
    uncertainty_exponent,
)
from pylyap.studies import (
    Study,
    StudyPlan,
    export_study,
    open_study,
    plan_study,
    plot_study,
    report_study,
    run_study,
)

__version__ = _version("pylyap")

__all__ = [
    "PHASES",
    "REGIMES",
    "Activation",
    "Adam",
    "ArgumentError",
    "ArgumentTypeError",
    "Autocorrelation",
    "BoxDimension",
    "CovariantVectors",
    "DiscreteMap",
    "Ensemble",
    "ExpansionRates",
    "GradientDescent",
    "GrowthComparison",
    "GrowthLaw",
    "GrowthRate",
    "HessianSpectrum",
    "History",
    "Hyperbolicity",
    "JointHistogram",
    "LearningRateScan",
    "Map",
    "Network",
    "PredictionCurve",
    "PredictionSkill",
    "ProjectedMap",
    "RegimeRule",
    "RestartPolicy",
    "Sharpness",
    "Spectrum",
    "StabilityMap",
    "Status",
    "Study",
    "StudyPlan",
    "SubspaceOverlap",
    "TangentMonitor",
    "Trainability",
    "TrainabilityRule",
    "TrainingJacobian",
    "TrainingMap",
    "Travel",
    "UncertaintyExponent",
    "WeightDeviation",
    "WeightStrip",
    "__version__",
    "apply_letter_mask",
    "autocorrelation",
    "batch_sharpness",
    "box_dimension",
    "compare_growth",
    "covariant_lyapunov_vectors",
    "datasets",
    "expansion_rates",
    "export_study",
    "find_period",
    "from_jax",
    "from_torch",
    "ftle",
    "gali",
    "growth_law",
    "growth_rate",
    "hessian_spectrum",
    "joint_histogram",
    "kaplan_yorke_dimension",
    "knock_out",
    "learning_rate_scan",
    "legibility",
    "letter_mask",
    "load",
    "lyapunov_spectrum",
    "mark",
    "open_study",
    "perturbation_ensemble",
    "plan_study",
    "plot_study",
    "plotting",
    "prediction_curve",
    "prediction_skill",
    "report_study",
    "restart_policy",
    "run_study",
    "sharpness",
    "sharpness_along",
    "spectrum_regime",
    "stability_map",
    "subspace_overlap",
    "train",
    "trainability",
    "training_jacobian",
    "travel",
    "uncertainty_exponent",
    "weight_deviation",
]
