"""Principal angles between subspaces, and their overlap compared with random ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._errors import ArgumentError

# Columns are dependent if a diagonal entry of R is below this times their norm: rounding errors
# then determine a direction of the subspace to six digits at most.
_DEPENDENT = 1e-10


@dataclass(frozen=True, eq=False, repr=False)
class SubspaceOverlap(BatchResult):
    """Overlap of two subspaces of dimensions k and l.

    `subspace_overlap` returns it.

    Attributes
    ----------
    angles : ndarray, shape (..., min(k, l))
        Principal angles in radians, smallest first.
    overlap : ndarray, shape (...)
        Mean squared cosine of the principal angles: 1 if one subspace contains the other, 0 if they
        are orthogonal.
    expected : float
        Mean of `overlap` over random subspaces of these dimensions, max(k, l)/n.
    spread : float
        Its standard deviation over random subspaces.
    dims : tuple of str
        Names of the batch axes.
    coords : dict of ndarray
        Empty: the vectors have no settings.

    Examples
    --------
    >>> plane, line = np.eye(4)[:, :2], np.eye(4)[:, :1]
    >>> found = pl.subspace_overlap(plane, line)
    >>> float(found.overlap), found.expected
    (1.0, 0.5)
    """

    angles: Floats
    overlap: Floats
    expected: float
    spread: float

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {"angles": ("angle",)}
    _UNITS: ClassVar[dict[str, str]] = {"angles": "radians"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.angles.shape[:-1]


def subspace_overlap(U: ArrayLike, V: ArrayLike) -> SubspaceOverlap:
    """Principal angles and overlap of two subspaces, with the value of random subspaces.

    Parameters
    ----------
    U : array_like, shape (..., n, k)
        Vectors in the columns that span the first subspace. They are orthonormalised.
    V : array_like, shape (..., n, l)
        Vectors that span the second. The batches broadcast against each other.

    Returns
    -------
    SubspaceOverlap
        Angles, their mean squared cosine, and its mean and standard deviation for random subspaces.

    Raises
    ------
    ArgumentError
        If the lengths of the vectors differ, columns are dependent or values are not finite.

    See Also
    --------
    training_jacobian : Its singular vectors span the subspaces of three regions.

    Notes
    -----
    The cosines of the principal angles are the singular values of UᵀV. Angles below π/4 are
    computed from their sines, so that small ones are accurate. For uniformly distributed random
    subspaces ‖UᵀV‖² has the mean k l/n and the variance
    2 k l (n − k)(n − l)/(n² (n − 1)(n + 2)); large subspaces overlap much by chance.

    References
    ----------
    Björck, Golub, Math. Comp. 27, 579 (1973).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> U, V = rng.normal(size=(2, 200, 50))
    >>> found = pl.subspace_overlap(U, V)
    >>> found.expected, bool(abs(found.overlap - found.expected) < 4 * found.spread)
    (0.25, True)
    """
    first, second = _vectors("U", U), _vectors("V", V)
    n, k, others = first.shape[-2], first.shape[-1], second.shape[-1]
    if second.shape[-2] != n:
        raise ArgumentError(
            "V", f"must have vectors of length {n} as U, shape (..., {n}, l), got {second.shape}"
        )
    try:
        np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    except ValueError:
        raise ArgumentError(
            "V", f"must broadcast against U of batch shape {first.shape[:-2]}, got {second.shape}"
        ) from None
    angles = principal_angles(_orthonormal("U", first), _orthonormal("V", second))
    less, more = min(k, others), max(k, others)
    variance = 2.0 * k * others * (n - k) * (n - others) / (n**2 * max(n - 1, 1) * (n + 2.0))
    overlap: Floats = (np.cos(angles) ** 2).mean(axis=-1)
    return SubspaceOverlap(angles, overlap, more / n, math.sqrt(variance) / less)


def principal_angles(A: Floats, B: Floats) -> Floats:
    """Angles (..., min(k, l)) between the spans of orthonormal columns, smallest first."""
    if A.shape[-1] < B.shape[-1]:
        A, B = B, A
    inner = np.swapaxes(A, -1, -2) @ B
    cosines = np.clip(np.linalg.svd(inner, compute_uv=False), 0.0, 1.0)
    sines = np.clip(np.linalg.svd(B - A @ inner, compute_uv=False)[..., ::-1], 0.0, 1.0)
    result: Floats = np.where(cosines > np.sqrt(0.5), np.arcsin(sines), np.arccos(cosines))
    return result


def _vectors(name: str, value: ArrayLike) -> Floats:
    found = _checks.floats(name, value)
    if found.ndim < 2 or not 1 <= found.shape[-1] <= found.shape[-2]:
        raise ArgumentError(
            name, f"must have shape (..., n, k) with 1 <= k <= n, got {found.shape}"
        )
    return found


def _orthonormal(name: str, vectors: Floats) -> Floats:
    sizes = np.abs(vectors).max(axis=-2, keepdims=True)  # of columns, which may be any
    Q, R = np.linalg.qr(vectors / np.where(sizes > 0.0, sizes, 1.0))
    left = np.abs(np.diagonal(R, axis1=-2, axis2=-1))
    dependent = left <= _DEPENDENT * np.linalg.norm(R, axis=-2)
    if dependent.any():
        column = int(np.argwhere(dependent)[0][-1])
        raise ArgumentError(
            name, f"must have independent columns, column {column} depends on those before it"
        )
    return Q
