"""Growth of finite perturbations beside that of infinitely small ones, along the same runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._perturbations.ensembles import Ensemble, Norm, perturbation_ensemble
from pylyap._perturbations.growth import GrowthRate, growth_rate
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap.maps import TrainingMap

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GrowthComparison:
    """Growth of perturbations of several sizes, and of a tangent vector, along the same runs.
    Leading axes are the batch of runs.

    Attributes
    ----------
    eps : (n_eps,)
        Sizes of the perturbations.
    best_window : GrowthRate of shape (..., n_eps)
        By the published rule, nothing filtered; nats per step.
    until_saturation : GrowthRate of shape (..., n_eps)
        By lines through all steps before saturation, which select nothing.
    exponent, stderr : (...)
        Leading Lyapunov exponent over the same steps and its error, nats per step.
    exponent_in_window : (..., n_eps)
        Mean growth of the tangent vector over the steps of the best window: what the choice of a
        window does to a rate that knows no size. nan where there is no window.
    kept : (..., n_eps)
        Runs that the published study goes on with: R² and slope above their thresholds.
    ensemble : Ensemble
        Mean distances (..., n_eps, T + 1).
    settings
        What was asked for.
    """

    eps: Floats
    best_window: GrowthRate
    until_saturation: GrowthRate
    exponent: Floats
    stderr: Floats
    exponent_in_window: Floats
    kept: NDArray[np.bool_] = field(repr=False)
    ensemble: Ensemble = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def n_kept(self) -> Integers:
        """(..., n_eps) number of runs kept, of those along the last batch axis."""
        count: Integers = self._runs(self.kept).sum(axis=-2)
        return count

    @property
    def mean(self) -> Floats:
        """(..., n_eps) the study's λ_nMLE: mean slope of the runs kept along the last batch axis,
        nats per step; nan where none is."""
        kept, slope = self._runs(self.kept), self._runs(self.best_window.slope)
        with np.errstate(invalid="ignore"):
            result: Floats = np.where(kept, slope, 0.0).sum(axis=-2) / self.n_kept
        return result

    @property
    def spread(self) -> Floats:
        """(..., n_eps) standard deviation of their slopes; nan with fewer than two."""
        kept, slope = self._runs(self.kept), self._runs(self.best_window.slope)
        apart = np.where(kept, slope - self.mean[..., np.newaxis, :], 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = np.sqrt((apart**2).sum(axis=-2) / (self.n_kept - 1))
        return np.where(self.n_kept > 1, result, np.nan)

    def _runs(self, values: Any) -> Any:
        return values if values.ndim > 1 else values[np.newaxis]


def compare_growth(
    system: TrainingMap,
    w0: ArrayLike,
    eps: ArrayLike,
    n_perturbations: int = 5,
    n_steps: int = 200,
    *,
    distribution: Any = "uniform",
    perturb: Any = "weights",
    relative: bool = False,
    norm: Norm = "l1",
    start: int = 0,
    least_r2: float = 0.9,
    least_slope: float = 0.05,
    threads: int | None = None,
    progress: bool = False,
    seed: Any = 0,
) -> GrowthComparison:
    """Rates at which perturbed copies part from their run, beside the leading Lyapunov exponent.

    Parameters
    ----------
    system, w0, n_perturbations, distribution, perturb, relative, norm, start, threads, progress
        As in `perturbation_ensemble`; every step is recorded.
    eps : number or (n_eps,) array
        Sizes of the perturbation.
    n_steps
        Steps after the perturbation; at least 30, the shortest window of the published rule.
    least_r2, least_slope
        What the published study keeps: lines that explain more than this share of the variance and
        rise faster than this, in nats per step.
    seed
        Of the perturbations and of the tangent vector, which has `start` steps to align.

    Returns
    -------
    GrowthComparison
        nan for runs that diverged.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of its range or the records would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).
    """
    n_steps = _checks.integer("n_steps", n_steps, least=30)
    least_r2 = _checks.real("least_r2", least_r2)
    least_slope = _checks.real("least_slope", least_slope)
    sizes = _checks.floats("eps", eps)
    seed = _checks.reusable_seed(seed)  # used twice
    copies = perturbation_ensemble(
        system,
        w0,
        sizes.reshape(1) if sizes.ndim == 0 else sizes,
        n_perturbations,
        n_steps,
        distribution=distribution,
        perturb=perturb,
        relative=relative,
        norm=norm,
        start=start,
        keep="mean",
        threads=threads,
        progress=progress,
        seed=seed,
    )
    tangent = lyapunov_spectrum(
        system, w0, n_steps, 1, start, threads=threads, progress=progress, seed=seed
    )
    best = growth_rate(copies.mean, axis=None)
    with np.errstate(invalid="ignore"):
        kept = (best.r2 > least_r2) & (best.slope > least_slope)
    return GrowthComparison(
        eps=sizes.reshape(-1).copy(),
        best_window=best,
        until_saturation=growth_rate(copies.mean, "until_saturation", axis=None),
        exponent=tangent.exponents[..., 0],
        stderr=tangent.stderr[..., 0],
        exponent_in_window=_in_window(tangent.growth[..., 0], best),
        kept=kept,
        ensemble=copies,
        settings=copies.settings | {"least_r2": least_r2, "least_slope": least_slope},
    )


def _in_window(growth: Floats, best: GrowthRate) -> Floats:
    """Mean of growth (..., T) over the steps between the records of each window (..., n_eps)."""
    total = np.concatenate([np.zeros((*growth.shape[:-1], 1)), growth.cumsum(axis=-1)], axis=-1)
    first, last = np.maximum(best.start, 0), np.maximum(best.stop - 1, 1)
    between = np.take_along_axis(total, last, axis=-1) - np.take_along_axis(total, first, axis=-1)
    result: Floats = np.where(best.start >= 0, between / (last - first), np.nan)
    return result
