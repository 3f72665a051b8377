"""Data: what comes with the package, and readers for what lies in a folder. Nothing downloads."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap._checks import array, describe, integer, memory, seed_sequence
from pylyap._errors import ArgumentError
from pylyap._readers.images import hasy, idx, mnist
from pylyap._readers.tables import table

__all__ = ["digits", "hasy", "idx", "iris", "mnist", "quadratic", "split", "table"]

Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]
Seed: TypeAlias = int | np.random.SeedSequence | np.random.Generator


def iris() -> tuple[Floats, Labels]:
    """Fisher's iris flowers: 4 lengths of 150 flowers, 50 of each of 3 species.

    Returns
    -------
    X : (150, 4) float64 array
        Sepal length, sepal width, petal length and petal width, in cm, not scaled.
    y : (150,) int64 array
        Species: 0 setosa, 1 versicolor, 2 virginica, in this order.

    Both are copies, free to be written to.

    References
    ----------
    R. A. Fisher, The use of multiple measurements in taxonomic problems, Annals of Eugenics 7,
    179 (1936). Rows 35 and 38 are as printed there; the copy in the UCI repository differs.
    """
    X, y = _iris()
    return X.copy(), y.copy()


def quadratic(n: int = 100, seed: Seed = 0) -> tuple[Floats, Floats]:
    """A regression task with a quadratic relation: y = x1² + x2² on random points of a square.

    Parameters
    ----------
    n
        Number of points.
    seed
        An int ≥ 0 or a SeedSequence; of a Generator one int is drawn.

    Returns
    -------
    X : (n, 2) float64 array
        Points, uniform on (−1, 1)². The first of them do not depend on `n`.
    y : (n,) float64 array
        Values, between 0 and 2.

    Raises
    ------
    TypeError
        If `n` is no integer, or `seed` none of the kinds above.
    ValueError
        If `n` < 1 or `seed` < 0.

    References
    ----------
    Sharafi, Martin, Hallerberg, Weight dynamics of learning networks, Phys. Rev. E 111, 054208
    (2025), uses data of this kind; the number of points and the square are our assumption.
    """
    shape = (integer("n", n, least=1), 2)
    memory(f"n={n} points", 24.0 * shape[0], "take fewer")
    X = np.random.default_rng(seed_sequence(seed)).uniform(-1.0, 1.0, shape)
    return X, (X**2).sum(axis=1)


def digits() -> tuple[Floats, Labels]:
    """Scikit-learn's 1797 handwritten digits of 8 x 8 grey values, where it is installed.

    Returns
    -------
    X : (1797, 64) float64 array
        Grey values in [0, 1], multiples of 1/16, row by row of the image.
    y : (1797,) int64 array
        The digits 0 ... 9.

    Raises
    ------
    ImportError
        If scikit-learn is not installed; the message has the command that helps.

    References
    ----------
    Alpaydin, Kaynak, Optical recognition of handwritten digits, UCI repository (1998), its test
    part.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("digits needs scikit-learn: pip install scikit-learn") from None
    X, y = load_digits(return_X_y=True)
    return np.asarray(X, dtype=np.float64) / 16, np.asarray(y, dtype=np.int64)


def split(
    X: ArrayLike, y: ArrayLike, n_first: int, seed: Seed = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Shuffle the samples, then part them: the first `n_first` and the rest.

    Parameters
    ----------
    X : (N, ...) array
        Samples of any dtype, which they keep: bytes stay bytes.
    y : (N,) or (N, k) array
        Labels or values of the same samples.
    n_first
        Number of samples of the first part, 1 ... N - 1.
    seed
        An int ≥ 0 or a SeedSequence; of a Generator one int is drawn. The order depends on it and
        on N alone: a larger `n_first` only adds samples to the first part.

    Returns
    -------
    X1 : (n_first, ...) array
    y1 : (n_first,) or (n_first, k) array
    X2 : (N - n_first, ...) array
    y2 : (N - n_first,) or (N - n_first, k) array
        Copies, free to be written to.

    Raises
    ------
    TypeError
        If `n_first` is no integer, or `seed` none of the kinds above.
    ValueError
        If there are no 2 samples, `X` and `y` have different numbers of them, `y` has more than
        two axes, one is masked or no rectangular array, `n_first` is out of range or `seed` < 0.
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
