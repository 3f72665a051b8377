"""Largest Hessian eigenvalues along training, relative to the stability threshold."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult, batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar, progress_bar
from pylyap._runs import TrainingRuns
from pylyap._tangent.lanczos import STEPS_PER_STATE, Largest, Multiply, lanczos
from pylyap._tangent.scaled_hessian import Scaling, product, scaling
from pylyap.maps import Map, checked_paths, runs_of
from pylyap.optimizers import Adam, Optimizer

Integers = NDArray[np.int64]

_KRYLOV_BYTES = 200e6  # of the Krylov vectors of the states that are iterated together


@dataclass(frozen=True, eq=False, repr=False)
class Sharpness(BatchResult):
    """Largest eigenvalue of the Hessian of the mean loss at a batch of states.

    `sharpness` and `sharpness_along` return it.

    Attributes
    ----------
    value : ndarray, shape (...)
        Largest (algebraic) eigenvalue; nan for states that are nan or whose Hessian overflows. It
        is a lower bound up to rounding. With factors of the layers (`layer_scale` or `bias_scale`
        of `GradientDescent`, the diagonal matrix D) the largest eigenvalue of √D H √D, which a step
        lr D g meets; with a weight decay μ as well, of √D (H + μ) √D − μ.
    ratio : ndarray, shape (...)
        Sharpness relative to the stability threshold of the optimiser: `value` plus the weight
        decay, divided by the curvature above which a step on a parabola is unstable. For plain
        gradient descent lr·λ/2; 1 is the edge of stability. nan for Adam, which has no constant
        threshold, and for a map without an ``optimizer`` of the package. A schedule of the learning
        rate is included only by `sharpness_along`.
    vector : ndarray, shape (..., n_params)
        Eigenvector of `value`, of unit length; with factors of the layers √D times it is the
        direction of the weights.
    residual : ndarray, shape (...)
        ‖H v − λ v‖, an upper bound on the distance of `value` to an eigenvalue.
    n_products : ndarray of int, shape (...)
        Number of Hessian–vector products.
    missed : ndarray, shape (...)
        Significance level (p-value) at which larger eigenvalues are excluded: if an eigenvalue
        exceeds `value` + δ, the probability over the random start vector of a value of p or less is
        at most p. δ is max(tol, 1e-8) times the largest absolute eigenvalue found. 0 if the Krylov
        space is exhausted; above 1e-6 only if `max_products` was too small.
    loss : ndarray, shape (..., n_times), or None
        Mean loss of the whole data at each time; of `sharpness_along` only.
    steps : ndarray of int, shape (n_times,), or None
        Index of the step of each time; of `sharpness_along` only.
    threshold : ndarray, shape (..., n_times), or None
        Sharpness above which a step on a parabola is unstable: 2/lr for plain gradient descent
        without weight decay; a schedule is included. nan for Adam. Of `sharpness_along` only.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness(system, net.init(runs=4, seed=0))
    >>> np.allclose(found.ratio, 0.1 * found.value / 2)
    True
    """

    value: Floats
    ratio: Floats
    vector: Floats = field(repr=False)
    residual: Floats = field(repr=False)
    n_products: Integers = field(repr=False)
    missed: Floats = field(repr=False)
    loss: Floats | None = field(repr=False, default=None)
    steps: Integers | None = field(repr=False, default=None)
    threshold: Floats | None = field(repr=False, default=None)

    _INDEX: ClassVar[dict[str, str]] = {"steps": "time"}
    _UNITS: ClassVar[dict[str, str]] = {"steps": "steps"}

    @property
    def _MORE(self) -> dict[str, tuple[str, ...]]:  # type: ignore[override]
        time = () if self.steps is None else ("time",)
        names = ("value", "ratio", "residual", "n_products", "missed", "loss", "threshold")
        return dict.fromkeys(names, time) | {"vector": (*time, "parameter")}

    @property
    def _batch(self) -> tuple[int, ...]:
        batch = np.shape(self.value)
        return batch if self.steps is None else batch[:-1]


@dataclass(frozen=True, eq=False, repr=False)
class HessianSpectrum(BatchResult):
    """All eigenvalues of the Hessian of the mean loss at a batch of states.

    `hessian_spectrum` returns it.

    Attributes
    ----------
    eigenvalues : ndarray, shape (..., n_params)
        Eigenvalues in descending order; nan for states that are nan. With factors of the layers
        those of √D H √D, as in `Sharpness`.
    ratio : ndarray, shape (...)
        Largest eigenvalue relative to the stability threshold, as in `Sharpness`.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> spectrum = pl.hessian_spectrum(system, net.init(runs=4, seed=0))
    >>> spectrum.negative.shape
    (4,)
    """

    eigenvalues: Floats
    ratio: Floats

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {"eigenvalues": ("eigenvalue",)}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.eigenvalues.shape[:-1]

    @cached_property
    def negative(self) -> Floats:
        """Fraction of eigenvalues below zero by more than the rounding of the largest, (...)."""
        scale = np.abs(self.eigenvalues).max(axis=-1, keepdims=True)
        n = self.eigenvalues.shape[-1]
        negative = self.eigenvalues < -n * np.finfo(float).eps * scale
        result: Floats = np.where(np.isnan(scale[..., 0]), np.nan, negative.mean(axis=-1))
        return result


def sharpness(
    system: Map,
    x: ArrayLike,
    tol: float = 1e-8,
    max_products: int = 300,
    threads: int | None = None,
    seed: Seed = 0,
) -> Sharpness:
    """Largest Hessian eigenvalue by Lanczos iteration, for a batch of states.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, or another map with a method ``hessian_vector``. Its attribute
        ``optimizer`` affects `Sharpness.ratio` only.
    x : array_like, shape (..., n) or (..., n_params)
        States or weights, such as a trajectory. Array-valued rates of the optimiser broadcast
        against the last batch axes of `x`, or else against its first, as for a trajectory of runs
        with these rates. `x` is rejected if both are possible and differ.
    tol : float, default 1e-8
        Tolerance in units of the largest absolute eigenvalue found: iteration stops when the
        residual ‖H v − λ v‖ is below it and larger eigenvalues are excluded (see Notes).
    max_products : int, default 300
        Maximum number of Hessian–vector products per state. Check `Sharpness.residual` and
        `Sharpness.missed` of states that may not have converged.
    threads : int, optional
        Number of threads. By default, and at most, all cores available to the process. Results do
        not depend on it.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start vector. From a Generator one int is drawn.

    Returns
    -------
    Sharpness
        Eigenvalues, eigenvectors and error estimates, with the batch shape of `x`.

    Raises
    ------
    ArgumentError
        If the map has no ``hessian_vector``, `tol` or `max_products` is out of range, array-valued
        rates match the batch of `x` in no way or in two ways, or the Krylov vectors of a single
        state do not fit in memory.

    See Also
    --------
    sharpness_along : Sharpness along training.
    hessian_spectrum : All eigenvalues, for small networks.

    Notes
    -----
    A small residual shows that λ is an eigenvalue, not that it is the largest: the start vector may
    have almost no component along the eigenvector of a larger one. Let p_j be the orthonormal
    Lanczos polynomials of m steps with start vector b. The component of b along the eigenvector v
    of an eigenvalue λ' satisfies (v·b)² ≤ 1/K(λ'), K = Σ_{j≤m} p_j(λ')², and K increases above the
    largest Ritz value. For a random direction in n dimensions, so small a component has a
    probability of at most √(2n/(πK)). The iteration continues until this bound is 1e-6 at
    λ' = λ + δ, with δ = max(tol, 1e-8) times the largest absolute eigenvalue found. Hence, for each
    state, **no eigenvalue exceeds** `value` **by more than δ with probability 1 − 1e-6 or more**.
    The start vector is the same for all states.

    References
    ----------
    Lanczos, J. Res. Natl. Bur. Stand. 45, 255 (1950). Kuczyński, Woźniakowski, SIAM J. Matrix Anal.
    Appl. 13, 1094 (1992), on random start vectors. Cohen et al., ICLR (2021), on the edge of
    stability.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness(system, net.init(runs=4, seed=0))
    >>> found.value.shape, found.vector.shape
    ((4,), (4, 13))
    """
    maps = _runs_with_hessian(system, "sharpness")
    states = maps.states(x, "x")
    batch: tuple[int, ...] = states.shape[:-1]
    times = _times(maps, batch)
    if not times:
        states, batch = _with_rates(maps, states)
    scaled = scaling(maps, batch, times)
    found = _largest(maps, states.reshape(-1, maps.n), scaled, tol, max_products, threads, seed)
    ratio = _ratio(maps.optimizer, found.value.reshape(batch), times)
    return _sharpness(found, batch, ratio, **_axes(system, batch, times))


def hessian_spectrum(system: Map, x: ArrayLike) -> HessianSpectrum:
    """All eigenvalues of the Hessian at a batch of states, for small networks.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, or another map with a method ``hessian_vector``. Its attribute
        ``optimizer`` affects `HessianSpectrum.ratio` only.
    x : array_like, shape (..., n) or (..., n_params)
        States or weights. Array-valued rates are matched with its batch as in `sharpness`.

    Returns
    -------
    HessianSpectrum
        Eigenvalues in descending order, with the batch shape of `x`.

    Raises
    ------
    ArgumentError
        If the map has no ``hessian_vector`` or array-valued rates do not match the batch of `x`.
    ValueError
        If the Hessians do not fit in memory.

    See Also
    --------
    sharpness : The largest eigenvalue only, for networks of any size.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> pl.hessian_spectrum(system, net.init(runs=4, seed=0)).eigenvalues.shape
    (4, 13)
    """
    maps = _runs_with_hessian(system, "hessian_spectrum")
    states = maps.states(x, "x")
    times = _times(maps, states.shape[:-1])
    if times == 0:
        flat, batch = _with_rates(maps, states)
        if any(getattr(maps.optimizer, "_factor_shapes", ())):  # each run has a matrix of its own
            states = flat.reshape((*batch, maps.n))
    H = maps.hessians(states)
    scaled = scaling(maps, states.shape[:-1], times)
    if scaled is not None:
        H = scaled.hessians(H)
    fine = np.asarray(np.isfinite(H).all(axis=(-1, -2), keepdims=True))
    eigenvalues = np.linalg.eigvalsh(np.where(fine, H, 0.0))[..., ::-1]
    eigenvalues = np.where(fine[..., 0], eigenvalues, np.nan)
    ratio = _ratio(maps.optimizer, eigenvalues[..., 0], times)
    return HessianSpectrum(eigenvalues, ratio, **_axes(system, eigenvalues.shape[:-1], times))


def sharpness_along(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    every: int = 1,
    *,
    start: int = 0,
    tol: float = 1e-6,
    max_products: int = 300,
    threads: int | None = None,
    progress: bool | ProgressBar = False,
    seed: Seed = 0,
) -> Sharpness:
    """Sharpness along training, at the start and after every `every` steps.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, or another map with a method ``hessian_vector``.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps.
    every : int, default 1
        Steps between two evaluations, a divisor of `n_steps`.
    start : int, default 0
        Index t of the first step, which selects the minibatch and Adam's bias correction.
    tol : float, default 1e-6
        Tolerance in units of the largest absolute eigenvalue, as in `sharpness`.
    max_products : int, default 300
        Maximum number of Hessian–vector products per state.
    threads : int, optional
        Number of threads. By default, and at most, all cores available to the process.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start vector. From a Generator one int is drawn.

    Returns
    -------
    Sharpness
        Arrays with a time axis of length n_steps // every + 1 after the batch axes; nan from the
        time at which a run diverged. `Sharpness.ratio` uses the learning rate of each run. With a
        schedule, it uses the rate of the next step; for the last state the rate of the last step
        made (for n_steps = 0, of step `start`). Losses, steps and thresholds are included.

    Raises
    ------
    ArgumentError
        If the map has no ``hessian_vector``, `every` does not divide `n_steps`, another argument is
        out of range, or an array schedule is too short.

    See Also
    --------
    sharpness : Sharpness at given states.

    References
    ----------
    Cohen et al., ICLR (2021), on the edge of stability.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness_along(system, net.init(runs=4, seed=0), n_steps=50, every=10)
    >>> found.ratio.shape
    (4, 6)
    """
    maps = _runs_with_hessian(system, "sharpness_along")
    max_products = _checks.integer("max_products", max_products, least=1)
    seed = _checks.reusable_seed(seed)
    n_steps = _checks.integer("n_steps", n_steps, least=0)
    every = _checks.integer("every", every, least=1)
    runs = len(maps.flat(w0, "w0")[0])
    total = runs * steps_of_sharpness(n_steps, every)
    with progress_bar(progress, total, "sharpness") as bar:
        path = checked_paths(
            maps, w0, n_steps, every, start, threads=threads, progress=bar, name="w0"
        )
        batch: tuple[int, ...] = path.shape[:-1]
        scaled = scaling(maps, batch, 1)
        flat = path.reshape(-1, maps.n)
        found = _largest(maps, flat, scaled, tol, max_products, threads, seed, bar)
    value, times = found.value.reshape(batch), batch[-1]
    ratio = _ratio(maps.optimizer, value, times=1)
    critical, decay = _critical(maps.optimizer, times=1)
    critical = np.broadcast_to(critical, batch)
    factors = maps.optimizer._factors(start, max(n_steps, 1)) if maps.optimizer else None
    if factors is not None:
        now = np.minimum(every * np.arange(times), len(factors) - 1)
        ratio = ratio * factors[now]
        with np.errstate(divide="ignore"):
            critical = critical / factors[now]
    return _sharpness(
        found,
        batch,
        ratio,
        loss=maps.losses(path) if maps.has_loss else None,
        steps=start + every * np.arange(times),
        threshold=critical - decay,
        **batch_axes(system, batch[:-1]),
    )


def steps_of_sharpness(n_steps: int, every: int) -> int:
    """Steps of a run that `sharpness_along` reports to a progress bar."""
    return n_steps + STEPS_PER_STATE * (n_steps // every + 1)


def _sharpness(found: Largest, batch: tuple[int, ...], ratio: Floats, **more: Any) -> Sharpness:
    return Sharpness(
        value=found.value.reshape(batch)[()],
        ratio=ratio,
        vector=found.vector.reshape((*batch, found.vector.shape[-1])),
        residual=found.residual.reshape(batch)[()],
        n_products=found.products.reshape(batch)[()],
        missed=found.missed.reshape(batch)[()],
        **more,
    )


def _largest(
    maps: TrainingRuns | MapRuns,
    states: Floats,
    scaled: Scaling | None,
    tol: float,
    max_products: int,
    threads: int | None,
    seed: Seed,
    bar: ProgressBar | None = None,
) -> Largest:
    """Largest eigenvalues of the Hessians at states (runs, n); other arguments as `sharpness`."""
    n = maps.n_params
    tol = min(_checks.real("tol", tol, above=0.0), 1e100)  # finite times an eigenvalue
    steps = min(_checks.integer("max_products", max_products, least=1), n)
    if isinstance(maps, TrainingRuns):
        plain = maps.plain._runs
        states, group = np.ascontiguousarray(states[:, :n]), plain.group
        multiply: Multiply = partial(_products, plain, threads)
        if scaled is not None:
            states, multiply = scaled.rows(states), product(multiply)
    else:
        group, multiply = 1, maps.hessian_vector
        if threads is not None:
            _checks.integer("threads", threads, least=1)
    per_state = 8.0 * n * (steps + 2)
    block = max(group, int(_KRYLOV_BYTES / per_state) // group * group)
    _checks.memory(
        f"{steps} Krylov vectors of length {n} for {min(block, len(states))} states",
        min(block, len(states)) * per_state,
        "take a smaller max_products",
    )
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    start: Floats = np.asarray(rng.standard_normal(n))
    parts = [
        lanczos(multiply, states[i : i + block], start, steps, tol, bar)
        for i in range(0, max(len(states), 1), block)
    ]
    return Largest(*(np.concatenate(arrays) for arrays in zip(*map(astuple, parts), strict=True)))


def _runs_with_hessian(system: Map, purpose: str) -> TrainingRuns | MapRuns:
    """The internal side of a map; ArgumentError if it has no Hessian-vector products."""
    maps = runs_of(system)
    if isinstance(maps, MapRuns):
        maps.require("hessian_vector", purpose)
    return maps


def _with_rates(maps: TrainingRuns | MapRuns, states: Floats) -> tuple[Floats, tuple[int, ...]]:
    """States as (runs, n) and their batch, broadcast against the rates of the optimiser."""
    if isinstance(maps, TrainingRuns):
        return maps.flat(states, "x")
    batch, shapes = states.shape[:-1], maps.rate_shapes
    if any(shapes) and not (
        _broadcast(batch, *shapes) and np.broadcast_shapes(batch, *shapes) == batch
    ):
        raise ArgumentError(
            "x", f"must have a batch that the rates of shapes {shapes} broadcast to, got {batch}"
        )
    return states.reshape(-1, maps.n), batch


def _times(maps: TrainingRuns | MapRuns, batch: tuple[int, ...]) -> int:
    """Number of batch axes that follow the axes of the optimiser's arrays.

    0 if the arrays broadcast against the last batch axes, as in all other functions. Raises
    ArgumentError if the arrays match the batch in two different ways.
    """
    shapes = maps.rate_shapes
    rates = np.broadcast_shapes(*shapes) if _broadcast(*shapes) else None
    extra = 0 if rates is None else len(batch) - len(rates)
    if rates is None or extra <= 0 or math.prod(rates) == 1:
        return 0  # a mismatch is reported by the check of the states
    first = _broadcast(batch, (*rates, *[1] * extra))
    if first and _broadcast(batch, rates):
        raise ArgumentError(
            "x",
            f"must tell which of its axes {batch} the rates of shape {rates} belong to, both the "
            f"first and the last fit: give rates of shape {(*rates, *[1] * extra)} for a "
            f"trajectory, {(*[1] * extra, *rates)} otherwise",
        )
    return extra if first else 0


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _axes(system: Any, batch: tuple[int, ...], times: int) -> dict[str, Any]:
    """Names of batch axes of which the last `times` follow those of the rates."""
    more = ("time",) if times == 1 else tuple(f"time_{i}" for i in range(times))
    return batch_axes(system, batch, more)


def _ratio(optimizer: Optimizer | None, value: Floats, times: int = 0) -> Floats:
    """Ratio of `value` (...) to the curvature above which a step on a parabola is unstable.

    The last `times` axes of `value` follow those of the rates.
    """
    critical, decay = _critical(optimizer, times)
    result: Floats = ((value + decay) / critical)[()]
    return result


def _critical(optimizer: Optimizer | None, times: int) -> tuple[Floats, Floats]:
    """Curvature above which a step on a parabola is unstable, and the weight decay it includes.

    nan for Adam and unknown optimisers. `times` axes of length 1 follow those of the rates.
    """
    if optimizer is None or isinstance(optimizer, Adam):
        return np.array(np.nan), np.array(0.0)
    lr, momentum, decay = (
        _spread(rate, times) for rate in (optimizer.lr, optimizer.momentum, optimizer.weight_decay)
    )
    with np.errstate(divide="ignore"):
        critical: Floats = 2.0 * (1.0 + momentum) / lr
    return critical / (1.0 + 2.0 * momentum) if optimizer.nesterov else critical, decay


def _spread(rate: ArrayLike, times: int) -> Floats:
    """A rate with `times` more axes of length 1, unless it is a number."""
    array: Floats = np.asarray(rate, dtype=np.float64)
    return array.reshape((*array.shape, *[1] * times)) if array.ndim else array


def _products(runs: TrainingRuns, threads: int | None, weights: Floats, vectors: Floats) -> Floats:
    """Hessian–vector products (runs, n), one vector (runs, n) per row of weights."""
    out = np.empty((*vectors.shape, 1))
    given = np.ascontiguousarray(vectors[..., np.newaxis])

    def work(task: core.Task) -> None:
        runs.problem.hessian_vectors(weights, given, out, task)

    runs.over(work, len(weights), runs.step_cost(1, None), threads=threads)
    return out[..., 0]
