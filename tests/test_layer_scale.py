"""Factors of the learning rate for each layer and its biases: step, tangent, adjoint, sharpness."""

import dataclasses
import pickle

import cases
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core

SCALE, BIAS = [0.5, 2.0], [0.0, 3.0]
RULES = {
    "plain": {"lr": 0.3, "weight_decay": 0.02},
    "heavy ball": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "batch_size": 4},
    "nesterov": {"lr": 0.1, "momentum": 0.7, "nesterov": True, "schedule": lambda t: 1 / (1 + t)},
}
NETS = {
    "in lanes": ((3, 4, 2), "tanh", 9),
    "several blocks": ((3, 4, 2), "softplus", 300),
    "three_layer": ((4, 10, 3), "sigmoid", 40),
    "wide": ((30, 40, 5), "tanh", 20),  # one run at a time, more than 512 parameters
}


def factors(net, scale=SCALE, bias=BIAS):
    """One factor per parameter, in the documented order."""
    parts = [
        (np.full_like(W, scale[i]), np.full_like(b, bias[i]))
        for i, (W, b) in enumerate(net.unpack(np.zeros(net.n_params)))
    ]
    return net.pack(parts)


def training(name="in lanes", rule="plain", runs=None, **more):
    layers, activation, samples = NETS[name]
    net = pl.Network(layers, activation=activation, loss="mse")
    options = {"layer_scale": SCALE, "bias_scale": BIAS} | RULES[rule] | more
    system = pl.TrainingMap(net, *cases.data(net, samples), pl.GradientDescent(**options))
    return system, cases.weights(net, 0.5, runs=runs)


def expected_step(system, x, t, D):
    """The equations of the class, for one run."""
    rule, p = system.optimizer, system.n_params
    rate = rule.lr * (1.0 if rule.schedule is None else rule.schedule(t))
    pull = rate * D * cases.oracle_gradient(system, x[:p], t)
    if system.n == p:
        return x - pull
    v = rule.momentum * x[p:] - pull
    return np.concatenate([x[:p] + (rule.momentum * v - pull if rule.nesterov else v), v])


# ------------------------------------------------------------------------------ known answers


def test_one_weight_and_one_bias_by_hand():
    rule = pl.GradientDescent(lr=0.25, layer_scale=[2.0], bias_scale=0.5)
    system = pl.TrainingMap(pl.Network((1, 1)), [[1.0]], [0.0], rule)  # C = (w + b)²/2
    assert_array_equal(system.step(np.array([3.0, 1.0])), [1.0, 0.5])
    assert_array_equal(system.jacobian(np.array([3.0, 1.0])), [[0.5, -0.5], [-0.125, 0.875]])
    assert_array_equal(system.adjoint(np.array([3.0, 1.0]), np.array([1.0, 2.0])), [0.25, 1.25])


def test_a_network_with_layers_over_root_n_is_one_with_scaled_weights_and_rates():
    """The network of Sohl-Dickstein (2024), written out: tanh(√2 W₀x/√n), W₁h/n, no biases."""
    n, N, rates = 6, 15, np.array([0.8, 3.0])
    rng = np.random.default_rng(0)
    X, y, W = rng.normal(size=(N, n)), rng.normal(size=N), rng.normal(size=(n, n))
    u = rng.normal(size=n)
    forward = np.array([np.sqrt(2 / n), 1 / n])
    net = pl.Network((n, n, 1), activation="tanh", loss="mse")
    system = pl.TrainingMap(  # mse has a factor ½
        net, X, y, pl.GradientDescent(lr=1.0, layer_scale=2 * rates * forward**2, bias_scale=0)
    )
    zeros = np.zeros(n), np.zeros(1)
    x = net.pack([(forward[0] * W, zeros[0]), (forward[1] * u[np.newaxis], zeros[1])])
    for t in range(20):
        h = np.tanh(np.sqrt(2 / n) * X @ W.T)
        error = h @ u / n - y
        assert_allclose(2 * system.loss(x), (error**2).mean(), rtol=1e-13)
        du = 2 / N * (error @ h) / n
        dW = 2 / N * ((error[:, np.newaxis] * u / n * (1 - h**2)).T @ X) * np.sqrt(2 / n)
        u, W = u - rates[1] * du, W - rates[0] * dW
        x = system.step(x, t)
    (first, b), (last, c) = net.unpack(x)
    assert_array_equal(np.concatenate([b, c]), 0.0)
    assert_allclose(first, forward[0] * W, rtol=0, atol=1e-13)  # 20 steps of rounding
    assert_allclose(last[0], forward[1] * u, rtol=0, atol=1e-13)


# ------------------------------------------------------------------------------ agreement


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETS)
def test_steps_and_tangents_are_those_of_scaled_gradients(name, rule):
    system, w = training(name, rule)
    D = factors(system.network)
    x = cases.state(system, w)
    for t in range(3):
        after = system.step(x, t)
        cases.assert_close(after, expected_step(system, x, t, D))
        if system.n < 300:
            J = oracles.complex_step(lambda z, t=t: expected_step(system, z, t, D), x)
            cases.assert_close(system.jacobian(x, t), J)
            V = np.random.default_rng(t).normal(size=(system.n, 3))
            for method in ("dense", "matrix-free"):
                cases.assert_close(system.tangent(x, V, t, method=method), J @ V)
            cases.assert_close(system.adjoint(x, V, t), J.T @ V)
        x = after


def test_images_of_mostly_zero_pixels():
    # The first layer is then stored in panels, with biases between the weights.
    rng = np.random.default_rng(0)
    X = np.where(rng.random((50, 12, 12)) < 0.1, rng.integers(1, 256, (50, 12, 12)), 0)
    net = pl.Network((144, 20, 3), activation="tanh", loss="cross_entropy")
    rule = pl.GradientDescent(lr=0.3, layer_scale=SCALE, bias_scale=BIAS, batch_size=20)
    system = pl.TrainingMap(net, X.astype(np.uint8), rng.integers(3, size=50), rule)
    w = net.init("normal", scale=0.3, seed=0)
    rows = system.batch(2)
    g = oracles.gradient(net, w, X[rows].reshape(len(rows), -1) / 255.0, system.y[rows])
    cases.assert_close(system.step(w, 2), w - 0.3 * factors(net) * g)


def test_single_precision():
    net = pl.Network((3, 4, 2), activation="tanh", loss="mse")
    rule = pl.GradientDescent(lr=0.3, layer_scale=SCALE, bias_scale=BIAS)
    system = pl.TrainingMap(net, *cases.data(net), rule, dtype="float32")
    w = np.float32(cases.weights(net, 0.5)).astype(float)
    expected = w - 0.3 * factors(net) * oracles.gradient(net, w, system.X, system.y)
    assert_allclose(system.step(w), expected, rtol=0, atol=1e-6)  # 8 roundings of 1.2e-7


# ------------------------------------------------------------------------------ laws


@pytest.mark.parametrize("rule", RULES)
def test_factors_of_one_change_no_bit(rule):
    scaled, w = training(rule=rule, runs=9, layer_scale=[1, 1], bias_scale=1)
    plain, _ = training(rule=rule, layer_scale=None, bias_scale=None)
    assert_array_equal(scaled.trajectory(w, 12), plain.trajectory(w, 12))
    V = np.random.default_rng(0).normal(size=(9, plain.n, 3))
    assert_array_equal(scaled.tangent(w, V), plain.tangent(w, V))


def test_a_factor_of_zero_freezes_a_layer():
    system, w = training(rule="heavy ball", layer_scale=[0, 1], bias_scale=None)
    last = system.weights(system.trajectory(w, 20)[-1])
    (W, b), (V, c) = system.network.unpack(last)
    (W0, b0), (V0, c0) = system.network.unpack(w)
    assert_array_equal(W, W0)
    assert_array_equal(b, b0)
    assert (V != V0).all()
    assert (c != c0).all()


@pytest.mark.parametrize("name", ["in lanes", "three_layer"])
def test_a_run_has_the_same_bits_alone_in_a_batch_and_in_a_scan(name):
    rates = np.random.default_rng(0).uniform(0.1, 2.0, size=(17, 2))
    scan, w = training(name, "heavy ball", layer_scale=rates, bias_scale=0.5 * rates)
    together = scan.trajectory(w, 8)
    s = pl.lyapunov_spectrum(scan, w, 8, 2)
    for r in (0, 7, 8, 16):
        system, _ = training(name, "heavy ball", layer_scale=rates[r], bias_scale=0.5 * rates[r])
        assert_array_equal(together[r], system.trajectory(w, 8))
        alone = pl.lyapunov_spectrum(system, w, 8, 2)
        assert_array_equal(s.exponents[r], alone.exponents)
        assert_array_equal(s.state[r], alone.state)


def test_the_same_factor_everywhere_is_a_learning_rate():
    half, w = training(layer_scale=[0.5, 0.5], bias_scale=None)
    system, _ = training(lr=0.15, layer_scale=None, bias_scale=None)
    cases.assert_close(half.step(w), system.step(w))


@pytest.mark.parametrize("rule", ["plain", "heavy ball", "nesterov"])
def test_ratio_is_that_of_the_eigenvalues_of_the_step(rule):
    """1 + tr + det = 0 of the block of an eigenvalue: the same thresholds as without factors."""
    options = {"batch_size": None, "schedule": None, "bias_scale": 0.7}
    system, w = training(rule=rule, runs=3, **options)
    found = pl.sharpness(system, w, kind=None)
    assert np.isnan(pl.sharpness(system, w).ratio).all()  # of the Hessian itself
    D = factors(system.network, bias=[0.7, 0.7])
    decay = system.optimizer.weight_decay
    for r in range(3):
        H = oracles.hessian(system.network, w[r], system.X, system.y) + decay * np.eye(len(D))
        scaled = np.sqrt(D)[:, np.newaxis] * H * np.sqrt(D)
        largest = np.linalg.eigvalsh(scaled)[-1]
        assert_allclose(found.value[r], largest, rtol=1e-9)
        # At the rate at which the ratio is 1, an eigenvalue of the Jacobian is −1.
        critical = dataclasses.replace(
            system.optimizer, lr=system.optimizer.lr / found.ratio[r], bias_scale=0.7
        )
        J = pl.TrainingMap(system.network, system.X, system.y, critical).jacobian(w[r])
        assert_allclose(np.abs(np.linalg.eigvals(J) + 1.0).min(), 0.0, atol=1e-7)  # √rounding


def test_sharpness_along_a_scan_of_two_rates():
    rates = np.stack(np.meshgrid([0.1, 0.2, 0.4], [0.3, 0.6]), axis=-1)
    system, w = training(layer_scale=rates, bias_scale=None)
    found = pl.sharpness_along(system, w, 6, every=3)
    assert found.value.shape == (2, 3, 3)
    assert found.dims == ("layer_scale_1", "layer_scale_0")
    one, _ = training(layer_scale=rates[1, 2], bias_scale=None)
    alone = pl.sharpness_along(one, w, 6, every=3)
    assert_allclose(found.value[1, 2], alone.value, rtol=1e-10)
    path = system.trajectory(w, 6, every=3)  # time is not the last of the batch axes of the rates
    assert_allclose(pl.sharpness(system, path, kind=None).value, found.value, rtol=1e-6)


def test_volumes_change_in_the_layers_that_train_alone():
    system, w = training(layer_scale=[0, 1], bias_scale=None, weight_decay=0.0)
    s = pl.lyapunov_spectrum(system, w, 20)
    free = np.flatnonzero(factors(system.network, [0, 1], [0, 1]))
    blocks = [system.jacobian(x)[np.ix_(free, free)] for x in system.trajectory(w, 19)]
    expected = np.linalg.slogdet(blocks).logabsdet.mean()
    assert_allclose(s.exponents.sum(), expected, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------ settings


def test_repr_pickle_and_replace():
    plain = pl.GradientDescent(lr=0.1)
    assert "scale" not in repr(plain)
    rule = pl.GradientDescent(lr=0.1, layer_scale=[1, 2], bias_scale=0)
    assert repr(rule).endswith("layer_scale=array([1., 2.]), bias_scale=0.0)")
    for copy in (pickle.loads(pickle.dumps(rule)), dataclasses.replace(rule)):
        assert repr(copy) == repr(rule)
    system, w = training()
    assert_array_equal(pickle.loads(pickle.dumps(system)).step(w), system.step(w))


def test_a_pickle_of_an_older_version_has_no_factors():
    rule = pl.GradientDescent(lr=0.1)
    state = {k: v for k, v in rule.__dict__.items() if k not in ("layer_scale", "bias_scale")}
    old = object.__new__(pl.GradientDescent)
    old.__dict__.update(state)
    assert old.layer_scale is None
    assert repr(old) == repr(rule)


def test_a_checkpoint_of_other_factors_is_refused(tmp_path):
    file = tmp_path / "run.npz"
    system, w = training(runs=2)
    pl.train(system, w, 2, checkpoint=file)
    pl.train(system, w, 3, checkpoint=file)
    other, _ = training(layer_scale=[1.0, 1.0])
    with pytest.raises(pl.ArgumentError, match="layer_scale"):
        pl.train(other, w, 3, checkpoint=file)
    plain, _ = training(layer_scale=None, bias_scale=None)
    with pytest.raises(pl.ArgumentError, match="layer_scale"):
        pl.train(plain, w, 3, checkpoint=file)


def test_studies_of_frozen_layers():
    pytest.importorskip("xarray")
    given = {
        "data": {"name": "quadratic", "n": 10}, "network": {"hidden": 2}, "runs": 2,
        "analysis": {"name": "spectrum", "n_steps": 4},
        "optimizer": {"bias_scale": 0.5}, "grid": {"optimizer.layer_scale": [[1, 1], [0, 1]]},
    }  # fmt: skip
    study = pl.Study(**given)
    assert "layer_scale" not in study.settings["optimizer"]
    found = [study.system((i,)).optimizer for i in (0, 1)]
    assert_array_equal([rule.layer_scale for rule in found], [[1, 1], [0, 1]])
    assert found[0].bias_scale == 0.5
    plain = pl.Study(**given | {"optimizer": {}, "grid": {}})  # as stored before there were factors
    assert not {"layer_scale", "bias_scale"} & set(plain.settings["optimizer"])
    with pytest.raises(ValueError, match=r"optimizer.layer_scale must have shape \(..., 2\)"):
        pl.Study(**given | {"optimizer": {"layer_scale": [1.0]}, "grid": {}})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layer_scale": 0.5}, r"^layer_scale must have shape \(\.\.\., n_layers\), got the"),
        ({"layer_scale": [1.0, -1.0]}, "^layer_scale must be at least 0, got -1.0"),
        ({"layer_scale": [1.0, np.nan]}, "^layer_scale must be finite"),
        ({"layer_scale": "1"}, "^layer_scale must be a number or an array, got '1'"),
        ({"bias_scale": [-1.0]}, "^bias_scale must be at least 0, got -1.0"),
    ],
)
def test_values_that_are_no_factors(options, text):
    with pytest.raises((pl.ArgumentError, TypeError), match=text):
        pl.GradientDescent(**options)


def test_factors_that_do_not_fit_the_network_or_the_batch():
    net = pl.Network((3, 4, 2), loss="mse")
    X, y = cases.data(net)

    def system(**options):
        return pl.TrainingMap(net, X, y, pl.GradientDescent(**options))

    with pytest.raises(pl.ArgumentError, match=r"^layer_scale must have shape \(\.\.\., 2\), a f"):
        system(layer_scale=[1.0, 1.0, 1.0])
    with pytest.raises(pl.ArgumentError, match=r"^bias_scale must have shape \(\.\.\., 2\)"):
        system(bias_scale=[1.0, 1.0, 1.0])
    with pytest.raises(pl.ArgumentError, match=r"^bias_scale must broadcast against layer_scale"):
        system(layer_scale=np.ones((3, 2)), bias_scale=np.ones((4, 2)))
    with pytest.raises(pl.ArgumentError, match=r"^layer_scale must broadcast.*batch \(5,\)"):
        system(layer_scale=np.ones((3, 2))).step(net.init(runs=5, seed=0))
