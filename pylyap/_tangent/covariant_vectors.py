"""Results of covariant Lyapunov vectors: vectors, angles, contamination."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap._statistics import batch_means
from pylyap._status import STATUS_MEANING, Status
from pylyap._tangent.contamination import contamination as estimated_errors
from pylyap._tangent.subspaces import principal_angles

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray

Integers = NDArray[np.int64]


@dataclass(frozen=True, repr=False)
class Hyperbolicity(BatchResult):
    """Separation of expanding and contracting directions along a run.

    Attributes
    ----------
    angle : ndarray, shape (...)
        Smallest angle between the two subspaces along the run, radians; 0 at a tangency.
    dominated : ndarray, shape (...)
        Fraction of the records in which every vector of the first subspace grew more than each of
        the second.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> import pylyap as pl
    >>> henon = pl.DiscreteMap(
    ...     lambda x: [1.0 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]],
    ...     lambda x: [[-2.8 * x[0], 1.0], [0.3, 0.0]],
    ...     n=2,
    ... )
    >>> clv = pl.covariant_lyapunov_vectors(henon, [0.1, 0.1], n_steps=500)
    >>> bool(clv.hyperbolicity(split=1).angle < 0.1)  # it has tangencies
    True
    """

    angle: Floats
    dominated: Floats

    _UNITS: ClassVar[dict[str, str]] = {"angle": "radians"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.angle.shape


@dataclass(frozen=True, eq=False, repr=False)
class CovariantVectors(BatchResult):
    """Covariant Lyapunov vectors of a batch of runs.

    Leading axes are the batch; T is the number of records. `covariant_lyapunov_vectors` returns it.

    Attributes
    ----------
    vectors : ndarray, shape (..., T + 1, n, k), or None
        Unit vectors at the start of each record and at the end, in the columns; the sign is
        arbitrary. None with ``vectors=False``.
    coefficients : ndarray, shape (..., T + 1, k, k)
        The same in the orthonormal frame of the run, upper triangular. All angles follow from them.
    states : ndarray, shape (..., T + 1, n)
        States at those times.
    growth : ndarray, shape (..., T, k)
        Log growth of each vector summed over each record, nats; -inf where it was destroyed.
    frame_growth : ndarray, shape (..., T, k)
        Log growth of the frame, as in `Spectrum.growth`.
    residual : ndarray, shape (..., T, k)
        Covariance residual, the largest ‖u − v (v·u)‖ in each record, u = J v(t) normalised and
        v = v(t + 1): the sine of the angle between a vector and the image of the one before. ‖J v‖
        for a destroyed vector.
    steps : ndarray of int, shape (T + 1,)
        Index of the step of each vector.
    status : ndarray of int, shape (...)
        How each run ended, see `Status`; results are nan after a divergence or an exception.
    n_done : ndarray of int, shape (...)
        Number of steps after the transient, tail included, with a finite state.
    settings : dict
        Arguments of `covariant_lyapunov_vectors`.
    early_vectors, early_coefficients : ndarray or None
        As `vectors` and `coefficients`, but computed from the next ``settings["delay"]`` steps
        only, starting from generic vectors at their end. None without a delay.
    early_error : ndarray, shape (..., T + 1, k), or None
        Sines of the angles between the early vectors and `vectors`, which use the whole tail: the
        effect of the steps after the delay. It does not contain the error of a short transient,
        which both have; see `early_contamination`.
    transient_growth : ndarray, shape (..., k)
        Log growth of the frame summed over the transient, nats; nan for a run that diverged.
    tail_growth : ndarray, shape (..., k)
        Log growth of the vectors summed over the tail, nats; nan for a run that diverged.
    end_coefficients : ndarray, shape (k, k)
        Coefficients at the end of the tail, where the backward pass starts.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((4, 3, 3), loss="cross_entropy")
    >>> system = pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.1))
    >>> clv = pl.covariant_lyapunov_vectors(system, net.init("normal", seed=0), 100, k=3)
    >>> clv.vectors.shape, clv.angles().shape
    ((101, 27, 3), (101, 3))
    """

    vectors: Floats | None
    coefficients: Floats
    states: Floats
    growth: Floats
    frame_growth: Floats
    residual: Floats
    steps: Integers
    status: Integers
    n_done: Integers
    settings: dict[str, Any] = field(default_factory=dict)
    early_vectors: Floats | None = None
    early_coefficients: Floats | None = None
    early_error: Floats | None = None
    transient_growth: Floats | None = None
    tail_growth: Floats | None = None
    end_coefficients: Floats | None = None

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape

    @cached_property
    def exponents(self) -> Floats:
        """Mean growth of the vectors, (..., k), nats per step."""
        result: Floats = self.growth.sum(axis=-2) / self._n_steps
        return result

    @cached_property
    def stderr(self) -> Floats:
        """Standard error of `exponents`, (..., k), as `Spectrum.stderr`."""
        return batch_means(self.growth / (self._n_steps / self.growth.shape[-2])).stderr

    @cached_property
    def gap(self) -> Floats:
        """Gaps λ_i − λ_{i+1} between the exponents of the frame, (..., k - 1), nats per step.

        Vectors i and i + 1 separate at this rate, on average over the window. `contamination` uses
        the growth of each step instead.
        """
        exponents = self.frame_growth.sum(axis=-2) / self._n_steps
        with np.errstate(invalid="ignore"):
            result: Floats = exponents[..., :-1] - exponents[..., 1:]
        return result

    @cached_property
    def local_contamination(self) -> Floats:
        """Estimated error of each vector at each time, (..., T + 1, k), as `contamination`."""
        if self.transient_growth is None or self.tail_growth is None:
            raise ValueError("growth over transient and tail is missing: compute the vectors again")
        k, batch = self.k, self.status.shape
        coefficients, growth, frame_growth, residual, transient, tail = (
            array.reshape(-1, *array.shape[len(batch) :])
            for array in (
                self.coefficients, self.growth, self.frame_growth, self.residual,
                self.transient_growth, self.tail_growth,
            )
        )  # fmt: skip
        far = np.asarray(self.end_coefficients)
        n = self.states.shape[-1]
        found = estimated_errors(
            coefficients, growth, frame_growth, residual, transient, tail, far, n
        )
        result: Floats = found.reshape((*batch, len(self.steps), k))
        return result

    @cached_property
    def contamination(self) -> Floats:
        """Estimated contamination of each vector by the others, (..., k), 0 ... 1.

        An upper estimate, over all times of the window, of the sine of the angle between the vector
        and the one that an infinitely long transient and tail would give. Contributions of all
        other vectors add up: of those after it, which the transient suppresses as the frame grows
        from its random start to each time, and of those before it, which the tail suppresses as the
        vectors grow from each time to the end. The growth is that of the computed steps. The
        directions at the start and beyond the end are unknown and enter through the distributions
        of a random frame and of the window: in 1000 random cases (maps, training, products of
        random matrices) with errors between rounding and 1, the estimate held for 95 %, and
        exceeded the error by a factor of 20 in the median. It is not a bound: a change in the order
        of the directions outside of the computed steps cannot be detected, and a given start frame
        must be generic.

        1 for a vector that these steps do not determine, which is then meaningful only together
        with its neighbours. nan for the last of k < n vectors, whose next neighbour is not
        computed, and for a run that diverged.
        """
        result: Floats = self.local_contamination.max(axis=-2)
        return result

    @cached_property
    def early_contamination(self) -> Floats:
        """Estimated error of each early vector, (..., T + 1, k), 0 ... 1.

        The sum of the measured `early_error` and of the estimated `local_contamination` of the
        vectors it was measured against. Raises ValueError without a delay.
        """
        if self.early_error is None:
            raise ValueError("early vectors must have been computed: delay=")
        result: Floats = np.minimum(self.early_error + self.local_contamination, 1.0)
        return result

    @property
    def mixing(self) -> Floats:
        """Contamination under its deprecated name."""
        warnings.warn(
            "CovariantVectors.mixing is deprecated, use contamination",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.contamination

    @property
    def _n_steps(self) -> int:
        return int(self.settings["n_steps"])

    @property
    def k(self) -> int:
        """Number of vectors."""
        return int(self.coefficients.shape[-1])

    def known(self, early: bool) -> Integers:
        """Step at which the vectors of each record are known.

        Parameters
        ----------
        early : bool
            Whether for early vectors, which are known `delay` steps after their time. The others
            are known at the end of the tail.

        Returns
        -------
        ndarray of int, shape (T + 1,)
            Indices of steps.
        """
        end = int(self.steps[-1]) + int(self.settings["n_tail"])
        if _checks.flag("early", early):
            return self.steps + int(self.settings["delay"])
        return np.full_like(self.steps, end)

    def angles(self, pairs: ArrayLike | None = None, early: bool = False) -> Floats:
        """Angles between the lines of pairs of vectors, radians in [0, π/2].

        Parameters
        ----------
        pairs : array_like of int, shape (m, 2), optional
            Pairs of indices; by default all i < j in the order of
            ``itertools.combinations(range(k), 2)``.
        early : bool, default False
            Whether to use the early vectors.

        Returns
        -------
        ndarray, shape (..., T + 1, m)
            Angles, accurate also where they are small.
        """
        if pairs is None:
            first, second = np.triu_indices(self.k, 1)
        else:
            chosen = _checks.array("pairs", pairs)
            if chosen.ndim != 2 or chosen.shape[1] != 2 or chosen.dtype.kind not in "iu":
                raise ArgumentError(
                    "pairs", f"must be whole numbers of shape (m, 2), got {_checks.describe(pairs)}"
                )
            first, second = (self._indices("pairs", column) for column in chosen.T)
        C = self._coefficients(early)
        a, b = (np.swapaxes(C[..., chosen], -1, -2) for chosen in (first, second))
        along = (a * b).sum(axis=-1)
        across = np.linalg.norm(a - along[..., np.newaxis] * b, axis=-1)
        result: Floats = np.arctan2(across, np.abs(along))
        return result

    def subspace_angles(self, a: Sequence[int], b: Sequence[int], early: bool = False) -> Floats:
        """Principal angles between the spans of two sets of vectors.

        Parameters
        ----------
        a, b : sequence of int
            Indices of the vectors of each set.
        early : bool, default False
            Whether to use the early vectors.

        Returns
        -------
        ndarray, shape (..., T + 1, min(len(a), len(b)))
            Angles in radians, smallest first.

        References
        ----------
        Björck, Golub, Math. Comp. 27, 579 (1973).
        """
        first, second = self._indices("a", a), self._indices("b", b)
        C = self._coefficients(early)
        good = np.asarray(np.isfinite(C).all(axis=(-1, -2)))
        C = np.where(good[..., np.newaxis, np.newaxis], C, np.eye(self.k))
        A, B = (np.linalg.qr(C[..., chosen])[0] for chosen in (first, second))
        angles = principal_angles(A, B)
        result: Floats = np.where(good[..., np.newaxis], angles, np.nan)
        return result

    def hyperbolicity(self, split: int) -> Hyperbolicity:
        """Separation of the first vectors from the rest.

        Parameters
        ----------
        split : int
            Number of vectors in the first set, 1 to k − 1.

        Returns
        -------
        Hyperbolicity
            Smallest angle between the spans, and domination of the growth.
        """
        split = _checks.integer("split", split, least=1, most=self.k - 1)
        angles = self.subspace_angles(range(split), range(split, self.k))[..., 0]
        with np.errstate(invalid="ignore"):
            above = self.growth[..., :split].min(axis=-1) > self.growth[..., split:].max(axis=-1)
        return Hyperbolicity(angle=angles.min(axis=-1), dominated=above.mean(axis=-1), **self._axes)

    def adjoint_vectors(self) -> Floats:
        """Covariant vectors of the adjoint dynamics: the dual basis.

        Returns
        -------
        ndarray, shape (..., T + 1, n, n)
            Unit vectors in the columns; column i is orthogonal to v_j for all j ≠ i.

        Raises
        ------
        ArgumentError
            If k < n or the vectors were not kept.
        """
        if self.vectors is None:
            raise ArgumentError("vectors", "must have been kept: vectors=True")
        if self.k < self.vectors.shape[-2]:
            raise ArgumentError(
                "k", f"must be n={self.vectors.shape[-2]} for a dual basis, got {self.k}"
            )
        good = np.isfinite(self.vectors).all(axis=(-1, -2), keepdims=True)
        dual = np.swapaxes(np.linalg.inv(np.where(good, self.vectors, np.eye(self.k))), -1, -2)
        dual /= np.linalg.norm(dual, axis=-2, keepdims=True)
        result: Floats = np.where(good, dual, np.nan)
        return result

    def _coefficients(self, early: bool) -> Floats:
        if not _checks.flag("early", early):
            return self.coefficients
        if self.early_coefficients is None:
            raise ValueError("early vectors must have been computed: delay=")
        return self.early_coefficients

    def _indices(self, name: str, chosen: Any) -> NDArray[np.intp]:
        indices = _checks.array(name, chosen)
        if indices.ndim != 1 or indices.size == 0 or indices.dtype.kind not in "iu":
            raise ArgumentError(
                name, f"must be a list of indices of vectors, got {_checks.describe(chosen)}"
            )
        if indices.min() < 0 or indices.max() >= self.k:
            raise ArgumentError(
                name, f"must be indices 0 ... {self.k - 1}, got {_checks.describe(chosen)}"
            )
        return indices.astype(np.intp)

    def __repr__(self) -> str:
        runs, batch = self.status.size, self._batch_text
        text = f"CovariantVectors of {runs} run{'s'[: runs != 1]}"
        text += f" ({batch})" if batch else ""
        text += f": {self.k} of {self.states.shape[-1]}, {self._n_steps} steps in "
        text += f"{len(self.steps) - 1} records"
        diverged = int((self.status == Status.DIVERGED).sum())
        if diverged:
            text += f", {diverged} diverged"
        raised = int((self.status == Status.RAISED).sum())
        if raised:
            text += f", {raised} raised an exception"
        finite = self.residual[np.isfinite(self.residual)]
        if finite.size:
            text += f"\n  largest residual {finite.max():.1e}, "
            text += f"largest contamination {self._worst:.1e}"
        if self.early_error is not None and np.isfinite(self.early_error).any():
            delay, error = self.settings["delay"], np.nanmedian(self.early_error)
            text += f"\n  early vectors after {delay} steps, median error {error:.1e}"
        return text

    @property
    def _worst(self) -> float:
        known = self.contamination[np.isfinite(self.contamination)]
        return float(known.max()) if known.size else math.nan

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset.

        Returns
        -------
        xarray.Dataset
            All results with labelled dimensions; units and settings are attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        dataset = dataset_class()
        batch = list(self.dims)
        rate = {"units": "nats per record"}
        variables: dict[str, Any] = {
            "coefficients": ([*batch, "time", "column", "vector"], self.coefficients, {}),
            "states": ([*batch, "time", "component"], self.states, {}),
            "growth": ([*batch, "step", "vector"], self.growth, rate),
            "frame_growth": ([*batch, "step", "vector"], self.frame_growth, rate),
            "residual": ([*batch, "step", "vector"], self.residual, {}),
            "exponents": ([*batch, "vector"], self.exponents, {"units": "nats per step"}),
            "contamination": ([*batch, "vector"], self.contamination, {}),
            "local_contamination": ([*batch, "time", "vector"], self.local_contamination, {}),
            "status": (batch, self.status, {"meaning": STATUS_MEANING}),
            "n_done": (batch, self.n_done, {"units": "steps"}),
        }
        in_space, in_frame = ([*batch, "time", axis, "vector"] for axis in ("component", "column"))
        optional = {
            "vectors": (in_space, self.vectors),
            "early_vectors": (in_space, self.early_vectors),
            "early_coefficients": (in_frame, self.early_coefficients),
            "early_error": ([*batch, "time", "vector"], self.early_error),
        }
        variables |= {name: (*what, {}) for name, what in optional.items() if what[1] is not None}
        coordinates = {
            "time": ("time", self.steps, {"units": "steps"}),
            "step": ("step", self.steps[:-1], {"long_name": "first step of the record"}),
            "vector": ("vector", np.arange(self.k)),
        } | self._labels
        return dataset(variables, coordinates, attrs=dict(self.settings))
