"""Optimisers as pure functions of flat JAX arrays: of the package, and any of optax."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap.optimizers import Adam, GradientDescent, Optimizer

# A counter is tested at these steps: optax's own counts are below 2^31.
_STEPS = (0, 1, 2, 3, 4, 5, 10, 999, 1000, 10**6)


class Rule(Protocol):
    """An optimiser: the buffers that follow the weights in a state, and the update of both."""

    n_buffers: int

    def buffers(self, w: Any) -> Any:
        """Buffers (n_buffers,) of weights (p,) before the first step."""

    def update(
        self, w: Any, buffers: Any, gradient: Any, t: Any, factor: Any, value: Any, loss: Any
    ) -> tuple[Any, Any]:
        """Weights and buffers after step t; `loss` is a function of the parameters, value its
        value."""


class Descent:
    """`GradientDescent`, as `TrainingMap` applies it."""

    def __init__(self, optimizer: GradientDescent, n_params: int) -> None:
        optimizer._require_no_factors("a model of JAX")
        self.lr = _number("lr", optimizer.lr)
        self.momentum = _number("momentum", optimizer.momentum)
        self.decay = _number("weight_decay", optimizer.weight_decay)
        self.nesterov, self.has_velocity = optimizer.nesterov, bool(optimizer.buffer_names)
        self.n_buffers = n_params if self.has_velocity else 0

    def buffers(self, w: Any) -> Any:
        return 0.0 * w[: self.n_buffers]

    def update(
        self, w: Any, buffers: Any, gradient: Any, t: Any, factor: Any, value: Any, loss: Any
    ) -> tuple[Any, Any]:
        lr = self.lr if factor is None else self.lr * factor
        if self.decay:
            gradient = gradient + self.decay * w
        if not self.has_velocity:
            return w - lr * gradient, buffers
        velocity = self.momentum * buffers - lr * gradient
        step = self.momentum * velocity - lr * gradient if self.nesterov else velocity
        return w + step, velocity


class Moments:
    """`Adam`, as `TrainingMap` applies it."""

    def __init__(self, optimizer: Adam, n_params: int) -> None:
        self.lr, self.decay = (
            _number("lr", optimizer.lr),
            _number("weight_decay", optimizer.weight_decay),
        )
        self.beta1, self.beta2, self.epsilon = optimizer.beta1, optimizer.beta2, optimizer.epsilon
        self.n_params, self.n_buffers = n_params, 2 * n_params

    def buffers(self, w: Any) -> Any:
        import jax.numpy as jnp

        return jnp.zeros(2 * self.n_params, w.dtype)

    def update(
        self, w: Any, buffers: Any, gradient: Any, t: Any, factor: Any, value: Any, loss: Any
    ) -> tuple[Any, Any]:
        import jax.numpy as jnp

        lr = self.lr if factor is None else self.lr * factor
        if self.decay:
            gradient = gradient + self.decay * w
        m, v = buffers[: self.n_params], buffers[self.n_params :]
        m = self.beta1 * m + (1.0 - self.beta1) * gradient
        v = self.beta2 * v + (1.0 - self.beta2) * gradient**2
        exponent = (t + 1).astype(w.dtype)
        first, second = 1.0 - self.beta1**exponent, 1.0 - self.beta2**exponent
        w = w - lr * (m / first) / (regular_sqrt(v / second) + self.epsilon)
        return w, jnp.concatenate([m, v])


class Optax:
    """An optax `GradientTransformation`.

    Its floating-point leaves follow the weights in the state, except those that the update never
    changes. Its counters are functions of the index of the step.
    """

    def __init__(self, optimizer: Any, params: Any, unravel: Callable[[Any], Any]) -> None:
        import jax

        self.unravel = unravel
        self._init, self._update = optimizer.init, optimizer.update
        optax = sys.modules.get("optax")
        extra = getattr(optax, "GradientTransformationExtraArgs", ())
        self._takes_loss = isinstance(optimizer, extra)
        try:
            state = optimizer.init(params)
        except Exception as error:
            raise ArgumentError(
                "optimizer", f"must have an init that takes params, but it raised {short(error)}"
            ) from error
        paths, self._tree = jax.tree_util.tree_flatten_with_path(state)
        names = [f"state{jax.tree_util.keystr(path)}" for path, _ in paths]
        self._first = [leaf for _, leaf in paths]
        dtype = jax.tree_util.tree_leaves(params)[0].dtype
        kinds = [_kind(name, leaf, dtype) for name, leaf in zip(names, self._first, strict=True)]
        self._counters = [i for i, kind in enumerate(kinds) if kind == "counter"]
        constant = self._constant(params, state, names)
        self._constants = [i for i, kind in enumerate(kinds) if kind == "float" and i in constant]
        self._floats = [i for i, kind in enumerate(kinds) if kind == "float" and i not in constant]
        self._shapes = [np.shape(self._first[i]) for i in self._floats]
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._ends = np.cumsum(sizes)
        self.n_buffers = sum(sizes)
        self._first = [jax.device_get(leaf) for leaf in self._first]
        self._require_counters(names, params)

    def _constant(self, params: Any, state: Any, names: list[str]) -> set[int]:
        """Leaves that the update returns as it got them, after a check of the others' types."""
        import jax

        def update(leaves: list[Any], params: Any) -> Any:
            state = jax.tree_util.tree_unflatten(self._tree, leaves)
            updates, state = self._updated(params, params, state, _zero(params), _zero)
            return updates, state

        leaves = jax.tree_util.tree_leaves(state)
        try:
            jaxpr, shapes = jax.make_jaxpr(update, return_shape=True)(leaves, params)
        except Exception as error:
            raise ArgumentError(
                "optimizer",
                f"must have an update(gradients, state, params), but it raised {short(error)}",
            ) from error
        updates, after = shapes
        if jax.tree_util.tree_structure(updates) != jax.tree_util.tree_structure(params):
            raise ArgumentError("optimizer", "must return updates with the structure of params")
        if jax.tree_util.tree_structure(after) != self._tree:
            raise ArgumentError("optimizer", "must keep the structure of its state")
        for name, old, new in zip(names, leaves, jax.tree_util.tree_leaves(after), strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise ArgumentError(
                    "optimizer",
                    f"must keep shapes and dtypes of its state, but {name} changes from "
                    f"{old.dtype} {old.shape} to {new.dtype} {new.shape}",
                )
        outputs = jaxpr.jaxpr.outvars[len(jax.tree_util.tree_leaves(updates)) :]
        inputs = jaxpr.jaxpr.invars
        return {i for i, variable in enumerate(outputs) if variable is inputs[i]}

    def _require_counters(self, names: list[str], params: Any) -> None:
        """Refuse counters that do not advance by one at every step."""
        import jax
        import jax.numpy as jnp

        def advanced(params: Any, gradient: Any, t: Any) -> list[Any]:
            state = self._state(self.buffers_of(params), t)
            state = self._updated(params, gradient, state, _zero(params), _zero)[1]
            leaves = jax.tree_util.tree_leaves(state)
            return [leaves[i] for i in self._counters]

        after = jax.jit(advanced)
        for t in _STEPS if self._counters else ():
            for scale in (0.0, 1.0, np.nan):
                gradient = jax.tree_util.tree_map(lambda p, s=scale: jnp.full_like(p, s), params)
                for i, found in zip(self._counters, after(params, gradient, t), strict=True):
                    before = int(self._first[i]) + t
                    if int(found) != before + 1:
                        raise ArgumentError(
                            "optimizer",
                            f"must have counters that advance by one at every step, but "
                            f"{names[i]} is {int(found)} after {before}",
                        )

    def _state(self, buffers: Any, t: Any) -> Any:
        """The optimiser's state before step t."""
        import jax
        import jax.numpy as jnp

        leaves: list[Any] = [jnp.asarray(leaf) for leaf in self._first]
        for i in self._counters:
            leaves[i] = leaves[i] + jnp.asarray(t).astype(leaves[i].dtype)
        begin = 0
        for i, shape, end in zip(self._floats, self._shapes, self._ends, strict=True):
            leaves[i] = buffers[begin:end].reshape(shape)
            begin = end
        return jax.tree_util.tree_unflatten(self._tree, leaves)

    def _flat(self, state: Any, like: Any) -> Any:
        import jax
        import jax.numpy as jnp

        leaves = jax.tree_util.tree_leaves(state)
        parts = [jnp.ravel(leaves[i]) for i in self._floats]
        return jnp.concatenate(parts) if parts else like[:0]

    def buffers_of(self, params: Any) -> Any:
        import jax
        import jax.numpy as jnp

        like = jnp.ravel(jax.tree_util.tree_leaves(params)[0])
        return self._flat(self._init(params), like)

    def buffers(self, w: Any) -> Any:
        return self.buffers_of(self.unravel(w))

    def _updated(self, params: Any, gradient: Any, state: Any, value: Any, loss: Any) -> Any:
        extra = {"value": value, "grad": gradient, "value_fn": loss} if self._takes_loss else {}
        return self._update(gradient, state, params, **extra)

    def update(
        self, w: Any, buffers: Any, gradient: Any, t: Any, factor: Any, value: Any, loss: Any
    ) -> tuple[Any, Any]:
        import jax
        import jax.numpy as jnp

        def update(w: Any, buffers: Any, gradient: Any, value: Any) -> tuple[Any, Any]:
            params, state = self.unravel(w), self._state(buffers, t)
            updates, state = self._updated(params, self.unravel(gradient), state, value, loss)
            change = jnp.concatenate([jnp.ravel(u) for u in jax.tree_util.tree_leaves(updates)])
            return (w + change).astype(w.dtype), self._flat(state, w)

        result: tuple[Any, Any] = with_regular_sqrt(update, w, buffers, gradient, value)
        return result


def rule(optimizer: Any, params: Any, n_params: int, unravel: Callable[[Any], Any]) -> Rule:
    """The optimiser as a `Rule`."""
    if isinstance(optimizer, GradientDescent):
        return Descent(optimizer, n_params)
    if isinstance(optimizer, Adam):
        return Moments(optimizer, n_params)
    return Optax(optimizer, params, unravel)


def require(optimizer: Any) -> None:
    """Refuse what is neither an optimiser of the package nor a gradient transformation."""
    functions = (getattr(optimizer, name, None) for name in ("init", "update"))
    if isinstance(optimizer, Optimizer) or (
        not isinstance(optimizer, type) and all(callable(f) for f in functions)
    ):
        return
    raise ArgumentTypeError(
        "optimizer",
        "must be a GradientDescent, an Adam or an optax GradientTransformation, "
        f"got {_checks.describe(optimizer)}",
    )


def short(error: BaseException) -> str:
    """An exception of a user's function in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0][:200] if lines else ''}"


def _zero(params: Any) -> Any:
    import jax

    return sum(0.0 * leaf.sum() for leaf in jax.tree_util.tree_leaves(params))


def _number(name: str, value: Any) -> float:
    if not isinstance(value, float):
        raise ArgumentError(
            name,
            f"must be a number for from_jax, got an array of shape {np.shape(value)}: "
            "make a system for each value",
        )
    return value


def _kind(name: str, leaf: Any, dtype: Any) -> str:
    """What a leaf of an optimiser's state is, "float" or "counter"; others are refused."""
    import jax
    import jax.numpy as jnp

    found = getattr(leaf, "dtype", None)
    if found is None:
        raise ArgumentError("optimizer", f"must have a state of arrays, but {name} is no array")
    if jax.dtypes.issubdtype(found, jax.dtypes.prng_key) or (
        found == jnp.uint32 and np.ndim(leaf) > 0
    ):
        raise ArgumentError(
            "optimizer",
            f"must be deterministic, but {name} is the key of a random number generator",
        )
    if jnp.issubdtype(found, jnp.floating):
        if found != dtype:
            raise ArgumentError(
                "optimizer",
                f"must have a state of the dtype of params, {dtype}, but {name} is {found}",
            )
        if not bool(jnp.isfinite(leaf).all()):
            raise ArgumentError(
                "optimizer", f"must have a finite state at first, but {name} is not"
            )
        return "float"
    if jnp.issubdtype(found, jnp.integer) and np.ndim(leaf) == 0:
        return "counter"
    raise ArgumentError(
        "optimizer",
        "must have a state of floating-point arrays and integer counters of the steps, "
        f"but {name} is {found} of shape {np.shape(leaf)}",
    )


# --- the square root at zero ----------------------------------------------------------------------


def regular_sqrt(x: Any) -> Any:
    """Square root whose derivative at 0 is 0, not infinite."""
    import jax.numpy as jnp

    positive = x > 0
    root = jnp.sqrt(jnp.where(positive, x, 1.0))
    return jnp.where(positive, root, jnp.where(x == 0, 0.0, jnp.nan))


def with_regular_sqrt(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments) with `regular_sqrt` in place of each square root.

    The second moment of Adam and its relatives is 0 for parameters whose gradient has always been
    0, such as those of dead units. There the derivative of its root would be 0 · ∞ = nan.
    """
    import jax
    from jax.extend.core import jaxpr_as_fun

    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found = jaxpr_as_fun(_with_regular_roots(jaxpr))(*jax.tree_util.tree_leaves(arguments))
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(shapes), found)


def _with_regular_roots(closed: Any) -> Any:
    """The program with another function in place of `sqrt`, also in the programs that it calls."""
    import jax
    from jax.extend.core import ClosedJaxpr
    from jax.extend.core.primitives import sqrt_p

    def inside(value: Any) -> Any:
        if isinstance(value, ClosedJaxpr):
            return _with_regular_roots(value)
        return tuple(map(inside, value)) if type(value) is tuple else value

    equations = []
    for equation in closed.jaxpr.eqns:
        if equation.primitive is sqrt_p:
            variable = equation.invars[0].aval
            like = jax.ShapeDtypeStruct(variable.shape, variable.dtype)
            call = jax.make_jaxpr(jax.jit(regular_sqrt))(like).jaxpr.eqns[0]
            equation = call.replace(invars=equation.invars, outvars=equation.outvars)
        elif not equation.primitive.name.startswith("custom_"):  # those have their own derivatives
            parameters = {name: inside(value) for name, value in equation.params.items()}
            equation = equation.replace(params=parameters)
        equations.append(equation)
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=equations))
