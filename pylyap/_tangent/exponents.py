"""Lyapunov exponents: the spectrum and the Kaplan-Yorke dimension."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._native import core
from pylyap._parallel import ProgressBar, Signals, Work, over_runs
from pylyap._statistics import MIN_RECORDS
from pylyap._statistics import BatchMeans as BatchMeans
from pylyap._statistics import batch_means as batch_means
from pylyap._status import STATUS_MEANING, Status
from pylyap._tangent import aligned_frame
from pylyap.maps import METHODS, DiscreteMap, Map, Method, TrainingMap, callables

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

Integers = NDArray[np.int64]


# A frame this close to orthonormal is taken as it is.
_ORTHONORMAL = 1e-13


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """Lyapunov exponents of a batch of runs, with their history. Leading axes are the batch.

    Attributes
    ----------
    growth : (..., n_records, k)
        Log growth summed over each record, nats; nan from the record in which a run diverged.
    steps : (n_records,)
        Index of the first step of each record.
    loss : (..., n_records + 1)
        Loss of the whole data at the start of each record and at the end; nan for maps without one.
    state : (..., n)
        The last state, nan for a run that diverged.
    frame : (..., n, k)
        The last frame, orthonormal columns, aligned with the leading directions of the past.
    status : (...)
        0 finished, 1 diverged (left the finite numbers), 2 stopped early, 3 a function of a
        compiled `DiscreteMap` raised an exception; nan from there on.
    n_done : (...)
        Steps after the transient that were made and stayed finite.
    settings
        What was asked for.
    transient_growth : (..., k)
        Log growth of the frame summed over the transient, nats; nan for a run that diverged in it.
    overlap : (..., k) or None
        Of an aligned start frame, ln of the pivots of its product with the frame after the steps it
        was computed from; see `alignment_error`.
    """

    growth: Floats
    steps: Integers
    loss: Floats
    state: Floats
    frame: Floats
    status: Integers
    n_done: Integers
    settings: dict[str, Any] = field(default_factory=dict)
    transient_growth: Floats | None = None
    overlap: Floats | None = None

    @cached_property
    def exponents(self) -> Floats:
        """(..., k) mean growth per step over the whole window, nats per step; never sorted.

        Of a run that stopped early over what it made. -inf for a direction that was destroyed, nan
        for a run that diverged or whose function raised an exception.
        """
        result: Floats = self._over_window(lambda growth, n: growth.sum(axis=-2) / n)
        return result

    @cached_property
    def stderr(self) -> Floats:
        """(..., k) standard error of `exponents`, nats per step, corrected for autocorrelation.

        `exponents` ± 1.96 `stderr` is a 95 % interval: Student's quantile for the few degrees of
        freedom of correlated records is part of the error. It covers in at least 90 % of the cases
        for records like an AR(1) process whose coefficient is at most 0.95 (correlations fall by e
        in 20 records), also where they are few; the error is wide there.

        Training is a one-way transient: the error belongs to the average over this window, as if
        the window were a piece of a stationary record, and not to an asymptotic exponent; see
        `trend`. nan with fewer than 16 records, which cannot tell their own correlations, and for
        exponents that are not finite.
        """
        result: Floats = self._over_window(lambda g, n: batch_means(_rates(g, n)).stderr)
        return result

    @cached_property
    def trend(self) -> NDArray[np.bool_]:
        """(..., k) whether the exponent drifts across the window more than chance allows (1 %).

        Chance includes correlations that fall by e in 30 records (AR(1) with a coefficient of up to
        0.97). False with fewer than 16 records and for exponents that are not finite.
        """
        result: NDArray[np.bool_] = self._over_window(lambda g, n: batch_means(_rates(g, n)).trend)
        return result

    @cached_property
    def alignment_error(self) -> Floats:
        """(..., k) estimated error of `exponents` from a start frame that was not aligned.

        In nats per step: the distance to the exponents, over the same steps, of a frame that all
        steps before them had aligned. It falls as 1/T with the number of steps T, which no `stderr`
        contains, and adds to it. Without a transient an upper estimate for 98 % of the random
        frames: T times the error is the logarithm of a ratio of two cosines of random angles, a few
        nats, and about ln(n)/2 for the first of n >> 1 exponents. A transient reduces it by the
        growth of neighbouring directions seen there, except for the last of k < n exponents, whose
        neighbour is not followed. Where directions have hardly separated within the window the
        error is less. For ``frame="aligned"`` from the difference between the frames before and
        after the steps that it was computed from: 0 for constant symmetric Jacobians. nan for a
        frame that was given.

        Notes
        -----
        The mean error of exponent i of a random frame, if the window aligns it fully and the
        Jacobians are normal and commute, is (ψ(i/2) − ψ((n − i + 1)/2)) / 2T with the digamma
        function ψ: −ln 2 / T for the first of two.
        """
        if self.settings.get("frame") == "given":
            return np.full(self.exponents.shape, np.nan)
        growth = self.transient_growth
        if growth is None:  # not recorded by earlier versions
            growth = np.zeros(self.exponents.shape)
        n_steps = np.where(self.status == Status.STOPPED, self.n_done, self._n_steps)
        return aligned_frame.alignment_error(growth, n_steps, self.state.shape[-1], self.overlap)

    @property
    def kaplan_yorke(self) -> Floats:
        """(...) Kaplan-Yorke dimension; see `kaplan_yorke_dimension`."""
        return kaplan_yorke_dimension(self.exponents, n=self.state.shape[-1])

    @property
    def _n_steps(self) -> int:
        return int(self.settings["n_steps"])

    def _over_window(self, measure: Callable[[Floats, int], Any]) -> Any:
        """measure(growth, n_steps) of the records (..., n, k) that each run made."""
        stopped = self.status == Status.STOPPED
        if not stopped.any():
            return measure(self.growth, self._n_steps)
        lengths = np.where(stopped, self.n_done, self._n_steps)
        every = self._n_steps // self.growth.shape[-2]
        result = None
        for length in np.unique(lengths):
            these = lengths == length
            part = measure(self.growth[these, : length // every], int(length))
            if result is None:
                result = np.empty((*self.status.shape, self.growth.shape[-1]), part.dtype)
            result[these] = part
        return result

    def __repr__(self) -> str:
        batch = self.status.shape
        runs = self.status.size
        diverged = int((self.status == Status.DIVERGED).sum())
        k = self.growth.shape[-1]
        lines = [f"Spectrum of {runs} run{'s'[: runs != 1]}" + (f" {batch}" if batch else "")]
        lines[0] += f": {k} exponent{'s'[: k != 1]} of {self.state.shape[-1]}, "
        lines[0] += f"{self._n_steps} steps"
        if diverged:
            lines[0] += f", {diverged} diverged"
        stopped = int((self.status == Status.STOPPED).sum())
        if stopped:
            lines[0] += f", {stopped} stopped early"
        raised = int((self.status == Status.RAISED).sum())
        if raised:
            lines[0] += f", {raised} raised an exception"
        leading = self.exponents[..., 0].ravel()
        finite = leading[np.isfinite(leading)]
        if runs == 1:
            error = float(self.stderr[..., 0].ravel()[0])
            start = float(self.alignment_error[..., 0].ravel()[0])
            known = "" if np.isnan(error) else f" ± {error:.1g}"
            lines.append(f"leading {leading[0]:.4g}{known} nats per step")
            if not self.settings.get("n_transient", 0) and start > max(
                np.nan_to_num(error), 0.01 * abs(leading[0])
            ):
                lines.append(f"without a transient: up to {start:.1g} more from the start frame")
        elif finite.size:
            lines.append(
                f"leading {finite.min():.4g} ... {finite.max():.4g}, "
                f"median {np.median(finite):.4g} nats per step"
            )
        return "\n  ".join(lines)

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; units and settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        batch = batch_dimensions(self.status.ndim)
        rate = {"units": "nats per step"}
        variables: dict[str, Any] = {
            "exponents": ([*batch, "exponent"], self.exponents, rate),
            "stderr": ([*batch, "exponent"], self.stderr, rate),
            "trend": ([*batch, "exponent"], self.trend, {}),
            "alignment_error": ([*batch, "exponent"], self.alignment_error, rate),
            "growth": ([*batch, "step", "exponent"], self.growth, {"units": "nats per record"}),
            "loss": ([*batch, "time"], self.loss, {}),
            "state": ([*batch, "component"], self.state, {}),
            "frame": ([*batch, "component", "exponent"], self.frame, {}),
            "status": (batch, self.status, {"meaning": STATUS_MEANING}),
            "n_done": (batch, self.n_done, {"units": "steps"}),
        }
        length = self._n_steps // len(self.steps)
        last = int(self.steps[-1]) + length
        coordinates = {
            "step": ("step", self.steps, {"long_name": "first step of the record"}),
            "time": ("time", np.append(self.steps, last), {"units": "steps"}),
            "exponent": ("exponent", np.arange(self.growth.shape[-1])),
        }
        return dataset(variables, coordinates, attrs=dict(self.settings))


def lyapunov_spectrum(
    system: Map,
    w0: ArrayLike,
    n_steps: int,
    k: int | None = None,
    n_transient: int = 0,
    qr_every: int = 1,
    record_every: int | None = None,
    frame: ArrayLike | Literal["aligned"] | None = None,
    start: int = 0,
    method: Method | None = None,
    threads: int | None = None,
    progress: bool | ProgressBar = False,
    seed: Any = 0,
    tol: float | None = None,
) -> Spectrum:
    """The k leading Lyapunov exponents along runs, by Benettin's method, with their history.

    A frame of k tangent vectors travels with each run, Q R = J(x_t) Q at every step with
    diag R > 0; the exponents are the means of ln diag R.

    Parameters
    ----------
    system
        The map: a `TrainingMap`, a `DiscreteMap`, or anything with `n`, `step` and `tangent`.
    w0 : (..., n) or (..., n_params) array
        Initial states or weights, one run per row. Finite.
    n_steps
        Steps that are measured, after the transient.
    k
        Number of exponents, 1 ... n; all by default. The first k do not depend on k.
    n_transient
        Steps before the measurement, in which the frame already aligns. Without them exponents are
        off by a few nats over `n_steps`, which no standard error contains: needed wherever that
        matters (`Spectrum.alignment_error`), some multiple of the inverse gaps between exponents;
        or take ``frame="aligned"``, where no step may be left out, as in training.
    qr_every
        Steps between two orthonormalisations.
    record_every
        Steps per record of the history, a multiple of `qr_every` that divides `n_steps`; by default
        one record per orthonormalisation.
    frame : (n, k) or (..., n, k) array, or "aligned"
        Start frame, independent columns; random and seeded by default. ``"aligned"``: the leading
        right singular vectors of the product of the first steps, each run's own. A k-volume that
        they span grows by the product of the k largest singular values, the most that any can, so
        that nothing (at most 0.03 nats) is lost to other directions. All n vectors travel over
        these steps first: all of the run, or as many as have n × n factors of 256 MB together
        (`settings` say how many). The frame of a run that diverges within them is random.
    start
        Index t of the first step (minibatches and Adam depend on it).
    method
        ``"dense"`` or ``"matrix-free"`` tangents of a `TrainingMap`; the cheaper by default.
    threads
        Number of threads: all cores this process may use by default, and never more than these.
        Results do not depend on it.
    progress
        Show a progress bar on stderr.
    seed
        Of the random start frame: int, SeedSequence or Generator.
    tol
        Stop a run once the standard errors of all its exponents are below this, in nats per step.
        Errors are checked about twenty times, at numbers of records that grow by a quarter (32 or
        more), so that they are below `tol` a little more readily than they should be. A destroyed
        direction has no error and is ignored; an error that is nan otherwise never stops a run.

    Returns
    -------
    Spectrum
        Exponents in nats per step, their standard errors, growth history, losses, last states.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range, names no map, or the result would not fit in memory.

    Notes
    -----
    A direction whose growth is below the rounding of what it was computed from is destroyed: its
    exponent is -inf and it is replaced by one orthogonal to all others. This is a limit of double
    precision: between two orthonormalisations a direction has to keep more than about 1e-15 √n of
    its length apart from those before it. A single step with J = [[1, 1], [0, 1e-20]] exceeds it
    and gives −inf where ln 1e-20 = −46.05 is right. The growth that all directions have in common
    is not limited. Training is a transient: bars and exponents belong to this window
    (`Spectrum.stderr`, `Spectrum.trend`).

    References
    ----------
    Benettin et al., Meccanica 15, 9 and 21 (1980). Geist et al., Prog. Theor. Phys. 83, 875 (1990).
    """
    given, used_seed = "random" if frame is None else "given", seed
    if isinstance(frame, str):
        given = _checks.choice("frame", frame, ("aligned",))
        used_seed = _checks.seed_sequence(seed)  # for two frames, of k and of n vectors
    qr_every = _checks.integer("qr_every", qr_every, least=1)
    plan = Plan(
        system, w0, n_steps, k, n_transient, None if given == "aligned" else frame, start, method,
        used_seed,
    )  # fmt: skip
    every = (
        qr_every if record_every is None else _checks.integer("record_every", record_every, least=1)
    )
    if every % qr_every:
        raise ArgumentError(
            "record_every", f"must be a multiple of qr_every={qr_every}, got {every}"
        )
    if plan.n_steps % every:
        name = "qr_every" if record_every is None else "record_every"
        raise ArgumentError(name, f"must divide n_steps={plan.n_steps}, got {every}")
    overlap, aligned_over = None, 0
    if given == "aligned":
        overlap, aligned_over = plan.align(qr_every, threads)
    if tol is None:
        arrays = plan.run(qr_every, every, threads=threads, progress=progress)
    else:
        tol = _checks.real("tol", tol, above=0.0)
        arrays = plan.run_until(tol, qr_every, every, threads=threads, progress=progress)
    first = plan.start + plan.n_transient
    settings = {
        "system": repr(system),
        "n_steps": plan.n_steps,
        "n_transient": plan.n_transient,
        "qr_every": qr_every,
        "record_every": every,
        "start": plan.start,
        "method": plan.method or "automatic",
        "frame": given,
        "seed": repr(seed),
    }
    if given == "aligned":
        settings["aligned_over"] = aligned_over
    if tol is not None:
        settings["tol"] = tol
    batch = plan.batch
    return Spectrum(
        growth=arrays.growth.reshape((*batch, *arrays.growth.shape[1:])),
        steps=in_pieces(np.empty(plan.n_steps // every, np.int64), first, every),
        loss=arrays.loss.reshape((*batch, arrays.loss.shape[-1])),
        state=arrays.state.reshape((*batch, plan.n)),
        frame=arrays.frame.reshape((*batch, plan.n, plan.k)),
        status=arrays.status.reshape(batch),
        n_done=arrays.n_done.reshape(batch),
        settings=settings,
        transient_growth=arrays.transient_growth.reshape((*batch, plan.k)),
        overlap=None if overlap is None else overlap.reshape((*batch, plan.k)),
    )


def kaplan_yorke_dimension(exponents: ArrayLike, n: int | None = None) -> Floats:
    """The Kaplan-Yorke (Lyapunov) dimension of spectra.

    With exponents in descending order, D = j + (λ₁ + … + λ_j)/|λ_{j+1}| for the largest j whose
    partial sum is not negative. 0 if λ₁ < 0, n if no partial sum of the whole spectrum is negative,
    and nan (unknown) if only k < n exponents are given and no partial sum is negative.

    Parameters
    ----------
    exponents : (..., k) array
        In any order.
    n
        Dimension of the state; k by default, that is, the spectrum is taken to be whole.

    Returns
    -------
    (...) array
        nan where an exponent is nan.

    References
    ----------
    Kaplan, Yorke, Lect. Notes Math. 730, 204 (1979).
    """
    spectrum = _checks.floats("exponents", exponents, finite=False)
    if spectrum.ndim == 0 or spectrum.shape[-1] == 0:
        raise ArgumentError(
            "exponents", f"must have shape (..., k) with k >= 1, got {spectrum.shape}"
        )
    k = spectrum.shape[-1]
    dimension = k if n is None else _checks.integer("n", n)
    if dimension < k:
        raise ArgumentError("n", f"must be at least {k}, the number of exponents, got {dimension}")
    ordered = -np.sort(-spectrum, axis=-1)
    sums = ordered.cumsum(axis=-1)
    j = (sums >= 0).cumprod(axis=-1).sum(axis=-1)  # exponents whose partial sums are not negative
    inside = np.clip(j, 1, k - 1)[..., np.newaxis] if k > 1 else None
    if inside is None:
        fraction: Floats = np.zeros(spectrum.shape[:-1])
    else:
        total = np.take_along_axis(sums, inside - 1, axis=-1)[..., 0]
        following = np.take_along_axis(ordered, inside, axis=-1)[..., 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            fraction = np.where(np.isneginf(following), 0.0, total / np.abs(following))
    whole = float(dimension) if dimension == k else np.nan
    result = np.where(j == 0, 0.0, np.where(j == k, whole, j + fraction))
    return np.where(np.isnan(spectrum).any(axis=-1), np.nan, result)[()]


def _rates(growth: Floats, n_steps: int) -> Floats:
    """Growth per step in each record."""
    rates: Floats = growth / (n_steps / growth.shape[-2])
    return rates


def _random_frame(seed: Any, n: int, k: int) -> Floats:
    """Orthonormal (n, k); column i is the same for all k."""
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    drawn = np.ascontiguousarray(rng.standard_normal((k, n)).T)  # wide frames fill the memory
    return core.orthonormalise(drawn, None)[0]


# Drawing a small frame takes longer than a short run of a small net; these are kept.
_CACHED_FRAME = 10_000  # numbers
_cached_frame = lru_cache(maxsize=32)(_random_frame)


_PIECE = 1 << 20  # numbers that are written before Ctrl-C is heard


def in_pieces(array: NDArray[Any], first: float, step: int = 0) -> Any:
    """The array, filled with first, first + step, ...; long ones leave room for Ctrl-C."""
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _PIECE):
        piece = flat[begin : begin + _PIECE]
        piece[:] = first + step * np.arange(begin, begin + piece.size) if step else first
    return array


@dataclass
class _Arrays:
    """What the kernels write, over flattened runs."""

    growth: Floats
    loss: Floats
    state: Floats
    frame: Floats
    status: Integers
    n_done: Integers
    transient_growth: Floats
    products: Floats | None
    exponents: Floats | None


class Plan:
    """Checked arguments of runs with a frame, flattened; and a spectrum's two ways to run."""

    def __init__(
        self,
        system: Map,
        w0: ArrayLike,
        n_steps: int,
        k: int | None,
        n_transient: int,
        frame: ArrayLike | None,
        start: int,
        method: Method | None,
        seed: Any,
    ) -> None:
        if not isinstance(system, (TrainingMap, DiscreteMap, Map)):
            raise ArgumentTypeError(
                "system",
                f"must be a TrainingMap, a DiscreteMap or have n, step and tangent, "
                f"got {_checks.describe(system)}",
            )
        if isinstance(system, TrainingMap) and system.dtype != "float64":
            raise ArgumentError(
                "system",
                f"must have dtype='float64' for tangent vectors along runs, got {system.dtype!r}",
            )
        self.system = system
        self.n = system.n
        self.seed = seed
        self.n_steps = _checks.integer("n_steps", n_steps, least=1)
        self.n_transient = _checks.integer("n_transient", n_transient, least=0)
        self.start = _checks.integer("start", start, least=0)
        if isinstance(system, TrainingMap):
            system.optimizer._require_factors(self.start, self.n_transient + self.n_steps)
        if method is not None:
            _checks.choice("method", method, METHODS)
        self.method: Method | None = method
        self.states, self.batch = _flat_states(system, w0)
        self.runs = len(self.states)
        self.chosen: Any = slice(None)  # of the flattened batch
        given = None if frame is None else _checks.floats("frame", frame)
        if k is None and given is not None:
            if given.ndim < 2 or not 1 <= given.shape[-1] <= self.n:
                raise ArgumentError(
                    "frame",
                    f"must have shape (..., {self.n}, k) with 1 <= k <= {self.n}, "
                    f"got {given.shape}",
                )
            k = given.shape[-1]
        self.k = self.n if k is None else _checks.integer("k", k, least=1, most=self.n)
        frames = max(1, self.runs)  # without a run, one is drawn all the same
        _checks.memory(
            f"frames of {self.k} vectors of length {self.n} for {frames} runs",
            16.0 * frames * self.n * self.k,
            "take fewer runs or a smaller k",
        )
        self.frame = self._start_frame(seed) if given is None else self._given_frame(given)

    def _start_frame(self, seed: Any) -> Floats:
        """Random, orthonormal, the same for every run; nested: column i is the same for all k."""
        if type(seed) is int and self.n * self.k <= _CACHED_FRAME:
            frame = _cached_frame(seed, self.n, self.k)
        else:
            frame = _random_frame(seed, self.n, self.k)
        return np.array(np.broadcast_to(frame, (self.runs, self.n, self.k)), order="C")

    def _given_frame(self, frame: Floats) -> Floats:
        if frame.ndim < 2 or frame.shape[-2:] != (self.n, self.k):
            raise ArgumentError(
                "frame", f"must have shape (..., {self.n}, {self.k}), got {frame.shape}"
            )
        try:
            spread = np.broadcast_to(frame, (*self.batch, self.n, self.k))
        except ValueError:
            raise ArgumentError(
                "frame", f"must broadcast against the batch of runs {self.batch}, got {frame.shape}"
            ) from None
        spread = spread.reshape(-1, self.n, self.k)
        out = np.empty((self.runs, self.n, self.k))
        for r in range(self.runs):
            if r and frame.ndim == 2:
                out[r] = out[0]
                continue
            # Not by Q.T @ Q: the threads of a BLAS spin on after a product, beside the run's own.
            given = np.ascontiguousarray(spread[r])
            tidy, norms, factor = core.orthonormalise(given, None)
            if (norms == 0).any():
                raise ArgumentError(
                    "frame",
                    f"must have independent columns, "
                    f"column {int(np.argmin(norms))} depends on those before it",
                )
            # Of an earlier result, say: it goes on with the same bits.
            orthonormal = np.abs(factor - np.eye(self.k)).max() <= _ORTHONORMAL
            out[r] = given if orthonormal else tidy
        return out

    def align(self, qr_every: int, threads: int | None) -> tuple[Floats, int]:
        """Make the start frames the leading right singular vectors of the first steps.

        Returns ln of their pivots (runs, k) against the frames after these steps, and the number of
        steps.
        """
        _checks.memory(
            f"all {self.n} vectors of length {self.n}, which frame='aligned' needs",
            40.0 * self.n**2,
            "take a transient instead",
        )
        factors = max(1, (self.n_transient + self.n_steps) // qr_every)
        factors = min(factors, aligned_frame.most_steps(self.n))
        whole = copy(self)
        whole.k, whole.n_transient, whole.n_steps = self.n, 0, factors * qr_every
        seed, used = self.seed, np.zeros(self.runs, bool)

        def of(these: slice) -> tuple[Floats, Floats, Floats, Floats]:
            piece = copy(whole)
            piece.chosen = np.arange(self.runs)[these]
            piece.runs, piece.states = len(piece.chosen), np.ascontiguousarray(self.states[these])
            piece.frame = piece._start_frame(seed)
            start = piece.frame.copy()
            arrays = piece.run(
                qr_every, piece.n_steps, segment=qr_every, threads=threads, progress=False
            )
            used[these] = arrays.status != Status.DIVERGED
            assert arrays.products is not None
            assert arrays.exponents is not None
            return start, arrays.frame, arrays.products, arrays.exponents

        frames, overlap = aligned_frame.aligned(of, self.runs, self.n, self.k, factors)
        self.frame[used] = frames[used]
        overlap[~used] = np.nan
        return overlap, whole.n_steps

    def run(
        self,
        qr_every: int,
        record_every: int,
        *,
        segment: int = 0,
        threads: int | None,
        progress: bool | ProgressBar,
    ) -> _Arrays:
        """All runs, recorded every `record_every` steps, R factors multiplied over `segment`s."""
        if not isinstance(progress, ProgressBar):
            _checks.flag("progress", progress)
        if threads is not None:
            _checks.integer("threads", threads, least=1)
        records = self.n_steps // record_every
        segments = self.n_steps // segment if segment else 0
        arrays = self._arrays(records, segments)
        frames = core.SpectrumRuns(
            self.states, self.start, self.n_transient, self.n_steps, qr_every, record_every,
            arrays.frame, arrays.growth, arrays.loss, arrays.state, arrays.status, arrays.n_done,
            arrays.transient_growth, segment, arrays.products, arrays.exponents,
        )  # fmt: skip
        system, steps = self.system, self.n_transient + self.n_steps
        work: Work
        if isinstance(system, TrainingMap):
            rates, native, how = self.rates(system), system._core, self.method or "auto"
            group, parallel = native.group, True
            per_step = system._step_cost(self.k, self.method) + self.n * self.k**2 / qr_every

            def work(first: int, count: int, signals: Signals) -> None:
                native.spectrum(
                    frames, *rates, how, signals.cancel, signals.done, signals.members, first, count
                )
        else:
            calls = callables(system)
            group, parallel, per_step = callable_work(system, self.states, self.k)

            def work(first: int, count: int, signals: Signals) -> None:
                core.spectrum_of_map(frames, *calls, signals.cancel, signals.done, first, count)

        over_runs(
            work,
            self.runs,
            group=group,
            threads=threads if parallel else 1,
            cost=self.runs * steps * per_step,
            steps=steps,
            progress=progress,
            label="spectrum",
        )
        return arrays

    def _arrays(self, records: int, segments: int) -> _Arrays:
        needed = records * (self.k + 1) + segments * self.k * (self.k + 1)
        _checks.memory(
            f"the history of {records} records (n_steps={self.n_steps}) for {self.runs} runs",
            8.0 * self.runs * needed,
            "record less with record_every= (or take longer windows), or take fewer runs",
        )
        shape = (self.runs, segments, self.k)
        return _Arrays(
            growth=np.empty((self.runs, records, self.k)),
            loss=np.empty((self.runs, records + 1)),
            state=np.empty((self.runs, self.n)),
            frame=self.frame,
            status=np.zeros(self.runs, np.int64),
            n_done=np.zeros(self.runs, np.int64),
            transient_growth=np.full((self.runs, self.k), np.nan),
            products=in_pieces(np.empty((*shape, self.k)), np.nan) if segments else None,
            exponents=np.zeros(shape) if segments else None,
        )

    def run_until(
        self, tol: float, qr_every: int, record_every: int, *, threads: int | None, progress: Any
    ) -> _Arrays:
        """In pieces, each with the runs whose errors are not all below `tol` yet."""
        progress = _checks.flag("progress", progress)
        records = self.n_steps // record_every
        whole = self._arrays(records, 0)
        for array in (whole.growth, whole.loss):
            in_pieces(array, np.nan)
        active, done, size = np.arange(self.runs), 0, max(2 * MIN_RECORDS, records // 64)
        total = self.runs * (self.n_transient + self.n_steps)
        with ProgressBar(total, "spectrum", progress) as bar:
            while active.size:
                size = min(size, records - done)
                piece = self._piece(active, whole, done * record_every, size * record_every)
                part = piece.run(qr_every, record_every, threads=threads, progress=bar)
                if done == 0:
                    whole.transient_growth[:] = part.transient_growth
                done, before = done + size, done
                whole.growth[active, before:done] = part.growth
                whole.loss[active, before : done + 1] = part.loss
                whole.state[active], whole.frame[active] = part.state, part.frame
                whole.status[active] = part.status
                whole.n_done[active] = before * record_every + part.n_done
                alive = part.status == Status.FINISHED
                if done == records:
                    break
                rates = _rates(whole.growth[active, :done], done * record_every)
                destroyed = np.isneginf(rates).any(axis=-2)
                below = ((batch_means(rates).stderr < tol) | destroyed).all(axis=-1) & alive
                whole.status[active[below]] = Status.STOPPED
                active, size = active[alive & ~below], max(1, done // 4)
        return whole

    def _piece(self, runs: Integers, whole: _Arrays, done: int, n_steps: int) -> Plan:
        """The plan of these runs' next steps, `done` of which came before."""
        piece = copy(self)
        piece.runs, piece.chosen, piece.n_steps = len(runs), runs, n_steps
        piece.frame = np.ascontiguousarray(whole.frame[runs])
        if done > 0:
            piece.states = np.ascontiguousarray(whole.state[runs])
            piece.start, piece.n_transient = self.start + self.n_transient + done, 0
        return piece

    def rates(self, system: TrainingMap, after: int = 0) -> tuple[Floats, Floats, Floats]:
        """Learning rate, momentum and decay of each run, for all steps and some `after` them."""
        steps = self.n_transient + self.n_steps + after
        rates = system._rates(self.batch, self.start, steps)
        lr, momentum, decay = (np.ascontiguousarray(rate[self.chosen]) for rate in rates)
        return lr, momentum, decay


_RATE = 4e9  # multiplications per second, as `over_runs` counts them


def callable_work(system: Map, states: Floats, k: int) -> tuple[int, bool, float]:
    """For `over_runs`, of a map of the user's own: runs at once, whether on all threads, and
    multiplications of a step (one that calls Python has no threads to be worth it).

    A compiled map is tried at the first of the states (runs, n): a slow one must not keep the main
    thread from hearing Ctrl-C.
    """
    if not isinstance(system, DiscreteMap) or system._compiled is None:
        return 1, False, 0.0
    seconds = max((system._try(x) for x in states[:1]), default=0.0)
    n = system.n
    return core.group_of_map(n), True, max(1000.0 + 10.0 * n * n * k, _RATE * seconds)


def _flat_states(system: Map, w0: ArrayLike) -> tuple[Floats, tuple[int, ...]]:
    """Finite initial states as (runs, n), and the shape of the batch."""
    if isinstance(system, TrainingMap):
        return system._flat(w0, "w0", finite=True)
    states = _checks.floats("w0", w0)
    if states.ndim == 0 or states.shape[-1] != system.n:
        raise ArgumentError("w0", f"must have shape (..., {system.n}), got {states.shape}")
    return states.reshape(-1, system.n), states.shape[:-1]
