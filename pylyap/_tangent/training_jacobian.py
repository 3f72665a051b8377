"""Singular values and vectors of the training Jacobian, the propagator of a whole training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult, batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import over_runs, progress_bar, thread_limit
from pylyap._tangent.frames import plan_runs, random_frames
from pylyap._tangent.inverse import InversePropagator, has_inverse
from pylyap._tangent.propagator import Propagator, triangular_product
from pylyap.maps import DiscreteMap, Map, Method, TrainingMap, runs_of

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
_EPS = float(np.finfo(float).eps)

# Up to this length of a state the whole propagator is formed also for a few singular values.
_DENSE = 300
# Up to this one its SVD is by Jacobi's method, with small relative errors: 0.8 s at n = 300, 5.8 s
# at 1000, where divide and conquer takes 0.2 and 3.4 s (a core of an EPYC, AVX2, November 2026).
_JACOBI = 2000
_MORE = 4  # vectors of a block beyond k
_BLOCKS = 40  # of the Krylov space at most
_RANGE = 900  # binary exponents below the largest row up to which vectors are determined


class Counts(NamedTuple):
    """Number of singular values above, near and below 1, each (...)."""

    above: Integers
    near: Integers
    below: Integers


@dataclass(frozen=True, eq=False, repr=False)
class TrainingJacobian(BatchResult):
    """Singular value decomposition of ∂x_T/∂x_0, the Jacobian of a whole training.

    `training_jacobian` returns it.

    Attributes
    ----------
    log_singular_values : ndarray, shape (..., k)
        Logarithms of the singular values, in descending order, nats; -inf for a direction that is
        destroyed (for n > 2000 also below 1e-270 times the largest), nan for a run that diverged.
    left, right : ndarray, shape (..., n, k) or (..., n_params, k)
        Singular vectors in the columns: a displacement of the initial state along a right vector
        becomes one of the final state along the left vector, singular value times as long. nan
        where the singular value is below 1e-270 times the largest.
    error : ndarray, shape (..., k)
        Estimate of the relative error of each singular value.
    n_steps : int
        Number of steps T.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> jacobian = pl.training_jacobian(system, net.init(seed=0), n_steps=100)
    >>> jacobian.singular_values.shape, int(sum(jacobian.counts()))
    ((13,), 13)
    """

    log_singular_values: Floats
    left: Floats = field(repr=False)
    right: Floats = field(repr=False)
    error: Floats = field(repr=False)
    n_steps: int

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {
        "log_singular_values": ("mode",),
        "left": ("parameter", "mode"),
        "right": ("parameter", "mode"),
        "error": ("mode",),
    }
    _UNITS: ClassVar[dict[str, str]] = {"log_singular_values": "nats"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.log_singular_values.shape[:-1]

    @property
    def singular_values(self) -> Floats:
        """Singular values in descending order, (..., k); they may overflow to inf."""
        with np.errstate(over="ignore"):
            result: Floats = np.exp(self.log_singular_values)
        return result

    def counts(self, width: float = 0.1) -> Counts:
        """Count the singular values above, near and below 1.

        Parameters
        ----------
        width : float, default 0.1
            Near 1 are those with \\|ln σ\\| ≤ `width`: displacements that training changes by less
            than about this fraction.

        Returns
        -------
        Counts
            Tuple of three arrays of int, ``above``, ``near`` and ``below``, each (...).

        Raises
        ------
        ArgumentError
            If `width` is negative or not finite.
        """
        width = _checks.real("width", width, least=0.0)
        logs = self.log_singular_values
        above, below = (logs > width).sum(axis=-1), (logs < -width).sum(axis=-1)
        return Counts(above, (np.abs(logs) <= width).sum(axis=-1), below)


def training_jacobian(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    k: int | None = None,
    which: Literal["largest", "smallest", "both"] = "largest",
    *,
    of: Literal["state", "parameters"] = "state",
    tol: float = 1e-10,
    start: int = 0,
    method: Method | None = None,
    threads: int | None = None,
    progress: bool = False,
    seed: Seed = 0,
) -> TrainingJacobian:
    """Singular values and vectors of the Jacobian of a whole training, ∂x_T/∂x_0.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a bridged model, or any map. For a few singular values of a long state it
        needs a method ``adjoint``.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps T.
    k : int, optional
        Number of singular values, 1 … n or n_params. By default all.
    which : {"largest", "smallest", "both"}, default "largest"
        Which of them; with "both" there are 2 k.
    of : {"state", "parameters"}, default "state"
        Derivative of the whole final state in the whole initial one, or of the final parameters in
        the initial ones, with the buffers of the optimiser at the start fixed. They are the same
        for an optimiser without buffers.
    tol : float, default 1e-10
        Relative tolerance of the iterations for a few singular values.
    start : int, default 0
        Index t of the first step, which selects the minibatch and Adam's bias correction.
    method : {"dense", "matrix-free"}, optional
        Tangents of a `TrainingMap`. By default the faster one.
    threads : int, optional
        Number of threads of the steps, all cores this process may use by default.
    progress : bool, default False
        Show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start vectors. From a Generator one int is drawn.

    Returns
    -------
    TrainingJacobian
        Singular values, vectors and error estimates.

    Raises
    ------
    ArgumentError
        If k is out of range, the map lacks ``adjoint`` where it is needed, or the arrays do not
        fit in memory.

    See Also
    --------
    ftle : Finite-time exponents by ``kind="svd"``: the same logarithms divided by the steps.

    Notes
    -----
    With all singular values, or states of at most 300 numbers, the propagator is formed. Up to
    n = 2000 it is a product of triangular factors, Q diag(2^e) R, with a scale for each row, whose
    SVD is computed by Jacobi's method, so that small singular values have small relative errors.
    Above, and for the parameters of an optimiser with buffers, blocks of columns are carried along
    the run and the SVD is by divide and conquer; the error of each singular value is then about
    1e-16 times the largest.

    Otherwise the k largest are computed by a block Krylov iteration with the propagator and its
    transpose, each of which takes T steps. About √T states are stored. `TrainingJacobian.error` is
    the residual ‖Dᵀu − σv‖/σ plus the rounding error of the products, 2e-15 σ_1/σ: of the largest
    singular values those are accurate that are not many orders of magnitude below the first.

    The smallest of a long state (n > 2000) are the inverses of the largest of D⁻¹, by the same
    iteration. They are accurate however far they are below the largest of D, if they are not many
    orders of magnitude above the smallest; products with DᵀD would determine none below 1e-8 times
    the largest. The step of the heavy ball and of Adam is inverted by one product with the Hessian,
    that of plain descent and of Nesterov's momentum by MINRES, some 10 to 100 products; its
    residual is added to the error, but not the condition of each step, which for Adam may cost
    seven digits more. Other maps, the parameters of an optimiser with buffers, and momenta of 0
    have no such inverse: the propagator is formed, and values below 1e-16 times the largest are
    lost, as their errors state.

    References
    ----------
    Belrose, Scherlis, arXiv:2412.07003 (2024). Drmač, Veselić, SIAM J. Matrix Anal. Appl. 29, 1322
    (2008), for Jacobi's method. Musco, Musco, NeurIPS 28 (2015), for the block iteration. Paige,
    Saunders, SIAM J. Numer. Anal. 12, 617 (1975), for MINRES.

    Examples
    --------
    Singular values far above 1 belong to chaotic directions, those near 1 to directions that
    training leaves alone, those far below 1 to stable ones.

    >>> X, y = pl.datasets.iris()
    >>> net = pl.Network((4, 10, 3), activation="tanh", loss="cross_entropy")
    >>> system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    >>> jacobian = pl.training_jacobian(system, net.init(seed=0), n_steps=200)
    >>> jacobian.singular_values.shape, jacobian.right.shape
    ((83,), (83, 83))
    """
    _checks.choice("which", which, ("largest", "smallest", "both"))
    tol = _checks.real("tol", tol, least=_EPS)
    _checks.flag("progress", progress)
    plan = plan_runs(system, w0, n_steps, None, 0, None, start, method, seed)
    _checks.choice("of", of, ("state", "parameters"))
    n = runs_of(system).n_params if of == "parameters" else plan.n
    k = n if k is None else _checks.integer("k", k, least=1, most=n)
    if which == "both" and 2 * k > n:
        raise ArgumentError("k", f"must be at most n/2 = {n // 2} with which='both', got {k}")
    _checks.memory(
        f"the checkpoints and scales of {plan.n_steps} steps of {plan.runs} runs",
        8.0 * max(1, plan.runs) * (plan.n_steps + 2.0 * plan.n * math.isqrt(plan.n_steps)),
        "take fewer runs or a smaller n_steps",
    )
    b = k + _MORE
    dense = n <= _DENSE or 2 * b > n
    if which != "largest" and not dense:  # accurate, and faster than the iteration
        dense = n <= _JACOBI or n < plan.n or not has_inverse(system)
    if dense:
        _checks.memory(
            f"the propagators of {plan.runs} runs with {n} entries",
            (24.0 * max(1, plan.runs) + 48.0) * n**2,
            "take fewer runs, or the k largest singular values",
        )
    else:
        if not isinstance(system, (TrainingMap, DiscreteMap)):  # these always have it
            MapRuns(system).require("adjoint", "some of the singular values (k below n)")
        _checks.memory(
            f"the Krylov vectors of {plan.runs} runs with {n} entries",
            16.0 * max(1, plan.runs) * n * b * _BLOCKS,
            "take fewer runs or a smaller k",
        )
    limit, steps = thread_limit(threads), plan.runs * plan.n_steps
    parts: list[list[Floats]] = []
    with limit, progress_bar(progress, 2 * steps, "training Jacobian") as bar:
        if dense:
            propagator = Propagator(plan, bar, n)
            graded = n == plan.n and n <= _JACOBI
            bar.extend(((1 if graded else propagator.passes) - 2) * steps)
            every = _dense(propagator, graded)
            if which != "smallest":
                parts.append([part[..., :k] for part in every])
            if which != "largest":
                parts.append([part[..., -k:] for part in every])
        else:
            if which != "smallest":
                parts.append(_leading(Propagator(plan, bar, n), k, tol))
            if which != "largest":
                bar.extend((which == "both") * 2 * steps)
                parts.append(_smallest(InversePropagator(plan, bar, n), k, tol))
    joined = [np.concatenate(pair, axis=-1) for pair in zip(*parts, strict=True)]
    logs, left, right, error = (plan.shaped(np.ascontiguousarray(part)) for part in joined)
    return TrainingJacobian(
        logs, left, right, error, plan.n_steps, **batch_axes(system, plan.batch)
    )


# --- all singular values --------------------------------------------------------------------------


def _dense(propagator: Propagator, graded: bool) -> list[Floats]:
    """Logarithms, left and right vectors, and errors of all singular values of each run.

    graded: by a product of triangular factors, which keeps small singular values.
    """
    plan, n = propagator.plan, propagator.entries
    logs = np.full((plan.runs, n), np.nan)
    left, right = np.full((2, plan.runs, n, n), np.nan)
    error = np.full((plan.runs, n), np.nan)
    if graded:
        frame = random_frames(plan.seed, plan.runs, n, n)
        Q, R, e = triangular_product(propagator, frame)
    else:
        R, whole = propagator.matrix()
        e = np.repeat(whole[:, np.newaxis], n, axis=1)
    for r in range(plan.runs):
        if not np.isfinite(R[r]).all():
            continue
        logs[r], left[r], right[r], error[r] = _svd(R[r], e[r], graded)
        if graded:
            left[r], right[r] = Q[r] @ left[r], frame[r] @ right[r]
    return [logs, left, right, error]


def _svd(R: Floats, e: Integers, graded: bool) -> tuple[Floats, Floats, Floats, Floats]:
    """Logarithms, left and right vectors, and relative errors of diag(2^e) R."""
    from scipy.linalg.lapack import dgejsv  # SciPy is imported by what uses it

    n, top = len(e), int(e.max())
    scaled = np.ldexp(R, np.maximum(e - top, -_RANGE - 100)[:, np.newaxis])
    if graded:
        # Jacobi's method is accurate for columns of different scales: that of the transpose.
        s, right, left, work, _, info = dgejsv(scaled.T, joba=0, jobu=0, jobv=0, jobr=0, jobt=1)
        if info != 0:
            raise np.linalg.LinAlgError(f"Jacobi's method did not converge (info={info})")
        s = s * (work[0] / work[1])
        relative = np.full(n, n * _EPS)
    else:
        left, s, transposed = np.linalg.svd(scaled)
        right = transposed.T
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(s > 0.0, _EPS * np.sqrt(n) * s[0] / s, np.inf)
    lost = np.logical_not(s > s[0] * 2.0**-_RANGE)
    left[:, lost], right[:, lost] = np.nan, np.nan
    with np.errstate(divide="ignore"):
        logs = np.log(s) + top * np.log(2.0)
    logs[lost], relative[lost] = -np.inf, np.nan
    if graded and lost.any():  # beyond the range of doubles: logarithms alone
        every = np.empty((1, 1, n))
        factors, exponents = R[np.newaxis, np.newaxis], e[np.newaxis, np.newaxis].astype(float)
        over_runs(lambda task: core.window_growth(factors, exponents, 1, 1, every, task), 1)
        logs[lost] = every[0, 0, lost]
        relative[lost & np.isfinite(logs)] = n * _EPS
    return logs, left, right, relative


# --- the largest ones -----------------------------------------------------------------------------


def _leading(propagator: Propagator, k: int, tol: float) -> list[Floats]:
    """Logarithms, left and right vectors, and residuals of the k largest singular values.

    The right vectors are sought in a growing space V. With D V = U S Wᵀ, the Ritz vectors V W and U
    satisfy D (V W) = U S, and the residual of Dᵀ U = (V W) S is the part of Dᵀ U outside of V,
    which becomes the next block.
    """
    plan, n = propagator.plan, propagator.entries
    b = k + _MORE
    V = random_frames(plan.seed, plan.runs, n, b)
    images = propagator.forward(V)
    scale = propagator.scales.sum(axis=1)[:, np.newaxis] * np.log(2.0)
    logs, error = np.full((2, plan.runs, k), np.nan)
    left, right = np.full((2, plan.runs, n, k), np.nan)
    active: Booleans = np.asarray(np.isfinite(images).all(axis=(1, 2)))  # not diverged
    images[~active] = 0.0
    Q, R = np.linalg.qr(images)  # of the images, D V = Q R
    for _ in range(_BLOCKS):
        U, s, W = np.linalg.svd(R)
        U, vectors = Q @ U[..., :b], V @ np.swapaxes(W[:, :b], 1, 2)
        pulled = propagator.adjoint(U)
        pulled[~active] = 0.0
        outside, _ = _without(V, pulled)
        sizes = np.linalg.norm(outside, axis=1)[:, :k]
        with np.errstate(divide="ignore", invalid="ignore"):
            residual = np.where(sizes > 0.0, sizes / s[:, :k], 0.0)
            rounding = 10.0 * _EPS * s[:, :1] / s[:, :k]  # of the images
            logs[active] = np.log(s[active, :k]) + scale[active]
        left[active], right[active] = U[active, :, :k], vectors[active, :, :k]
        error[active] = residual[active] + rounding[active]
        active &= (residual > np.maximum(tol, rounding)).any(
            axis=1
        )  # a run ends where it would alone
        if not active.any() or V.shape[-1] + b > n:
            break
        propagator.progress.extend(2 * plan.runs * plan.n_steps)
        block, _ = np.linalg.qr(outside)
        block, _ = np.linalg.qr(_without(V, block)[0])  # where they were nearly dependent
        V = np.concatenate([V, block], axis=-1)
        more = propagator.forward(block)
        lost = active & ~np.isfinite(more).all(axis=(1, 2))
        logs[lost] = error[lost] = np.nan
        left[lost], right[lost] = np.nan, np.nan
        active &= ~lost
        more[~active] = 0.0
        Q, R = _extended(Q, R, more)
    return [logs, left, right, error]


def _smallest(inverse: InversePropagator, k: int, tol: float) -> list[Floats]:
    """Logarithms, left and right vectors, and errors of the k smallest singular values of each run.

    They are the inverses of the largest ones of D⁻¹, whose left vectors are the right ones of D.
    """
    logs, right, left, error = (part[..., ::-1] for part in _leading(inverse, k, tol))
    return [-logs, left, right, error + inverse.residuals[:, np.newaxis]]


def _without(Q: Floats, B: Floats) -> tuple[Floats, Floats]:
    """B less its part in the span of orthonormal Q, in two passes, and the coefficients of that."""
    C = np.swapaxes(Q, 1, 2) @ B
    B = B - Q @ C
    again = np.swapaxes(Q, 1, 2) @ B
    return B - Q @ again, C + again


def _extended(Q: Floats, R: Floats, B: Floats) -> tuple[Floats, Floats]:
    """The QR decomposition of [Q R, B]."""
    (runs, m, _), b = R.shape, B.shape[-1]
    rest, C = _without(Q, B)
    block, S = np.linalg.qr(rest)
    clean, factor = np.linalg.qr(_without(Q, block)[0])  # where the images are nearly dependent
    out = np.zeros((runs, m + b, m + b))
    out[:, :m, :m], out[:, :m, m:], out[:, m:, m:] = R, C, factor @ S
    return np.concatenate([Q, clean], axis=-1), out
