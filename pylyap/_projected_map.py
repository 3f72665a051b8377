"""Training restricted to a subspace of the weights, or to its orthogonal complement."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._map_runs import MapRuns
from pylyap._runs import TrainingRuns
from pylyap._vectors import columns, paired
from pylyap.maps import Map, TrainingMap, checked_paths, require_map, runs_of

_ORTHONORMAL = 1e-8  # largest entry of UᵀU − 1 of a given basis


class ProjectedMap:
    """A map whose weights move in a subspace only, or in its orthogonal complement.

    The weights after a step are w + P (w' − w), where w' are those of the given map and P is an
    orthogonal projection. Buffers of the optimiser are those of the given map: they see the whole
    gradient at the restricted weights. For gradient descent with and without momentum this is
    training in the coordinates of the subspace.

    Parameters
    ----------
    system : Map
        A `TrainingMap`, a bridged model, or any map. The settings `lr`, `momentum` and
        `weight_decay` of a `TrainingMap` must be numbers, and its dtype ``"float64"``.
    project : array_like, shape (n_params, k)
        Orthonormal vectors in the columns, such as singular vectors of `training_jacobian`.
    exclude : bool, default False
        Exclude the span of `project` instead of restricting training to it.

    Attributes
    ----------
    system, project, exclude
        As given; `project` is a read-only copy.
    n, n_params : int
        Length of a state, and number of weights, as of `system`.

    Raises
    ------
    ArgumentError
        If `project` has another shape, is not orthonormal or not finite, or the settings of the
        optimiser are arrays.

    See Also
    --------
    TrainingMap : Training in all weights.
    subspace_overlap : Angles between subspaces.

    Notes
    -----
    With the Jacobian J of a step of the given map, that of the projected map is
    1 + P (J − 1) in the rows of the weights, and the adjoint of a vector u is
    Jᵀ P u + (1 − P) u. Excluded directions are not affected by training: as many Lyapunov exponents
    as there are excluded directions are 0, and as many singular vectors of `training_jacobian` have
    the singular value 1 if they do not influence the others.

    Steps are made in Python, one call of the given map and two products with `project` each. Loss,
    gradient and Hessian products are those of the given map in all weights; ``Sharpness.ratio`` is
    nan.

    Examples
    --------
    Training restricted to random 5 of 13 directions:

    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> U = np.linalg.qr(np.random.default_rng(0).normal(size=(13, 5)))[0]
    >>> inside = pl.ProjectedMap(system, U)
    >>> w = net.init(seed=0)
    >>> moved = inside.step(w) - w
    >>> bool(np.allclose(U @ (U.T @ moved), moved))
    True
    """

    def __init__(self, system: Map, project: ArrayLike, exclude: bool = False) -> None:
        require_map(system)
        if isinstance(system, TrainingMap):
            if system.dtype != "float64":
                raise ArgumentError(
                    "system", f"must have dtype='float64' to be projected, got {system.dtype!r}"
                )
            if any(system._runs.rate_shapes):
                raise ArgumentError(
                    "system",
                    "must have one lr, momentum and weight_decay to be projected, got arrays; "
                    "make one map for each",
                )
        self.system = system
        self.exclude = _checks.flag("exclude", exclude)
        maps = runs_of(system)
        self.n, self.n_params = maps.n, maps.n_params
        self.project: Floats = _basis(project, self.n_params)
        self._maps: TrainingRuns | MapRuns = maps
        self._is_deterministic = True  # as far as the given map is, which is checked

    def __repr__(self) -> str:
        kind = "without" if self.exclude else "in"
        k = self.project.shape[1]
        return f"ProjectedMap({self.system!r}, {kind} {k} of {self.n_params} directions)"

    def __reduce__(self) -> tuple[Any, ...]:
        return ProjectedMap, (self.system, self.project, self.exclude)

    # --- states -----------------------------------------------------------------------------------

    def state(self, w: ArrayLike) -> Floats:
        """State of given weights, as of the given map.

        Parameters
        ----------
        w : array_like, shape (..., n_params) or (..., n)
            Weights. A state is returned as it is.

        Returns
        -------
        ndarray, shape (..., n)
            States.
        """
        return self._maps.states(w, "w")

    def weights(self, x: ArrayLike) -> Floats:
        """Weights of a state.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (..., n_params)
            Weights.
        """
        return self._maps.states(x, "x")[..., : self.n_params]

    # --- the map ----------------------------------------------------------------------------------

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """States after one step.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (..., n)
            States after step t. All of a state is nan if an entry of it is not finite.
        """
        t = _checks.integer("t", t, least=0)
        flat, batch = self._maps.flat(x)
        return self.step_batch(flat, t).reshape((*batch, self.n))

    def step_batch(self, X: Floats, t: int = 0) -> Floats:
        """States after one step, of many states in one call.

        Parameters
        ----------
        X : ndarray, shape (m, n)
            States before the step.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (m, n)
            States after step t.
        """
        p = self.n_params
        after = np.array(self._step(X, t))
        before = X[:, :p]
        after[:, :p] = before + self._projected((after[:, :p] - before)[..., np.newaxis])[..., 0]
        after[~np.isfinite(after).all(axis=1)] = np.nan
        return after

    def tangent(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of a step applied to tangent vectors.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        V : array_like, shape (..., n, k) or (n,)
            Tangent vectors, in the columns. Their batch broadcasts against the batch of x.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (..., n, k) or (..., n)
            Tangent vectors after the step.
        """
        t = _checks.integer("t", t, least=0)
        X, vectors, shape = self._pairs(x, V)
        out = self.tangent_batch(X, vectors, t).reshape(shape)
        return out[..., 0] if np.ndim(V) == 1 else out

    def tangent_batch(self, X: Floats, V: Floats, t: int = 0) -> Floats:
        """Jacobians of a step applied to tangent vectors, of many states in one call.

        Parameters
        ----------
        X : ndarray, shape (m, n)
            States before the step.
        V : ndarray, shape (m, n, k)
            Tangent vectors of each state.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (m, n, k)
            Tangent vectors after step t.
        """
        before = np.array(V[:, : self.n_params])
        out = self._tangent(X, V, t)
        moved = out[:, : self.n_params] - before
        out[:, : self.n_params] = before + self._projected(moved)
        return out

    def adjoint(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Transposed Jacobian of a step applied to vectors.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        V : array_like, shape (..., n, k) or (n,)
            Vectors, in the columns. Their batch broadcasts against the batch of x.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (..., n, k) or (..., n)
            Products.
        """
        t = _checks.integer("t", t, least=0)
        X, vectors, shape = self._pairs(x, V)
        out = self.adjoint_batch(X, vectors, t).reshape(shape)
        return out[..., 0] if np.ndim(V) == 1 else out

    def adjoint_batch(self, X: Floats, V: Floats, t: int = 0) -> Floats:
        """Transposed Jacobians of a step applied to vectors, of many states in one call.

        Parameters
        ----------
        X : ndarray, shape (m, n)
            States before the step.
        V : ndarray, shape (m, n, k)
            Vectors of each state.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (m, n, k)
            Products.
        """
        p = self.n_params
        inside = np.array(V)
        inside[:, :p] = self._projected(V[:, :p])
        outside = V[:, :p] - inside[:, :p]
        out = np.array(self._adjoint(X, inside, t))
        out[:, :p] += outside
        return out

    def trajectory(self, x: ArrayLike, n_steps: int, every: int = 1, start: int = 0) -> Floats:
        """States along runs.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            Initial states.
        n_steps : int
            Number of steps.
        every : int, default 1
            Steps between two recorded states; divides `n_steps`.
        start : int, default 0
            Index t of the first step.

        Returns
        -------
        ndarray, shape (..., n_steps // every + 1, n)
            Recorded states; the first is x.
        """
        return checked_paths(MapRuns(self), x, n_steps, every, start)

    # --- of the given map -------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        """Loss, gradient and Hessian products of the given map, where it has them."""
        if name in _LOSSES:
            maps = self.__dict__.get("_maps")
            known = (
                hasattr(self.system, name)
                if isinstance(maps, TrainingRuns)
                else maps is not None and getattr(maps.functions, name) is not None
            )
            if known:
                return getattr(self.system, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _step(self, X: Floats, t: int) -> Floats:
        if isinstance(self.system, TrainingMap):
            return self.system.step(X, t)
        assert isinstance(self._maps, MapRuns)
        return self._maps.step(X, t)

    def _tangent(self, X: Floats, V: Floats, t: int) -> Floats:
        if isinstance(self.system, TrainingMap):
            return self.system.tangent(X, V, t)
        assert isinstance(self._maps, MapRuns)
        return self._maps.tangent(X, V, t)[0]

    def _adjoint(self, X: Floats, U: Floats, t: int) -> Floats:
        if isinstance(self.system, TrainingMap):
            return self.system.adjoint(X, U, t)
        assert isinstance(self._maps, MapRuns)
        self._maps.require("adjoint", "adjoints of the projected map")
        return self._maps.adjoint(X, U, t)

    def _projected(self, V: Floats) -> Floats:
        """P V for vectors (m, n_params, k)."""
        with np.errstate(over="ignore", invalid="ignore"):
            inside = self.project @ (self.project.T @ V)
            result: Floats = V - inside if self.exclude else inside
        return result

    def _pairs(self, x: ArrayLike, V: ArrayLike) -> tuple[Floats, Floats, tuple[int, ...]]:
        """States (m, n), the vectors (m, n, k) of each, and the shape of the vectors."""
        flat, batch = self._maps.flat(x)
        states, vectors, whole = paired(flat, batch, columns(V, self.n), np.shape(V))
        return states, vectors, (*whole, *vectors.shape[1:])


_LOSSES = ("loss", "gradient", "hessian_vector")


def _basis(project: ArrayLike, n_params: int) -> Floats:
    """A read-only copy of orthonormal columns (n_params, k)."""
    U = _checks.floats("project", project)
    if U.ndim != 2 or U.shape[0] != n_params or not 1 <= U.shape[1] <= n_params:
        raise ArgumentError(
            "project",
            f"must have shape ({n_params}, k) with 1 <= k <= {n_params}, got {np.shape(project)}",
        )
    error = float(np.abs(U.T @ U - np.eye(U.shape[1])).max())
    if not error <= _ORTHONORMAL:
        raise ArgumentError(
            "project",
            f"must have orthonormal columns, but an entry of UᵀU − 1 is {error:.2g}; "
            "numpy.linalg.qr(U)[0] has",
        )
    U = U.copy()
    U.setflags(write=False)
    return U
