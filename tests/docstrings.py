"""Docstrings of the public interface against numpydoc's rules.

    python tests/docstrings.py [NAME ...]

prints what is missing from the docstrings of these names of the package, of all by default.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any

from numpydoc.validate import validate

import pylyap as pl

RULES = {"PR01", "PR02", "PR03", "PR04", "RT01", "GL08", "SS03", "EX01"}

# Results: functions make them.
RESULTS = {
    "Autocorrelation", "BoxDimension", "CovariantVectors", "Ensemble", "ExpansionRates",
    "GrowthComparison", "GrowthLaw", "GrowthRate", "HessianSpectrum", "History", "Hyperbolicity",
    "JointHistogram", "LearningRateScan", "PredictionCurve", "PredictionSkill", "RestartPolicy",
    "Sharpness", "Spectrum", "StabilityMap", "StudyPlan", "SubspaceOverlap", "Trainability",
    "TrainingJacobian", "Travel", "UncertaintyExponent", "WeightDeviation", "WeightStrip",
}  # fmt: skip


def public() -> Iterator[tuple[str, Any]]:
    """Dotted names of all public functions, classes and methods, and the objects."""
    for module in (pl, pl.datasets, pl.plotting):
        for name in module.__all__:
            thing = getattr(module, name)
            if not (inspect.isfunction(thing) or inspect.isclass(thing)):
                continue
            path = f"{module.__name__}.{name}"
            yield path, thing
            if inspect.isclass(thing):
                for attribute, value in vars(thing).items():
                    method = getattr(value, "__func__", value)  # of a class method
                    if not attribute.startswith("_") and inspect.isfunction(method):
                        yield f"{path}.{attribute}", method


def faults(path: str) -> list[str]:
    """What numpydoc's validation says of a name, by the rules that hold here."""
    is_method = path.removeprefix("pylyap.").split(".")[0] in pl.__all__ and path.count(".") > 1
    is_method = is_method and not path.startswith(("pylyap.datasets.", "pylyap.plotting."))
    is_method = is_method or path.count(".") > 2
    rules = set(RULES)
    if is_method:
        rules.discard("EX01")
    if path.split(".")[-1] in RESULTS | {"Map", "Status"}:
        # Constructors of results are private, a protocol has none, an IntEnum's is Python's.
        rules -= {"PR01", "PR02"}
    return [f"{code} {text}" for code, text in validate(path)["errors"] if code in rules]


if __name__ == "__main__":
    wanted = sys.argv[1:]
    found = [
        f"{path}: {fault}"
        for path, _ in public()
        if not wanted or any(path.startswith(w) for w in wanted)
        for fault in faults(path)
    ]
    print("\n".join(found) or "no faults")
    sys.exit(bool(found))
