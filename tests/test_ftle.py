"""Finite-time exponents: which Jacobians a window takes, and how it measures growth."""

import cases
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core


def counter(rate=0.1):
    """State (clock, y): the Jacobian of step t stretches y by exp(rate · t)."""
    return pl.DiscreteMap(
        lambda x: np.array([x[0] + 1, 0.0]),
        lambda x: np.diag([1.0, np.exp(rate * x[0])]),
        2,
    )


# ------------------------------------------------------------------------------ known answers


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_a_window_uses_the_jacobians_before_its_steps(kind):
    # windows that are late by one step would give rate · (t + 1)
    frame = np.array([[0.0, 1.0], [1.0, 0.0]])
    rates = pl.ftle(counter(), [0.0, 0.0], 12, window=3, kind=kind, frame=frame)
    assert rates.shape == (4, 2)
    # the mean of t, t + 1, t + 2; of a window at 0 also the larger one comes first
    assert_allclose(rates[:, 0], 0.1 * np.array([1, 4, 7, 10]), rtol=1e-13)
    assert_allclose(rates[:, 1], 0, atol=1e-15)


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_windows_may_overlap(kind):
    frame = np.array([[0.0, 1.0], [1.0, 0.0]])
    rates = pl.ftle(counter(), [0.0, 0.0], 10, window=4, stride=2, kind=kind, frame=frame)
    assert_allclose(rates[:, 0], 0.1 * (np.array([0, 2, 4, 6]) + 1.5), rtol=1e-13)


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_windows_start_after_the_transient(kind):
    frame = np.array([[0.0, 1.0], [1.0, 0.0]])
    rates = pl.ftle(counter(), [0.0, 0.0], 4, window=2, n_transient=5, kind=kind, frame=frame)
    assert_allclose(rates[:, 0], [0.55, 0.75], rtol=1e-13)


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_a_window_destroys_a_direction(kind):
    rates = pl.ftle(
        cases.linear(2.0, 0.0, 0.5), np.ones(3), 60, window=20, n_transient=60, kind=kind
    )
    assert_allclose(rates[:, :2], np.tile([np.log(2), -np.log(2)], (3, 1)), rtol=1e-12)
    assert_array_equal(rates[:, 2], np.full(3, -np.inf))


def test_singular_values_forget_no_small_one():
    # 1e-3 to the 40th beside 2 to the 40th: the product itself holds 16 digits of 132
    system = cases.linear(2.0, 1e-3, 0.7)
    rates = pl.ftle(system, np.ones(3), 40, window=40, kind="svd")
    assert_allclose(rates, np.log([[2.0, 0.7, 1e-3]]), rtol=1e-12)


def test_singular_values_of_a_shear_differ_from_its_exponents():
    J = np.array([[1.0, 1.0], [0.0, 1.0]])
    shear = pl.DiscreteMap(lambda x: J @ x, lambda x: J, 2)
    rates = pl.ftle(shear, np.ones(2), 10, window=10, kind="svd")
    # [[1, 10], [0, 1]] has the singular values √(26) ± 5
    assert_allclose(rates, np.log([[np.sqrt(26) + 5, np.sqrt(26) - 5]]) / 10, rtol=1e-12)


# ---------------------------------------------------------------------------------------- laws


def test_windows_that_touch_average_to_the_spectrum():
    *_, system, w = cases.training("tanh", "cross_entropy", batch_size=3)
    s = pl.lyapunov_spectrum(system, w, 60, k=5, seed=2)
    rates = pl.ftle(system, w, 60, window=10, k=5, seed=2)
    assert rates.shape == (6, 5)
    assert_allclose(rates, s.growth.reshape(6, 10, 5).mean(axis=1), atol=1e-13)
    assert_allclose(rates.mean(axis=0), s.exponents, atol=1e-13)


@pytest.mark.parametrize("name", ["plain", "heavy_ball", "adam"])
def test_both_kinds_have_the_determinant_of_the_window(name):
    *_, system, w = cases.training(optimizer_name=name, n_samples=20)
    w = cases.state(system, w)
    kinds = [pl.ftle(system, w, 12, window=4, kind=kind) for kind in ("qr", "svd")]
    assert_allclose(kinds[0].sum(axis=-1), kinds[1].sum(axis=-1), atol=1e-9)


def test_singular_values_come_in_descending_order_and_depend_on_no_frame():
    *_, system, w = cases.training("relu", n_samples=20)
    rates = [pl.ftle(system, w, 20, window=5, kind="svd", seed=seed) for seed in (0, 1)]
    assert (np.diff(rates[0], axis=-1) <= 1e-12).all()
    assert_allclose(rates[0], rates[1], atol=1e-9)


def test_few_singular_values_are_those_of_the_frames_span():
    *_, system, w = cases.training(n_samples=20)
    whole = pl.ftle(system, w, 20, window=5, kind="svd")
    part = pl.ftle(system, w, 20, window=5, k=3, kind="svd")
    volume = pl.ftle(system, w, 20, window=5, k=3)
    assert_allclose(part.sum(axis=-1), volume.sum(axis=-1), atol=1e-12)
    assert (part <= whole[:, :3] + 1e-12).all()  # singular values of a submatrix interlace


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_runs_of_a_batch_are_independent(kind):
    *_, system, w = cases.training(runs=6)
    rates = pl.ftle(system, w.reshape(2, 3, -1), 20, window=5, k=4, kind=kind)
    assert rates.shape == (2, 3, 4, 4)
    assert_array_equal(rates[1, 0], pl.ftle(system, w[3], 20, window=5, k=4, kind=kind))


# -------------------------------------------------------------------- agreement with the oracle


@pytest.mark.parametrize("name", ["plain", "nesterov", "adam"])
def test_windows_agree_with_products_of_many_digits(name):
    pytest.importorskip("mpmath")
    net = pl.Network((1, 2, 1), activation="tanh")
    X, y = cases.data(net, 10)
    system = pl.TrainingMap(net, X, y, cases.optimizer(name))
    x = cases.state(system, cases.weights(net))
    states = system.trajectory(x, 12)
    jacobians = np.array(
        [oracles.step_jacobian(net, cases.reference(name), states[t], X, y, t) for t in range(12)]
    )
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(system.n, system.n)))[0]
    by_qr = pl.ftle(system, x, 12, window=6, stride=3, frame=frame)
    assert_allclose(by_qr, oracles.ftle_qr(jacobians, frame, 6, 3), atol=1e-10)
    by_svd = pl.ftle(system, x, 12, window=6, stride=3, kind="svd")
    assert_allclose(by_svd, oracles.ftle_svd(jacobians, 6, 3), atol=1e-9)


def test_henon_windows_agree_with_products_of_many_digits():
    pytest.importorskip("mpmath")
    system = cases.henon()
    states = system.trajectory(np.array([0.1, 0.1]), 90)[30:]
    jacobians = np.array([system.jacobian(x) for x in states[:-1]])
    rates = pl.ftle(system, states[0], 60, window=20, kind="svd")
    # 1e-14 of a direction is lost only where sigma_1/sigma_2 = e^(2 · 20) would lose all of it
    assert_allclose(rates, oracles.ftle_svd(jacobians, 20, 20), atol=1e-10)


# -------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_windows_after_a_divergence_are_nan(kind):
    system = pl.TrainingMap(pl.Network((1, 1)), [[1.0]], [0.0], pl.GradientDescent(lr=1e30))
    rates = pl.ftle(system, np.array([1.0, 1.0]), 40, window=5, k=1, kind=kind)
    assert np.isfinite(rates[0]).all()
    assert np.isnan(rates[3:]).all()


@pytest.mark.parametrize("kind", ["qr", "svd"])
def test_a_window_of_one_step(kind):
    *_, system, w = cases.training()
    rates = pl.ftle(system, w, 3, window=1, kind=kind)
    assert rates.shape == (3, system.n)
    if kind == "svd":
        values = np.linalg.svd(system.jacobian(w), compute_uv=False)
        assert_allclose(rates[0], np.log(values), atol=1e-10)


# ------------------------------------------------------------------------- along covariant vectors


def test_windows_along_covariant_vectors_are_their_growth():
    *_, system, w = cases.training("tanh", "cross_entropy", 2, "heavy_ball", n_samples=9)
    c = pl.covariant_lyapunov_vectors(system, w, 20, 4, n_transient=7, n_tail=5, seed=2)
    windows = pl.ftle(system, w, 21, 6, 7, "clv", k=4, n_transient=7, n_tail=5, seed=2)
    expected = np.stack([c.growth[first : first + 6].sum(axis=0) / 6 for first in (0, 7, 14)])
    assert_allclose(windows, expected, rtol=1e-12, atol=1e-15)


def test_all_kinds_see_the_same_volume_and_the_same_fixed_point():
    system, w = cases.quadratic_bowl(np.array([0.3, 0.7, 1.7]), 0.4)
    rates = np.sort(np.log(np.abs(1 - 0.4 * np.linalg.eigvalsh(system.hessian(w)))))[::-1]
    for kind in ("qr", "svd", "clv"):
        tail = {"n_tail": 600} if kind == "clv" else {}
        windows = pl.ftle(system, w, 30, 10, kind=kind, n_transient=600, **tail)
        assert_allclose(windows, np.broadcast_to(rates, (3, 4)), rtol=1e-9)


def test_only_covariant_vectors_have_a_tail():
    *_, system, w = cases.training()
    with pytest.raises(ValueError, match="n_tail must be left out for kind='qr'"):
        pl.ftle(system, w, 10, 5, n_tail=3)
    with pytest.raises(ValueError, match="n_tail must be at least 0"):
        pl.ftle(system, w, 10, 5, kind="clv", n_tail=-1)


@pytest.mark.parametrize("kind", ["qr", "svd", "clv"])
@pytest.mark.parametrize("size", [1e-290, 1e-160, 1e160, 1e290])
def test_growth_of_single_steps_beyond_the_root_of_the_range_of_a_double(kind, size):
    diagonal = np.array([3.0, 1.0, 0.25]) * size
    tail = {"n_tail": 40} if kind == "clv" else {}
    system = cases.linear(*diagonal)
    exponents = pl.ftle(system, np.zeros(3), 60, 12, kind=kind, n_transient=40, **tail)
    # 3^-40 of the transient and of the tail are left
    assert_allclose(exponents, np.stack([np.log(diagonal)] * 5), rtol=1e-12)
