"""Covariant Lyapunov vectors: directions that the tangent dynamics carries into each other."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._native import core
from pylyap._parallel import Signals, Work, over_runs, thread_count
from pylyap._status import STATUS_MEANING, Status
from pylyap._tangent.contamination import contamination as estimated_errors
from pylyap._tangent.exponents import (
    Plan,
    Spectrum,
    batch_means,
    callable_work,
    in_pieces,
    lyapunov_spectrum,
)
from pylyap.maps import Map, Method, TrainingMap, callables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray

Integers = NDArray[np.int64]

# What is left of its neighbour in an early vector for which the delay was chosen.
_EARLY_ENOUGH = 0.01


@dataclass(frozen=True)
class Hyperbolicity:
    """How far a run keeps expanding and contracting directions apart.

    Attributes
    ----------
    angle : (...)
        Smallest angle between the two subspaces along the run, radians; 0 is a tangency.
    dominated : (...)
        Share of the records in which every vector of the first grew more than each of the second.
    """

    angle: Floats
    dominated: Floats


@dataclass(frozen=True, eq=False, repr=False)
class CovariantVectors:
    """Covariant Lyapunov vectors of a batch of runs. Leading axes are the batch; T is the number of
    records.

    Attributes
    ----------
    vectors : (..., T + 1, n, k) or None
        Unit vectors at the start of each record and at the end, in the columns; the sign is free.
        None if they were not asked for.
    coefficients : (..., T + 1, k, k)
        The same in the orthonormal frame of the run, upper triangular: all angles follow from them.
    states : (..., T + 1, n)
        States at those times.
    growth : (..., T, k)
        Log growth of each vector summed over each record, nats; -inf where it was destroyed.
    frame_growth : (..., T, k)
        Log growth of the frame, as in `Spectrum.growth`.
    residual : (..., T, k)
        Largest ‖u − v (v·u)‖ in each record, u = J v(t) normalised and v = v(t + 1): the sine of
        the angle by which a vector misses its own image. Of a destroyed vector ‖J v‖.
    steps : (T + 1,)
        Index of the step at which each vector belongs.
    status : (...)
        0 finished, 1 diverged, 3 a function of a compiled `DiscreteMap` raised an exception: nan
        from the record that saw it.
    n_done : (...)
        Steps after the transient, tail included, that stayed finite.
    settings
        What was asked for.
    early_vectors, early_coefficients
        As `vectors` and `coefficients`, but from `settings["delay"]` more steps alone: pulled back
        from generic ones there, with nothing from beyond. None without a delay.
    early_error : (..., T + 1, k) or None
        Sines of the angles between the early vectors and `vectors`, which know the whole tail: what
        the steps after the delay change. What a short transient leaves in both is not in it; see
        `early_contamination`.
    transient_growth : (..., k)
        Log growth of the frame summed over the transient, nats; nan for a run that diverged.
    tail_growth : (..., k)
        Log growth of the vectors summed over the tail, nats; nan for a run that diverged.
    end_coefficients : (k, k)
        Coefficients at the end of the tail from which the vectors were pulled back.
    """

    vectors: Floats | None
    coefficients: Floats
    states: Floats
    growth: Floats
    frame_growth: Floats
    residual: Floats
    steps: Integers
    status: Integers
    n_done: Integers
    settings: dict[str, Any] = field(default_factory=dict)
    early_vectors: Floats | None = None
    early_coefficients: Floats | None = None
    early_error: Floats | None = None
    transient_growth: Floats | None = None
    tail_growth: Floats | None = None
    end_coefficients: Floats | None = None

    @cached_property
    def exponents(self) -> Floats:
        """(..., k) mean growth of the vectors per step, nats per step."""
        result: Floats = self.growth.sum(axis=-2) / self._n_steps
        return result

    @cached_property
    def stderr(self) -> Floats:
        """(..., k) standard error of `exponents`, as `Spectrum.stderr`."""
        return batch_means(self.growth / (self._n_steps / self.growth.shape[-2])).stderr

    @cached_property
    def gap(self) -> Floats:
        """(..., k - 1) distance λ_i − λ_{i+1} of the frame's neighbouring exponents, nats per step.

        Vectors i and i + 1 separate at this rate, on average over the window. `contamination` uses
        the growth of each step instead.
        """
        exponents = self.frame_growth.sum(axis=-2) / self._n_steps
        with np.errstate(invalid="ignore"):
            result: Floats = exponents[..., :-1] - exponents[..., 1:]
        return result

    @cached_property
    def local_contamination(self) -> Floats:
        """(..., T + 1, k) estimated error of each vector at each time, as `contamination`."""
        if self.transient_growth is None or self.tail_growth is None:
            raise ValueError("growth over transient and tail is missing: compute the vectors again")
        k, batch = self.k, self.status.shape
        coefficients, growth, frame_growth, residual, transient, tail = (
            array.reshape(-1, *array.shape[len(batch) :])
            for array in (
                self.coefficients, self.growth, self.frame_growth, self.residual,
                self.transient_growth, self.tail_growth,
            )
        )  # fmt: skip
        far = np.asarray(self.end_coefficients)
        n = self.states.shape[-1]
        found = estimated_errors(
            coefficients, growth, frame_growth, residual, transient, tail, far, n
        )
        result: Floats = found.reshape((*batch, len(self.steps), k))
        return result

    @cached_property
    def contamination(self) -> Floats:
        """(..., k) estimated error of each vector, 0 ... 1: its contamination by the others.

        An upper estimate, over all times of the window, of the sine of the angle between the vector
        and the one that an infinitely long transient and tail would give. Contributions of all
        other vectors add: of those behind, which the transient suppresses as the frame grows from
        its random start to each time, and of those before, which the tail suppresses as the vectors
        grow from each time to the far end. Growth is that of the steps taken. What is unknown, the
        directions at the start and beyond the end, enters by the distributions of a random frame
        and of the window: in 1000 random cases (maps, training, products of random matrices) with
        errors between rounding and 1, the error was exceeded in 95 %, by a factor of 20 in the
        median. It is an estimate, no bound: where directions exchange their order outside of the
        steps that were taken, nothing in the run shows it, and a start frame of your own must be in
        no special position.

        1 for a vector that these steps do not determine, which then means something only together
        with its neighbours. nan for the last of k < n vectors, whose next neighbour is not
        followed, and for a run that diverged.
        """
        result: Floats = self.local_contamination.max(axis=-2)
        return result

    @cached_property
    def early_contamination(self) -> Floats:
        """(..., T + 1, k) estimated error of each early vector, 0 ... 1.

        The measured `early_error` and the estimated `local_contamination` of the vectors that it
        was measured against add up. Raises ValueError without a delay.
        """
        if self.early_error is None:
            raise ValueError("early vectors must have been asked for: delay=")
        result: Floats = np.minimum(self.early_error + self.local_contamination, 1.0)
        return result

    @property
    def mixing(self) -> Floats:
        """Deprecated name of `contamination`."""
        warnings.warn(
            "CovariantVectors.mixing is deprecated, use contamination",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.contamination

    @property
    def _n_steps(self) -> int:
        return int(self.settings["n_steps"])

    @property
    def k(self) -> int:
        """Number of vectors."""
        return int(self.coefficients.shape[-1])

    def known(self, early: bool) -> Integers:
        """(T + 1,) step at which the vectors of each record are known.

        Early ones `delay` steps after it; the others draw on all steps to the end of the tail.
        """
        end = int(self.steps[-1]) + int(self.settings["n_tail"])
        if _checks.flag("early", early):
            return self.steps + int(self.settings["delay"])
        return np.full_like(self.steps, end)

    def angles(self, pairs: ArrayLike | None = None, early: bool = False) -> Floats:
        """Angles between the lines of pairs of vectors, radians in [0, π/2].

        Parameters
        ----------
        pairs : (m, 2) array of indices
            All i < j by default, in the order of ``itertools.combinations(range(k), 2)``.
        early
            Between early vectors.

        Returns
        -------
        (..., T + 1, m) array
            Accurate for the smallest angles too.
        """
        if pairs is None:
            first, second = np.triu_indices(self.k, 1)
        else:
            chosen = _checks.array("pairs", pairs)
            if chosen.ndim != 2 or chosen.shape[1] != 2 or chosen.dtype.kind not in "iu":
                raise ArgumentError(
                    "pairs", f"must be whole numbers of shape (m, 2), got {_checks.describe(pairs)}"
                )
            first, second = (self._indices("pairs", column) for column in chosen.T)
        C = self._coefficients(early)
        a, b = (np.swapaxes(C[..., chosen], -1, -2) for chosen in (first, second))
        along = (a * b).sum(axis=-1)
        across = np.linalg.norm(a - along[..., np.newaxis] * b, axis=-1)
        result: Floats = np.arctan2(across, np.abs(along))
        return result

    def subspace_angles(self, a: Sequence[int], b: Sequence[int], early: bool = False) -> Floats:
        """Principal angles between the spans of two sets of vectors, radians, smallest first.

        Returns
        -------
        (..., T + 1, min(len(a), len(b))) array

        References
        ----------
        Björck, Golub, Math. Comp. 27, 579 (1973).
        """
        first, second = self._indices("a", a), self._indices("b", b)
        if len(first) < len(second):
            first, second = second, first
        C = self._coefficients(early)
        good = np.asarray(np.isfinite(C).all(axis=(-1, -2)))
        C = np.where(good[..., np.newaxis, np.newaxis], C, np.eye(self.k))
        A, B = (np.linalg.qr(C[..., chosen])[0] for chosen in (first, second))
        inner = np.swapaxes(A, -1, -2) @ B
        cosines = np.clip(np.linalg.svd(inner, compute_uv=False), 0.0, 1.0)
        sines = np.clip(np.linalg.svd(B - A @ inner, compute_uv=False)[..., ::-1], 0.0, 1.0)
        angles = np.where(cosines > np.sqrt(0.5), np.arcsin(sines), np.arccos(cosines))
        result: Floats = np.where(good[..., np.newaxis], angles, np.nan)
        return result

    def hyperbolicity(self, split: int) -> Hyperbolicity:
        """The first `split` vectors against the rest."""
        split = _checks.integer("split", split, least=1, most=self.k - 1)
        angles = self.subspace_angles(range(split), range(split, self.k))[..., 0]
        with np.errstate(invalid="ignore"):
            above = self.growth[..., :split].min(axis=-1) > self.growth[..., split:].max(axis=-1)
        return Hyperbolicity(angle=angles.min(axis=-1), dominated=above.mean(axis=-1))

    def adjoint_vectors(self) -> Floats:
        """The dual basis (..., T + 1, n, n), unit columns: column i is orthogonal to v_j, j ≠ i.

        These are the covariant vectors of the adjoint dynamics. All n vectors are needed.

        Raises ValueError if k < n or the vectors were not kept.
        """
        if self.vectors is None:
            raise ArgumentError("vectors", "must have been kept: vectors=True")
        if self.k < self.vectors.shape[-2]:
            raise ArgumentError(
                "k", f"must be n={self.vectors.shape[-2]} for a dual basis, got {self.k}"
            )
        good = np.isfinite(self.vectors).all(axis=(-1, -2), keepdims=True)
        dual = np.swapaxes(np.linalg.inv(np.where(good, self.vectors, np.eye(self.k))), -1, -2)
        dual /= np.linalg.norm(dual, axis=-2, keepdims=True)
        result: Floats = np.where(good, dual, np.nan)
        return result

    def _coefficients(self, early: bool) -> Floats:
        if not _checks.flag("early", early):
            return self.coefficients
        if self.early_coefficients is None:
            raise ValueError("early vectors must have been asked for: delay=")
        return self.early_coefficients

    def _indices(self, name: str, chosen: Any) -> NDArray[np.intp]:
        indices = _checks.array(name, chosen)
        if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
            raise ArgumentError(
                name, f"must be a list of indices of vectors, got {_checks.describe(chosen)}"
            )
        if indices.min() < 0 or indices.max() >= self.k:
            raise ArgumentError(
                name, f"must be indices 0 ... {self.k - 1}, got {_checks.describe(chosen)}"
            )
        return indices.astype(np.intp)

    def __repr__(self) -> str:
        runs, batch = self.status.size, self.status.shape
        text = f"CovariantVectors of {runs} run{'s'[: runs != 1]}" + (f" {batch}" if batch else "")
        text += f": {self.k} of {self.states.shape[-1]}, {self._n_steps} steps in "
        text += f"{len(self.steps) - 1} records"
        diverged = int((self.status == Status.DIVERGED).sum())
        if diverged:
            text += f", {diverged} diverged"
        raised = int((self.status == Status.RAISED).sum())
        if raised:
            text += f", {raised} raised an exception"
        finite = self.residual[np.isfinite(self.residual)]
        if finite.size:
            text += f"\n  largest residual {finite.max():.1e}, "
            text += f"largest contamination {self._worst:.1e}"
        if self.early_error is not None and np.isfinite(self.early_error).any():
            delay, error = self.settings["delay"], np.nanmedian(self.early_error)
            text += f"\n  early vectors after {delay} steps, median error {error:.1e}"
        return text

    @property
    def _worst(self) -> float:
        known = self.contamination[np.isfinite(self.contamination)]
        return float(known.max()) if known.size else math.nan

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; units and settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        batch = batch_dimensions(self.status.ndim)
        rate = {"units": "nats per record"}
        variables: dict[str, Any] = {
            "coefficients": ([*batch, "time", "column", "vector"], self.coefficients, {}),
            "states": ([*batch, "time", "component"], self.states, {}),
            "growth": ([*batch, "step", "vector"], self.growth, rate),
            "frame_growth": ([*batch, "step", "vector"], self.frame_growth, rate),
            "residual": ([*batch, "step", "vector"], self.residual, {}),
            "exponents": ([*batch, "vector"], self.exponents, {"units": "nats per step"}),
            "contamination": ([*batch, "vector"], self.contamination, {}),
            "local_contamination": ([*batch, "time", "vector"], self.local_contamination, {}),
            "status": (batch, self.status, {"meaning": STATUS_MEANING}),
            "n_done": (batch, self.n_done, {"units": "steps"}),
        }
        in_space, in_frame = ([*batch, "time", axis, "vector"] for axis in ("component", "column"))
        optional = {
            "vectors": (in_space, self.vectors),
            "early_vectors": (in_space, self.early_vectors),
            "early_coefficients": (in_frame, self.early_coefficients),
            "early_error": ([*batch, "time", "vector"], self.early_error),
        }
        variables |= {name: (*what, {}) for name, what in optional.items() if what[1] is not None}
        coordinates = {
            "time": ("time", self.steps, {"units": "steps"}),
            "step": ("step", self.steps[:-1], {"long_name": "first step of the record"}),
            "vector": ("vector", np.arange(self.k)),
        }
        return dataset(variables, coordinates, attrs=dict(self.settings))


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
    seed: Any = 0,
) -> CovariantVectors:
    """Covariant Lyapunov vectors along runs, by the method of Ginelli et al.

    A run makes n_transient + n_steps + n_tail steps: the first align the frame with the past, the
    last align the vectors with the future, and the window between them is reported.

    Parameters
    ----------
    system, w0, k, frame, start, method, threads, progress, seed
        As in `lyapunov_spectrum`; `seed` also draws the coefficients at the far end.
    n_steps
        Steps of the window.
    n_transient, n_tail
        Steps before and after it; a fifth of `n_steps` each by default.
        `CovariantVectors.contamination` estimates the error that is left if they were too few.
    every
        Steps per record; divides `n_steps`.
    qr_every
        Steps between two orthonormalisations; divides `every` and all numbers of steps.
    vectors
        Whether to keep the vectors; without them angles and growth remain, from less memory.
    delay
        Also give early vectors, those that are known so many steps after their time, and how far
        they are from the others: at most `n_tail`, a multiple of `qr_every`. ``"auto"`` takes the
        steps in which the smallest gap that `n_tail` can resolve leaves a hundredth of the
        neighbour above, gaps being medians over the runs from a spectrum that is computed first.
    memory_limit
        Bytes of working memory, of all threads together. Frames that do not fit are kept at
        checkpoints only and computed again on the way back, to the same bits.

    Returns
    -------
    CovariantVectors

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the memory does not suffice even for checkpoints.

    Notes
    -----
    Where a direction is destroyed its vector is that of the kernel, growth -inf and no cause of
    other vectors. Within a block of equal exponents (dead units, flat directions) single vectors
    are arbitrary, and `gap` and `contamination` say so; the block's span is not.

    References
    ----------
    Ginelli et al., Phys. Rev. Lett. 99, 130601 (2007); J. Phys. A 46, 254005 (2013).
    """
    n_steps = _checks.integer("n_steps", n_steps, least=1)
    qr_every = _checks.integer("qr_every", qr_every, least=1)
    every = _checks.integer("every", every, least=1)
    fifth = n_steps // 5 // qr_every * qr_every
    before = fifth if n_transient is None else n_transient
    after = fifth if n_tail is None else _checks.integer("n_tail", n_tail, least=0)
    seed = _checks.reusable_seed(seed)  # used more than once
    plan = Plan(system, w0, n_steps, k, before, frame, start, method, seed)
    if isinstance(system, TrainingMap):
        system.optimizer._require_factors(plan.start, plan.n_transient + n_steps + after)
    _checks.flag("vectors", vectors)
    _checks.flag("progress", progress)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    if n_steps % every:
        raise ArgumentError("every", f"must divide n_steps={n_steps}, got {every}")
    lengths = {"every": every, "n_transient": plan.n_transient, "n_tail": after}
    for name, length in lengths.items():
        if length % qr_every:
            raise ArgumentError(name, f"must be a multiple of qr_every={qr_every}, got {length}")
    if isinstance(delay, str) and delay == "auto":
        spectrum = lyapunov_spectrum(
            system, w0, n_steps, k, plan.n_transient, qr_every, every, frame, start, method,
            threads, progress, seed,
        )  # fmt: skip
        delay = _delay(spectrum, after, qr_every)
    if delay is not None:
        delay = _checks.integer("delay", delay, least=1, most=after)
        if delay % qr_every:
            raise ArgumentError("delay", f"must be a multiple of qr_every={qr_every}, got {delay}")
    records, runs, n = n_steps // every, plan.runs, plan.n
    per_time = plan.k**2 + (n * plan.k if vectors else 0)
    per_time += n + (per_time + plan.k if delay else 0)
    numbers = (records + 1) * per_time + 3 * records * plan.k
    _checks.memory(
        f"vectors at {records + 1} times (n_steps={n_steps}) of {runs} runs",
        8.0 * runs * numbers,
        "record less with every=, take fewer runs or vectors=False",
    )
    if isinstance(system, TrainingMap):
        group, parallel = system._core.group, True
        per_step = system._step_cost(plan.k, method) + 2.0 * n * plan.k**2
    else:
        calls = callables(system)
        group, parallel, per_step = callable_work(system, plan.states, plan.k)
    workers = thread_count(threads)
    at_once = max(1, min(workers, -(-runs // group)))
    factors = (n_steps + after) // qr_every
    limit = _checks.real("memory_limit", memory_limit, above=0.0) / at_once
    segment = _segment(n, plan.k, factors, group, limit, at_once)

    times, k_ = (runs, records + 1), plan.k
    shapes = {
        "vectors": (*times, n, k_) if vectors else None,
        "coefficients": (*times, k_, k_),
        "states": (*times, n),
        **dict.fromkeys(("growth", "frame_growth", "residual"), (runs, records, k_)),
        **dict.fromkeys(("transient_growth", "tail_growth"), (runs, k_)),
        "early_vectors": (*times, n, k_) if vectors and delay else None,
        "early_coefficients": (*times, k_, k_) if delay else None,
        "early_error": (*times, k_) if delay else None,
    }
    out = _empty(shapes)
    status, n_done = np.zeros(runs, np.int64), np.zeros(runs, np.int64)
    work: Work
    far = _far_end(seed, plan.k)
    frames = core.CovariantRuns(
        plan.states, plan.start, plan.n_transient, n_steps, after, qr_every, every, delay or 0,
        segment, plan.frame, far, out["vectors"], out["coefficients"],
        out["states"], out["growth"], out["frame_growth"], out["residual"],
        out["transient_growth"], out["tail_growth"], out["early_vectors"],
        out["early_coefficients"], out["early_error"], status, n_done,
    )  # fmt: skip
    if isinstance(system, TrainingMap):
        rates, native, how = plan.rates(system, after), system._core, method or "auto"

        def work(first: int, count: int, signals: Signals) -> None:
            native.covariant(
                frames, *rates, how, signals.cancel, signals.done, signals.members, first, count
            )
    else:
        step, jacobian, tangent, _ = calls

        def work(first: int, count: int, signals: Signals) -> None:
            core.covariant_of_map(
                frames, step, jacobian, tangent, signals.cancel, signals.done, first, count
            )

    once = plan.n_transient + n_steps + after
    again = max(0, (-(-factors // segment) - 1) * segment) * qr_every
    over_runs(
        work,
        runs,
        group=group,
        threads=threads if parallel else 1,
        cost=runs * (once + again) * per_step,
        steps=once + again,
        progress=progress,
        label="covariant vectors",
    )
    settings = {
        "system": repr(system),
        "n_steps": n_steps,
        "n_transient": plan.n_transient,
        "n_tail": after,
        "every": every,
        "qr_every": qr_every,
        "delay": delay or 0,
        "start": plan.start,
        "method": method or "automatic",
        "frame": "random" if frame is None else "given",
        "seed": repr(seed),
    }
    first = plan.start + plan.n_transient

    def shaped(array: NDArray[Any] | None) -> Any:
        return None if array is None else array.reshape((*plan.batch, *array.shape[1:]))

    return CovariantVectors(
        steps=in_pieces(np.empty(records + 1, np.int64), first, every),
        status=shaped(status),
        n_done=shaped(n_done),
        settings=settings,
        end_coefficients=far,
        **{name: shaped(array) for name, array in out.items()},
    )


# NumPy asks for huge pages from this size on: touching those costs a tenth.
_HUGE = 1 << 22


def _empty(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, Any]:
    """Uninitialised arrays. Those too small for huge pages lie in one block."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if shape is not None}
    small = {name: size for name, size in sizes.items() if 8 * size < _HUGE}
    block = np.empty(sum(small.values()))
    pieces = np.split(block, np.cumsum(list(small.values()))[:-1]) if small else []
    arrays = dict(zip(small, pieces, strict=True))
    out: dict[str, Any] = {}
    for name, shape in shapes.items():
        flat = arrays.get(name)
        if shape is not None and flat is None:
            out[name] = np.empty(shape)
        else:
            out[name] = None if flat is None or shape is None else flat.reshape(shape)
    return out


def _delay(spectrum: Spectrum, n_tail: int, qr_every: int) -> int:
    """Steps after which the smallest resolved gap leaves _EARLY_ENOUGH of the neighbour above."""
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


def _far_end(seed: Any, k: int) -> Floats:
    """Upper triangular coefficients (k, k) with unit columns, without zeros: any will do."""
    rng = np.random.default_rng(_checks.seed_sequence(seed).spawn(1)[0])
    C = np.triu(rng.uniform(0.5, 1.0, (k, k)) * rng.choice([-1.0, 1.0], (k, k)))
    result: Floats = C / np.linalg.norm(C, axis=0)
    return result
