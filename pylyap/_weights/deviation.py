"""How far weights end from where they started, as a function of where that was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import batch_dimensions, dataset_class
from pylyap._parameters import parameter_mask
from pylyap.network import Network

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

LEVELS = (0.02, 0.25, 0.5, 0.75, 0.98)

# The peak is the median of the shortest interval that holds n^0.8 of n members. For n of 100 to 10⁴
# its error (root mean square of 2000 to 200 samples, November 2026) is 0.6 to 0.9 of that of the
# half-sample mode for normal, Laplace, Student (2), gamma (3) and lognormal (0.5) numbers. The
# optimum is flat but one-sided: a power of 0.75 costs a tenth; 0.85 gains as much, but is worse by
# half for a Laplace of two slopes, and 0.9 misses a tenth of exact zeros beside a normal at one.
# Slopes and zeros (dead units) are what trained weights have.
_PEAK_POWER = 0.8


@dataclass(frozen=True, eq=False)
class WeightDeviation:
    """Statistics of δ = w_f − w_i. Leading axes (...) are the batch, then snapshots if there are.

    Moments are those of the sample (divided by the number of weights, as in SciPy with ``bias``).
    A scope with a weight that is not finite is nan, with counts of 0; the others are not touched.

    Attributes
    ----------
    scopes : (n_scopes,)
        ``"all weights"`` (or ``"all biases"``, ``"all parameters"``, ``"all chosen"``), then
        ``"layer 0"`` (the one that leaves the inputs), ``"layer 1"``, …; ``"matrix"`` if matrices
        were given.
    count : (..., n_scopes)
        Weights in the sample.
    rms, mean, variance : (..., n_scopes)
        Of δ, in units of the weights and their square.
    skewness, kurtosis : (..., n_scopes)
        m₃/m₂^(3/2) and the excess m₄/m₂² − 3 of its central moments: 0 for a normal distribution.
        nan where the standard deviation is below the rounding of the weights.
    edges : (n_scopes, bins + 1)
        Bins of w_i, the same for all runs; the last one contains its upper edge.
    bin_count, bin_mean, bin_variance, bin_skewness, bin_kurtosis : (..., n_scopes, bins)
        The same of the weights that started in each bin; nan in bins with fewer than `least_count`.
    bin_peak : (..., n_scopes, bins)
        Most frequent δ: the median of the shortest interval that holds n^0.8 of the n members.
    bin_quantiles : (..., n_scopes, bins, 5)
        2, 25, 50, 75 and 98 % quantiles of δ, interpolated linearly between members.
    settings
        `entries`, `bins`, `least_count`, `pool`, and whether there is an axis of snapshots.
    """

    scopes: tuple[str, ...]
    count: Integers = field(repr=False)
    rms: Floats
    mean: Floats = field(repr=False)
    variance: Floats = field(repr=False)
    skewness: Floats = field(repr=False)
    kurtosis: Floats = field(repr=False)
    edges: Floats = field(repr=False)
    bin_count: Integers = field(repr=False)
    bin_mean: Floats = field(repr=False)
    bin_variance: Floats = field(repr=False)
    bin_skewness: Floats = field(repr=False)
    bin_kurtosis: Floats = field(repr=False)
    bin_peak: Floats = field(repr=False)
    bin_quantiles: Floats = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def centres(self) -> Floats:
        """(n_scopes, bins) midpoints of the bins."""
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    def to_dataset(self) -> xarray.Dataset:
        """An xarray Dataset with labelled dimensions; settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
        """
        dataset = dataset_class()
        snapshots = ["snapshot"] if self.settings["snapshots"] else []
        batch = batch_dimensions(self.rms.ndim - 1 - len(snapshots)) + snapshots
        weight = {"units": "weight"}
        variables: dict[str, Any] = {
            "edges": (["scope", "edge"], self.edges, weight),
            "bin_quantiles": ([*batch, "scope", "bin", "level"], self.bin_quantiles, weight),
            "bin_peak": ([*batch, "scope", "bin"], self.bin_peak, weight),
            "rms": ([*batch, "scope"], self.rms, weight),
        }
        units = {"mean": weight, "variance": {"units": "weight^2"}}
        for name in ("count", "mean", "variance", "skewness", "kurtosis"):
            unit = units.get(name, {})
            variables[name] = ([*batch, "scope"], getattr(self, name), unit)
            variables[f"bin_{name}"] = (
                [*batch, "scope", "bin"],
                getattr(self, f"bin_{name}"),
                unit,
            )
        coordinates = {"scope": ("scope", list(self.scopes)), "level": ("level", list(LEVELS))}
        # netCDF knows no booleans.
        settings = {k: int(v) if isinstance(v, bool) else v for k, v in self.settings.items()}
        return dataset(variables, coordinates, attrs=settings)


@dataclass(frozen=True, eq=False)
class WeightStrip:
    """Where the weights end that started between `low` and `high`.

    Attributes
    ----------
    low, high
        The strip of w_i: the bins that it is made of, whole.
    edges : (bins + 1,)
        Bins of w_f.
    counts : (bins,)
        Weights in each.
    density : (bins,)
        Counts over their sum and the widths of the bins; nan where the strip is empty.
    """

    low: float
    high: float
    edges: Floats = field(repr=False)
    counts: Integers = field(repr=False)
    density: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class JointHistogram:
    """How many weights went from where to where, all runs together.

    Attributes
    ----------
    counts : (bins, bins)
        Weights that started in bin i of `initial` and ended in bin j of `final`.
    initial, final : (bins + 1,)
        Edges of w_i and of w_f; the last bin contains its upper edge.
    quantiles : (bins, 5)
        2, 25, 50, 75 and 98 % quantiles of w_f (of the weights, not of the histogram) for each bin
        of w_i; nan in bins with fewer than `least_count` weights.
    scope
        Which weights, as in `WeightDeviation`.
    n_runs, n_left_out
        Runs that count, and runs with a weight that is not finite, which do not.
    """

    counts: Integers = field(repr=False)
    initial: Floats = field(repr=False)
    final: Floats = field(repr=False)
    quantiles: Floats = field(repr=False)
    scope: str
    n_runs: int
    n_left_out: int

    def strip(self, centre: float, width: float = 0.0) -> WeightStrip:
        """Histogram of w_f over the bins of w_i that centre ± width/2 touches, whole.

        Raises ValueError if that is not inside the histogram. Finer strips want more bins.
        """
        centre = _checks.real("centre", centre)
        width = _checks.real("width", width, least=0.0)
        low, high = centre - 0.5 * width, centre + 0.5 * width
        edges = self.initial
        if not edges[0] <= low <= high <= edges[-1]:
            raise ArgumentError(
                "centre",
                f"and width must give a strip within {edges[0]:.6g} ... {edges[-1]:.6g}, "
                f"got {low:.6g} ... {high:.6g}",
            )
        first = min(int(np.searchsorted(edges, low, side="right")) - 1, len(edges) - 2)
        stop = max(int(np.searchsorted(edges, high, side="left")), first + 1)
        counts = self.counts[first:stop].sum(axis=0)
        with np.errstate(invalid="ignore"):
            density = counts / counts.sum() / np.diff(self.final)
        return WeightStrip(float(edges[first]), float(edges[stop]), self.final, counts, density)


def weight_deviation(
    w_i: ArrayLike,
    w_f: ArrayLike,
    network: Network | None = None,
    *,
    bins: int | ArrayLike = 50,
    entries: str | ArrayLike = "weights",
    pool: bool = False,
    least_count: int = 10,
) -> WeightDeviation:
    """Moments, peak and quantiles of δ = w_f − w_i, whole and as functions of w_i, layer by layer.

    Parameters
    ----------
    w_i : (..., n_params) array
        Initial weights of `network`; or, without one, (..., n_out, n_in) matrices of one layer.
    w_f : (..., n_params) or (..., n_snapshots, n_params) array
        Weights later. With one axis more than `w_i` that axis, before the weights, is that of
        snapshots along training, as `TrainingMap.trajectory` gives them; matrices likewise.
    network
        Whose weights they are.
    bins
        Number of bins of equal width between the smallest and the largest finite w_i of all runs,
        for each scope; or edges for all scopes, and weights that started outside are in no bin.
        0 leaves out the functions of w_i, which take most of the time.
    entries
        ``"weights"`` (without biases), ``"all"`` parameters, ``"biases"``, or a mask (n_params,).
    pool
        Take all runs together as one sample, those that are not finite left out: the result has no
        batch axes, but keeps that of snapshots.
    least_count
        Bins with fewer weights are nan.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit each other or the network, nothing is left to count, or the result
        would not fit into memory.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021). Peak: Venter,
    Ann. Math. Stat. 38, 1446 (1967).
    """
    pairs = _Pairs(w_i, w_f, network, entries)
    pool = _checks.flag("pool", pool)
    least_count = _checks.integer("least_count", least_count, least=1)
    given = _edges("bins", bins)
    n_bins = given if isinstance(given, int) else len(given) - 1
    times = pairs.times if pairs.snapshots else ()
    shape = (*(() if pool else pairs.batch), *times, len(pairs.scopes))
    _checks.memory(
        f"statistics of {math.prod(shape)} samples in {n_bins} bins",
        8.0 * math.prod(shape) * (11 * n_bins + 6),
        "use fewer bins or snapshots",
    )
    _memory(pairs.largest * (pairs.runs if pool else 1))
    edges = np.empty((len(pairs.scopes), n_bins + 1))
    count, bin_count = np.zeros(shape, np.int64), np.zeros((*shape, n_bins), np.int64)
    rms, whole = np.full(shape, np.nan), np.full((4, *shape), np.nan)
    binned = np.full((4, *shape, n_bins), np.nan)
    peak = np.full((*shape, n_bins), np.nan)
    quantiles = np.full((*shape, n_bins, len(LEVELS)), np.nan)
    rows = [list(range(pairs.runs))] if pool else [[r] for r in range(pairs.runs)]
    places = list(np.ndindex(shape[:-1]))
    for s in range(len(pairs.scopes)):
        edges[s] = pairs.edges(s, given)
        # Snapshots are the last axis of the batch, so samples come in the order of places.
        samples = (pairs.sample(s, row, t) for row in rows for t in range(pairs.times[0]))
        for place, (x, y) in zip(places, samples, strict=True):
            if not x.size:
                continue
            at = (*place, s)
            with np.errstate(over="ignore", invalid="ignore"):
                delta = y - x
                size = max(np.abs(x).max(), np.abs(y).max())
                count[at] = len(delta)
                rms[at] = np.sqrt(np.mean(delta * delta))
                one = np.zeros(1, np.int64)
                whole[(slice(None), *at)] = _moments(delta, one, count[at][np.newaxis], size)[:, 0]
                if n_bins == 0:
                    continue
                groups = _Groups(x, delta, edges[s], least_count)
                bin_count[at] = groups.count
                if not len(groups.full):
                    continue
                binned[(slice(None), *at)][:, groups.full] = _moments(
                    groups.values, groups.starts, groups.sizes, size
                )
                peak[at][groups.full] = groups.peaks()
                quantiles[at][groups.full] = groups.quantiles()
    return WeightDeviation(
        scopes=pairs.scopes,
        count=count,
        rms=rms,
        mean=whole[0],
        variance=whole[1],
        skewness=whole[2],
        kurtosis=whole[3],
        edges=edges,
        bin_count=bin_count,
        bin_mean=binned[0],
        bin_variance=binned[1],
        bin_skewness=binned[2],
        bin_kurtosis=binned[3],
        bin_peak=peak,
        bin_quantiles=quantiles,
        settings={
            "entries": entries if isinstance(entries, str) else "chosen",
            "bins": n_bins,
            "least_count": least_count,
            "pool": pool,
            "snapshots": pairs.snapshots,
        },
    )


def joint_histogram(
    w_i: ArrayLike,
    w_f: ArrayLike,
    network: Network | None = None,
    *,
    layer: int | None = None,
    bins: int | tuple[ArrayLike, ArrayLike] = 100,
    entries: str | ArrayLike = "weights",
    least_count: int = 10,
) -> JointHistogram:
    """Joint histogram of initial and final weights, all runs together.

    Parameters
    ----------
    w_i, w_f : (..., n_params) arrays
        Weights of `network` before and after; or, without one, (..., n_out, n_in) matrices. A run
        with a weight that is not finite (among those that count) is left out.
    network, entries, least_count
        As in `weight_deviation`.
    layer
        Of the network, 0 for the weights that leave the inputs; all of them by default.
    bins
        Number of bins of equal width between the extremes of each axis, or the edges of both,
        ``(initial, final)``: histograms with the same edges can be added. Weights outside do not
        count.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit each other or the network, no run is finite, or the histogram would not
        fit into memory.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).
    """
    pairs = _Pairs(w_i, w_f, network, entries)
    if pairs.snapshots:
        raise ArgumentError(
            "w_f",
            f"must have the shape of w_i, {np.shape(w_i)}, got {np.shape(w_f)}: "
            "hand over one snapshot",
        )
    scope = 0
    if layer is not None:
        if network is None:
            raise ArgumentError("layer", f"must be None without a network, got {layer!r}")
        layer = _checks.integer("layer", layer, least=0, most=len(network.layers) - 2)
        if f"layer {layer}" not in pairs.scopes:
            raise ArgumentError("layer", f"must have one of the chosen entries, got layer {layer}")
        scope = pairs.scopes.index(f"layer {layer}")
    least_count = _checks.integer("least_count", least_count, least=1)
    if isinstance(bins, tuple):
        if len(bins) != 2:
            raise ArgumentError("bins", f"must be a number or two arrays of edges, got {len(bins)}")
        given = [_edges(f"bins[{i}]", e, least=1) for i, e in enumerate(bins)]
        if any(isinstance(e, int) for e in given):
            raise ArgumentTypeError(
                "bins", f"must be a number or two arrays of edges, got {_checks.describe(bins)}"
            )
    else:
        given = [_checks.integer("bins", bins, least=1)] * 2
    sizes = [e if isinstance(e, int) else len(e) - 1 for e in given]
    _checks.memory("the histogram", 24.0 * sizes[0] * sizes[1], "use fewer bins")
    _memory(pairs.largest * pairs.runs)
    x, y = pairs.sample(scope, list(range(pairs.runs)), 0)
    if not x.size:
        raise ArgumentError(
            "w_i", f"and w_f must have a run that is finite, got none of {pairs.runs} runs"
        )
    initial, final = (
        np.histogram_bin_edges(v, e) if isinstance(e, int) else e
        for v, e in zip((x, y), given, strict=True)
    )
    groups = _Groups(x, y, initial, least_count)
    quantiles = np.full((len(initial) - 1, len(LEVELS)), np.nan)
    if len(groups.full):
        quantiles[groups.full] = groups.quantiles()
    n_runs = len(x) // pairs.size(scope)
    return JointHistogram(
        counts=np.histogram2d(x, y, [initial, final])[0].astype(np.int64),
        initial=initial,
        final=final,
        quantiles=quantiles,
        scope=pairs.scopes[scope],
        n_runs=n_runs,
        n_left_out=pairs.runs - n_runs,
    )


def rms_by_layer(network: Network, before: Floats, after: Floats) -> Floats:
    """(runs, 1 + n_layers) rms of δ of all weights and of each layer's, without biases: what
    `weight_deviation` calls `rms`, in one pass over (runs, n_params)."""
    layers = list(_layers(network))
    squares, sizes = np.empty((len(before), len(layers))), np.empty(len(layers))
    for i, (part, n_out) in enumerate(zip(layers, network.layers[1:], strict=True)):
        matrix = slice(part.start, part.stop - n_out)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = after[:, matrix] - before[:, matrix]
            squares[:, i] = np.square(delta, out=delta).sum(axis=1)
        sizes[i] = delta.shape[1]
    whole = squares.sum(axis=1, keepdims=True) / sizes.sum()
    result: Floats = np.sqrt(np.concatenate([whole, squares / sizes], axis=1))
    return result


class _Pairs:
    """Initial and later weights of runs, seen scope by scope."""

    def __init__(
        self, w_i: ArrayLike, w_f: ArrayLike, network: Network | None, entries: str | ArrayLike
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
        """w_i and w_f of these runs, but of those that are finite alone: perhaps none."""
        place = self._places[scope]
        seen = [(self._before[r, place], self._after[r, t, place]) for r in rows]
        fine = [(x, y) for x, y in seen if np.isfinite(x).all() and np.isfinite(y).all()]
        if len(fine) == 1:
            return fine[0]
        if not fine:
            return np.empty(0), np.empty(0)
        return np.concatenate([x for x, _ in fine]), np.concatenate([y for _, y in fine])


class _Groups:
    """Values in the bins of x, sorted within each, of bins that have enough of them.

    count (n_bins,) is of all bins; full (g,) are the bins with enough, and values, starts and sizes
    belong to those.
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
        # By value, then by bin with a sort that keeps that order; of 16 bits it is a radix sort.
        order = np.argsort(values)
        small = index[order].astype(np.int16 if n_bins < 2**15 else np.int64)
        self.values = values[order[np.argsort(small, kind="stable")]]

    def quantiles(self) -> Floats:
        """(g, n_levels), interpolated linearly between the members."""
        at = np.array(LEVELS) * (self.sizes - 1)[:, np.newaxis]
        below = np.floor(at).astype(np.int64)
        above = np.minimum(below + 1, (self.sizes - 1)[:, np.newaxis])
        left, right = (self.values[self.starts[:, np.newaxis] + i] for i in (below, above))
        result: Floats = left + (at - below) * (right - left)
        return result

    def peaks(self) -> Floats:
        """(g,) medians of the shortest intervals that hold n^0.8 of n members."""
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


def _moments(values: Floats, starts: Integers, sizes: Integers, size: float) -> Floats:
    """Mean, variance, skewness and excess kurtosis (4, g) of groups that lie one after another.

    A spread below the rounding of numbers of this size has no shape: nan.
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


def _scopes(network: Network, entries: str | ArrayLike) -> tuple[tuple[str, ...], list[Integers]]:
    """Names of the scopes and the places of their parameters."""
    chosen = parameter_mask(network, entries)
    what = entries if isinstance(entries, str) else "chosen"
    names, places = [f"all {'parameters' if what == 'all' else what}"], [np.flatnonzero(chosen)]
    for layer, part in enumerate(_layers(network)):
        here = np.flatnonzero(chosen[part]) + part.start
        if here.size:
            names.append(f"layer {layer}")
            places.append(here)
    return tuple(names), places


def _layers(network: Network) -> Iterator[slice]:
    begin = 0
    for n_in, n_out in zip(network.layers, network.layers[1:], strict=False):
        yield slice(begin, begin := begin + n_out * (n_in + 1))


def _edges(name: str, bins: int | ArrayLike, least: int = 0) -> int | Floats:
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


def _memory(count: int) -> None:
    # Pairs, deviations, order and what moments and peaks make of them: 12 at the most.
    _checks.memory(f"statistics of {count} weights", 12 * 8.0 * count, "pool fewer runs")
