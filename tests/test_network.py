"""Network: layout, initialisers, outputs; loss, gradient and Hessian of the whole data."""

import pickle
from itertools import pairwise

import cases
import numpy as np
import oracles
import pytest
from cases import ACTIVATIONS, LOSSES, assert_close, distance, networks, scales, seeds
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._native import core

pytestmark = pytest.mark.core


def whole(net, X, y):
    return pl.TrainingMap(net, X, y, pl.GradientDescent())


# ------------------------------------------------------------------------------ known answers


def test_weights_are_laid_out_layer_by_layer_rows_first_then_the_bias():
    net = pl.Network((2, 3, 1))
    (W1, b1), (W2, b2) = net.unpack(np.arange(13.0))
    assert_array_equal(W1, [[0, 1], [2, 3], [4, 5]])
    assert_array_equal(b1, [6, 7, 8])
    assert_array_equal(W2, [[9, 10, 11]])
    assert_array_equal(b2, [12])


def test_loss_and_gradient_of_three_linear_units_by_hand():
    # out = 5(2x + 3) + 7 at x = 1 is 32, y = 2: e = 30, C = e²/2
    net = pl.Network((1, 1, 1), activation="identity")
    system = whole(net, [[1.0]], [2.0])
    w = np.array([2.0, 3.0, 5.0, 7.0])
    assert system.loss(w) == 450.0
    assert_array_equal(system.gradient(w), [150.0, 150.0, 150.0, 30.0])
    # dC/da = e c x, so d²C/da² = c² x², d²C/dadc = e x + c x (a x + b), ...
    hessian = [[25, 25, 55, 5], [25, 25, 55, 5], [55, 55, 25, 5], [5, 5, 5, 1]]
    assert_array_equal(system.hessian(w), hessian)


def test_mse_halves_the_mean_over_samples_of_the_squared_norm():
    net = pl.Network((1, 1, 2), activation="identity")
    system = whole(net, [[0.0], [0.0]], [[1.0, 2.0], [3.0, 4.0]])
    assert system.loss(np.zeros(net.n_params)) == (1 + 4 + 9 + 16) / (2 * 2)


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_clipped"])
def test_loss_of_an_undecided_network_is_the_log_of_the_number_of_classes(loss, n_classes):
    net = pl.Network((2, 3, n_classes), loss=loss)
    X, y = cases.data(net)
    w = np.zeros(net.n_params)
    assert_allclose(whole(net, X, y).loss(w), np.log(n_classes), rtol=1e-15)
    assert_allclose(net.predict(w, X), np.full((len(X), n_classes), 1 / n_classes), rtol=1e-15)


def decided(loss, margin):
    """One sample of class 0, whose logits are (margin, 0)."""
    net = pl.Network((1, 1, 2), activation="identity", loss=loss)
    w = net.pack([(np.ones((1, 1)), np.zeros(1)), (np.array([[margin], [0.0]]), np.zeros(2))])
    return whole(net, [[1.0]], [0]), w


def test_clipped_loss_of_a_hopeless_sample_is_flat_at_16():
    system, w = decided("cross_entropy_clipped", -17.0)  # p = e⁻¹⁷ = 4e-8 < 1e-7
    assert_allclose(system.loss(w), -np.log(1e-7), rtol=1e-15)  # 16.118
    assert_array_equal(system.gradient(w), np.zeros(w.size))
    assert_array_equal(system.hessian(w), np.zeros((w.size, w.size)))


def test_clipped_loss_of_a_certain_sample_is_flat_near_zero():
    system, w = decided("cross_entropy_clipped", 17.0)
    assert_allclose(system.loss(w), -np.log1p(-1e-7), rtol=1e-15)
    assert_array_equal(system.gradient(w), np.zeros(w.size))


@pytest.mark.parametrize("margin", [-15.0, -1.0, 15.0])
def test_inside_its_bounds_the_clipped_loss_is_the_plain_one(margin):
    clipped, w = decided("cross_entropy_clipped", margin)
    plain, _ = decided("cross_entropy", margin)
    assert_close(clipped.loss(w), plain.loss(w), 1e-15)
    assert_close(clipped.gradient(w), plain.gradient(w), 1e-15)
    assert_close(clipped.hessian(w), plain.hessian(w), 1e-15)


@pytest.mark.parametrize("margin", [20.0, 40.0, 300.0])
def test_a_sample_that_is_almost_certain_keeps_its_relative_precision(margin):
    # p − 1 formed by subtraction would be 0 or 1e-16 from 37 on
    system, w = decided("cross_entropy", margin)
    assert_allclose(system.loss(w), np.exp(-margin), rtol=1e-8)  # e⁻²⁰/2 is left out
    assert_close(system.gradient(w), oracles.gradient(system.network, w, [[1.0]], [0]), 1e-13)
    assert_close(system.hessian(w), oracles.hessian(system.network, w, [[1.0]], [0]), 1e-13)


@pytest.mark.parametrize(
    ("name", "z", "f"),
    [
        ("tanh", 1.0, 0.7615941559557649),
        ("relu", 1.5, 1.5),
        ("relu", -1.5, 0.0),
        ("leaky_relu", -1.5, -0.015),
        ("sigmoid", 0.0, 0.5),
        ("sigmoid", -40.0, 4.248354255291589e-18),
        ("softplus", 0.0, 0.6931471805599453),
        ("softplus", -40.0, 4.248354255291589e-18),
        ("elu", -1.0, -0.6321205588285577),
        ("elu", -1e-10, -9.9999999995e-11),
        ("gelu", 1.0, 0.8413447460685429),  # Φ(1); the tanh formula gives 0.8412
        ("gelu", -10.0, -7.619853024160525e-23),
        ("silu", 1.0, 0.7310585786300049),
        ("sin", 2.0, 0.9092974268256817),
        ("identity", -3.0, -3.0),
        ("tanh", 1e-10, 1e-10),
        ("tanh", 1e-5, 9.999999999666667e-06),
    ],
)
def test_activation_at_a_known_point(name, z, f):
    net = pl.Network((1, 1, 1), activation=name)
    out = net.predict(np.array([1.0, 0.0, 1.0, 0.0]), [[z]])
    assert out.shape == (1, 1)
    # an exponential magnifies rounding by its exponent
    assert_allclose(out[0, 0], f, rtol=4e-15 * max(1, abs(z)))


@pytest.mark.parametrize("z", [0.0, -0.0])
@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu"])
def test_derivatives_that_jump_at_0_have_their_left_limits_there(name, z):
    m = oracles.FLOAT
    left = oracles.activation(name, np.array([-1e-300]), m)[1:]
    assert_array_equal(core.activate(name, np.array([z]))[1:], left)


def test_the_hessian_at_the_kink_of_elu_is_the_left_one():
    # out = a elu(x w) at w = 0, target y: d²C/dw² = (a x f')² + (0 − y) a x² f'' with f' = f'' = 1
    system = pl.TrainingMap(
        pl.Network((1, 1, 1), activation="elu"), [[2.0]], [3.0], pl.GradientDescent()
    )
    w = np.array([0.0, 0.0, 0.5, 0.0])
    assert_array_equal(system.hessian(w)[0, 0], 1.0 - 6.0)
    h = 1e-7  # the derivative of the gradient on the left, to h of its own slope and rounding
    left = (system.gradient(w) - system.gradient(w - [h, 0, 0, 0]))[0] / h
    assert_allclose(system.hessian(w)[0, 0], left, rtol=1e-5)


def test_relu_has_slope_0_at_0():
    net = pl.Network((1, 1, 1), activation="relu")
    gradient = whole(net, [[1.0]], [1.0]).gradient(np.array([0.0, 0.0, 1.0, 0.0]))
    assert_array_equal(gradient, [0.0, 0.0, 0.0, -1.0])


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
def test_hessian_of_three_layers_is_the_published_block_matrix(activation):
    # v_j v_k: <h_j h_k>; v_j W_ki: <h_j v_k f'_k x_i> + δ_jk <e f'_k x_i>;
    # W_ji W_kl: <v_j f'_j x_i v_k f'_k x_l> + δ_jk <e v_j f''_j x_i x_l>, with x_0 = 1
    net = pl.Network((2, 3, 1), activation=activation)
    X, y = cases.data(net, 20)
    w = cases.weights(net)
    (W, b), (v, c) = net.unpack(w)
    h, slope, bend = oracles.activation(activation, X @ W.T + b)
    e = h @ v[0] + c - y[:, 0]
    x = np.column_stack([X, np.ones(len(X))])
    first = (v[0] * slope)[:, :, None] * x[:, None, :]  # of the output, by W_ji and b_j
    by_W = np.concatenate([first[:, :, :2].reshape(len(X), -1), first[:, :, 2]], axis=1)
    rows = np.concatenate([by_W, h, np.ones((len(X), 1))], axis=1)
    expected = rows.T @ rows / len(X)
    for j in range(3):
        mine = [2 * j, 2 * j + 1, 6 + j]
        expected[np.ix_(mine, mine)] += (
            np.einsum("s,si,sl->il", e * v[0, j] * bend[:, j], x, x) / 20
        )
        expected[9 + j, mine] += (e * slope[:, j]) @ x / len(X)
        expected[mine, 9 + j] += (e * slope[:, j]) @ x / len(X)
    # the rounding of 20 summed samples; nothing cancels
    assert_close(whole(net, X, y).hessian(w), expected, 1e-14)


# ---------------------------------------------------------------------------------------- laws


@given(networks(), seeds(), scales())
def test_hessian_is_symmetric_to_the_bit(net, seed, scale):
    X, y = cases.data(net)
    hessian = whole(net, X, y).hessian(cases.weights(net, scale, seed))
    assert_array_equal(hessian, hessian.T)


@given(networks(), seeds())
def test_unpack_and_pack_are_inverse(net, seed):
    w = cases.weights(net, seed=seed, runs=3)
    parts = net.unpack(w)
    shapes = [((3, o, i), (3, o)) for i, o in pairwise(net.layers)]
    assert [(W.shape, b.shape) for W, b in parts] == shapes
    assert_array_equal(net.pack(parts), w)


@given(networks(), seeds())
def test_batch_axes_lead_and_change_nothing(net, seed):
    X, y = cases.data(net)
    system = whole(net, X, y)
    w = cases.weights(net, seed=seed, runs=6)
    for f in (system.loss, system.gradient, system.hessian):
        alone = np.array([f(each) for each in w])
        assert_array_equal(f(w.reshape(2, 3, -1)), alone.reshape(2, 3, *alone.shape[1:]))
    outputs = net.predict(w.reshape(2, 3, -1), X)
    assert outputs.shape == (2, 3, len(X), net.layers[-1])
    assert_array_equal(outputs[1, 2], net.predict(w[5], X))


def test_loss_does_not_depend_on_the_optimiser():
    _, _, _, plain, w = cases.training()
    *_, other, _ = cases.training(optimizer_name="adam_decay", batch_size=2)
    assert plain.loss(w) == other.loss(w)
    assert_array_equal(plain.gradient(w), other.gradient(w))
    assert_array_equal(plain.hessian(w), other.hessian(w))


def test_one_target_per_sample_may_come_flat_or_as_a_column():
    net = pl.Network((2, 3, 1))
    X, y = cases.data(net)
    w = cases.weights(net)
    assert whole(net, X, y).loss(w) == whole(net, X, y[:, 0]).loss(w)


def test_probabilities_sum_to_one():
    net = cases.network(loss="cross_entropy", depth=2)
    X, _ = cases.data(net)
    p = net.predict(cases.weights(net, 5.0, runs=4), X)
    assert (p >= 0).all()
    assert_allclose(p.sum(axis=-1), 1, rtol=1e-15)


def test_accuracy_is_the_fraction_of_samples_whose_largest_output_has_the_label():
    net = pl.Network((1, 1, 2), activation="identity", loss="cross_entropy")
    w = net.pack([(np.ones((1, 1)), np.zeros(1)), (np.array([[1.0], [-1.0]]), np.zeros(2))])
    X = np.array([[1.0], [2.0], [-1.0], [3.0]])  # class 0 where x > 0
    assert net.accuracy(w, X, [0, 0, 1, 1]) == 0.75
    assert net.accuracy(np.stack([w, -w]), X, [0, 0, 1, 1]).shape == (2,)


# -------------------------------------------------------------------------------- initialisers


def rms(kind, n_in, n_out):
    return {
        "he_normal": np.sqrt(2 / n_in),
        "he_uniform": np.sqrt(2 / n_in),
        "glorot_normal": np.sqrt(2 / (n_in + n_out)),
        "glorot_uniform": np.sqrt(2 / (n_in + n_out)),
        "lecun_normal": np.sqrt(1 / n_in),
        "normal": 1.0,
        "uniform": np.sqrt(1 / 3),
    }[kind]


KINDS = (
    *("he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal"),
    *("normal", "uniform"),
)


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("kind", KINDS)
def test_initialiser_has_the_documented_width_and_leaves_biases_at_zero(kind, scale):
    net = pl.Network((7, 20, 30, 2))
    w = net.init(kind, runs=200, scale=scale, seed=3)
    assert w.shape == (200, net.n_params)
    for (W, b), (n_in, n_out) in zip(net.unpack(w), pairwise(net.layers), strict=True):
        expected = scale * rms(kind, n_in, n_out)
        # a relative error of 1/√(2·samples), at least 12000 of them: five of these are 0.033
        assert_allclose(np.sqrt((W**2).mean()), expected, rtol=0.035)
        assert abs(W.mean()) < 5 * expected / np.sqrt(W.size)
        if kind.endswith("uniform"):
            assert np.abs(W).max() <= np.sqrt(3) * expected
        assert_array_equal(b, np.zeros_like(b))


@pytest.mark.parametrize("kind", KINDS)
def test_biases_are_drawn_on_request(kind):
    net = pl.Network((7, 20, 2))
    for _, b in net.unpack(net.init(kind, runs=5, seed=0, biases=True)):
        assert (b != 0).all()


def test_initial_weights_are_a_function_of_the_seed():
    net = pl.Network((4, 10, 3))
    assert net.init("normal", seed=1).shape == (83,)
    assert_array_equal(net.init("normal", seed=1), net.init("normal", seed=1))
    assert (net.init("normal", seed=1) != net.init("normal", seed=2))[:40].all()
    sequence = np.random.SeedSequence(7)
    assert_array_equal(net.init("normal", seed=sequence), net.init("normal", seed=sequence))
    generator = np.random.default_rng(0)
    first, second = net.init("normal", seed=generator), net.init("normal", seed=generator)
    assert (first != second).any()
    drawn = np.random.default_rng(0)
    assert_array_equal(net.init("normal", seed=drawn), first)


# -------------------------------------------------------------------- agreement with the oracle


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_loss_gradient_and_hessian_agree_with_the_oracle(activation, loss, depth):
    net, X, y, system, w = cases.training(activation, loss, depth, scale=2.0)
    assert_close(system.loss(w), oracles.loss(net, w, X, y))
    assert_close(system.gradient(w), oracles.gradient(net, w, X, y))
    assert_close(system.hessian(w), oracles.hessian(net, w, X, y))
    assert_close(net.predict(w, X), oracles.predict(net, w, X))


@given(networks(), seeds(), scales())
def test_any_network_agrees_with_the_oracle(net, seed, scale):
    X, y = cases.data(net, seed=seed)
    w = cases.weights(net, scale, seed)
    system = whole(net, X, y)
    assert_close(system.loss(w), oracles.loss(net, w, X, y))
    assert_close(system.gradient(w), oracles.gradient(net, w, X, y))
    assert_close(system.hessian(w), oracles.hessian(net, w, X, y))


@pytest.mark.parametrize("n_samples", [1, 2, 3, 4, 5, 8, 9, 63, 150])
@pytest.mark.parametrize("loss", LOSSES)
def test_any_number_of_samples_agrees_with_the_oracle(loss, n_samples):
    net, X, y, system, w = cases.training("tanh", loss, n_samples=n_samples)
    assert_close(system.gradient(w), oracles.gradient(net, w, X, y))
    assert_close(system.hessian(w), oracles.hessian(net, w, X, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_last_samples_of_a_wide_net_are_not_contaminated_by_earlier_blocks(loss):
    net = pl.Network((12, 40, 2), loss=loss)  # alone in its registers, in blocks of samples
    X, y = cases.data(net, n_samples=301)
    w = cases.weights(net)
    system = whole(net, X, y)
    assert_close(system.gradient(w), oracles.gradient(net, w, X, y))
    # the whole Hessian in random directions, by complex steps along them
    V = np.random.default_rng(0).normal(size=(net.n_params, 8))
    along = oracles.complex_step(lambda c: oracles.gradient(net, w + V @ c, X, y), np.zeros(8))
    assert_close(system.hessian(w) @ V, along)


# -------------------------------------------------------------------------------------- limits


def judged(f, net, w, X, y):
    """The answer to fifty digits, and how much it moves when weights and data are rounded.

    Rounding the weights moves a result by eps times its conditioning. A sum of N terms and a dozen
    layers of elementary functions round some tens of times.
    """
    fifty = oracles.multiprecision()

    def exact(u, X):
        return oracles.lower(f(net, oracles.lift(u, fifty), X, y, fifty), fifty)

    answer = exact(w, X)
    rng = np.random.default_rng(0)
    far = 1e-9  # large against rounding, small against everything else
    moved = max(
        np.linalg.norm(
            exact(
                w * (1 + far * rng.choice([-1, 1], w.shape)),
                X * (1 + far * rng.choice([-1, 1], X.shape)),
            )
            - answer
        )
        for _ in range(2)
    )
    eps = np.finfo(float).eps
    return answer, 40 * eps * (moved / far + np.linalg.norm(answer)) + 1e-300


def assert_judged(f, ours, net, w, X, y):
    answer, allowed = judged(f, net, w, X, y)
    assert np.isfinite(ours).all()
    error = np.linalg.norm(ours - answer)
    assert error <= allowed, f"{f.__name__}: error {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("scale", [6.0, 20.0])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_errors_at_saturated_weights_are_bounded_by_the_conditioning(activation, loss, scale):
    pytest.importorskip("mpmath")
    net = pl.Network((2, 2, 2), activation=activation, loss=loss)
    X, y = cases.data(net, 4)
    w = cases.weights(net, scale, seed=5)
    system = whole(net, X, y)
    assert_judged(oracles.loss, system.loss(w), net, w, X, y)
    assert_judged(oracles.gradient, system.gradient(w), net, w, X, y)
    assert_judged(oracles.hessian, system.hessian(w), net, w, X, y)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "silu", "sin"])
def test_errors_of_saturated_deep_networks_are_bounded_by_the_conditioning(activation, depth):
    pytest.importorskip("mpmath")
    net = pl.Network((2, *(2,) * depth, 2), activation=activation, loss="cross_entropy")
    X, y = cases.data(net, 3)
    w = cases.weights(net, 10.0, seed=1)
    system = whole(net, X, y)
    assert_judged(oracles.gradient, system.gradient(w), net, w, X, y)
    assert_judged(oracles.hessian, system.hessian(w), net, w, X, y)


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_clipped"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "softplus", "silu"])
def test_small_gradients_of_correctly_classified_samples_are_accurate(activation, loss):
    # every error p − 1 is tiny: forming it by subtraction would leave nothing
    pytest.importorskip("mpmath")
    net = pl.Network((2, 3, 2), activation=activation, loss=loss)
    X, _ = cases.data(net, 4)
    w = cases.weights(net, 6.0, seed=2)
    y = net.predict(w, X).argmax(axis=1)
    system = whole(net, X, y)
    assert_judged(oracles.loss, system.loss(w), net, w, X, y)
    assert_judged(oracles.gradient, system.gradient(w), net, w, X, y)
    assert_judged(oracles.hessian, system.hessian(w), net, w, X, y)


@pytest.mark.parametrize("scale", [1e2, 1e5, 1e20, 1e100])
@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_clipped"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation_at_any_scale_is_finite(activation, loss, scale):
    *_, system, w = cases.training(activation, loss, 2, scale=scale)
    for f in (system.loss, system.gradient, system.hessian, system.step):
        assert np.isfinite(f(w)).all()
    v = np.ones((w.size, 1)) / w.size
    assert np.isfinite(system.tangent(w, v)).all()


def test_a_network_without_hidden_layer_is_a_linear_model():
    net = pl.Network((3, 2))
    assert net.activations == ()
    X, y = cases.data(net)
    w = cases.weights(net)
    assert_close(net.predict(w, X), X @ w[:6].reshape(2, 3).T + w[6:], 1e-15)
    assert distance(whole(net, X, y).hessian(w), oracles.hessian(net, w, X, y)) <= 1e-14


def test_network_describes_itself():
    net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    assert net.layers == (4, 10, 3)
    assert net.activations == ("sigmoid",)
    assert net.loss == "cross_entropy"
    assert net.n_params == 83
    for word in ("Network", "4", "10", "3", "sigmoid", "cross_entropy"):
        assert word in repr(net)
    assert pl.Network((2, 3, 4, 1), activation=("tanh", "relu")).activations == ("tanh", "relu")
    assert pl.Network([2, 3, 4, 1], activation="sin").activations == ("sin", "sin")


def test_network_pickles():
    net = pl.Network((2, 3, 4, 1), activation=("tanh", "relu"))
    copy = pickle.loads(pickle.dumps(net))
    assert repr(copy) == repr(net)
    w = cases.weights(net)
    X, y = cases.data(net)
    assert whole(copy, X, y).loss(w) == whole(net, X, y).loss(w)
