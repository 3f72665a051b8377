"""The judges judged: each oracle against a derivative that knows nothing of it."""

import numpy as np
import oracles
import pytest
from oracles import ACTIVATIONS, LOSSES, Net, complex_step

mpmath = pytest.importorskip("mpmath")

POINTS = np.concatenate([np.linspace(-6, 6, 25) + 0.01, [-800, -300.3, -40, 40, 300, 800]])


def case(activation, loss, scale=1.0):
    net = Net((2, 3, 2, 2), (activation, activation), loss)
    rng = np.random.default_rng(0)
    w = scale * rng.normal(size=oracles.n_params(net.layers))
    y = rng.normal(size=(5, 2)) if loss == "mse" else rng.integers(2, size=5)
    return net, w, rng.normal(size=(5, 2)), y


def distance(a, b):
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_an_activation_follow_from_one_another(name):
    _, first, second = oracles.activation(name, POINTS)
    f, df, _ = oracles.activation(name, POINTS + 1j * oracles.COMPLEX_STEP)
    assert distance(f.imag / oracles.COMPLEX_STEP, first) < 1e-15
    assert distance(df.imag / oracles.COMPLEX_STEP, second) < 2e-15


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_agree_with_fifty_digits(name):
    fifty = oracles.multiprecision()
    exact = oracles.activation(name, oracles.lift(POINTS, fifty), fifty)
    for ours, theirs in zip(oracles.activation(name, POINTS), exact, strict=True):
        assert distance(ours, oracles.lower(theirs, fifty)) < 1e-15


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradient_is_the_derivative_of_the_loss(activation, loss):
    net, w, X, y = case(activation, loss)
    by_step = complex_step(lambda u: np.atleast_1d(oracles.loss(net, u, X, y)), w)[0]
    assert distance(oracles.gradient(net, w, X, y), by_step) < 1e-14


@pytest.mark.parametrize("activation", ["tanh", "gelu", "elu", "sin"])
def test_hessian_agrees_with_central_differences(activation):
    net, w, X, y = case(activation, "cross_entropy")
    h = 1e-5  # truncation h² and rounding 1e-16/h are both about 1e-10
    columns = [
        (oracles.gradient(net, w + d, X, y) - oracles.gradient(net, w - d, X, y)) / (2 * h)
        for d in h * np.eye(len(w))
    ]
    assert distance(oracles.hessian(net, w, X, y), np.stack(columns, axis=-1)) < 1e-8


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_float_oracles_agree_with_fifty_digits(activation, loss):
    fifty = oracles.multiprecision()
    net, w, X, y = case(activation, loss)
    exact = oracles.lift(w, fifty)
    for f in (oracles.gradient, oracles.hessian):
        assert distance(f(net, w, X, y), oracles.lower(f(net, exact, X, y, fifty), fifty)) < 1e-13


def test_singular_values_of_a_product_survive_a_ratio_of_1e_60():
    rates = oracles.ftle_svd(np.array([np.diag([2.0, 1e-3])] * 20), window=20, stride=20)
    np.testing.assert_allclose(rates, np.log([[2.0, 1e-3]]), rtol=1e-15)


def test_kaplan_yorke_dimension_of_textbook_spectra():
    assert oracles.kaplan_yorke(np.array([-0.1, -0.2])) == 0
    assert oracles.kaplan_yorke(np.array([0.5, 0.1])) == 2
    assert oracles.kaplan_yorke(np.array([0.4, -1.6])) == 1.25
    assert np.isnan(oracles.kaplan_yorke(np.array([0.5, 0.1]), n=5))
