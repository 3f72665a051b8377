"""Principal angles and overlaps of subspaces, and training restricted to a subspace."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import subspace_angles

import pylyap as pl

OPTIMIZERS = {
    "descent": pl.GradientDescent(lr=0.5),
    "minibatches": pl.GradientDescent(lr=0.3, batch_size=32, weight_decay=0.01),
    "heavy ball": pl.GradientDescent(lr=0.2, momentum=0.9),
    "nesterov": pl.GradientDescent(lr=0.1, momentum=0.8, nesterov=True, batch_size=50),
    "adam": pl.Adam(lr=0.02, batch_size=50),
}


def iris_map(optimizer):
    X, y = pl.datasets.iris()
    net = pl.Network((4, 2, 3), activation="tanh", loss="cross_entropy")
    return pl.TrainingMap(net, X, y, optimizer)


def basis(n, k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0]


# --- overlap --------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.3, 1e-9, 1.3])
def test_angles_of_two_planes(angle):
    # Two planes that share a line and enclose an angle around it.
    U = np.eye(3)[:, :2]
    V = np.array([[1.0, 0.0], [0.0, np.cos(angle)], [0.0, np.sin(angle)]])
    found = pl.subspace_overlap(U, 5.0 * V)  # of any length
    assert_allclose(found.angles, [0.0, angle], rtol=1e-14, atol=1e-16)
    assert_allclose(found.overlap, (1.0 + np.cos(angle) ** 2) / 2.0, rtol=1e-14)
    assert found.expected == 2.0 / 3.0


@pytest.mark.parametrize(("k", "others"), [(3, 3), (2, 5), (5, 2), (7, 6)])
def test_angles_are_those_of_scipy(k, others):
    rng = np.random.default_rng(1)
    U, V = rng.normal(size=(3, 9, k)), rng.normal(size=(9, others))
    found = pl.subspace_overlap(U, V)
    for r in range(3):
        assert_allclose(found.angles[r], np.sort(subspace_angles(U[r], V)), 1e-12, 1e-14)


def test_random_subspaces_have_the_expected_overlap():
    rng = np.random.default_rng(2)
    U, V = rng.normal(size=(400, 30, 6)), rng.normal(size=(400, 30, 10))
    found = pl.subspace_overlap(U, V)
    assert found.expected == 10 / 30
    assert_allclose(found.overlap.mean(), found.expected, atol=4 * found.spread / 20)
    assert_allclose(found.overlap.std(), found.spread, rtol=0.15)  # 4 errors of 1/sqrt(800)


def test_one_space_in_the_other_overlaps_fully():
    U = basis(12, 7)
    found = pl.subspace_overlap(U, U[:, 2:5] @ np.random.default_rng(0).normal(size=(3, 3)))
    assert_allclose(found.angles, 0.0, atol=1e-13)
    assert_allclose(found.overlap, 1.0, rtol=1e-14)
    whole = pl.subspace_overlap(np.eye(4), np.eye(4)[:, :1])
    assert (whole.expected, whole.spread) == (1.0, 0.0)


def test_the_result_shows_and_draws_itself_and_is_read_back(tmp_path):
    pytest.importorskip("h5netcdf")
    pytest.importorskip("matplotlib")
    U, V = basis(20, 4)[np.newaxis] * np.ones((3, 1, 1)), basis(20, 6, seed=1)
    found = pl.subspace_overlap(U, V)
    data = found.to_dataset()
    assert data["angles"].dims == ("run", "angle")
    assert float(data["expected"]) == found.expected == 6 / 20
    found.save(tmp_path / "o.nc")
    again = pl.load(tmp_path / "o.nc")
    assert_array_equal(again.angles, found.angles)
    assert (again.expected, again.spread) == (found.expected, found.spread)
    assert "expected  0.3" in repr(found)
    (ax,) = found.plot().axes
    dashed, *curves = ax.lines
    assert dashed.get_ydata()[0] == found.expected
    assert len(curves) == 3
    assert_allclose(curves[0].get_ydata().mean(), found.overlap[0], rtol=1e-14)
    assert found.plot(ax=ax) is not None
    labels = ["a", "b"]
    two = pl.subspace_overlap(U[:2, np.newaxis], V[np.newaxis])
    assert two.plot(labels=labels).legends[0].get_texts()[1].get_text() == "b"
    with pytest.raises(pl.ArgumentError, match="labels must"):
        two.plot(labels=["a"])


@pytest.mark.parametrize(
    ("U", "V", "message"),
    [
        (np.ones(4), np.eye(4), r"U must have shape \(\.\.\., n, k\) with 1 <= k <= n, got \(4,\)"),
        (np.eye(4), np.ones((2, 3)), r"V must have shape .*, got \(2, 3\)"),
        (np.eye(4), np.eye(3), r"V must have vectors of length 4 as U"),
        (np.ones((4, 2)), np.eye(4), "U must have independent columns, column 1 depends"),
        (np.eye(4), np.zeros((4, 1)), "V must have independent columns, column 0"),
        (np.ones((2, 4, 1)), np.ones((3, 4, 1)), r"V must broadcast against U of batch shape \(2,"),
        (np.full((4, 1), np.nan), np.eye(4), "U must be finite"),
    ],
)
def test_bad_subspaces_are_refused(U, V, message):
    with pytest.raises(pl.ArgumentError, match=message):
        pl.subspace_overlap(U, V)


# --- training in a subspace -----------------------------------------------------------------------


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_tangent_is_the_derivative_of_the_projected_step(name, exclude):
    system = iris_map(OPTIMIZERS[name])
    p = system.n_params
    projected = pl.ProjectedMap(system, basis(p, 6), exclude)
    x = projected.trajectory(system.network.init("normal", runs=2, seed=1), 8)[:, -1]
    P = projected.project @ projected.project.T
    P = np.eye(p) - P if exclude else P
    after = system.step(x, 4)
    after[:, :p] = x[:, :p] + (after[:, :p] - x[:, :p]) @ P
    assert_allclose(projected.step(x, 4), after, atol=1e-14)
    V = np.random.default_rng(2).normal(size=(2, system.n, 3))
    V[:, 2 * p :] *= x[:, 2 * p :, np.newaxis]  # second moments are positive and small
    h = 1e-6
    ends = [projected.step(x + s * h * V[..., i], 4) for s in (1, -1) for i in range(3)]
    expected = np.stack([(ends[i] - ends[i + 3]) / (2.0 * h) for i in range(3)], axis=-1)
    # (1e-6)² of truncation, 1e-16/1e-6 of rounding
    assert_allclose(projected.tangent(x, V, 4), expected, atol=3e-8 * np.abs(expected).max())


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_adjoint_is_the_transpose_and_keeps_excluded_directions(name, exclude):
    system = iris_map(OPTIMIZERS[name])
    projected = pl.ProjectedMap(system, basis(system.n_params, 6), exclude)
    x = projected.trajectory(system.network.init("normal", seed=1), 3)[-1]
    J = projected.tangent(x, np.eye(system.n), 4)
    U = np.random.default_rng(3).normal(size=(system.n, 4))
    assert_allclose(projected.adjoint(x, U, 4), J.T @ U, atol=1e-12 * np.abs(J).max())
    kept = np.linalg.qr(projected.project, mode="complete")[0]
    kept = kept[:, :6] if exclude else kept[:, 6:]
    outside = np.zeros((system.n, kept.shape[1]))
    outside[: system.n_params] = kept
    assert_allclose(projected.adjoint(x, outside, 4), outside, atol=1e-12 * np.abs(J).max())


def test_weights_stay_in_the_subspace_and_descent_is_that_of_its_coordinates():
    system = iris_map(pl.GradientDescent(lr=0.3, momentum=0.8))
    U = basis(system.n_params, 5)
    w0 = system.network.init("normal", seed=1)
    path = pl.ProjectedMap(system, U).trajectory(w0, 50)[:, : system.n_params]
    assert_allclose((path - w0) @ U @ U.T, path - w0, atol=1e-13)

    # Heavy ball in the five coordinates, by hand.
    z, v = np.zeros(5), np.zeros(5)
    for _ in range(50):
        v = 0.8 * v - 0.3 * (U.T @ system.gradient(w0 + U @ z))
        z = z + v
    assert_allclose(path[-1], w0 + U @ z, atol=1e-12)
    away = pl.ProjectedMap(system, U, exclude=True).trajectory(w0, 50)[:, : system.n_params]
    assert_allclose((away - w0) @ U, 0.0, atol=1e-13)


def test_exponents_of_excluded_directions_are_zero():
    # The Jacobian is block triangular with 1 in the excluded block: that many exponents are 0 in
    # the limit, and the singular vectors that the adjoint keeps have the value 1 at once.
    system = iris_map(pl.GradientDescent(lr=0.2))
    p = system.n_params
    projected = pl.ProjectedMap(system, basis(p, 4))
    w = projected.trajectory(system.network.init("normal", seed=1), 3000, every=3000)[-1]
    found = pl.lyapunov_spectrum(projected, w, 600, n_transient=100).exponents
    H = projected.project.T @ system.hessian(w) @ projected.project
    expected = np.r_[np.zeros(p - 4), np.log(np.abs(1.0 - 0.2 * np.linalg.eigvalsh(H)))]
    # A converged run: 1/T for the rotation of the start frame
    assert_allclose(np.sort(found), np.sort(expected), atol=8e-3)
    assert (np.abs(found) < 8e-3).sum() >= p - 4


def test_projecting_to_everything_changes_nothing():
    system = iris_map(OPTIMIZERS["heavy ball"])
    w0 = system.network.init("normal", runs=2, seed=0)
    same = pl.ProjectedMap(system, np.eye(system.n_params))
    assert_allclose(same.trajectory(w0, 40), system.trajectory(w0, 40), atol=1e-12)
    jacobians = [pl.training_jacobian(s, w0, 30).log_singular_values for s in (same, system)]
    assert_allclose(jacobians[0], jacobians[1], atol=1e-9)
    assert_array_equal(same.loss(w0), system.loss(w0))
    assert not hasattr(same, "accuracy")
    copy = pickle.loads(pickle.dumps(same))
    assert_array_equal(copy.step(w0), same.step(w0))


def test_other_maps_and_runs_that_diverge():
    rates = np.array([2.0, 0.5, 3.0])
    system = pl.DiscreteMap(lambda x: rates * x, lambda x: np.diag(rates), n=3)
    projected = pl.ProjectedMap(system, np.eye(3)[:, :1])
    assert_allclose(projected.step(np.ones((2, 3))), [[2.0, 1.0, 1.0]] * 2)
    found = pl.lyapunov_spectrum(projected, np.full(3, 1e-300), 40, frame=np.eye(3))
    assert_allclose(np.sort(found.exponents), [0.0, 0.0, np.log(2.0)], atol=1e-13)
    assert not hasattr(projected, "loss")
    with np.errstate(over="ignore"):
        end = projected.trajectory([[1e308, 1.0, 1.0], [1.0, 1.0, 1.0]], 3)[:, -1]
    assert np.isnan(end[0]).all()
    assert_array_equal(end[1], [8.0, 1.0, 1.0])


def test_bad_projections_are_refused():
    system = iris_map(pl.GradientDescent(lr=0.5))
    p = system.n_params
    for project, message in (
        (np.ones(p), rf"project must have shape \({p}, k\)"),
        (np.eye(p)[:5], rf"project must have shape \({p}, k\) .*, got \(5, {p}\)"),
        (2.0 * basis(p, 3), "orthonormal columns, but an entry of UᵀU − 1 is 3"),
        (np.full((p, 1), np.inf), "project must be finite"),
    ):
        with pytest.raises(pl.ArgumentError, match=message) as error:
            pl.ProjectedMap(system, project)
        assert error.value.argument == "project"
    with pytest.raises(pl.ArgumentError, match="one lr, momentum and weight_decay"):
        pl.ProjectedMap(iris_map(pl.GradientDescent(lr=[0.1, 0.2])), basis(p, 3))
    with pytest.raises(pl.ArgumentError, match="exclude"):
        pl.ProjectedMap(system, basis(p, 3), exclude=3)
    with pytest.raises(pl.ArgumentError, match="V must have shape"):
        pl.ProjectedMap(system, basis(p, 3)).tangent(np.zeros(p), np.ones(3))
