"""Results of sharpness and Hessian spectra."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pylyap._batches import BatchResult
from pylyap._checks import Floats

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Sharpness(BatchResult):
    """Largest eigenvalue of the Hessian, or another kind of sharpness, at a batch of states.

    `sharpness`, `batch_sharpness` and `sharpness_along` return it.

    Attributes
    ----------
    value : ndarray, shape (...)
        The sharpness of the given kind; for eigenvalues the largest (algebraic) one, a lower bound
        up to rounding. nan for states that are nan or whose Hessian overflows.
    ratio : ndarray, shape (...)
        Sharpness relative to the stability threshold of the optimiser; 1 is the edge of stability.
        For plain gradient descent lr·λ/2: `value` plus the weight decay, divided by the curvature
        above which a step on a parabola is unstable. nan where no threshold is known: the Hessian's
        own eigenvalue and batch sharpness for Adam, and a map without an ``optimizer`` that the
        package knows (except for kind ``"critical"``). A schedule of the learning rate is included
        only by `sharpness_along`, and for kind ``"critical"``.
    vector : ndarray, shape (..., n_params), or None
        Eigenvector of `value`, or direction of the curvature, of unit length. None for kinds
        ``"batch"`` and ``"critical"``.
    residual : ndarray, shape (...)
        ‖H v − λ v‖, an upper bound on the distance of `value` to an eigenvalue; with a
        preconditioner in the norm of the P-inner product. nan for kinds ``"batch"`` and
        ``"critical"``.
    n_products : ndarray of int, shape (...)
        Number of Hessian–vector products; of losses for kind ``"critical"``.
    missed : ndarray, shape (...)
        Significance level (p-value) at which larger eigenvalues are excluded: if an eigenvalue
        exceeds `value` + δ, the probability over the random start vector of a value of p or less is
        at most p. δ is max(tol, 1e-8) times the largest absolute eigenvalue found. 0 if the Krylov
        space is exhausted; above 1e-6 only if `max_products` was too small. nan for kinds that are
        no eigenvalues.
    loss : ndarray, shape (..., n_times), or None
        Mean loss of the whole data at each time; of `sharpness_along` only.
    steps : ndarray of int, shape (n_times,), or None
        Index of the step of each time; of `sharpness_along` only.
    threshold : ndarray, shape (..., n_times), or None
        Sharpness above which a step on a parabola is unstable: 2/lr for plain gradient descent
        without weight decay; a schedule is included. nan where `ratio` is for lack of a threshold.
        Of `sharpness_along` only.
    kind : str
        Kind of sharpness: see `sharpness`.
    stderr : ndarray, shape (...), or None
        Standard error of the mean over minibatches; of kind ``"batch"`` only.
    upper_threshold : ndarray, shape (..., n_times), or None
        Threshold in the limit of large batches, 2(1 + β)/lr with the heavy ball, where `threshold`
        is that of small ones, 2(1 − β)/lr; of `sharpness_along` with kind ``"batch"`` only.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> found = pl.sharpness(system, net.init(runs=4, seed=0))
    >>> np.allclose(found.ratio, 0.1 * found.value / 2)
    True
    """

    value: Floats
    ratio: Floats
    vector: Floats | None = field(repr=False)
    residual: Floats = field(repr=False)
    n_products: Integers = field(repr=False)
    missed: Floats = field(repr=False)
    loss: Floats | None = field(repr=False, default=None)
    steps: Integers | None = field(repr=False, default=None)
    threshold: Floats | None = field(repr=False, default=None)
    kind: str = "hessian"
    stderr: Floats | None = field(repr=False, default=None)
    upper_threshold: Floats | None = field(repr=False, default=None)

    _INDEX: ClassVar[dict[str, str]] = {"steps": "time"}
    _UNITS: ClassVar[dict[str, str]] = {"steps": "steps"}

    @property
    def _MORE(self) -> dict[str, tuple[str, ...]]:  # type: ignore[override]
        time = () if self.steps is None else ("time",)
        names = ("value", "ratio", "residual", "n_products", "missed", "loss", "threshold")
        return dict.fromkeys((*names, "stderr", "upper_threshold"), time) | {
            "vector": (*time, "parameter")
        }

    @property
    def _batch(self) -> tuple[int, ...]:
        batch = np.shape(self.value)
        return batch if self.steps is None else batch[:-1]


@dataclass(frozen=True, eq=False, repr=False)
class HessianSpectrum(BatchResult):
    """All eigenvalues of the Hessian of the mean loss at a batch of states.

    `hessian_spectrum` returns it.

    Attributes
    ----------
    eigenvalues : ndarray, shape (..., n_params)
        Eigenvalues in descending order; nan for states that are nan.
    ratio : ndarray, shape (...)
        Largest eigenvalue relative to the stability threshold, as in `Sharpness`; nan for Adam
        and with factors of the layers, whose thresholds are for the preconditioned Hessian.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.GradientDescent(lr=0.1))
    >>> spectrum = pl.hessian_spectrum(system, net.init(runs=4, seed=0))
    >>> spectrum.negative.shape
    (4,)
    """

    eigenvalues: Floats
    ratio: Floats

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = {"eigenvalues": ("eigenvalue",)}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.eigenvalues.shape[:-1]

    @cached_property
    def negative(self) -> Floats:
        """Fraction of eigenvalues below zero by more than the rounding of the largest, (...)."""
        scale = np.abs(self.eigenvalues).max(axis=-1, keepdims=True)
        n = self.eigenvalues.shape[-1]
        negative = self.eigenvalues < -n * np.finfo(float).eps * scale
        result: Floats = np.where(np.isnan(scale[..., 0]), np.nan, negative.mean(axis=-1))
        return result
