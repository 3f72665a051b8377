"""Results of the experiments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._tangent.subspaces import SubspaceOverlap

if TYPE_CHECKING:
    from pylyap.papers.training_jacobian2024.task import Task

Floats = NDArray[np.float64]

WIDTH = 0.01  # of the bulk: |ln σ|, an assumption
REGIONS = ("chaotic", "bulk", "stable")


class Jacobian(NamedTuple):
    """Singular values of the training Jacobian of the parameters, and its right vectors.

    Attributes
    ----------
    start, final : ndarray, shape (n_params,)
        Weights before and after training.
    logs, error : ndarray, shape (n_params,)
        Logarithms of the singular values, in descending order, and their relative errors.
    cosines : ndarray, shape (n_params,)
        Inner products of each left with its right singular vector.
    right : ndarray, shape (n_params, n_params)
        Right singular vectors in the columns.
    """

    start: Floats
    final: Floats
    logs: Floats
    error: Floats
    cosines: Floats
    right: Floats

    def chosen(self, region: str) -> NDArray[np.bool_]:
        """Mask (n_params,) of the singular values of a region."""
        masks = {
            "chaotic": self.logs > WIDTH,
            "bulk": np.abs(self.logs) <= WIDTH,
            "stable": self.logs < -WIDTH,
        }
        return masks[region]

    def vectors(self, region: str) -> Floats:
        """Right singular vectors (n_params, k) of a region."""
        return self.right[:, self.chosen(region)]


@dataclass(frozen=True, eq=False)
class Reference:
    """The training Jacobian of the reference run.

    Attributes
    ----------
    task : Task
        Data and settings.
    jacobian : Jacobian
        Singular values and right vectors.
    test_loss : float
        Loss of the test images after training.
    accuracy : float
        Fraction of the test images that are classified correctly.
    """

    task: Task
    jacobian: Jacobian
    test_loss: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Overlaps of the three regions of another run with those of the reference.

    Attributes
    ----------
    name : str
        What differs.
    jacobian : Jacobian
        Jacobian of the other run.
    overlaps : dict of SubspaceOverlap
        Overlap by region; of the right singular vectors.
    """

    name: str
    jacobian: Jacobian
    overlaps: dict[str, SubspaceOverlap]


@dataclass(frozen=True, eq=False)
class Restricted:
    """Final losses of trainings that are restricted to a subspace.

    Attributes
    ----------
    task : Task
        Data and settings.
    dimensions : ndarray of int, shape (d,)
        Dimensions of the subspaces.
    losses : dict of ndarray, shape (d,)
        Test loss after training in each subspace: ``"bulk"``, the singular values closest to 1,
        ``"complement"``, those farthest from it, ``"chaotic"``, the largest, ``"stable"``, the
        smallest.
    before, unrestricted : float
        Test loss before training, and after training in all directions.
    """

    task: Task
    dimensions: NDArray[np.int64]
    losses: dict[str, Floats]
    before: float
    unrestricted: float
