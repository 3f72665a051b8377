"""Growth of distances between trajectories: rates, saturation, and growth laws."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._perturbations.laws import LAWS, aicc
from pylyap._perturbations.saturation import saturation_record
from pylyap._statistics import fit_lines

Integers = NDArray[np.int64]

# Windows of the published rule: first record, and number of records.
_STARTS, _LENGTHS = range(0, 101, 5), range(30, 101, 5)

_AT_ONCE = 2**18  # logarithms that are processed at a time, in some 30 arrays of that size


@dataclass(frozen=True, eq=False, repr=False)
class GrowthRate(BatchResult):
    """Exponential growth of distances. Leading axes are the batch.

    Attributes
    ----------
    slope : ndarray, shape (...)
        Growth rate in nats per record; nan where no line fits.
    stderr : ndarray, shape (...)
        Standard error of the slope of an ordinary straight line, for independent residuals.
    intercept : ndarray, shape (...)
        ln distance of the line at record 0.
    r2 : ndarray, shape (...)
        Fraction of the variance of ln distance that the line explains.
    start, stop : ndarray of int, shape (...)
        Records [start, stop) of the line; -1 where there is none.
    saturation : ndarray of int, shape (...)
        Record at which distances reach a factor of e below the level at which growth ends; -1 if
        they do not saturate. See `growth_rate`.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> g = pl.growth_rate(1e-8 * np.exp(0.1 * np.arange(60)), axis=None)
    >>> round(float(g.slope), 6), int(g.saturation)
    (0.1, -1)
    """

    slope: Floats
    stderr: Floats
    intercept: Floats
    r2: Floats
    start: Integers
    stop: Integers
    saturation: Integers

    _UNITS: ClassVar[dict[str, str]] = dict.fromkeys(("slope", "stderr"), "nats per record")

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.slope)


RATE_ARRAYS = tuple(f.name for f in fields(GrowthRate) if f.name not in ("dims", "coords"))


@dataclass(frozen=True, eq=False, repr=False)
class GrowthLaw(BatchResult):
    """Growth laws of distances, ranked by Akaike's criterion. Leading axes are the batch.

    Attributes
    ----------
    names : tuple of str, length n_laws
        ``"exponential"`` A exp(λ t), ``"linear"`` A + B t, ``"square root"`` A + B √t, and
        ``"bounded"`` A − B exp(−t/τ), which levels off within the data: τ is at most their length.
        The last three do not decrease and are not negative at the first record.
    parameters : ndarray, shape (..., n_laws, 3)
        A and λ; A and B; A and B; A, B and τ. nan where a law has fewer, or was not fitted. A and B
        refer to t = 0, which may be far before the records: 0 or inf where they underflow or
        overflow.
    aic : ndarray, shape (..., n_laws)
        Akaike's criterion corrected for few records; the smallest is the best. Differences below 2
        are not significant.
    weight : ndarray, shape (..., n_laws)
        Akaike weights: relative likelihoods of the laws, which sum to 1.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> t = np.arange(50.0)
    >>> str(pl.growth_law(2.0 + 3.0 * t, axis=None).best)
    'linear'
    """

    names: tuple[str, ...]
    parameters: Floats
    aic: Floats
    weight: Floats

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {
        "parameters": ("law", "parameter"),
        "aic": ("law",),
        "weight": ("law",),
    }
    _INDEX: ClassVar[dict[str, str]] = {"names": "law"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.aic.shape[:-1]

    @property
    def best(self) -> NDArray[np.str_]:
        """(...) name of the best law; "" where none fits."""
        fitted = np.isfinite(self.aic).any(axis=-1)
        names = np.array(self.names)[np.where(np.isfinite(self.aic), self.aic, np.inf).argmin(-1)]
        result: NDArray[np.str_] = np.where(fitted, names, "")
        return result


def growth_rate(
    distances: ArrayLike,
    method: Literal["best_window", "until_saturation"] = "best_window",
    axis: int | None = -2,
) -> GrowthRate:
    """Exponential growth rate of distances, from a straight line through ln of their mean.

    Parameters
    ----------
    distances : array_like, shape (..., n_perturbations, T + 1)
        Distances at each record, time last, all at least 0. nan marks perturbed trajectories that
        diverged: the mean is over the others.
    method : {"best_window", "until_saturation"}, default "best_window"
        ``"best_window"`` is the published rule: of the windows that start at records 0, 5, …, 100
        and are 30, 35, …, 100 records long, the one with the largest R². It is a maximum over many
        windows and favours steep ones. ``"until_saturation"`` takes all records before saturation
        (all, if there is none) without selection; its slope does not depend on the recorded length
        of the plateau.
    axis : int or None, default -2
        Axis of perturbations, over which distances are averaged; None if there is none.

    Returns
    -------
    GrowthRate
        Rates of all runs: nothing is filtered. (The published study keeps R² > 0.9 and slopes above
        0.05.) A mean distance of exactly zero has no logarithm: ``"best_window"`` excludes windows
        that contain one, ``"until_saturation"`` excludes such records, and a run with fewer than
        three others before saturation is nan. For the latter method a run is also nan if at some
        record no perturbed trajectory is finite.

    Raises
    ------
    ArgumentError
        If distances are negative, infinite or too few for the shortest window.

    Notes
    -----
    Distances saturate if either of two tests finds a plateau.

    1. Two lines through ln distance that meet at a record, the second flatter than the first, by
       least squares over all records where they might meet. They are growth and a plateau if

       - they fit better than one line: n ln(S₁/S₂) > 3 ln n for n records, where S is the sum of
         squares of residuals, minus ρ times the previous residual. ρ is the correlation of
         neighbouring residuals of the two lines, corrected for its bias, plus two standard errors:
         residuals of a plateau, or of fluctuating growth, are correlated. It is also sufficient
         that the two lines leave less than a tenth of the sum of squares of one;
       - the first rises by more than 1 nat;
       - the second rises at less than half of its rate, and by less than a quarter of its rise or
         at less than 1/50 of its rate.

    2. The last quarter of the records stays within 1 nat and within a tenth of the rise from the
       first record to its median, and its line rises at less than a tenth of the mean rate before
       it. This detects plateaus after growth in several stages, which two lines do not describe.

    Distances that grow as a power of time therefore do not saturate (unless they grow 5000-fold or
    so), nor do distances that shrink to a level.

    The level is the median of as many records after the onset of the plateau as precede it (at
    least 30). The onset is where the two lines meet; if only the second test detects the plateau,
    it is the record of saturation as below with all records and the median of the last quarter.
    Saturation is the record, up to the last of these, that separates records at least a factor of e
    below the level from the others with the fewest exceptions; or the one at which the first line
    comes within a factor of e of the level, if that is earlier. The cost is O(T) per run, and
    O(T log T) for the medians.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).

    Examples
    --------
    >>> t = np.arange(200)
    >>> d = np.minimum(1e-8 * np.exp(0.2 * t), 1.0)
    >>> g = pl.growth_rate(d, "until_saturation", axis=None)
    >>> round(float(g.slope), 3), int(g.stop)
    (0.2, 88)
    """
    _checks.choice("method", method, ("best_window", "until_saturation"))
    logs = _log_mean(distances, axis, _LENGTHS[0] if method == "best_window" else 3)
    flat = logs.reshape(-1, logs.shape[-1])
    saturation = np.full(len(flat), -1, np.int64)
    for rows in _blocks(flat):
        saturation[rows] = saturation_record(flat[rows])
    if method == "best_window":
        fits, starts, stops = _best_window(np.where(np.isneginf(flat), np.nan, flat))
    else:
        stops = np.where(saturation >= 0, saturation, flat.shape[1])
        fits = np.empty((4, len(flat)))
        for rows in _blocks(flat):
            fits[:, rows] = _fit_before(flat[rows], stops[rows])
        fitted = np.isfinite(fits[0])
        starts, stops = np.where(fitted, 0, -1), np.where(fitted, stops, -1)
    shape = logs.shape[:-1]
    slope, error, intercept, r2 = (row.reshape(shape)[()] for row in fits)
    start, stop, level = (row.reshape(shape)[()] for row in (starts, stops, saturation))
    return GrowthRate(slope, error, intercept, r2, start, stop, level)


def growth_law(
    distances: ArrayLike, t: ArrayLike | None = None, axis: int | None = -2
) -> GrowthLaw:
    """Fit four growth laws to the logarithm of the mean distance and rank them.

    Parameters
    ----------
    distances : array_like, shape (..., n_perturbations, T + 1)
        Distances at each record, as in `growth_rate`.
    t : array_like, shape (T + 1,), optional
        Time of each record; 0, 1, … by default. It may begin late: fits use the time since the
        first record.
    axis : int or None, default -2
        Axis of perturbations, over which distances are averaged; None if there is none.

    Returns
    -------
    GrowthLaw
        Least-squares fits of the logarithm, that is, for errors in proportion to the distance.
        Records whose mean distance is zero are excluded; with fewer than six others the fit is nan.

    Raises
    ------
    ArgumentError
        If distances are negative or infinite, or `t` is negative or does not increase.

    References
    ----------
    Burnham, Anderson, Model Selection and Multimodel Inference (2002), for weights and correction.

    Examples
    --------
    >>> t = np.arange(50.0)
    >>> law = pl.growth_law(1e-3 * np.exp(0.1 * t), axis=None)
    >>> str(law.best), law.parameters[0, :2].round(6)
    ('exponential', array([0.001, 0.1  ]))
    """
    logs = _log_mean(distances, axis, 6)
    records = logs.shape[-1]
    times = np.arange(float(records)) if t is None else _checks.floats("t", t)
    if times.shape != (records,):
        raise ArgumentError(
            "t",
            f"must have shape ({records},), a time for each record of distances, got {times.shape}",
        )
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise ArgumentError("t", "must increase from 0 or later")
    flat = logs.reshape(-1, records)
    parameters = np.full((len(flat), len(LAWS), 3), np.nan)
    aic = np.full((len(flat), len(LAWS)), np.nan)
    for r, y in enumerate(flat):
        finite = np.isfinite(y)
        if finite.sum() < 6:
            continue
        for m, fit in enumerate(LAWS.values()):
            found = fit(times[finite], y[finite])
            parameters[r, m, : len(found[0])] = found[0]
            aic[r, m] = aicc(found[1], int(finite.sum()), len(found[0]))
    with np.errstate(invalid="ignore"):
        ahead = aic - np.where(np.isfinite(aic), aic, np.inf).min(axis=-1, keepdims=True)
        weight = np.exp(-0.5 * ahead)
        weight /= np.nansum(weight, axis=-1, keepdims=True)
    shape = logs.shape[:-1]
    return GrowthLaw(
        tuple(LAWS),
        parameters.reshape(*shape, len(LAWS), 3),
        aic.reshape(*shape, len(LAWS)),
        weight.reshape(*shape, len(LAWS)),
    )


def _log_mean(distances: ArrayLike, axis: int | None, least: int) -> Floats:
    """ln of the mean over perturbations, (..., T + 1).

    -inf where the mean is zero, nan where no perturbed trajectory is finite.
    """
    values = _checks.floats("distances", distances, finite=False)
    if np.isinf(values).any() or (values < 0).any():
        raise ArgumentError(
            "distances", "must be finite (or nan where a trajectory diverged) and not negative"
        )
    if axis is not None:
        axis = _checks.integer("axis", axis)
        if not -values.ndim <= axis < values.ndim - 1 or axis == -1:
            raise ArgumentError(
                "distances",
                f"must have an axis of perturbations before time, got {values.shape} "
                f"with axis={axis}; axis=None where there are none",
            )
    if values.ndim == 0 or values.shape[-1] < least:
        raise ArgumentError("distances", f"must have at least {least} records, got {values.shape}")
    if axis is not None:
        there = np.isfinite(values)
        count = there.sum(axis=axis)
        total = np.where(there, values, 0.0).sum(axis=axis)
        values = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    with np.errstate(divide="ignore"):
        logs: Floats = np.log(values)
    return logs


def _fit(y: Floats, first: int = 0) -> Floats:
    """Slope, its error, intercept and R² (4, ...)."""
    line = fit_lines(y, first)
    return np.stack([line.slope, line.stderr, line.intercept, line.r2])


def _best_window(flat: Floats) -> tuple[Floats, Integers, Integers]:
    """The line of largest R² over the published windows; the first of several."""
    best = np.full((4, len(flat)), np.nan)
    starts, stops = (np.full(len(flat), -1, np.int64) for _ in range(2))
    for start in _STARTS:
        for length in _LENGTHS:
            stop = start + length
            if stop > flat.shape[1]:
                break
            fit = _fit(flat[:, start:stop], start)
            with np.errstate(invalid="ignore"):
                better = (fit[3] > best[3]) | (np.isnan(best[3]) & np.isfinite(fit[3]))
            best[:, better] = fit[:, better]
            starts[better], stops[better] = start, stop
    return best, starts, stops


def _blocks(flat: Floats) -> list[slice]:
    """Rows of flat (runs, T), few enough that many arrays of them fit in memory."""
    size = max(1, _AT_ONCE // flat.shape[1])
    return [slice(first, first + size) for first in range(0, len(flat), size)]


def _fit_before(flat: Floats, stops: Integers) -> Floats:
    """Slope, its error, intercept and R² (4, runs) of lines through flat (runs, T) before `stops`.

    Records of -inf are excluded; nan with fewer than three others, or if a record of the run is.
    """
    there = (np.arange(flat.shape[1]) < stops[:, np.newaxis]) & np.isfinite(flat)
    there &= ~np.isnan(flat).any(axis=1, keepdims=True)
    n = there.sum(axis=1)
    t = np.arange(float(flat.shape[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        time = np.where(there, t, 0.0).sum(axis=1) / n
        mean = np.where(there, flat, 0.0).sum(axis=1) / n
        late = np.where(there, t - time[:, np.newaxis], 0.0)
        y = np.where(there, flat - mean[:, np.newaxis], 0.0)
        square = (late**2).sum(axis=1)
        slope = (y * late).sum(axis=1) / square
        total = (y**2).sum(axis=1)
        residual = ((y - slope[:, np.newaxis] * late) ** 2).sum(axis=1)
        r2 = np.where(total > 0, 1.0 - residual / total, np.nan)
        error = np.sqrt(residual / (n - 2) / square)
        fits = np.stack([slope, error, mean - slope * time, r2])
    fits[:, n < 3] = np.nan
    return fits
