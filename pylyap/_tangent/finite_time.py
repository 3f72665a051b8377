"""Finite-time Lyapunov exponents: growth over windows of a run, by three definitions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap._parallel import over_runs
from pylyap._tangent.benettin import benettin
from pylyap._tangent.covariant import covariant_lyapunov_vectors
from pylyap._tangent.frames import plan_runs
from pylyap.maps import Map, Method


def ftle(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    window: int,
    stride: int | None = None,
    kind: Literal["qr", "svd", "clv"] = "qr",
    *,
    k: int | None = None,
    n_transient: int = 0,
    n_tail: int | None = None,
    frame: ArrayLike | None = None,
    start: int = 0,
    method: Method | None = None,
    threads: int | None = None,
    progress: bool = False,
    seed: Seed = 0,
) -> Floats:
    """Finite-time Lyapunov exponents along a run, one row per window.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row.
    n_steps : int
        Number of steps after the transient. Steps after the last whole window are not made.
    window : int
        Length of a window in steps.
    stride : int, optional
        Distance between the starts of successive windows in steps. By default `window`, so that
        windows are adjacent.
    kind : {"qr", "svd", "clv"}, default "qr"
        Definition of the growth over a window; the three agree only for long windows. ``"qr"`` sums
        ln diag R of the aligned frame, in the order of the frame. ``"svd"`` takes the singular
        values of the product of the Jacobians (restricted to the span of the frame if k < n),
        largest first, which do not depend on a basis. ``"clv"`` uses the growth of covariant
        vectors, which need `n_transient` steps before the windows and `n_tail` steps after them.
    k : int, optional
        Number of exponents, 1 … n. By default all.
    n_transient : int, default 0
        Steps before the first window, in which the frame aligns. Without a transient, the windows
        in which the random frame aligns are off by a few nats over their length, for all kinds but
        ``"svd"`` with all n vectors.
    n_tail : int, optional
        Steps after the last window, which determine the covariant vectors. Only for ``"clv"``, by
        default ``n_steps // 5``; see `covariant_lyapunov_vectors`.
    frame : array_like, shape (n, k) or (..., n, k), optional
        Start frame with linearly independent columns. By default random and orthonormal.
    start : int, default 0
        Index t of the first step, which selects the minibatch and Adam's bias correction.
    method : {"dense", "matrix-free"}, optional
        Tangents of a `TrainingMap`. By default the faster one.
    threads : int, optional
        Number of threads. By default, and at most, all cores available to the process. Results do
        not depend on it.
    progress : bool, default False
        Show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start frame. From a Generator one int is drawn.

    Returns
    -------
    ndarray, shape (..., n_windows, k)
        Exponents in nats per step. The window that starts at step t uses J(x_t), …,
        J(x_{t+window-1}). -inf for a destroyed direction; nan from the window in which a run
        diverged.

    Raises
    ------
    ArgumentError
        If `window` exceeds `n_steps`, `n_tail` is given for another kind than ``"clv"``, `k`
        exceeds n, or the result does not fit in memory.

    See Also
    --------
    lyapunov_spectrum : Exponents over the whole run, with standard errors.

    Notes
    -----
    For ``"svd"`` the R factors are multiplied with a separate scale for each row and never
    converted to a single matrix, so small singular values keep their relative accuracy.

    References
    ----------
    Benettin et al., Meccanica 15, 9 (1980). Demmel, Veselić, SIAM J. Matrix Anal. Appl. 13, 1204
    (1992), for the accuracy of the singular values. Ginelli et al., Phys. Rev. Lett. 99, 130601
    (2007).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> w0 = net.init(runs=5, seed=0)
    >>> pl.ftle(system, w0, n_steps=100, window=20, k=3).shape
    (5, 5, 3)
    >>> pl.ftle(system, w0, n_steps=100, window=20, stride=10, kind="svd").shape
    (5, 9, 13)
    """
    _checks.choice("kind", kind, ("qr", "svd", "clv"))
    if n_tail is not None and kind != "clv":
        raise ArgumentError("n_tail", f"must be left out for kind={kind!r}: only 'clv' has a tail")
    windows = _windows(n_steps, window, stride)
    if kind == "clv":
        vectors = covariant_lyapunov_vectors(
            system, w0, windows.n_steps, k, n_transient,
            windows.given_steps // 5 if n_tail is None else n_tail, windows.record,
            vectors=False, frame=frame, start=start, method=method, threads=threads,
            progress=progress, seed=seed,
        )  # fmt: skip
        return windows.sums(vectors.growth) / windows.length
    plan = plan_runs(system, w0, windows.n_steps, k, n_transient, frame, start, method, seed)
    segment = windows.record if kind == "svd" else 0
    arrays = benettin(plan, 1, windows.record, segment=segment, threads=threads, progress=progress)
    if arrays.products is not None and arrays.exponents is not None:
        growth = _singular_growth(arrays.products, arrays.exponents, windows, threads)
    else:
        growth = windows.sums(arrays.growth)
    result: Floats = (growth / windows.length).reshape((*plan.batch, windows.count, plan.k))
    return result


# --- windows --------------------------------------------------------------------------------------

_SUM_ENTRIES = 10_000_000  # numbers summed between two checks for an interrupt


@dataclass(frozen=True)
class _Windows:
    """Windows of a run, divided into records that all of them consist of."""

    given_steps: int
    length: int  # of a window, in steps
    count: int
    record: int  # length of a record, in steps
    per_window: int  # records per window
    per_stride: int  # records between the starts of successive windows
    n_steps: int  # up to the end of the last window

    def sums(self, growth: Floats) -> Floats:
        """Sums (..., n_windows, k) over the records (..., n_records, k) of each window."""
        if self.per_window == 1:
            return growth[..., :: self.per_stride, :]
        sliding = np.lib.stride_tricks.sliding_window_view(growth, self.per_window, axis=-2)
        windows = sliding[..., :: self.per_stride, :, :]
        result = np.empty(windows.shape[:-1])
        # In blocks, between which the interpreter handles an interrupt.
        per_start = math.prod(windows.shape) // max(windows.shape[-3], 1)
        size = max(1, _SUM_ENTRIES // max(per_start, 1))
        for begin in range(0, windows.shape[-3], size):
            block = slice(begin, begin + size)
            windows[..., block, :, :].sum(axis=-1, out=result[..., block, :])
        return result


def _windows(n_steps: int, window: int, stride: int | None) -> _Windows:
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    window = _checks.integer("window", window, least=1)
    stride = window if stride is None else _checks.integer("stride", stride, least=1)
    if window > n_steps:
        raise ArgumentError("window", f"must be at most n_steps={n_steps}, got {window}")
    count = (n_steps - window) // stride + 1
    record = math.gcd(window, stride) if count > 1 else window
    return _Windows(
        given_steps=n_steps,
        length=window,
        count=count,
        record=record,
        per_window=window // record,
        per_stride=stride // record,
        n_steps=(count - 1) * stride + window,
    )


def _singular_growth(
    factors: Floats, exponents: Floats, windows: _Windows, threads: int | None
) -> Floats:
    """Logarithms (runs, n_windows, k) of the singular values of each window.

    factors   (runs, n_records, k, k)  R factor of each record, rows scaled by powers of two
    exponents (runs, n_records, k)     these powers
    """
    runs, k = len(factors), factors.shape[-1]
    out = np.empty((runs, windows.count, k))

    def work(task: core.Task) -> None:
        core.window_growth(factors, exponents, windows.per_window, windows.per_stride, out, task)

    cost = windows.count * (windows.per_window + 30.0) * k**3
    over_runs(work, runs, cost=runs * cost, threads=threads)
    return out
