"""Lyapunov exponents: the spectrum and the Kaplan-Yorke dimension."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._native import core
from pylyap._parallel import ProgressBar, Signals, Work, over_runs
from pylyap.maps import METHODS, DiscreteMap, Map, Method, TrainingMap, callables

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

Integers = NDArray[np.int64]

DIVERGED, STOPPED = 1, 2  # of Spectrum.status

# Fewer records than this tell nothing about their own scatter.
_LEAST_RECORDS = 10

# A frame this close to orthonormal is taken as it is.
_ORTHONORMAL = 1e-13

# A trend is flagged where a straight line through the batch means is this unlikely by chance.
_TREND_LEVEL = 0.01


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
        0 finished, 1 diverged (left the finite numbers), 2 stopped early (nan from there on).
    n_done : (...)
        Steps after the transient that were made and stayed finite.
    settings
        What was asked for.
    """

    growth: Floats
    steps: Integers
    loss: Floats
    state: Floats
    frame: Floats
    status: Integers
    n_done: Integers
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def exponents(self) -> Floats:
        """(..., k) mean growth per step over the whole window, nats per step; never sorted.

        Of a run that stopped early over what it made. -inf for a direction that was destroyed, nan
        for a run that diverged.
        """
        result: Floats = self._over_window(lambda growth, n: growth.sum(axis=-2) / n)
        return result

    @cached_property
    def stderr(self) -> Floats:
        """(..., k) standard error of `exponents`, nats per step, corrected for autocorrelation.

        From the scatter of about √n_records means over consecutive blocks. Training is a one-way
        transient: the bar belongs to the average over this window, as if the window were a piece of
        a stationary record, and not to an asymptotic exponent; see `trend`. nan with fewer than 10
        records and for exponents that are not finite.
        """
        result: Floats = self._over_window(lambda g, n: batch_means(_rates(g, n)).stderr)
        return result

    @cached_property
    def trend(self) -> NDArray[np.bool_]:
        """(..., k) whether the exponent drifts across the window more than chance allows (1 %)."""
        result: NDArray[np.bool_] = self._over_window(lambda g, n: batch_means(_rates(g, n)).trend)
        return result

    @property
    def kaplan_yorke(self) -> Floats:
        """(...) Kaplan-Yorke dimension; see `kaplan_yorke_dimension`."""
        return kaplan_yorke_dimension(self.exponents, n=self.state.shape[-1])

    @property
    def _n_steps(self) -> int:
        return int(self.settings["n_steps"])

    def _over_window(self, measure: Callable[[Floats, int], Any]) -> Any:
        """measure(growth, n_steps) of the records (..., n, k) that each run made."""
        stopped = self.status == STOPPED
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
        diverged = int((self.status == DIVERGED).sum())
        k = self.growth.shape[-1]
        lines = [f"Spectrum of {runs} run{'s'[: runs != 1]}" + (f" {batch}" if batch else "")]
        lines[0] += f": {k} exponent{'s'[: k != 1]} of {self.state.shape[-1]}, "
        lines[0] += f"{self._n_steps} steps"
        if diverged:
            lines[0] += f", {diverged} diverged"
        stopped = int((self.status == STOPPED).sum())
        if stopped:
            lines[0] += f", {stopped} stopped early"
        leading = self.exponents[..., 0].ravel()
        finite = leading[np.isfinite(leading)]
        if runs == 1:
            lines.append(
                f"leading {leading[0]:.4g} ± {self.stderr[..., 0].ravel()[0]:.1g} nats per step"
            )
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
            "growth": ([*batch, "step", "exponent"], self.growth, {"units": "nats per record"}),
            "loss": ([*batch, "time"], self.loss, {}),
            "state": ([*batch, "component"], self.state, {}),
            "frame": ([*batch, "component", "exponent"], self.frame, {}),
            "status": (batch, self.status, {"meaning": "0 finished, 1 diverged, 2 stopped early"}),
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
    frame: ArrayLike | None = None,
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
        Steps before the measurement, in which the frame already aligns.
    qr_every
        Steps between two orthonormalisations.
    record_every
        Steps per record of the history, a multiple of `qr_every` that divides `n_steps`; by default
        one record per orthonormalisation.
    frame : (n, k) or (..., n, k) array
        Start frame, independent columns; random and seeded by default.
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
        Errors are looked at some twenty times, at records whose numbers grow by a quarter, so that
        they are below `tol` a little more readily than they should; a destroyed direction has no
        error and holds nothing up.

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
    exponent is -inf and it is replaced by one orthogonal to all others. Training is a transient:
    bars and exponents belong to this window (`Spectrum.stderr`, `Spectrum.trend`).

    References
    ----------
    Benettin et al., Meccanica 15, 9 and 21 (1980). Geist et al., Prog. Theor. Phys. 83, 875 (1990).
    """
    plan = Plan(system, w0, n_steps, k, n_transient, frame, start, method, seed)
    qr_every = _checks.integer("qr_every", qr_every, least=1)
    every = (
        qr_every if record_every is None else _checks.integer("record_every", record_every, least=1)
    )
    if every % qr_every:
        raise ValueError(f"record_every must be a multiple of qr_every={qr_every}, got {every}")
    if plan.n_steps % every:
        name = "qr_every" if record_every is None else "record_every"
        raise ValueError(f"{name} must divide n_steps={plan.n_steps}, got {every}")
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
        "frame": "random" if frame is None else "given",
        "seed": repr(seed),
    }
    if tol is not None:
        settings["tol"] = tol
    batch = plan.batch
    return Spectrum(
        growth=arrays.growth.reshape((*batch, *arrays.growth.shape[1:])),
        steps=np.arange(first, first + plan.n_steps, every),
        loss=arrays.loss.reshape((*batch, arrays.loss.shape[-1])),
        state=arrays.state.reshape((*batch, plan.n)),
        frame=arrays.frame.reshape((*batch, plan.n, plan.k)),
        status=arrays.status.reshape(batch),
        n_done=arrays.n_done.reshape(batch),
        settings=settings,
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
        raise ValueError(f"exponents must have shape (..., k) with k >= 1, got {spectrum.shape}")
    k = spectrum.shape[-1]
    dimension = k if n is None else _checks.integer("n", n)
    if dimension < k:
        raise ValueError(f"n must be at least {k}, the number of exponents, got {dimension}")
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


@dataclass(frozen=True)
class BatchMeans:
    """Standard error of a mean and whether the series drifts, from means over blocks."""

    stderr: Floats
    trend: NDArray[np.bool_]


def batch_means(series: Floats) -> BatchMeans:
    """Error and trend of the mean of `series` (..., T, k) over T, correlations included.

    The series is cut into about √T blocks; if a block outlasts the correlations, block means are
    nearly independent, and their scatter over the root of their number is the standard error. A
    straight line through them, more significant than 1 %, is a trend.

    References
    ----------
    Flegal, Jones, Ann. Stat. 38, 1034 (2010). Flyvbjerg, Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    length = series.shape[-2]
    shape = (*series.shape[:-2], series.shape[-1])
    if length < _LEAST_RECORDS:
        return BatchMeans(np.full(shape, np.nan), np.zeros(shape, bool))
    from scipy.special import stdtrit

    size = max(1, math.isqrt(length) // 2) if length < 100 else math.isqrt(length)
    blocks = length // size
    used = series[..., length - blocks * size :, :]
    with np.errstate(invalid="ignore"):
        means = used.reshape((*shape[:-1], blocks, size, shape[-1])).mean(axis=-2)
        centred = means - means.mean(axis=-2, keepdims=True)
        variance = (centred**2).sum(axis=-2) / (blocks - 1)
        time = np.arange(blocks) - (blocks - 1) / 2
        slope = np.einsum("b,...bk->...k", time, centred) / (time**2).sum()
        residual = centred - time[:, np.newaxis] * slope[..., np.newaxis, :]
        spread = np.sqrt((residual**2).sum(axis=-2) / (blocks - 2) / (time**2).sum())
        # Slopes within rounding of the series itself are no trend (constant growth).
        rounding = 1e-12 * np.abs(means).max(axis=-2) / blocks
        critical = stdtrit(blocks - 2, 1 - _TREND_LEVEL / 2)
        trend = np.abs(slope) > np.maximum(critical * spread, rounding)
        return BatchMeans(np.sqrt(variance / blocks), trend)


def _random_frame(seed: Any, n: int, k: int) -> Floats:
    """Orthonormal (n, k); column i is the same for all k."""
    rng = np.random.default_rng(_checks.seed_sequence(seed))
    drawn = np.ascontiguousarray(rng.standard_normal((k, n)).T)  # wide frames fill the memory
    return core.orthonormalise(drawn, None)[0]


# Drawing a small frame takes longer than a short run of a small net; these are kept.
_CACHED_FRAME = 10_000  # numbers
_cached_frame = lru_cache(maxsize=32)(_random_frame)


@dataclass
class _Arrays:
    """What the kernels write, over flattened runs."""

    growth: Floats
    loss: Floats
    state: Floats
    frame: Floats
    status: Integers
    n_done: Integers
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
            raise TypeError(
                f"system must be a TrainingMap, a DiscreteMap or have n, step and tangent, "
                f"got {_checks.describe(system)}"
            )
        if isinstance(system, TrainingMap) and system.dtype != "float64":
            raise ValueError(
                f"system must have dtype='float64' for tangent vectors along runs, "
                f"got {system.dtype!r}"
            )
        self.system = system
        self.n = system.n
        self.n_steps = _checks.integer("n_steps", n_steps, least=1)
        self.n_transient = _checks.integer("n_transient", n_transient, least=0)
        self.start = _checks.integer("start", start, least=0)
        if method is not None:
            _checks.choice("method", method, METHODS)
        self.method: Method | None = method
        self.states, self.batch = _flat_states(system, w0)
        self.runs = len(self.states)
        self.chosen: Any = slice(None)  # of the flattened batch
        given = None if frame is None else _checks.floats("frame", frame)
        if k is None and given is not None:
            if given.ndim < 2 or not 1 <= given.shape[-1] <= self.n:
                raise ValueError(
                    f"frame must have shape (..., {self.n}, k) with 1 <= k <= {self.n}, "
                    f"got {given.shape}"
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
            raise ValueError(f"frame must have shape (..., {self.n}, {self.k}), got {frame.shape}")
        try:
            spread = np.broadcast_to(frame, (*self.batch, self.n, self.k))
        except ValueError:
            raise ValueError(
                f"frame must broadcast against the batch of runs {self.batch}, got {frame.shape}"
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
                raise ValueError(
                    f"frame must have independent columns, "
                    f"column {int(np.argmin(norms))} depends on those before it"
                )
            # Of an earlier result, say: it goes on with the same bits.
            orthonormal = np.abs(factor - np.eye(self.k)).max() <= _ORTHONORMAL
            out[r] = given if orthonormal else tidy
        return out

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
            segment, arrays.products, arrays.exponents,
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
            calls = callables(system, self.states)
            group, parallel, per_step = callable_work(calls, self.n, self.k)

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
            growth=np.full((self.runs, records, self.k), np.nan),
            loss=np.full((self.runs, records + 1), np.nan),
            state=np.full((self.runs, self.n), np.nan),
            frame=self.frame,
            status=np.zeros(self.runs, np.int64),
            n_done=np.zeros(self.runs, np.int64),
            products=np.full((*shape, self.k), np.nan) if segments else None,
            exponents=np.zeros(shape) if segments else None,
        )

    def run_until(
        self, tol: float, qr_every: int, record_every: int, *, threads: int | None, progress: Any
    ) -> _Arrays:
        """In pieces, each with the runs whose errors are not all below `tol` yet."""
        progress = _checks.flag("progress", progress)
        records = self.n_steps // record_every
        whole = self._arrays(records, 0)
        active, done, size = np.arange(self.runs), 0, max(2 * _LEAST_RECORDS, records // 64)
        total = self.runs * (self.n_transient + self.n_steps)
        with ProgressBar(total, "spectrum", progress) as bar:
            while active.size:
                size = min(size, records - done)
                piece = self._piece(active, whole, done * record_every, size * record_every)
                part = piece.run(qr_every, record_every, threads=threads, progress=bar)
                done, before = done + size, done
                whole.growth[active, before:done] = part.growth
                whole.loss[active, before : done + 1] = part.loss
                whole.state[active], whole.frame[active] = part.state, part.frame
                whole.status[active] = part.status
                whole.n_done[active] = before * record_every + part.n_done
                alive = part.status != DIVERGED
                if done == records:
                    break
                rates = _rates(whole.growth[active, :done], done * record_every)
                destroyed = np.isneginf(rates).any(axis=-2)
                below = ((batch_means(rates).stderr < tol) | destroyed).all(axis=-1) & alive
                whole.status[active[below]] = STOPPED
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
        steps = self.start + self.n_transient + self.n_steps + after
        lr, momentum, decay = (
            np.ascontiguousarray(rate[self.chosen]) for rate in system._rates(self.batch, steps)
        )
        return lr, momentum, decay


def callable_work(calls: tuple[Any, ...], n: int, k: int) -> tuple[int, bool, float]:
    """For `over_runs`, of a map of the user's own: runs at once, whether on all threads, and
    multiplications of a step (a guess; one that calls Python has no threads to be worth it)."""
    if isinstance(calls[0], int):
        return core.group_of_map(n), True, 1000.0 + 10.0 * n * n * k
    return 1, False, 0.0


def _flat_states(system: Map, w0: ArrayLike) -> tuple[Floats, tuple[int, ...]]:
    """Finite initial states as (runs, n), and the shape of the batch."""
    if isinstance(system, TrainingMap):
        return system._flat(w0, "w0", finite=True)
    states = _checks.floats("w0", w0)
    if states.ndim == 0 or states.shape[-1] != system.n:
        raise ValueError(f"w0 must have shape (..., {system.n}), got {states.shape}")
    return states.reshape(-1, system.n), states.shape[:-1]
