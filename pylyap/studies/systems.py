"""A study of a system that is given in Python: its initial states, and what identifies it."""

from __future__ import annotations

import math
import re
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._discrete_map import DiscreteMap
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._map_runs import MapRuns
from pylyap._runs import TrainingRuns
from pylyap.maps import TrainingMap, runs_of
from pylyap.studies.cases import Case
from pylyap.studies.samples import write_arrays
from pylyap.studies.settings import InvalidStudy, Problem, validated_settings
from pylyap.studies.tables import Settings

STATES = "states.npz"  # initial states of a study, in its folder
SYSTEM_IN_FILE = (
    "must be given in Python, pl.Study(system=..., states=...): a study file cannot name code"
)
LOSSES = ("loss", "final_loss", "losses")  # variables of systems that have a loss
ANALYSES_OF_SYSTEMS = (
    *("spectrum", "ftle", "clv", "training_jacobian", "ensemble", "sharpness", "stability"),
)

_PROBED_STEPS = 3
# Relative differences of the probed steps, in the norm, that other libraries or numbers of threads
# cause: sums of 10⁶ terms differ by some 1e-13 in float64 and 1e-5 in float32.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
_MULTIPLICATIONS = 3e9  # per second, in which costs are counted, see `plan`
_LOCKSTEP_GROUP = 8  # runs; most of the gain of batches, and short tasks
_MAX_NAME = 100  # characters

_one_at_a_time = threading.RLock()  # Python code of a system need not be safe for threads


class Probe(NamedTuple):
    """First steps of a system: numbers that identify it, precision, and seconds of a step."""

    values: list[list[float | None]]
    dtype: str
    step_seconds: float
    tangent_seconds: float


@dataclass(frozen=True)
class GivenSystem:
    """A system with its initial states (runs, n) or (runs, n_params), and its settings."""

    system: Any
    states: Floats
    settings: Settings
    has_loss: bool
    probe: Probe

    @property
    def digest(self) -> str:
        """Digest of the states."""
        return str(self.settings["states"])

    @property
    def calls_python(self) -> bool:
        """Whether tasks in threads of one process must take turns."""
        system = self.system
        compiled = isinstance(system, DiscreteMap) and system._addresses is not None
        return not (compiled or isinstance(system, TrainingMap))


@dataclass(frozen=True)
class SystemCase(Case):
    """A given system and the analysis at one point of a grid."""

    given: GivenSystem

    def weights(self, first: int, count: int) -> Floats:
        return self.given.states[first : first + count]

    @property
    def group(self) -> int:
        if isinstance(self.system, TrainingMap):
            return super().group
        lockstep = self.given.calls_python and MapRuns(self.system).in_lockstep
        return _LOCKSTEP_GROUP if lockstep else 1

    def step_cost(self, k: int, method: Any) -> float:
        if isinstance(self.system, TrainingMap):
            return super().step_cost(k, method)
        probe = self.given.probe
        return _MULTIPLICATIONS * (probe.step_seconds + k * probe.tangent_seconds)

    def run(self, analysis: Callable[..., Any], *arguments: Any) -> Any:
        if not self.given.calls_python:
            return analysis(self, *arguments)
        with _one_at_a_time:
            return analysis(self, *arguments)


def given_system(system: Any, states: ArrayLike | None) -> GivenSystem:
    """Check a system and its initial states, and make its first steps."""
    maps = runs_of(system)
    if any(maps.rate_shapes):
        raise ArgumentError(
            "system", "must have one learning rate: make one study per rate, got an array of rates"
        )
    initial = _checked_states(states, maps)
    probe = _probe(system, maps, initial[0])
    settings = {
        "name": _name(system),
        "kind": type(system).__qualname__,
        "n": maps.n,
        "n_params": maps.n_params,
        "dtype": probe.dtype,
        "states": _digest(initial),
        "probe": probe.values,
    }
    return GivenSystem(system, initial, settings, maps.has_loss, probe)


def study_settings(given: Settings, system: GivenSystem) -> Settings:
    """Checked settings of a study of a system. Raises InvalidStudy."""
    reason = "its data, network and optimiser are those of the system"
    problems: list[Problem] = [
        (name, f"{name} must be omitted beside system: {reason}")
        for name in ("data", "network", "init", "optimizer")
        if given[name] is not None
    ]
    name = given["analysis"].get("name") if isinstance(given["analysis"], Mapping) else None
    if isinstance(name, str) and name in ("train", "scan"):
        allowed = ", ".join(ANALYSES_OF_SYSTEMS)
        text = f"analysis.name must be one of {allowed} for a study of a system, got {name!r}"
        problems.append(("analysis.name", text))
    if name == "stability" and not isinstance(system.system, TrainingMap):
        text = "analysis.name must be another one for a system that is no TrainingMap, whose "
        text += f"settings stability varies, got {name!r}"
        problems.append(("analysis.name", text))
    if problems:
        raise InvalidStudy(problems)
    rows = len(system.states)
    kept = {name: given[name] for name in ("title", "seed", "analysis", "grid")}
    kept["runs"] = rows if given["runs"] is None else given["runs"]
    settings = validated_settings(kept, tables=("analysis",))
    if settings["runs"] > rows:
        text = f"runs must be at most {rows}, the rows of states, got {settings['runs']}"
        raise InvalidStudy([("runs", text)])
    return settings | {"system": system.settings}


def _checked_states(states: ArrayLike | None, maps: TrainingRuns | MapRuns) -> Floats:
    """A read-only copy of the initial states."""
    lengths = " or ".join(f"(runs, {n})" for n in dict.fromkeys((maps.n, maps.n_params)))
    if states is None:
        raise ArgumentError("states", f"is missing: must be an array of shape {lengths}")
    if callable(states):
        raise ArgumentTypeError(
            "states", f"must be an array of shape {lengths}, got {_checks.describe(states)}"
        )
    found: Floats = _checks.floats("states", states).copy()
    if found.ndim != 2 or not len(found) or found.shape[1] not in (maps.n, maps.n_params):
        raise ArgumentError("states", f"must have shape {lengths}, got {found.shape}")
    found.setflags(write=False)
    return found


def _name(system: Any) -> str:
    """Text of a system, without addresses."""
    text = " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(system)).split())
    if text.startswith("<"):  # without a __repr__
        return type(system).__qualname__
    return text if len(text) <= _MAX_NAME else f"{text[: _MAX_NAME - 3]}..."


# --- identity -------------------------------------------------------------------------------------


def _probe(system: Any, maps: TrainingRuns | MapRuns, first: Floats) -> Probe:
    """Make the first steps from a state, with one tangent vector.

    For each step: norm and a fixed projection of the state and of the vector; None if not finite.
    """
    rng = np.random.default_rng(0)
    X = maps.states(first[np.newaxis], "states", finite=True)
    V = rng.normal(size=(1, maps.n, 1)) / math.sqrt(maps.n)
    direction = rng.normal(size=maps.n) / math.sqrt(maps.n)
    values, single, seconds = [], True, []
    with np.errstate(all="ignore"):
        for t in range(_PROBED_STEPS):
            begin = time.perf_counter()
            if isinstance(maps, MapRuns):
                V, _ = maps.tangent(X, V.copy(), t)
                middle = time.perf_counter()
                X = maps.step(X, t)
            else:
                V = system.tangent(X, V, t)
                middle = time.perf_counter()
                X = system.step(X, t)
            seconds.append((time.perf_counter() - middle, middle - begin))
            single = single and np.array_equal(X, X.astype(np.float32), equal_nan=True)
            rows = [f(a) for a in (X[0], V[0, :, 0]) for f in (np.linalg.norm, direction.dot)]
            values.append([float(v) if np.isfinite(v) else None for v in rows])
    step, tangent = seconds[-1]  # the first includes one-time costs
    return Probe(values, "float32" if single else "float64", step, tangent)


def same_probe(one: Any, other: Any, dtype: Any) -> bool:
    """Whether the first steps of two systems agree up to rounding errors."""
    a, b = np.array(one, float), np.array(other, float)  # None becomes nan
    if a.shape != b.shape:
        return False
    size = np.repeat(a[:, ::2], 2, axis=1)
    near = np.abs(a - b) <= _TOLERANCES.get(dtype, 0.0) * size
    return bool((near | (np.isnan(a) & np.isnan(b))).all())


def _digest(states: Floats) -> str:
    digest = sha256(repr(states.shape).encode())
    digest.update(np.ascontiguousarray(states).data)
    return digest.hexdigest()


def store_states(folder: Path, given: GivenSystem) -> None:
    """Write the initial states to the folder of a study, unless they are there."""

    def is_valid(path: Path) -> bool:
        with np.load(path, allow_pickle=False) as arrays:
            stored: Floats = _checks.floats("states", arrays["states"])
        return _digest(stored) == given.digest

    # The probe identifies the system if the metadata of the store are damaged.
    arrays = {"states": given.states, "probe": np.array(given.probe.values, float)}
    write_arrays(folder / STATES, arrays, is_valid)


def has_stored_system(folder: Path, given: GivenSystem) -> bool:
    """Whether the file of the states is of this system; True if it is missing or damaged."""
    try:
        with np.load(folder / STATES, allow_pickle=False) as arrays:
            return same_probe(arrays["probe"], given.probe.values, given.probe.dtype)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return True
