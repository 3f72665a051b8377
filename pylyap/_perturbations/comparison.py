"""Growth of finite perturbations compared with the leading Lyapunov exponent of the same runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._parameters import Entries
from pylyap._perturbations.draws import Distribution
from pylyap._perturbations.ensembles import Ensemble, Norm, perturbation_ensemble
from pylyap._perturbations.growth import GrowthRate, growth_rate
from pylyap._tangent.exponents import Spectrum, lyapunov_spectrum
from pylyap.datasets import Seed
from pylyap.maps import Map, TrainingMap

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class GrowthComparison(BatchResult):
    """Growth of perturbations of several sizes and of a tangent vector along the same runs.

    Leading axes are the batch of runs.

    Attributes
    ----------
    eps : ndarray, shape (n_eps,)
        Sizes of the perturbations.
    best_window : GrowthRate, shape (..., n_eps)
        Rates by the published rule, without filter; nats per step.
    until_saturation : GrowthRate, shape (..., n_eps)
        Rates of lines through all steps before saturation, without selection; nats per step.
    exponent, stderr : ndarray, shape (...)
        Leading Lyapunov exponent over the same steps and its standard error, nats per step.
    exponent_in_window : ndarray, shape (..., n_eps)
        Mean growth of the tangent vector over the steps of the best window, nats per step: the
        selection bias of the window for a rate that does not depend on size. nan where there is no
        window.
    kept : ndarray of bool, shape (..., n_eps)
        Runs that the published study keeps: R² and slope above their thresholds.
    ensemble : Ensemble
        Mean distances (..., n_eps, T + 1).
    settings : dict
        Arguments of the call.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> c = pl.compare_growth(system, net.init("normal", runs=3), [1e-8, 1e-4], 2, n_steps=30)
    >>> c.best_window.slope.shape, c.n_kept.shape, c.mean.shape
    ((3, 2), (2,), (2,))
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

    _MORE: ClassVar[dict[str, tuple[str, ...]]] = dict.fromkeys(
        ("exponent_in_window", "kept"), ("eps",)
    )
    _INDEX: ClassVar[dict[str, str]] = {"eps": "eps"}
    _UNITS: ClassVar[dict[str, str]] = dict.fromkeys(
        ("exponent", "stderr", "exponent_in_window"), "nats per step"
    )

    @property
    def _batch(self) -> tuple[int, ...]:
        return np.shape(self.exponent)

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset with labelled dimensions.

        Returns
        -------
        xarray.Dataset
            One variable per array, fields of the two rates with their name in front; units and
            settings in attributes. Distances are in `ensemble`.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        data = super().to_dataset()
        for name in ("best_window", "until_saturation"):
            rate: GrowthRate = getattr(self, name)
            found = rate.to_dataset()
            data = data.assign({f"{name}_{key}": found[key] for key in found.data_vars})
        return data

    @property
    def n_kept(self) -> Integers:
        """(..., n_eps) number of runs kept along the last batch axis."""
        count: Integers = self._runs(self.kept).sum(axis=-2)
        return count

    @property
    def mean(self) -> Floats:
        """(..., n_eps) λ_nMLE of the study, nats per step; nan where no run is kept.

        The mean slope of the runs kept along the last batch axis.
        """
        kept, slope = self._runs(self.kept), self._runs(self.best_window.slope)
        with np.errstate(invalid="ignore"):
            result: Floats = np.where(kept, slope, 0.0).sum(axis=-2) / self.n_kept
        return result

    @property
    def spread(self) -> Floats:
        """(..., n_eps) sample standard deviation of their slopes; nan with fewer than two."""
        kept, slope = self._runs(self.kept), self._runs(self.best_window.slope)
        apart = np.where(kept, slope - self.mean[..., np.newaxis, :], 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = np.sqrt((apart**2).sum(axis=-2) / (self.n_kept - 1))
        return np.where(self.n_kept > 1, result, np.nan)

    def _runs(self, values: Any) -> Any:
        return values if values.ndim > 1 else values[np.newaxis]


def compare_growth(
    system: Map,
    w0: ArrayLike,
    eps: ArrayLike,
    n_perturbations: int = 5,
    n_steps: int = 200,
    *,
    distribution: Distribution | ArrayLike = "uniform",
    perturb: Entries | int | ArrayLike | None = None,
    relative: bool = False,
    norm: Norm = "l1",
    start: int = 0,
    least_r2: float = 0.9,
    least_slope: float = 0.05,
    threads: int | None = None,
    progress: bool = False,
    seed: Seed = 0,
) -> GrowthComparison:
    """Growth rates of finite perturbations and the leading Lyapunov exponent of the same runs.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a `DiscreteMap`, or any object with `n`, `step` and `tangent`.
    w0 : array_like, shape (..., n) or (..., n_params)
        Finite states or weights at step 0, one run per row.
    eps : float or array_like, shape (n_eps,)
        Sizes of the perturbation.
    n_perturbations : int, default 5
        Perturbed trajectories per run and size.
    n_steps : int, default 200
        Steps after the perturbation, all recorded; at least 30, the shortest window of the
        published rule.
    distribution : {"uniform", "normal", "sphere"} or array_like, default "uniform"
        Distribution of the perturbations, as in `perturbation_ensemble`.
    perturb : {"weights", "biases", "all"}, int or array_like of bool, optional
        Perturbed parameters, as in `perturbation_ensemble`. By default the weights without biases
        of a `TrainingMap`, all entries of another map.
    relative : bool, default False
        Whether the perturbation of a parameter is proportional to its absolute value.
    norm : {"l1", "l2", "linf"}, default "l1"
        Norm of the difference of all parameters.
    start : int, default 0
        Steps before the perturbation, during which the tangent vector aligns.
    least_r2 : float, default 0.9
        R² above which the published study keeps a line.
    least_slope : float, default 0.05
        Slope above which it keeps a line, nats per step.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the perturbations and of the tangent vector.

    Returns
    -------
    GrowthComparison
        Rates of each run; nan for runs that diverged.

    Raises
    ------
    ArgumentError
        If an argument is out of range or has the wrong type.
    ValueError
        If the records would not fit in memory.

    References
    ----------
    Danovski, Soriano, Lacasa, Front. Complex Syst. 2, 1367957 (2024).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> c = pl.compare_growth(system, net.init("normal"), 1e-8, 2, n_steps=30)
    >>> c.best_window.slope.shape, c.exponent.shape
    ((1,), ())
    """
    n_steps = _checks.integer("n_steps", n_steps, least=30)
    least_r2 = _checks.real("least_r2", least_r2)
    least_slope = _checks.real("least_slope", least_slope)
    sizes = _checks.floats("eps", eps)
    seed = _checks.reusable_seed(seed)  # used twice
    if perturb is None:
        perturb = "weights" if isinstance(system, TrainingMap) else "all"
    ensemble = perturbation_ensemble(
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
    return _compared(sizes, ensemble, tangent, least_r2, least_slope)


def _compared(
    sizes: Floats, ensemble: Ensemble, tangent: Spectrum, least_r2: float, least_slope: float
) -> GrowthComparison:
    """Rates of the mean distances and the exponent of the tangent vector."""
    axes: dict[str, Any] = {"dims": (*ensemble.dims, "eps"), "coords": {"eps": sizes.reshape(-1)}}
    best = replace(growth_rate(ensemble.mean, axis=None), **axes)
    whole = replace(growth_rate(ensemble.mean, "until_saturation", axis=None), **axes)
    with np.errstate(invalid="ignore"):
        kept = (best.r2 > least_r2) & (best.slope > least_slope)
    return GrowthComparison(
        eps=sizes.reshape(-1).copy(),
        best_window=best,
        until_saturation=whole,
        exponent=tangent.exponents[..., 0],
        stderr=tangent.stderr[..., 0],
        exponent_in_window=_in_window(tangent.growth[..., 0], best),
        kept=kept,
        ensemble=ensemble,
        **ensemble._axes,
        settings=ensemble.settings | {"least_r2": least_r2, "least_slope": least_slope},
    )


def _in_window(growth: Floats, best: GrowthRate) -> Floats:
    """Mean of growth (..., T) over the steps between the records of each window (..., n_eps)."""
    total = np.concatenate([np.zeros((*growth.shape[:-1], 1)), growth.cumsum(axis=-1)], axis=-1)
    first, last = np.maximum(best.start, 0), np.maximum(best.stop - 1, 1)
    between = np.take_along_axis(total, last, axis=-1) - np.take_along_axis(total, first, axis=-1)
    result: Floats = np.where(best.start >= 0, between / (last - first), np.nan)
    return result
