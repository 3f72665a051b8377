"""The largest eigenvalue of the Hessian, and the edge of stability it stands for."""

import sys

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core

NETS = {
    "one hidden layer": ((4, 6, 3), "tanh", "cross_entropy"),
    "deep": ((3, 5, 4, 2), "gelu", "cross_entropy"),
    "squared error": ((2, 7, 1), "sin", "mse"),
    "wide": ((6, 80, 3), "sigmoid", "cross_entropy"),
}


@pytest.mark.parametrize("name", NETS)
def test_agrees_with_all_eigenvalues(name):
    layers, activation, loss = NETS[name]
    net = pl.Network(layers, activation=activation, loss=loss)
    system = pl.TrainingMap(net, *cases.data(net, 23), pl.GradientDescent(lr=0.3))
    w = cases.weights(net, 0.7, runs=6).reshape(2, 3, -1)
    found = pl.sharpness(system, w)
    whole = pl.hessian_spectrum(system, w)
    H = system.hessian(w)
    assert_allclose(whole.eigenvalues, np.linalg.eigvalsh(H)[..., ::-1], rtol=1e-12)
    assert_allclose(found.value, whole.eigenvalues[..., 0], rtol=1e-8)
    assert_allclose(found.ratio, 0.15 * found.value, rtol=1e-14)
    assert_allclose(whole.ratio, found.ratio, rtol=1e-8)
    image = np.einsum("...ij,...j->...i", H, found.vector)
    missed = np.linalg.norm(image - found.value[..., np.newaxis] * found.vector, axis=-1)
    assert (missed <= 1e-7 * found.value).all()
    assert_allclose(np.linalg.norm(found.vector, axis=-1), 1, rtol=1e-12)
    assert (found.n_products <= net.n_params).all()
    share = (np.linalg.eigvalsh(H) < -1e-12 * found.value[..., np.newaxis]).mean(axis=-1)
    assert_allclose(whole.negative, share)


def test_along_a_run():
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent(lr=0.1, momentum=0.5))
    path = system.trajectory(cases.weights(net, runs=2), 20, every=5)  # states with their buffers
    found = pl.sharpness(system, path)
    assert found.value.shape == (2, 5)
    assert_array_equal(pl.sharpness(system, path, threads=1).value, found.value)
    assert_allclose(pl.sharpness(system, path[1, 3]).value, found.value[1, 3], rtol=1e-12)


def test_a_state_that_is_nan_stays_nan_and_alone():
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent())
    w = cases.weights(net, runs=4)
    fine = pl.sharpness(system, w)
    w[2] = np.nan
    found = pl.sharpness(system, w)
    assert np.isnan(found.value[2])
    assert np.isnan(pl.hessian_spectrum(system, w).eigenvalues[2]).all()
    others = [0, 1, 3]
    assert_array_equal(found.value[others], fine.value[others])


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]
)
def test_ratio_1_is_where_the_fixed_point_loses_its_stability(momentum, nesterov):
    system, w = cases.quadratic_bowl(np.array([0.3, 0.7, 1.7]), 0.1)
    largest = float(pl.sharpness(system, w).value)
    for decay in (0.0, 0.4):
        for ratio in (0.99, 1.01):
            edge = 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)
            options = {"momentum": momentum, "nesterov": nesterov} if momentum else {}
            descent = pl.GradientDescent(
                lr=ratio * edge / (largest + decay), weight_decay=decay, **options
            )
            other = pl.TrainingMap(system.network, system.X, system.y, descent)
            assert_allclose(pl.sharpness(other, w).ratio, ratio, rtol=1e-9)
            radius = np.abs(np.linalg.eigvals(other.jacobian(other.state(w)))).max()
            assert (radius > 1) == (ratio > 1)


def test_adam_has_no_fixed_edge():
    *_, system, w = cases.training(optimizer_name="adam")
    found = pl.sharpness(system, w)
    assert np.isfinite(found.value)
    assert np.isnan(found.ratio)


BAD = {
    "map": (lambda s, w: pl.sharpness(cases.henon(), [0, 0]), TypeError, "system must be"),
    "tol": (lambda s, w: pl.sharpness(s, w, tol=0), ValueError, "tol must be"),
    "products": (lambda s, w: pl.sharpness(s, w, max_products=0), ValueError, "max_products"),
    "shape": (lambda s, w: pl.sharpness(s, w[:3]), ValueError, "x must have shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, error, message = BAD[case]
    *_, system, w = cases.training()
    with pytest.raises(error, match=message):
        call(system, w)


def test_few_products_say_so_by_their_residual():
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 40), pl.GradientDescent())
    w = cases.weights(net)
    found = pl.sharpness(system, w, max_products=4)
    largest = pl.hessian_spectrum(system, w).eigenvalues[0]
    assert found.n_products == 4
    assert found.residual > 1e-8 * largest
    assert abs(found.value - largest) <= found.residual + 1e-12


def test_sharpness_along_training_and_the_edge_of_each_rate(monkeypatch):
    net = pl.Network((2, 3, 1))
    X, y = cases.data(net)
    lr = np.array([0.1, 0.3, 0.6])
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=lr))
    w = cases.weights(net, runs=3)
    along = pl.sharpness_along(system, w, 20, every=5, tol=1e-9)
    assert along.value.shape == along.ratio.shape == (3, 5)
    path = system.trajectory(w, 20, every=5)
    plain = pl.TrainingMap(net, X, y, pl.GradientDescent())
    assert_allclose(along.value, pl.hessian_spectrum(plain, path).eigenvalues[..., 0], rtol=1e-8)
    assert_allclose(along.ratio, along.value * lr[:, np.newaxis] / 2, rtol=1e-13)
    # however many states are iterated together
    monkeypatch.setattr(sys.modules["pylyap.sharpness"], "_KRYLOV_BYTES", 1.0)
    assert_array_equal(pl.sharpness_along(system, w, 20, every=5, tol=1e-9).value, along.value)


def test_full_batch_descent_hovers_at_the_edge():
    # Cohen et al. 2021: sharpness rises until the rate bears it no longer, and stays about there
    net = pl.Network((2, 16, 1), activation="tanh")
    X, y = pl.datasets.quadratic(40)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.6))
    along = pl.sharpness_along(system, net.init("he_normal", runs=4), 6000, every=500)
    assert (along.ratio[:, -1] > 0.5).all()
    assert (along.ratio < 1.5).all()


def test_weights_whose_curvature_overflows_are_nan_and_leave_the_others():
    net = pl.Network((2, 3, 1), activation="softplus")
    system = pl.TrainingMap(net, *cases.data(net, 9), pl.GradientDescent())
    w = np.stack([cases.weights(net), 1e120 * cases.weights(net), 1e200 * np.ones(net.n_params)])
    s = pl.sharpness(system, w)
    assert_array_equal(s.value[0], pl.sharpness(system, w[:1]).value[0])
    assert np.isnan(s.value[2])


def test_along_training_the_schedule_counts():
    net = cases.network("tanh")
    X, y = cases.data(net, 9)
    w = cases.weights(net, runs=2)
    factors = [1.0, 0.5, 0.25, 0.125]
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2, schedule=factors))
    along = pl.sharpness_along(system, w, 3, start=1)
    expected = 0.1 * along.value * np.array([0.5, 0.25, 0.125, 0.125])
    assert_allclose(along.ratio, expected, rtol=1e-12)
