"""Bad values of every kind for every public function: refused by name, or taken well."""

import importlib.util
import random

import bad_values
import pytest

import pylyap as pl
from pylyap import plotting

for needed in ("numba", "zarr", "xarray", "matplotlib", "PIL", "jinja2"):
    pytest.importorskip(needed)

# Results of functions, errors and codes; `Map` is a protocol.
MADE = {
    "ArgumentError", "ArgumentTypeError", "Autocorrelation", "BoxDimension", "CovariantVectors",
    "Ensemble",
    "ExpansionRates", "GrowthComparison", "GrowthLaw", "GrowthRate", "HessianSpectrum", "History",
    "Hyperbolicity", "JointHistogram", "LearningRateScan", "Map", "PredictionCurve",
    "PredictionSkill", "RestartPolicy", "Sharpness", "Spectrum", "StabilityMap", "Status",
    "StudyPlan", "SubspaceOverlap", "Trainability", "TrainingJacobian", "Travel",
    "UncertaintyExponent", "WeightDeviation", "WeightStrip",
    "mark",  # a deprecated name of `apply_letter_mask`
}  # fmt: skip


@pytest.fixture(scope="module")
def names():
    return [name for name, _ in bad_values.calls()]


def test_every_public_function_is_among_them(names):
    public = {name for name in pl.__all__ if callable(getattr(pl, name))} - MADE
    public -= {"ArgumentError", "ArgumentTypeError", "Status", "mark"}  # mark: an alias
    public -= {"from_jax"} if importlib.util.find_spec("jax") is None else set()
    public |= {f"datasets.{name}" for name in pl.datasets.__all__} - {
        "datasets.iris", "datasets.digits"  # without arguments
    }  # fmt: skip
    public |= {f"plotting.{name}" for name in plotting.__all__}
    if not importlib.util.find_spec("torch"):
        public -= {"from_torch", "TangentMonitor"}
    assert public <= {name.split(",")[0] for name in names}


def test_some_hundred_bad_values_are_refused_by_name(names):
    # Pictures and compiled functions take their time: they are for the whole sweep.
    slow = ("plotting", "plot_study", "report_study", "export_study", "Activation")
    every = [c for c in bad_values.cases() if not c[0].startswith(slow)]
    assert not list(bad_values.faults(random.Random(0).sample(every, 600)))


@pytest.mark.slow
def test_all_bad_values_are_refused_by_name():
    bad_values.valid()
    assert not list(bad_values.faults(bad_values.cases()))
