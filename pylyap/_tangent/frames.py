"""Runs with tangent vectors: checked arguments, start frames, and the kernels that compute them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar, over_runs
from pylyap.maps import METHODS, Map, Method, TrainingMap, runs_of

# A given frame is used as it is if ‖R − 1‖ of its QR decomposition is at most this.
_ORTHONORMAL = 1e-13


class Plan(NamedTuple):
    """Checked arguments of runs with k tangent vectors, flattened over the batch; see `plan_runs`.

    Attributes
    ----------
    system : Map
        The map.
    states : ndarray, shape (runs, n)
        Initial states.
    batch : tuple of int
        Shape of the batch that was given.
    k : int
        Number of tangent vectors.
    frame : ndarray, shape (runs, n, k), or None
        Given start frames, orthonormal; None for random ones.
    seed : int or SeedSequence
        Seed of random start frames.
    n_steps, n_transient : int
        Steps that are measured, and steps before them.
    start : int
        Index of the first step.
    method : {"dense", "matrix-free"} or None
        Method of the tangents of a `TrainingMap`.
    chosen : ndarray of int, shape (runs,), or None
        Places of these runs in the flattened batch; None for all.
    """

    system: Map
    states: Floats
    batch: tuple[int, ...]
    k: int
    frame: Floats | None
    seed: int | np.random.SeedSequence
    n_steps: int
    n_transient: int
    start: int
    method: Method | None
    chosen: NDArray[np.int64] | None = None

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.states)

    @property
    def n(self) -> int:
        """Length of a state."""
        return int(self.states.shape[1])

    def start_frames(self) -> Floats:
        """Start frames (runs, n, k). Random ones are drawn at each call: wide ones take memory."""
        if self.frame is None:
            return random_frames(self.seed, self.runs, self.n, self.k)
        return self.frame

    def shaped(self, array: NDArray[Any] | None) -> Any:
        """An array over runs with the axes of the batch; None stays None."""
        if array is None or len(self.batch) == 1:
            return array
        return array.reshape((*self.batch, *array.shape[1:])) if self.batch else array[0, ...]


def plan_runs(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    k: int | None,
    n_transient: int,
    frame: ArrayLike | None,
    start: int,
    method: Method | None,
    seed: Seed,
) -> Plan:
    """Check the arguments of all methods with tangent vectors."""
    maps = runs_of(system)
    if isinstance(system, TrainingMap) and system.dtype != "float64":
        raise ArgumentError(
            "system",
            f"must have dtype='float64' for tangent vectors along runs, got {system.dtype!r}",
        )
    n = maps.n
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    n_transient = _checks.integer("n_transient", n_transient, least=0)
    start = _checks.integer("start", start, least=0)
    if isinstance(system, TrainingMap):
        system.optimizer._require_factors(start, n_transient + n_steps)
    if method is not None:
        _checks.choice("method", method, METHODS)
        if not isinstance(system, TrainingMap):
            raise ArgumentError(
                "method",
                f"must be left out for a map that is not a TrainingMap, whose tangents have no "
                f"method to choose, got {method!r}",
            )
    states, batch = maps.flat(w0, "w0", finite=True)
    given = None if frame is None else _checks.floats("frame", frame)
    if k is None and given is not None:
        if given.ndim < 2 or not 1 <= given.shape[-1] <= n:
            raise ArgumentError(
                "frame",
                f"must have shape (..., {n}, k) with 1 <= k <= {n}, got {given.shape}",
            )
        k = given.shape[-1]
    k = n if k is None else _checks.integer("k", k, least=1, most=n)
    _checks.memory(
        f"frames of {k} vectors of length {n} for {len(states)} runs",
        16.0 * max(1, len(states)) * n * k,
        "take fewer runs or a smaller k",
    )
    frames = None if given is None else _given_frames(given, batch, n, k)
    seed = _checks.reusable_seed(seed)
    return Plan(system, states, batch, k, frames, seed, n_steps, n_transient, start, method)


# --- start frames ---------------------------------------------------------------------------------


def random_frames(seed: Seed, runs: int, n: int, k: int) -> Floats:
    """A random orthonormal frame, the same for every run, (runs, n, k).

    A function of (seed, n, k); the first columns do not depend on k.
    """
    if type(seed) is int and n * k <= _CACHED_FRAME:
        frame = _cached_frame(seed, n, k)
    else:
        frame = _random_frame(seed, n, k)
    out = np.empty((runs, n, k))
    out[:] = frame
    return out


def _random_frame(seed: Seed, n: int, k: int) -> Floats:
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    # Column by column, so that the first columns do not depend on k.
    drawn = np.ascontiguousarray(rng.standard_normal((k, n)).T)
    return core.orthonormalise(drawn, None)[0]


# Drawing a small frame takes longer than a short run of a small network, so these are cached.
_CACHED_FRAME = 10_000  # numbers
_cached_frame = lru_cache(maxsize=32)(_random_frame)


def _given_frames(frame: Floats, batch: tuple[int, ...], n: int, k: int) -> Floats:
    """A given frame, broadcast against the batch and orthonormalised, (runs, n, k)."""
    if frame.ndim < 2 or frame.shape[-2:] != (n, k):
        raise ArgumentError("frame", f"must have shape (..., {n}, {k}), got {frame.shape}")
    runs = math.prod(batch)
    if frame.ndim == 2:
        spread = frame[np.newaxis]
    else:
        try:
            spread = np.broadcast_to(frame, (*batch, n, k)).reshape(-1, n, k)
        except ValueError:
            raise ArgumentError(
                "frame", f"must broadcast against the batch of runs {batch}, got {frame.shape}"
            ) from None
    out = np.empty((runs, n, k))
    for r in range(runs):
        if r and frame.ndim == 2:
            out[r] = out[0]
            continue
        # Not by Q.T @ Q: the threads of a BLAS spin after a product and disturb the run's own.
        given = np.ascontiguousarray(spread[r])
        orthonormalised, norms, factor = core.orthonormalise(given, None)
        if (norms == 0).any():
            raise ArgumentError(
                "frame",
                f"must have independent columns, "
                f"column {int(np.argmin(norms))} depends on those before it",
            )
        # The frame of an earlier result is kept, so that a continued run has the same bits.
        orthonormal = np.abs(factor - np.eye(k)).max() <= _ORTHONORMAL
        out[r] = given if orthonormal else orthonormalised
    return out


# --- kernels --------------------------------------------------------------------------------------


class Kernels(NamedTuple):
    """The kernels for the runs of a plan, and how their work is divided; see `kernels_of`."""

    spectrum: Callable[[core.SpectrumRuns, core.Task], None]
    covariant: Callable[[core.CovariantRuns, core.Task], None]
    group: int
    threads: int | None
    step_cost: float
    alone: int = 0

    def over_runs(
        self, work: Callable[[core.Task], None], runs: int, steps: int, *,
        progress: bool | ProgressBar, label: str,
    ) -> None:  # fmt: skip
        """Call work(task) for tasks that cover all runs, of so many steps each."""
        over_runs(
            work,
            runs,
            group=self.group,
            alone=self.alone,
            threads=self.threads,
            cost=runs * steps * self.step_cost,
            steps=steps,
            progress=progress,
            label=label,
        )


def kernels_of(
    plan: Plan,
    n_steps: int,
    qr_every: int,
    qr_cost: float,
    threads: int | None,
    *,
    losses: bool,
) -> Kernels:
    """Kernels for `n_steps` steps of a plan; qr_cost n k² multiplications per step are added.

    Maps that are not trainings compute losses only if `losses`.
    """
    system = plan.system
    if isinstance(system, TrainingMap):
        training, how = system._runs, plan.method or "auto"
        problem = training.problem
        rates = training.rates(plan.batch, plan.start, n_steps, plan.chosen)
        return Kernels(
            lambda runs, task: problem.spectrum(runs, rates, how, task),
            lambda runs, task: problem.covariant(runs, rates, how, task),
            training.group,
            threads,
            training.step_cost(plan.k, plan.method) + qr_cost * plan.n * plan.k**2,
            training.alone,
        )
    maps = MapRuns(system)
    functions = maps.core_map(plan.start + n_steps, qr_every, losses=losses)
    group, parallel, step_cost = maps.work(plan.states, plan.k)
    threads = threads if parallel else 1
    return Kernels(functions.spectrum, functions.covariant, group, threads, step_cost)


# --- long arrays ----------------------------------------------------------------------------------

_PIECE = 1 << 20  # numbers that are written between two checks for Ctrl-C


def steps_from(first: int, count: int, every: int) -> NDArray[np.int64]:
    """The steps first, first + every, ...; many of them in pieces, because of Ctrl-C."""
    if count <= _PIECE:
        return np.arange(first, first + count * every, every, dtype=np.int64)
    result: NDArray[np.int64] = in_pieces(np.empty(count, np.int64), first, every)
    return result


def in_pieces(array: NDArray[Any], first: float, step: int = 0) -> Any:
    """The array, filled with first, first + step, ...; long ones in pieces, because of Ctrl-C."""
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _PIECE):
        piece = flat[begin : begin + _PIECE]
        piece[:] = first + step * np.arange(begin, begin + piece.size) if step else first
    return array
