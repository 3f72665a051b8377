"""Deviations of weights: against numbers known on paper and SciPy bin by bin."""

import pickle
import sys
import tracemalloc

import cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pylyap as pl

NET = pl.Network((4, 7, 5, 3), activation="relu", loss="cross_entropy")
ENTRIES = ("weights", "all", "biases")
WHOLE = ("rms", "mean", "variance", "skewness", "kurtosis")
BINNED = ("bin_mean", "bin_variance", "bin_skewness", "bin_kurtosis", "bin_peak", "bin_quantiles")


def pair(*batch, snapshots=(), seed=0):
    """Weights and what became of them: every statistic differs from 0."""
    rng = np.random.default_rng([seed, 5])
    w = rng.normal(size=(*batch, NET.n_params))
    later = np.broadcast_to(w[..., None, :], (*batch, *snapshots, NET.n_params)) if snapshots else w
    return w, later + rng.gamma(2.0, 0.1 + 0.1 * np.abs(later))


def matrices(n=200, seed=0):
    rng = np.random.default_rng([seed, 6])
    return rng.uniform(-1.0, 1.0, (n, n)), rng


def scope_values(w, scope, entries):
    """Weights of a scope by way of `unpack`, sorted out by hand."""
    parts = NET.unpack(w)
    if scope.startswith("layer "):
        parts = parts[int(scope[6:]) :][:1]
    chosen = []
    for W, b in parts:
        chosen += [W.reshape(*w.shape[:-1], -1)] if entries != "biases" else []
        chosen += [b] if entries != "weights" else []
    return np.concatenate(chosen, axis=-1)


def peak(values):
    ordered = np.sort(values)
    k = int(np.ceil(len(values) ** 0.8))
    first = min(range(len(ordered) - k + 1), key=lambda j: ordered[j + k - 1] - ordered[j])
    return np.median(ordered[first : first + k])


# Known answers


def test_normal_deviations():
    w, rng = matrices(400)
    d = pl.weight_deviation(w, w + rng.normal(0.05, 0.2, w.shape), bins=10)
    assert d.scopes == ("matrix",)
    n = w.size
    # Five standard errors of each, that of the sample of a normal distribution.
    assert_allclose(d.mean, 0.05, atol=5 * 0.2 / n**0.5)
    assert_allclose(d.variance, 0.04, rtol=5 * (2 / n) ** 0.5)
    assert_allclose(d.rms, np.hypot(0.05, 0.2), rtol=5 / n**0.5)
    assert_allclose(d.skewness, 0.0, atol=5 * (6 / n) ** 0.5)
    assert_allclose(d.kurtosis, 0.0, atol=5 * (24 / n) ** 0.5)
    m = n / 10
    assert_allclose(d.bin_count, m, rtol=0.05)
    assert_allclose(d.bin_skewness, 0.0, atol=5 * (6 / m) ** 0.5)
    expected = stats.norm.ppf([0.02, 0.25, 0.5, 0.75, 0.98], 0.05, 0.2)
    assert_allclose(d.bin_quantiles[0], np.tile(expected, (10, 1)), atol=5 * 0.2 * 2.9 / m**0.5)
    # 0.12 standard deviations is the error found for 10⁴ normal numbers.
    assert_allclose(d.bin_peak, 0.05, atol=4 * 0.12 * 0.2)


def test_a_shift_has_no_spread():
    w, _ = matrices(50)
    d = pl.weight_deviation(w, w + 0.3, bins=5)
    for found in (d.rms, d.mean, d.bin_mean, d.bin_peak, d.bin_quantiles):
        assert_allclose(found, 0.3, rtol=1e-14)
    assert_allclose(d.bin_variance, 0.0, atol=1e-30)
    for found in (d.skewness, d.kurtosis, d.bin_skewness, d.bin_kurtosis):
        assert np.isnan(found).all()  # rounding has no shape


def test_where_nothing_moved_everything_is_zero():
    w, _ = pair(2)
    d = pl.weight_deviation(w, w, NET, bins=3)
    for name in ("rms", "mean", "variance"):
        assert_array_equal(getattr(d, name), np.zeros((2, 4)))
    filled = d.bin_count >= 10
    assert filled.any()
    for name in ("bin_mean", "bin_variance", "bin_peak", "bin_quantiles"):
        assert (getattr(d, name)[filled] == 0).all()
    for name in ("skewness", "kurtosis", "bin_skewness", "bin_kurtosis"):
        assert np.isnan(getattr(d, name)).all()


def test_a_deviation_in_proportion_to_the_weight():
    w, _ = matrices(100)
    d = pl.weight_deviation(w, 1.5 * w - 0.1, bins=8)
    mean = stats.binned_statistic(w.ravel(), w.ravel(), "mean", 8).statistic
    assert_allclose(d.bin_mean[0], 0.5 * mean - 0.1, rtol=1e-12)
    assert_allclose(d.edges[0], np.linspace(w.min(), w.max(), 9), rtol=1e-14)
    assert_allclose(d.centres[0], 0.5 * (d.edges[0, 1:] + d.edges[0, :-1]))
    assert_allclose(d.mean, 0.5 * w.mean() - 0.1, rtol=1e-12)


def test_the_peak_sits_on_weights_that_never_moved():
    w, rng = matrices(100)
    delta = np.where(rng.random(w.shape) < 0.4, 0.0, rng.exponential(1.0, w.shape))
    d = pl.weight_deviation(w, w + delta, bins=4)
    assert_array_equal(d.bin_peak, np.zeros((1, 4)))
    assert (d.bin_mean > 0.5).all()


# Agreement with SciPy, bin by bin


@pytest.mark.parametrize("entries", [*ENTRIES, "chosen"])
def test_against_scipy_in_every_bin(entries):
    w, f = pair(2, snapshots=(3,))
    given_entries, apart = entries, entries
    if entries == "chosen":  # the weights, of the last two layers alone
        chosen = np.zeros(NET.n_params, bool)
        chosen[
            np.isin(np.arange(NET.n_params), scope_values(np.arange(80.0 + 13), "all", "weights"))
        ] = True
        chosen[: 4 * 7 + 7] = False
        given_entries, apart = chosen, "weights"
    d = pl.weight_deviation(w, f, NET, bins=4, entries=given_entries, least_count=3)
    names = {"weights": "weights", "all": "parameters", "biases": "biases", "chosen": "chosen"}
    layers = ("layer 0", "layer 1", "layer 2") if entries != "chosen" else ("layer 1", "layer 2")
    assert d.scopes == (f"all {names[entries]}", *layers)
    seen = 0
    for s, scope in enumerate(d.scopes):
        if entries == "chosen" and s == 0:
            x0, f0 = w[:, chosen], f[..., chosen]
        else:
            x0, f0 = scope_values(w, scope, apart), scope_values(f, scope, apart)
        edges = np.linspace(x0.min(), x0.max(), 5)
        assert_allclose(d.edges[s], edges, rtol=1e-14)
        for r, t in np.ndindex(2, 3):
            x, delta = x0[r], f0[r, t] - x0[r]
            assert d.count[r, t, s] == len(x)
            whole = [
                np.sqrt((delta**2).mean()), delta.mean(), delta.var(),
                stats.skew(delta), stats.kurtosis(delta),
            ]  # fmt: skip
            for name, value in zip(WHOLE, whole, strict=True):
                assert_allclose(getattr(d, name)[r, t, s], value, rtol=1e-11, atol=1e-13)
            number = stats.binned_statistic(x, delta, "count", edges).binnumber - 1
            for b in range(4):
                inside = delta[number == b]
                assert d.bin_count[r, t, s, b] == len(inside)
                found = [getattr(d, name)[r, t, s, b] for name in BINNED]
                if len(inside) < 3:
                    assert np.isnan(np.hstack(found)).all()
                    continue
                seen += 1
                expected = [
                    inside.mean(), inside.var(), stats.skew(inside), stats.kurtosis(inside),
                    peak(inside), np.quantile(inside, [0.02, 0.25, 0.5, 0.75, 0.98]),
                ]  # fmt: skip
                for a, e in zip(found, expected, strict=True):
                    assert_allclose(a, e, rtol=1e-10, atol=1e-12)
    assert seen > 10


def test_edges_of_ones_own():
    w, f = pair()
    edges = [-1.0, -0.2, 0.0, 0.7]
    d = pl.weight_deviation(w, f, NET, bins=edges, least_count=1)
    assert_array_equal(d.edges, np.tile(edges, (4, 1)))
    x = scope_values(w, "all", "weights")
    assert_array_equal(d.bin_count[0], np.histogram(x, edges)[0])
    assert d.count[0] == len(x) > d.bin_count[0].sum()
    assert d.settings["bins"] == 3


def test_more_bins_than_16_bits_can_count():
    w, f = pair()
    n_bins = 40_000
    d = pl.weight_deviation(w, f, NET, bins=n_bins, least_count=1)
    x, y = (scope_values(v, "all", "weights") for v in (w, f))
    order = np.argsort(x)
    filled = np.flatnonzero(d.bin_count[0])
    assert_array_equal(d.bin_count[0], np.histogram(x, n_bins)[0])
    assert d.bin_count[0].max() == 1  # so that each bin's statistics are its only member
    assert_array_equal(d.bin_peak[0, filled], (y - x)[order])


# Laws


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_order_of_the_weights_does_not_matter(seed, bins):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(6, 20))
    f = w + rng.choice([0.0, 1.0], w.shape) * rng.normal(size=w.shape)
    order = rng.permutation(w.size)
    a = pl.weight_deviation(w, f, bins=bins, least_count=2)
    b = pl.weight_deviation(
        *(v.ravel()[order].reshape(6, 20) for v in (w, f)), bins=bins, least_count=2
    )
    for name in ("bin_count", "bin_peak", "bin_quantiles", "edges"):
        assert_array_equal(getattr(a, name), getattr(b, name))
    for name in (*WHOLE, *BINNED[:4]):
        assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6))
def test_a_shift_of_the_final_weights_and_the_unit_of_weight(seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(10, 20))
    f = w + rng.gamma(1.0, size=w.shape)
    a = pl.weight_deviation(w, f, bins=3)
    shifted = pl.weight_deviation(w, f + 2.0, bins=3)
    scaled = pl.weight_deviation(4.0 * w, 4.0 * f, bins=3)
    for name, power in zip(("mean", "variance", "skewness", "kurtosis"), (1, 2, 0, 0), strict=True):
        for prefix in ("", "bin_"):
            value = getattr(a, prefix + name)
            moved = value + 2.0 * (name == "mean")
            assert_allclose(getattr(shifted, prefix + name), moved, rtol=1e-9, atol=1e-9)
            assert_allclose(getattr(scaled, prefix + name), 4.0**power * value, rtol=1e-9)
    assert_allclose(shifted.bin_quantiles, a.bin_quantiles + 2.0, rtol=1e-12, atol=1e-12)
    assert_allclose(scaled.bin_peak, 4.0 * a.bin_peak, rtol=1e-12)
    assert_allclose(a.rms**2, a.mean**2 + a.variance)


def test_batches_and_snapshots_are_runs_one_by_one():
    w, f = pair(2, 3, snapshots=(4,))
    edges = np.linspace(-2, 2, 4)
    d = pl.weight_deviation(w, f, NET, bins=edges)
    assert d.rms.shape == (2, 3, 4, 4)
    assert d.bin_quantiles.shape == (2, 3, 4, 4, 3, 5)
    for i, j, t in np.ndindex(2, 3, 4):
        one = pl.weight_deviation(w[i, j], f[i, j, t], NET, bins=edges)
        for name in (*WHOLE, *BINNED, "count", "bin_count"):
            assert_array_equal(getattr(d, name)[i, j, t], getattr(one, name))


def test_layers_of_a_network_are_matrices():
    w, f = pair(3)
    d = pl.weight_deviation(w, f, NET, bins=4)
    for layer in range(3):
        one = pl.weight_deviation(NET.unpack(w)[layer][0], NET.unpack(f)[layer][0], bins=4)
        for name in (*WHOLE, *BINNED, "bin_count"):
            assert_array_equal(getattr(d, name)[:, layer + 1], getattr(one, name)[:, 0])
        assert_array_equal(d.edges[layer + 1], one.edges[0])


def test_pooled_runs_are_one_long_matrix():
    w = np.random.default_rng(0).normal(size=(3, 8, 9))
    f = w[:, None] + np.random.default_rng(1).normal(size=(3, 2, 8, 9))
    d = pl.weight_deviation(w, f, bins=4, pool=True)
    assert d.rms.shape == (2, 1)
    for t in range(2):
        one = pl.weight_deviation(w.reshape(24, 9), f[:, t].reshape(24, 9), bins=4)
        for name in (*WHOLE, *BINNED, "count", "bin_count"):
            assert_array_equal(getattr(d, name)[t], getattr(one, name))
    f[1] = np.nan
    rest = pl.weight_deviation(w[[0, 2]], f[[0, 2]], bins=d.edges[0], pool=True)
    left = pl.weight_deviation(w, f, bins=4, pool=True)
    for name in (*WHOLE, *BINNED, "count"):
        assert_array_equal(getattr(left, name), getattr(rest, name))


def test_a_run_that_diverged_is_nan_and_leaves_the_others():
    w, f = pair(3, snapshots=(2,))
    whole = pl.weight_deviation(w, f, NET, bins=4)
    f[1, 1, 4 * 7 + 7 + 3] = np.inf  # in layer 1
    f[2, 0, -1] = np.nan  # a bias, which is not asked for
    d = pl.weight_deviation(w, f, NET, bins=4)
    lost = np.zeros((3, 2, 4), bool)
    lost[1, 1, [0, 2]] = True
    for name in (*WHOLE, *BINNED):
        found = getattr(d, name)
        assert np.isnan(found[lost]).all()
        assert_array_equal(found[~lost], getattr(whole, name)[~lost])
    assert (d.count[lost] == 0).all()
    assert (d.bin_count[lost] == 0).all()
    f[:] = np.nan
    nothing = pl.weight_deviation(np.full_like(w, np.nan), f, NET, bins=4, pool=True)
    assert np.isnan(nothing.rms).all()
    assert np.isnan(nothing.edges).all()


def test_rms_along_training_without_bins():
    system = pl.TrainingMap(NET, *cases.data(NET, 30), pl.GradientDescent(lr=0.1, batch_size=10))
    w = NET.init(runs=3)
    path = system.weights(system.trajectory(w, 12, every=3))
    d = pl.weight_deviation(w, path, NET, bins=0)
    assert d.rms.shape == (3, 5, 4)
    assert (d.rms[:, 0] == 0).all()
    delta = scope_values(path - w[:, None], "layer 1", "weights")
    assert_allclose(d.rms[..., 2], np.sqrt((delta**2).mean(axis=-1)), rtol=1e-13)
    assert d.bin_mean.shape == (3, 5, 4, 0)
    assert d.edges.shape == (4, 1)


# Limits


def test_few_members_and_equal_weights():
    w = np.zeros((3, 4))
    d = pl.weight_deviation(w, w + 1.0, bins=5, least_count=12)
    assert_array_equal(d.bin_count, [[0, 0, 12, 0, 0]])  # NumPy's bins around a constant
    assert_allclose(d.bin_mean[0, 2], 1.0)
    assert np.isnan(pl.weight_deviation(w, w + 1.0, bins=5, least_count=13).bin_mean).all()
    one = pl.weight_deviation([[2.0]], [[3.0]], bins=1, least_count=1)
    assert_array_equal(one.bin_quantiles, np.ones((1, 1, 5)))
    assert_array_equal(one.bin_peak, [[1.0]])


def test_numbers_near_the_end_of_their_range():
    d = pl.weight_deviation(np.full((4, 4), -1.0), np.full((4, 4), 1e200), bins=1)
    assert np.isinf(d.rms).all()
    assert_allclose(d.bin_mean, 1e200)


def test_memory_is_a_few_copies_of_one_run():
    net = pl.Network((100, 200, 10))
    w = net.init(runs=8)
    f = w + 0.1
    pl.weight_deviation(w[:1], f[:1], net)
    tracemalloc.start()
    pl.weight_deviation(w, f, net)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 14 * 8 * net.n_params


def test_memory_is_checked_before_it_is_taken():
    w, f = pair()
    with pytest.raises(ValueError, match=r"statistics of 4 samples in .* would take"):
        pl.weight_deviation(w, f, NET, bins=10**12)
    with pytest.raises(ValueError, match="the histogram would take"):
        pl.joint_histogram(w, f, NET, bins=10**7)


# Joint histograms


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_joint_histogram(layer):
    w, f = pair(4)
    j = pl.joint_histogram(w, f, NET, layer=layer, bins=6, least_count=5)
    scope = "all" if layer is None else f"layer {layer}"
    x, y = (scope_values(v, scope, "weights").ravel() for v in (w, f))
    counts, first, second = np.histogram2d(x, y, 6)
    assert_array_equal(j.counts, counts)
    assert_array_equal(j.initial, first)
    assert_array_equal(j.final, second)
    assert j.counts.sum() == x.size
    assert j.counts.dtype == np.int64
    number = stats.binned_statistic(x, y, "count", first).binnumber - 1
    for b in range(6):
        if (number == b).sum() < 5:
            assert np.isnan(j.quantiles[b]).all()
        else:
            expected = np.quantile(y[number == b], [0.02, 0.25, 0.5, 0.75, 0.98])
            assert_allclose(j.quantiles[b], expected, rtol=1e-12)
    assert (j.n_runs, j.n_left_out) == (4, 0)
    assert j.scope == ("all weights" if layer is None else scope)


def test_histograms_with_the_same_edges_add_up():
    w, f = pair(4)
    f[2] = np.nan
    edges = (np.linspace(-1, 1, 8), np.linspace(-2, 2, 5))
    whole = pl.joint_histogram(w, f, NET, bins=edges)
    assert (whole.n_runs, whole.n_left_out) == (3, 1)
    parts = [pl.joint_histogram(w[i], f[i], NET, bins=edges).counts for i in (0, 1, 3)]
    assert_array_equal(whole.counts, sum(parts))
    assert whole.counts.shape == (7, 4)


def test_strips():
    w, rng = matrices(60)
    f = w + 0.1 * rng.normal(size=w.shape)
    edges = np.linspace(-1, 1, 21)
    j = pl.joint_histogram(w, f, bins=(edges, np.linspace(-2, 2, 41)))
    for centre, width, low, high in (
        (0.05, 0.0, 0.0, 0.1),
        (0.5, 0.15, 0.4, 0.6),
        (-1.0, 0.0, -1.0, -0.9),
        (1.0, 0.0, 0.9, 1.0),
        (0.0, 2.0, -1.0, 1.0),
    ):
        s = j.strip(centre, width)
        assert_allclose((s.low, s.high), (low, high), atol=1e-12)
        inside = (w >= s.low) & ((w < s.high) | (s.high == 1.0))
        assert_array_equal(s.counts, np.histogram(f[inside], j.final)[0])
        assert_allclose((s.density * np.diff(s.edges)).sum(), 1.0)
    with pytest.raises(ValueError, match=r"within -1 \.\.\. 1, got 0\.9 \.\.\. 1\.1"):
        j.strip(1.0, 0.2)
    with pytest.raises(ValueError, match="width must be"):
        j.strip(0.0, -1.0)
    nothing = pl.joint_histogram(w, f, bins=([5.0, 6.0], [0.0, 1.0]))
    assert np.isnan(nothing.strip(5.5).density).all()


# Results


def test_results_pickle_and_become_datasets(tmp_path):
    w, f = pair(2, snapshots=(3,))
    d = pl.weight_deviation(w, f, NET, bins=4)
    copy = pickle.loads(pickle.dumps(d))
    assert_array_equal(copy.bin_mean, d.bin_mean)
    assert copy.settings == d.settings
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    dataset = d.to_dataset()
    for name in (*WHOLE, *BINNED, "count", "bin_count", "edges"):
        assert_array_equal(dataset[name].values, getattr(d, name))
    assert dataset["bin_quantiles"].dims == ("run", "snapshot", "scope", "bin", "level")
    assert_array_equal(dataset["rms"].sel(scope="layer 1").values, d.rms[..., 2])
    assert dataset["variance"].attrs["units"] == "weight^2"
    dataset.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as back:
        assert_array_equal(back["bin_mean"].values, d.bin_mean)
        assert back.attrs["least_count"] == 10
    assert len(repr(pl.weight_deviation(w[0], f[0, 0], NET)).splitlines()) <= 10


def test_without_xarray_a_dataset_is_a_clear_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install"):
        pl.weight_deviation(*pair(), NET).to_dataset()


# Errors

W = np.zeros(NET.n_params)
N = NET.n_params
BAD = {
    "size": ((W[:-1], W, NET), {}, ValueError, rf"w_i must have shape \(\.\.\., {N}\)"),
    "vector": ((W, W), {}, ValueError, r"w_i must have shape \(\.\.\., n_out, n_in\) without"),
    "final": ((W, W[:-1], NET), {}, ValueError, "w_f must have the shape of w_i"),
    "runs": ((np.zeros((2, N)), np.zeros((3, N)), NET), {}, ValueError, "one axis of snapshots"),
    "axes": ((W, np.zeros((2, 2, N)), NET), {}, ValueError, "one axis of snapshots"),
    "swapped": ((np.zeros((2, N)), W, NET), {}, ValueError, "w_f must have the shape of w_i"),
    "empty": ((np.zeros((0, N)), np.zeros((0, N)), NET), {}, ValueError, "w_i must not be empty"),
    "no snapshot": ((W, np.zeros((0, N)), NET), {}, ValueError, "w_f must not be empty"),
    "nothing": ((np.zeros((0, 3)), np.zeros((0, 3))), {}, ValueError, "w_i must not be empty"),
    "network": ((W, W, (4, 7, 5, 3)), {}, TypeError, "network must be a Network"),
    "complex": ((W + 0j, W, NET), {}, TypeError, "w_i must be real numbers"),
    "bins": ((W, W, NET), {"bins": -1}, ValueError, "bins must be at least 0"),
    "float": ((W, W, NET), {"bins": 5.0}, TypeError, "bins must be an integer"),
    "edges": ((W, W, NET), {"bins": [0.0, 0.0, 1.0]}, ValueError, "edges that increase"),
    "one edge": ((W, W, NET), {"bins": [0.0]}, ValueError, "edges that increase"),
    "entries": ((W, W, NET), {"entries": "bias"}, ValueError, "entries must be"),
    "no network": ((np.eye(2), np.eye(2)), {"entries": "all"}, ValueError, "without a network"),
    "least": ((W, W, NET), {"least_count": 0}, ValueError, "least_count must be at least 1"),
    "pool": ((W, W, NET), {"pool": 1}, TypeError, "pool must be True or False"),
}
BAD_JOINT = {
    "snapshots": ((W, np.zeros((2, N)), NET), {}, ValueError, "give one snapshot"),
    "layer": ((W, W, NET), {"layer": 3}, ValueError, r"layer must be in 0 \.\.\. 2"),
    "no network": ((np.eye(2), np.eye(2)), {"layer": 0}, ValueError, "without a network"),
    "not chosen": (
        (W, W, NET),
        {"layer": 0, "entries": np.arange(N) > 60},
        ValueError,
        "one of the chosen entries, got layer 0",
    ),
    "none": ((W, W + np.nan, NET), {}, ValueError, "got none of 1 runs"),
    "bins": ((W, W, NET), {"bins": 0}, ValueError, "bins must be at least 1"),
    "three": ((W, W, NET), {"bins": ([0, 1],) * 3}, ValueError, "two arrays of edges, got 3"),
    "mixed": ((W, W, NET), {"bins": ([0, 1], 5)}, TypeError, "two arrays of edges"),
    "edges": ((W, W, NET), {"bins": ([0, 1], [1, 0])}, ValueError, r"bins\[1\] must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    arguments, more, error, message = BAD[case]
    with pytest.raises(error, match=message):
        pl.weight_deviation(*arguments, **more)


@pytest.mark.parametrize("case", BAD_JOINT)
def test_bad_input_of_a_joint_histogram(case):
    arguments, more, error, message = BAD_JOINT[case]
    with pytest.raises(error, match=message):
        pl.joint_histogram(*arguments, **more)
