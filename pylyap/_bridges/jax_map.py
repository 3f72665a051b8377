"""The map of a JAX model: conversion of arrays, checks of the loss, and calls of programs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._ahead import Carried
from pylyap._bridges.jax_arrays import samples, tree_of_parameters
from pylyap._bridges.jax_optimizers import Rule, rule, short
from pylyap._bridges.jax_programs import Programs
from pylyap._bridges.jax_recognition import recognised
from pylyap._bridges.minibatches import Minibatches
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._tangent.scanned import Propagation
from pylyap._thresholds import Hyperparameters, hyperparameters
from pylyap._vectors import columns, paired
from pylyap.optimizers import Optimizer


class JaxMap:
    """The map that `from_jax` returns, with methods as those of a `TrainingMap`."""

    _is_deterministic = True  # two traces of the loss were the same

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
        given = (self._function, self._params, self.optimizer, data, self._order)
        return _restored, (self._x64, given)

    # --- conversion -------------------------------------------------------------------------------

    @cached_property
    def _programs(self) -> Programs:
        return Programs(self)

    def _put(self, array: ArrayLike) -> Any:
        import jax

        if self._by_default and self._dtype == np.float64:
            return np.asarray(array, np.float64)
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
        with self._precision(), np.errstate(over="ignore"):  # in single precision
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

    @cached_property
    def hyperparameters(self) -> Hyperparameters | None:
        """Settings on which the stability of a step depends, of optax measured from its update."""
        known = hyperparameters(self.optimizer)
        return recognised(self) if known is None else known

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see each sample once."""
        return self._batches.per_epoch

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
        ndarray, shape (..., n, k) or (n,)
            Products.
        """
        t = _checks.integer("t", t, least=0)
        flat, batch = self._states(x)
        return self._per_pair(partial(self._pulled, t), flat, batch, V, self.n)

    def _pulled(self, t: int, x: Any, vectors: Any) -> Any:
        inputs = self._inputs(t, 1, 1)
        return self._programs.adjoint(self._data, x, vectors, t, *inputs)

    def _pushed(self, t: int, x: Any, vectors: Any) -> Any:
        inputs = self._inputs(t, 1, 1)
        return self._programs.tangent(self._data, x, vectors, t, *inputs)

    def _per_pair(
        self, program: Any, flat: Floats, batch: tuple[int, ...], V: ArrayLike, n: int
    ) -> Floats:
        """program(x, V) of each state with its vectors (..., n, k), or (n,)."""
        states, vectors, whole = paired(flat, batch, columns(V, n), np.shape(V))
        out = np.empty(vectors.shape)
        with self._precision():
            for i in range(len(states)):
                out[i] = program(self._put(states[i]), self._put(vectors[i]))
        out = out.reshape((*whole, *vectors.shape[1:]))
        return out[..., 0] if np.ndim(V) == 1 else out

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
        n_steps, every, start = _checks.recorded_steps(n_steps, every, start)
        flat, batch = self._states(x)
        shape = (len(flat), n_steps // every + 1, self.n)
        _checks.trajectory_memory(n_steps, shape)
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
        last: bool,
    ) -> Propagation:
        """Steps of states and frames, with orthonormalisations; see `Propagation`."""
        with self._precision():
            return self._programs.propagate(
                x, V, t, n_steps, qr_every, record_every, since_record, last
            )

    @property
    def carried_rounding(self) -> float:
        """Relative rounding error of the vectors."""
        return float(np.finfo(self._dtype).eps)

    def steps_per_carry(self, k: int) -> int:
        """Number of steps of a call with k vectors, at most."""
        return int(np.clip(_CARRIED / (8 * self.n * (2 * k + 1)), 1, 64))

    def carry(self, x: Floats, V: Floats, t: int, n_steps: int, *, qr_every: int) -> Carried:
        """Steps of one run with its vectors; see `Carried`."""
        length = self.steps_per_carry(V.shape[1])
        with self._precision():
            inputs = self._inputs(t, n_steps, length)
            counts = np.array([n_steps, qr_every])
            found = self._programs.carry(
                self._data, self._put(x), self._put(V), t, counts, *inputs, length=length
            )
            return Carried(*(np.asarray(a, np.float64)[:n_steps] for a in found))

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

    def batch_gradient(self, x: ArrayLike, t: int = 0) -> Floats:
        """Gradient (..., n_params) of the loss of the samples of step t."""
        t = _checks.integer("t", t, least=0)
        weights, rows = self.weights(x), self._rows(t)
        programs = self._programs
        flat = weights.reshape(-1, self.n_params)
        found = self._per_run(
            lambda w: programs.batch_gradient(self._data, w, t, rows), flat, self.n_params
        )
        return found.reshape(weights.shape)

    def batch_hessian_vector(self, x: ArrayLike, V: ArrayLike, t: int = 0) -> Floats:
        """Hessian of the loss of the samples of step t applied to vectors, as `hessian_vector`."""
        t = _checks.integer("t", t, least=0)
        flat, batch = self._states(x)
        programs, rows = self._programs, self._rows(t)

        def program(x: Any, V: Any) -> Any:
            return programs.batch_hessian_vector(self._data, x, V, t, rows)

        return self._per_pair(program, flat, batch, V, self.n_params)

    def _rows(self, t: int) -> Any:
        """Samples of step t on the device, (1, size); None for all."""
        import jax

        if self._batches.full:
            return None
        return jax.device_put(self._batches.rows(t, 1, 1), self._device)

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
MANY = 4096  # the same, where every step has the same samples and rate
_ROWS = 1024  # states of one call
_CARRIED = 16e6  # bytes of states and vectors of one call


def _restored(x64: bool, given: tuple[Any, ...]) -> JaxMap:
    """A pickled map, in the precision in which it was made: that of a process is single."""
    import jax

    with jax.enable_x64(x64):
        return JaxMap(*given)


def _same(first: Any, second: Any) -> bool:
    """Whether two traces of a function are the same program with the same constants."""
    texts = (re.sub(r"0x[0-9a-f]+", "", str(jaxpr)) for jaxpr in (first, second))
    if len(set(texts)) > 1 or len(first.consts) != len(second.consts):
        return False
    return all(
        np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
        for a, b in zip(first.consts, second.consts, strict=True)
    )
