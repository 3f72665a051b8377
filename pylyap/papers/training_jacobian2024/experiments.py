"""Experiments of the study, at the published sizes by default."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pylyap._errors import ArgumentError
from pylyap._projected_map import ProjectedMap
from pylyap._tangent.subspaces import subspace_overlap
from pylyap.papers.training_jacobian2024.results import (
    REGIONS,
    Jacobian,
    Overlaps,
    Reference,
    Restricted,
)
from pylyap.papers.training_jacobian2024.task import Integers, Task


def spectrum(task: Task) -> Reference:
    """Compute all singular values of the training Jacobian of the reference run.

    Parameters
    ----------
    task : Task
        Data and settings.

    Returns
    -------
    Reference
        Singular values, right vectors and test loss.
    """
    jacobian = task.jacobian("reference", task.start())
    accuracy = task.network.accuracy(jacobian.final, task.digits[2], task.digits[3])
    return Reference(task, jacobian, float(task.test_loss(jacobian.final)), float(accuracy))


def seeds(reference: Reference, task: Task) -> Overlaps:
    """Compare with a run from other initial weights.

    Parameters
    ----------
    reference : Reference
        Result of `spectrum`.
    task : Task
        Data and settings.

    Returns
    -------
    Overlaps
        Overlaps of the three regions.
    """
    other = task.jacobian("seed", task.start(task.seed + 1))
    return _overlaps("other initial weights", reference, other)


def orders(reference: Reference, task: Task) -> Overlaps:
    """Compare with a run from the same weights that sees the images in another order.

    Parameters
    ----------
    reference : Reference
        Result of `spectrum`.
    task : Task
        Data and settings.

    Returns
    -------
    Overlaps
        Overlaps of the three regions.
    """
    other = task.jacobian("order", task.start(), order=task.seed)
    return _overlaps("other order of the images", reference, other)


def labels(reference: Reference, task: Task) -> Overlaps:
    """Compare with a run from the same weights that learns permuted labels.

    Parameters
    ----------
    reference : Reference
        Result of `spectrum`.
    task : Task
        Data and settings.

    Returns
    -------
    Overlaps
        Overlaps of the three regions.
    """
    other = task.jacobian("labels", task.start(), labels=task.seed)
    return _overlaps("permuted labels", reference, other)


def _overlaps(name: str, reference: Reference, other: Jacobian) -> Overlaps:
    found = {}
    for region in REGIONS:
        first, second = reference.jacobian.vectors(region), other.vectors(region)
        if first.size and second.size:
            found[region] = subspace_overlap(first, second)
    return Overlaps(name, other, found)


def restricted(
    reference: Reference,
    task: Task,
    *,
    fractions: Sequence[float] = (0.02, 0.06, 0.12, 0.25, 0.5, 0.75, 0.94),
) -> Restricted:
    """Train the reference run in subspaces of its right singular vectors only.

    Parameters
    ----------
    reference : Reference
        Result of `spectrum`.
    task : Task
        Data and settings.
    fractions : sequence of float
        Dimensions of the subspaces as fractions of the number of parameters n, 1 to n − 1.

    Returns
    -------
    Restricted
        Test loss after each training.

    Raises
    ------
    ArgumentError
        If a fraction is not between 0 and 1.
    """
    jacobian, n = reference.jacobian, len(reference.jacobian.logs)
    if not fractions or not all(0.0 < fraction < 1.0 for fraction in fractions):
        raise ArgumentError("fractions", f"must be between 0 and 1, got {list(fractions)}")
    dimensions = np.clip(np.round(n * np.array(fractions)).astype(np.int64), 1, n - 1)
    by_distance = np.argsort(np.abs(jacobian.logs), kind="stable")
    orders = {
        "bulk": by_distance,
        "complement": by_distance[::-1],
        "chaotic": np.arange(n),
        "stable": np.arange(n)[::-1],
    }
    losses = {
        kind: np.array([_trained_in(task, jacobian, places, k) for k in dimensions])
        for kind, places in orders.items()
    }
    return Restricted(
        task=task,
        dimensions=dimensions,
        losses=losses,
        before=float(task.test_loss(jacobian.start)),
        unrestricted=reference.test_loss,
    )


def _trained_in(task: Task, jacobian: Jacobian, places: Integers, k: int) -> float:
    """Test loss after training in the first k of these directions, with the smaller product."""
    exclude = 2 * k > len(places)
    basis = jacobian.right[:, places[k:] if exclude else places[:k]]
    projected = ProjectedMap(task.system(), basis, exclude)
    path = projected.trajectory(jacobian.start, task.n_steps, every=task.n_steps)
    return float(task.test_loss(path[-1, : len(jacobian.start)]))
