"""GALI against volumes of vectors that are pushed by hand, and against its law."""

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core


def by_hand(system, x, frame, n_steps):
    """ln of the volumes of unit vectors that are pushed and never made orthogonal."""
    V = frame.copy()
    k = V.shape[1]
    logs = np.zeros((n_steps + 1, k - 1))
    for t in range(n_steps):
        V = system.tangent(x, V, t=t)
        V /= np.linalg.norm(V, axis=0)
        x = system.step(x, t=t)
        for j in range(2, k + 1):
            logs[t + 1, j - 2] = np.log(np.linalg.svd(V[:, :j], compute_uv=False)).sum()
    return logs


@pytest.mark.parametrize("name", ["henon", "training"])
def test_is_the_volume_of_vectors_pushed_by_hand(name):
    if name == "henon":
        system, x, k = cases.henon(), np.array([0.1, 0.1]), 2
    else:
        net = pl.Network((2, 3, 1))
        optimizer = pl.GradientDescent(lr=0.2, momentum=0.5, batch_size=4)
        system = pl.TrainingMap(net, *cases.data(net, 9), optimizer)
        x, k = system.state(cases.weights(net)), 4
    frame = np.linalg.qr(np.random.default_rng(1).normal(size=(system.n, k)))[0]
    expected = by_hand(system, x, frame, 12)
    assert_allclose(pl.gali(system, x, 12, k, frame=frame), expected, atol=1e-9)
    assert_allclose(pl.gali(system, x, 12, k, 4, frame=frame), expected[::4], atol=1e-9)


def test_decays_with_the_distances_to_the_leading_exponent():
    system = cases.linear(2.0, 1.0, 0.5)
    frame = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    logs = pl.gali(system, np.zeros(3), 5000, record_every=500, frame=frame)
    slopes = np.diff(logs[5:], axis=0) / 500
    # long after exp(ln GALI) underflows: ln 2, and ln 2 + ln 4
    assert_allclose(slopes, np.broadcast_to(-np.log([2.0, 8.0]), slopes.shape), rtol=1e-12)


def test_stays_one_where_nothing_aligns_and_runs_are_independent():
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    rotation = pl.DiscreteMap(lambda x: turn @ x, lambda x: turn, 2)
    assert_allclose(pl.gali(rotation, np.ones(2), 50), 0.0, atol=1e-13)
    system = cases.iris(lr=0.5)
    w = cases.weights(system.network, runs=5)
    together = pl.gali(system, w, 10, 3, 5)
    assert together.shape == (5, 3, 2)
    assert_array_equal(pl.gali(system, w[3], 10, 3, 5), together[3])


def test_destroyed_directions_and_diverged_runs():
    logs = pl.gali(cases.linear(2.0, 0.0), np.zeros(2), 4)
    assert logs[0, 0] == 0
    assert (logs[1:] == -np.inf).all()
    net = pl.Network((2, 4, 1), activation="relu")
    system = pl.TrainingMap(net, *cases.data(net, 20), pl.GradientDescent(lr=[0.05, 3e2]))
    logs = pl.gali(system, cases.weights(net, 0.5, runs=2), 60, 2)
    assert np.isfinite(logs[0]).all()
    assert np.isnan(logs[1, -1]).all()


def test_bad_input():
    system = cases.henon()
    with pytest.raises(ValueError, match="k must be at least 2, got 1"):
        pl.gali(system, np.zeros(2), 10, 1)
    with pytest.raises(ValueError, match="record_every must divide n_steps=10, got 3"):
        pl.gali(system, np.zeros(2), 10, record_every=3)


@pytest.mark.parametrize("size", [1e-290, 1e-160, 1e160, 1e290])
def test_growth_that_all_vectors_share_does_not_count_however_large(size):
    plain, scaled = (
        pl.gali(cases.linear(3.0 * f, f, 0.25 * f), np.zeros(3), 60, record_every=10)
        for f in (1.0, size)
    )
    assert_allclose(scaled, plain, rtol=1e-10)  # sums of 40,000 nats that cancel
