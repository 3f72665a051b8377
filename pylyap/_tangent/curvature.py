"""Sharpness at states: eigenvalues, curvatures along gradients, critical learning rates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar
from pylyap._runs import TrainingRuns
from pylyap._tangent.lanczos import STEPS_PER_STATE, Largest, Multiply, lanczos
from pylyap._thresholds import Kind, Moments, spread

Integers = NDArray[np.int64]

_MOST_BATCHES = 10**6  # the standard error decreases with the root of their number
_KRYLOV_BYTES = 200e6  # of the Krylov vectors of the states that are iterated together
# Trial steps of a critical learning rate. Below 2^-20 of an update the rounding error of the loss
# may hide its increase along an ascent direction.
_DOUBLINGS, _HALVINGS = 60, 20


@dataclass(frozen=True)
class States:
    """States whose sharpness is wanted.

    Attributes
    ----------
    flat : ndarray, shape (runs, n)
        The states.
    t : ndarray of int, shape (runs,)
        Index of the step that each state is before.
    batch : tuple of int
        Batch shape of the states.
    times : int
        Number of last axes of the batch that follow those of the rates.
    threads : int or None
        Number of threads.
    """

    flat: Floats
    t: Integers
    batch: tuple[int, ...]
    times: int
    threads: int | None

    def by_step(self) -> Iterator[tuple[int, Integers]]:
        """Each index of a step, and the finite states that are before it."""
        finite = np.asarray(np.isfinite(self.flat).all(axis=1))
        for t in np.unique(self.t[finite]).tolist():
            yield t, np.flatnonzero(finite & (self.t == t))


@dataclass(frozen=True)
class Measured:
    """Sharpness of states, one row each, as the fields of a `Sharpness`."""

    value: Floats
    residual: Floats
    vector: Floats | None
    products: Integers
    missed: Floats
    stderr: Floats | None = None
    ratio: Floats | None = None  # where it does not follow from the value and the threshold


def measure(
    maps: TrainingRuns | MapRuns,
    kind: Kind,
    states: States,
    *,
    tol: float,
    max_products: int,
    n_batches: int | None,
    seed: Seed,
    lr: Floats | None,
    bar: ProgressBar | None = None,
) -> Measured:
    """Sharpness of a kind at states; `lr` (runs,) are the learning rates of their steps."""
    tol = min(_checks.real("tol", tol, above=0.0), 1e100)  # finite times an eigenvalue
    max_products = _checks.integer("max_products", max_products, least=1)
    if states.threads is not None:
        _checks.integer("threads", states.threads, least=1)
    if kind in ("hessian", "preconditioned"):
        scale = _preconditioners(maps, states) if kind == "preconditioned" else None
        found = _largest(maps, states, scale, tol, max_products, seed, bar)
        return Measured(found.value, found.residual, found.vector, found.products, found.missed)
    if kind == "gradient":
        return _along_gradients(maps, states, bar)
    if kind == "batch":
        return _along_batches(maps, states, n_batches, bar)
    return _critical(maps, states, tol, lr, bar)


# --- largest eigenvalues --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scale:
    """P^(−1/2) of the step of each state (runs, n_params), and the weight decay (runs,) in it."""

    root: Floats
    decay: Floats


def _preconditioners(maps: TrainingRuns | MapRuns, states: States) -> _Scale | None:
    """Preconditioners of the steps: Adam's, or the inverse factors of the layers; None without."""
    settings = maps.hyperparameters
    if settings is None or not settings.preconditions:
        return None
    decay = np.broadcast_to(spread(settings.coupled_decay, states.times), states.batch).reshape(-1)
    root: Floats = np.ones((len(states.flat), maps.n_params))
    if settings.moments is not None:
        root = _of_adam(maps, settings.moments, states, decay)
    factors = maps.parameter_factors
    if factors is not None:
        if factors.ndim > 1:
            factors = factors.reshape((*factors.shape[:-1], *[1] * states.times, maps.n_params))
        each = np.broadcast_to(factors, (*states.batch, maps.n_params))
        root = root * np.sqrt(each.reshape(-1, maps.n_params))
    return _Scale(root, decay)


def _of_adam(
    maps: TrainingRuns | MapRuns, moments: Moments, states: States, decay: Floats
) -> Floats:
    """P^(−1/2) of Adam's steps (runs, n_params)."""
    n = maps.n_params
    root = np.full((len(states.flat), n), np.nan)
    whole = isinstance(maps, TrainingRuns) or maps.functions.batch_gradient is not None
    for t, rows in states.by_step():
        X = states.flat[rows]
        if whole:
            g = maps.batch_gradients(X, t, states.threads) + decay[rows, np.newaxis] * X[:, :n]
            v = moments.second(X[:, 2 * n : 3 * n], g)
        else:
            v = maps.step(X, t, states.batch, rows, states.times)[:, 2 * n : 3 * n]
        root[rows] = moments.inverse_root(v, t)
    return root


def _largest(
    maps: TrainingRuns | MapRuns,
    states: States,
    scale: _Scale | None,
    tol: float,
    max_products: int,
    seed: Seed,
    bar: ProgressBar | None,
) -> Largest:
    """Largest eigenvalues of the Hessians, or of P⁻¹ (H + decay)."""
    n, steps = maps.n_params, min(max_products, maps.n_params)
    multiply, group = _hessian_products(maps, states.threads)
    flat = states.flat[:, :n] if isinstance(maps, TrainingRuns) else states.flat
    if scale is not None:
        # Lanczos in the P-inner product is Lanczos of P^(−1/2) (H + decay) P^(−1/2).
        flat = np.concatenate([flat, scale.root, scale.decay[:, np.newaxis]], axis=1)
        multiply = partial(_scaled, multiply, n)
    flat = np.ascontiguousarray(flat)
    per_state = 8.0 * n * (steps + 2)
    block = max(group, int(_KRYLOV_BYTES / per_state) // group * group)
    _checks.memory(
        f"{steps} Krylov vectors of length {n} for {min(block, len(flat))} states",
        min(block, len(flat)) * per_state,
        "take a smaller max_products",
    )
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    start: Floats = np.asarray(rng.standard_normal(n))
    parts = [
        lanczos(multiply, flat[i : i + block], start, steps, tol, bar)
        for i in range(0, max(len(flat), 1), block)
    ]
    found = Largest(*(np.concatenate(arrays) for arrays in zip(*map(astuple, parts), strict=True)))
    if scale is None:
        return found
    vector = scale.root * found.vector
    length = np.linalg.norm(vector, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 of weights with the factor 0
        vector /= length
    return Largest(found.value, found.residual, vector, found.products, found.missed)


def _scaled(multiply: Multiply, n: int, states: Floats, vectors: Floats) -> Floats:
    """Products of P^(−1/2) (H + decay) P^(−1/2); states are followed by its root and decay."""
    root, decay = states[:, -n - 1 : -1], states[:, -1:]
    scaled = root * vectors
    image = multiply(np.ascontiguousarray(states[:, : -n - 1]), scaled)
    result: Floats = root * (image + decay * scaled)
    return result


def _hessian_products(maps: TrainingRuns | MapRuns, threads: int | None) -> tuple[Multiply, int]:
    """Products of the Hessians of finite states with a vector each, and the size of a group."""
    if isinstance(maps, MapRuns):
        return maps.hessian_vector, 1
    plain = maps.plain._runs
    return partial(_products, plain, threads), plain.group


def _products(runs: TrainingRuns, threads: int | None, weights: Floats, vectors: Floats) -> Floats:
    """Hessian–vector products (runs, n), one vector (runs, n) per row of weights."""
    out = np.empty((*vectors.shape, 1))
    given = np.ascontiguousarray(vectors[..., np.newaxis])

    def work(task: core.Task) -> None:
        runs.problem.hessian_vectors(weights, given, out, task)

    runs.over(work, len(weights), runs.step_cost(1, None), threads=threads)
    return out[..., 0]


# --- curvature along gradients --------------------------------------------------------------------


def _along_gradients(
    maps: TrainingRuns | MapRuns, states: States, bar: ProgressBar | None
) -> Measured:
    """Rayleigh quotients of P⁻¹ H at P⁻¹ g in the P-inner product; P = 1 for gradient descent."""
    runs, n = len(states.flat), maps.n_params
    value, residual = np.full(runs, np.nan), np.full(runs, np.nan)
    vector, products = np.full((runs, n), np.nan), np.zeros(runs, np.int64)
    scale = _preconditioners(maps, states)
    rows = np.flatnonzero(np.isfinite(states.flat).all(axis=1))
    if rows.size:
        X = np.ascontiguousarray(states.flat[rows])
        multiply, _ = _hessian_products(maps, states.threads)
        weights = np.ascontiguousarray(X[:, :n]) if isinstance(maps, TrainingRuns) else X
        root = np.ones((rows.size, n)) if scale is None else scale.root[rows]
        decay = np.zeros(rows.size) if scale is None else scale.decay[rows]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            s = root * maps.gradients(X)
            s /= np.linalg.norm(s, axis=1, keepdims=True)
            fine = np.asarray(np.isfinite(s).all(axis=1))
            direction = np.where(fine[:, np.newaxis], root * s, 0.0)
            image = root * (multiply(weights, direction) + decay[:, np.newaxis] * direction)
            curvature = (s * image).sum(axis=1)
            value[rows] = np.where(fine, curvature, np.nan)
            residual[rows] = np.linalg.norm(image - curvature[:, np.newaxis] * s, axis=1)
            vector[rows] = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        products[rows] = 1
    if bar is not None:
        bar.advance(STEPS_PER_STATE * runs)
    return Measured(value, residual, vector, products, np.full(runs, np.nan))


def _along_batches(
    maps: TrainingRuns | MapRuns, states: States, n_batches: int | None, bar: ProgressBar | None
) -> Measured:
    """Mean over minibatches of the curvature of their losses along their gradients."""
    if n_batches is None:
        n_batches = maps.steps_per_epoch
        if n_batches is None:
            raise ArgumentError(
                "n_batches", "must be given for a map without the attribute steps_per_epoch"
            )
    n_batches = _checks.integer("n_batches", n_batches, least=1, most=_MOST_BATCHES)
    runs = len(states.flat)
    mean, squares = np.full(runs, np.nan), np.full(runs, np.nan)
    products = np.zeros(runs, np.int64)
    for t, rows in states.by_step():
        X = np.ascontiguousarray(states.flat[rows])
        first, second = np.zeros(rows.size), np.zeros(rows.size)
        for b in range(n_batches):
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                g = maps.batch_gradients(X, t + b, states.threads)
                g /= np.linalg.norm(g, axis=1, keepdims=True)
                fine = np.asarray(np.isfinite(g).all(axis=1))
                g = np.where(fine[:, np.newaxis], g, 0.0)
                image = maps.batch_products(X, g, t + b, states.threads)
                curvature = np.where(fine, (g * image).sum(axis=1), np.nan)
            step = curvature - first  # Welford's update
            first += step / (b + 1)
            second += step * (curvature - first)
        mean[rows], squares[rows], products[rows] = first, second, n_batches
    if bar is not None:
        bar.advance(STEPS_PER_STATE * runs)
    nothing = np.full(runs, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr = np.sqrt(squares / (np.array(n_batches - 1.0) * n_batches))
    return Measured(mean, nothing, None, products, nothing, stderr)


# --- critical learning rates ----------------------------------------------------------------------


def _critical(
    maps: TrainingRuns | MapRuns,
    states: States,
    tol: float,
    lr: Floats | None,
    bar: ProgressBar | None,
) -> Measured:
    """2/lr over the smallest multiple of the next update that makes the loss increase."""
    runs = len(states.flat)
    multiple, losses = np.full(runs, np.nan), np.zeros(runs, np.int64)
    for t, rows in states.by_step():
        X = np.ascontiguousarray(states.flat[rows])
        after = maps.step(X, t, states.batch, rows, states.times, states.threads)
        update = after[:, : maps.n_params] - X[:, : maps.n_params]
        multiple[rows], losses[rows] = _smallest_increase(maps, X, update, max(tol, 1e-14))
    if bar is not None:
        bar.advance(STEPS_PER_STATE * runs)
    nothing = np.full(runs, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = 1.0 / multiple
        value = nothing if lr is None else 2.0 * ratio / lr
    return Measured(value, nothing, None, losses, nothing, ratio=ratio)


def _smallest_increase(
    maps: TrainingRuns | MapRuns, X: Floats, update: Floats, tol: float
) -> tuple[Floats, Integers]:
    """Multiple c (runs,) from which on L(w + c update) > L(w), and the number of losses.

    Doubling or halving from 1, then bisection to the relative tolerance. 0 if the loss increases
    for any multiple tried, infinite if for none, nan if there is no update.
    """
    n = maps.n_params
    count = np.zeros(len(X), np.int64)
    # Rounding errors of losses in single precision would hide small increases.
    single = isinstance(maps, TrainingRuns) and maps.single
    losses = maps.minibatch.losses if single else maps.losses  # type: ignore[union-attr]
    first = losses(X)

    def increases(c: Floats, which: Integers) -> NDArray[np.bool_]:
        moved = X[which]
        with np.errstate(over="ignore", invalid="ignore"):
            moved[:, :n] += c[:, np.newaxis] * update[which]
        fine = np.asarray(np.isfinite(moved).all(axis=1))
        moved[~fine] = X[which][~fine]
        count[which] += 1
        return ~(fine & (losses(moved) <= first[which]))

    c = np.where(np.isfinite(first) & np.isfinite(update).all(axis=1), 1.0, np.nan)
    c[(update == 0.0).all(axis=1)] = np.nan
    alive = np.flatnonzero(np.isfinite(c))
    rises = np.zeros(len(X), bool)
    rises[alive] = increases(c[alive], alive)
    low, high = np.zeros(len(X)), np.full(len(X), np.inf)
    low[alive], high[alive] = np.where(rises, low, c)[alive], np.where(rises, c, high)[alive]
    for upwards in (False, True):
        which = alive[rises[alive] != upwards]
        for k in range(1, (_DOUBLINGS if upwards else _HALVINGS) + 1):
            if not which.size:
                break
            trial = np.full(which.size, 2.0**k if upwards else 0.5**k)
            above = increases(trial, which)
            high[which[above]], low[which[~above]] = trial[above], trial[~above]
            which = which[above != upwards]
    while True:
        which = alive[np.isfinite(high[alive]) & (low[alive] > 0.0)]
        which = which[high[which] - low[which] > tol * high[which]]
        if not which.size:
            break
        trial = 0.5 * (low[which] + high[which])
        above = increases(trial, which)
        high[which[above]], low[which[~above]] = trial[above], trial[~above]
    bracketed = np.isfinite(high) & (low > 0.0)
    found = np.where(bracketed, 0.5 * (low + high), np.where(low > 0.0, np.inf, 0.0))
    return np.where(np.isfinite(c), found, np.nan), count
