"""Hyperparameters of an optax optimiser, measured from its update where that has a known form.

A gradient transformation is a pair of functions, which does not show its settings. The update of
gradient descent, of momentum and of Adam is determined by a few of its values. They are measured,
and the form is accepted only if it predicts the update of random states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._checks import Floats
from pylyap._thresholds import Hyperparameters, Moments

if TYPE_CHECKING:
    from pylyap._bridges.jax_map import JaxMap

Update = Callable[[Floats, Floats, Floats, int], tuple[Floats, Floats]]  # (w, buffers, g, t)

_LATE = 10**6  # a step at which bias corrections are 1
_TESTED = (0, 3, 1000)  # steps at which the form must predict the update
_AGREE = {"float64": 1e-9, "float32": 1e-3}  # relative


def recognised(system: JaxMap) -> Hyperparameters | None:
    """Hyperparameters of the optax optimiser of a map; None if its update has another form.

    Schedules inside the optimiser and settings that differ between parameters are other forms.
    """
    n, buffers = system.n_params, system.n - system.n_params
    update = _update(system)
    measure = {0: _descent, n: _momentum, 2 * n: _adam}.get(buffers)
    if measure is None:
        return None
    found = measure(update, system)
    if found is None or not all(map(math.isfinite, _numbers(found))):
        return None
    rng = np.random.default_rng(0)
    for t in _TESTED:
        w, g = rng.normal(size=n), rng.normal(size=n)
        before = rng.normal(size=buffers)
        if buffers == 2 * n:
            before[n:] = before[n:] ** 2
        pairs = zip(update(w, before, g, t), _predicted(found, w, before, g, t), strict=True)
        for one, other in pairs:
            error = np.abs(one - other)
            if not (error <= _AGREE[str(system._dtype)] * (np.abs(other) + np.abs(w).max())).all():
                return None
    return found


def _numbers(found: Hyperparameters) -> list[float]:
    given: list[Any] = [found.lr, found.momentum, found.weight_decay]
    if found.moments is not None:
        given += [found.moments.beta1, found.moments.beta2, found.moments.epsilon]
    return [float(value) for value in given]


def _update(system: JaxMap) -> Update:
    import jax
    import jax.numpy as jnp

    def zero(_: Any) -> Any:
        return jnp.zeros((), system._dtype)

    def one(w: Any, buffers: Any, g: Any, t: Any) -> Any:
        return system._rule.update(w, buffers, g, t, None, zero(w), zero)

    update = jax.jit(one)

    def call(w: Floats, buffers: Floats, g: Floats, t: int) -> tuple[Floats, Floats]:
        with system._precision():
            after = update(system._put(w), system._put(buffers), system._put(g), jnp.asarray(t))
        return np.asarray(after[0], np.float64), np.asarray(after[1], np.float64)

    return call


def _settings(system: JaxMap, **values: Any) -> Hyperparameters:
    common = {"momentum": 0.0, "nesterov": False, "moments": None}
    order = system._order
    return Hyperparameters(**(common | values), batch_size=order.batch_size, order=order)


def _descent(update: Update, system: JaxMap) -> Hyperparameters | None:
    """Settings of w' = w − lr (g + decay w)."""
    one, none = np.ones(system.n_params), np.empty(0)
    lr = -float(update(0 * one, none, one, 0)[0][0])
    pull = 1.0 - float(update(one, none, 0 * one, 0)[0][0])
    return _settings(system, lr=lr, weight_decay=pull / lr) if lr > 0 else None


def _momentum(update: Update, system: JaxMap) -> Hyperparameters | None:
    """Settings of b' = βb + g + decay w, w' = w − lr b', or Nesterov's w' = w − lr (g + βb')."""
    one = np.ones(system.n_params)
    pull = -float(update(0 * one, 0 * one, one, 0)[0][0])
    w, b = update(0 * one, one, 0 * one, 0)
    beta, moved = float(b[0]), -float(w[0])
    decay = float(update(one, 0 * one, 0 * one, 0)[1][0])
    nesterov = abs(moved - beta * pull) > 1e-3 * abs(pull)
    lr = pull / (1.0 + beta) if nesterov else pull
    if not (lr > 0 and 0 <= beta <= 1):
        return None
    return _settings(system, lr=lr, momentum=beta, nesterov=nesterov, weight_decay=decay)


def _adam(update: Update, system: JaxMap) -> Hyperparameters | None:
    """Settings of Adam and AdamW, from updates without bias corrections."""
    n = system.n_params
    one, zero = np.ones(n), np.zeros(n)

    def at(w: Floats, m: Floats, v: Floats) -> tuple[float, float, float]:
        after, buffers = update(w, np.concatenate([m, v]), zero, _LATE)
        return float(after[0]), float(buffers[0]), float(buffers[n])

    bare, beta1, _ = at(zero, one, zero)  # −lr β₁/ε
    full, _, beta2 = at(zero, one, one)  # −lr β₁/(√β₂ + ε)
    if not (0 < beta1 < 1 and 0 < beta2 < 1 and bare < full < 0):
        return None
    lr = math.sqrt(beta2) / (beta1 * (1.0 / bare - 1.0 / full))
    epsilon = -lr * beta1 / bare
    pulled, pull, _ = at(one, zero, one)
    decoupled = pull == 0.0
    decay = (1.0 - pulled) / lr if decoupled else pull / (1.0 - beta1)
    moments = Moments(beta1, beta2, epsilon, decoupled)
    return _settings(system, lr=lr, weight_decay=decay, moments=moments)


def _predicted(
    found: Hyperparameters, w: Floats, buffers: Floats, g: Floats, t: int
) -> tuple[Floats, Floats]:
    """Weights and buffers after step t by the known form."""
    lr, beta, decay = _numbers(found)[:3]
    moments, n = found.moments, len(w)
    if moments is None or not moments.decoupled:
        g = g + decay * w
    if moments is not None:
        m = moments.beta1 * buffers[:n] + (1.0 - moments.beta1) * g
        v = moments.second(buffers[n:], g)
        shrunk = w * (1.0 - lr * decay) if moments.decoupled else w
        return shrunk - lr * m * moments.inverse_root(v, t) ** 2, np.concatenate([m, v])
    if not buffers.size:
        return w - lr * g, buffers
    b = beta * buffers + g
    return w - lr * (g + beta * b if found.nesterov else b), b
