"""The transposed Jacobian of an optimiser step, by products with its symmetric part.

With K = H + decay, the derivative of the gradient that the optimiser gets, the Jacobian consists of
diagonal blocks and products of diagonals with K in the column of the weights. So its transpose
takes one product with K, which the tangent of the step has in the row of the first buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pylyap._checks import Floats
from pylyap.optimizers import Adam, GradientDescent

if TYPE_CHECKING:
    from pylyap.maps import TrainingMap


def adjoint_of_step(system: TrainingMap, x: Floats, V: Floats, t: int) -> Floats:
    """Transposed Jacobians of step t at states x (..., n) applied to V (..., n, k).

    The batch axes of x and V are the same.
    """
    rule, p = system.optimizer, system.n_params
    factors = system._runs.parameter_factors
    if factors is not None:
        assert isinstance(rule, GradientDescent)
        return _scaled(system, rule, factors[..., np.newaxis], x, V, t)
    if system.n == p:  # I − lr K is symmetric
        return system.tangent(x, V, t)
    parts = [V[..., i : i + p, :] for i in range(0, system.n, p)]

    def products(vectors: Floats) -> Floats:
        """What the first buffer gets from tangents of the weights: a multiple of K times them."""
        padded = np.zeros(V.shape)
        padded[..., :p, :] = vectors
        return system.tangent(x, padded, t)[..., p : 2 * p, :]

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if isinstance(rule, GradientDescent):
            a, b = parts
            kicked, buffer = _momentum(rule, a, b)
            return np.concatenate([a + products(kicked), buffer], axis=-2)
        a, b, c = parts
        by_m, by_u, g = _adam(system, rule, x, t)
        kept = 1.0 - rule.beta1
        from_g = (kept * by_m + 2.0 * (1.0 - rule.beta2) * (g * by_u)) * a
        from_g += kept * b + 2.0 * (1.0 - rule.beta2) * (g * c)
        return np.concatenate(
            [a + products(from_g) / kept, rule.beta1 * (by_m * a + b), rule.beta2 * (by_u * a + c)],
            axis=-2,
        )


def _momentum(rule: GradientDescent, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """What −lr K multiplies in the adjoint of a step with momentum, and the part of the buffer.

    w' = w + e v' − (e ≠ 1) lr K dw, v' = β v − lr K dw, e = β with Nesterov.
    """
    beta = _column(rule.momentum)
    ahead = beta if rule.nesterov else 1.0
    return ((1.0 + beta) * a + b if rule.nesterov else a + b), beta * (ahead * a + b)


def _scaled(
    system: TrainingMap, rule: GradientDescent, factors: Floats, x: Floats, V: Floats, t: int
) -> Floats:
    """The adjoint with factors of the layers, which multiply the rows of K: K D in place of D K.

    Products with −lr K are those of the same optimiser without factors, with momentum: what its
    velocity gets from tangents of the weights.
    """
    p, heavy = system.n_params, system._runs.without_factors
    a = V[..., :p, :]
    with np.errstate(over="ignore", invalid="ignore"):
        kicked, kept = (a, None) if system.n == p else _momentum(rule, a, V[..., p:, :])
        padded = np.zeros((*V.shape[:-2], 2 * p, V.shape[-1]))
        padded[..., :p, :] = factors * kicked
        pulled = heavy.tangent(x[..., :p], padded, t)[..., p:, :]
        return a + pulled if kept is None else np.concatenate([a + pulled, kept], axis=-2)


def _column(rate: Any) -> Any:
    """A rate of each run as a factor of (..., n, k)."""
    return rate if isinstance(rate, float) else np.asarray(rate)[..., np.newaxis, np.newaxis]


def _adam(system: TrainingMap, rule: Adam, x: Floats, t: int) -> tuple[Floats, Floats, Floats]:
    """Derivatives of w' in m' and v', and the gradient of step t with its decay.

    Each is (..., n_params, 1). Where v' = 0 the derivative in it counts as 0, as in the tangent.
    """
    p = system.n_params
    w, m, u = (x[..., i : i + p] for i in range(0, 3 * p, p))
    g = system.step(system.state(w), t)[..., p : 2 * p] / (1.0 - rule.beta1)  # of zero moments
    factors = rule._factors(t, 1)
    lr = rule.lr if factors is None else np.asarray(rule.lr) * float(factors[0])
    lr = lr if isinstance(lr, float) else np.asarray(lr)[..., np.newaxis]
    first = 1.0 / (1.0 - rule.beta1 ** (t + 1))
    second = 1.0 / (1.0 - rule.beta2 ** (t + 1))
    m = rule.beta1 * m + (1.0 - rule.beta1) * g
    root = np.sqrt((rule.beta2 * u + (1.0 - rule.beta2) * g**2) * second)
    below = root + rule.epsilon
    by_m = -lr * first / below
    used = np.where(root > 0.0, root, 1.0)
    by_u = np.where(root > 0.0, lr * (m * first / below) * (0.5 * second / used) / below, 0.0)
    return by_m[..., np.newaxis], by_u[..., np.newaxis], g[..., np.newaxis]
