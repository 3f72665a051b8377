"""Bundled data sets, and readers of local files. Nothing is downloaded."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap._checks import Floats, array, describe, integer, memory, seed_sequence
from pylyap._checks import Seed as Seed
from pylyap._errors import ArgumentError
from pylyap._extras import require
from pylyap._readers.images import hasy, idx, mnist
from pylyap._readers.tables import table

__all__ = ["digits", "hasy", "idx", "iris", "mnist", "quadratic", "split", "table"]

Labels: TypeAlias = NDArray[np.int64]


def iris() -> tuple[Floats, Labels]:
    """Load Fisher's iris data, four lengths of 150 flowers, 50 of each of 3 species.

    Returns
    -------
    X : ndarray, shape (150, 4), float64
        Sepal length, sepal width, petal length and petal width in cm, not scaled.
    y : ndarray, shape (150,), int64
        Species: 0 setosa, 1 versicolor, 2 virginica, in this order.

    Notes
    -----
    Both arrays are new copies. Rows 35 and 38 are as printed by Fisher; the copy in the UCI
    repository differs.

    References
    ----------
    R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7,
    179 (1936).

    Examples
    --------
    >>> X, y = pl.datasets.iris()
    >>> X.shape, np.bincount(y).tolist()
    ((150, 4), [50, 50, 50])
    """
    X, y = _iris()
    return X.copy(), y.copy()


def quadratic(n: int = 100, seed: Seed = 0) -> tuple[Floats, Floats]:
    """Draw a regression task with a quadratic relation, y = x1² + x2² on random points of a square.

    Parameters
    ----------
    n : int, default 100
        Number of points, at least 1.
    seed : int, SeedSequence or Generator, default 0
        Seed of the points. From a Generator one int is drawn.

    Returns
    -------
    X : ndarray, shape (n, 2), float64
        Points, uniform on (−1, 1)². The first points do not depend on `n`.
    y : ndarray, shape (n,), float64
        Values in [0, 2].

    Raises
    ------
    ArgumentError
        If `n` is below 1 or the points do not fit in memory, or `seed` is negative.

    References
    ----------
    Sharafi, Martin, Hallerberg, Weight dynamics of learning networks, Phys. Rev. E 111, 054208
    (2025), uses data of this kind. The number of points and the square are assumptions of pylyap.

    Examples
    --------
    >>> X, y = pl.datasets.quadratic(200, seed=1)
    >>> X.shape, y.shape
    ((200, 2), (200,))
    """
    shape = (integer("n", n, least=1), 2)
    memory(f"n={n} points", 24.0 * shape[0], "take fewer points")
    X = np.random.default_rng(seed_sequence(seed)).uniform(-1.0, 1.0, shape)
    return X, (X**2).sum(axis=1)


def digits() -> tuple[Floats, Labels]:
    """Load scikit-learn's 1797 handwritten digits of 8 x 8 grey values.

    Returns
    -------
    X : ndarray, shape (1797, 64), float64
        Grey values in [0, 1], multiples of 1/16, row by row of the image.
    y : ndarray, shape (1797,), int64
        Digits 0 … 9.

    Raises
    ------
    ImportError
        If scikit-learn is not installed; the message names the command that installs it.

    References
    ----------
    Alpaydin, Kaynak, Optical recognition of handwritten digits, UCI repository (1998), test set.

    Examples
    --------
    >>> X, y = pl.datasets.digits()
    >>> X.shape, int(y.max())
    ((1797, 64), 9)
    """
    require("sklearn", extra=None, for_="digits")
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return np.asarray(X, dtype=np.float64) / 16, np.asarray(y, dtype=np.int64)


def split(
    X: ArrayLike, y: ArrayLike, n_first: int, seed: Seed = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shuffle the samples and divide them into the first `n_first` and the rest.

    Parameters
    ----------
    X : array_like, shape (N, ...)
        Samples. Their dtype is kept.
    y : array_like, shape (N,) or (N, k)
        Labels or target values of the samples.
    n_first : int
        Number of samples of the first part, 1 … N − 1.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutation, which depends on the seed and N only: a larger `n_first` adds
        samples to the first part. From a Generator one int is drawn.

    Returns
    -------
    X1 : ndarray, shape (n_first, ...)
        Samples of the first part, a copy.
    y1 : ndarray, shape (n_first,) or (n_first, k)
        Labels or values of the first part, a copy.
    X2 : ndarray, shape (N - n_first, ...)
        Samples of the second part, a copy.
    y2 : ndarray, shape (N - n_first,) or (N - n_first, k)
        Labels or values of the second part, a copy.

    Raises
    ------
    ArgumentError
        If there are fewer than 2 samples, `X` and `y` have different lengths, `y` has more than two
        axes, an array is masked or not rectangular, `n_first` is out of range, or `seed` is
        negative.

    Examples
    --------
    >>> X, y = pl.datasets.iris()
    >>> X_train, y_train, X_test, y_test = pl.datasets.split(X, y, 120)
    >>> X_train.shape, X_test.shape
    ((120, 4), (30, 4))
    """
    samples, values = _rows("X", X), _rows("y", y)
    if values.ndim > 2:
        raise ArgumentError("y", f"must have shape (N,) or (N, k), got {values.shape}")
    if len(samples) != len(values):
        raise ArgumentError(
            "y", f"must have as many rows as X, which has {len(samples)}, got {len(values)}"
        )
    if len(samples) < 2:
        raise ArgumentError("X", f"must have at least 2 rows to be split, got {len(samples)}")
    first = integer("n_first", n_first, least=1, most=len(samples) - 1)
    order = np.random.default_rng(seed_sequence(seed)).permutation(len(samples))
    one, two = order[:first], order[first:]
    return samples[one], values[one], samples[two], values[two]


def _rows(name: str, value: ArrayLike) -> NDArray[Any]:
    found = array(name, value)
    if found.ndim == 0:
        raise ArgumentError(name, f"must have one row per sample, got {describe(value)}")
    return found


@cache
def _iris() -> tuple[Floats, Labels]:
    species = {"setosa": 0, "versicolor": 1, "virginica": 2}
    rows = files("pylyap").joinpath("data/iris.csv").read_text("utf-8").splitlines()[1:]
    table = [row.split(",") for row in rows]
    X = np.array([row[:4] for row in table], dtype=np.float64)
    return X, np.array([species[row[4]] for row in table], dtype=np.int64)
