"""Training of a JAX model as a map."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks, _extras
from pylyap._bridges.jax_arrays import samples, tree_of_parameters
from pylyap._bridges.jax_optimizers import Rule, require, rule, short
from pylyap._bridges.jax_programs import Programs
from pylyap._bridges.minibatches import Minibatches
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._tangent.scanned import Propagation
from pylyap.optimizers import GradientDescent, Optimizer


def from_jax(
    loss: Callable[..., Any],
    params: Any,
    optimizer: Any,
    data: tuple[Any, ...] | None = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: Seed = 0,
) -> tuple[JaxMap, Floats]:
    """Training of a JAX model as a map, with its tangent by forward-mode differentiation.

    The state is the parameters, flattened in the order of the pytree's leaves, followed by the
    floating-point state of the optimiser. Steps and tangent vectors are compiled by XLA;
    `lyapunov_spectrum` and `ftle` propagate and orthonormalise them without Python between the
    steps.

    Parameters
    ----------
    loss : callable
        ``loss(params)``, or ``loss(params, *data)`` if there are data; returns a scalar. It is
        traced, as by ``jax.jit``, and must be deterministic: random numbers of JAX with a fixed key
        are.
    params : pytree of arrays
        Initial parameters, all of them float64 or all float32. They decide the precision of the
        steps and of the tangent vectors. float64 needs
        ``jax.config.update("jax_enable_x64", True)``.
    optimizer : GradientDescent, Adam or optax.GradientTransformation
        An optimiser of this package, whose rates must be numbers, or one of optax.
    data : tuple of pytrees of arrays, optional
        Arguments of `loss` after the parameters, such as ``(X, y)``. The first axis of each array
        is the samples, from which minibatches are drawn.
    batch_size : int, optional
        Samples per step, for an optimiser of optax; those of this package have their own. By
        default all samples. The last batch of an epoch may be smaller.
    shuffle : bool, default True
        Draw a new permutation of the samples for every epoch, for an optimiser of optax.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations, for an optimiser of optax.

    Returns
    -------
    system : JaxMap
        The map, with `n`, `n_params`, `step`, `tangent`, `loss`, `gradient`, `hessian_vector`,
        `trajectory`, `state`, `weights`, `batch` and `unflatten`. Arguments and results are float64
        arrays of NumPy.
    w0 : ndarray, shape (n_params,)
        The initial parameters, flattened.

    Raises
    ------
    ArgumentError
        If a leaf of the parameters is not float64 or float32 or not finite, the loss is not a
        finite scalar or not deterministic, arrays of the data differ in length, or the state of the
        optimiser contains keys of random numbers or counters that do not advance by one at every
        step.
    ImportError
        If JAX is not installed.

    See Also
    --------
    TrainingMap : Dense networks, with compiled kernels.

    Notes
    -----
    With an optimiser of this package the map is that of `TrainingMap`, with the same minibatches.
    Counters in the state of an optax optimiser are functions of t and not part of the map's state;
    neither are numbers that its update never changes. The derivative of a square root at 0 is taken
    as 0 in the update, as in `Adam`: second moments of parameters without a gradient are 0.

    In float32 the frame is orthonormal to about 1e-6, and a direction is destroyed below a relative
    length of about 1e-6 √n.

    On a CPU the runs of a batch are computed one after another by the same program, on several
    threads, so that the results of a run do not depend on the others, bit by bit; this is also
    faster than a batched program. `step` and `trajectory` give the same bits. The states of
    `lyapunov_spectrum` agree with them to rounding errors, because XLA fuses the step with the
    tangents. On an accelerator runs are batched with ``jax.vmap``, and results of a run agree to
    rounding errors.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import pylyap as pl
    >>> jax.config.update("jax_enable_x64", True)
    >>> X, y = pl.datasets.iris()
    >>> w = pl.Network((4, 10, 3)).init(seed=0)[:43]
    >>> params = {"W": jnp.asarray(w[:40].reshape(10, 4)), "V": jnp.ones((3, 10)) / 10}
    >>> def loss(params, X, y):
    ...     logits = jnp.tanh(X @ params["W"].T) @ params["V"].T
    ...     return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()
    >>> system, w0 = pl.from_jax(loss, params, pl.GradientDescent(lr=0.1), (X, y))
    >>> pl.lyapunov_spectrum(system, w0, n_steps=50, k=3).exponents.shape
    (3,)
    >>> system.unflatten(w0)["V"].shape
    (3, 10)
    """
    _extras.require("jax", extra="jax", for_="from_jax")
    if not callable(loss):
        raise ArgumentTypeError("loss", f"must be callable, got {_checks.describe(loss)}")
    require(optimizer)
    size = None if batch_size is None else _checks.integer("batch_size", batch_size, least=1)
    shuffle, seed = _checks.flag("shuffle", shuffle), _checks.reusable_seed(seed)
    if isinstance(optimizer, Optimizer):
        if size is not None:
            raise ArgumentError("batch_size", "must be that of the optimizer, which has its own")
        order: Optimizer = optimizer
    else:
        order = GradientDescent(batch_size=size, shuffle=shuffle, seed=seed)
    system = JaxMap(loss, params, optimizer, data, order)
    return system, system.initial_weights


class JaxMap:
    """The map that `from_jax` returns, with methods as those of a `TrainingMap`."""

    def __init__(
        self, loss: Callable[..., Any], params: Any, optimizer: Any, data: Any, order: Optimizer
    ) -> None:
        import jax
        from jax.flatten_util import ravel_pytree

        self.optimizer, self._order, self._function = optimizer, order, loss
        params, self._device = tree_of_parameters(params)
        flat, unravel = ravel_pytree(params)
        self._by_default = self._device == jax.local_devices()[0] and data is not None
        self._x64 = bool(jax.config.read("jax_enable_x64"))
        self._unravel = unravel
        self._dtype = np.dtype(flat.dtype)
        self._params = jax.tree_util.tree_map(np.asarray, params)
        self.initial_weights: Floats = np.asarray(flat, dtype=np.float64)
        self.n_params = int(flat.size)
        self._data, n_samples = samples(data, self._device)
        if order.batch_size is not None and not n_samples:
            raise ArgumentError("batch_size", "needs data, got data=None")
        self._require_loss(params)
        self._batches = Minibatches(order, max(1, n_samples))
        self._rule: Rule = rule(optimizer, params, self.n_params, unravel)
        self.n = self.n_params + self._rule.n_buffers
        # On accelerators runs are batched: a step takes about as long for many runs as for one.
        self.lanes = 1 if self._device.platform == "cpu" else 256

    def _require_loss(self, params: Any) -> None:
        """Refuse a loss that is no finite scalar, or not deterministic."""
        import jax
        import jax.numpy as jnp

        with np.errstate(all="ignore"):
            try:
                # Of two functions, since a trace of the same function is remembered.
                (first, shape), (second, _) = (
                    jax.make_jaxpr(lambda *given: self._function(*given), return_shape=True)(
                        params, *self._data
                    )
                    for _ in range(2)
                )
            except Exception as error:
                raise ArgumentError(
                    "loss",
                    f"must take params and the arrays of data, but it raised {short(error)}",
                ) from error
        if not hasattr(shape, "shape") or shape.shape != ():
            found = getattr(shape, "shape", None)
            got = _checks.describe(shape) if found is None else f"shape {found}"
            raise ArgumentError("loss", f"must return a scalar for params and data, got {got}")
        if not jnp.issubdtype(shape.dtype, jnp.floating):
            raise ArgumentError("loss", f"must return a real number, got {shape.dtype}")
        if np.dtype(shape.dtype).itemsize < self._dtype.itemsize:
            raise ArgumentError(
                "loss",
                f"must return {self._dtype}, the dtype of params, got {shape.dtype}: a part of it "
                "is in lower precision",
            )
        if not _same(first, second):
            raise ArgumentError(
                "loss",
                "must be deterministic, but two traces of it differ: random numbers that are not "
                "JAX's, or another state?",
            )
        value = float(self._programs.loss(self._data, self._put(self.initial_weights)))
        if not math.isfinite(value):
            raise ArgumentError("loss", f"must be finite at params, got {value}")

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", repr(self._function))
        rule = self.optimizer if isinstance(self.optimizer, Optimizer) else "optax"
        single = "" if self._dtype == np.float64 else ", float32"
        return f"JaxMap({name}, {self.n_params} parameters, {rule}{single})"

    def __reduce__(self) -> tuple[Any, ...]:
        import jax

        data = jax.tree_util.tree_map(np.asarray, self._data) or None
        return JaxMap, (self._function, self._params, self.optimizer, data, self._order)

    # --- conversion -------------------------------------------------------------------------------

    @cached_property
    def _programs(self) -> Programs:
        return Programs(self)

    def _put(self, array: ArrayLike) -> Any:
        import jax

        with np.errstate(over="ignore"):  # beyond single precision: infinite
            found = np.asarray(array, self._dtype)
        # Compiled programs take arrays of NumPy ten times faster than `device_put`.
        return found if self._by_default else jax.device_put(found, self._device)

    def _states(self, x: ArrayLike, name: str = "x") -> tuple[Floats, tuple[int, ...]]:
        """States (m, n) and the shape of their batch; weights get the optimiser's first state."""
        states = _checks.floats(name, x, finite=False)
        length = states.shape[-1] if states.ndim else 0
        if length != self.n and length != self.n_params:
            allowed = f"(..., {self.n})"
            if self.n != self.n_params:
                allowed += f" or, for plain weights, (..., {self.n_params})"
            raise ArgumentError(name, f"must have shape {allowed}, got {states.shape}")
        flat = states.reshape(-1, length)
        if length != self.n:
            flat = self._per_run(self._programs.buffers, flat, self.n)
        return flat, states.shape[:-1]

    def _per_run(self, program: Any, rows: Floats, length: int) -> Floats:
        out = np.empty((len(rows), length))
        with self._precision():
            for r, row in enumerate(rows):
                out[r] = program(self._put(row))
        return out

    def _precision(self) -> Any:
        """The precision in which the system was made, in any thread."""
        import jax

        return jax.enable_x64(self._x64)

    def state(self, w: ArrayLike) -> Floats:
        """State of given weights, with the optimiser's state before its first step.

        Parameters
        ----------
        w : array_like, shape (..., n_params) or (..., n)
            Weights. A state is returned as it is.

        Returns
        -------
        ndarray, shape (..., n)
            States.
        """
        flat, batch = self._states(w, "w")
        return flat.reshape((*batch, self.n))

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
        states = _checks.floats("x", x, finite=False)
        if not states.ndim or states.shape[-1] not in (self.n, self.n_params):
            raise ArgumentError("x", f"must have shape (..., {self.n}), got {states.shape}")
        return states[..., : self.n_params]

    def unflatten(self, x: ArrayLike) -> Any:
        """Parameters of a state, as the pytree that `from_jax` got.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States or weights.

        Returns
        -------
        pytree of jax.Array
            Parameters, with the batch axes of x before their own.
        """
        import jax

        weights = self.weights(x)
        batch = weights.shape[:-1]
        leaves, tree = jax.tree_util.tree_flatten(self._params)
        ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
        with self._precision():
            parts = [
                jax.device_put(
                    part.reshape((*batch, *leaf.shape)).astype(self._dtype), self._device
                )
                for part, leaf in zip(np.split(weights, ends, axis=-1), leaves, strict=True)
            ]
        return jax.tree_util.tree_unflatten(tree, parts)

    def batch(self, t: int) -> Any:
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
        t = _checks.integer("t", t, least=0)
        batches = self._batches
        if batches.full:
            return np.arange(batches.n_samples)
        last = t % batches.per_epoch == batches.per_epoch - 1
        row = batches.rows(t, 1, 1)[0].astype(np.int64)
        return row[: batches.last] if last else row

    def _inputs(self, start: int, n_steps: int, length: int) -> tuple[Any, Any]:
        """Factors of the rate and samples of the steps from `start`, in arrays of `length` rows."""
        import jax

        factors = self._order._factors(start, n_steps)
        if factors is not None:
            longer = np.zeros(length, self._dtype)
            longer[:n_steps] = factors
            factors = jax.device_put(longer, self._device)
        rows = None
        if not self._batches.full:
            rows = jax.device_put(self._batches.rows(start, n_steps, length), self._device)
        return factors, rows

    # --- the map ----------------------------------------------------------------------------------

    def step(self, x: ArrayLike, t: int = 0) -> Floats:
        """States after one step.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States before the step.
        t : int, default 0
            Index of the step, which selects the minibatch and the optimiser's counters.

        Returns
        -------
        ndarray, shape (..., n)
            States after step t. All of a state is nan if an entry of it is not finite.
        """
        t = _checks.integer("t", t, least=0)
        flat, batch = self._states(x)
        return self._advanced(flat, t, 1).reshape((*batch, self.n))

    def step_batch(self, X: ArrayLike, t: int = 0) -> Floats:
        """States after one step, of many states in one call.

        Parameters
        ----------
        X : array_like, shape (m, n)
            States before the step.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (m, n)
            States after step t; equal states have equal images.
        """
        return self.step(X, t)

    def _advanced(self, states: Floats, t: int, n_steps: int) -> Floats:
        """States (m, n) after n_steps steps."""
        out = np.empty_like(states)
        with self._precision():
            for first in range(0, len(states), _ROWS):
                some = states[first : first + _ROWS]
                rows = 1 << (len(some) - 1).bit_length()  # few programs for all sizes of a batch
                padded = np.concatenate(
                    [some, np.broadcast_to(some[-1:], (rows - len(some), self.n))]
                )
                x, s = self._put(padded), 0
                while s < n_steps:
                    count = min(STEPS, n_steps - s)
                    inputs = self._inputs(t + s, count, STEPS)
                    x = self._programs.advance(self._data, x, len(some), t + s, count, *inputs)
                    s += count
                out[first : first + _ROWS] = np.asarray(x)[: len(some)]
        return out

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
        ndarray, shape (..., n, k) or (n,)
            Tangent vectors after step t.
        """
        t = _checks.integer("t", t, least=0)
        flat, batch = self._states(x)
        return self._per_pair(partial(self._pushed, t), flat, batch, V, self.n)

    def tangent_batch(self, X: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Jacobians of a step applied to tangent vectors, of many states in one call.

        Parameters
        ----------
        X : array_like, shape (m, n)
            States before the step.
        V : array_like, shape (m, n, k)
            Tangent vectors of each state.
        t : int, default 0
            Index of the step.

        Returns
        -------
        ndarray, shape (m, n, k)
            Tangent vectors after step t.
        """
        return self.tangent(X, V, t)

    def _pushed(self, t: int, x: Any, vectors: Any) -> Any:
        inputs = self._inputs(t, 1, 1)
        return self._programs.tangent(self._data, x, vectors, t, *inputs)

    def _per_pair(
        self, program: Any, flat: Floats, batch: tuple[int, ...], V: ArrayLike, n: int
    ) -> Floats:
        """program(x, V) of each state with its vectors (..., n, k), or (n,)."""
        vectors = _checks.floats("V", V, finite=False)
        column = vectors.ndim == 1
        vectors = vectors[:, np.newaxis] if column else vectors
        if vectors.ndim < 2 or vectors.shape[-2] != n or vectors.shape[-1] == 0:
            raise ArgumentError(
                "V", f"must have shape (..., {n}, k) with k >= 1, got {np.shape(V)}"
            )
        try:
            whole = np.broadcast_shapes(batch, vectors.shape[:-2])
        except ValueError:
            raise ArgumentError(
                "V", f"must broadcast against states of batch shape {batch}, got {np.shape(V)}"
            ) from None
        states = np.broadcast_to(flat.reshape((*batch, self.n)), (*whole, self.n))
        vectors = np.broadcast_to(vectors, (*whole, *vectors.shape[-2:]))
        out = np.empty(vectors.shape)
        with self._precision():
            for index in np.ndindex(whole):
                out[index] = program(self._put(states[index]), self._put(vectors[index]))
        return out[..., 0] if column else out

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
        n_steps = _checks.integer("n_steps", n_steps, least=0)
        every = _checks.integer("every", every, least=1)
        start = _checks.integer("start", start, least=0)
        if n_steps % every:
            raise ArgumentError(
                "every", f"must divide n_steps, got every={every} and n_steps={n_steps}"
            )
        flat, batch = self._states(x)
        shape = (len(flat), n_steps // every + 1, self.n)
        _checks.memory(
            f"the trajectory of n_steps={n_steps} steps", 8.0 * math.prod(shape),
            "record less with every=",
        )  # fmt: skip
        out = np.empty(shape)
        out[:, 0] = flat
        for record in range(1, shape[1]):
            t = start + (record - 1) * every
            out[:, record] = self._advanced(out[:, record - 1], t, every)
        return out.reshape((*batch, *shape[1:]))

    def propagate(
        self,
        x: Floats,
        V: Floats,
        t: int,
        n_steps: int,
        *,
        qr_every: int,
        record_every: int,
        since_record: int,
    ) -> Propagation:
        """Steps of states and frames, with orthonormalisations; see `Propagation`."""
        results = []
        with self._precision():
            for first in range(0, len(x), self.lanes):
                some = slice(first, first + self.lanes)
                results.append(
                    self._programs.propagate(
                        x[some], V[some], t, n_steps, qr_every, record_every, since_record
                    )
                )
        return Propagation(*(np.concatenate(parts) for parts in zip(*results, strict=True)))

    # --- the loss, of the whole data --------------------------------------------------------------

    def loss(self, x: ArrayLike) -> Floats:
        """Loss of the whole data.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.

        Returns
        -------
        ndarray, shape (...)
            Losses.
        """
        weights = self.weights(x)
        flat = weights.reshape(-1, self.n_params)
        losses = self._per_run(partial(self._programs.loss, self._data), flat, 1)
        return losses.reshape(weights.shape[:-1])[()]

    def loss_batch(self, X: ArrayLike) -> Floats:
        """Losses of the whole data, of many states in one call.

        Parameters
        ----------
        X : array_like, shape (m, n)
            States.

        Returns
        -------
        ndarray, shape (m,)
            Losses.
        """
        return self.loss(X)

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
        weights = self.weights(x)
        flat = weights.reshape(-1, self.n_params)
        program = partial(self._programs.gradient, self._data)
        return self._per_run(program, flat, self.n_params).reshape(weights.shape)

    def hessian_vector(self, x: ArrayLike, V: ArrayLike) -> Floats:
        """Hessian of `loss` applied to vectors, without forming it.

        Parameters
        ----------
        x : array_like, shape (..., n) or (..., n_params)
            States.
        V : array_like, shape (..., n_params, k) or (n_params,)
            Vectors, in the columns. Their batch broadcasts against the batch of x.

        Returns
        -------
        ndarray, shape (..., n_params, k) or (n_params,)
            Products.
        """
        flat, batch = self._states(x)
        program = partial(self._programs.hessian_vector, self._data)
        return self._per_pair(program, flat, batch, V, self.n_params)


STEPS = 512  # of one call of a compiled program, at most
_ROWS = 1024  # states of one call


def _same(first: Any, second: Any) -> bool:
    """Whether two traces of a function are the same program with the same constants."""
    texts = (re.sub(r"0x[0-9a-f]+", "", str(jaxpr)) for jaxpr in (first, second))
    if len(set(texts)) > 1 or len(first.consts) != len(second.consts):
        return False
    return all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(first.consts, second.consts, strict=True)
    )
