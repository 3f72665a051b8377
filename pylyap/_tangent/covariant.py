"""Covariant Lyapunov vectors: directions that the tangent dynamics maps onto each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._batches import batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._native import core
from pylyap._parallel import thread_count
from pylyap._tangent.covariant_vectors import CovariantVectors, Hyperbolicity
from pylyap._tangent.exponents import Spectrum, lyapunov_spectrum
from pylyap._tangent.frames import Plan, kernels_of, plan_runs, steps_from
from pylyap.maps import Map, Method, TrainingMap

__all__ = ["CovariantVectors", "Hyperbolicity", "covariant_lyapunov_vectors"]

# Contamination of an early vector by the vector before it at which delay="auto" stops.
_EARLY_ENOUGH = 0.01


def covariant_lyapunov_vectors(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    k: int | None = None,
    n_transient: int | None = None,
    n_tail: int | None = None,
    every: int = 1,
    *,
    qr_every: int = 1,
    vectors: bool = True,
    delay: int | Literal["auto"] | None = None,
    memory_limit: float = 256e6,
    frame: ArrayLike | None = None,
    start: int = 0,
    method: Method | None = None,
    threads: int | None = None,
    progress: bool = False,
    seed: Seed = 0,
) -> CovariantVectors:
    """Covariant Lyapunov vectors along runs, by the method of Ginelli et al.

    A run makes n_transient + n_steps + n_tail steps: the first align the frame with the past, the
    last align the vectors with the future, and the window between them is reported.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row. Finite.
    n_steps : int
        Number of steps of the window.
    k : int, optional
        Number of vectors, 1 to n; all by default.
    n_transient, n_tail : int, optional
        Number of steps before and after the window; a fifth of `n_steps` each by default.
        `CovariantVectors.contamination` estimates the error that remains.
    every : int, default 1
        Steps per record; divides `n_steps`.
    qr_every : int, default 1
        Steps between two orthonormalisations; divides `every` and all numbers of steps.
    vectors : bool, default True
        Whether to keep the vectors. Without them angles and growth remain, and less memory is used.
    delay : int or "auto", optional
        Also compute early vectors, from this number of steps after their time, and their distance
        to the others. At most `n_tail`, a multiple of `qr_every`. ``"auto"`` takes the number of
        steps after which the contamination by the vector before is a hundredth, for the smallest
        gap that `n_tail` can resolve; gaps are medians over the runs, from a spectrum that is
        computed first.
    memory_limit : float, default 256e6
        Bytes of working memory, of all threads together. Frames that do not fit are stored at
        checkpoints only and computed again during the backward pass, with the same bits.
    frame : array_like, shape (n, k) or (..., n, k), optional
        Start frame, independent columns; random by default.
    start : int, default 0
        Index t of the first step (minibatches and Adam depend on it).
    method : {"dense", "matrix-free"}, optional
        Method of the tangents of a `TrainingMap`. By default the one with fewer operations.
    threads : int, optional
        Number of threads, at most one per core this process may use, which is the default.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start frame and of the coefficients at the end of the tail.

    Returns
    -------
    CovariantVectors
        Vectors, growth, residuals and estimated errors.

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the memory does not suffice even with checkpoints.

    Notes
    -----
    Where a direction is destroyed its vector is that of the kernel of the Jacobian, its growth is
    -inf, and it does not affect other vectors. Within a block of equal exponents (dead units, flat
    directions) single vectors are arbitrary, as `gap` and `contamination` show; the span of the
    block is not.

    References
    ----------
    Ginelli et al., Phys. Rev. Lett. 99, 130601 (2007); J. Phys. A 46, 254005 (2013).

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> cat = pl.DiscreteMap(
    ...     lambda x: np.array([2 * x[0] + x[1], x[0] + x[1]]) % 1.0,
    ...     lambda x: np.array([[2.0, 1.0], [1.0, 1.0]]),
    ...     n=2,
    ... )
    >>> clv = pl.covariant_lyapunov_vectors(cat, [0.1, 0.2], n_steps=100)
    >>> clv.vectors.shape
    (101, 2, 2)
    >>> float(clv.angles().max().round(4))  # π/2: the matrix is symmetric
    1.5708
    """
    seed = _checks.reusable_seed(seed)  # used more than once
    lengths = _lengths(n_steps, n_transient, n_tail, every, qr_every)
    plan = plan_runs(system, w0, n_steps, k, lengths.n_transient, frame, start, method, seed)
    if isinstance(system, TrainingMap):
        system.optimizer._require_factors(plan.start, lengths.steps)
    _checks.flag("vectors", vectors)
    _checks.flag("progress", progress)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    lengths.require_multiples()
    if isinstance(delay, str) and delay == "auto":
        spectrum = lyapunov_spectrum(
            system, w0, lengths.n_steps, k, lengths.n_transient, lengths.qr_every, lengths.every,
            frame, start, method, threads, progress, seed,
        )  # fmt: skip
        delay = _delay(spectrum, lengths.n_tail, lengths.qr_every)
    lengths = lengths.with_delay(delay)
    runs = _ginelli(plan, lengths, _far_end(seed, plan.k), vectors, memory_limit, threads, progress)
    settings = {
        "system": repr(system),
        "n_steps": lengths.n_steps,
        "n_transient": lengths.n_transient,
        "n_tail": lengths.n_tail,
        "every": lengths.every,
        "qr_every": lengths.qr_every,
        "delay": lengths.delay,
        "start": plan.start,
        "method": method or "automatic",
        "frame": "random" if frame is None else "given",
        "seed": repr(seed),
    }
    return _covariant_vectors(plan, lengths, runs, settings)


@dataclass(frozen=True)
class _Lengths:
    """Numbers of steps of a run; `delay` is 0 without early vectors."""

    n_steps: int
    n_transient: int
    n_tail: int
    every: int
    qr_every: int
    delay: int = 0

    @property
    def steps(self) -> int:
        """All steps of a run."""
        return self.n_transient + self.n_steps + self.n_tail

    @property
    def records(self) -> int:
        return self.n_steps // self.every

    @property
    def factors(self) -> int:
        """R factors of the window and the tail, through which the vectors are pulled back."""
        return (self.n_steps + self.n_tail) // self.qr_every

    def require_multiples(self) -> None:
        if self.n_steps % self.every:
            raise ArgumentError("every", f"must divide n_steps={self.n_steps}, got {self.every}")
        for name in ("every", "n_transient", "n_tail"):
            self._require_multiple(name, getattr(self, name))

    def with_delay(self, delay: int | str | None) -> _Lengths:
        if delay is None:
            return self
        steps = _checks.integer("delay", delay, least=1, most=self.n_tail)
        self._require_multiple("delay", steps)
        return replace(self, delay=steps)

    def _require_multiple(self, name: str, length: int) -> None:
        if length % self.qr_every:
            raise ArgumentError(
                name, f"must be a multiple of qr_every={self.qr_every}, got {length}"
            )


def _lengths(
    n_steps: int, n_transient: int | None, n_tail: int | None, every: int, qr_every: int
) -> _Lengths:
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    qr_every = _checks.integer("qr_every", qr_every, least=1)
    every = _checks.integer("every", every, least=1)
    fifth = n_steps // 5 // qr_every * qr_every
    before, after = (
        fifth if length is None else _checks.integer(name, length, least=0)
        for name, length in (("n_transient", n_transient), ("n_tail", n_tail))
    )
    return _Lengths(n_steps, before, after, every, qr_every)


def _ginelli(
    plan: Plan,
    lengths: _Lengths,
    end_coefficients: Floats,
    vectors: bool,
    memory_limit: float,
    threads: int | None,
    progress: bool,
) -> core.CovariantRuns:
    """All runs, there and back. Frames that exceed the memory limit are computed again."""
    n, k, runs, records = plan.n, plan.k, plan.runs, lengths.records
    per_time = k**2 + (n * k if vectors else 0)
    per_time += n + (per_time + k if lengths.delay else 0)
    _checks.memory(
        f"vectors at {records + 1} times (n_steps={lengths.n_steps}) of {runs} runs",
        8.0 * runs * ((records + 1) * per_time + 3 * records * k),
        "record less with every=, take fewer runs or vectors=False",
    )
    kernels = kernels_of(plan, lengths.steps, lengths.qr_every, 2.0, threads, losses=False)
    at_once = max(1, min(thread_count(threads), -(-runs // kernels.group)))
    limit = _checks.real("memory_limit", memory_limit, above=0.0) / at_once
    segment = _segment(n, k, lengths.factors, kernels.group, limit, at_once)
    out = core.CovariantRuns(
        plan.states,
        plan.start_frames(),
        end_coefficients,
        start=plan.start,
        segment=segment,
        vectors=vectors,
        **vars(lengths),
    )
    again = max(0, (-(-lengths.factors // segment) - 1) * segment) * lengths.qr_every
    kernels.over_runs(
        lambda task: kernels.covariant(out, task), runs, lengths.steps + again,
        progress=progress, label="covariant vectors",
    )  # fmt: skip
    return out


def _covariant_vectors(
    plan: Plan, lengths: _Lengths, runs: core.CovariantRuns, settings: dict[str, Any]
) -> CovariantVectors:
    first = plan.start + lengths.n_transient
    names = (
        "vectors", "coefficients", "states", "growth", "frame_growth", "residual", "status",
        "n_done", "early_vectors", "early_coefficients", "early_error", "transient_growth",
        "tail_growth",
    )  # fmt: skip
    return CovariantVectors(
        steps=steps_from(first, lengths.records + 1, lengths.every),
        settings=settings,
        end_coefficients=runs.end_coefficients,
        **batch_axes(plan.system, plan.batch),
        **{name: plan.shaped(getattr(runs, name)) for name in names},
    )


def _delay(spectrum: Spectrum, n_tail: int, qr_every: int) -> int:
    """Steps after which the smallest resolved gap reduces contamination to _EARLY_ENOUGH."""
    k = spectrum.exponents.shape[-1]
    exponents = spectrum.exponents.reshape(-1, k)
    finite = exponents[np.isfinite(exponents).all(axis=1)]
    gaps = np.median(finite[:, :-1] - finite[:, 1:], axis=0) if len(finite) else np.empty(0)
    wanted = -math.log(_EARLY_ENOUGH)
    resolved = gaps[gaps * n_tail >= wanted]
    if k == 1:
        return qr_every  # the first vector is that of the frame, known at once
    if resolved.size == 0:
        largest = f"at most {gaps.max():.2g} nats" if gaps.size else "all runs diverged"
        raise ArgumentError(
            "delay",
            f"must be given, 'auto' found no gap that n_tail={n_tail} steps resolve: " + largest,
        )
    steps = math.ceil(wanted / float(resolved.min()))
    return min(-(-steps // qr_every) * qr_every, n_tail)


def _segment(n: int, k: int, factors: int, group: int, limit: float, workers: int) -> int:
    """Factors between two checkpoints: as many as fit the limit, in bytes per worker."""

    def needed(segment: int) -> float:
        checkpoints = -(-factors // segment)
        return 8.0 * group * (checkpoints * (n + n * k) + segment * (2 * n * k + k * k))

    segments = 1
    least = (factors, needed(factors))
    while segments <= factors:
        segment = -(-factors // segments)
        size = needed(segment)
        if size <= limit:
            return segment
        least = min(least, (segment, size), key=lambda pair: pair[1])
        segments = max(segments + 1, segments * 5 // 4)
    raise ArgumentError(
        "memory_limit",
        f"must be at least {math.ceil(least[1] * workers):,} bytes for {k} vectors of "
        f"length {n} over {factors} factors, got {limit * workers:,.0f}: take fewer vectors",
    )


def _far_end(seed: int | np.random.SeedSequence, k: int) -> Floats:
    """Upper triangular coefficients (k, k) with unit columns, without zeros: any will do."""
    if type(seed) is int and k <= _CACHED_END:
        return _cached_far_end(seed, k).copy()
    return _drawn_far_end(seed, k)


def _drawn_far_end(seed: int | np.random.SeedSequence, k: int) -> Floats:
    rng = np.random.default_rng(_checks.seed_sequence(seed).spawn(1)[0])
    C = np.triu(rng.uniform(0.5, 1.0, (k, k)) * rng.choice([-1.0, 1.0], (k, k)))
    result: Floats = C / np.linalg.norm(C, axis=0)
    return result


# As for start frames, drawing small ones takes longer than a short run.
_CACHED_END = 100
_cached_far_end = lru_cache(maxsize=32)(_drawn_far_end)
