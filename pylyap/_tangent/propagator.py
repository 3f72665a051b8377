"""The propagator of a run, the product of the Jacobians of its steps: times vectors, or dense."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._map_runs import MapRuns
from pylyap._parallel import ProgressBar, thread_count
from pylyap._tangent.frames import Plan
from pylyap.maps import TrainingMap, runs_of

_STATES_BYTES = 256e6  # of the states that are kept; more are computed again from checkpoints
# Columns of a block that is carried along the whole run: 0.40 to 0.45 s of processor time per 4810
# vectors and step for 128 to 512 of them, 0.49 for all (64-64-10, 64 samples, one core of an EPYC,
# AVX2, November 2026). The bits depend on it.
_COLUMNS = 128
_UNSCALED = 100  # binary exponents up to which vectors are not scaled
_SCALED_EVERY = 4  # steps: a factor of 1e75 per step would overflow
_QR_SPREAD = 1e6  # ratio of the R factor's diagonal above which it is formed more often


@dataclass(eq=False)
class Propagator:
    """D = J(x_{T-1}) ⋯ J(x_0) of all runs of a plan, times 2^-scale.

    With fewer `entries` than the state has it is the leading block of D: the derivative of the
    first entries of the final state in those of the initial one.

    The states of all steps are kept if they take little memory, otherwise about √T of them, from
    which the others are computed again.
    """

    plan: Plan
    progress: ProgressBar
    entries: int

    def __post_init__(self) -> None:
        plan = self.plan
        self.maps = runs_of(plan.system)
        runs, n, T = plan.runs, plan.n, plan.n_steps
        self._piece = T if 8.0 * runs * n * T <= _STATES_BYTES else math.isqrt(T - 1) + 1
        states, self._starts = plan.states, []
        for done in range(0, T, self._piece):
            self._starts.append(states)
            if done + self._piece < T:
                path = self._path(states, done, self._piece, self._piece)
                states = np.ascontiguousarray(path[:, -1])
        self._kept: tuple[int, Floats] | None = None
        self.scales = np.zeros((runs, T), np.int64)
        self._scaled = False

    def forward(self, V: Floats) -> Floats:
        """D V 2^-scale for vectors (runs, entries, k). The first call determines the scales."""
        V = self._padded(V)
        for t in range(self.plan.n_steps):
            V = self.push(V, t)
            if not self._scaled:
                self.scales[:, t] = scale_exponents(V)
            V = self._rescaled(V, t)
        self._scaled = True
        return V[:, : self.entries]

    def adjoint(self, U: Floats) -> Floats:
        """Dᵀ U 2^-scale for vectors (runs, entries, k)."""
        U = self._padded(U)
        for t in reversed(range(self.plan.n_steps)):
            U = self._rescaled(self.pull(U, t), t)
        return U[:, : self.entries]

    def _rescaled(self, V: Floats, t: int) -> Floats:
        scales = self.scales[:, t]
        return np.ldexp(V, -scales[:, np.newaxis, np.newaxis]) if scales.any() else V

    @property
    def passes(self) -> int:
        """Number of times that `matrix` makes the steps of the run."""
        if isinstance(self.maps, MapRuns):
            return 1
        return -(-self.entries // (_COLUMNS * max(2, thread_count(None))))

    def matrix(self) -> tuple[Floats, NDArray[np.int64]]:
        """D = A 2^e: A (runs, entries, entries) and e (runs,).

        Of a training, blocks of columns are carried along the whole run, some at the same time in
        the threads of the core.
        """
        plan, m = self.plan, self.entries
        if isinstance(self.maps, MapRuns):
            A = self.forward(np.broadcast_to(np.eye(m), (plan.runs, m, m)))
            return A, self.scales.sum(axis=1)
        A = np.empty((plan.runs, m, m))
        exponents = np.zeros((plan.runs, m), np.int64)  # of the columns
        together = _COLUMNS * max(2, thread_count(None))
        for first in range(0, m, together):
            self._columns(A, exponents, range(first, min(first + together, m), _COLUMNS))
        e = exponents.max(axis=1)
        return np.ldexp(A, np.maximum(exponents - e[:, np.newaxis], -4000)[:, np.newaxis]), e

    def _columns(self, A: Floats, exponents: NDArray[np.int64], firsts: range) -> None:
        """Write columns of `matrix` and their exponents: blocks that begin at `firsts`."""
        plan, m, runs, blocks = self.plan, self.entries, self.plan.runs, len(firsts)
        assert not isinstance(self.maps, MapRuns)
        unit = np.zeros((blocks, runs, plan.n, _COLUMNS))  # a last block is filled up with zeros
        widths = [min(_COLUMNS, m - first) for first in firsts]
        for block, first, width in zip(unit, firsts, widths, strict=True):
            block[:, range(first, first + width), range(width)] = 1.0
        V = unit.reshape(blocks * runs, plan.n, _COLUMNS)
        e = np.zeros(len(V), np.int64)
        for t in range(plan.n_steps):
            self.progress.advance(runs)
            states = np.tile(self._state(t), (blocks, 1))
            V = self.maps.tangent(states, (blocks, *plan.batch), V, plan.start + t, plan.method)
            if (t + 1) % _SCALED_EVERY == 0:
                scales = scale_exponents(V)
                if scales.any():
                    V = np.ldexp(V, -scales[:, np.newaxis, np.newaxis])
                    e += scales
        ends = V.reshape(blocks, runs, plan.n, _COLUMNS)
        for block, first, width, scale in zip(
            ends, firsts, widths, e.reshape(blocks, runs), strict=True
        ):
            A[:, :, first : first + width] = block[:, :m, :width]
            exponents[:, first : first + width] = scale[:, np.newaxis]

    def _padded(self, V: Floats) -> Floats:
        """Vectors (runs, n, k) with zeros below the entries."""
        if V.shape[1] == self.plan.n:
            return V
        out = np.zeros((V.shape[0], self.plan.n, V.shape[2]))
        out[:, : self.entries] = V
        return out

    def push(self, V: Floats, t: int) -> Floats:
        """J V of step t of the run for vectors (runs, n, k), which may be overwritten."""
        plan, x, V = self.plan, self._state(t), np.ascontiguousarray(V)
        self.progress.advance(plan.runs)
        if isinstance(self.maps, MapRuns):
            return self.maps.tangent(x, V, plan.start + t)[0]
        return self.maps.tangent(x, plan.batch, V, plan.start + t, plan.method)

    def pull(self, U: Floats, t: int) -> Floats:
        """Jᵀ U of step t of the run for vectors (runs, n, k)."""
        plan, x = self.plan, self._state(t)
        self.progress.advance(plan.runs)
        if isinstance(self.maps, MapRuns):
            return self.maps.adjoint(x, U, plan.start + t)
        assert isinstance(plan.system, TrainingMap)
        shape = (*plan.batch, plan.n)
        vectors = U.reshape((*shape, U.shape[-1]))
        return plan.system.adjoint(x.reshape(shape), vectors, plan.start + t).reshape(U.shape)

    def _state(self, t: int) -> Floats:
        """States (runs, n) before step t of the run."""
        return np.ascontiguousarray(self._states(t // self._piece)[:, t % self._piece])

    def _states(self, piece: int) -> Floats:
        """States (runs, steps of the piece + 1, n)."""
        if self._kept is None or self._kept[0] != piece:
            done = piece * self._piece
            count = min(self._piece, self.plan.n_steps - done)
            self._kept = piece, self._path(self._starts[piece], done, count, 1)
        return self._kept[1]

    def _path(self, states: Floats, done: int, count: int, every: int) -> Floats:
        return self.maps.paths(states, self.plan.start + done, count, every, batch=self.plan.batch)


def triangular_product(
    propagator: Propagator, frame: Floats
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """D frame = Q diag(2^e) R, for square frames: Q and R (runs, n, n), e (runs, n).

    The vectors are orthonormalised often enough that all singular values keep their relative
    accuracy: each factor of the product has a condition number of about 1e6 at most.
    """
    plan = propagator.plan
    runs, n = plan.runs, plan.n
    V, R = frame, np.tile(np.eye(n), (runs, 1, 1))
    e = np.zeros((runs, n), np.int64)
    every, since = np.ones(runs, np.int64), np.zeros(runs, np.int64)  # of each run
    for t in range(plan.n_steps):
        V = propagator.push(V, t)
        since += 1
        due = np.flatnonzero((since >= every) | (t + 1 == plan.n_steps))
        if not due.size:
            continue
        V[due], factor = _qr(V[due])
        e[due], R[due] = _row_scaled(factor, e[due], R[due])
        spread = _spread(factor)
        every[due] = np.where(
            spread > _QR_SPREAD,
            np.maximum(1, every[due] // 2),
            np.where(spread * spread < _QR_SPREAD, 2 * every[due], every[due]),
        )
        since[due] = 0
    return V, R, e


def _qr(V: Floats) -> tuple[Floats, Floats]:
    """QR with a positive diagonal; nan for runs that diverged."""
    finite = np.isfinite(V).all(axis=(1, 2))
    Q, R = np.full_like(V, np.nan), np.full_like(V, np.nan)
    if finite.any():
        q, r = np.linalg.qr(V[finite])
        signs = np.where(np.diagonal(r, axis1=1, axis2=2) < 0.0, -1.0, 1.0)
        Q[finite], R[finite] = q * signs[:, np.newaxis, :], r * signs[:, :, np.newaxis]
    return Q, R


def _spread(R: Floats) -> Floats:
    """Ratios (runs,) of the largest to the smallest diagonal entry of R; 1 where not finite."""
    diagonal = np.abs(np.diagonal(R, axis1=1, axis2=2))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = diagonal.max(axis=1) / diagonal.min(axis=1)
    result: Floats = np.where(np.isnan(ratio), 1.0, ratio)
    return result


def _row_scaled(
    factor: Floats, e: NDArray[np.int64], R: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Exponents and matrix of ``factor @ diag(2**e) @ R``, the largest entry of a row in [½, 1)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.frexp(factor)[1] + e[:, np.newaxis, :]
    sizes = np.where(factor != 0.0, sizes, np.iinfo(np.int32).min)
    rows = sizes.max(axis=2, keepdims=True)
    shift = np.clip(e[:, np.newaxis, :] - rows, -4000, 4000)
    scaled = np.ldexp(factor, shift)
    # An exponent of 4000 occurs beside zeros alone.
    product = np.where(factor == 0.0, 0.0, scaled) @ R
    down = np.where(np.isfinite(product), np.frexp(product)[1], 0).max(axis=2, keepdims=True)
    return (rows + down)[..., 0], np.ldexp(product, -down)


def scale_exponents(V: Floats) -> NDArray[np.int64]:
    """Binary exponents of the largest entries of V (runs, n, k), by which to scale it.

    They are 0 where scaling is not needed yet, and where V is 0 or not finite.
    """
    largest = np.maximum(V.max(axis=(1, 2)), -V.min(axis=(1, 2)))
    largest = np.where(np.isfinite(largest), largest, 0.0)
    e = np.where(largest > 0.0, np.frexp(largest)[1], 0).astype(np.int64)
    result: NDArray[np.int64] = np.where(np.abs(e) > _UNSCALED, e, 0)
    return result
