"""Lyapunov exponents: the spectrum and the Kaplan-Yorke dimension."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult, batch_axes
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap._native import core
from pylyap._parallel import ProgressBar
from pylyap._statistics import BatchMeans as BatchMeans
from pylyap._statistics import batch_means as batch_means
from pylyap._status import STATUS_MEANING, Status
from pylyap._tangent import aligned_frame
from pylyap._tangent.benettin import align, benettin, benettin_until, growth_rates
from pylyap._tangent.frames import Plan, plan_runs, steps_from
from pylyap.maps import Map, Method

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

    from pylyap._native import core

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(BatchResult):
    """Lyapunov exponents of a batch of runs, with their history.

    Leading axes are the batch; `lyapunov_spectrum` returns it.

    Attributes
    ----------
    growth : ndarray, shape (..., n_records, k)
        Log growth summed over each record, nats; nan from the record in which a run diverged.
    steps : ndarray of int, shape (n_records,)
        Index of the first step of each record.
    loss : ndarray, shape (..., n_records + 1)
        Loss of the whole data at the start of each record and at the end; nan for maps without one.
    state : ndarray, shape (..., n)
        Last state; nan for a run that diverged.
    frame : ndarray, shape (..., n, k)
        Last frame, orthonormal columns.
    status : ndarray of int, shape (...)
        How each run ended, see `Status`; results are nan after a divergence or an exception.
    n_done : ndarray of int, shape (...)
        Number of steps after the transient with a finite state.
    settings : dict
        Arguments of `lyapunov_spectrum`.
    transient_growth : ndarray, shape (..., k)
        Log growth of the frame summed over the transient, nats; nan for a run that diverged in it.
    overlap : ndarray, shape (..., k), or None
        For an aligned start frame, ln of the pivots of its product with the frame after the steps
        it was computed from; see `alignment_error`.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((4, 3, 3), loss="cross_entropy")
    >>> system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.1))
    >>> spectrum = pl.lyapunov_spectrum(system, net.init("normal", runs=2, seed=0), 100, k=5)
    >>> spectrum.exponents.shape, spectrum.growth.shape
    ((2, 5), (2, 100, 5))
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

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape

    @cached_property
    def exponents(self) -> Floats:
        """Mean growth per step over the whole window, (..., k), nats per step; not sorted.

        For a run that stopped early, the mean over the steps it made. -inf for a direction that was
        destroyed, nan for a run that diverged or whose function raised an exception.
        """
        result: Floats = self._over_window(lambda growth, n: growth.sum(axis=-2) / n)
        return result

    @cached_property
    def stderr(self) -> Floats:
        """Standard error of `exponents`, (..., k), nats per step, corrected for autocorrelation.

        `exponents` ± 1.96 `stderr` is a 95 % confidence interval: Student's quantile for the few
        degrees of freedom of correlated records is included in the error. Its coverage is at least
        90 % for records like an AR(1) process with a coefficient of at most 0.95 (a correlation
        time of 20 records), also for few records, where the error is large.

        Training is a one-way transient: the error belongs to the average over this window, as if
        the window were a section of a stationary record, and not to an asymptotic exponent; see
        `trend`. nan with fewer than 16 records, too few to estimate their correlation, and for
        exponents that are not finite.
        """
        result: Floats = self._over_window(lambda g, n: batch_means(growth_rates(g, n)).stderr)
        return result

    @cached_property
    def trend(self) -> NDArray[np.bool_]:
        """Whether the exponent drifts significantly across the window (at 1 %), (..., k).

        The test allows for correlation times of up to 30 records (AR(1) with a coefficient of up to
        0.97). False with fewer than 16 records and for exponents that are not finite.
        """
        result: NDArray[np.bool_] = self._over_window(
            lambda g, n: batch_means(growth_rates(g, n)).trend
        )
        return result

    @cached_property
    def alignment_error(self) -> Floats:
        """Estimated error of `exponents` due to a start frame that was not aligned, (..., k).

        In nats per step: the distance to the exponents, over the same steps, of a frame that was
        aligned by all earlier steps. It falls as 1/T with the number of steps T, is not contained
        in `stderr`, and adds to it. Without a transient it is an upper estimate for 98 % of the
        random frames: T times the error is the logarithm of a ratio of two cosines of random
        angles, a few nats, and about ln(n)/2 for the first of n >> 1 exponents. A transient reduces
        it by the growth of neighbouring directions in the transient, except for the last of k < n
        exponents, whose neighbour is not computed. Where directions have hardly separated within
        the window the error is smaller. For ``frame="aligned"`` it is estimated from the difference
        between the frames before and after the steps that the start frame was computed from: 0 for
        constant symmetric Jacobians. nan for a frame that was given.

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
        """Kaplan-Yorke dimension, (...); see `kaplan_yorke_dimension`."""
        return kaplan_yorke_dimension(self.exponents, n=self.state.shape[-1])

    @property
    def _n_steps(self) -> int:
        return int(self.settings["n_steps"])

    def _over_window(self, measure: Callable[[Floats, int], Any]) -> Any:
        """Results of measure(growth, n_steps) over the records that each run made."""
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
        runs = self.status.size
        diverged = int((self.status == Status.DIVERGED).sum())
        k = self.growth.shape[-1]
        lines = [
            f"Spectrum of {runs} run{'s'[: runs != 1]}"
            + (f" ({self._batch_text})" if self._batch_text else "")
        ]
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
        parts = list(self._parts())
        if 1 < len(parts) <= 8:
            for name, at in parts:
                values = np.atleast_1d(self.exponents[..., 0][at])
                values = values[np.isfinite(values)]
                text = f"{np.median(values):.4g} nats per step" if values.size else "none finite"
                lines.append(f"{name}: leading {text}" + (" (median)" if values.size > 1 else ""))
        elif runs == 1:
            error = float(self.stderr[..., 0].ravel()[0])
            start = float(self.alignment_error[..., 0].ravel()[0])
            known = "" if np.isnan(error) else f" ± {error:.1g}"
            lines.append(f"leading {leading[0]:.4g}{known} nats per step")
            if not self.settings.get("n_transient", 0) and start > max(
                np.nan_to_num(error), 0.01 * abs(leading[0])
            ):
                lines.append(
                    f"without a transient: error of up to {start:.1g} due to the start frame"
                )
        elif finite.size:
            lines.append(
                f"leading {finite.min():.4g} ... {finite.max():.4g}, "
                f"median {np.median(finite):.4g} nats per step"
            )
        return "\n  ".join(lines)

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset.

        Returns
        -------
        xarray.Dataset
            All results with labelled dimensions; units and settings are attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        dataset = dataset_class()
        batch = list(self.dims)
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
        } | self._labels
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
    seed: Seed = 0,
    tol: float | None = None,
) -> Spectrum:
    """Leading Lyapunov exponents along runs, by Benettin's method, with their history.

    A frame of k tangent vectors is propagated along each run, Q R = J(x_t) Q at every step with
    diag R > 0; the exponents are the means of ln diag R.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`.
    w0 : array_like, shape (..., n) or (..., n_params)
        Initial states or weights, one run per row. Finite.
    n_steps : int
        Number of measured steps, after the transient.
    k : int, optional
        Number of exponents, 1 to n; all by default. The first k do not depend on k.
    n_transient : int, default 0
        Number of steps before the measurement, in which the frame aligns. Without them exponents
        have an error of a few nats over `n_steps`, which is not part of the standard error. Use
        some multiple of the inverse gaps between exponents where this matters
        (`Spectrum.alignment_error`), or ``frame="aligned"`` where no step may be left out, as in
        training.
    qr_every : int, default 1
        Steps between two orthonormalisations.
    record_every : int, optional
        Steps per record of the history, a multiple of `qr_every` that divides `n_steps`; by default
        one record per orthonormalisation.
    frame : array_like, shape (n, k) or (..., n, k), or "aligned", optional
        Start frame, independent columns; random by default. ``"aligned"`` takes the leading right
        singular vectors of the product of the Jacobians of the first steps, for each run. A
        k-volume spanned by them grows by the product of the k largest singular values, the largest
        possible factor, so that the alignment error is at most 0.03 nats. All n vectors are
        propagated over these steps first: all steps of the run, or as many as have n × n factors of
        256 MB together (see `settings`). The frame of a run that diverges within them is random.
    start : int, default 0
        Index t of the first step (minibatches and Adam depend on it).
    method : {"dense", "matrix-free"}, optional
        Method of the tangents of a `TrainingMap`. By default the one with fewer operations.
    threads : int, optional
        Number of threads, at most one per core this process may use, which is the default.
        Results do not depend on it.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the random start frame.
    tol : float, optional
        Stop a run once the standard errors of all its exponents are below this, in nats per step.
        Standard errors are checked about twenty times, at numbers of records that grow by a quarter
        (32 or more), so that they fall below `tol` slightly too early. Destroyed directions have no
        error and are ignored; any other error that is nan never stops a run.

    Returns
    -------
    Spectrum
        Exponents in nats per step, their standard errors, growth history, losses, last states.

    Raises
    ------
    ArgumentError
        If an argument is out of range, `system` is not a map, or the result would not fit in
        memory.

    Notes
    -----
    A direction whose growth is below the rounding error of its computation is destroyed: its
    exponent is -inf and it is replaced by one orthogonal to all others. This is a limit of double
    precision: between two orthonormalisations the component of a direction orthogonal to those
    before it has to stay above about 1e-15 √n of its length. A single step with
    J = [[1, 1], [0, 1e-20]] exceeds the limit and gives −inf instead of ln 1e-20 = −46.05. Growth
    that all directions have in common is not limited. Training is a transient: standard errors and
    exponents belong to this window (`Spectrum.stderr`, `Spectrum.trend`).

    References
    ----------
    Benettin et al., Meccanica 15, 9 and 21 (1980). Geist et al., Prog. Theor. Phys. 83, 875 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> cat = pl.DiscreteMap(
    ...     lambda x: np.array([2 * x[0] + x[1], x[0] + x[1]]) % 1.0,
    ...     lambda x: np.array([[2.0, 1.0], [1.0, 1.0]]),
    ...     n=2,
    ... )
    >>> spectrum = pl.lyapunov_spectrum(cat, [0.1, 0.2], n_steps=200, n_transient=50)
    >>> spectrum.exponents.round(6)  # ± ln((3 + √5) / 2)
    array([ 0.962424, -0.962424])
    """
    aligned = isinstance(frame, str)
    if isinstance(frame, str):
        _checks.choice("frame", frame, ("aligned",))
    used_seed = _checks.seed_sequence(seed) if aligned else seed  # for frames of k and of n vectors
    qr_every = _checks.integer("qr_every", qr_every, least=1)
    given = None if isinstance(frame, str) else frame
    plan = plan_runs(system, w0, n_steps, k, n_transient, given, start, method, used_seed)
    every = _record_length(plan.n_steps, qr_every, record_every)
    settings: dict[str, Any] = {
        "system": repr(system),
        "n_steps": plan.n_steps,
        "n_transient": plan.n_transient,
        "qr_every": qr_every,
        "record_every": every,
        "start": plan.start,
        "method": plan.method or "automatic",
        "frame": "aligned" if aligned else "random" if frame is None else "given",
        "seed": repr(seed),
    }
    overlap = None
    if aligned:
        plan, overlap, settings["aligned_over"] = align(plan, qr_every, used_seed, threads)
    if tol is None:
        runs = benettin(plan, qr_every, every, threads=threads, progress=progress)
    else:
        tol = settings["tol"] = _checks.real("tol", tol, above=0.0)
        runs = benettin_until(plan, tol, qr_every, every, threads=threads, progress=progress)
    return _spectrum(plan, runs, settings, overlap)


def _record_length(n_steps: int, qr_every: int, record_every: int | None) -> int:
    """Steps per record, checked; `qr_every` by default."""
    every = (
        qr_every if record_every is None else _checks.integer("record_every", record_every, least=1)
    )
    if every % qr_every:
        raise ArgumentError(
            "record_every", f"must be a multiple of qr_every={qr_every}, got {every}"
        )
    if n_steps % every:
        name = "qr_every" if record_every is None else "record_every"
        raise ArgumentError(name, f"must divide n_steps={n_steps}, got {every}")
    return every


def _spectrum(
    plan: Plan, runs: core.SpectrumRuns, settings: dict[str, Any], overlap: Floats | None
) -> Spectrum:
    records = runs.growth.shape[1]
    first, every = plan.start + plan.n_transient, plan.n_steps // records
    names = ("growth", "loss", "state", "frame", "status", "n_done", "transient_growth")
    return Spectrum(
        steps=steps_from(first, records, every),
        settings=settings,
        overlap=plan.shaped(overlap),
        **batch_axes(plan.system, plan.batch),
        **{name: plan.shaped(getattr(runs, name)) for name in names},
    )


def kaplan_yorke_dimension(exponents: ArrayLike, n: int | None = None) -> Floats:
    """Kaplan-Yorke (Lyapunov) dimension of spectra.

    With exponents in descending order, D = j + (λ₁ + … + λ_j)/|λ_{j+1}| for the largest j whose
    partial sum is not negative. 0 if λ₁ < 0, n if no partial sum of the whole spectrum is negative,
    and nan (unknown) if only k < n exponents are given and no partial sum is negative.

    Parameters
    ----------
    exponents : array_like, shape (..., k)
        Exponents, in any order.
    n : int, optional
        Length of a state; k by default: the spectrum is complete.

    Returns
    -------
    ndarray, shape (...)
        Dimensions; nan where an exponent is nan.

    Raises
    ------
    ArgumentError
        If there are no exponents, or n is less than k.

    References
    ----------
    Kaplan, Yorke, Lect. Notes Math. 730, 204 (1979).

    Examples
    --------
    >>> import pylyap as pl
    >>> float(pl.kaplan_yorke_dimension([0.42, -1.62]).round(3))  # Hénon map
    1.259
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
