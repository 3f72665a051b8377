"""Samples of initial and later weights: scopes, bins, moments, peaks and quantiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._parameters import Entries, layer_slices, parameter_mask
from pylyap.network import Network

Integers = NDArray[np.int64]

LEVELS = (0.02, 0.25, 0.5, 0.75, 0.98)

# The peak is the median of the shortest interval that contains n^0.8 of n members. For n of 100 to
# 10⁴ its error (root mean square of 2000 to 200 samples, November 2026) is 0.6 to 0.9 of that of
# the half-sample mode for normal, Laplace, Student (2), gamma (3) and lognormal (0.5) numbers. The
# optimum is flat but one-sided: a power of 0.75 is a tenth worse; 0.85 is a tenth better, but half
# worse for a Laplace distribution of two slopes, and 0.9 misses a tenth of exact zeros beside a
# normal distribution at one. Trained weights have slopes and zeros (dead units).
_PEAK_POWER = 0.8


class Pairs:
    """Initial and later weights of runs, by scope."""

    def __init__(
        self, w_i: ArrayLike, w_f: ArrayLike, network: Network | None, entries: Entries | ArrayLike
    ) -> None:
        before = _checks.floats("w_i", w_i, finite=False)
        after = _checks.floats("w_f", w_f, finite=False)
        self.scopes: tuple[str, ...]
        self._places: list[Any]
        if network is None:
            core, what = 2, "(..., n_out, n_in) without a network"
            if not (isinstance(entries, str) and entries == "weights"):
                raise ArgumentError(
                    "entries",
                    f"must be 'weights' without a network, got {_checks.describe(entries)}",
                )
        elif isinstance(network, Network):
            core, what = 1, f"(..., {network.n_params})"
        else:
            raise ArgumentTypeError(
                "network", f"must be a Network, got {_checks.describe(network)}"
            )
        if before.ndim < core or (network and before.shape[-1] != network.n_params):
            raise ArgumentError("w_i", f"must have shape {what}, got {before.shape}")
        self.batch, inner = before.shape[: before.ndim - core], before.shape[-core:]
        self.snapshots = after.ndim == before.ndim + 1
        self.times = (after.shape[-core - 1],) if self.snapshots else (1,)
        expected = (*self.batch, *(self.times if self.snapshots else ()), *inner)
        if after.shape != expected:
            raise ArgumentError(
                "w_f",
                f"must have the shape of w_i, {before.shape}, or one axis of snapshots before "
                f"the weights, got {after.shape}",
            )
        for name, array in (("w_i", before), ("w_f", after)):
            if array.size == 0:
                raise ArgumentError(name, f"must not be empty, got shape {array.shape}")
        self.runs = math.prod(self.batch)
        self._before = before.reshape(self.runs, -1)
        self._after = after.reshape(self.runs, self.times[0], -1)
        if network is None:
            self.scopes, self._places = ("matrix",), [slice(None)]
        else:
            self.scopes, self._places = _scopes(network, entries)

    def size(self, scope: int) -> int:
        return len(self._before[0, self._places[scope]])

    @property
    def largest(self) -> int:
        """Weights of a run in the largest scope."""
        return self.size(0)

    def edges(self, scope: int, given: int | Floats) -> Floats:
        """Edges of a scope's bins; nan if no initial weights are finite."""
        if not isinstance(given, int):
            return given
        low, high = math.inf, -math.inf
        for row in self._before:
            x = row[self._places[scope]]
            least, most = x.min(), x.max()
            if math.isfinite(least) and math.isfinite(most):
                low, high = min(low, least), max(high, most)
        if low > high:
            return np.full(given + 1, np.nan)
        if given == 0:
            return np.array([low])
        try:
            edges: Floats = np.histogram_bin_edges(np.array([low, high]), given)
        except ValueError:
            raise ArgumentError(
                "bins",
                f"must be fewer, or edges, where w_i lies in {low:g} ... {high:g}, got {given}",
            ) from None
        return edges

    def sample(self, scope: int, rows: list[int], t: int) -> tuple[Floats, Floats]:
        """w_i and w_f of the given runs that are finite; empty if none is."""
        place = self._places[scope]
        seen = [(self._before[r, place], self._after[r, t, place]) for r in rows]
        finite = [(x, y) for x, y in seen if np.isfinite(x).all() and np.isfinite(y).all()]
        if len(finite) == 1:
            return finite[0]
        if not finite:
            return np.empty(0), np.empty(0)
        return np.concatenate([x for x, _ in finite]), np.concatenate([y for _, y in finite])


class Groups:
    """Values in the bins of x, sorted within each bin, for bins with enough members.

    `count` (n_bins,) is of all bins; `full` (g,) are the bins with enough members, and `values`,
    `starts` and `sizes` are of those.
    """

    def __init__(self, x: Floats, values: Floats, edges: Floats, least_count: int) -> None:
        n_bins = len(edges) - 1
        index = np.searchsorted(edges, x, side="right") - 1
        index[x == edges[-1]] = n_bins - 1
        inside = (index >= 0) & (index < n_bins)
        if not inside.all():
            index, values = index[inside], values[inside]
        self.count = np.bincount(index, minlength=n_bins)
        enough = self.count >= least_count
        self.full = np.flatnonzero(enough)
        self.sizes = self.count[self.full]
        self.starts = np.cumsum(self.sizes) - self.sizes
        if not enough.all():
            kept = enough[index]
            index, values = index[kept], values[kept]
        # By value, then stably by bin; for 16-bit integers the stable sort is a radix sort.
        order = np.argsort(values)
        small = index[order].astype(np.int16 if n_bins < 2**15 else np.int64)
        self.values = values[order[np.argsort(small, kind="stable")]]

    def quantiles(self) -> Floats:
        """(g, n_levels) quantiles, interpolated linearly between members."""
        at = np.array(LEVELS) * (self.sizes - 1)[:, np.newaxis]
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, (self.sizes - 1)[:, np.newaxis])
        left, right = (self.values[self.starts[:, np.newaxis] + i] for i in (below, above))
        result: Floats = left + (at - below) * (right - left)
        return result

    def peaks(self) -> Floats:
        """(g,) medians of the shortest intervals that contain n^0.8 of n members."""
        hold = np.ceil(self.sizes**_PEAK_POWER).astype(np.int64)
        first = np.arange(len(self.values))
        last = first + np.repeat(hold - 1, self.sizes)
        inside = last < np.repeat(self.starts + self.sizes, self.sizes)
        width = np.full(len(first), np.inf)
        width[inside] = self.values[last[inside]] - self.values[first[inside]]
        shortest = np.repeat(np.minimum.reduceat(width, self.starts), self.sizes)
        found = np.flatnonzero(inside & (width == shortest))
        begin = found[np.searchsorted(found, self.starts)]
        result: Floats = 0.5 * (
            self.values[begin + (hold - 1) // 2] + self.values[begin + hold // 2]
        )
        return result


def moments(values: Floats, starts: Integers, sizes: Integers, size: float) -> Floats:
    """Mean, variance, skewness and excess kurtosis (4, g) of consecutive groups.

    Skewness and kurtosis are nan where the spread is below the rounding of numbers of this size.
    """
    mean = np.add.reduceat(values, starts) / sizes
    centred = values - np.repeat(mean, sizes)
    square = centred * centred
    second, third, fourth = (
        np.add.reduceat(power, starts) / sizes for power in (square, square * centred, square**2)
    )
    shapeless = second <= (np.finfo(float).eps * size) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(shapeless, np.nan, third / second**1.5)
        kurtosis = np.where(shapeless, np.nan, fourth / second**2 - 3.0)
    return np.stack([mean, second, skewness, kurtosis])


def _scopes(
    network: Network, entries: Entries | ArrayLike
) -> tuple[tuple[str, ...], list[Integers]]:
    """Names of the scopes and the places of their parameters."""
    chosen = parameter_mask(network, entries)
    what = entries if isinstance(entries, str) else "chosen"
    names, places = [f"all {'parameters' if what == 'all' else what}"], [np.flatnonzero(chosen)]
    for layer, part in enumerate(layer_slices(network)):
        here = np.flatnonzero(chosen[part]) + part.start
        if here.size:
            names.append(f"layer {layer}")
            places.append(here)
    return tuple(names), places


def bin_edges(name: str, bins: int | ArrayLike, least: int = 0) -> int | Floats:
    """A number of bins, or their edges."""
    found = _checks.array(name, bins)
    if found.ndim == 0:
        return _checks.integer(name, bins, least=least)
    edges = _checks.floats(name, found)
    if edges.ndim != 1 or len(edges) < 2 or (np.diff(edges) <= 0).any():
        raise ArgumentError(
            name, f"must be a number or edges that increase, got {_checks.describe(edges)}"
        )
    return edges


def require_memory(count: int) -> None:
    """Refuse samples that would not fit."""
    # At most 12 arrays: pairs, deviations, order, temporaries of moments and peaks.
    _checks.memory(f"statistics of {count} weights", 12 * 8.0 * count, "pool fewer runs")
