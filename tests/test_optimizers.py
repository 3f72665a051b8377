"""One optimiser step as a map: its state, its Jacobian, its batches."""

import copy
import dataclasses
import pickle
import sys

import cases
import numpy as np
import oracles
import pytest
from cases import ACTIVATIONS, LOSSES, OPTIMIZERS, assert_close, networks, optimizers, scales, seeds
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core


def parabola(optimizer):
    """C = (w + b)²/2 of one weight and one bias: both have the gradient w + b."""
    return pl.TrainingMap(pl.Network((1, 1)), [[1.0]], [0.0], optimizer)


# ------------------------------------------------------------------------------ known answers


def test_gradient_descent_by_hand():
    system = parabola(pl.GradientDescent(lr=0.25))
    assert system.n == system.n_params == 2
    assert_array_equal(system.step(np.array([3.0, 1.0])), [2.0, 0.0])
    assert_array_equal(system.jacobian(np.array([3.0, 1.0])), [[0.75, -0.25], [-0.25, 0.75]])


def test_weight_decay_pulls_every_parameter_to_zero():
    system = parabola(pl.GradientDescent(lr=0.25, weight_decay=0.5))
    # w − lr (g + wd w) = 3 − 0.25 (4 + 1.5)
    assert_array_equal(system.step(np.array([3.0, 1.0])), [1.625, -0.125])


def test_heavy_ball_by_hand():
    system = parabola(pl.GradientDescent(lr=0.25, momentum=0.5))
    assert system.n == 4
    x = system.step(system.state(np.array([3.0, 1.0])))
    assert_array_equal(x, [2.0, 0.0, -1.0, -1.0])
    # g = 2: v = −0.5 − 0.5, w = 2 − 1
    assert_array_equal(system.step(x, t=1), [1.0, -1.0, -1.0, -1.0])


def test_nesterov_by_hand():
    system = parabola(pl.GradientDescent(lr=0.25, momentum=0.5, nesterov=True))
    x = system.step(system.state(np.array([3.0, 1.0])))
    # v = −1, w = 3 + 0.5 (−1) − 1
    assert_array_equal(x, [1.5, -0.5, -1.0, -1.0])


def test_first_step_of_adam_has_the_length_of_the_learning_rate():
    system = parabola(pl.Adam(lr=0.1))
    assert system.n == 6
    x = system.step(system.state(np.array([3.0, 1.0])))
    # the bias corrections cancel (1 − β): the update is lr g / (|g| + ε), g = 4, ε = 1e-8
    assert_allclose(x[:2], [2.9, 0.9], rtol=1e-8)
    assert_allclose(x[2:], [0.4, 0.4, 0.016, 0.016], rtol=1e-13)


def test_adam_corrects_its_bias_by_the_index_of_the_step():
    system = parabola(pl.Adam(lr=0.1))
    x = np.array([3.0, 1.0, 0.4, 0.4, 0.016, 0.016])
    m, v = 0.9 * 0.4 + 0.1 * 4, 0.999 * 0.016 + 0.001 * 16
    expected = 3 - 0.1 * (m / (1 - 0.9**8)) / (np.sqrt(v / (1 - 0.999**8)) + 1e-8)
    assert_allclose(system.step(x, t=7)[0], expected, rtol=1e-14)


def dead_unit(optimizer):
    """A ReLU net whose second of three units is dead: rows 2, 3 (W), 7 (b) and 10 (v)."""
    net = pl.Network((2, 3, 1), activation="relu")
    X, y = cases.data(net)
    w = cases.weights(net, seed=4)
    w[[2, 3, 7]] = [0.1, 0.2, -50.0]
    return pl.TrainingMap(net, X, y, optimizer), w, np.array([2, 3, 7, 10])


@pytest.mark.parametrize("lr", [0.1, 0.37])
def test_a_dead_unit_does_not_move_to_the_bit(lr):
    system, w, dead = dead_unit(pl.GradientDescent(lr=lr))
    identity = np.eye(system.n)
    J = system.jacobian(w)
    assert_array_equal(J[dead], identity[dead])
    assert_array_equal(J[:, dead], identity[:, dead])
    assert_array_equal(system.tangent(w, identity[:, dead]), identity[:, dead])
    assert_array_equal(system.step(w)[dead], w[dead])


@pytest.mark.parametrize("t", [0, 7])
def test_adam_moves_a_dead_unit_by_its_first_moment_alone(t):
    # v = g = 0, whatever the weights are near here: the update is lr m̂/(√v̂ + ε) of m' = 0.9 m
    system, w, dead = dead_unit(pl.Adam())
    n = system.n_params
    x = system.state(w)
    by_mean = -1e-3 * 0.9 / (1 - 0.9 ** (t + 1)) / 1e-8
    expected = np.eye(system.n)[dead]
    expected[np.arange(len(dead)), n + dead] = by_mean
    assert_allclose(system.jacobian(x, t)[dead], expected, rtol=1e-14)
    V = np.random.default_rng(0).normal(size=(system.n, 3))
    for method in ("dense", "matrix-free"):
        moved = system.tangent(x, V, t, method=method)
        assert_allclose(moved[dead], V[dead] + by_mean * V[n + dead], rtol=1e-14)
        assert_allclose(moved[n + dead], 0.9 * V[n + dead], rtol=1e-15)
        assert_allclose(moved[2 * n + dead], 0.999 * V[2 * n + dead], rtol=1e-15)


# A hidden layer of which nothing is passed on: gradients of its weights are 0, their rows of the
# Hessian are not. The last two go alone, without lanes.
SILENT = {
    "lanes": ((2, 4, 2), {}),
    "deep": ((2, 3, 3, 1), {}),
    "decay": ((2, 4, 2), {"weight_decay": 0.1}),
    "batches": ((2, 4, 2), {"batch_size": 3, "seed": 1}),
    "alone": ((9, 50, 2), {}),
    "alone with decay": ((9, 50, 2), {"weight_decay": 0.1}),
}


def silent(case, **options):
    layers, more = SILENT[case]
    net = pl.Network(layers)
    X, y = cases.data(net, 9)
    w = 0.5 * cases.weights(net)
    last = layers[-1] * (layers[-2] + 1)
    w[-last:] = 0.0
    if "weight_decay" in more:  # of what is 0 decay is 0: biases, say
        w[::2] = 0.0
    system = pl.TrainingMap(net, X, y, pl.Adam(**options, **more))
    still = np.flatnonzero(cases.oracle_gradient(system, w, 0) == 0)
    assert len(still) > 1
    assert len(still) < net.n_params
    return system, w, still


@pytest.mark.parametrize("t", [0, 1, 40])
@pytest.mark.parametrize("case", SILENT)
def test_adam_differentiates_the_first_gradients_that_come(case, t):
    options = {"lr": 0.01, "beta1": 0.8, "beta2": 0.9}
    system, w, still = silent(case, **options)
    x = system.state(w)
    n = system.n_params
    x[n:] = np.random.default_rng(1).uniform(0.5, 1.0, 2 * n)  # buffers of the others
    x[n + still] = x[2 * n + still] = 0.0
    net, rows = system.network, system.batch(t)
    optimizer = oracles.Adam(**options, weight_decay=system.optimizer.weight_decay)
    J = oracles.step_jacobian(net, optimizer, x, system.X[rows], system.y[rows], t)
    # the derivative that was taken for 0 is as large as lr H/ε
    assert np.abs(J[still] - np.eye(system.n)[still])[:, :n].max() > 1e3
    V = np.random.default_rng(0).normal(size=(system.n, 3))
    V[2 * n + still] = np.abs(V[2 * n + still])  # v cannot become negative
    assert_close(system.jacobian(x, t)[still], J[still])
    assert_close(system.jacobian(x, t), J)
    for method in ("dense", "matrix-free"):
        assert_close(system.tangent(x, V, t, method=method), J @ V)


@pytest.mark.parametrize("case", ["lanes", "decay", "alone"])
def test_adam_at_gradients_of_zero_against_differences(case):
    # with this ε the square root of v', 1e-11, is far below it, and the update is linear to 1e-8
    system, w, still = silent(case, lr=1.0, epsilon=1e-2)
    x = system.state(w)
    J = system.jacobian(x)
    zeros = np.flatnonzero(w == 0)  # steps of 1e-10 of these are exact
    up, down = (system.step(x + s * 1e-10 * np.eye(system.n)[zeros]) for s in (1, -1))
    differences = (up - down)[:, still].T / 2e-10
    assert np.abs(differences - np.eye(system.n)[np.ix_(still, zeros)]).max() > 0.1
    # 1e-8 of curvature; 2e-16/2e-10 of rounding in each entry
    assert_allclose(J[np.ix_(still, zeros)], differences, atol=1e-5)


def test_the_first_example_of_adam_by_hand():
    # out = a tanh(x·w) of one sample, a = 0, target y: dC/dw = 0, d²C/dw da = −y x (1 − tanh²)
    net = pl.Network((1, 1, 1))
    system = pl.TrainingMap(net, [[2.0]], [3.0], pl.Adam(lr=1e-3, epsilon=1e-8))
    w = np.array([0.25, 0.0, 0.0, 0.0])  # w, b, a, c
    curvature = -3.0 * 2.0 / np.cosh(0.5) ** 2
    J = system.jacobian(w)
    assert_allclose(J[0, 2], -1e-3 * curvature / 1e-8, rtol=1e-13)  # (1 − β₁) cancels at t = 0
    assert_allclose(system.jacobian(w, t=1)[0, 2], -1e-3 * curvature / 1e-8 / 1.9, rtol=1e-13)


def test_adam_by_convention_where_the_derivative_is_infinite():
    # v = g = 0 but m = 0.5: by v infinite, counted as 0; by g the mean of both sides; by m as ever
    system = parabola(pl.Adam(lr=0.1, epsilon=1e-2))
    x = np.array([0.0, 0.0, 0.5, 0.5, 0.0, 0.0])
    first = 0.1 / (1 - 0.9**4) / 1e-2
    expected = np.eye(6)[:2]
    expected[:, :2] -= 0.1 * first * np.ones((2, 2))  # H is all ones
    expected[:, 2:4] -= 0.9 * first * np.eye(2)
    assert_allclose(system.jacobian(x, t=3)[:2], expected, rtol=1e-14, atol=1e-14)
    step = np.zeros(6)
    step[0] = 1e-9
    sides = [(system.step(x + s * step, t=3) - system.step(x, t=3))[0] / 1e-9 for s in (1, -1)]
    assert_allclose((sides[0] - sides[1]) / 2, expected[0, 0], rtol=1e-5)  # 2nd order of √v'/ε


def test_exponents_of_adam_at_a_minimum():
    # w = m = v = 0 stay: dm' = β₁ dm + (1 − β₁) H dw, dw' = dw − lr dm'/((1 − β₁^(t+1)) ε)
    system = parabola(pl.Adam(lr=0.1, epsilon=0.2))
    start = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 4)))[0]
    growth = pl.lyapunov_spectrum(system, np.zeros(2), 30, frame=start).growth
    factors = []
    for t in range(30):
        by_m = -0.1 / (1 - 0.9 ** (t + 1)) / 0.2 * np.eye(2)
        H = np.ones((2, 2))
        rows = [[np.eye(2) + 0.1 * by_m @ H, 0.9 * by_m], [0.1 * H, 0.9 * np.eye(2)]]
        J = 0.999 * np.eye(6)
        J[:4, :4] = np.block(rows)
        factors.append(J)
    expected, _ = oracles.lyapunov_growth(factors, start)
    assert_allclose(growth, expected, atol=1e-11)  # 30 frames in two ways round


# ---------------------------------------------------------------------------------------- laws


@given(networks(), optimizers(), seeds())
def test_tangent_is_the_jacobian_times_the_vectors(net, name, seed):
    system = pl.TrainingMap(net, *cases.data(net), cases.optimizer(name))
    x = cases.state(system, cases.weights(net, seed=seed), seed)
    V = np.random.default_rng(seed).normal(size=(system.n, 4))
    J = system.jacobian(x, t=3)
    # two ways round: 1e-13 of ‖J‖‖V‖, not of a product that may cancel
    error = np.linalg.norm(system.tangent(x, V, t=3) - J @ V)
    assert error <= 1e-13 * np.linalg.norm(J) * np.linalg.norm(V)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7, 8, 13, 17, 41])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_tangent_treats_any_number_of_vectors_alike(loss, k):
    net = pl.Network((3, 9, 2), activation="sigmoid", loss=loss)
    system = pl.TrainingMap(net, *cases.data(net, 13), pl.GradientDescent(lr=0.5))
    w = cases.weights(net, runs=3)
    V = np.random.default_rng(k).normal(size=(3, system.n, k))
    assert_close(system.tangent(w, V), system.jacobian(w) @ V, 1e-13)


@pytest.mark.parametrize("momentum", [0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_has_the_determinant_of_its_blocks(nesterov, momentum):
    # heavy ball: det J = β^n whatever the Hessian; Nesterov: β^n det(I − lr H), since
    # w + βv' − lr g has the Schur complement I − lr H
    options = {"lr": 0.2, "momentum": momentum, "nesterov": nesterov}
    net = cases.network()
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent(**options))
    w = cases.weights(net)
    inner = np.eye(system.n_params) - 0.2 * system.hessian(w)
    expected = momentum**system.n_params * (np.linalg.det(inner) if nesterov else 1.0)
    # LU of a 34 x 34 matrix of condition below 100
    assert_allclose(np.linalg.det(system.jacobian(system.state(w))), expected, rtol=1e-11)


@pytest.mark.parametrize("name", ["heavy_ball", "nesterov", "adam"])
def test_a_state_holds_the_weights_first_and_zero_buffers(name):
    *_, system, w = cases.training(optimizer_name=name, runs=3)
    x = system.state(w)
    assert x.shape == (3, system.n)
    assert_array_equal(x[:, : system.n_params], w)
    assert_array_equal(x[:, system.n_params :], np.zeros((3, system.n - system.n_params)))
    assert_array_equal(system.weights(x), w)
    assert_array_equal(system.weights(x[0]), w[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_plain_weights_stand_for_a_state_with_zero_buffers(name):
    *_, system, w = cases.training(optimizer_name=name, runs=2)
    x = system.state(w)
    V = np.random.default_rng(0).normal(size=(2, system.n, 2))
    assert_array_equal(system.step(w), system.step(x))
    assert_array_equal(system.jacobian(w), system.jacobian(x))
    assert_array_equal(system.tangent(w, V), system.tangent(x, V))
    assert_array_equal(system.loss(w), system.loss(x))
    assert_array_equal(system.gradient(w), system.gradient(x))
    assert_array_equal(system.hessian(w), system.hessian(x))


@pytest.mark.parametrize("parameter", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_scan_over_a_parameter_is_its_runs_one_by_one(parameter, nesterov):
    net = cases.network(depth=2)
    X, y = cases.data(net)
    base = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01, "nesterov": nesterov}
    values = np.array([0.05, 0.2, 0.7])
    scan = pl.TrainingMap(net, X, y, pl.GradientDescent(**base | {parameter: values}))
    w = cases.weights(net, runs=3)
    x = cases.state(scan, w)
    for i, value in enumerate(values):
        alone = pl.TrainingMap(net, X, y, pl.GradientDescent(**base | {parameter: value}))
        assert_array_equal(scan.step(x)[i], alone.step(x[i]))
        assert_array_equal(scan.jacobian(x)[i], alone.jacobian(x[i]))


def test_learning_rates_broadcast_against_the_batch_of_runs():
    net = cases.network()
    X, y = cases.data(net)
    rates = np.array([0.1, 0.2, 0.3, 0.4])
    scan = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates))
    w = cases.weights(net, runs=3)
    grid = scan.step(w[:, None, :])
    assert grid.shape == (3, 4, scan.n)
    one = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.3))
    assert_array_equal(grid[:, 2], one.step(w))
    assert_array_equal(scan.step(w[0]), grid[0])  # one start, four rates


def test_a_momentum_of_zero_among_others_keeps_its_buffer():
    net = cases.network()
    X, y = cases.data(net)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, momentum=np.array([0.0, 0.9])))
    assert system.n == 2 * system.n_params
    plain = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    w = cases.weights(net)
    assert_close(system.weights(system.step(np.stack([w, w])))[0], plain.step(w), 1e-15)


def test_adam_scans_its_learning_rate():
    net = cases.network()
    X, y = cases.data(net)
    scan = pl.TrainingMap(net, X, y, pl.Adam(lr=np.array([1e-3, 1e-2])))
    w = cases.weights(net)
    for i, lr in enumerate([1e-3, 1e-2]):
        alone = pl.TrainingMap(net, X, y, pl.Adam(lr=lr))
        assert_array_equal(scan.step(np.stack([w, w]))[i], alone.step(w))


# ------------------------------------------------------------------------------------- batches


def batched(n_samples=10, **options):
    net = cases.network()
    X, y = cases.data(net, n_samples)
    return pl.TrainingMap(net, X, y, pl.GradientDescent(**options))


def test_without_a_batch_size_every_step_sees_all_samples_in_order():
    assert_array_equal(batched().batch(5), np.arange(10))


def test_an_epoch_sees_every_sample_once_and_its_last_batch_is_partial():
    system = batched(batch_size=4, seed=3)
    for epoch in range(3):
        batches = [system.batch(t) for t in range(3 * epoch, 3 * epoch + 3)]
        assert [len(b) for b in batches] == [4, 4, 2]
        assert_array_equal(np.sort(np.concatenate(batches)), np.arange(10))


def test_every_epoch_is_a_fresh_permutation_that_the_seed_decides():
    def epoch(system, number):
        return np.concatenate([system.batch(2 * number + i) for i in range(2)])

    first = batched(100, batch_size=50, seed=3)
    assert (epoch(first, 0) != epoch(first, 1)).any()
    assert (epoch(first, 0) != epoch(batched(100, batch_size=50, seed=4), 0)).any()
    assert_array_equal(epoch(first, 7), epoch(batched(100, batch_size=50, seed=3), 7))
    # whatever was asked before, and whatever the size of the batches
    assert_array_equal(epoch(first, 7), epoch(batched(100, batch_size=50, seed=3), 7))
    assert_array_equal(
        np.concatenate([batched(100, batch_size=20, seed=3).batch(t) for t in range(5)]),
        epoch(first, 0),
    )


def test_unshuffled_batches_go_through_the_samples_in_order():
    system = batched(batch_size=4, shuffle=False)
    assert_array_equal(system.batch(1), [4, 5, 6, 7])
    assert_array_equal(system.batch(5), [8, 9])


def test_a_batch_as_large_as_the_data_is_the_whole_of_it():
    w = cases.weights(cases.network())
    full = batched(batch_size=None)
    assert_close(batched(batch_size=10).step(w), full.step(w), 1e-14)
    assert_close(batched(batch_size=10).jacobian(w), full.jacobian(w), 1e-14)


@pytest.mark.parametrize("name", ["plain", "nesterov_decay", "adam"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_step_sees_its_own_batch(name, shuffle):
    net, X, y, system, w = cases.training(
        optimizer_name=name, loss="cross_entropy", batch_size=3, shuffle=shuffle, seed=2
    )
    x = cases.state(system, w)
    for t in range(5):
        rows = system.batch(t)
        args = net, cases.reference(name), x, X[rows], y[rows], t
        assert_close(system.jacobian(x, t=t), oracles.step_jacobian(*args))
        assert_close(system.step(x, t=t), oracles.step(*args))


# -------------------------------------------------------------------- agreement with the oracle


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_step_jacobian_and_tangent_agree_with_the_oracle(loss, depth, name):
    assert_step_agrees("silu", loss, depth, name)


@pytest.mark.parametrize("name", ["decay", "nesterov_decay", "adam_decay"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_enters_the_step_as_the_oracle_says(activation, loss, name):
    assert_step_agrees(activation, loss, 2, name)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("layers", [(1, 4, 2), (4, 3, 5), (5, 3, 6), (11, 2, 9), (6, 40, 7)])
def test_tangents_of_any_width_agree_with_the_oracle(layers, loss):
    # Inputs and outputs around the sizes of a register tile; the last net goes alone.
    net = pl.Network(layers, loss=loss)
    X, y = cases.data(net, n_samples=23)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.3))
    w = cases.weights(net)
    V = np.random.default_rng(0).normal(size=(system.n, 3))
    expected = oracles.step_jacobian(net, oracles.GradientDescent(lr=0.3), w, X, y) @ V
    for method in ("dense", "matrix-free"):
        assert_close(system.tangent(w, V, method=method), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_all_activations_losses_depths_and_optimisers(activation, loss, depth, name):
    assert_step_agrees(activation, loss, depth, name)


def assert_step_agrees(activation, loss, depth, name):
    net, X, y, system, w = cases.training(
        activation, loss, depth, name, n_samples=5, scale=2.0, seed=depth
    )
    x = cases.state(system, w)
    args = net, cases.reference(name), x, X, y, 4
    J = oracles.step_jacobian(*args)
    V = np.random.default_rng(0).normal(size=(system.n, 3))
    assert_close(system.step(x, t=4), oracles.step(*args))
    assert_close(system.jacobian(x, t=4), J)
    assert_close(system.tangent(x, V, t=4), J @ V)


@given(networks(), optimizers(), seeds(), scales())
def test_any_step_agrees_with_the_oracle(net, name, seed, scale):
    X, y = cases.data(net, seed=seed)
    system = pl.TrainingMap(net, X, y, cases.optimizer(name))
    x = cases.state(system, cases.weights(net, scale, seed), seed)
    args = net, cases.reference(name), x, X, y, 1
    assert_close(system.step(x, t=1), oracles.step(*args))
    assert_close(system.jacobian(x, t=1), oracles.step_jacobian(*args))


# -------------------------------------------------------------------------------------- limits


def test_a_learning_rate_that_meets_an_eigenvalue_makes_the_step_singular():
    system, h = cases.quadratic_bowl(np.array([0.5, 2.0]), lr=0.5)  # data of whole numbers
    assert_array_equal(system.jacobian(np.ones(3)), np.diag(1 - 0.5 * h))
    assert np.linalg.matrix_rank(system.jacobian(np.ones(3))) == 2


@pytest.mark.parametrize("name", ["plain", "adam"])
def test_a_learning_rate_of_zero_is_the_identity(name):
    net = cases.network()
    kind = pl.Adam if name == "adam" else pl.GradientDescent
    system = pl.TrainingMap(net, *cases.data(net), kind(lr=0.0))
    x = cases.state(system, cases.weights(net))
    n = net.n_params
    assert_array_equal(system.step(x)[:n], x[:n])
    assert_array_equal(system.jacobian(x)[:n], np.eye(system.n)[:n])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_describe_themselves_and_pickle(name):
    optimizer = cases.optimizer(name, batch_size=4, seed=9)
    copy = pickle.loads(pickle.dumps(optimizer))
    assert repr(copy) == repr(optimizer)
    for parameter, value in OPTIMIZERS[name].items():
        assert getattr(copy, parameter) == value
        assert parameter in repr(optimizer)


# ------------------------------------------------------------------------------- schedules, seeds


def counted(n_steps):
    """A schedule that exists for the steps 0 … n_steps − 1 alone, and the calls it got."""
    calls = []

    def schedule(t):
        calls.append(t)
        assert type(t) is int
        assert 0 <= t < n_steps
        return float(np.sqrt(1.0 - t / n_steps))  # complex beyond, 0 is never reached

    return schedule, calls


USES = {  # each takes the steps first … last − 1
    "step": (lambda s, w: [s.step(w, t=t) for t in range(7)], 0, 7),
    "one step": (lambda s, w: s.step(w, t=6), 6, 7),
    "tangent": (lambda s, w: s.tangent(w, np.ones(s.n), t=3), 3, 4),
    "jacobian": (lambda s, w: s.jacobian(w, t=3), 3, 4),
    "trajectory": (lambda s, w: s.trajectory(w, 7), 0, 7),
    "trajectory from": (lambda s, w: s.trajectory(w, 4, start=2), 2, 6),
    "no step": (lambda s, w: s.trajectory(w, 0, start=2), 2, 2),
    "train": (lambda s, w: pl.train(s, w, 3), 0, 9),
    "train, all stop": (lambda s, w: pl.train(s, w, 9, stop=lambda loss: loss.size > 3), 0, 9),
    "spectrum": (lambda s, w: pl.lyapunov_spectrum(s, w, 5, 2, n_transient=3), 0, 8),
    "spectrum from": (lambda s, w: pl.lyapunov_spectrum(s, w, 5, 2, start=4), 4, 9),
    "spectrum, stopped": (lambda s, w: pl.lyapunov_spectrum(s, w, 200, 1, tol=1e9), 0, 32),
    "ftle": (lambda s, w: pl.ftle(s, w, 11, window=5, k=2), 0, 10),
    "gali": (lambda s, w: pl.gali(s, w, 5, 2), 0, 5),
    "covariant": (lambda s, w: pl.covariant_lyapunov_vectors(s, w, 4, 2, 2, 3), 0, 9),
    "ensemble": (lambda s, w: pl.perturbation_ensemble(s, w, 1e-6, 2, 6, start=3), 0, 9),
    "comparison": (lambda s, w: pl.compare_growth(s, w, 1e-6, 2, 30), 0, 30),
    "sharpness": (lambda s, w: pl.sharpness_along(s, w, 6, every=3), 0, 6),
    "travel": (lambda s, w: pl.travel(s, w, 6, start=1), 1, 7),
}


@pytest.mark.parametrize("use", USES)
def test_a_schedule_is_called_once_for_exactly_the_steps_taken(use):
    call, first, last = USES[use]
    net = cases.network()
    X, y = cases.data(net)
    w = cases.weights(net)
    schedule, calls = counted(last)
    options = {"lr": 0.1, "batch_size": 3}  # 7 samples: three steps an epoch
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(**options, schedule=schedule))
    call(system, w)
    assert calls == list(range(first, last))
    call(system, w)
    assert calls == list(range(first, last))  # known by now


@pytest.mark.parametrize("use", [name for name in USES if "stop" not in name and name != "no step"])
def test_a_table_of_as_many_factors_as_steps_is_enough_and_one_less_is_not(use):
    call, _, last = USES[use]
    net = cases.network()
    X, y = cases.data(net)
    w = cases.weights(net)
    table = np.sqrt(1.0 - np.arange(last) / last)
    call(pl.TrainingMap(net, X, y, pl.GradientDescent(batch_size=3, schedule=table)), w)
    short = pl.TrainingMap(net, X, y, pl.GradientDescent(batch_size=3, schedule=table[:-1]))
    message = f"schedule must have a factor for each step, got {last - 1} for {last} steps"
    with pytest.raises(ValueError, match=message):
        call(short, w)


@pytest.mark.parametrize("piece", [1.0, 1e8])
def test_a_short_table_is_refused_before_the_first_step(piece, monkeypatch):
    monkeypatch.setattr(sys.modules["pylyap._weights.travel"], "_AT_ONCE", piece)
    net = cases.network()
    X, y = cases.data(net)
    w = cases.weights(net)
    short = pl.TrainingMap(net, X, y, pl.GradientDescent(batch_size=3, schedule=np.ones(8)))

    def stepped(*_, **__):
        raise AssertionError("steps were made")

    monkeypatch.setattr(pl.TrainingMap, "trajectory", stepped)
    for call in (
        lambda: pl.train(short, w, 3),
        lambda: pl.travel(short, w, 9),
        lambda: pl.perturbation_ensemble(short, w, 1e-6, 2, 5, start=4),
        lambda: pl.lyapunov_spectrum(short, w, 9, 1, tol=1e-3),
        lambda: pl.covariant_lyapunov_vectors(short, w, 4, 2, 2, 3, delay="auto"),
    ):
        with pytest.raises(ValueError, match="got 8 for 9 steps"):
            call()


def test_step_by_step_is_the_trajectory_under_a_schedule_from_anywhere():
    net = cases.network()
    X, y = cases.data(net)
    system = pl.TrainingMap(
        net, X, y, pl.GradientDescent(lr=0.3, schedule=lambda t: 1.0 / (t - 999))
    )  # no number at 999, negative before
    x = cases.weights(net, runs=2)
    path = system.trajectory(x, 5, start=1000)
    other = pl.TrainingMap(
        net, X, y, pl.GradientDescent(lr=0.3, schedule=lambda t: 1.0 / (t - 999))
    )
    for t in (1003, 1004, 1000, 1001, 1002):  # in any order
        assert_array_equal(other.step(path[:, t - 1000], t=t), path[:, t - 999])
    with pytest.raises(ValueError, match=r"schedule\(t\) must be at least 0"):
        other.step(x, t=998)
    with pytest.raises(ZeroDivisionError):
        other.step(x, t=999)
    assert_array_equal(other.step(path[:, 0], t=1000), path[:, 1])


@pytest.mark.parametrize("kind", [pl.GradientDescent, pl.Adam])
@pytest.mark.parametrize("seed", ["int", "sequence", "generator"])
def test_copies_of_an_optimiser_see_the_same_minibatches(kind, seed):
    given = {
        "int": 7,
        "sequence": np.random.SeedSequence(7),
        "generator": np.random.default_rng(7),
    }[seed]
    first = kind(batch_size=3, seed=given)
    if seed == "generator":
        assert first.seed == np.random.default_rng(7).integers(2**63)
        assert f"seed={first.seed}" in repr(first)
        assert kind(batch_size=3, seed=given).seed != first.seed  # each optimiser draws its own
    net = cases.network()
    X, y = cases.data(net, 20)

    def batches(optimizer):
        system = pl.TrainingMap(net, X, y, optimizer)
        return np.concatenate([system.batch(t) for t in range(30)])

    expected = batches(first)
    for other in (
        dataclasses.replace(first, lr=0.7),
        dataclasses.replace(dataclasses.replace(first, weight_decay=0.1), lr=0.2),
        copy.copy(first),
        copy.deepcopy(first),
        pickle.loads(pickle.dumps(first)),
        kind(batch_size=3, seed=first.seed),
    ):
        assert_array_equal(batches(other), expected)


def test_a_generator_is_drawn_from_once():
    *_, system, w = cases.training()
    for call in (
        lambda seed: pl.covariant_lyapunov_vectors(system, w, 20, 2, 10, 10, seed=seed).vectors,
        lambda seed: pl.compare_growth(system, w, 1e-6, 2, 30, seed=seed).exponent_in_window,
        lambda seed: pl.sharpness_along(system, w, 3, seed=seed).vector,
    ):
        drawn = int(np.random.default_rng(4).integers(2**63))
        assert_array_equal(call(np.random.default_rng(4)), call(drawn))
