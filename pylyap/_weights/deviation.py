"""Deviations of weights from their initial values, as functions of the initial values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import dataset_class
from pylyap._parameters import Entries, layer_slices
from pylyap._results import Result
from pylyap._weights.samples import LEVELS, Groups, Pairs, bin_edges, moments, require_memory
from pylyap.network import Network

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class WeightDeviation(BatchResult):
    """Statistics of δ = w_f − w_i. Leading axes (...) are the batch, then snapshots if any.

    Moments are those of the sample (divided by the number of weights, as in SciPy with ``bias``).
    A scope with a non-finite weight is nan, with counts of 0; the other scopes are unaffected.

    Attributes
    ----------
    scopes : tuple of str, length n_scopes
        ``"all weights"`` (or ``"all biases"``, ``"all parameters"``, ``"all chosen"``), then
        ``"layer 0"`` (the layer after the inputs), ``"layer 1"``, …; ``"matrix"`` if matrices were
        given.
    count : ndarray of int, shape (..., n_scopes)
        Number of weights in the sample.
    rms, mean, variance : ndarray, shape (..., n_scopes)
        Root mean square, mean and variance of δ, in units of the weights and their square.
    skewness, kurtosis : ndarray, shape (..., n_scopes)
        m₃/m₂^(3/2) and the excess m₄/m₂² − 3 of its central moments: 0 for a normal distribution.
        nan where the standard deviation is below the rounding of the weights.
    edges : ndarray, shape (n_scopes, bins + 1)
        Bins of w_i, the same for all runs; the last one contains its upper edge.
    bin_count : ndarray of int, shape (..., n_scopes, bins)
        Number of weights that started in each bin.
    bin_mean, bin_variance, bin_skewness, bin_kurtosis : ndarray, shape (..., n_scopes, bins)
        Moments of the weights that started in each bin; nan in bins with fewer than `least_count`.
    bin_peak : ndarray, shape (..., n_scopes, bins)
        Most frequent δ: the median of the shortest interval that contains n^0.8 of the n members.
    bin_quantiles : ndarray, shape (..., n_scopes, bins, 5)
        2, 25, 50, 75 and 98 % quantiles of δ, interpolated linearly between members.
    settings : dict
        `entries`, `bins`, `least_count`, `pool`, and whether there is an axis of snapshots.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> w_i = np.linspace(-1.0, 1.0, 100).reshape(10, 10)
    >>> d = pl.weight_deviation(w_i, 2.0 * w_i, bins=2)
    >>> d.scopes, d.count, d.bin_mean.round(3)
    (('matrix',), array([100]), array([[-0.505,  0.505]]))
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
    def _batch(self) -> tuple[int, ...]:
        return self.rms.shape[: self.rms.ndim - 1 - self.settings["snapshots"]]

    @property
    def centres(self) -> Floats:
        """(n_scopes, bins) midpoints of the bins."""
        return 0.5 * (self.edges[:, 1:] + self.edges[:, :-1])

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset with labelled dimensions.

        Returns
        -------
        xarray.Dataset
            One variable per array; settings in attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        dataset = dataset_class()
        snapshots = ["snapshot"] if self.settings["snapshots"] else []
        batch = [*self.dims, *snapshots]
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
        coordinates |= self._labels
        # netCDF has no boolean type.
        settings = {k: int(v) if isinstance(v, bool) else v for k, v in self.settings.items()}
        return dataset(variables, coordinates, attrs=settings)


@dataclass(frozen=True, eq=False, repr=False)
class WeightStrip(Result):
    """Distribution of the final weights that started between `low` and `high`.

    Attributes
    ----------
    low, high : float
        Range of w_i: complete bins.
    edges : ndarray, shape (bins + 1,)
        Bins of w_f.
    counts : ndarray of int, shape (bins,)
        Number of weights in each bin.
    density : ndarray, shape (bins,)
        Counts divided by their sum and the widths of the bins; nan where the strip is empty.

    Examples
    --------
    >>> w_i = np.linspace(-1.0, 1.0, 100).reshape(10, 10)
    >>> strip = pl.joint_histogram(w_i, 2.0 * w_i, bins=4).strip(0.25)
    >>> strip.low, strip.high, strip.counts
    (0.0, 0.5, array([ 0,  0, 25,  0]))
    """

    low: float
    high: float
    edges: Floats = field(repr=False)
    counts: Integers = field(repr=False)
    density: Floats = field(repr=False)


@dataclass(frozen=True, eq=False, repr=False)
class JointHistogram(Result):
    """Joint histogram of initial and final weights, all runs together.

    Attributes
    ----------
    counts : ndarray of int, shape (bins, bins)
        Number of weights that started in bin i of `initial` and ended in bin j of `final`.
    initial, final : ndarray, shape (bins + 1,)
        Edges of w_i and of w_f; the last bin contains its upper edge.
    quantiles : ndarray, shape (bins, 5)
        2, 25, 50, 75 and 98 % quantiles of w_f (of the weights, not of the histogram) for each bin
        of w_i; nan in bins with fewer than `least_count` weights.
    scope : str
        Which weights, as in `WeightDeviation`.
    n_runs : int
        Number of runs in the histogram.
    n_left_out : int
        Number of excluded runs: those with a non-finite weight.

    Examples
    --------
    >>> w_i = np.linspace(-1.0, 1.0, 100).reshape(10, 10)
    >>> pl.joint_histogram(w_i, 2.0 * w_i, bins=2).counts
    array([[50,  0],
           [ 0, 50]])
    """

    counts: Integers = field(repr=False)
    initial: Floats = field(repr=False)
    final: Floats = field(repr=False)
    quantiles: Floats = field(repr=False)
    scope: str
    n_runs: int
    n_left_out: int

    def strip(self, centre: float, width: float = 0.0) -> WeightStrip:
        """Histogram of w_f over all bins of w_i that overlap centre ± width/2.

        Parameters
        ----------
        centre : float
            Centre of the strip.
        width : float, default 0.0
            Width of the strip. Narrow strips need narrow bins.

        Returns
        -------
        WeightStrip
            Histogram over the complete bins.

        Raises
        ------
        ArgumentError
            If the strip is not inside the histogram.
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
    entries: Entries | ArrayLike = "weights",
    pool: bool = False,
    least_count: int = 10,
) -> WeightDeviation:
    """Moments, peak and quantiles of δ = w_f − w_i, overall and as functions of w_i, by layer.

    Parameters
    ----------
    w_i : array_like, shape (..., n_params) or (..., n_out, n_in)
        Initial weights of `network`; without one, matrices of one layer.
    w_f : array_like, shape of `w_i`, or with one more axis of snapshots
        Later weights. The axis of snapshots precedes the axes of the weights, as from
        `TrainingMap.trajectory`.
    network : Network, optional
        Network that the weights belong to.
    bins : int or array_like, default 50
        Number of bins of equal width between the smallest and the largest finite w_i of all runs,
        for each scope; or edges for all scopes, which may exclude weights. 0 omits the functions of
        w_i, which take most of the time.
    entries : {"weights", "all", "biases"} or array_like of bool, default "weights"
        Parameters in the sample: weights without biases, all, biases, or a mask of shape
        (n_params,).
    pool : bool, default False
        Whether to combine all finite runs in one sample. The result then has no batch axes, but
        keeps that of snapshots.
    least_count : int, default 10
        Bins with fewer weights are nan.

    Returns
    -------
    WeightDeviation
        Statistics by scope and by bin.

    Raises
    ------
    ArgumentError
        If shapes do not agree with each other or with the network, a sample is empty, or an
        argument is out of range.
    ValueError
        If the result would not fit in memory.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021). Peak: Venter,
    Ann. Math. Stat. 38, 1446 (1967).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> w_i = net.init("normal", runs=4)
    >>> d = pl.weight_deviation(w_i, 1.5 * w_i, net, bins=3, least_count=1)
    >>> d.scopes, d.rms.shape, d.bin_peak.shape
    (('all weights', 'layer 0', 'layer 1'), (4, 3), (4, 3, 3))
    """
    pairs = Pairs(w_i, w_f, network, entries)
    pool = _checks.flag("pool", pool)
    least_count = _checks.integer("least_count", least_count, least=1)
    given = bin_edges("bins", bins)
    n_bins = given if isinstance(given, int) else len(given) - 1
    times = pairs.times if pairs.snapshots else ()
    shape = (*(() if pool else pairs.batch), *times, len(pairs.scopes))
    _checks.memory(
        f"statistics of {math.prod(shape)} samples in {n_bins} bins",
        8.0 * math.prod(shape) * (11 * n_bins + 6),
        "use fewer bins or snapshots",
    )
    require_memory(pairs.largest * (pairs.runs if pool else 1))
    found = _Statistics(shape, n_bins, least_count)
    edges = np.empty((len(pairs.scopes), n_bins + 1))
    rows = [list(range(pairs.runs))] if pool else [[r] for r in range(pairs.runs)]
    places = list(np.ndindex(shape[:-1]))
    for s in range(len(pairs.scopes)):
        edges[s] = pairs.edges(s, given)
        # Snapshots are the last axis of the batch: samples come in the order of places.
        samples = (pairs.sample(s, row, t) for row in rows for t in range(pairs.times[0]))
        for place, (x, y) in zip(places, samples, strict=True):
            if x.size:
                found.add((*place, s), x, y, edges[s])
    settings = {
        "entries": entries if isinstance(entries, str) else "chosen",
        "bins": n_bins,
        "least_count": least_count,
        "pool": pool,
        "snapshots": pairs.snapshots,
    }
    return found.result(pairs.scopes, edges, settings)


class _Statistics:
    """Arrays of a `WeightDeviation`, filled sample by sample; nan and 0 where nothing is added."""

    def __init__(self, shape: tuple[int, ...], n_bins: int, least_count: int) -> None:
        self.n_bins, self.least_count = n_bins, least_count
        self.count = np.zeros(shape, np.int64)
        self.rms = np.full(shape, np.nan)
        self.moments = np.full((4, *shape), np.nan)
        self.bin_count = np.zeros((*shape, n_bins), np.int64)
        self.bin_moments = np.full((4, *shape, n_bins), np.nan)
        self.peak = np.full((*shape, n_bins), np.nan)
        self.quantiles = np.full((*shape, n_bins, len(LEVELS)), np.nan)

    def add(self, at: tuple[int, ...], x: Floats, y: Floats, edges: Floats) -> None:
        """Add initial and later weights of a sample, at an index of the result."""
        place: tuple[Any, ...] = (slice(None), *at)  # the first axis is that of moments
        with np.errstate(over="ignore", invalid="ignore"):
            delta = y - x
            size = max(np.abs(x).max(), np.abs(y).max())
            self.count[at] = len(delta)
            self.rms[at] = np.sqrt(np.mean(delta * delta))
            whole = moments(delta, np.zeros(1, np.int64), self.count[at][np.newaxis], size)
            self.moments[place] = whole[:, 0]
            if self.n_bins == 0:
                return
            groups = Groups(x, delta, edges, self.least_count)
            self.bin_count[at] = groups.count
            if len(groups.full):
                self.bin_moments[place][:, groups.full] = moments(
                    groups.values, groups.starts, groups.sizes, size
                )
                self.peak[at][groups.full] = groups.peaks()
                self.quantiles[at][groups.full] = groups.quantiles()

    def result(
        self, scopes: tuple[str, ...], edges: Floats, settings: dict[str, Any]
    ) -> WeightDeviation:
        mean, variance, skewness, kurtosis = self.moments
        bin_mean, bin_variance, bin_skewness, bin_kurtosis = self.bin_moments
        return WeightDeviation(
            scopes=scopes,
            count=self.count,
            rms=self.rms,
            mean=mean,
            variance=variance,
            skewness=skewness,
            kurtosis=kurtosis,
            edges=edges,
            bin_count=self.bin_count,
            bin_mean=bin_mean,
            bin_variance=bin_variance,
            bin_skewness=bin_skewness,
            bin_kurtosis=bin_kurtosis,
            bin_peak=self.peak,
            bin_quantiles=self.quantiles,
            settings=settings,
        )


def joint_histogram(
    w_i: ArrayLike,
    w_f: ArrayLike,
    network: Network | None = None,
    *,
    layer: int | None = None,
    bins: int | tuple[ArrayLike, ArrayLike] = 100,
    entries: Entries | ArrayLike = "weights",
    least_count: int = 10,
) -> JointHistogram:
    """Joint histogram of initial and final weights, all runs together.

    Parameters
    ----------
    w_i : array_like, shape (..., n_params) or (..., n_out, n_in)
        Initial weights of `network`; without one, matrices of one layer.
    w_f : array_like, shape of `w_i`
        Final weights. A run with a non-finite weight (among the chosen ones) is excluded.
    network : Network, optional
        Network that the weights belong to.
    layer : int, optional
        Layer of the network, 0 for the layer after the inputs; all layers by default.
    bins : int or tuple of array_like, default 100
        Number of bins of equal width between the extremes of each axis, or the edges of both,
        ``(initial, final)``, which may exclude weights: histograms with the same edges can be
        added.
    entries : {"weights", "all", "biases"} or array_like of bool, default "weights"
        Parameters in the histogram, as in `weight_deviation`.
    least_count : int, default 10
        Quantiles of bins with fewer weights are nan.

    Returns
    -------
    JointHistogram
        Counts and quantiles.

    Raises
    ------
    ArgumentError
        If shapes do not agree with each other or with the network, no run is finite, or an argument
        is out of range.
    ValueError
        If the histogram would not fit in memory.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> w_i = net.init("normal", runs=4)
    >>> joint = pl.joint_histogram(w_i, 1.5 * w_i, net, layer=0, bins=5)
    >>> joint.counts.shape, int(joint.counts.sum()), joint.n_runs
    ((5, 5), 24, 4)
    """
    pairs = Pairs(w_i, w_f, network, entries)
    if pairs.snapshots:
        raise ArgumentError(
            "w_f",
            f"must have the shape of w_i, {np.shape(w_i)}, got {np.shape(w_f)}: give one snapshot",
        )
    scope = _scope(pairs, network, layer)
    least_count = _checks.integer("least_count", least_count, least=1)
    given = _both_edges(bins)
    sizes = [e if isinstance(e, int) else len(e) - 1 for e in given]
    _checks.memory("the histogram", 24.0 * sizes[0] * sizes[1], "use fewer bins")
    require_memory(pairs.largest * pairs.runs)
    x, y = pairs.sample(scope, list(range(pairs.runs)), 0)
    if not x.size:
        raise ArgumentError(
            "w_i", f"and w_f must have a run that is finite, got none of {pairs.runs} runs"
        )
    initial, final = (
        np.histogram_bin_edges(v, e) if isinstance(e, int) else e
        for v, e in zip((x, y), given, strict=True)
    )
    groups = Groups(x, y, initial, least_count)
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


def _scope(pairs: Pairs, network: Network | None, layer: int | None) -> int:
    """Index of the scope of a layer, or of all weights."""
    if layer is None:
        return 0
    if network is None:
        raise ArgumentError("layer", f"must be None without a network, got {layer!r}")
    layer = _checks.integer("layer", layer, least=0, most=len(network.layers) - 2)
    if f"layer {layer}" not in pairs.scopes:
        raise ArgumentError("layer", f"must have one of the chosen entries, got layer {layer}")
    return pairs.scopes.index(f"layer {layer}")


def _both_edges(bins: int | tuple[ArrayLike, ArrayLike]) -> list[int | Floats]:
    """Numbers of bins of w_i and w_f, or their edges."""
    if not isinstance(bins, tuple):
        return [_checks.integer("bins", bins, least=1)] * 2
    if len(bins) != 2:
        raise ArgumentError("bins", f"must be a number or two arrays of edges, got {len(bins)}")
    given = [bin_edges(f"bins[{i}]", e, least=1) for i, e in enumerate(bins)]
    if any(isinstance(e, int) for e in given):
        raise ArgumentTypeError(
            "bins", f"must be a number or two arrays of edges, got {_checks.describe(bins)}"
        )
    return given


def rms_by_layer(network: Network, before: Floats, after: Floats) -> Floats:
    """(runs, 1 + n_layers) rms of δ of all weights and of each layer's, without biases.

    The `rms` of `weight_deviation`, in one pass over (runs, n_params).
    """
    layers = list(layer_slices(network))
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
