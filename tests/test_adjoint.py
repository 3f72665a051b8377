"""The transposed Jacobian of a step, for every kind of map."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pylyap as pl

RULES = {
    "plain": pl.GradientDescent(lr=0.3, weight_decay=0.1, batch_size=6),
    "rates": pl.GradientDescent(lr=[0.3, 0.1], weight_decay=[0.0, 0.1]),
    "momentum": pl.GradientDescent(lr=0.3, momentum=0.9, weight_decay=0.1, batch_size=6),
    "Nesterov": pl.GradientDescent(
        lr=[0.3, 0.2], momentum=[0.9, 0.8], nesterov=True, weight_decay=0.1, batch_size=6,
        schedule=lambda t: 1.0 / (1 + t),
    ),
    "Adam": pl.Adam(lr=0.1, weight_decay=0.1, batch_size=6),
    "Adam with rates": pl.Adam(
        lr=[0.1, 0.01], beta1=0.0, weight_decay=[0.2, 0.0], schedule=lambda t: 1.0 / (1 + t)
    ),
}  # fmt: skip


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(20, 3)), rng.integers(3, size=20)


def require_adjoint(system, x, rng, steps=(0, 3, 8)):
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩, and Jᵀ by columns of J from the tangent."""
    eye = np.eye(system.n)
    V = rng.normal(size=(*np.shape(x)[:-1], system.n, 2))
    for t in steps:
        J = system.tangent(x, eye, t)
        expected = J.swapaxes(-1, -2) @ V
        scale = np.abs(J).sum(axis=-2).max() * np.abs(V).max()
        found = system.adjoint(x, V, t)
        assert_allclose(found, expected, rtol=0, atol=1e-13 * scale)
        assert_allclose((found * V).sum(), (V * (J @ V)).sum(), rtol=0, atol=1e-12 * scale)
        one = np.ones(system.n)
        assert_allclose(
            system.adjoint(x, one, t), J.swapaxes(-1, -2) @ one, rtol=0, atol=1e-13 * scale
        )


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_training(rule):
    net = pl.Network((3, 4, 3), activation="tanh", loss="cross_entropy")
    system = pl.TrainingMap(net, *data(), rule)
    x = system.trajectory(net.init(runs=2, seed=0), 5)[:, -1]
    require_adjoint(system, x, np.random.default_rng(1))


def test_adam_before_its_first_gradient():
    # Dead units: their gradient and both moments are 0, where v' has no derivative.
    net = pl.Network((3, 4, 3), activation="relu", loss="cross_entropy")
    X, y = data()
    w = net.init(seed=0)
    w[:12], w[12:16] = 0.0, -1.0
    require_adjoint(pl.TrainingMap(net, X, y, pl.Adam()), w, np.random.default_rng(1))


def test_a_state_that_diverged_is_nan_and_alone():
    net = pl.Network((3, 4, 3))
    X, _ = data()
    system = pl.TrainingMap(net, X, X, pl.Adam())
    x = system.state(net.init(runs=2, seed=0))
    u = np.ones(system.n)
    x[0] = np.nan
    found = system.adjoint(x, u)
    assert np.isnan(found[0]).any()
    assert np.array_equal(found[1], system.adjoint(x[1], u))


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("given", ["jacobian", "tangent", "adjoint"])
def test_a_map_of_functions(given, vectorized):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(3, 3))
    jacobian = lambda x, t: np.cos(x + t)[..., np.newaxis] * A  # noqa: E731
    functions = {
        "jacobian": {"jacobian": jacobian},
        "tangent": {"tangent": lambda x, V, t: jacobian(x, t) @ V},
        "adjoint": {
            "tangent": lambda x, V, t: jacobian(x, t) @ V,
            "adjoint": lambda x, V, t: jacobian(x, t).swapaxes(-1, -2) @ V,
        },
    }[given]
    system = pl.DiscreteMap(lambda x, t: x + t, n=3, vectorized=vectorized, **functions)
    require_adjoint(system, rng.normal(size=(2, 3)), rng)


def test_a_wrong_adjoint_shows():
    calls = []

    def wrong(x, V):
        calls.append(V.shape)
        return 2.0 * V

    system = pl.DiscreteMap(lambda x: x, lambda x: np.eye(2), n=2, adjoint=wrong)
    assert_allclose(system.adjoint([0.0, 0.0], [1.0, 1.0]), [2.0, 2.0])
    assert calls == [(2, 1)]
    with pytest.raises(pl.ArgumentError, match=r"V must have shape \(\.\.\., 2, k\)"):
        system.adjoint([0.0, 0.0], [1.0])
    with pytest.raises(pl.ArgumentTypeError, match="adjoint must be callable"):
        pl.DiscreteMap(lambda x: x, lambda x: x, n=2, adjoint=1.0)


@pytest.mark.parametrize("name", ["momentum", "Adam"])
def test_a_jax_model(name):
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    with jax.enable_x64(True):

        def loss(w, X, y):
            return ((jnp.tanh(X @ w[:3]) * w[3] - y) ** 2).mean()

        system, w0 = pl.from_jax(loss, np.array([0.1, -0.2, 0.3, 1.0]), RULES[name], data())
        x = system.trajectory(system.state(np.stack([w0, 0.5 * w0])), 3)[:, -1]
        require_adjoint(system, x, np.random.default_rng(1))
        with pytest.raises(pl.ArgumentError, match="V must have shape"):
            system.adjoint(x, np.ones(system.n + 1))
