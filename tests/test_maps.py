"""Maps: trajectories, the shapes that go in and out, and maps of the user's own."""

import pickle

import cases
import numpy as np
import oracles
import pytest
from cases import OPTIMIZERS, assert_close
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core

MAPS = {
    "henon": (cases.henon, [0.3, 0.2]),
    "logistic": (cases.logistic, [0.3]),
    "lozi": (cases.lozi, [0.3, 0.2]),
    "ikeda": (cases.ikeda, [0.3, 0.2]),
    "chirikov": (cases.chirikov, [0.3, 0.2]),
}

# ------------------------------------------------------------------------------ known answers


def test_trajectory_of_a_linear_map_by_hand():
    states = cases.linear(2.0, -1.0).trajectory(np.array([1.0, 3.0]), 3)
    assert_array_equal(states, [[1, 3], [2, -3], [4, 3], [8, -3]])


def test_gradient_descent_rolls_down_a_known_bowl():
    system, h = cases.quadratic_bowl(np.array([0.5, 2.0]), lr=0.3)
    w = np.array([1.0, -2.0, 0.5])
    assert_allclose(system.hessian(w), np.diag(h), atol=1e-15)  # sums of four numbers of size 2
    states = system.trajectory(w, 20)
    # twenty steps, one rounding each
    assert_allclose(states, w * (1 - 0.3 * h) ** np.arange(21)[:, None], rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("name", MAPS)
def test_analytic_jacobians_of_the_test_maps_are_right(name):
    make, x = MAPS[name]
    system, x = make(), np.array(x)
    h = 1e-6  # truncation h², rounding 1e-16/h
    columns = [(system.step(x + d) - system.step(x - d)) / (2 * h) for d in h * np.eye(len(x))]
    assert_allclose(system.jacobian(x), np.stack(columns, axis=-1), atol=1e-8)


# ---------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory_is_the_step_iterated_to_the_bit(name):
    *_, system, w = cases.training(optimizer_name=name, runs=3, batch_size=3)
    states = [system.state(w)]
    for t in range(12):
        states.append(system.step(states[-1], t=t))
    trajectory = system.trajectory(w, 12)
    assert trajectory.shape == (3, 13, system.n)
    assert_array_equal(trajectory, np.stack(states, axis=1))
    assert_array_equal(system.trajectory(w, 12, every=4), trajectory[:, ::4])
    assert_array_equal(system.trajectory(states[5], 7, start=5), trajectory[:, 5:])


def test_one_run_in_means_no_batch_axis_out():
    *_, system, w = cases.training(optimizer_name="heavy_ball", runs=2)
    x, V = system.state(w), np.eye(34)[:, :3]
    n = system.n
    shapes = {
        "step": (n,),
        "jacobian": (n, n),
        "loss": (),
        "gradient": (system.n_params,),
        "hessian": (system.n_params, system.n_params),
    }
    for name, shape in shapes.items():
        f = getattr(system, name)
        assert np.shape(f(x[0])) == shape
        assert np.shape(f(x)) == (2, *shape)
        assert np.shape(f(x[:, None])) == (2, 1, *shape)
    assert system.tangent(x[0], V).shape == (n, 3)
    assert system.tangent(x, np.stack([V, V])).shape == (2, n, 3)
    assert system.trajectory(x[0], 4, every=2).shape == (3, n)
    assert system.trajectory(x[:, None], 4).shape == (2, 1, 5, n)


def test_no_runs_in_no_runs_out():
    *_, system, _ = cases.training()
    w = np.empty((0, system.n_params))
    assert system.step(w).shape == (0, system.n)
    assert system.jacobian(w).shape == (0, system.n, system.n)
    assert system.trajectory(w, 3).shape == (0, 4, system.n)


def test_nothing_writes_to_its_arguments():
    net, X, y, system, w = cases.training(optimizer_name="adam", runs=2)
    kept = [a.copy() for a in (X, y, w)]
    V = np.ones((2, system.n, 1))
    system.step(w), system.jacobian(w), system.tangent(w, V), system.trajectory(w, 3)
    net.predict(w, X)
    for array, copy in zip((X, y, w), kept, strict=True):
        assert_array_equal(array, copy)
    assert_array_equal(V, np.ones_like(V))


def test_later_changes_to_the_data_do_not_reach_the_map():
    _, X, y, system, w = cases.training()
    before = system.loss(w)
    X[:] = 0.0
    y[:] = 0.0
    assert system.loss(w) == before


def test_the_step_of_a_discrete_map_ignores_time():
    system, x = cases.henon(), np.array([0.1, 0.2])
    assert_array_equal(system.step(x, t=5), system.step(x))
    assert_array_equal(system.jacobian(x, t=5), system.jacobian(x))
    V = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert_array_equal(system.tangent(x, V, t=5), system.jacobian(x) @ V)
    assert system.n == 2


def test_a_map_that_works_in_place_does_not_reach_the_callers_arrays():
    def step(x):
        x *= 2
        return x

    system = pl.DiscreteMap(step, lambda x: 2 * np.eye(1), 1)
    x = np.array([1.0])
    assert_array_equal(system.step(x), [2.0])
    assert_array_equal(system.trajectory(x, 2), [[1.0], [2.0], [4.0]])
    assert_array_equal(pl.lyapunov_spectrum(system, x, 3).state, [8.0])
    assert_array_equal(x, [1.0])


def test_discrete_maps_take_batches_of_states():
    system = cases.henon()
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 2))
    assert_array_equal(system.step(x), [system.step(each) for each in x])
    assert_array_equal(system.jacobian(x), [system.jacobian(each) for each in x])
    states = system.trajectory(x, 10, every=5)
    assert states.shape == (3, 3, 2)
    assert_array_equal(states[1], system.trajectory(x[1], 10)[::5])


# -------------------------------------------------------------------- agreement with the oracle


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("loss", cases.LOSSES)
def test_forty_steps_of_training_agree_with_the_oracle(loss, name):
    net, X, y, system, w = cases.training("sigmoid", loss, optimizer_name=name)
    x = system.state(w)
    states = system.trajectory(x, 40)
    for t in range(40):
        x = oracles.step(net, cases.reference(name), x, X, y, t)
        # rounding is carried along, and no step of these stretches much
        assert_close(states[t + 1], x, 1e-11)


# -------------------------------------------------------------------------------------- limits


def test_a_run_that_overflows_stays_out_of_the_finite_numbers_quietly():
    *_, system, w = cases.training("relu", scale=1e3, runs=2)
    states = system.trajectory(w, 50)
    assert not np.isfinite(states[:, -1]).all()


def test_a_user_map_that_leaves_in_both_directions_does_so_quietly():
    system = pl.DiscreteMap(lambda x: x * [np.inf, -np.inf], lambda x: np.eye(2), 2)
    assert np.isnan(system.step(np.ones(2))).all()


def test_a_map_describes_itself():
    *_, system, _ = cases.training(optimizer_name="heavy_ball")
    assert system.n == 2 * system.n_params
    assert len(repr(system)) < 500
    for word in ("TrainingMap", "tanh", "mse", "lr=0.1", "momentum=0.9"):
        assert word in repr(system)
    assert "DiscreteMap" in repr(cases.henon())


def test_training_maps_pickle_to_the_same_bits():
    *_, system, w = cases.training("gelu", "cross_entropy", 2, "adam", batch_size=3)
    copy = pickle.loads(pickle.dumps(system))
    assert_array_equal(copy.trajectory(w, 10), system.trajectory(w, 10))
    assert_array_equal(copy.X, system.X)
    assert_array_equal(copy.batch(4), system.batch(4))


def double(x):
    return 2 * x


def doubling(x):
    return 2 * np.eye(1)


def test_discrete_maps_of_importable_functions_pickle():
    copy = pickle.loads(pickle.dumps(pl.DiscreteMap(double, doubling, 1)))
    assert_array_equal(copy.step(np.array([3.0])), [6.0])
