"""What a study computes of a block of runs: one function per analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.growth import GrowthRate, growth_rate
from pylyap._tangent.covariant import covariant_lyapunov_vectors
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._tangent.finite_time import ftle
from pylyap._weights.training import train
from pylyap.maps import TrainingMap
from pylyap.regimes import REGIMES, RegimeRule, learning_rate_scan
from pylyap.studies.cases import Case

Array = NDArray[Any]
Names = tuple[str, ...]

_RATE, _WEIGHT = {"units": "nats per step"}, {"units": "weight"}
_STEPS = {"units": "steps"}


class Labelled(NamedTuple):
    """An array with the names of its axes; of a variable without the first, that of the runs."""

    dims: Names
    values: Array
    attrs: dict[str, str]


@dataclass(frozen=True)
class Found:
    """What an analysis found of a block of runs.

    Attributes
    ----------
    status : (runs,)
        0 finished, 1 diverged, 2 stopped early.
    result
        A result of the library, whose `to_dataset` labels its attributes.
    more
        Variables that it has not, runs first.
    coords
        Labels of their dimensions.
    runs_axis
        Where the runs are in the arrays of `result`.
    """

    status: Array
    result: Any
    more: dict[str, Labelled] = field(default_factory=dict)
    coords: dict[str, Labelled] = field(default_factory=dict)
    runs_axis: int = 0

    def array(self, name: str) -> Array | None:
        """A variable, runs first; None if there is none of this name."""
        if name in self.more:
            return self.more[name].values
        value = getattr(self.result, name, None)
        return np.moveaxis(value, self.runs_axis, 0) if isinstance(value, np.ndarray) else None


class Analysis(NamedTuple):
    """How a block of runs is analysed, and a rough number of multiplications per run."""

    run: Callable[[Case, Floats, int, Names, int | None], Found]
    cost: Callable[[Case], float]


# --- one per analysis: case, initial weights, number of the first run, variables, threads ---------


def _spectrum(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    s = lyapunov_spectrum(case.system, w0, **case.given(), threads=threads)
    return Found(s.status, s, _final_loss(case.system, s.state, names))


def _ftle(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    given = case.given()
    values = ftle(case.system, w0, **given, threads=threads)
    n_steps, begin = given["n_transient"] + given["n_steps"], given["start"]
    path = case.system.trajectory(w0, n_steps, every=n_steps, start=begin, threads=threads)
    stride = given["window"] if given["stride"] is None else given["stride"]
    starts = begin + given["n_transient"] + stride * np.arange(values.shape[1])
    more = {"ftle": Labelled(("step", "exponent"), values, _RATE)}
    coords = {
        "step": Labelled(("step",), starts, {"long_name": "first step of the window"}),
        "exponent": Labelled(("exponent",), np.arange(values.shape[2]), {}),
    }
    last = path[:, -1]
    return Found(_lost(last), None, more | _final_loss(case.system, last, names), coords)


def _clv(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    kept = bool({"vectors", "early_vectors"} & set(names))
    c = covariant_lyapunov_vectors(case.system, w0, **case.given(), vectors=kept, threads=threads)
    more = _final_loss(case.system, c.states[:, -1], names)
    coords = {}
    if "loss" in names:
        more["loss"] = Labelled(("time",), case.system.loss(c.states), {})
    if "mixing" in names:  # the former name, of study files that ask for it
        more["mixing"] = Labelled(("vector",), c.contamination, {})
    if "angles" in names:
        more["angles"] = Labelled(("time", "pair"), c.angles(), {"units": "radians"})
        pairs = np.array([f"{i}-{j}" for i, j in combinations(range(c.k), 2)], dtype=np.str_)
        coords["pair"] = Labelled(("pair",), pairs, {"long_name": "vectors of the pair"})
    return Found(c.status, c, more, coords)


def _ensemble(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    e = perturbation_ensemble(
        case.system, w0, **case.given("method"), states="states" in names,
        losses="losses" in names, path_lengths="path_lengths" in names, threads=threads,
        seed=case.perturbations, first_run=first,
    )  # fmt: skip
    wanted = [f for f in fields(GrowthRate) if f"growth_{f.name}" in names]
    more = {}
    if wanted:
        growth = _growth(e.mean, case.analysis["method"])
        sizes = ("eps",) if e.mean.ndim == 3 else ()
        for f in wanted:
            units = {"units": "nats per record"} if f.name in ("slope", "stderr") else {}
            more[f"growth_{f.name}"] = Labelled(sizes, getattr(growth, f.name), units)
    return Found(np.min(e.status, axis=tuple(range(1, e.status.ndim))), e, more)


def _growth(mean: Floats, method: Any) -> GrowthRate:
    try:
        return growth_rate(mean, method, axis=None)
    except ValueError:
        raise ArgumentError(
            "method",
            f"must be one that {mean.shape[-1]} records are enough for, 30 for best_window "
            f"and 3 for until_saturation (or variables without growth), got {method!r}",
        ) from None


def _train(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    h = train(case.system, w0, **case.given("dtype"), test=case.data.test, threads=threads)
    more = {}
    if "w_final" in names:
        more["w_final"] = Labelled(("parameter",), h.w_final, _WEIGHT)
    if "snapshots" in names:
        for name, values in h.snapshots.items():
            key = name.replace(" ", "_")
            inner = ("parameter",) if name == "weights" else (f"{key}_to", f"{key}_from")
            more[key] = Labelled(("snapshot", *inner), values, _WEIGHT)
    return Found(h.status, h, more)


def _scan(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> Found:
    system, given = case.system, case.given("rule")
    rule = case.analysis["rule"]
    s = learning_rate_scan(
        system.network, case.data.X, case.data.y, **given, w0=w0, optimizer=system.optimizer,
        rule=None if rule is None else RegimeRule(**rule), threads=threads,
        seed=case.perturbations, first_run=first,
    )  # fmt: skip
    more = {}
    if "regime" in names:
        codes = np.zeros(s.regime.shape, np.int8)
        for code, regime in enumerate(REGIMES):
            codes[s.regime == regime] = code
        meaning = ", ".join(f"{code} {regime}" for code, regime in enumerate(REGIMES))
        more["regime"] = Labelled(("lr",), codes.T, {"meaning": meaning})
    return Found(np.min(np.isnan(s.loss), axis=0), s, more, runs_axis=1)


def _final_loss(system: TrainingMap, states: Floats, names: Names) -> dict[str, Labelled]:
    if "final_loss" not in names:
        return {}
    return {
        "final_loss": Labelled((), system.loss(states), {"long_name": "loss of the last state"})
    }


def _lost(states: Floats) -> NDArray[np.bool_]:
    lost: NDArray[np.bool_] = np.isnan(states[:, 0])
    return lost


# --- rough costs, in multiplications per run ------------------------------------------------------


def _cost_of_frames(case: Case) -> float:
    given, system = case.analysis, case.system
    k = system.n if given["k"] is None else given["k"]
    covariant = "clv" in (given["name"], given.get("kind"))
    around = (given["n_transient"], given["n_tail"] if covariant else 0)  # None stands for a fifth
    steps = given["n_steps"] + sum(given["n_steps"] // 5 if n is None else n for n in around)
    per_step = system._runs.step_cost(k, given["method"]) + system.n * k**2 / given.get(
        "qr_every", 1
    )
    return float((1 + covariant) * steps * per_step)  # there and, for covariant vectors, back


def _cost_of_ensemble(case: Case) -> float:
    given = case.analysis
    copies = given["n_perturbations"] * np.size(given["eps"])
    return float(
        (given["start"] + (1 + copies) * given["n_steps"]) * case.system._runs.step_cost(0, None)
    )


def _cost_of_training(case: Case) -> float:
    given, system = case.analysis, case.system
    steps = math.ceil(len(case.data.X) / system._runs.batch_size)
    records = given["epochs"] / given["record_every"]
    return float((given["epochs"] + records) * steps * system._runs.step_cost(0, None))


def _cost_of_scan(case: Case) -> float:
    given, system = case.analysis, case.system
    copies = 1 + given["n_perturbations"]
    per_step = system._runs.step_cost(1, None) + copies * system._runs.step_cost(0, None)
    return float(len(given["lrs"]) * given["n_steps"] * per_step)


ANALYSES = {
    "spectrum": Analysis(_spectrum, _cost_of_frames),
    "ftle": Analysis(_ftle, _cost_of_frames),
    "clv": Analysis(_clv, _cost_of_frames),
    "ensemble": Analysis(_ensemble, _cost_of_ensemble),
    "train": Analysis(_train, _cost_of_training),
    "scan": Analysis(_scan, _cost_of_scan),
}
