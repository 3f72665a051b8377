"""Perturbed copies against runs of their own, and against the tangent dynamics."""

import sys

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

OPTIMIZERS = {
    "plain": pl.GradientDescent(lr=0.3),
    "momentum, minibatches": pl.GradientDescent(lr=0.2, momentum=0.6, batch_size=4),
    "adam": pl.Adam(lr=0.05),
    "a rate for each run": pl.GradientDescent(lr=[0.1, 0.2, 0.5]),
}


def training(optimizer=OPTIMIZERS["plain"]):
    net = pl.Network((3, 4, 2), activation="sigmoid", loss="cross_entropy")
    return pl.TrainingMap(net, *cases.data(net, 14), optimizer)


def norms(difference):
    return {
        "l1": np.abs(difference).sum(axis=-1),
        "l2": np.sqrt((difference**2).sum(axis=-1)),
        "linf": np.abs(difference).max(axis=-1),
    }


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_are_runs_of_their_own(name, norm):
    system = training(OPTIMIZERS[name])
    w = cases.weights(system.network, runs=3)
    e = pl.perturbation_ensemble(
        system, w, 1e-3, 5, 12, norm=norm, record_every=4, start=3, states=True, seed=7
    )
    assert e.distances.shape == (3, 5, 4)
    path = system.trajectory(w, 15)
    begin = pl.perturbation_ensemble(system, w, 1e-3, 5, 1, start=3, states=True, seed=7)
    unit = np.stack(  # the draws, by their definition
        [
            np.random.default_rng(np.random.SeedSequence(7, spawn_key=(r,))).uniform(-1, 1, (5, 26))
            for r in range(3)
        ]
    )
    copies = np.repeat(path[:, 3, np.newaxis], 5, axis=1)
    copies[..., :26] += 1e-3 * unit
    for p in range(5):
        alone = system.trajectory(copies[:, p], 12, every=4, start=3)
        assert_array_equal(e.states[:, p], alone[:, -1])
        assert_array_equal(begin.states[:, p], system.trajectory(copies[:, p], 1, start=3)[:, -1])
        difference = system.weights(alone) - system.weights(path[:, 3::4])
        assert_allclose(e.distances[:, p], norms(difference)[norm], rtol=1e-12)
    assert_array_equal(e.steps, [3, 7, 11, 15])
    assert (e.status == 0).all()


def test_without_a_perturbation_the_distance_is_exactly_zero():
    system = training(pl.GradientDescent(lr=2.0, batch_size=5))
    w = cases.weights(system.network, runs=9)
    e = pl.perturbation_ensemble(system, w, [0.0, 1e-14], 3, 300)
    assert e.distances.shape == (9, 2, 3, 301)
    assert (e.distances[:, 0] == 0.0).all()
    assert (e.distances[:, 1, :, 0] > 0).all()
    assert (e.distances[:, 1, :, 0] < 26e-14).all()
    assert np.isnan(pl.growth_rate(e.distances).slope[:, 0]).all()


@pytest.mark.parametrize("runs", [None, 1, 4])
def test_nothing_depends_on_blocks_threads_or_neighbours(runs, monkeypatch):
    system = training()
    w = cases.weights(system.network, runs=6)
    options = {"record_every": 2, "states": True, "seed": 3}
    whole = pl.perturbation_ensemble(system, w, [1e-6, 1e-3], 4, 20, **options)
    for r in range(6):
        alone = pl.perturbation_ensemble(system, w[: r + 1], [1e-6, 1e-3], 4, 20, **options)
        assert_array_equal(alone.distances[r], whole.distances[r])
    mean = pl.perturbation_ensemble(system, w, [1e-6, 1e-3], 4, 20, keep="mean", **options)
    assert_allclose(mean.distances, whole.distances.mean(axis=-2), rtol=1e-12)
    assert_allclose(mean.mean, whole.mean, rtol=1e-12)
    module = sys.modules["pylyap._perturbations.stepping"]
    monkeypatch.setattr(module, "_STATES", 8.0 * (system.n + 44) * (runs or 0))
    monkeypatch.setattr(module, "_PATH", 8.0 * system.n * 12)
    for threads in (1, 2, None):
        again = pl.perturbation_ensemble(system, w, [1e-6, 1e-3], 4, 20, threads=threads, **options)
        assert_array_equal(again.distances, whole.distances)
        assert_array_equal(again.states, whole.states)
    small = pl.perturbation_ensemble(system, w, [1e-6, 1e-3], 4, 20, keep="mean", **options)
    assert_allclose(small.distances, mean.distances, rtol=1e-12)
    assert_array_equal(small.n_finite, mean.n_finite)


def test_a_block_of_runs_gives_what_all_of_them_give():
    system = training()
    w = cases.weights(system.network, runs=5)

    def distances(runs, **options):
        return pl.perturbation_ensemble(system, runs, 1e-3, 3, 8, seed=7, **options).distances

    assert_array_equal(distances(w[2:4], first_run=2), distances(w)[2:4])
    assert not (distances(w[2:4]) == distances(w)[2:4]).all(axis=(1, 2)).any()


def test_no_runs_at_all():
    system = training()
    w = np.empty((0, system.n))
    more = {"states": True, "losses": True, "path_lengths": True}
    e = pl.perturbation_ensemble(system, w, [1e-3, 1e-2], 3, 8, start=2, **more)
    assert e.distances.shape == (0, 2, 3, 9)
    assert e.states.shape == (0, 2, 3, system.n)
    assert e.losses.shape == (0, 2, 4, 9)
    assert e.path_lengths.shape == (0, 2, 4, system.n_params)


@pytest.mark.parametrize("blocks", [1e8, 0.0])
def test_losses_of_copies_and_reference(blocks, monkeypatch):
    monkeypatch.setattr(sys.modules["pylyap._perturbations.stepping"], "_STATES", blocks)
    system = training(pl.GradientDescent(lr=[[0.1], [0.4]]))
    w = cases.weights(system.network, runs=3)
    e = pl.perturbation_ensemble(
        system, w, [1e-3, 0.1], 2, 8, record_every=4, states=True, losses=True
    )
    assert e.losses.shape == (2, 3, 2, 3, 3)
    plain = training()
    path = system.trajectory(np.broadcast_to(w, (2, 3, 26)), 8, every=4)
    for j in range(2):
        assert_array_equal(e.losses[:, :, j, 0], plain.loss(path))
        assert_array_equal(e.losses[:, :, j, 1:, -1], plain.loss(e.states[:, :, j]))
    assert pl.perturbation_ensemble(system, w, 0.1, 2, 8).losses is None


@pytest.mark.parametrize("blocks", [1e8, 0.0])
def test_path_lengths_of_copies_and_reference(blocks, monkeypatch):
    monkeypatch.setattr(sys.modules["pylyap._perturbations.stepping"], "_STATES", blocks)
    monkeypatch.setattr(sys.modules["pylyap._perturbations.stepping"], "_PATH", 1.0)
    system = training(pl.GradientDescent(lr=0.4, momentum=0.5))
    w = cases.weights(system.network, runs=3)
    options = {"record_every": 4, "start": 2, "states": True, "seed": 1}
    e = pl.perturbation_ensemble(system, w, [1e-3, 0.1], 2, 8, path_lengths=True, **options)
    without = pl.perturbation_ensemble(system, w, [1e-3, 0.1], 2, 8, **options)
    assert_array_equal(e.distances, without.distances)
    assert_array_equal(e.states, without.states)
    assert without.path_lengths is None
    assert e.path_lengths.shape == (3, 2, 3, 26)

    def length(x):
        path = system.weights(system.trajectory(x, 8, start=2))
        return np.abs(np.diff(path, axis=-2)).sum(axis=-2)

    start = system.trajectory(w, 2)[:, -1]
    assert_allclose(e.path_lengths[:, 0, 0], length(start), rtol=1e-13)
    assert_array_equal(e.path_lengths[:, 0, 0], e.path_lengths[:, 1, 0])
    unit = np.random.default_rng(np.random.SeedSequence(1, spawn_key=(2,))).uniform(-1, 1, (2, 26))
    copies = np.repeat(start[2:], 2, axis=0)
    copies[:, :26] += 0.1 * unit
    assert_allclose(e.path_lengths[2, 1, 1:], length(copies), rtol=1e-13)


def test_copies_of_all_sizes_share_their_draws():
    system = training()
    w = cases.weights(system.network)
    e = pl.perturbation_ensemble(system, w, [1e-8, 2e-8], 3, 5)
    assert_allclose(e.distances[1, :, 0], 2 * e.distances[0, :, 0], rtol=1e-6)
    one = pl.perturbation_ensemble(system, w, 2e-8, 3, 5)
    assert_array_equal(one.distances, e.distances[1])


def start_of(system, w, **options):
    """The perturbations themselves, (n_perturbations, n_params)."""
    slow = pl.TrainingMap(system.network, system.X, system.y, pl.GradientDescent(lr=1e-300))
    e = pl.perturbation_ensemble(slow, w, 0.5, 40, 1, states=True, **options)
    return e.states - w


def test_what_is_perturbed():
    system = training()
    w = cases.weights(system.network) + 3.0
    parts = system.network.unpack(np.arange(26.0))
    biases = np.isin(np.arange(26), np.concatenate([b for _, b in parts]))
    assert ((start_of(system, w, perturb="weights") != 0) == ~biases).all()
    assert ((start_of(system, w, perturb="biases") != 0) == biases).all()
    mask = np.arange(26) % 3 == 0
    assert ((start_of(system, w, perturb=mask) != 0) == mask).all()
    few = start_of(system, w, perturb=4) != 0
    assert (few.sum(axis=1) == 4).all()
    assert len(np.unique(few, axis=0)) > 30
    uniform = start_of(system, w)
    assert np.abs(uniform).max() <= 0.5
    assert np.abs(uniform).max() > 0.45
    assert_allclose(start_of(system, w, distribution="normal").std(), 0.5, rtol=0.1)
    sphere = start_of(system, w, distribution="sphere", perturb="weights")
    assert_allclose(np.linalg.norm(sphere, axis=1), 0.5, rtol=1e-12)
    relative = start_of(system, w, relative=True)
    assert (np.abs(relative) <= 0.5 * np.abs(w) * (1 + 1e-12)).all()
    assert_allclose(relative / w, uniform, rtol=1e-9)
    given = np.random.default_rng(0).normal(size=(26, 40))
    assert_allclose(start_of(system, w, distribution=given), 0.5 * given.T, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_small_distances_grow_as_tangent_vectors(norm):
    system = cases.iris(lr=1.0)
    w = cases.weights(system.network, runs=2)
    V = np.random.default_rng(1).normal(size=(2, 83, 3))
    e = pl.perturbation_ensemble(system, w, 1e-10, 3, 30, distribution=V, norm=norm)
    x, pushed = w, V
    order = {"l1": 1, "l2": 2}[norm]
    for t in range(31):
        expected = np.linalg.norm(pushed, order, axis=1) / np.linalg.norm(V, order, axis=1)
        assert_allclose(e.distances[..., t] / e.distances[..., 0], expected, rtol=1e-3)
        pushed, x = system.tangent(x, pushed, t=t), system.step(x, t=t)


def test_a_copy_that_diverges_is_marked_and_alone():
    net = pl.Network((2, 4, 1), activation="relu")
    system = pl.TrainingMap(net, *cases.data(net, 20), pl.GradientDescent(lr=[0.05, 3e2]))
    w = cases.weights(net, 0.5, runs=2)
    e = pl.perturbation_ensemble(system, w, 1e-6, 4, 100)
    calm = pl.TrainingMap(net, system.X, system.y, pl.GradientDescent(lr=[0.05, 0.05]))
    assert_array_equal(e.status, [[0] * 4, [1] * 4])
    assert np.isnan(e.distances[1, :, -1]).all()
    assert e.n_finite[1, -1] == 0
    assert np.isnan(e.mean[1, -1])
    assert_array_equal(e.distances[0], pl.perturbation_ensemble(calm, w, 1e-6, 4, 100).distances[0])


BAD = {
    "negative": ({"eps": -1e-8}, "eps must be at least 0"),
    "nan": ({"eps": np.nan}, "eps must be finite"),
    "two axes": ({"eps": np.ones((2, 2))}, "eps must be a number or an array"),
    "nobody": ({"n_perturbations": 0}, "n_perturbations must be at least 1"),
    "steps": ({"n_steps": 0}, "n_steps must be at least 1"),
    "start": ({"start": -1}, "start must be at least 0"),
    "record": ({"record_every": 3}, "record_every must divide n_steps=10, got 3"),
    "norm": ({"norm": "l3"}, "norm must be"),
    "keep": ({"keep": "some"}, "keep must be"),
    "distribution": ({"distribution": "cauchy"}, "distribution must be"),
    "directions": (
        {"distribution": np.ones((25, 4))},
        r"distribution must have shape \(..., 26, 4",
    ),
    "mask": ({"perturb": np.ones(25, bool)}, r"perturb must be .* shape \(26,\)"),
    "word": ({"perturb": "weight"}, "perturb must be"),
    "count": ({"perturb": 27}, "perturb must be in 1 ... 26"),
    "memory": ({"n_steps": 10**9, "n_perturbations": 10**4}, "keep='mean'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_at_once(case):
    more, message = BAD[case]
    system = training()
    given = {"eps": 1e-8, "n_perturbations": 4, "n_steps": 10} | more
    with pytest.raises(ValueError, match=message):
        pl.perturbation_ensemble(system, cases.weights(system.network), **given)
    with pytest.raises(TypeError, match="system must be a TrainingMap"):
        pl.perturbation_ensemble(system.network, np.zeros(2), 1e-8)


def test_a_cache_that_cannot_be_written_is_done_without():
    kernels = pytest.importorskip("pylyap._kernels")
    homeless: dict = {}
    exec("def kernel(x):\n    x[0] = 1.0\n", homeless)  # no file, no place for a cache
    x = np.zeros(1)
    kernels._compiled(homeless["kernel"])(x)
    assert x[0] == 1.0


@pytest.mark.parametrize("keep", ["all", "mean"])
@pytest.mark.parametrize("eps", [1e-6, [1e-8, 1e-6]])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_an_ensemble_becomes_a_dataset(batch, eps, keep, tmp_path):
    pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    system = training()
    w = cases.weights(system.network, runs=6)[: int(np.prod(batch))].reshape(*batch, -1)
    e = pl.perturbation_ensemble(
        system, w, eps, 2, 6, keep=keep, states=True, losses=True, path_lengths=True
    )
    data = e.to_dataset()
    assert data.sizes["time"] == 7
    for name in ("distances", "n_finite", "status", "states", "losses", "path_lengths"):
        assert_array_equal(data[name].values, getattr(e, name))
    data.to_netcdf(tmp_path / "e.nc", engine="h5netcdf")


def single(optimizer=OPTIMIZERS["plain"]):
    net = pl.Network((3, 4, 2), activation="sigmoid", loss="cross_entropy")
    return pl.TrainingMap(net, *cases.data(net, 14), optimizer, dtype="float32")


def test_single_precision_refuses_what_it_would_round_away():
    system, w = single(), cases.weights(single().network, runs=3)
    one = np.zeros((system.n_params, 2))
    one[4] = 1.0  # along one weight
    for options in ({}, {"relative": True}, {"start": 5}, {"distribution": "sphere"},
                    {"distribution": one}, {"perturb": 3}):  # fmt: skip
        for eps in (1e-9, [1e-3, 1e-9], 1e-30):
            with pytest.raises(ValueError, match=r"eps must be 0 or at least .* got 1e-"):
                pl.perturbation_ensemble(system, w, eps, 2, 5, **options)
    e = pl.perturbation_ensemble(system, w, 0.0, 2, 5)
    assert (e.distances == 0).all()
    # the rule is about the size of the weights, not about numbers as such
    small = pl.perturbation_ensemble(system, 1e-6 * w, 1e-9, 2, 5)
    assert (small.distances[..., 0] > 0).all()


@pytest.mark.parametrize("distribution", ["uniform", "normal", "sphere"])
def test_single_precision_takes_what_it_resolves(distribution):
    system, w = single(), cases.weights(single().network, runs=3)
    options = {"distribution": distribution, "norm": "l2", "states": True}
    e = pl.perturbation_ensemble(system, w, 1e-5, 20, 8, **options)
    double = pl.perturbation_ensemble(training(), w, 1e-5, 20, 8, **options)
    # spacing of weights near 1 over the size of a perturbation of 26 of them
    rtol = 0.1
    assert_allclose(e.distances[..., 0], double.distances[..., 0], rtol=rtol)
    # the copies are states of single precision, and go on as such
    again = system.trajectory(w, 8)[:, -1]
    assert_array_equal(again, again.astype(np.float32))
    assert_array_equal(e.states, e.states.astype(np.float32))
    apart = np.linalg.norm(e.states - again[:, np.newaxis], axis=-1)
    assert_allclose(e.distances[..., -1], apart, rtol=1e-12)
