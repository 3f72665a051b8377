"""Maps of the user's own, compiled: the same numbers without Python."""

import pickle

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core

A, B = 1.4, 0.3


def henon_step(x):
    return np.array([1 - A * x[0] ** 2 + x[1], B * x[0]])


def henon_jacobian(x):
    return np.array([[-2 * A * x[0], 1.0], [B, 0.0]])


def henon_step_of_tuples(x):
    return 1 - A * x[0] ** 2 + x[1], B * x[0]


def henon_jacobian_of_tuples(x):
    return (-2 * A * x[0], 1), (B, 0.0)


@pytest.fixture(scope="module", params=["arrays", "tuples"])
def henon(request):
    functions = {
        "arrays": (henon_step, henon_jacobian),
        "tuples": (henon_step_of_tuples, henon_jacobian_of_tuples),
    }
    return pl.DiscreteMap(*functions[request.param], 2, compiled=True)


def test_the_same_numbers_as_from_python(henon):
    x = np.array([0.1, 0.1])
    ours = pl.lyapunov_spectrum(henon, x, 25, record_every=5)
    theirs = pl.lyapunov_spectrum(cases.henon(A, B), x, 25, record_every=5)
    assert_allclose(ours.growth, theirs.growth, atol=1e-9)
    assert_allclose(henon.trajectory(x, 25)[-1], ours.state, rtol=1e-12)
    c = pl.covariant_lyapunov_vectors(henon, x, 20, n_transient=20, n_tail=20)
    d = pl.covariant_lyapunov_vectors(cases.henon(A, B), x, 20, n_transient=20, n_tail=20)
    assert_allclose(c.growth, d.growth, atol=1e-6)
    assert (c.residual < 1e-14).all()


def test_the_known_exponents(henon):
    s = pl.lyapunov_spectrum(henon, [0.1, 0.1], 200_000, n_transient=100, record_every=100)
    assert_allclose(s.exponents[0], 0.41922, atol=max(4 * s.stderr[0], 1e-3))
    assert_allclose(s.exponents.sum(), np.log(B), atol=1e-10)


def test_threads_and_batches_change_no_bit(henon):
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (7, 2))
    one, two = (pl.lyapunov_spectrum(henon, x, 4000, threads=n) for n in (1, 2))
    for name in ("growth", "state", "frame"):
        assert_array_equal(getattr(one, name), getattr(two, name))
    assert_array_equal(pl.lyapunov_spectrum(henon, x[3], 4000).growth, one.growth[3])


def test_a_run_that_escapes_is_nan_and_alone(henon):
    x = np.array([[0.1, 0.1], [50.0, 0.0], [0.2, 0.1]])
    s = pl.lyapunov_spectrum(henon, x, 50)
    assert_array_equal(s.status, [0, 1, 0])
    assert np.isnan(s.exponents[1]).all()
    assert_array_equal(pl.lyapunov_spectrum(henon, x[2], 50).growth, s.growth[2])


def test_it_can_be_pickled_and_names_itself(henon):
    again = pickle.loads(pickle.dumps(henon))
    assert repr(again) == repr(henon)
    assert repr(henon).startswith("DiscreteMap(henon_step")
    assert repr(henon).endswith(", n=2, compiled=True)")
    x = np.array([0.1, 0.1])
    assert_array_equal(again.step(x), henon.step(x))


BAD = {
    "a list": (lambda x: [x[0], x[1]], henon_jacobian, TypeError, "step must return an array"),
    "three entries": (lambda x: (x[0], x[1], 0.0), henon_jacobian, TypeError, "tuple of numbers"),
    "a row short": (henon_step, lambda x: ((1.0, 0.0),), TypeError, "tuple of tuples of numbers"),
    "a vector": (henon_step, henon_step, TypeError, "jacobian must return an array of float64"),
    "no numbers": (lambda x: undefined(x), henon_jacobian, ValueError, "step must be a function"),  # noqa: F821
    "whole": (lambda x: np.array([1, 2]), henon_jacobian, TypeError, "step must return an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compiled_is_said_at_once(case):
    step, jacobian, error, message = BAD[case]
    with pytest.raises(error, match=message):
        pl.DiscreteMap(step, jacobian, 2, compiled=True)


def test_a_wrong_length_is_said_before_the_work(henon):
    short = pl.DiscreteMap(lambda x: x[:1].copy(), henon_jacobian, 2, compiled=True)
    with pytest.raises(ValueError, match="step must return shape"):
        pl.lyapunov_spectrum(short, [0.1, 0.1], 10**9, record_every=10**9)


def test_functions_that_work_in_place():
    def step(x):
        x[0], x[1] = 1 - A * x[0] ** 2 + x[1], B * x[0]
        return x

    def jacobian(x):
        x *= -2 * A
        return (x[0], 1.0), (B, 0.0)

    mine = pl.DiscreteMap(step, jacobian, 2, compiled=True)
    plain = pl.DiscreteMap(henon_step, henon_jacobian, 2, compiled=True)
    x = np.random.default_rng(1).uniform(-0.1, 0.1, (3, 2))
    a, b = (pl.lyapunov_spectrum(system, x, 20) for system in (mine, plain))
    assert_allclose(a.growth, b.growth, atol=1e-9)
    assert_allclose(mine.trajectory(x, 20)[:, -1], a.state, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_larger_map_in_lanes_and_its_rounding(k):
    # a coupled map lattice, against the same functions called from Python
    def step(x):
        y = 1 - 1.7 * x**2
        return 0.9 * y + 0.05 * (np.roll(y, 1) + np.roll(y, -1))

    def jacobian(x):
        n = x.size
        J = np.zeros((n, n))
        for i in range(n):
            for j, weight in ((i - 1, 0.05), (i, 0.9), ((i + 1) % n, 0.05)):
                J[i, j] -= 3.4 * weight * x[j]
        return J

    compiled = pl.DiscreteMap(step, jacobian, 5, compiled=True)
    python = pl.DiscreteMap(step, jacobian, 5)
    x = np.random.default_rng(2).uniform(0, 0.5, (11, 5))
    a, b = (pl.lyapunov_spectrum(s, x, 12, k, qr_every=3) for s in (compiled, python))
    assert_allclose(a.growth, b.growth, atol=1e-9)
    c, d = (pl.covariant_lyapunov_vectors(s, x, 12, k, 8, 8) for s in (compiled, python))
    assert_allclose(c.growth, d.growth, atol=1e-6)
    assert_array_equal(
        pl.covariant_lyapunov_vectors(compiled, x[9], 12, k, 8, 8).vectors, c.vectors[9]
    )
