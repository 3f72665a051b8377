"""Random or given perturbations of the weights, one stream of random numbers per run."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._parameters import Entries, entry_mask
from pylyap._runs import TrainingRuns

Distribution: TypeAlias = Literal["uniform", "normal", "sphere"]

_DISTRIBUTIONS = ("uniform", "normal", "sphere")


class Draws:
    """Perturbations of unit size for one run, (n_perturbations, n_params)."""

    def __init__(
        self,
        maps: TrainingRuns | MapRuns,
        batch: tuple[int, ...],
        distribution: Distribution | ArrayLike,
        perturb: Entries | int | ArrayLike,
        relative: bool,
        n_perturbations: int,
        seed: Seed,
    ) -> None:
        n = maps.n_params
        self.shape, self.relative = (n_perturbations, n), relative
        self.distribution, self.given = distribution, None
        if isinstance(distribution, str):
            _checks.choice("distribution", distribution, _DISTRIBUTIONS)
        else:
            self.given = _directions(distribution, batch, n, n_perturbations)
        self.count = None
        if isinstance(perturb, (int, np.integer)) and not isinstance(perturb, (bool, np.bool_)):
            self.count = _checks.integer("perturb", perturb, least=1, most=n)
            self.mask = np.ones(n, bool)
        else:
            self.mask = entry_mask(maps, perturb, "perturb")
        self.seeds = _checks.seed_sequence(seed)

    def __call__(self, run: int, stream: int, state: Floats) -> Floats:
        """The perturbations of a run at a state (n,), from the stream with this number."""
        rng = _checks.generator_of_run(self.seeds, stream)
        n = self.shape[1]
        mask = np.broadcast_to(self.mask, self.shape)
        if self.count is not None:
            mask = rng.random(self.shape).argsort(axis=1).argsort(axis=1) < self.count
        if self.given is not None:
            unit = self.given[run].T.copy()
        elif self.distribution == "uniform":
            unit = rng.uniform(-1.0, 1.0, self.shape)
        else:
            unit = rng.standard_normal(self.shape)
        unit *= mask
        if self.given is None and self.distribution == "sphere":
            unit /= np.sqrt((unit**2).sum(axis=1, keepdims=True))
        result: Floats = unit * np.abs(state[:n]) if self.relative else unit
        return result


def _directions(
    distribution: ArrayLike, batch: tuple[int, ...], n: int, n_perturbations: int
) -> Floats:
    """Given directions as (runs, n_params, n_perturbations)."""
    given = _checks.floats("distribution", distribution)
    if given.shape[-2:] != (n, n_perturbations):
        raise ArgumentError(
            "distribution", f"must have shape (..., {n}, {n_perturbations}), got {given.shape}"
        )
    try:
        spread = np.broadcast_to(given, (*batch, n, n_perturbations))
    except ValueError:
        raise ArgumentError(
            "distribution",
            f"must broadcast against the batch of runs {batch}, got {given.shape}",
        ) from None
    return spread.reshape(-1, n, n_perturbations)


def refuse_unresolved(draw: Draws, states: Floats, sizes: Floats, first_run: int) -> None:
    """Refuse sizes that rounding the weights to single precision would change by over a tenth.

    Rounding errors are uniform: their mean square is a twelfth of the squared spacing.
    """
    smallest = sizes[sizes > 0].min(initial=np.inf)
    for run, state in enumerate(states):
        if not np.isfinite(state).all() or not np.isfinite(smallest):
            continue
        unit = draw(run, first_run + run, state)
        with np.errstate(over="ignore", invalid="ignore"):
            spacing = np.spacing(np.abs(state[: unit.shape[1]]).astype(np.float32))
            noise = np.sqrt(((unit != 0) * spacing.astype(np.float64) ** 2).sum(axis=1) / 12.0)
        length = np.sqrt((unit**2).sum(axis=1))
        least = 10.0 * (noise[length > 0] / length[length > 0]).max(initial=0.0)
        if smallest < least:
            raise ArgumentError(
                "eps",
                f"must be 0 or at least {least:.2g} for dtype='float32', whose spacing is up "
                f"to {spacing.max():.2g} at the weights of run {run}, got {smallest:g}; "
                "dtype='float64' resolves smaller ones",
            )
