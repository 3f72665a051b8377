"""Results of the experiments."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pylyap._perturbations.ensembles import Ensemble
from pylyap._perturbations.series import Autocorrelation, ExpansionRates
from pylyap._tangent.exponents import Spectrum
from pylyap._weights.travel import Travel
from pylyap.papers.danovski2024.task import Floats, Integers, Task
from pylyap.regimes import LearningRateScan


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Runs and copies of them with perturbed initial weights.

    Attributes
    ----------
    task : Task
        Data and network.
    lr : float
        Learning rate.
    eps : ndarray, shape (n_eps,)
        Perturbation sizes: the perturbation of each weight is uniform in [-eps, eps].
    ensemble : Ensemble
        L1 distances (runs, n_eps, copies, T + 1) over all parameters.
    """

    task: Task
    lr: float
    eps: Floats
    ensemble: Ensemble = field(repr=False)

    @property
    def steps(self) -> Integers:
        """Steps (T + 1,) of the records."""
        return self.ensemble.steps

    @cached_property
    def loss(self) -> Floats:
        """Loss (runs, T + 1) of the reference runs."""
        assert self.ensemble.losses is not None
        loss: Floats = self.ensemble.losses[:, 0, 0]
        return loss

    @cached_property
    def mean(self) -> Floats:
        """Mean distance (runs, n_eps, T + 1) of the copies from their reference run."""
        return self.ensemble.mean

    @cached_property
    def scaled(self) -> Floats:
        """Scaled mean distance d/(eps N), shape (runs, n_eps, T + 1)."""
        result: Floats = self.mean / (self.eps[:, np.newaxis] * self.task.n_weights)
        return result


@dataclass(frozen=True, eq=False)
class LowRate(Perturbed):
    """Runs at a low learning rate, with perturbed copies.

    Attributes
    ----------
    displacement : ndarray, shape (runs, n_eps, copies)
        Σ|w(T) − w(0)| / Σ|w(0)| of each copy, over the N weights.
    travel : Travel
        Displacements, path lengths and norms of the N weights of the reference runs.
    final : ndarray, shape (runs, 83)
        Final parameters.
    knock_out : ndarray, shape (runs, 10, 4)
        Final loss with one weight of the first layer set to 0, divided by the final loss.
    """

    displacement: Floats = field(repr=False)
    travel: Travel = field(repr=False)
    final: Floats = field(repr=False)
    knock_out: Floats = field(repr=False)


@dataclass(frozen=True, eq=False)
class Trained:
    """Runs at one learning rate.

    Attributes
    ----------
    lr : float
        Learning rate.
    steps : ndarray, shape (T + 1,)
        Steps of the records.
    loss, norm : ndarray, shape (runs, T + 1)
        Loss, and Σ|w| over the N weights.
    scan : LearningRateScan
        Exponents, periods and regimes of the late window, of shape (1, runs).
    output_spread : ndarray, shape (runs,)
        Largest final difference of a predicted probability between two samples.
    units_on : ndarray, shape (runs,)
        Number of hidden units whose final activation exceeds 1/2 for all samples.
    """

    lr: float
    steps: Integers = field(repr=False)
    loss: Floats = field(repr=False)
    norm: Floats = field(repr=False)
    scan: LearningRateScan = field(repr=False)
    output_spread: Floats = field(repr=False)
    units_on: Integers = field(repr=False)

    @property
    def exponent(self) -> Floats:
        """Leading exponents (runs,) of the late window, in nats per step."""
        exponent: Floats = self.scan.exponent[0]
        return exponent


@dataclass(frozen=True, eq=False)
class ChaoticSeries:
    """Time-series analysis of one long run.

    Attributes
    ----------
    lr : float
        Learning rate.
    run : int
        Index of the run, the one with the largest late exponent.
    start : int
        First step of the series that is analysed.
    loss : ndarray, shape (T + 1,)
        Loss at each step.
    names : tuple of str
        For each layer, name of the weight with the largest median step size from `start` on.
    weights : ndarray, shape (2, T + 1)
        Time series of these weights.
    autocorrelation : Autocorrelation
        Autocorrelation of the loss from `start` on.
    published : ExpansionRates
        Expansion rates of the loss by the published rule: no Theiler window, line of largest R².
    corrected : ExpansionRates
        Expansion rates with a Theiler window, lines over ten steps and geometric means.
    theiler : int
        Theiler window in steps.
    tangent : Spectrum
        Leading exponent over the same steps.
    units_on : int
        Number of hidden units whose activation exceeds 1/2 for all samples at the last step.
    reduced : float
        Exponent of `saturated_map` with this number of units, in nats per step.
    """

    lr: float
    run: int
    start: int
    loss: Floats = field(repr=False)
    names: tuple[str, ...]
    weights: Floats = field(repr=False)
    autocorrelation: Autocorrelation = field(repr=False)
    published: ExpansionRates = field(repr=False)
    corrected: ExpansionRates = field(repr=False)
    theiler: int
    tangent: Spectrum = field(repr=False)
    units_on: int
    reduced: float
