"""Finite-time Lyapunov exponents: growth over windows of a run, in its three senses."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
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
    seed: Any = 0,
) -> Floats:
    """Finite-time Lyapunov exponents along a run, one row per window.

    Parameters
    ----------
    system, w0, n_steps, k, n_transient, frame, start, method, threads, progress, seed
        As in `lyapunov_spectrum`; `frame` is an array. Steps after the last whole window are not
        made. Without a transient the windows in which the random frame still aligns (all kinds but
        ``"svd"`` with all n vectors) are off by a few nats over their length.
    window, stride
        Length of a window and distance between the starts of two, in steps. Windows touch by
        default.
    kind
        How growth over a window is measured; they agree only for long windows. ``"qr"`` sums the
        growth of the aligned frame, in the frame's order; ``"svd"`` takes the singular values of
        the window's product (restricted to the span of the frame if k < n), largest first, free of
        any basis. Small singular values keep their digits: the R factors are multiplied with a
        scale of its own for every row, never formed into one matrix. ``"clv"`` follows covariant
        vectors, which need the `n_transient` steps before the windows and `n_tail` after them.
    n_tail
        With ``"clv"`` only: steps after the last window that align the vectors with the future, a
        fifth of `n_steps` by default; see `covariant_lyapunov_vectors`.

    Returns
    -------
    (..., n_windows, k) array
        Nats per step. The window that starts at step t uses J(x_t) … J(x_{t+window-1}). nan from
        the window in which a run diverged.

    Raises
    ------
    ValueError, TypeError
        As `lyapunov_spectrum`, and if `window` exceeds `n_steps`.

    References
    ----------
    Benettin et al., Meccanica 15, 9 (1980). Demmel, Veselić, SIAM J. Matrix Anal. Appl. 13, 1204
    (1992), for the accuracy of the singular values. Ginelli et al., PRL 99, 130601 (2007).
    """
    _checks.choice("kind", kind, ("qr", "svd", "clv"))
    if n_tail is not None and kind != "clv":
        raise ArgumentError("n_tail", f"must be left out for kind={kind!r}: only 'clv' has a tail")
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    window = _checks.integer("window", window, least=1)
    stride = window if stride is None else _checks.integer("stride", stride, least=1)
    if window > n_steps:
        raise ArgumentError("window", f"must be at most n_steps={n_steps}, got {window}")
    windows = (n_steps - window) // stride + 1
    piece = math.gcd(window, stride) if windows > 1 else window  # steps all windows are made of
    used = (windows - 1) * stride + window
    per_window, apart = window // piece, stride // piece
    if kind == "clv":
        fifth = n_steps // 5
        vectors = covariant_lyapunov_vectors(
            system, w0, used, k, n_transient, fifth if n_tail is None else n_tail, piece,
            vectors=False, frame=frame, start=start, method=method, threads=threads,
            progress=progress, seed=seed,
        )  # fmt: skip
        return _sums(vectors.growth, per_window, apart) / window
    plan = plan_runs(system, w0, used, k, n_transient, frame, start, method, seed)
    segments = kind == "svd"
    arrays = benettin(
        plan, 1, piece, segment=piece if segments else 0, threads=threads, progress=progress
    )
    if arrays.products is not None and arrays.exponents is not None:
        factors, exponents = arrays.products, arrays.exponents
        out = np.empty((plan.runs, windows, plan.k))

        def work(task: core.Task) -> None:
            core.window_growth(factors, exponents, per_window, apart, out, task)

        cost = windows * (per_window + 30.0) * plan.k**3
        over_runs(work, plan.runs, cost=plan.runs * cost, threads=threads)
    else:
        out = _sums(arrays.growth, per_window, apart)
    result: Floats = (out / window).reshape((*plan.batch, windows, plan.k))
    return result


_AT_ONCE = 10_000_000  # numbers that are summed in a piece


def _sums(growth: Floats, per_window: int, apart: int) -> Floats:
    """Sums (..., n_windows, k) over records (..., n_records, k) of windows so many apart."""
    if per_window == 1:
        return growth[..., ::apart, :]
    sliding = np.lib.stride_tricks.sliding_window_view(growth, per_window, axis=-2)
    windows = sliding[..., ::apart, :, :]
    result = np.empty(windows.shape[:-1])
    # Ctrl-C is heard between two pieces.
    per_start = math.prod(windows.shape) // max(windows.shape[-3], 1)
    piece = max(1, _AT_ONCE // max(per_start, 1))
    for begin in range(0, windows.shape[-3], piece):
        some = slice(begin, begin + piece)
        windows[..., some, :, :].sum(axis=-1, out=result[..., some, :])
    return result
