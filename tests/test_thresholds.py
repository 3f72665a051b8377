"""Kinds of sharpness, and the stability thresholds of all optimisers."""

from types import SimpleNamespace

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._thresholds import Hyperparameters, Moments

pytestmark = pytest.mark.core

KINDS = ("hessian", "preconditioned", "batch", "gradient", "critical")

# ------------------------------------------------------------------------------ known answers


class Bowl:
    """A parabola ½ wᵀHw trained by an optimiser with moments; only its derivatives are used."""

    n_params, n, steps_per_epoch = 5, 15, 1

    def __init__(self, lr, beta1, decay=0.0, decoupled=False, seed=0):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(5, 5))
        self.H = A @ A.T
        moments = Moments(beta1, 0.99, 1e-8, decoupled)
        order = pl.GradientDescent()
        self.optimizer = SimpleNamespace(
            hyperparameters=Hyperparameters(lr, 0.0, decay, False, moments, None, order)
        )
        self.x = np.concatenate([rng.normal(size=5), rng.normal(size=5), rng.random(5)])

    def step(self, x, t=0):
        raise AssertionError("no step is needed")

    tangent = step

    def loss(self, x):
        return 0.5 * x[:5] @ self.H @ x[:5]

    def gradient(self, x):
        return self.H @ x[:5]

    def batch_gradient(self, x, t):
        return self.H @ x[:5]

    def hessian_vector(self, x, V):
        return self.H @ V


def preconditioner(x, g, t, beta1, beta2, epsilon=1e-8):
    """P of step t from Adam's definition: the step is w − lr m'/P."""
    n = x.shape[-1] // 3
    second = (beta2 * x[..., 2 * n :] + (1 - beta2) * g**2) / (1 - beta2 ** (t + 1))
    return (1 - beta1 ** (t + 1)) * (np.sqrt(second) + epsilon)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.9])
def test_the_threshold_of_adam_with_a_frozen_second_moment(beta1, decay, decoupled):
    # The linear map of (w, m) at constant P has the spectral radius 1 at the ratio 1.
    t, one = 3, np.eye(5)
    system = Bowl(0.1, beta1, decay, decoupled)
    value = pl.sharpness(system, system.x, tol=1e-12, kind="preconditioned", t=t).value
    # λ = (2 − lr decay)(1 + β₁)/((1 − β₁) lr) solved for lr, with decay only if it is decoupled
    lr = 2.0 / (value * (1 - beta1) / (1 + beta1) + (decay if decoupled else 0.0))
    system = Bowl(lr, beta1, decay, decoupled)
    found = pl.sharpness(system, system.x, tol=1e-12, kind="preconditioned", t=t)
    assert_allclose(found.ratio, 1.0, rtol=1e-12)
    coupled = 0.0 if decoupled else decay
    g = system.H @ system.x[:5] + coupled * system.x[:5]
    P = np.diag(1.0 / preconditioner(system.x, g, t, beta1, 0.99))
    for ratio in (0.97, 1.0, 1.03):
        rate = lr * ratio
        pull = (1 - beta1) * (system.H + coupled * one)
        keep = one * (1 - rate * (decay if decoupled else 0.0))
        A = np.block([[keep - rate * P @ pull, -rate * beta1 * P], [pull, beta1 * one]])
        radius = np.abs(np.linalg.eigvals(A)).max()
        if ratio == 1.0:
            assert_allclose(radius, 1.0, rtol=1e-9)
        else:
            assert (radius > 1.0) == (ratio > 1.0)


@pytest.mark.parametrize("decay", [0.0, 0.4])
@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.5, False), (0.9, False), (0.5, True), (0.9, True)]
)
def test_the_threshold_of_momentum(momentum, nesterov, decay):
    h = np.array([0.3, 0.7, 1.7])
    bowl, w = cases.quadratic_bowl(h, 0.1)
    options = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    ratio = float(pl.sharpness_along(with_optimizer(bowl, lr=1.0, **options), w, 0).ratio[0])
    system = with_optimizer(bowl, lr=1.0 / ratio, **options)
    eigenvalues = np.linalg.eigvals(system.jacobian(system.state(w)))
    assert_allclose(np.abs(eigenvalues).max(), 1.0, rtol=1e-9)


def with_optimizer(system, **options):
    optimizer = pl.GradientDescent(**options)
    return pl.TrainingMap(system.network, system.X, system.y, optimizer)


def test_along_a_parabola_the_critical_rate_is_known():
    h = np.array([0.3, 0.7, 1.7])
    bowl, _ = cases.quadratic_bowl(h, 0.1)
    w = np.random.default_rng(0).normal(size=(6, 4))
    H, g = np.diag(np.append(h, 1.0)), bowl.gradient(w)
    along = np.einsum("ri,ij,rj->r", g, H, g) / (g**2).sum(axis=1)
    found = {kind: pl.sharpness(bowl, w, tol=1e-10, kind=kind) for kind in ("gradient", "critical")}
    assert_allclose(found["gradient"].value, along, rtol=1e-13)
    assert_allclose(found["critical"].value, along, rtol=1e-8)  # rounding of the loss near a root
    assert_allclose(found["critical"].ratio, 0.1 * along / 2, rtol=1e-8)
    # For any update d the loss of w + c d is that of w at c = −2 g·d / dᵀHd.
    heavy = with_optimizer(bowl, lr=0.2, momentum=0.5)
    x = np.concatenate([w, 0.05 * np.random.default_rng(1).normal(size=(6, 4))], axis=1)
    d = heavy.step(x)[:, :4] - w
    slope, bend = (g * d).sum(axis=1), np.einsum("ri,ij,rj->r", d, H, d)
    assert (slope < 0).all()
    critical = pl.sharpness(heavy, x, tol=1e-10, kind="critical")
    assert_allclose(critical.ratio, -bend / (2 * slope), rtol=1e-7)
    uphill = np.tile(w, 2)  # the velocity points away from the minimum
    assert np.isinf(pl.sharpness(heavy, uphill, kind="critical").value).all()


# ------------------------------------------------------------------------------------- oracles


SIZES = [((3, 5, 2), "tanh"), ((4, 3, 3), "gelu"), ((2, 7, 2), "sin"), ((5, 4, 3, 2), "sigmoid")]


def test_preconditioned_sharpness_of_100_nets_is_that_of_the_dense_problem():
    linalg = pytest.importorskip("scipy.linalg")
    rng = np.random.default_rng(0)
    for i, (layers, activation) in enumerate(SIZES):
        net = pl.Network(layers, activation=activation, loss="cross_entropy")
        decay, t = 0.05 * (i % 2), 7 * i
        adam = pl.Adam(lr=0.01, weight_decay=decay)
        system = pl.TrainingMap(net, *cases.data(net, 11), adam)
        w = cases.weights(net, 0.8, runs=25)
        n = net.n_params
        x = np.concatenate([w, rng.normal(size=w.shape), rng.random(w.shape) ** 4], axis=1)
        found = pl.sharpness(system, x, kind="preconditioned", t=t)
        H = system.hessian(x) + decay * np.eye(n)
        P = preconditioner(x, system.gradient(x) + decay * w, t, 0.9, 0.999)
        dense = [linalg.eigh(H[r], np.diag(P[r]), eigvals_only=True)[-1] for r in range(25)]
        assert_allclose(found.value, dense, rtol=1e-8)
        assert_allclose(found.ratio, found.value * 0.01 / 38, rtol=1e-12)
        image = np.einsum("rij,rj->ri", H, found.vector) / P
        error = np.linalg.norm(image - found.value[:, None] * found.vector, axis=1)
        assert (error <= 1e-6 * np.linalg.norm(image, axis=1)).all()


@pytest.mark.parametrize("batch_size", [None, 4])
def test_batch_sharpness_is_the_mean_over_the_minibatches(batch_size):
    net = cases.network("tanh", "cross_entropy")
    X, y = cases.data(net, 10)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1, batch_size=batch_size, seed=3))
    w = cases.weights(net, runs=3)
    found = pl.batch_sharpness(system, w, t=5, n_batches=7)
    curvature = []
    for t in range(5, 12):
        rows = system.batch(t)
        part = pl.TrainingMap(net, X[rows], y[rows], pl.GradientDescent())
        g, H = part.gradient(w), part.hessian(w)
        curvature.append(np.einsum("ri,rij,rj->r", g, H, g) / (g**2).sum(axis=1))
    assert_allclose(found.value, np.mean(curvature, axis=0), rtol=1e-11)
    expected = np.std(curvature, axis=0, ddof=1) / np.sqrt(7)
    assert_allclose(found.stderr, expected, rtol=1e-9, atol=1e-12)
    assert (found.n_products == 7).all()
    per_epoch = 3 if batch_size else 1
    assert (pl.batch_sharpness(system, w).n_products == per_epoch).all()


def test_thresholds_of_batch_sharpness():
    net = cases.network()
    X, y = cases.data(net, 10)
    w = cases.weights(net)
    for batch_size, low in ((None, 1.5), (4, 0.5)):
        for nesterov, high in ((False, 1.5), (True, 0.75)):
            descent = pl.GradientDescent(
                lr=0.1, momentum=0.5, nesterov=nesterov, batch_size=batch_size, weight_decay=0.2
            )
            found = pl.sharpness_along(pl.TrainingMap(net, X, y, descent), w, 2, kind="batch")
            least = low if batch_size else high
            assert_allclose(found.threshold, 20.0 * least - 0.2, rtol=1e-13)
            assert_allclose(found.upper_threshold, 20.0 * high - 0.2, rtol=1e-13)
            assert_allclose(found.ratio, (found.value + 0.2) / (20.0 * least), rtol=1e-13)
    adam = pl.sharpness_along(pl.TrainingMap(net, X, y, pl.Adam(0.1)), w, 2, kind="batch")
    assert np.isfinite(adam.value).all()
    assert np.isnan([adam.ratio, adam.threshold, adam.upper_threshold]).all()


def test_gradient_curvature_of_adam_is_a_rayleigh_quotient():
    net = cases.network("tanh", "cross_entropy")
    adam = pl.Adam(lr=0.1, weight_decay=0.1)
    system = pl.TrainingMap(net, *cases.data(net, 10), adam)
    x = system.trajectory(cases.weights(net, runs=3), 4)[:, -1]
    n = net.n_params
    g, H = system.gradient(x), system.hessian(x) + 0.1 * np.eye(n)
    P = preconditioner(x, g + 0.1 * x[:, :n], 4, 0.9, 0.999)
    u = g / P
    expected = np.einsum("ri,rij,rj->r", u, H, u) / (u * P * u).sum(axis=1)
    found = pl.sharpness(system, x, kind="gradient", t=4)
    assert_allclose(found.value, expected, rtol=1e-10)
    assert_allclose(np.abs((found.vector * u).sum(axis=1)), np.linalg.norm(u, axis=1), rtol=1e-12)
    assert (found.value <= pl.sharpness(system, x, kind="preconditioned", t=4).value).all()


# ---------------------------------------------------------------------------------------- laws


OPTIMIZERS = [
    pl.GradientDescent(lr=0.7, batch_size=4),
    pl.GradientDescent(lr=0.2, momentum=0.9, weight_decay=0.1),
    pl.GradientDescent(lr=0.2, momentum=0.9, nesterov=True, schedule=lambda t: 2 / (t + 2)),
    pl.Adam(lr=0.2, batch_size=4, schedule=lambda t: 2 / (t + 2)),
]


@pytest.mark.parametrize(
    "optimizer", OPTIMIZERS, ids=["minibatches", "heavy ball", "nesterov", "adam"]
)
def test_the_critical_ratio_is_above_1_where_the_next_step_increases_the_loss(optimizer):
    net = cases.network("tanh", "cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 10), optimizer)
    found = pl.sharpness_along(system, cases.weights(net, runs=4), 30, kind="critical")
    rises = np.diff(found.loss, axis=1) > 0
    assert rises.any()
    assert not rises.all()
    assert_array_equal(found.ratio[:, :-1] > 1.0, rises)
    assert_array_equal(found.value > found.threshold, found.ratio > 1.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "optimizer", OPTIMIZERS, ids=["minibatches", "heavy ball", "nesterov", "adam"]
)
def test_along_a_run_it_is_that_of_each_state(optimizer, kind):
    net = cases.network("tanh", "cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 10), optimizer)
    w = cases.weights(net, runs=2)
    along = pl.sharpness_along(system, w, 6, every=3, start=2, kind=kind, tol=1e-8)
    path, t = system.trajectory(w, 6, every=3, start=2), [2, 5, 8]
    at = pl.sharpness(system, path, kind=kind, t=t)
    assert_array_equal(at.value, along.value)
    inner = slice(None) if kind == "critical" else slice(None, -1)  # the last rate is that before
    assert_allclose(at.ratio[:, inner], along.ratio[:, inner], rtol=1e-14)
    alone = pl.sharpness(system, path[1, 2], kind=kind, t=8)
    assert_allclose(alone.value, along.value[1, 2], rtol=1e-9)
    assert along.kind == at.kind == kind
    if kind not in ("batch", "critical"):
        assert at.vector.shape == (2, 3, net.n_params)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_nan_stays_nan_and_alone(kind):
    net = cases.network("tanh", "cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 10), pl.Adam(lr=0.1, batch_size=4))
    x = system.trajectory(cases.weights(net, runs=4), 3)[:, -1]
    fine = pl.sharpness(system, x, kind=kind, t=3)
    x[2] = np.nan
    found = pl.sharpness(system, x, kind=kind, t=3)
    assert np.isnan(found.value[2])
    assert_array_equal(found.value[[0, 1, 3]], fine.value[[0, 1, 3]])
    assert np.isnan(pl.sharpness(system, x[2:3], kind=kind, t=3).value).all()


def test_rates_of_runs_go_with_all_kinds():
    net = cases.network("tanh", "cross_entropy")
    X, y = cases.data(net, 10)
    lr = np.array([0.01, 0.1, 0.3])
    w = cases.weights(net)
    for kind in KINDS:
        for make in (pl.Adam, pl.GradientDescent):
            scan = pl.sharpness_along(pl.TrainingMap(net, X, y, make(lr=lr)), w, 4, kind=kind)
            for i, rate in enumerate(lr):
                one = pl.sharpness_along(
                    pl.TrainingMap(net, X, y, make(lr=float(rate))), w, 4, kind=kind
                )
                assert_allclose(scan.value[i], one.value, rtol=1e-6)
                assert_allclose(scan.ratio[i], one.ratio, rtol=1e-6)
                assert_allclose(scan.threshold[i], one.threshold, rtol=1e-14)


def test_by_default_the_kind_is_that_of_the_threshold():
    net = cases.network()
    w = cases.weights(net)
    for optimizer, kind in ((pl.Adam(0.1), "preconditioned"), (pl.GradientDescent(), "hessian")):
        system = pl.TrainingMap(net, *cases.data(net, 10), optimizer)
        found = pl.sharpness_along(system, w, 2)
        assert found.kind == kind
        assert np.isfinite(found.ratio).all()
        assert pl.sharpness(system, w, kind=None).kind == kind
        assert pl.sharpness(system, w).kind == "hessian"


def test_a_map_of_ones_own_has_all_kinds():
    system = Bowl(0.01, 0.9)
    system.batch_hessian_vector = lambda x, V, t: system.H @ V
    x = system.x
    g = system.H @ x[:5]
    P = preconditioner(x, g, 0, 0.9, 0.99)
    largest = np.linalg.eigvalsh(system.H / np.sqrt(np.outer(P, P)))[-1]
    assert_allclose(pl.sharpness(system, x, kind="preconditioned", t=0).value, largest, rtol=1e-8)
    along = g @ system.H @ g / (g @ g)
    assert_allclose(pl.batch_sharpness(system, x).value, along, rtol=1e-12)
    assert_allclose(pl.sharpness(system, x).value, np.linalg.eigvalsh(system.H)[-1], rtol=1e-8)


def test_a_saved_result_keeps_its_kind(tmp_path):
    pytest.importorskip("xarray")
    net = cases.network()
    system = pl.TrainingMap(net, *cases.data(net, 10), pl.GradientDescent(0.1, batch_size=4))
    found = pl.sharpness_along(system, cases.weights(net, runs=2), 4, kind="batch")
    found.save(tmp_path / "s.nc")
    again = pl.load(tmp_path / "s.nc")
    assert again.kind == "batch"
    assert again.vector is None
    assert_array_equal(again.stderr, found.stderr)
    assert found.to_dataset()["stderr"].dims == ("run", "time")


# -------------------------------------------------------------------------------------- errors


def bad(name):
    net = cases.network()
    X, y = cases.data(net, 10)
    system = pl.TrainingMap(net, X, y, pl.Adam(lr=0.1))
    x = system.trajectory(cases.weights(net), 2)[-1]
    bowl = Bowl(0.1, 0.9)
    plain = cases.henon()
    calls = {
        "kind": lambda: pl.sharpness(system, x, kind="hesian"),
        "time": lambda: pl.sharpness(system, x, kind="preconditioned"),
        "time of critical": lambda: pl.sharpness(system, x, kind="critical"),
        "negative": lambda: pl.sharpness(system, x, t=-1),
        "fraction": lambda: pl.sharpness(system, x, t=0.5),
        "shape": lambda: pl.sharpness(system, x, t=[1, 2]),
        "batches": lambda: pl.batch_sharpness(system, x, n_batches=0),
        "many batches": lambda: pl.batch_sharpness(system, x, n_batches=10**12),
        "batches along": lambda: pl.sharpness_along(system, x, 2, n_batches=1.5),
        "threads": lambda: pl.batch_sharpness(system, x, threads=0),
        "no batches": lambda: pl.batch_sharpness(bowl, bowl.x),
        "no loss": lambda: pl.sharpness(plain, [0.0, 0.0], kind="critical"),
        "no optimiser": lambda: pl.sharpness(NoOptimizer(), np.ones(2), kind="preconditioned"),
        "schedule": lambda: pl.sharpness_along(
            pl.TrainingMap(net, X, y, pl.GradientDescent(schedule=[1.0, 1.0])),
            cases.weights(net), 2, kind="critical",
        ),
    }  # fmt: skip
    return calls[name]


class NoOptimizer:
    n = 2

    def step(self, x, t=0):
        return 0.5 * x

    def tangent(self, x, V, t=0):
        return 0.5 * V

    def hessian_vector(self, x, V):
        return V


ERRORS = {
    "kind": (ValueError, "kind must be one of .*hessian"),
    "time": (ValueError, "t must be the index of the step .* kind='preconditioned' depends on it"),
    "time of critical": (ValueError, "t must be the index of the step"),
    "negative": (ValueError, "t must be at least 0, got -1"),
    "fraction": (TypeError, "t must be integers, got dtype float64"),
    "shape": (ValueError, r"t must broadcast against the batch of x, \(\), got shape \(2,\)"),
    "batches": (ValueError, r"n_batches must be in 1 \.\.\. 1000000, got 0"),
    "many batches": (ValueError, r"n_batches must be in 1 \.\.\. 1000000, got 1000000000000"),
    "batches along": (TypeError, "n_batches must be an integer"),
    "threads": (ValueError, "threads must be"),
    "no batches": (TypeError, "system must have a method batch_hessian_vector for batch_sharpness"),
    "no loss": (TypeError, "system must have a method loss for sharpness with kind='critical'"),
    "no optimiser": (TypeError, "system must have an attribute optimizer with a known precond"),
    "schedule": (ValueError, "schedule must have a factor for each step, got 2 for 3 steps"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_input(case):
    error, message = ERRORS[case]
    with pytest.raises(error, match=message):
        bad(case)()
