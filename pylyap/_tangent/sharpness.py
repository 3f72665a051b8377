"""Largest Hessian eigenvalues and other sharpness, relative to the stability threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._batches import batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._map_runs import MapRuns
from pylyap._parallel import ProgressBar, progress_bar
from pylyap._runs import TrainingRuns
from pylyap._tangent.curvature import Integers, Measured, States, measure
from pylyap._tangent.lanczos import STEPS_PER_STATE
from pylyap._tangent.sharpness_results import HessianSpectrum, Sharpness
from pylyap._thresholds import KINDS, Kind, Threshold, spread, threshold
from pylyap.maps import Map, checked_paths, runs_of

__all__ = ["HessianSpectrum", "Sharpness"]
__all__ += ["batch_sharpness", "hessian_spectrum", "sharpness", "sharpness_along"]
__all__ += ["steps_of_sharpness"]


def sharpness(
    system: Map,
    x: ArrayLike,
    tol: float = 1e-8,
    max_products: int = 300,
    threads: int | None = None,
    seed: Seed = 0,
    *,
    kind: Kind | None = "hessian",
    t: ArrayLike | None = None,
    n_batches: int | None = None,
) -> Sharpness:
    """Largest Hessian eigenvalue by Lanczos iteration, for a batch of states, or another sharpness.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, or another map with a method ``hessian_vector`` or what the kind needs: see
        Notes. Of its attribute ``optimizer`` the Hessian's eigenvalues are independent; it affects
        `Sharpness.ratio`.
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
    kind : {"hessian", "preconditioned", "batch", "gradient", "critical"} or None
        What is computed, see Notes. None stands for the eigenvalue to which the threshold of the
        optimiser applies: ``"preconditioned"`` for Adam, AdamW and factors of the layers, otherwise
        ``"hessian"``.
    t : array_like of int, optional
        Index of the step that each state is before; broadcasts against the batch of `x`. It selects
        the minibatch, Adam's bias corrections and the factor of the schedule. By default 0, and no
        schedule; required where Adam's moments are not 0 and the kind depends on them.
    n_batches : int, optional
        Number of minibatches of kind ``"batch"``, at most 10⁶, those of steps t, t + 1, …; by
        default those of an epoch.

    Returns
    -------
    Sharpness
        Sharpness, vectors and error estimates, with the batch shape of `x`.

    Raises
    ------
    ArgumentError
        If the map lacks a method that the kind needs, `tol`, `max_products`, `t` or `n_batches` is
        out of range, `t` is required, array-valued rates match the batch of `x` in no way or in two
        ways, or the Krylov vectors of a single state do not fit in memory.

    See Also
    --------
    sharpness_along : Sharpness along training.
    batch_sharpness : Curvature along the gradients of minibatches.
    hessian_spectrum : All eigenvalues, for small networks.

    Notes
    -----
    The kinds, with the Hessian H and the gradient g of the mean loss of all data, and the methods
    that a map of one's own needs:

    - ``"hessian"``: the largest eigenvalue of H. (``hessian_vector``)
    - ``"preconditioned"``: the largest eigenvalue of P⁻¹ H, where the step is w' = w − lr P⁻¹ m'.
      For Adam and AdamW P = (1 − β₁^(t+1)) (√v̂' + ε), from the second moment after step t; a
      coupled weight decay is added to H. With factors of the layers (`layer_scale`, `bias_scale`
      of `GradientDescent`), or learning rates of parameter groups of torch relative to the largest,
      P⁻¹ is the diagonal matrix of the factors, and the weight decay is added to H too. Otherwise
      P = 1 for gradient descent. (``hessian_vector``; Adam: ``batch_gradient`` or states [w, m, v])
    - ``"batch"``: the mean over minibatches B of g_BᵀH_B g_B / g_Bᵀg_B, with the gradient and the
      Hessian of the loss of B. (``batch_gradient``, ``batch_hessian_vector``)
    - ``"gradient"``: gᵀHg / gᵀg, for Adam with P⁻¹H and P⁻¹g in the P-inner product.
      (``gradient``, ``hessian_vector``)
    - ``"critical"``: 2/η, where η is the smallest learning rate for which the loss of all data
      increases along the update of step t, up to the relative error `tol`. No second derivatives
      are used. For plain gradient descent on a parabola it equals ``"gradient"``. Infinite if the
      update is an ascent direction, 0 if the loss never increases. The ratio is lr/η; it needs no
      known optimiser. (``loss``)

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
    stability. Cohen et al., arXiv:2207.14484, on preconditioned sharpness. Andreyev, Beneventano,
    arXiv:2412.20553, on batch sharpness. Kalra et al., arXiv:2601.16979, on critical sharpness.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness(system, net.init(runs=4, seed=0))
    >>> found.value.shape, found.vector.shape
    ((4,), (4, 13))
    """
    return _at_states(
        system, x, "sharpness", kind, t,
        {"tol": tol, "max_products": max_products, "n_batches": n_batches, "seed": seed},
        threads,
    )  # fmt: skip


def batch_sharpness(
    system: Map,
    x: ArrayLike,
    t: ArrayLike | None = None,
    n_batches: int | None = None,
    *,
    threads: int | None = None,
) -> Sharpness:
    """Expected curvature of minibatch losses along their own gradients, for a batch of states.

    The mean over minibatches B of g_BᵀH_B g_B / g_Bᵀg_B. In training by stochastic gradient descent
    it settles near 2/lr, with momentum near 2(1 − β)/lr for small and near 2(1 + β)/lr for large
    batches.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a map of `from_torch` or `from_jax`, or another map with methods
        ``batch_gradient(x, t)`` and ``batch_hessian_vector(x, V, t)``.
    x : array_like, shape (..., n) or (..., n_params)
        States or weights, as for `sharpness`.
    t : array_like of int, optional
        Index of the step that each state is before, by default 0; broadcasts against the batch of
        `x`.
    n_batches : int, optional
        Number of minibatches, at most 10⁶, those of steps t, t + 1, …; by default those of an
        epoch. A map of one's own without the attribute ``steps_per_epoch`` needs it.
    threads : int, optional
        Number of threads. By default, and at most, all cores available to the process.

    Returns
    -------
    Sharpness
        Batch sharpness, its standard error over the minibatches, and its ratio to 2(1 − β)/lr, or
        to the threshold of the largest eigenvalue if a step sees all samples. nan for Adam.

    Raises
    ------
    ArgumentError
        If the map lacks one of the methods, or `t` or `n_batches` is out of range.

    See Also
    --------
    sharpness_along : With ``kind="batch"``, along training.

    Notes
    -----
    With Nesterov's momentum the thresholds are 2(1 − β)/lr, by the effective learning rate
    lr/(1 − β), and that of the largest eigenvalue.

    References
    ----------
    Andreyev, Beneventano, arXiv:2412.20553 (2024). Andreyev et al., arXiv:2604.14108 (2026), on
    momentum.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> descent = pl.GradientDescent(lr=0.1, batch_size=10)
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), descent)
    >>> found = pl.batch_sharpness(system, net.init(runs=4, seed=0))
    >>> found.value.shape, found.n_products.tolist()
    ((4,), [10, 10, 10, 10])
    """
    options = {"tol": 1e-8, "max_products": 1, "n_batches": n_batches, "seed": 0}
    return _at_states(system, x, "batch_sharpness", "batch", t, options, threads)


def _at_states(
    system: Map,
    x: ArrayLike,
    purpose: str,
    kind: Kind | None,
    t: ArrayLike | None,
    options: dict[str, Any],
    threads: int | None,
) -> Sharpness:
    """Sharpness of a kind at states or weights x; `options` are those of `measure`."""
    maps, kind = _runs_for(system, purpose, kind)
    states = maps.states(x, "x")
    batch: tuple[int, ...] = states.shape[:-1]
    times = _times(maps, batch)
    if not times:
        states, batch = _with_rates(maps, states)
    steps = _steps(maps, kind, states, batch, t)
    settings = maps.hyperparameters
    factors: Any = 1.0
    if settings is not None and (t is not None or kind == "critical"):
        which, place = np.unique(steps, return_inverse=True)
        known = [settings.order._factors(i, 1) for i in which.tolist()]
        each = [found[0] for found in known if found is not None]
        if each:
            factors = np.array(each)[place.reshape(batch)]
    given = States(states.reshape(-1, maps.n), steps.reshape(-1), batch, times, threads)
    lr = None if settings is None else _rates(settings.lr, times, factors, batch)
    found = measure(maps, kind, given, lr=lr, **options)
    limit = threshold(settings, kind, times, factors)
    return _sharpness(found, kind, batch, limit, **_axes(system, batch, times))


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
    maps, _ = _runs_for(system, "hessian_spectrum", "hessian")
    states = maps.states(x, "x")
    times = _times(maps, states.shape[:-1])
    if times == 0:
        _with_rates(maps, states)
    H = maps.hessians(states)
    fine = np.asarray(np.isfinite(H).all(axis=(-1, -2), keepdims=True))
    eigenvalues = np.linalg.eigvalsh(np.where(fine, H, 0.0))[..., ::-1]
    eigenvalues = np.where(fine[..., 0], eigenvalues, np.nan)
    ratio = threshold(maps.hyperparameters, "hessian", times).ratio(eigenvalues[..., 0])
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
    kind: Kind | None = None,
    n_batches: int | None = None,
) -> Sharpness:
    """Sharpness along training, at the start and after every `every` steps.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, or another map with a method ``hessian_vector`` or what the kind needs: see
        `sharpness`.
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
    kind : {"hessian", "preconditioned", "batch", "gradient", "critical"}, optional
        Kind of sharpness, as in `sharpness`. By default the eigenvalue to which the threshold of
        the optimiser applies: ``"preconditioned"`` for Adam, AdamW and factors of the layers,
        otherwise ``"hessian"``.
    n_batches : int, optional
        Number of minibatches of kind ``"batch"``, as in `batch_sharpness`.

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
        If the map lacks a method that the kind needs, `every` does not divide `n_steps`, another
        argument is out of range, or an array schedule is too short; for kind ``"critical"`` it
        needs a factor for the step after the last state.

    See Also
    --------
    sharpness : Sharpness at given states.

    References
    ----------
    Cohen et al., ICLR (2021), on the edge of stability; arXiv:2207.14484, of adaptive methods.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness_along(system, net.init(runs=4, seed=0), n_steps=50, every=10)
    >>> found.ratio.shape
    (4, 6)
    """
    maps, kind = _runs_for(system, "sharpness_along", kind)
    max_products = _checks.integer("max_products", max_products, least=1)
    seed = _checks.reusable_seed(seed)
    n_steps = _checks.integer("n_steps", n_steps, least=0)
    every = _checks.integer("every", every, least=1)
    start = _checks.integer("start", start, least=0)
    if n_batches is not None:
        n_batches = _checks.integer("n_batches", n_batches, least=1)
    runs = len(maps.flat(w0, "w0")[0])
    total = runs * steps_of_sharpness(n_steps, every)
    settings = maps.hyperparameters
    beyond = int(kind == "critical")  # the update after the last state is needed
    if settings is not None:
        settings.order._require_factors(start, n_steps + beyond)
    with progress_bar(progress, total, "sharpness") as bar:
        path = checked_paths(
            maps, w0, n_steps, every, start, threads=threads, progress=bar, name="w0"
        )
        batch: tuple[int, ...] = path.shape[:-1]
        steps = start + every * np.arange(batch[-1])
        factors: Any = 1.0
        if settings is not None:
            known = settings.order._factors(start, max(n_steps + beyond, 1))
            if known is not None:
                factors = known[np.minimum(steps - start, len(known) - 1)]
        given = States(
            path.reshape(-1, maps.n), np.broadcast_to(steps, batch).reshape(-1), batch, 1, threads
        )
        found = measure(
            maps, kind, given, tol=tol, max_products=max_products, n_batches=n_batches, seed=seed,
            lr=None if settings is None else _rates(settings.lr, 1, factors, batch), bar=bar,
        )  # fmt: skip
    limit = threshold(settings, kind, 1, factors)
    upper = None if limit.upper is None else np.broadcast_to(limit.upper, batch).copy()
    return _sharpness(
        found,
        kind,
        batch,
        limit,
        loss=maps.losses(path) if maps.has_loss else None,
        steps=steps,
        threshold=np.broadcast_to(limit.critical - limit.decay, batch).copy(),
        upper_threshold=upper,
        **batch_axes(system, batch[:-1]),
    )


def steps_of_sharpness(n_steps: int, every: int) -> int:
    """Steps of a run that `sharpness_along` reports to a progress bar."""
    return n_steps + STEPS_PER_STATE * (n_steps // every + 1)


def _sharpness(
    found: Measured, kind: Kind, batch: tuple[int, ...], limit: Threshold, **more: Any
) -> Sharpness:
    value = found.value.reshape(batch)
    ratio = limit.ratio(value) if found.ratio is None else found.ratio.reshape(batch)[()]
    return Sharpness(
        value=value[()],
        ratio=ratio,
        vector=None
        if found.vector is None
        else found.vector.reshape((*batch, found.vector.shape[-1])),
        residual=found.residual.reshape(batch)[()],
        n_products=found.products.reshape(batch)[()],
        missed=found.missed.reshape(batch)[()],
        kind=kind,
        stderr=None if found.stderr is None else found.stderr.reshape(batch)[()],
        **more,
    )


# What a map that is no training needs for each kind.
_NEEDS: dict[Kind, tuple[str, ...]] = {
    "hessian": ("hessian_vector",),
    "preconditioned": ("hessian_vector",),
    "batch": ("batch_gradient", "batch_hessian_vector"),
    "gradient": ("gradient", "hessian_vector"),
    "critical": ("loss",),
}


def _runs_for(system: Map, purpose: str, kind: Kind | None) -> tuple[TrainingRuns | MapRuns, Kind]:
    """The internal side of a map that has what a kind needs, and the kind that None stands for."""
    maps = runs_of(system)
    settings = maps.hyperparameters
    if kind is None:
        adaptive = settings is not None and settings.preconditions
        kind = "preconditioned" if adaptive else "hessian"
    kind = _checks.choice("kind", kind, KINDS)
    if isinstance(maps, MapRuns):
        for name in _NEEDS[kind]:
            maps.require(name, purpose if kind == "hessian" else f"{purpose} with kind={kind!r}")
    if kind == "preconditioned" and settings is None:
        found = getattr(system, "optimizer", None)
        raise ArgumentTypeError(
            "system",
            "must have an attribute optimizer with a known preconditioner for "
            f"kind='preconditioned', got {_checks.describe(found)}",
        )
    adam = settings is not None and settings.moments is not None
    if adam and kind in ("preconditioned", "gradient") and maps.n != 3 * maps.n_params:
        raise ArgumentError(
            "system",
            "must have states [w, m, v] of three times the length of the weights for Adam, "
            f"got n={maps.n} and n_params={maps.n_params}",
        )
    return maps, kind


def _steps(
    maps: TrainingRuns | MapRuns,
    kind: Kind,
    states: Floats,
    batch: tuple[int, ...],
    t: ArrayLike | None,
) -> Integers:
    """Index of the step that each state is before (*batch)."""
    settings, n = maps.hyperparameters, maps.n_params
    if t is None:
        moments = settings is None or settings.moments is not None
        if moments and kind in ("preconditioned", "gradient", "critical"):
            buffers = states[..., n:]
            if ((buffers != 0.0) & ~np.isnan(buffers)).any():
                raise ArgumentError(
                    "t",
                    "must be the index of the step that the states are before: the state of the "
                    f"optimiser is not that of step 0, and kind={kind!r} depends on it, got None",
                )
        return np.zeros(batch, np.int64)
    steps = _checks.integers("t", t, least=0)
    try:
        return np.broadcast_to(steps, batch)
    except ValueError:
        raise ArgumentError(
            "t", f"must broadcast against the batch of x, {batch}, got shape {steps.shape}"
        ) from None


def _rates(lr: ArrayLike, times: int, factors: Any, batch: tuple[int, ...]) -> Floats:
    """Learning rates of all states (runs,)."""
    return np.broadcast_to(spread(lr, times) * factors, batch).reshape(-1)


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
