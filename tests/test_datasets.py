"""The embedded data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core


def test_iris_is_fishers_table():
    X, y = pl.datasets.iris()
    assert X.shape == (150, 4)
    assert X.dtype == np.float64
    assert y.dtype == np.int64
    assert_array_equal(np.bincount(y), [50, 50, 50])
    assert_array_equal(X[0], [5.1, 3.5, 1.4, 0.2])
    assert_array_equal(X[-1], [5.9, 3.0, 5.1, 1.8])
    # Fisher (1936), Table 2: the means of the species
    assert_allclose(X[y == 0].mean(axis=0), [5.006, 3.428, 1.462, 0.246], rtol=1e-12)
    assert_allclose(X[y == 1].mean(axis=0), [5.936, 2.770, 4.260, 1.326], rtol=1e-12)
    assert_allclose(X[y == 2].mean(axis=0), [6.588, 2.974, 5.552, 2.026], rtol=1e-12)
    # rows 35 and 38 as printed, not as in a common copy
    assert_array_equal(X[34], [4.9, 3.1, 1.5, 0.2])
    assert_array_equal(X[37], [4.9, 3.6, 1.4, 0.1])


def test_writing_to_iris_spoils_no_later_copy():
    X, y = pl.datasets.iris()
    X[:] = 0
    y[:] = 0
    again, labels = pl.datasets.iris()
    assert again[0, 0] == 5.1
    assert labels[-1] == 2


def test_the_quadratic_task_is_the_sum_of_squares_on_a_square():
    X, y = pl.datasets.quadratic(500, seed=3)
    assert X.shape == (500, 2)
    assert y.shape == (500,)
    assert np.abs(X).max() <= 1
    assert_allclose(y, X[:, 0] ** 2 + X[:, 1] ** 2, rtol=1e-15)
    # uniform: variance 1/3 ± 0.3/√1000, both quadrants of each axis in use
    assert_allclose((X**2).mean(), 1 / 3, atol=0.04)
    assert_allclose(X.mean(), 0, atol=0.08)


def test_quadratic_data_are_a_function_of_the_seed():
    assert pl.datasets.quadratic()[0].shape == (100, 2)
    assert_array_equal(pl.datasets.quadratic(50, seed=1)[0], pl.datasets.quadratic(50, seed=1)[0])
    assert (pl.datasets.quadratic(50, seed=1)[0] != pl.datasets.quadratic(50, seed=2)[0]).all()


@pytest.mark.parametrize("n", [0, -1, 1.5, "many", None])
def test_a_bad_number_of_points_is_refused(n):
    with pytest.raises((ValueError, TypeError), match=r"\bn\b") as caught:
        pl.datasets.quadratic(n)
    assert str(n) in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises((ValueError, TypeError), match=r"\bseed\b"):
        pl.datasets.quadratic(10, seed=seed)
