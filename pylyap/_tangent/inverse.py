"""The inverse of the propagator of a training, from solutions with the Jacobian of each step.

The Jacobian of a step is built from diagonals and K = H + decay. Heavy ball and Adam have explicit
inverses with one product with K. Plain descent and Nesterov's momentum need solutions with
1 − lr K, which is symmetric: by MINRES, all vectors at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pylyap._adjoint import _adam, _column
from pylyap._checks import Floats
from pylyap._tangent.propagator import Propagator, scale_exponents
from pylyap.maps import TrainingMap
from pylyap.optimizers import GradientDescent

_RESIDUAL = 1e-14  # relative, of MINRES; rounding errors permit little less
_ITERATIONS = 500


def has_inverse(system: Any) -> bool:
    """Whether each step of a map is inverted here: not where a buffer is forgotten at once."""
    if not isinstance(system, TrainingMap):
        return False
    rule = system.optimizer
    if isinstance(rule, GradientDescent):
        return system.n == system.n_params or bool((np.asarray(rule.momentum) > 0.0).all())
    return rule.beta1 > 0.0 and rule.beta2 > 0.0


@dataclass(eq=False)
class InversePropagator(Propagator):
    """D⁻¹ and its transpose times vectors, 2^-scale, with the interface of `Propagator`.

    Attributes
    ----------
    residuals : ndarray, shape (runs,)
        Largest relative residual of a solution with the Jacobian of a step.
    """

    residuals: Floats = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.residuals = np.zeros(self.plan.runs)

    def forward(self, V: Floats) -> Floats:
        """D⁻¹ V 2^-scale. The first call determines the scales."""
        return self._over_steps(V, range(self.plan.n_steps)[::-1], transposed=False)

    def adjoint(self, U: Floats) -> Floats:
        """D⁻ᵀ U 2^-scale."""
        return self._over_steps(U, range(self.plan.n_steps), transposed=True)

    def _over_steps(self, V: Floats, steps: range, *, transposed: bool) -> Floats:
        first = not self._scaled
        for t in steps:
            V = self._solved(V, t, transposed)
            if first:
                self.scales[:, t] = scale_exponents(V)
            V = self._rescaled(V, t)
            self.progress.advance(self.plan.runs)
        self._scaled = True
        return V

    def _solved(self, V: Floats, t: int, transposed: bool) -> Floats:
        """J⁻¹ V or J⁻ᵀ V of step t of the run for vectors (runs, n, k)."""
        plan, system = self.plan, self.plan.system
        assert isinstance(system, TrainingMap)
        rule, p, start = system.optimizer, system.n_params, plan.start + t
        shape = (*plan.batch, plan.n)
        x = self._state(t).reshape(shape)
        V = V.reshape((*shape, V.shape[-1]))

        def products(vectors: Floats) -> Floats:
            """What the first buffer gets from tangents of the weights: a multiple of K times."""
            return pushed(vectors)[..., p : 2 * p, :]

        def pushed(vectors: Floats) -> Floats:
            padded = np.zeros((*shape, vectors.shape[-1]))
            padded[..., :p, :] = vectors
            return system.tangent(x, padded, start, method=plan.method)

        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if system.n == p:
                out = self._symmetric(lambda v: system.tangent(x, v, start, method=plan.method), V)
            elif isinstance(rule, GradientDescent):
                a, b = V[..., :p, :], V[..., p:, :]
                beta = _column(rule.momentum)

                def solve(v: Floats) -> Floats:
                    return self._symmetric(lambda y: y + products(y), v)

                if transposed:
                    q = b / beta  # e a + b of the vectors that are sought, e = β with Nesterov
                    w = solve(a - products(q)) if rule.nesterov else a - products(q)
                    out = np.concatenate([w, q - (beta if rule.nesterov else 1.0) * w], axis=-2)
                else:
                    # w' = w + e v' + (e ≠ 1) s(w), v' = β v + s(w), s = −lr K
                    w = solve(a - beta * b) if rule.nesterov else a - b
                    out = np.concatenate([w, (b - products(w)) / beta], axis=-2)
            else:
                a, b, c = (V[..., i : i + p, :] for i in range(0, system.n, p))
                by_m, by_u, g = _adam(system, rule, x, start)
                if transposed:
                    q, r = b / rule.beta1, c / rule.beta2  # by_m a + b, by_u a + c of those sought
                    kept = 1.0 - rule.beta1
                    w = a - products(kept * q + 2.0 * (1.0 - rule.beta2) * (g * r)) / kept
                    out = np.concatenate([w, q - by_m * w, r - by_u * w], axis=-2)
                else:
                    w = a - by_m * b - by_u * c
                    image = pushed(w)
                    m = (b - image[..., p : 2 * p, :]) / rule.beta1
                    u = (c - image[..., 2 * p :, :]) / rule.beta2
                    out = np.concatenate([w, m, u], axis=-2)
        return out.reshape(plan.runs, plan.n, -1)

    def _symmetric(self, A: Callable[[Floats], Floats], B: Floats) -> Floats:
        """Solutions of A Y = B (..., n, k) for a symmetric A, by MINRES with one refinement."""
        Y = minres(A, B)
        rest = B - A(Y)
        Y = Y + minres(A, rest)
        rest = B - A(Y)
        sizes = np.linalg.norm(B, axis=-2)
        relative = np.linalg.norm(rest, axis=-2) / np.where(sizes > 0.0, sizes, 1.0)
        worst = relative.reshape(self.plan.runs, -1).max(axis=1)
        self.residuals = np.fmax(self.residuals, worst)
        return Y


def minres(A: Callable[[Floats], Floats], B: Floats) -> Floats:
    """Approximate solutions of A Y = B for vectors B (..., n, k), A symmetric.

    Paige, Saunders, SIAM J. Numer. Anal. 12, 617 (1975).
    """

    def dot(v: Floats, w: Floats) -> Floats:
        result: Floats = np.einsum("...ik,...ik->...k", v, w)[..., np.newaxis, :]
        return result

    def inverse(v: Floats) -> Floats:
        return np.where(v > 0.0, 1.0 / np.where(v > 0.0, v, 1.0), 0.0)

    Y, w, older = np.zeros_like(B), np.zeros_like(B), np.zeros_like(B)
    y, before, now = B, np.zeros_like(B), B
    beta = np.sqrt(dot(B, B))
    last, wanted = np.zeros_like(beta), _RESIDUAL * beta
    cosine, sine = np.full_like(beta, -1.0), np.zeros_like(beta)
    bar, epsilon, residual = np.zeros_like(beta), np.zeros_like(beta), beta
    for _ in range(_ITERATIONS):
        going = residual > wanted  # false for nan
        if not going.any():
            break
        v = inverse(beta) * y
        y = A(v) - beta * inverse(last) * before
        alpha = dot(v, y)
        y = y - alpha * inverse(beta) * now
        before, now, last = now, y, beta
        beta = np.sqrt(dot(y, y))
        old, delta = epsilon, cosine * bar + sine * alpha
        gbar, epsilon, bar = sine * bar - cosine * alpha, sine * beta, -cosine * beta
        gamma = np.hypot(gbar, beta)
        cosine, sine = gbar * inverse(gamma), beta * inverse(gamma)
        step, residual = cosine * residual, np.where(going, sine * residual, residual)
        older, w = w, (v - old * older - delta * w) * inverse(gamma)
        Y = Y + np.where(going, step, 0.0) * w
    return Y
