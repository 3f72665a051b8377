"""Where runs end: Hessian, idle units, and the law that exponents follow there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pylyap._tangent.sharpness import hessian_spectrum
from pylyap.papers.sharafi2025.definition import WINDOW, Floats, Task
from pylyap.papers.sharafi2025.ensembles import Ensemble, Integers
from pylyap.papers.sharafi2025.indicators import idle_units

_ZERO = 1e-6  # an eigenvalue below it counts as 0; rounding leaves about 1e-16
_RESOLVED = 1e-5  # nats per step: smaller differences count as none
_BEFORE = 500  # steps between the two windows that drift is measured with


@dataclass(frozen=True, eq=False)
class Attractors:
    """The ends of the runs of one ensemble.

    Attributes
    ----------
    ensemble : Ensemble
        The runs.
    eigenvalues : (runs, 13)
        Of the Hessian at the end, in descending order; nan for a run that diverged.
    gradient : (runs,)
        Norm of the gradient at the end.
    rank : (runs,)
        Number of eigenvalues with |h| > 1e-6.
    negative : (runs,)
        Number of eigenvalues below −1e-6.
    idle : (runs,)
        Hidden units that are off (ReLU) or saturated (tanh) on all points.
    full : (runs,)
        Hidden ReLU units that are on for all points, hence linear; 0 for tanh.
    law : (runs, 13)
        ln|1 − lr h|, in descending order, nats per step.
    late : (runs, 13)
        Exponents of the last window of 50 steps, in descending order, nats per step.
    drift : (runs, 13)
        |change of these exponents| since the window 500 steps before, nats per step.
    """

    ensemble: Ensemble
    eigenvalues: Floats = field(repr=False)
    gradient: Floats = field(repr=False)
    rank: Integers = field(repr=False)
    negative: Integers = field(repr=False)
    idle: Integers = field(repr=False)
    full: Integers = field(repr=False)
    law: Floats = field(repr=False)
    late: Floats = field(repr=False)
    drift: Floats = field(repr=False)

    @property
    def difference(self) -> Floats:
        """(runs, 13) |exponent − ln|1 − lr h||, nats per step."""
        result: Floats = np.abs(self.late - self.law)
        return result

    @property
    def within(self) -> float:
        """Fraction of the exponents of all runs that differ by at most the drift, or 1e-5."""
        fine = np.isfinite(self.difference) & np.isfinite(self.drift)
        return float((self.difference <= np.maximum(self.drift, _RESOLVED))[fine].mean())

    @property
    def sum_within(self) -> float:
        """The same of the sum of the exponents, which does not depend on the frame's alignment."""
        with np.errstate(invalid="ignore"):
            difference = np.abs(self.late.sum(axis=-1) - self.law.sum(axis=-1))
        drift = self.drift.sum(axis=-1)
        fine = np.isfinite(difference) & np.isfinite(drift)
        return float((difference <= np.maximum(drift, _RESOLVED))[fine].mean())


def examine_attractors(some: Sequence[Ensemble], task: Task) -> tuple[Attractors, ...]:
    """Examine the last states of all runs.

    Parameters
    ----------
    some : sequence of Ensemble
        Result of `run_ensembles`.
    task : Task
        Not used beyond the signature that all experiments share.

    Returns
    -------
    tuple of Attractors
        One for each ensemble.
    """
    return tuple(_attractor(ensemble) for ensemble in some)


def _attractor(ensemble: Ensemble) -> Attractors:
    system, state = ensemble.system, ensemble.state
    eigenvalues = hessian_spectrum(system, state).eigenvalues
    with np.errstate(divide="ignore"):
        law = np.log(np.abs(1.0 - ensemble.kind.lr * eigenvalues))
    rates = ensemble.growth / WINDOW
    late = _descending(rates[:, -1])
    before = _descending(rates[:, max(-1 - _BEFORE // WINDOW, -rates.shape[1])])
    with np.errstate(invalid="ignore"):  # −inf − −inf of destroyed directions
        drift = np.abs(late - before)
    return Attractors(
        ensemble=ensemble,
        eigenvalues=eigenvalues,
        gradient=np.linalg.norm(system.gradient(state), axis=-1),
        rank=(np.abs(eigenvalues) > _ZERO).sum(axis=-1),
        negative=(eigenvalues < -_ZERO).sum(axis=-1),
        idle=idle_units(system, state).astype(np.int64),
        full=_full_units(ensemble),
        law=_descending(law),
        late=late,
        drift=drift,
    )


def _descending(values: Floats) -> Floats:
    result: Floats = np.sort(values, axis=-1)[..., ::-1]
    return result


def _full_units(ensemble: Ensemble) -> Integers:
    if ensemble.activation != "relu":
        return np.zeros(ensemble.runs, np.int64)
    (W, b), _ = ensemble.system.network.unpack(ensemble.state)
    z = ensemble.system.X @ np.swapaxes(W, -1, -2) + b[:, np.newaxis]
    count: Integers = (z > 0.0).all(axis=1).sum(axis=-1)
    return count
