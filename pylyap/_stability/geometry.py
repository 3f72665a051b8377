"""Dimension of a border: counts of boxes, and pairs of neighbours that end differently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._results import Result

if TYPE_CHECKING:
    from pylyap.stability_maps import StabilityMap

Integers = NDArray[np.int64]

_COARSEST = 16  # boxes of the largest size along the shorter side
_FEWEST = 8  # boxes of a size that is used
_BLOCKS = 8  # of the jackknife, along each side
_SCALES = 3  # that a fit needs
_LEVEL = 0.95  # of intervals


@dataclass(frozen=True, eq=False, repr=False)
class BoxDimension(Result):
    """Box-counting dimension of a border. `box_dimension` returns it.

    Attributes
    ----------
    dimension : float
        Estimate; nan if there is no border or too few scales, see `reason`.
    stderr : float
        Standard error: the scatter of the counts about a power law and the variation among parts of
        the map, added in quadrature.
    interval : ndarray, shape (2,)
        95 % confidence interval, with Student's distribution of the number of sizes less 2.
    sizes : ndarray of int, shape (n_sizes,)
        Sides of the boxes in pixels, 1, 2, 4, ….
    counts : ndarray of int, shape (n_sizes,)
        Number of boxes that contain the border.
    reason : str
        Why the dimension is nan; otherwise empty.

    Examples
    --------
    >>> y, x = np.mgrid[:257, :257]
    >>> pl.box_dimension(y > 0.3 * x + 80).counts.tolist()
    [332, 166, 83, 41, 20]
    """

    dimension: float
    stderr: float
    interval: Floats
    sizes: Integers = field(repr=False)
    counts: Integers = field(repr=False)
    reason: str = field(repr=False, default="")

    def __repr__(self) -> str:
        return f"BoxDimension: {_estimate(self.dimension, self)}"


@dataclass(frozen=True, eq=False, repr=False)
class UncertaintyExponent(Result):
    """Exponent of the fraction of pairs that end differently. `uncertainty_exponent` returns it.

    Attributes
    ----------
    exponent : float
        Estimate of α in f(ε) ∝ ε^α; nan if no pairs differ or scales are too few, see `reason`.
    stderr, interval
        As of `BoxDimension`.
    dimension : float
        d − α with the number d of axes, 1 or 2: the dimension of the border.
    distances : ndarray of int, shape (n_distances,)
        Distances ε in pixels, 1, 2, 4, ….
    fractions : ndarray, shape (n_distances,)
        Fraction of the pairs at each distance, along all axes, that end differently.
    reason : str
        Why the exponent is nan; otherwise empty.

    Examples
    --------
    >>> y, x = np.mgrid[:257, :257]
    >>> found = pl.uncertainty_exponent(y > 0.3 * x + 80)
    >>> round(found.exponent, 2), round(found.dimension, 2)
    (1.0, 1.0)
    """

    exponent: float
    stderr: float
    interval: Floats
    dimension: float
    distances: Integers = field(repr=False)
    fractions: Floats = field(repr=False)
    reason: str = field(repr=False, default="")

    def __repr__(self) -> str:
        return f"UncertaintyExponent: {_estimate(self.exponent, self)}"


def box_dimension(ends: StabilityMap | ArrayLike) -> BoxDimension:
    """Box-counting dimension of the border between runs that end differently.

    Parameters
    ----------
    ends : StabilityMap or array_like, shape (n,) or (ny, nx)
        A map, of which `converged` is taken, or the end of each run: booleans or integers, such as
        the number of the attractor or the time of escape.

    Returns
    -------
    BoxDimension
        Dimension with its standard error, and the counts.

    Raises
    ------
    ArgumentError
        If `ends` are not booleans or integers on one or two axes.

    See Also
    --------
    uncertainty_exponent : The same border from pairs of neighbours.

    Notes
    -----
    A box has sides of s = 1, 2, 4, … spacings of pixels up to a sixteenth of the shorter side. It
    contains the border if the runs at its corners end differently: the same measurement at every
    scale, so that details below the spacing, which no grid resolves, have the same effect on all
    counts. The dimension is −d ln N/d ln s, by least squares with weights N, over all sizes with
    eight boxes or more; three sizes are needed.

    The standard error has two parts: that of the slope from the scatter of ln N about the line, and
    a jackknife over 8 × 8 parts of the map. Both are needed: counts at different scales share the
    same piece of border, and a power law may have oscillations in ln s. A border whose local slope
    drifts with s, as a self-affine one has, is no power law: look at the plot.

    References
    ----------
    Falconer, Fractal Geometry (Wiley, 2014), chapter 2.

    Examples
    --------
    The border of the sum of two random walks, one along each axis, has the dimension 3/2:

    >>> steps = np.random.default_rng(0).normal(size=(2, 513))
    >>> across, down = np.cumsum(steps, axis=1)
    >>> found = pl.box_dimension(across + down[:, np.newaxis] > 0)
    >>> bool(found.interval[0] < 1.5 < found.interval[1])
    True
    """
    labels = _labels(ends)
    sizes = _scales(labels)
    parts = _rows([_by_part(_cells(labels, int(s))) for s in sizes])
    counts = parts.sum(axis=1)
    used = counts >= _FEWEST
    reason = _reason(labels, int(used.sum()))
    slope, stderr = (np.nan, np.nan) if reason else _fit(sizes[used], parts[used], counts[used])
    return BoxDimension(
        dimension=-slope,
        stderr=stderr,
        interval=_interval(-slope, stderr, int(used.sum())),
        sizes=sizes,
        counts=counts.astype(np.int64),
        reason=reason,
    )


def uncertainty_exponent(ends: StabilityMap | ArrayLike) -> UncertaintyExponent:
    """Exponent α of the fraction f(ε) ∝ ε^α of pairs at a distance ε that end differently.

    Parameters
    ----------
    ends : StabilityMap or array_like, shape (n,) or (ny, nx)
        As for `box_dimension`.

    Returns
    -------
    UncertaintyExponent
        Exponent with its standard error, the dimension d − α of the border, and the fractions.

    Raises
    ------
    ArgumentError
        If `ends` are not booleans or integers on one or two axes.

    See Also
    --------
    box_dimension : The dimension from counts of boxes.

    Notes
    -----
    With a small α a better precision of the settings hardly improves a prediction: to halve the
    uncertain fraction takes a precision 2^(1/α) times better. A smooth border has α = 1.

    Pairs are ε = 1, 2, 4, … pixels apart along an axis, up to a sixteenth of the shorter side; the
    first points of the pairs are the same for all ε. Fit and standard error are those of
    `box_dimension`.

    References
    ----------
    Grebogi, McDonald, Ott, Yorke, Phys. Lett. A 99, 415 (1983).

    Examples
    --------
    >>> steps = np.random.default_rng(0).normal(size=(2, 513))
    >>> across, down = np.cumsum(steps, axis=1)
    >>> found = pl.uncertainty_exponent(across + down[:, np.newaxis] > 0)
    >>> bool(found.interval[0] < 0.5 < found.interval[1])
    True
    """
    labels = _labels(ends)
    distances = _scales(labels)
    reach = int(distances[-1]) if len(distances) else 1
    pairs = [_pairs(labels, int(s), reach) for s in distances]
    total = pairs[0].size * labels.ndim if pairs else 1
    d = labels.ndim
    # Pairs that differ come in groups of s^d: their number over s^d is a count of boxes.
    parts = _rows([_by_part(p) / float(s) ** d for p, s in zip(pairs, distances, strict=True)])
    counts = parts.sum(axis=1)
    used = counts >= _FEWEST
    reason = _reason(labels, int(used.sum()))
    slope, stderr = (np.nan, np.nan) if reason else _fit(distances[used], parts[used], counts[used])
    return UncertaintyExponent(
        exponent=slope + d,
        stderr=stderr,
        interval=_interval(slope + d, stderr, int(used.sum())),
        dimension=d - (slope + d),
        distances=distances,
        fractions=counts * distances.astype(float) ** d / total,
        reason=reason,
    )


# --- measurements ---------------------------------------------------------------------------------


def _labels(ends: Any) -> NDArray[Any]:
    found = getattr(ends, "converged", None)
    labels = _checks.array("ends", ends if found is None else found)
    if labels.dtype.kind not in "biu":
        raise ArgumentError(
            "ends", f"must be a StabilityMap, booleans or integers, got dtype {labels.dtype}"
        )
    if labels.ndim not in (1, 2) or min(labels.shape) < 2:
        raise ArgumentError(
            "ends", f"must have shape (n,) or (ny, nx) of 2 or more, got {labels.shape}"
        )
    return labels


def _scales(labels: NDArray[Any]) -> Integers:
    most = (min(labels.shape) - 1) // _COARSEST
    return np.array([1 << i for i in range(max(most, 0).bit_length())], np.int64)


def _cells(labels: NDArray[Any], s: int) -> NDArray[np.bool_]:
    """Whether the corners of each box of side s differ."""
    c = labels[tuple(slice(None, None, s) for _ in labels.shape)]
    if c.ndim == 1:
        found: NDArray[np.bool_] = c[1:] != c[:-1]
        return found
    corner = c[:-1, :-1]
    differ: NDArray[np.bool_] = c[1:, 1:] != corner
    differ |= c[1:, :-1] != corner
    differ |= c[:-1, 1:] != corner
    return differ


def _pairs(labels: NDArray[Any], s: int, reach: int) -> NDArray[np.int64]:
    """Number of axes along which each pixel and the one at the distance s end differently."""
    base = labels[tuple(slice(0, n - reach) for n in labels.shape)]
    found = np.zeros(base.shape, np.int64)
    for axis in range(labels.ndim):
        there = tuple(
            slice(s, n - reach + s) if i == axis else slice(0, n - reach)
            for i, n in enumerate(labels.shape)
        )
        found += base != labels[there]
    return found


def _rows(rows: list[Floats]) -> Floats:
    return np.array(rows) if rows else np.zeros((0, 1))


def _by_part(values: NDArray[Any]) -> Floats:
    """Sums over parts of the map, _BLOCKS along each axis, in one row."""
    for axis in range(values.ndim):
        edges = np.arange(_BLOCKS) * values.shape[axis] // _BLOCKS
        values = np.add.reduceat(values, edges, axis=axis, dtype=np.int64)
    return values.reshape(-1).astype(float)


# --- estimates ------------------------------------------------------------------------------------


def _fit(scales: Integers, parts: Floats, counts: Floats) -> tuple[float, float]:
    """Slope of ln counts in ln scales, with weights of the counts, and its standard error."""
    x, w = np.log(scales.astype(float)), counts / counts.sum()
    x = x - (w * x).sum()
    spread = (w * x**2).sum()

    def slope(n: Floats) -> float:
        return float((w * x * np.log(n)).sum() / spread)

    found = slope(counts)
    rest = np.log(counts) - found * x
    rest -= (w * rest).sum()
    scatter = (w * rest**2).sum() / spread / (len(x) - 2)
    rows = parts[:, parts.any(axis=0)]
    without = np.array([slope(n) for n in (counts[:, np.newaxis] - rows).T if (n > 0).all()])
    m = len(without)
    variance = (m - 1) / m * ((without - without.mean()) ** 2).sum() if m > 1 else np.inf
    return found, float(np.sqrt(scatter + variance))


def _interval(value: float, stderr: float, n_scales: int) -> Floats:
    if not np.isfinite(value):
        return np.full(2, np.nan)
    from scipy.stats import t

    reach = stderr * float(t.ppf(0.5 + _LEVEL / 2.0, n_scales - 2))
    return np.array([value - reach, value + reach])


def _reason(labels: NDArray[Any], n_scales: int) -> str:
    """Why there is no estimate; empty if there is one."""
    if (labels == labels.flat[0]).all():
        if labels.dtype.kind == "b":
            return f"no border: {'every' if labels.flat[0] else 'no'} run converged"
        return "no border: all runs end alike"
    if n_scales < _SCALES:
        return (
            f"{n_scales} sizes with {_FEWEST} boxes or more, {_SCALES} are needed: "
            f"{_COARSEST * 2 ** (_SCALES - 1) + 1} pixels along each side, and a longer border"
        )
    return ""


def _estimate(value: float, result: BoxDimension | UncertaintyExponent) -> str:
    if result.reason:
        return f"nan ({result.reason})"
    low, high = result.interval
    return f"{value:.4f} ± {result.stderr:.4f}, 95 % within {low:.3f} ... {high:.3f}"
