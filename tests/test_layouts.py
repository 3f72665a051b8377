"""One run, few runs and groups in lanes: the same bits of every result.

A group of runs is computed in lanes, few runs one after the other with registers along samples,
parameters or vectors (csrc/cost.hpp). Every run here is compared with itself in a batch of 17,
which has two whole groups and a rest.
"""

import cases
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pylyap as pl
from pylyap import _parallel

pytestmark = pytest.mark.core

RUNS = 17
BATCHES = (1, 2, 3, 5, 6, 7, 8, 9, 12)

NETS = {
    # layers, activations, loss, samples: each way to form products and sums
    "softmax": ((4, 10, 3), "sigmoid", "cross_entropy", 120),
    "squares": ((2, 10, 1), "tanh", "mse", 50),
    "several blocks": ((3, 4, 3), "softplus", "cross_entropy_clipped", 300),
    "deep": ((3, 7, 5, 4), ["silu", "gelu"], "cross_entropy_clipped", 61),
    "many units": ((1, 1, 70, 1), ["sin", "identity"], "mse", 50),
    "many inputs": ((17, 5, 2), "elu", "cross_entropy", 37),
    "many outputs": ((3, 4, 40), "tanh", "cross_entropy", 30),
    "no hidden layer": ((5, 9), [], "cross_entropy", 40),
    "relu, several outputs": ((3, 6, 5), "relu", "mse", 13),
    "fewer samples than lanes": ((2, 3, 1), "leaky_relu", "mse", 3),
}
OPTIMIZERS = {
    "plain": {"lr": 0.1},
    "heavy ball, decay": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "nesterov, minibatches": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "batch_size": 3},
}


def training(net="softmax", optimizer=None):
    layers, activation, loss, samples = NETS[net]
    network = pl.Network(layers, activation=activation or "tanh", loss=loss)
    data = cases.data(network, samples)
    system = pl.TrainingMap(network, *data, optimizer or pl.GradientDescent(lr=0.1))
    return system, network.init("normal", runs=RUNS, seed=3)


def optimizer(name):
    return (
        pl.Adam(lr=0.01, weight_decay=1e-3)
        if name == "adam"
        else pl.GradientDescent(**OPTIMIZERS[name])
    )


def assert_independent_of_batch(results, w, batches=BATCHES):
    """results(w) is a list of arrays over runs; those of the first runs alone are the same."""
    whole = results(w)
    assert all(np.isfinite(array).all() for array in whole)
    for runs in batches:
        for ours, theirs in zip(results(w[:runs]), whole, strict=True):
            assert_array_equal(ours, theirs[:runs])


@pytest.mark.parametrize("net", NETS)
def test_functions_of_weights(net):
    system, w = training(net)
    X = np.random.default_rng(0).normal(size=(13, system.network.layers[0]))

    def results(w):
        found = [system.loss(w), system.gradient(w), system.network.predict(w, X)]
        return [*found, system.hessian(w)] if system.n < 100 else found

    assert_independent_of_batch(results, w)


@pytest.mark.parametrize("name", [*OPTIMIZERS, "adam"])
@pytest.mark.parametrize("net", NETS)
def test_steps_and_tangents(net, name):
    system, w = training(net, optimizer(name))
    V = np.random.default_rng(0).normal(size=(RUNS, system.n, 5))

    def results(w):
        path = system.trajectory(w, 4)
        tangents = [
            system.tangent(path[:, -1], V[: len(w)], 4, method=method)
            for method in ("dense", "matrix-free")
        ]
        return [path, *tangents]

    assert_independent_of_batch(results, w, (1, 3, 6, 9))


def spectrum(system, w, **options):
    s = pl.lyapunov_spectrum(system, w, 6, n_transient=2, record_every=2, **options)
    return [s.growth, s.loss, s.state, s.frame]


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
@pytest.mark.parametrize("k", [1, 2, 5, 9, None])
@pytest.mark.parametrize("net", ["softmax", "squares"])
def test_spectra(net, k, method):
    system, w = training(net)
    assert_independent_of_batch(lambda w: spectrum(system, w, k=k, method=method), w, (1, 3, 9))


@pytest.mark.parametrize("name", [*OPTIMIZERS, "adam"])
@pytest.mark.parametrize("net", ["deep", "many inputs", "several blocks"])
def test_spectra_of_optimizers(net, name):
    system, w = training(net, optimizer(name))
    assert_independent_of_batch(lambda w: spectrum(system, w, k=4), w, (1, 3, 9))


def test_seldom_orthonormalised_with_factors():
    system, w = training()
    assert_independent_of_batch(lambda w: spectrum(system, w, k=6, qr_every=2), w)
    kinds = ("svd", "clv")
    assert_independent_of_batch(
        lambda w: [pl.ftle(system, w, 6, window=3, stride=3, kind=kind, k=3) for kind in kinds],
        w, (1, 3, 9),
    )  # fmt: skip


@pytest.mark.parametrize("net", ["softmax", "squares", "deep"])
@pytest.mark.parametrize("k", [4, 21])
def test_covariant_vectors(net, k):
    system, w = training(net)

    def results(w):
        c = pl.covariant_lyapunov_vectors(system, w, 6, k=k, n_transient=2, n_tail=4)
        return [c.vectors, c.states, c.growth, c.residual]

    assert_independent_of_batch(results, w, (1, 3, 9))


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("runs", [1, 3, 8, 12, 17])
@pytest.mark.parametrize("net", ["softmax", "deep", "several blocks"])
def test_threads(net, runs, monkeypatch):
    monkeypatch.setattr("pylyap._parallel._INLINE", 0.0)  # however small
    system, w = training(net, optimizer("heavy ball, decay"))
    one, two, five = (spectrum(system, w[:runs], k=5, threads=threads) for threads in (1, 2, 5))
    for a, b, c in zip(one, two, five, strict=True):
        assert_array_equal(a, b)
        assert_array_equal(a, c)


def test_members_of_ensembles():
    system, w = training()
    few = pl.perturbation_ensemble(system, w[0], eps=1e-4, n_perturbations=2, n_steps=5)
    many = pl.perturbation_ensemble(system, w, eps=1e-4, n_perturbations=2, n_steps=5)
    assert few.distances.max() > 0.0
    assert_array_equal(few.distances, many.distances[0])


def test_collapsed_and_diverged_runs():
    system, w = training("relu, several outputs", pl.GradientDescent(lr=1.0))
    w = w.copy()
    w[1] *= 1e200  # diverges at once
    w[2] = 0.0
    whole = spectrum(system, w, k=12)
    for run in range(4):
        for ours, theirs in zip(spectrum(system, w[run : run + 1], k=12), whole, strict=True):
            assert_array_equal(ours, theirs[run : run + 1])


def test_rule():
    # At least one run is computed alone, more of them the more the samples fill registers, and
    # at most half a group.
    few, many = (training(net)[0]._runs for net in ("fewer samples than lanes", "softmax"))
    assert few.alone == 1
    assert many.alone == many.group // 2


@pytest.mark.parametrize(
    ("runs", "threads", "expected"),
    [
        # runs, threads: (runs, threads inside each run) of every task, in groups of 8
        (1, 1, [(1, 1)]),
        (1, 4, [(1, 4)]),
        (2, 2, [(1, 1), (1, 1)]),
        (5, 2, [(3, 1), (2, 1)]),
        (8, 2, [(4, 1), (4, 1)]),
        (8, 1, [(8, 1)]),
        (9, 2, [(8, 1), (1, 1)]),
        (10, 4, [(3, 1), (3, 1), (3, 1), (1, 1)]),
        (12, 2, [(8, 1), (4, 1)]),
    ],
)
@pytest.mark.usefixtures("many_cores")
def test_division_of_few_runs(runs, threads, expected):
    tasks = []

    def work(task):
        tasks.append((task.first, task.count, task.workers))

    _parallel.over_runs(work, runs, group=8, alone=4, threads=threads, cost=1e9)
    tasks.sort()
    assert [(count, workers) for _, count, workers in tasks] == expected
    starts = np.cumsum([0, *(count for count, _ in expected[:-1])])
    assert [first for first, *_ in tasks] == starts.tolist()
