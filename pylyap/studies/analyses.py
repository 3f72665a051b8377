"""Analysis of a block of runs: one function per analysis."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.growth import RATE_ARRAYS, GrowthRate, growth_rate
from pylyap._stability import rows
from pylyap._stability.running import Plan, room
from pylyap._tangent.covariant import covariant_lyapunov_vectors
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._tangent.finite_time import ftle
from pylyap._tangent.lanczos import STEPS_PER_STATE
from pylyap._tangent.sharpness import sharpness_along
from pylyap._tangent.training_jacobian import training_jacobian
from pylyap._weights.training import train
from pylyap.maps import checked_paths, runs_of
from pylyap.regimes import REGIMES, RegimeRule, learning_rate_scan
from pylyap.studies.cases import Case, TrainingCase

Array = NDArray[Any]
Names = tuple[str, ...]

_RATE, _WEIGHT = {"units": "nats per step"}, {"units": "weight"}
_STEPS = {"units": "steps"}


class LabelledArray(NamedTuple):
    """An array with names of its axes. The first axis of a variable, the runs, has no name here."""

    dims: Names
    values: Array
    attrs: dict[str, str]


@dataclass(frozen=True)
class BlockResult:
    """Results of an analysis of a block of runs.

    Attributes
    ----------
    status : ndarray, shape (runs,)
        0 finished, 1 diverged, 2 stopped early.
    result : object or None
        Result of the library, whose `to_dataset` gives dimensions and units.
    extra : dict
        Variables that `result` does not have, runs first.
    coords : dict
        Labels of the dimensions of `extra`.
    runs_axis : int
        Axis of the runs in the arrays of `result`.
    """

    status: Array
    result: Any
    extra: dict[str, LabelledArray] = field(default_factory=dict)
    coords: dict[str, LabelledArray] = field(default_factory=dict)
    runs_axis: int = 0

    def array(self, name: str) -> Array | None:
        """A variable, runs first; None if there is none with this name."""
        if name in self.extra:
            return self.extra[name].values
        value = getattr(self.result, name, None)
        return np.moveaxis(value, self.runs_axis, 0) if isinstance(value, np.ndarray) else None


class Analysis(NamedTuple):
    """Function that analyses a block of runs, and approximate number of multiplications per run.

    Both take a `Case`, those of ``"train"`` and ``"scan"`` a `TrainingCase`.
    """

    run: Callable[[Any, Floats, int, Names, int | None], BlockResult]
    cost: Callable[[Any], float]


# --- analyses: case, initial weights, index of the first run, names of variables, threads ---------


def _spectrum(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> BlockResult:
    s = lyapunov_spectrum(case.system, w0, **case.arguments(), threads=threads)
    return BlockResult(s.status, s, _final_loss(case.system, s.state, names))


def _ftle(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> BlockResult:
    arguments = case.arguments()
    values = ftle(case.system, w0, **arguments, threads=threads)
    n_steps, begin = arguments["n_transient"] + arguments["n_steps"], arguments["start"]
    path = checked_paths(runs_of(case.system), w0, n_steps, n_steps, begin, threads=threads)
    stride = arguments["window"] if arguments["stride"] is None else arguments["stride"]
    starts = begin + arguments["n_transient"] + stride * np.arange(values.shape[1])
    extra = {"ftle": LabelledArray(("step", "exponent"), values, _RATE)}
    coords = {
        "step": LabelledArray(("step",), starts, {"long_name": "first step of the window"}),
        "exponent": LabelledArray(("exponent",), np.arange(values.shape[2]), {}),
    }
    last = path[:, -1]
    return BlockResult(_diverged(last), None, extra | _final_loss(case.system, last, names), coords)


def _clv(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> BlockResult:
    kept = bool({"vectors", "early_vectors"} & set(names))
    c = covariant_lyapunov_vectors(
        case.system, w0, **case.arguments(), vectors=kept, threads=threads
    )
    extra = _final_loss(case.system, c.states[:, -1], names)
    coords = {}
    if "loss" in names and (losses := _losses(case.system, c.states)) is not None:
        extra["loss"] = LabelledArray(("time",), losses, {})
    if "mixing" in names:  # former name of contamination, in existing study files
        extra["mixing"] = LabelledArray(("vector",), c.contamination, {})
    if "angles" in names:
        extra["angles"] = LabelledArray(("time", "pair"), c.angles(), {"units": "radians"})
        pairs = np.array([f"{i}-{j}" for i, j in combinations(range(c.k), 2)], dtype=np.str_)
        coords["pair"] = LabelledArray(("pair",), pairs, {"long_name": "vectors of the pair"})
    return BlockResult(c.status, c, extra, coords)


def _training_jacobian(
    case: Case, w0: Floats, first: int, names: Names, threads: int | None
) -> BlockResult:
    arguments = case.arguments("width")
    jacobian = training_jacobian(case.system, w0, **arguments, threads=threads)
    n_steps, begin = arguments["n_steps"], arguments["start"]
    path = checked_paths(runs_of(case.system), w0, n_steps, n_steps, begin, threads=threads)
    extra = _final_loss(case.system, path[:, -1], names)
    for name, values in jacobian.counts(case.analysis["width"])._asdict().items():
        if f"n_{name}" in names:
            text = {"long_name": f"number of singular values {name} 1"}
            extra[f"n_{name}"] = LabelledArray((), values, text)
    return BlockResult(_diverged(jacobian.log_singular_values), jacobian, extra)


def _ensemble(case: Case, w0: Floats, first: int, names: Names, threads: int | None) -> BlockResult:
    e = perturbation_ensemble(
        case.system, w0, **case.arguments("method"), states="states" in names,
        losses="losses" in names, path_lengths="path_lengths" in names, threads=threads,
        seed=case.perturbations, first_run=first,
    )  # fmt: skip
    wanted = [name for name in RATE_ARRAYS if f"growth_{name}" in names]
    extra = {}
    if wanted:
        growth = _growth(e.mean, case.analysis["method"])
        sizes = ("eps",) if e.mean.ndim == 3 else ()
        for name in wanted:
            units = {"units": "nats per record"} if name in ("slope", "stderr") else {}
            extra[f"growth_{name}"] = LabelledArray(sizes, getattr(growth, name), units)
    return BlockResult(np.min(e.status, axis=tuple(range(1, e.status.ndim))), e, extra)


def _growth(mean: Floats, method: Any) -> GrowthRate:
    try:
        return growth_rate(mean, method, axis=None)
    except ValueError:
        raise ArgumentError(
            "method",
            f"must suit {mean.shape[-1]} records: best_window needs 30, until_saturation 3; "
            f"or keep no growth variables; got {method!r}",
        ) from None


def _sharpness(
    case: Case, w0: Floats, first: int, names: Names, threads: int | None
) -> BlockResult:
    s = sharpness_along(case.system, w0, **case.arguments(), threads=threads)
    last = s.value[:, -1] if s.loss is None else s.loss[:, -1]
    extra = {}
    if "final_loss" in names and s.loss is not None:
        text = {"long_name": "loss of the last state"}
        extra["final_loss"] = LabelledArray((), s.loss[:, -1], text)
    return BlockResult(np.isnan(last), s, extra)


def _stability(
    case: Case, w0: Floats, first: int, names: Names, threads: int | None
) -> BlockResult:
    settings = case.arguments()
    x, values = settings["x"], np.array(settings["x_values"], float)
    exponent = "exponent" in names
    plan = Plan(settings["n_steps"], settings["escape"], exponent, True, threads, settings["seed"])
    fixed = rows.given(settings)
    rows.row(case.system, None, x, values, fixed, plan)  # checks the settings
    found = room(len(w0) * len(values), exponent)
    shape = len(w0), len(values)
    arrays = {name: a.reshape(shape) for name, a in vars(found).items() if a is not None}
    for i, weights in enumerate(w0):
        each = rows.row(case.system, weights, x, values, fixed, plan)
        for name, array in arrays.items():
            array[i] = getattr(each, name)
    texts = {
        "converged": {"long_name": "whether the run converged"},
        "score": {"long_name": "speed of convergence or divergence"},
        "steps_used": _STEPS,
        "exponent": _RATE,
    }
    extra = {
        name: LabelledArray((x,), array, texts[name])
        for name, array in arrays.items()
        if name in names
    }
    coords = {x: LabelledArray((x,), values, {"long_name": f"analysis.{x}"})}
    return BlockResult(np.zeros(len(w0), bool), None, extra, coords)


def _train(
    case: TrainingCase, w0: Floats, first: int, names: Names, threads: int | None
) -> BlockResult:
    h = train(case.system, w0, **case.arguments("dtype"), test=case.data.test, threads=threads)
    extra = {}
    if "w_final" in names:
        extra["w_final"] = LabelledArray(("parameter",), h.w_final, _WEIGHT)
    if "snapshots" in names:
        for name, values in h.snapshots.items():
            key = name.replace(" ", "_")
            inner = ("parameter",) if name == "weights" else (f"{key}_to", f"{key}_from")
            extra[key] = LabelledArray(("snapshot", *inner), values, _WEIGHT)
    return BlockResult(h.status, h, extra)


def _scan(
    case: TrainingCase, w0: Floats, first: int, names: Names, threads: int | None
) -> BlockResult:
    system, arguments = case.system, case.arguments("rule")
    rule = case.analysis["rule"]
    s = learning_rate_scan(
        system.network, case.data.X, case.data.y, **arguments, w0=w0, optimizer=system.optimizer,
        rule=None if rule is None else RegimeRule(**rule), threads=threads,
        seed=case.perturbations, first_run=first,
    )  # fmt: skip
    extra = {}
    if "regime" in names:
        codes = np.zeros(s.regime.shape, np.int8)
        for code, regime in enumerate(REGIMES):
            codes[s.regime == regime] = code
        meaning = ", ".join(f"{code} {regime}" for code, regime in enumerate(REGIMES))
        extra["regime"] = LabelledArray(("lr",), codes.T, {"meaning": meaning})
    return BlockResult(np.min(np.isnan(s.loss), axis=0), s, extra, runs_axis=1)


def _final_loss(system: Any, states: Floats, names: Names) -> dict[str, LabelledArray]:
    if "final_loss" not in names or (losses := _losses(system, states)) is None:
        return {}
    return {"final_loss": LabelledArray((), losses, {"long_name": "loss of the last state"})}


def _losses(system: Any, states: Floats) -> Floats | None:
    """Losses (...) of states (..., n); None if the system has no loss."""
    maps = runs_of(system)
    return maps.losses(states) if maps.has_loss else None


def _diverged(states: Floats) -> NDArray[np.bool_]:
    diverged: NDArray[np.bool_] = np.isnan(states[:, 0])
    return diverged


# --- approximate costs, in multiplications per run ------------------------------------------------


def _cost_of_frames(case: Case) -> float:
    settings, system = case.analysis, case.system
    k = system.n if settings["k"] is None else settings["k"]
    covariant = "clv" in (settings["name"], settings.get("kind"))
    # None stands for a fifth of n_steps.
    around = (settings["n_transient"], settings["n_tail"] if covariant else 0)
    steps = settings["n_steps"] + sum(settings["n_steps"] // 5 if n is None else n for n in around)
    per_step = case.step_cost(k, settings["method"]) + system.n * k**2 / settings.get("qr_every", 1)
    return float((1 + covariant) * steps * per_step)  # covariant vectors: a backward pass as well


def _cost_of_propagator(case: Case) -> float:
    settings, system = case.analysis, case.system
    columns = system.n_params if settings["of"] == "parameters" else system.n
    return float(
        settings["n_steps"] * case.step_cost(columns, settings["method"]) + 20.0 * columns**3
    )


def _cost_of_ensemble(case: Case) -> float:
    settings = case.analysis
    copies = settings["n_perturbations"] * np.size(settings["eps"])
    return float((settings["start"] + (1 + copies) * settings["n_steps"]) * case.step_cost(0, None))


def _cost_of_sharpness(case: Case) -> float:
    settings = case.analysis
    states = settings["n_steps"] // settings["every"] + 1
    steps = settings["n_steps"] + STEPS_PER_STATE * states
    return float(steps * case.step_cost(0, None))


def _cost_of_row(case: Case) -> float:
    settings = case.analysis
    exponent = "exponent" in (settings["variables"] or ())
    per_step = case.step_cost(0, None) + (case.step_cost(1, None) if exponent else 0.0)
    return float(len(settings["x_values"]) * settings["n_steps"] * per_step)


def _cost_of_training(case: TrainingCase) -> float:
    settings, system = case.analysis, case.system
    steps = math.ceil(len(case.data.X) / system._runs.batch_size)
    records = settings["epochs"] / settings["record_every"]
    return float((settings["epochs"] + records) * steps * case.step_cost(0, None))


def _cost_of_scan(case: TrainingCase) -> float:
    settings = case.analysis
    copies = 1 + settings["n_perturbations"]
    per_step = case.step_cost(1, None) + copies * case.step_cost(0, None)
    return float(len(settings["lrs"]) * settings["n_steps"] * per_step)


ANALYSES = {
    "spectrum": Analysis(_spectrum, _cost_of_frames),
    "ftle": Analysis(_ftle, _cost_of_frames),
    "clv": Analysis(_clv, _cost_of_frames),
    "training_jacobian": Analysis(_training_jacobian, _cost_of_propagator),
    "ensemble": Analysis(_ensemble, _cost_of_ensemble),
    "sharpness": Analysis(_sharpness, _cost_of_sharpness),
    "stability": Analysis(_stability, _cost_of_row),
    "train": Analysis(_train, _cost_of_training),
    "scan": Analysis(_scan, _cost_of_scan),
}
