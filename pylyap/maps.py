"""Maps of a state: training of a network, and discrete maps given by functions."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._adjoint import adjoint_of_step
from pylyap._checks import Floats
from pylyap._discrete_map import DiscreteMap, _discrete_map
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar
from pylyap._runs import METHODS, Method, TrainingRuns
from pylyap._vectors import columns, paired
from pylyap.network import Network
from pylyap.optimizers import Optimizer, require_optimizer

__all__ = ["METHODS", "DiscreteMap", "Map", "Method", "TrainingMap"]
__all__ += ["checked_paths", "require_map", "require_training", "runs_of"]
__all__ += ["_discrete_map"]  # pickles of discrete maps name it here


def _dtype(value: Any) -> Literal["float64", "float32"]:
    for name in (np.float64, np.float32):
        if isinstance(value, (str, type, np.dtype)) and value in (
            name, np.dtype(name), np.dtype(name).name
        ):  # fmt: skip
            return "float64" if name is np.float64 else "float32"
    raise ArgumentError("dtype", f"must be 'float64' or 'float32', got {_checks.describe(value)}")


@runtime_checkable
class Map(Protocol):
    """A map of a state of length `n`, with its tangent.

    Any object with these three members can be passed to every analysis; it need not inherit from
    this class. It must be deterministic: the first call of each method in an analysis is made twice
    with the same arguments, and the map is refused if the results differ.

    Notes
    -----
    Optional members, for states x (n,) and X (m, n):

    - ``loss(x)``: the loss, a number. `lyapunov_spectrum` records it; `knock_out` and
      ``perturbation_ensemble(losses=True)`` need it.
    - ``gradient(x)``: its gradient, (n_params,).
    - ``hessian_vector(x, V)``: its Hessian applied to the columns of V (n_params, k). `sharpness`,
      `sharpness_along` and `hessian_spectrum` need it.
    - ``batch_gradient(x, t)``, ``batch_hessian_vector(x, V, t)``: the same of the loss of the
      samples of step t, for `batch_sharpness`; ``steps_per_epoch``: steps that see each sample
      once.
    - ``adjoint(x, V, t)``: the transposed Jacobian applied to the columns of V (n, k). All maps of
      the package have it, for batches as `tangent`.
    - ``step_batch(X, t)``, ``tangent_batch(X, V, t)`` with V (m, n, k), ``loss_batch(X)`` and
      ``hessian_vector_batch(X, V)``: the same for m runs in one call. Where they exist, analyses
      call them instead, also for a single run. Results of a run then depend on the other runs as
      far as those of these methods do.
    - ``n_params``: number of leading entries of a state that are weights; n by default. Distances
      and norms are over them, and so is the Hessian.
    - ``state(w)``: states (..., n) of plain weights (..., n_params), which are accepted wherever
      states are. By default zeros are appended.
    - ``optimizer``: a `GradientDescent` or `Adam`, for `Sharpness.ratio`, which is nan without it.
      With `Adam` states are [w, m, v].

    Examples
    --------
    >>> import numpy as np
    >>> import pylyap as pl
    >>> class Doubling:
    ...     n = 1
    ...     def step(self, x, t=0):
    ...         return 2.0 * x % 1.0
    ...     def tangent(self, x, V, t=0):
    ...         return 2.0 * V
    >>> isinstance(Doubling(), pl.Map)
    True
    >>> pl.lyapunov_spectrum(Doubling(), [0.1], n_steps=20).exponents.round(4)
    array([0.6931])
    """

    @property
    def n(self) -> int:
        """Length of a state."""

    def step(self, x: Floats, t: int = 0) -> Floats:
        """State after step t.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (n,)
            State after the step.
        """

    def tangent(self, x: Floats, V: Floats, t: int = 0) -> Floats:
        """Jacobian of step t, applied to tangent vectors.

        Parameters
        ----------
        x : ndarray, shape (n,)
            State before the step.
        V : ndarray, shape (n, k)
            Tangent vectors, in the columns.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (n, k)
            ``J(x) @ V``.
        """


class TrainingMap:
    """Training of a network on data as a dynamical system: one optimiser step is the map.

    The state is the weights followed by the optimiser's buffers, length `n`. Everywhere a state
    (..., n) is expected, weights (..., n_params) are accepted too and get zero buffers. Leading
    axes are a batch of runs; `lr`, `momentum` and `weight_decay` of the optimiser broadcast against
    them. States that are nan (a run that diverged) stay nan and do not affect other runs.

    Parameters
    ----------
    network : Network
        The network.
    X : array_like, shape (N, n_in) or (N, rows, columns, ...)
        Inputs, finite: an array, a list of rows, a DataFrame, a tensor. Their dtype is the one that
        NumPy finds. Booleans are refused. uint8 with three axes or more are images of n_in pixels
        each, whose values 0 … 255 stand for 0 … 1; they are stored as uint8. uint8 with two axes
        could be numbers or pixels and are refused: pass ``X.astype(float)``, ``X / 255.0`` or
        ``X[:, :, None]``.
    y : array_like, shape (N,) or (N, n_out)
        Targets for ``"mse"`` ((N,) if there is one output), integer labels (N,) otherwise. Targets
        are never scaled; uint8 with two axes are refused.
    optimizer : GradientDescent or Adam
        The optimiser.
    dtype : {"float64", "float32"}, default "float64"
        Precision of each step, and of `loss` and `gradient`. With ``"float32"`` states are
        single-precision numbers in float64 arrays. Jacobians, tangents and Hessians are always in
        double precision. Methods that follow tangent vectors along runs, such as
        `lyapunov_spectrum`, need ``"float64"``.

    Attributes
    ----------
    network, X, y, optimizer, dtype
        As given; X and y are read-only copies.

    Raises
    ------
    ArgumentError
        If shapes do not fit the network, data are empty or not finite, labels are not integers in
        0 ... n_out − 1, or the batch is larger than the data.

    Examples
    --------
    >>> import pylyap as pl
    >>> net = pl.Network((4, 10, 3), activation="sigmoid", loss="cross_entropy")
    >>> X, y = pl.datasets.iris()
    >>> system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
    >>> w0 = net.init("normal", runs=5, seed=0)
    >>> system.step(w0).shape
    (5, 83)
    >>> bool((system.loss(system.step(w0)) < system.loss(w0)).all())
    True
    """

    def __init__(
        self,
        network: Network,
        X: ArrayLike,
        y: ArrayLike,
        optimizer: Optimizer,
        *,
        dtype: Literal["float64", "float32"] = "float64",
    ) -> None:
        if not isinstance(network, Network):
            raise ArgumentTypeError(
                "network", f"must be a Network, got {_checks.describe(network)}"
            )
        require_optimizer(optimizer)
        self.network = network
        self.optimizer = optimizer
        self.dtype: Literal["float64", "float32"] = _dtype(dtype)
        self._runs = TrainingRuns(network, X, y, optimizer, self.dtype == "float32")
        inputs, targets = self._runs.inputs, self._runs.targets
        images = inputs.dtype == np.uint8
        self.X: NDArray[Any] = inputs.reshape(np.shape(X)) if images else inputs
        self.y: NDArray[Any] = (
            targets[:, 0].astype(np.int64) if network.classifies else targets.reshape(np.shape(y))
        )
        for array in (self.X, inputs, targets, self.y):
            array.setflags(write=False)

    @property
    def n_params(self) -> int:
        """Number of weights and biases."""
        return self._runs.n_params

    @property
    def n(self) -> int:
        """Length of a state: n_params times one plus the number of buffers."""
        return self._runs.n

    @cached_property
    def _text(self) -> str:
        single = ", dtype='float32'" if self.dtype == "float32" else ""
        return f"TrainingMap({self.network!r}, {len(self.X)} samples, {self.optimizer!r}{single})"

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        data = (self.network, self.X, self.y, self.optimizer)
        return partial(TrainingMap, dtype=self.dtype), data

    # --- states -----------------------------------------------------------------------------------

    def state(self, w: ArrayLike) -> Floats:
        """State of given weights, with zero buffers.

        Parameters
        ----------
        w : array_like, shape (..., n_params) or (..., n)
            Weights. A state is returned as it is.

        Returns
        -------
        ndarray, shape (..., n)
            States.
        """
        return self._runs.states(w, "w")

    def weights(self, x: ArrayLike) -> Floats:
        """Weights of a state.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (..., n_params)
            Weights, a view of x where it is a float64 array.
        """
        return self._runs.states(x)[..., : self.n_params]

    def batch(self, t: int) -> NDArray[np.int64]:
        """Samples in the minibatch of a step.

        Parameters
        ----------
        t : int
            Index of the step.

        Returns
        -------
        ndarray of int, shape (batch_size,)
            Indices of the samples, in order. The last batch of an epoch may be smaller.
        """
        return self._runs.problem.batch(_checks.integer("t", t, least=0))

    # --- the map ----------------------------------------------------------------------------------

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """States after one step.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        t : int, default 0
            Index of the step, which selects the minibatch and Adam's bias correction.

        Returns
        -------
        ndarray, shape (..., n)
            States after step t. All of a state is nan if an entry of it is not finite.
        """
        t = _checks.integer("t", t, least=0)
        runs = self._runs
        flat, batch = runs.flat(x)
        rates = runs.rates(batch, t, 1)
        out = np.empty_like(flat)

        def work(task: core.Task) -> None:
            runs.problem.step(flat, rates, t, out, task)

        runs.over(work, len(flat), runs.step_cost(0, None))
        return out.reshape((*batch, self.n))

    def jacobian(self, x: ArrayLike, t: int = 0) -> Floats:
        """Jacobian of a step; I − lr·H for gradient descent.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (..., n, n)
            Jacobians of step t at x.

        Raises
        ------
        ArgumentError
            If the Jacobians would not fit in memory.
        """
        flat, batch = self._runs.flat(x)
        _checks.memory(
            f"Jacobians of {len(flat)} states of length {self.n}",
            8.0 * len(flat) * self.n**2 + self._runs.workspace(self.n, "dense"),
            "use tangent, which needs no Jacobian",
        )
        identity = np.broadcast_to(np.eye(self.n), (len(flat), self.n, self.n))
        out = self._runs.tangent(flat, batch, identity, t, "dense")
        return out.reshape((*batch, self.n, self.n))

    def tangent(
        self, x: ArrayLike, V: ArrayLike, t: int = 0, *, method: Method | None = None
    ) -> Floats:
        """Jacobian of a step applied to tangent vectors, ``jacobian(x, t) @ V``.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        V : array_like, shape (..., n, k) or (n,)
            Tangent vectors, in the columns. Their batch broadcasts against the batch of x.
        t : int, default 0
            Index of the step.
        method : {"dense", "matrix-free"}, optional
            ``"dense"`` forms the Hessian, ``"matrix-free"`` uses the R-operator. By default the
            method with fewer operations.

        Returns
        -------
        ndarray, shape (..., n, k) or (..., n)
            Tangent vectors after the step.
        """
        flat, whole, vectors = self._pairs(x, V)
        k = vectors.shape[-1]
        out = self._runs.tangent(flat, whole, vectors, t, method).reshape((*whole, self.n, k))
        return out[..., 0] if np.ndim(V) == 1 else out

    def adjoint(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Transposed Jacobian of a step applied to vectors, ``jacobian(x, t).T @ V``.

        The Jacobian is not formed; the cost is that of `tangent`.

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

        Examples
        --------
        >>> net = pl.Network((2, 3, 1))
        >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(), pl.Adam(lr=0.1))
        >>> w0, u = net.init(seed=0), np.ones(39)
        >>> bool(np.allclose(system.adjoint(w0, u), system.jacobian(w0).T @ u))
        True
        """
        t = _checks.integer("t", t, least=0)
        flat, whole, vectors = self._pairs(x, V)
        shape = (*whole, self.n, vectors.shape[-1])
        out = adjoint_of_step(self, flat.reshape((*whole, self.n)), vectors.reshape(shape), t)
        return out[..., 0] if np.ndim(V) == 1 else out

    def _pairs(self, x: ArrayLike, V: ArrayLike) -> tuple[Floats, tuple[int, ...], Floats]:
        """States (runs, n), the shape of their batch, and the vectors (runs, n, k) of each."""
        flat, batch = self._runs.flat(x)
        flat, vectors, whole = paired(flat, batch, columns(V, self.n), np.shape(V))
        return flat, whole, vectors

    def trajectory(
        self,
        x: ArrayLike,
        n_steps: int,
        every: int = 1,
        start: int = 0,
        *,
        threads: int | None = None,
        progress: bool | ProgressBar = False,
    ) -> Floats:
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
        threads : int, optional
            Number of threads, all cores this process may use by default.
        progress : bool, default False
            Whether to show a progress bar on stderr.

        Returns
        -------
        ndarray, shape (..., n_steps // every + 1, n)
            Recorded states; the first is x.
        """
        return checked_paths(
            self._runs, x, n_steps, every, start, threads=threads, progress=progress
        )

    # --- the loss, of the whole data --------------------------------------------------------------

    def loss(self, x: ArrayLike) -> Floats:
        """Mean loss of the whole data, without weight decay.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (...)
            Losses.
        """
        return self._runs.evaluate(self.weights(x), "loss", ())

    def gradient(self, x: ArrayLike) -> Floats:
        """Gradient of `loss` with respect to the weights.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (..., n_params)
            Gradients.
        """
        return self._runs.evaluate(self.weights(x), "gradient", (self.n_params,))

    def hessian(self, x: ArrayLike) -> Floats:
        """Hessian of `loss` with respect to the weights.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (..., n_params, n_params)
            Hessians, exactly symmetric.

        Raises
        ------
        ArgumentError
            If the Hessians would not fit in memory.
        """
        return self._runs.hessians(self._runs.states(x))

    def accuracy(self, x: ArrayLike) -> Floats:
        """Fraction of the samples that are classified correctly.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (...)
            Fraction of the samples whose most probable class is the label; nan for states that are
            not finite.
        """
        return self.network.accuracy(self.weights(x), self.X, self.y)


def require_training(system: Any, why: str) -> None:
    """Refuse what is not a `TrainingMap`; `why` ends the sentence that says what is needed."""
    if not isinstance(system, TrainingMap):
        raise ArgumentTypeError(
            "system", f"must be a TrainingMap, {why}, got {_checks.describe(system)}"
        )


def require_map(system: Any) -> None:
    """Refuse what is not a map."""
    # As isinstance(system, Map), which takes longer than all other checks of a short run.
    functions = (getattr(system, name, None) for name in ("step", "tangent"))
    if not (all(map(callable, functions)) and hasattr(system, "n")):
        raise ArgumentTypeError(
            "system",
            f"must be a TrainingMap, a DiscreteMap or have n, step and tangent, "
            f"got {_checks.describe(system)}",
        )


def runs_of(system: Any) -> TrainingRuns | MapRuns:
    """The internal side of any map, for one analysis."""
    if isinstance(system, TrainingMap):
        return system._runs
    require_map(system)
    return MapRuns(system)


def checked_paths(
    maps: TrainingRuns | MapRuns,
    x: ArrayLike,
    n_steps: int,
    every: int,
    start: int,
    *,
    threads: int | None = None,
    progress: bool | ProgressBar = False,
    name: str = "x",
) -> Floats:
    """Recorded states (..., n_steps // every + 1, n), after checks of the arguments."""
    n_steps, every, start = _checks.recorded_steps(n_steps, every, start)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    flat, batch = maps.flat(x, name)
    shape = (len(flat), n_steps // every + 1, maps.n)
    _checks.trajectory_memory(n_steps, shape)
    out = maps.paths(
        flat,
        start,
        n_steps,
        every,
        batch=batch,
        threads=threads,
        progress=progress,
        label="trajectory",
    )
    return out.reshape((*batch, *shape[1:]))
