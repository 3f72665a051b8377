"""Same seed, same bits: however many threads, runs beside it, vectors, or calls it takes."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import numpy as np
import pytest
from cases import OPTIMIZERS, networks, optimizers, seeds
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._native import core

pytestmark = pytest.mark.core

FIELDS = ("exponents", "stderr", "growth", "loss", "state", "frame", "status", "n_done", "trend")


def assert_same(ours, theirs, at=()):
    for field in FIELDS:
        a, b = np.asarray(getattr(ours, field)), np.asarray(getattr(theirs, field))[at]
        assert_array_equal(a, b, err_msg=field)


def iris(name="plain", **more):
    net = pl.Network((4, 5, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *pl.datasets.iris(), cases.optimizer(name, **more))
    return system, cases.weights(net, runs=64)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("k", [2, None])
@pytest.mark.parametrize("name", ["plain", "nesterov", "adam"])
def test_one_thread_or_two(name, k):
    system, w = iris(name, batch_size=50)
    one, two = (pl.lyapunov_spectrum(system, w, 3, k=k, threads=n) for n in (1, 2))
    assert_same(one, two)
    everything = pl.lyapunov_spectrum(system, w, 3, k=k)
    assert_same(one, everything)


INSIDE = {
    # layers, samples, batch, vectors, threads of five: each way to share the steps of one run
    "blocks of samples": ((8, 30, 4), 1100, None, 1, 5),
    "blocks, deep": ((4, 16, 16, 3), 1100, None, 2, 5),
    "blocks of minibatches": ((12, 30, 20, 3), 1400, 1100, 2, 5),
    "blocks and vectors": ((12, 30, 20, 3), 511, None, 5, 4),
    "blocks and vectors, wide": ((20, 30, 3), 511, None, 7, 4),
    "blocks and pairs of vectors": ((4, 50, 3), 511, None, 17, 4),
    "vectors": ((4, 16, 16, 3), 200, None, 8, 5),
    "vectors, few samples": ((4, 16, 16, 3), 61, None, 9, 5),
    "pairs of vectors": ((4, 50, 3), 200, None, 9, 5),
    "pairs of vectors, few samples": ((4, 50, 3), 61, None, 17, 5),
    "units of layers": ((60, 70, 50, 3), 255, None, 7, 5),
}


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("name", ["heavy_ball", "adam"])
@pytest.mark.parametrize("case", INSIDE)
def test_threads_inside_one_run_change_no_bit(case, name, monkeypatch):
    layers, samples, batch, k, expected = INSIDE[case]
    monkeypatch.setattr("pylyap._parallel._INLINE", 0.0)  # however small
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    optimizer = cases.optimizer(name, batch_size=batch)
    system = pl.TrainingMap(net, *cases.data(net, samples), optimizer)
    w = cases.weights(net)
    V = np.random.default_rng(0).normal(size=(system.n, k))
    method = "matrix-free"
    assert threads_of(system, k, method) == expected
    one, two, five = (
        pl.lyapunov_spectrum(system, w, 6, k=k, method=method, threads=n) for n in (1, 2, 5)
    )
    assert_same(two, one)
    assert_same(five, one)
    paths = [system.trajectory(w, 6, threads=n) for n in (1, 2, 5)]
    assert_array_equal(paths[1], paths[0])
    assert_array_equal(paths[2], paths[0])
    columns = [system.tangent(w, V[:, [c]], method=method) for c in range(k)]
    assert_allclose(system.tangent(w, V, method=method), np.hstack(columns), rtol=1e-11, atol=1e-14)


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("layers", [(4, 10, 3), (4, 8, 6, 3)])
def test_blocks_of_a_dense_hessian_change_no_bit(layers, monkeypatch):
    monkeypatch.setattr("pylyap._parallel._INLINE", 0.0)
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 1100), pl.GradientDescent(lr=0.1))
    assert threads_of(system, None, "dense") == 5
    one, two, five = (
        pl.lyapunov_spectrum(system, cases.weights(net), 3, method="dense", threads=n)
        for n in (1, 2, 5)
    )
    assert_same(two, one)
    assert_same(five, one)


def threads_of(system, k, method):
    """Threads inside a run alone, of five."""
    task = core.Task(np.zeros(1, np.int32), np.zeros(1, np.int64), workers=5, first=0, count=1)
    return system._runs.problem.workers_inside(system.n if k is None else k, method, task)


@pytest.mark.parametrize("k", [0, 1, 2, 83])
def test_small_work_has_one_thread(k):
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.1))
    assert threads_of(system, k, "auto") == 1


def test_calls_from_several_threads_do_not_meet():
    system, w = iris("adam", batch_size=7)
    alone = [pl.lyapunov_spectrum(system, each, 60, k=3) for each in w[:8]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: pl.lyapunov_spectrum(system, x, 60, k=3), w[:8]))
    for ours, theirs in zip(together, alone, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_finite_time_exponents_for_one_thread_or_two(kind):
    system, w = iris()
    one, two = (pl.ftle(system, w[:10], 10, window=5, k=5, kind=kind, threads=n) for n in (1, 2))
    assert_array_equal(one, two)


@pytest.mark.parametrize("k", [1, 4, None])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_run_alone_or_among_64(name, k):
    system, w = iris(name)
    all_runs = pl.lyapunov_spectrum(system, w, 6, k=k)
    for run in (0, 1, 17, 62, 63):
        assert_same(pl.lyapunov_spectrum(system, w[run], 6, k=k), all_runs, run)
    few = pl.lyapunov_spectrum(system, w[5:10], 6, k=k)
    assert_same(few, all_runs, slice(5, 10))


@given(networks(), optimizers(), seeds())
def test_step_trajectory_and_spectrum_share_their_states(net, name, seed):
    system = pl.TrainingMap(net, *cases.data(net), cases.optimizer(name, batch_size=3))
    w = cases.weights(net, seed=seed, runs=5)
    trajectory = system.trajectory(w, 9)
    x = system.state(w)
    for t in range(9):
        x = system.step(x, t=t)
        assert_array_equal(x, trajectory[:, t + 1])
    for n_steps in (1, 4, 9):
        for k in (1, None):
            s = pl.lyapunov_spectrum(system, w, n_steps, k=k)
            assert_array_equal(s.state, trajectory[:, n_steps])
    alone = pl.lyapunov_spectrum(system, w[3], 9, k=1, qr_every=3, n_transient=0)
    assert_array_equal(alone.state, trajectory[3, 9])


@pytest.mark.parametrize("n_samples", [1, 3, 4, 5, 31, 150])
@pytest.mark.parametrize("runs", [1, 2, 3, 4, 5, 7, 9])
def test_every_number_of_runs_and_samples_takes_the_same_path(runs, n_samples):
    net = cases.network("tanh", "cross_entropy", 2)
    system = pl.TrainingMap(net, *cases.data(net, n_samples), pl.GradientDescent(lr=0.5))
    w = cases.weights(net, runs=runs)
    together, J = system.trajectory(w, 5), system.jacobian(w)
    loss, V = system.loss(w), np.random.default_rng(0).normal(size=(runs, system.n, 3))
    tangent = system.tangent(w, V)
    for i in range(runs):
        assert_array_equal(system.trajectory(w[i], 5), together[i])
        assert_array_equal(system.jacobian(w[i]), J[i])
        assert_array_equal(system.tangent(w[i], V[i]), tangent[i])
        assert system.loss(w[i]) == loss[i]


@pytest.mark.parametrize("name", ["plain", "heavy_ball", "adam"])
def test_a_run_that_stops_and_resumes_is_the_run_that_did_not(name):
    system, w = iris(name, batch_size=50)
    w = w[:6]
    whole = pl.lyapunov_spectrum(system, w, 12, k=3)
    first = pl.lyapunov_spectrum(system, w, 5, k=3)
    second = pl.lyapunov_spectrum(system, first.state, 7, k=3, start=5, frame=first.frame)
    assert_array_equal(np.concatenate([first.loss[:, :-1], second.loss], axis=1), whole.loss)
    assert_array_equal(second.state, whole.state)
    # a frame that is handed over is orthonormalised once more
    growth = np.concatenate([first.growth, second.growth], axis=1)
    assert_allclose(growth, whole.growth, atol=1e-13)


@pytest.mark.parametrize("bad", [0, 30, 63])
def test_one_diverging_run_leaves_the_other_63_alone(bad):
    net = pl.Network((2, 4, 1), activation="relu")
    X, y = cases.data(net, 20)
    w = cases.weights(net, 0.5, runs=64)
    rates = np.full(64, 0.05)
    healthy = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates))
    fine = pl.lyapunov_spectrum(healthy, w, 40, k=4)
    rates[bad] = 1e12
    sick = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates))
    s = pl.lyapunov_spectrum(sick, w, 40, k=4)
    assert s.status[bad] == 1
    assert np.isnan(s.exponents[bad]).all()
    assert s.n_done[bad] < 40
    others = np.arange(64) != bad
    assert (s.status[others] == 0).all()
    for field in FIELDS:
        assert_array_equal(getattr(s, field)[others], getattr(fine, field)[others])
    assert_array_equal(sick.trajectory(w, 40)[others], healthy.trajectory(w, 40)[others])


def test_one_diverging_run_of_a_user_map_leaves_the_others_alone():
    x = np.array([[0.1, 0.1], [50.0, 0.0], [0.2, 0.1]])  # the second escapes to infinity
    with np.errstate(over="ignore", invalid="ignore"):
        s = pl.lyapunov_spectrum(cases.henon(), x, 100)
    assert_array_equal(s.status, [0, 1, 0])
    assert np.isnan(s.exponents[1]).all()
    for i in (0, 2):
        assert_same(pl.lyapunov_spectrum(cases.henon(), x[i], 100), s, i)


@pytest.mark.parametrize("seed", [0, 2**63, np.random.SeedSequence(5)])
def test_the_same_seed_twice_gives_the_same_bits(seed):
    def everything():
        net = cases.network()
        optimizer = pl.GradientDescent(batch_size=2, seed=seed)
        system = pl.TrainingMap(net, *cases.data(net), optimizer)
        w = net.init("he_normal", runs=2, seed=seed)
        return pl.lyapunov_spectrum(system, w, 8, k=3, seed=seed)

    assert_same(everything(), everything())


def test_a_generator_is_asked_for_one_number_at_a_time():
    *_, system, w = cases.training()
    generator = np.random.default_rng(3)
    first = pl.lyapunov_spectrum(system, w, 3, seed=generator)
    second = pl.lyapunov_spectrum(system, w, 3, seed=generator)
    assert (first.growth != second.growth).any()
    again = pl.lyapunov_spectrum(system, w, 3, seed=np.random.default_rng(3))
    assert_same(first, again)


def test_nothing_touches_numpys_global_state():
    def position():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002
        return kind, keys.tolist(), rest

    before = position()
    *_, system, w = cases.training(batch_size=3)
    pl.lyapunov_spectrum(system, w, 5)
    system.network.init("normal", seed=1)
    pl.datasets.quadratic(5)
    assert position() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are only spawned here")
def test_processes_that_are_forked_or_spawned_give_the_same_bits(tmp_path):
    pytest.importorskip("numba")
    pytest.importorskip("zarr")
    script = Path(__file__).with_name("fork_pool.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == [
        "fork pool True", "spawn pool True", "fork executor True", "loaded"
    ], done.stderr  # fmt: skip
