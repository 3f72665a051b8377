"""Orthonormalisation of a few long vectors by their Gram matrix."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pylyap._native import core


def frame(n, k, condition):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.normal(size=(n, k)))[0]
    rotation = np.linalg.qr(rng.normal(size=(k, k)))[0]
    return Q * np.geomspace(1.0, 1.0 / condition, k) @ rotation


@pytest.mark.parametrize("condition", [1.0, 30.0, 1e4, 1e9])
@pytest.mark.parametrize(("n", "k"), [(4096, 2), (5003, 10), (4500, 64)])
def test_the_factors_are_those_of_householder(n, k, condition):
    A = frame(n, k, condition)
    q, norms, R = core.orthonormalise(A, None)
    expected = np.linalg.qr(A)[1]
    expected *= np.sign(np.diag(expected))[:, None]
    assert_allclose(q.T @ q, np.eye(k), atol=1e-14)
    assert_allclose(q @ R, A, atol=1e-14 * np.linalg.norm(A, 2))
    assert_allclose(R, expected, atol=1e-14 * np.linalg.norm(A, 2))
    assert_allclose(norms, np.diag(expected), rtol=1e-15 * condition + 1e-14)
    assert np.array_equal(np.diag(R), norms)
    assert np.array_equal(np.tril(R, -1), np.zeros((k, k)))


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e9])
def test_bits_do_not_depend_on_threads_or_layout(condition):
    A = frame(5003, 10, condition)
    q, norms, R = core.orthonormalise(A, None)
    for workers in (1, 2, 3, 64):
        rows = np.ascontiguousarray(A.T)
        diagonal, whole = core.orthonormalise_rows(rows, workers)
        assert np.array_equal(rows, q.T)
        assert np.array_equal(diagonal, norms)
        assert np.array_equal(whole, R)


def test_lengths_and_dependent_vectors():
    A = frame(5003, 5, 30.0)
    scaled = A * np.array([1e-200, 1e200, 1.0, 1e-30, 1e30])
    _, norms, _ = core.orthonormalise(A, None)
    _, scaled_norms, _ = core.orthonormalise(scaled, None)
    assert_allclose(scaled_norms, norms * [1e-200, 1e200, 1.0, 1e-30, 1e30], rtol=1e-12)
    A[:, 3] = A[:, 0] + A[:, 1]
    q, norms, _ = core.orthonormalise(A, None)
    assert norms[3] == 0.0
    assert_allclose(q.T @ q, np.eye(5), atol=1e-14)
    A[7, 2] = np.nan
    assert np.isnan(core.orthonormalise(A, None)[1][2:]).all()
    # Terms of the size of `scale` cancelled: what is left is rounding.
    _, norms, _ = core.orthonormalise(frame(5003, 5, 1.0), np.full(5, 1e20))
    assert (norms == 0.0).all()
