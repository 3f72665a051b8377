"""Singular values and vectors of the propagator of a whole training."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap import _parallel as parallel
from pylyap._parallel import ProgressBar
from pylyap._tangent import propagator as propagators
from pylyap._tangent import training_jacobian as module

OPTIMIZERS = {
    "descent": pl.GradientDescent(lr=0.5),
    "minibatches": pl.GradientDescent(lr=0.3, batch_size=32, weight_decay=0.01),
    "heavy ball": pl.GradientDescent(lr=0.2, momentum=0.9),
    "nesterov": pl.GradientDescent(lr=0.1, momentum=0.8, nesterov=True, batch_size=50),
    "adam": pl.Adam(lr=0.02, batch_size=50),
}


def iris_map(optimizer, hidden=2):
    X, y = pl.datasets.iris()
    net = pl.Network((4, hidden, 3), activation="tanh", loss="cross_entropy")
    return pl.TrainingMap(net, X, y, optimizer)


def dense(system, x, n_steps):
    """The propagator of one run, in 60 digits, as a matrix of doubles."""
    path = system.trajectory(x, n_steps)
    with mpmath.workdps(60):
        D = mpmath.eye(system.n)
        for t in range(n_steps):
            D = mpmath.matrix(system.jacobian(path[t], t).tolist()) * D
    return np.array(D.tolist(), float)


# --- known answers --------------------------------------------------------------------------------


def test_diagonal_map():
    # D = diag(2^T, 1, 2^-T): far outside the range of doubles relative to each other.
    rates = np.array([2.0, 1.0, 0.5, 2.0**-3])
    system = pl.DiscreteMap(lambda x: rates * x, lambda x: np.diag(rates), n=4)
    jacobian = pl.training_jacobian(system, [1.0, 1.0, 1.0, 1.0], n_steps=250)
    assert_allclose(jacobian.log_singular_values, 250 * np.log(rates), atol=1e-11)
    assert_allclose(np.abs(jacobian.left[:, :2]), np.eye(4)[:, :2], atol=1e-14)
    assert_allclose(jacobian.counts(), (1, 1, 2))


def test_destroyed_direction():
    system = pl.DiscreteMap(lambda x: x * [1.0, 0.0], lambda x: np.diag([1.0, 0.0]), n=2)
    jacobian = pl.training_jacobian(system, [1.0, 1.0], n_steps=3)
    assert_allclose(jacobian.log_singular_values, [0.0, -np.inf], atol=1e-14)
    assert np.isnan(jacobian.error[1])


# --- agreement with the product of Jacobians ------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_dense_product(name):
    system = iris_map(OPTIMIZERS[name], hidden=1)
    w0 = system.network.init("normal", runs=2, seed=3)
    jacobian = pl.training_jacobian(system, w0, n_steps=12)
    for r, x in enumerate(system.state(w0)):
        D = dense(system, x, 12)
        s = np.linalg.svd(D, compute_uv=False)
        accurate = s > 1e-5 * s[0]  # of the oracle, whose errors are 1e-16 of the largest
        assert accurate.sum() > 3
        assert_allclose(jacobian.singular_values[r][accurate], s[accurate], rtol=1e-10)
        product = D @ jacobian.right[r]
        assert_allclose(product, jacobian.left[r] * jacobian.singular_values[r], atol=1e-13 * s[0])
        for vectors in (jacobian.left[r], jacobian.right[r]):
            assert_allclose(vectors.T @ vectors, np.eye(system.n), atol=1e-13)


def test_small_singular_values_keep_their_relative_accuracy():
    system = iris_map(OPTIMIZERS["descent"], hidden=3)
    w0 = system.network.init("normal", seed=0)
    found = pl.training_jacobian(system, w0, n_steps=60).log_singular_values
    windows = pl.ftle(system, w0, 60, window=60, kind="svd")[0] * 60
    assert found[-1] < -20.0 + found[0]
    assert_allclose(found, windows, atol=1e-9)


def test_rare_orthonormalisation_changes_nothing(monkeypatch):
    system = iris_map(OPTIMIZERS["heavy ball"])
    w0 = system.network.init("normal", seed=0)
    sparse = pl.training_jacobian(system, w0, n_steps=40).log_singular_values
    monkeypatch.setattr(propagators, "_QR_SPREAD", 0.0)  # after each step
    assert_allclose(
        pl.training_jacobian(system, w0, n_steps=40).log_singular_values, sparse, atol=1e-10
    )


def test_finite_differences_of_a_whole_training():
    system = iris_map(OPTIMIZERS["minibatches"])
    w0 = system.network.init("normal", seed=5)
    jacobian = pl.training_jacobian(system, w0, n_steps=30)
    for i in (0, 5):
        ends = [system.trajectory(w0 + h * jacobian.right[:, i], 30)[-1] for h in (1e-6, -1e-6)]
        moved = (ends[0] - ends[1]) / 2e-6
        # Central differences: (1e-6)^2 of truncation and 1e-10 of rounding, amplified.
        assert_allclose(
            moved, jacobian.singular_values[i] * jacobian.left[:, i],
            atol=1e-6 * jacobian.singular_values[0],
        )  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_blocks_of_columns_give_the_graded_product(name, monkeypatch):
    system = iris_map(OPTIMIZERS[name])
    w0 = system.network.init("normal", runs=2, seed=1)
    graded = pl.training_jacobian(system, w0, n_steps=25)
    monkeypatch.setattr(module, "_JACOBI", 0)
    monkeypatch.setattr(propagators, "_COLUMNS", 4)  # the last block is smaller
    direct = pl.training_jacobian(system, w0, n_steps=25)
    s = graded.log_singular_values
    accurate = s > s[:, :1] - 10.0  # e^-10 of the largest: 1e-11 of errors relative to each
    assert_allclose(direct.log_singular_values[accurate], s[accurate], atol=1e-9)
    assert (direct.error[accurate] < 1e-10).all()
    assert_allclose(direct.right @ direct.right.swapaxes(1, 2), [np.eye(system.n)] * 2, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_the_leading_block(name, monkeypatch):
    system = iris_map(OPTIMIZERS[name])
    p, w0 = system.n_params, system.network.init("normal", runs=2, seed=2)
    found = pl.training_jacobian(system, w0, n_steps=12, of="parameters")
    assert found.left.shape == found.right.shape == (2, p, p)
    for r, x in enumerate(system.state(w0)):
        D = np.eye(system.n)
        for t, state in enumerate(system.trajectory(x, 11)):
            D = system.jacobian(state, t) @ D
        D = D[:p, :p]
        s = np.linalg.svd(D, compute_uv=False)
        assert_allclose(found.singular_values[r], s, atol=1e-12 * s[0])
        product = D @ found.right[r]
        assert_allclose(product, found.left[r] * found.singular_values[r], atol=1e-12 * s[0])
    monkeypatch.setattr(module, "_DENSE", 0)
    few = pl.training_jacobian(system, w0, n_steps=12, k=2, of="parameters")
    assert_allclose(few.log_singular_values, found.log_singular_values[:, :2], atol=1e-10)
    assert few.left.shape == (2, p, 2)


def test_blocks_of_columns_of_a_strongly_unstable_run(monkeypatch):
    # At the critical point w = 0 the output bias alone has curvature, 1: D = (1 − lr)^T there,
    # beyond the range of doubles.
    X, y = np.ones((2, 1)), np.zeros(2)
    net = pl.Network((1, 1, 1))
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=3.0))
    monkeypatch.setattr(module, "_JACOBI", 0)
    w0 = np.zeros(net.n_params)
    found = pl.training_jacobian(system, w0, n_steps=2500)
    assert_allclose(found.log_singular_values[0], 2500 * np.log(2.0), rtol=1e-12)
    assert np.isinf(found.singular_values[0])


# --- the largest ones, without the product --------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_block_iteration(name, monkeypatch):
    system = iris_map(OPTIMIZERS[name], hidden=6)
    w0 = system.network.init("normal", runs=2, seed=1)
    whole = pl.training_jacobian(system, w0, n_steps=25)
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(propagators, "_STATES_BYTES", 0.0)  # states from checkpoints
    few = pl.training_jacobian(system, w0, n_steps=25, k=3)
    assert (few.error < 1e-10).all()
    assert_allclose(few.log_singular_values, whole.log_singular_values[:, :3], atol=1e-10)
    for vectors, others in ((few.left, whole.left), (few.right, whole.right)):
        same = np.abs(np.einsum("rnk,rnk->rk", vectors, others[..., :3]))
        assert_allclose(same, 1.0, atol=1e-7)


def test_block_iteration_of_a_strongly_unstable_run(monkeypatch):
    # σ = 3^800 is above the largest double.
    rates = np.r_[3.0, 2.0, np.linspace(1.0, 0.5, 28)]
    system = pl.DiscreteMap(
        lambda x: x, n=30, tangent=lambda x, V: rates[:, None] * V,
        adjoint=lambda x, U: rates[:, None] * U,
    )  # fmt: skip
    monkeypatch.setattr(module, "_DENSE", 0)
    jacobian = pl.training_jacobian(system, np.zeros(30), n_steps=800, k=2)
    assert_allclose(jacobian.log_singular_values[0], 800 * np.log(3.0), rtol=1e-12)
    assert np.isinf(jacobian.singular_values[0])


def test_progress_of_the_block_iteration_ends_at_its_total(monkeypatch):
    bars = []

    class Recorded(ProgressBar):
        def close(self):
            bars.append((self.base, self.total))
            super().close()

    system = iris_map(OPTIMIZERS["descent"], hidden=6)
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(parallel, "ProgressBar", Recorded)
    pl.training_jacobian(system, system.network.init("normal", seed=1), 25, k=2)
    ((base, total),) = bars
    assert base == total > 4 * 25  # more than one block was needed


# --- the smallest ones, without the product -------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_smallest_of_large_models(name, monkeypatch):
    system = iris_map(OPTIMIZERS[name], hidden=6)
    w0 = system.network.init("normal", runs=1, seed=1)
    # Adam's step before the first gradient: second moments of 0 have no derivative
    x0 = system.trajectory(w0, 5)[:, -1]
    whole = pl.training_jacobian(system, x0, n_steps=25, start=5)
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(module, "_JACOBI", 0)
    monkeypatch.setattr(propagators, "_STATES_BYTES", 0.0)  # states from checkpoints
    few = pl.training_jacobian(system, x0, n_steps=25, k=3, which="both", start=5)
    monkeypatch.undo()
    expected = np.concatenate(
        [whole.log_singular_values[:, :3], whole.log_singular_values[:, -3:]], 1
    )
    assert (few.error[:, 5] < 1e-10).all()
    accurate = few.error < 1e-4  # the others are more than 1e10 times the smallest
    assert accurate.sum() >= 4
    difference = np.abs(few.log_singular_values - expected)
    # The Jacobians of Adam's steps are badly scaled: their condition is not in the estimates.
    rounding = 1e-6 if name == "adam" else 1e-9
    assert (difference <= few.error + rounding)[accurate].all()
    for vectors, others in ((few.left, whole.left), (few.right, whole.right)):
        same = np.abs(np.einsum("rn,rn->r", vectors[..., 5], others[..., -1]))
        assert_allclose(same, 1.0, atol=1e-6)


def test_smallest_far_below_rounding(monkeypatch):
    # A run of 100 steps: e^-70 relative to the largest, where DᵀD has no digit.
    system = iris_map(OPTIMIZERS["descent"], hidden=6)
    w0 = system.network.init("normal", seed=0)
    whole = pl.training_jacobian(system, w0, n_steps=100).log_singular_values
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(module, "_JACOBI", 0)
    few = pl.training_jacobian(system, w0, 100, 2, "smallest")
    assert whole[-1] < whole[0] - 70.0
    assert_allclose(few.log_singular_values[1], whole[-1], rtol=1e-9)
    # The next one is e^40 times as large, beyond rounding, and its error says so.
    assert whole[-2] > whole[-1] + 40.0
    assert few.error[1] < 1e-9
    assert few.error[0] > 1.0


def test_smallest_without_an_inverse(monkeypatch):
    rates = np.linspace(2.0, 1e-3, 40)
    system = pl.DiscreteMap(
        lambda x: rates * x, n=40, tangent=lambda x, V: rates[:, None] * V,
        adjoint=lambda x, U: rates[:, None] * U,
    )  # fmt: skip
    monkeypatch.setattr(module, "_DENSE", 0)
    monkeypatch.setattr(module, "_JACOBI", 0)
    found = pl.training_jacobian(system, np.zeros(40), 6, 2, "smallest")
    # 1e-3^6 relative to 2^6 is below rounding; the errors say so.
    assert found.error[1] > 1.0
    assert_allclose(found.log_singular_values[0], 6 * np.log(rates[-2]), atol=found.error[0])


def test_which():
    system = iris_map(OPTIMIZERS["descent"])
    w0 = system.network.init("normal", seed=0)
    whole = pl.training_jacobian(system, w0, n_steps=10).log_singular_values
    largest, smallest, both = (
        pl.training_jacobian(system, w0, 10, 3, which).log_singular_values
        for which in ("largest", "smallest", "both")
    )
    assert_allclose(largest, whole[:3], rtol=0)
    assert_allclose(smallest, whole[-3:], rtol=0)
    assert_allclose(both, np.r_[largest, smallest], rtol=0)


@pytest.mark.parametrize("kind", ["graded", "columns", "leading"])
def test_a_run_does_not_depend_on_the_others(kind, monkeypatch):
    system = iris_map(OPTIMIZERS["heavy ball"], hidden=4)
    w0 = system.network.init("normal", runs=3, seed=4) * np.array([[1.0], [0.2], [2.0]])
    if kind == "columns":
        monkeypatch.setattr(module, "_JACOBI", 0)
    if kind == "leading":
        monkeypatch.setattr(module, "_DENSE", 0)
    options = {"n_steps": 30, "k": 3 if kind == "leading" else None}
    together = pl.training_jacobian(system, w0, **options)
    for r in range(3):
        alone = pl.training_jacobian(system, w0[r], **options)
        for name in ("log_singular_values", "left", "right", "error"):
            assert_array_equal(getattr(together, name)[r], getattr(alone, name))
    one = pl.training_jacobian(system, w0, threads=1, **options)
    assert_array_equal(one.left, together.left)


# --- limits and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize("dense_up_to", [0, 300])
def test_a_diverged_run_does_not_affect_the_others(dense_up_to, monkeypatch):
    X, y = pl.datasets.quadratic()
    net = pl.Network((2, 6, 1), activation="tanh")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=np.array([0.05, 1e6])))
    w0 = np.broadcast_to(net.init(seed=0), (2, net.n_params))
    monkeypatch.setattr(module, "_DENSE", dense_up_to)
    with np.errstate(over="ignore", invalid="ignore"):
        jacobian = pl.training_jacobian(system, w0, n_steps=200, k=2)
    assert np.isfinite(jacobian.log_singular_values[0]).all()
    assert np.isnan(jacobian.log_singular_values[1]).all()
    alone = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.05))
    expected = pl.training_jacobian(alone, w0[0], n_steps=200, k=2)
    assert_allclose(jacobian.log_singular_values[0], expected.log_singular_values, atol=1e-9)


def test_errors(monkeypatch):
    system = iris_map(OPTIMIZERS["descent"])
    w0 = system.network.init("normal", seed=0)
    for arguments, name in (
        ({"k": 0}, "k"),
        ({"k": 100}, "k"),
        ({"k": 10, "which": "both"}, "k"),
        ({"which": "median"}, "which"),
        ({"tol": 0.0}, "tol"),
        ({"of": "weights"}, "of"),
        ({"threads": 0}, "threads"),
        ({"n_steps": 0}, "n_steps"),
    ):
        with pytest.raises(pl.ArgumentError) as error:
            pl.training_jacobian(system, w0, **({"n_steps": 5} | arguments))
        assert error.value.argument == name
    monkeypatch.setattr(module, "_DENSE", 0)

    class Plain:
        n = 40

        def step(self, x, t):
            return x

        def tangent(self, x, V, t):
            return V

    with pytest.raises(pl.ArgumentError, match="adjoint"):
        pl.training_jacobian(Plain(), np.zeros(40), n_steps=5, k=2)
    with pytest.raises(pl.ArgumentError, match="width"):
        pl.training_jacobian(system, w0, 5).counts(-1.0)


def test_dataset_and_plot():
    system = iris_map(OPTIMIZERS["descent"])
    jacobian = pl.training_jacobian(system, system.network.init("normal", runs=2, seed=0), 10)
    pytest.importorskip("xarray")
    dataset = jacobian.to_dataset()
    assert dataset["left"].dims == ("run", "parameter", "mode")
    pytest.importorskip("matplotlib")
    figure = jacobian.plot()
    lines = [line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) > 2]
    assert_allclose(lines[1], jacobian.log_singular_values[1] / np.log(10.0))
