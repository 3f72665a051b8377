"""Compiled programs of a JAX map: steps, tangents and runs of both."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats
from pylyap._tangent.scanned import Propagation

if TYPE_CHECKING:
    from pylyap._bridges.jax_map import JaxMap


class Programs:
    """Functions of JAX arrays, compiled at their first call.

    The numbers of steps are arguments of the programs, not constants: one program serves all, and
    the step is compiled in the same way for each of them.

    Parameters
    ----------
    system : JaxMap
        The map.
    """

    def __init__(self, system: JaxMap) -> None:
        self.system = system

    # --- one step ---------------------------------------------------------------------------------

    def _loss(self, data: Any, w: Any) -> Any:
        return self.system._function(self.system._unravel(w), *data)

    def _step(self, data: Any, x: Any, t: Any, factor: Any, rows: Any) -> tuple[Any, Any]:
        """State after step t, and the loss before it on the samples of the step."""
        import jax
        from jax import lax
        from jax import numpy as jnp

        system, batches = self.system, self.system._batches

        def on(batch: Any) -> tuple[Any, Any]:
            w, buffers = x[: system.n_params], x[system.n_params :]
            value, gradient = jax.value_and_grad(lambda w: self._loss(batch, w))(w)
            w, buffers = system._rule.update(
                w, buffers, gradient, t, factor, value, lambda p: system._function(p, *batch)
            )
            after = jnp.concatenate([w, buffers]) if system.n > system.n_params else w
            return after, value.astype(x.dtype)

        def of(size: int) -> tuple[Any, Any]:
            chosen = rows[:size]
            return on(jax.tree_util.tree_map(lambda array: array[chosen], data))

        if rows is None:
            return on(data)
        if batches.last == batches.size:
            return of(batches.size)
        last = t % batches.per_epoch == batches.per_epoch - 1
        result: tuple[Any, Any] = lax.cond(last, lambda: of(batches.last), lambda: of(batches.size))
        return result

    def _push(
        self, data: Any, x: Any, V: Any, t: Any, factor: Any, rows: Any
    ) -> tuple[Any, Any, Any]:
        """State after step t, its Jacobian times V, and the loss before it."""
        import jax

        def step(x: Any) -> tuple[Any, Any]:
            return self._step(data, x, t, factor, rows)

        def along(v: Any) -> tuple[Any, Any, Any]:
            result: tuple[Any, Any, Any] = jax.jvp(step, (x,), (v,), has_aux=True)
            return result

        pushed: tuple[Any, Any, Any] = jax.vmap(along, in_axes=1, out_axes=(None, 1, None))(V)
        return pushed

    # --- programs ---------------------------------------------------------------------------------

    @cached_property
    def loss(self) -> Any:
        """(data, w) -> loss."""
        import jax

        return jax.jit(self._loss)

    @cached_property
    def gradient(self) -> Any:
        """(data, w) -> gradient."""
        import jax

        return jax.jit(jax.grad(self._loss, argnums=1))

    @cached_property
    def hessian_vector(self) -> Any:
        """(data, x, V) -> Hessian at x times V."""
        import jax

        def product(data: Any, x: Any, V: Any) -> Any:
            gradient = jax.grad(lambda w: self._loss(data, w))
            w = x[: self.system.n_params]
            return jax.vmap(lambda v: jax.jvp(gradient, (w,), (v,))[1], 1, 1)(V)

        return jax.jit(product)

    def _of_batch(self, data: Any, w: Any, t: Any, rows: Any) -> Any:
        """Loss of the samples of step t."""
        import jax
        from jax import lax

        batches = self.system._batches

        def of(size: int) -> Any:
            chosen = rows[:size]
            return self._loss(jax.tree_util.tree_map(lambda array: array[chosen], data), w)

        if rows is None:
            return self._loss(data, w)
        if batches.last == batches.size:
            return of(batches.size)
        last = t % batches.per_epoch == batches.per_epoch - 1
        return lax.cond(last, lambda: of(batches.last), lambda: of(batches.size))

    @cached_property
    def batch_gradient(self) -> Any:
        """(data, w, t, rows) -> gradient of the loss of the samples of step t."""
        import jax

        def gradient(data: Any, w: Any, t: Any, rows: Any) -> Any:
            return jax.grad(self._of_batch, argnums=1)(data, w, t, _of_step(None, rows, 0)[1])

        return jax.jit(gradient)

    @cached_property
    def batch_hessian_vector(self) -> Any:
        """(data, x, V, t, rows) -> Hessian of the loss of the samples of step t times V."""
        import jax

        def product(data: Any, x: Any, V: Any, t: Any, rows: Any) -> Any:
            chosen = _of_step(None, rows, 0)[1]
            gradient = jax.grad(lambda w: self._of_batch(data, w, t, chosen))
            w = x[: self.system.n_params]
            return jax.vmap(lambda v: jax.jvp(gradient, (w,), (v,))[1], 1, 1)(V)

        return jax.jit(product)

    @cached_property
    def buffers(self) -> Any:
        """w -> state."""
        import jax
        from jax import numpy as jnp

        return jax.jit(lambda w: jnp.concatenate([w, self.system._rule.buffers(w)]))

    @cached_property
    def tangent(self) -> Any:
        """(data, x, V, t, factors, rows) -> J V of step t."""
        import jax

        def tangent(data: Any, x: Any, V: Any, t: Any, factors: Any, rows: Any) -> Any:
            return self._push(data, x, V, t, *_of_step(factors, rows, 0))[1]

        return jax.jit(tangent)

    @cached_property
    def adjoint(self) -> Any:
        """(data, x, V, t, factors, rows) -> Jᵀ V of step t."""
        import jax

        def adjoint(data: Any, x: Any, V: Any, t: Any, factors: Any, rows: Any) -> Any:
            chosen = _of_step(factors, rows, 0)
            pull = jax.vjp(lambda x: self._step(data, x, t, *chosen)[0], x)[1]
            return jax.vmap(lambda v: pull(v)[0], 1, 1)(V)

        return jax.jit(adjoint)

    @cached_property
    def advance(self) -> Any:
        """(data, x, m, t, count, factors, rows) -> the first m states x after `count` steps."""
        import jax
        from jax import lax
        from jax import numpy as jnp

        def advance(data: Any, x: Any, m: Any, t: Any, count: Any, factors: Any, rows: Any) -> Any:
            def steps(x: Any) -> Any:
                def body(s: Any, x: Any) -> Any:
                    return _all_or_nan(self._step(data, x, t + s, *_of_step(factors, rows, s))[0])

                return lax.fori_loop(0, count, body, x)

            if self.system.lanes > 1:
                return jax.vmap(steps)(x)

            def one(r: Any, x: Any) -> Any:
                row = lax.dynamic_index_in_dim(x, r, 0, keepdims=False)
                return lax.dynamic_update_index_in_dim(x, steps(row), r, 0)

            return lax.fori_loop(0, jnp.asarray(m), one, x)

        return jax.jit(advance)

    @cached_property
    def _propagate(self) -> Any:
        """`units` times: `per_unit` steps with the frame, then its orthonormalisation."""
        import jax
        from jax import lax
        from jax import numpy as jnp

        system = self.system
        full = system._batches.full

        def run(
            data: Any, x: Any, Q: Any, t: Any, counts: Any, length: int, single: bool,
            factors: Any, rows: Any,
        ) -> tuple[Any, ...]:  # fmt: skip
            units, per_unit, record, phase, last = counts
            # x @ zeros is 0 for finite x, otherwise nan: one product in place of three loops.
            zeros = 0.0 * x

            def step(s: Any, x: Any, Q: Any) -> tuple[Any, Any, Any]:
                return self._push(data, x, Q, t + s, *_of_step(factors, rows, s))

            def unit(i: Any, carry: Any) -> Any:
                x, Q, rows_out = carry
                before, more = x, 0.0
                if single:
                    x, Q, value = step(i, x, Q)
                    finite = x @ zeros == 0
                else:

                    def inner(j: Any, carry: Any) -> Any:
                        x, Q, more, value, finite = carry
                        x, Q, loss = step(i * per_unit + j, x, Q)
                        # Between orthonormalisations vectors are kept at length one.
                        size = jnp.sqrt((Q * Q).sum(0))
                        used = jnp.where(size > 0, size, 1.0)
                        value = jnp.where(j == 0, loss, value)
                        finite += (finite == j) & (x @ zeros == 0)
                        return x, Q / used, more + jnp.log(used), value, finite

                    zero = jnp.zeros((), x.dtype)
                    start = (x, Q, jnp.zeros(Q.shape[1], x.dtype), zero, jnp.zeros((), jnp.int32))
                    x, Q, more, value, finite = lax.fori_loop(0, per_unit, inner, start)
                Q, r, size = orthonormalised(Q)
                if not full:
                    value = lax.cond(
                        (phase + i) % record == 0,
                        lambda: self._loss(data, before[: system.n_params]).astype(x.dtype),
                        lambda: jnp.full((), jnp.nan, x.dtype),
                    )
                # One row for all results of a unit: each separate update costs about a microsecond.
                scalars = [value[jnp.newaxis], finite[jnp.newaxis].astype(x.dtype)]
                row = jnp.concatenate([r, size, *scalars, *([] if single else [more])])
                return x, Q, lax.dynamic_update_index_in_dim(rows_out, row, i, 0)

            width = (2 if single else 3) * Q.shape[1] + 2
            start = (x, Q, jnp.zeros((length + 1, width), x.dtype))
            x, Q, rows_out = lax.fori_loop(0, units, unit, start)
            # The loss at the end in a last row: each result costs as much as a small one.
            loss = lax.cond(
                last == 1,
                lambda: self._loss(data, x[: system.n_params]).astype(x.dtype),
                lambda: jnp.full((), jnp.nan, x.dtype),
            )
            return x, Q, rows_out.at[length, 0].set(loss)

        def program(
            data: Any, x: Any, Q: Any, t: Any, counts: Any, factors: Any, rows: Any,
            *, length: int, single: bool,
        ) -> Any:  # fmt: skip
            def one(x: Any, Q: Any) -> Any:
                return run(data, x, Q, t, counts, length, single, factors, rows)

            if len(x) > 1:
                return jax.vmap(one)(x, Q)
            return [jnp.expand_dims(a, 0) for a in one(x[0], Q[0])]

        return jax.jit(program, static_argnames=("length", "single"))

    @cached_property
    def carry(self) -> Any:
        """`count` steps with the frame, all of whose states and vectors are results."""
        import jax
        from jax import lax
        from jax import numpy as jnp

        def program(
            data: Any, x: Any, V: Any, t: Any, counts: Any, factors: Any, rows: Any, *, length: int
        ) -> Any:  # fmt: skip
            count, per_unit = counts

            def body(s: Any, carry: Any) -> Any:
                x, V, states, before, pushed = carry
                before = lax.dynamic_update_index_in_dim(before, V, s, 0)
                x, V, _ = self._push(data, x, V, t + s, *_of_step(factors, rows, s))
                x = _all_or_nan(x)
                states = lax.dynamic_update_index_in_dim(states, x, s, 0)
                pushed = lax.dynamic_update_index_in_dim(pushed, V, s, 0)
                due = (s + 1) % per_unit == 0
                V = lax.cond(due, lambda V: orthonormalised(V)[0], lambda V: V, V)
                return x, V, states, before, pushed

            vectors = jnp.zeros((length, *V.shape), V.dtype)
            start = (x, V, jnp.zeros((length, len(x)), x.dtype), vectors, vectors)
            return lax.fori_loop(0, count, body, start)[2:]

        return jax.jit(program, static_argnames=("length",))

    def propagate(
        self,
        x: Floats,
        V: Floats,
        t: int,
        n_steps: int,
        qr_every: int,
        record_every: int,
        since_record: int,
        last: bool,
    ) -> Propagation:
        """Runs (m, n) with frames (m, n, k), by one program or one per length of a unit."""
        from pylyap._bridges.jax_map import MANY, STEPS

        system, k = self.system, V.shape[-1]
        # Without inputs that differ from step to step a call may be longer.
        alike = system._batches.full and system._order.schedule is None
        length = max(1, (MANY if alike else STEPS) // qr_every)
        state, frame = system._put(x), system._put(V)
        parts, done, ends = [], 0, _Ends(len(x))
        while done < n_steps:
            whole = (n_steps - done) // qr_every
            units, per_unit = (min(length, whole), qr_every) if whole else (1, n_steps - done)
            phase = (since_record + done) // qr_every
            every = max(1, record_every // qr_every)
            ends_here = last and done + units * per_unit == n_steps
            # One array: each number passed alone costs a copy to the device.
            counts = np.array([units, per_unit, every, phase, ends_here])
            inputs: tuple[Any, Any] = (None, None)
            if not alike:
                inputs = system._inputs(t + done, units * per_unit, length * qr_every)
            state, frame, found = self._propagate(
                system._data, state, frame, t + done, counts, *inputs,
                length=length, single=qr_every == 1,
            )  # fmt: skip
            found = np.asarray(found, np.float64)
            parts.append(found[:, :units])
            ends.add(parts[-1][..., 2 * k + 1], per_unit)
            done += units * per_unit
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
        r, size = rows[..., :k], rows[..., k : 2 * k]
        # As in the compiled core: below the rounding error of its length a vector is not resolved.
        least = 4.0 * math.sqrt(system.n) * float(np.finfo(system._dtype).eps)
        with np.errstate(invalid="ignore", divide="ignore"):
            collapsed = ends.collapsed(r <= least * size, size)
            growth = np.log(r)
            if qr_every > 1:
                growth += rows[..., 2 * k + 2 :]
        state, frame = np.array(state, np.float64), np.array(frame, np.float64)
        if not ends.alive.all():
            state[~ends.alive] = frame[~ends.alive] = np.nan
        final = found[:, length, 0] if last else None
        return Propagation(state, frame, growth, rows[..., 2 * k], ends.n_finite, collapsed, final)


class _Ends:
    """Steps after which the states of runs were finite.

    Parameters
    ----------
    runs : int
        Number of runs.

    Attributes
    ----------
    n_finite : ndarray of int, shape (runs,)
        Number of such steps before the first that was not.
    alive : ndarray of bool, shape (runs,)
        Whether all states were finite.
    """

    def __init__(self, runs: int) -> None:
        self.n_finite, self.alive = np.zeros(runs, np.int64), np.ones(runs, bool)
        self._full: list[NDArray[np.bool_]] = []  # units all of whose states were finite

    def add(self, steps: Floats, per_unit: int) -> None:
        """Append units of `per_unit` steps, of which `steps` (runs, n_units) were finite."""
        full = steps == per_unit
        if full.all():
            self.n_finite += self.alive * (steps.shape[1] * per_unit)
        else:
            full = np.logical_and.accumulate(full, axis=1)
            done = full.sum(axis=1)
            some = np.append(steps, np.zeros((len(steps), 1)), 1)[np.arange(len(steps)), done]
            self.n_finite += self.alive * (done * per_unit + some.astype(np.int64))
        self._full.append(full & self.alive[:, np.newaxis])
        self.alive &= full[:, -1]

    def collapsed(self, below: NDArray[np.bool_], size: Floats) -> NDArray[np.bool_]:
        """Runs (runs,) with a direction below its rounding error while the state was finite."""
        if not below.any():
            return np.zeros(len(below), bool)
        some: NDArray[np.bool_] = np.any(below & np.isfinite(size), axis=2)
        found: NDArray[np.bool_] = np.any(some & np.concatenate(self._full, 1), axis=1)
        return found


def _of_step(factors: Any, rows: Any, s: Any) -> tuple[Any, Any]:
    """Factor of the rate and samples of step s, or None."""
    return (None if factors is None else factors[s]), (None if rows is None else rows[s])


def _all_or_nan(x: Any) -> Any:
    from jax import numpy as jnp

    return jnp.where(jnp.isfinite(x).all(), x, jnp.nan)


def orthonormalised(A: Any) -> tuple[Any, Any, Any]:
    """Q of A (n, k) = Q R with diag R > 0, |diag R| and the lengths of the columns of A.

    The library's Householder QR: on a CPU it is LAPACK's, as fast as Gram-Schmidt loops compiled by
    XLA or faster, and orthonormal for any A.
    """
    from jax import numpy as jnp

    if A.shape[1] == 1:
        largest = jnp.abs(A).max()
        scaled = A / jnp.where(largest > 0, largest, 1.0)
        norm = jnp.sqrt((scaled * scaled).sum())
        r = (largest * norm)[jnp.newaxis]
        return scaled / jnp.where(norm > 0, norm, 1.0), r, r
    Q, R = jnp.linalg.qr(A)
    diagonal = jnp.diagonal(R)
    r = jnp.abs(diagonal)
    size = jnp.sqrt((R * R).sum(0))  # the columns of R are as long as those of A
    return Q * jnp.where(diagonal < 0, -1.0, 1.0), r, size
