"""Data that come with the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ._checks import integer, seed_sequence

__all__ = ["iris", "quadratic"]

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
    X = np.random.default_rng(seed_sequence(seed)).uniform(-1.0, 1.0, shape)
    return X, (X**2).sum(axis=1)


@cache
def _iris() -> tuple[Floats, Labels]:
    species = {"setosa": 0, "versicolor": 1, "virginica": 2}
    rows = files("pylyap").joinpath("data/iris.csv").read_text("utf-8").splitlines()[1:]
    table = [row.split(",") for row in rows]
    X = np.array([row[:4] for row in table], dtype=np.float64)
    return X, np.array([species[row[4]] for row in table], dtype=np.int64)
