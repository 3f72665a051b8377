"""Optimisers as pure functions of weights, buffers and gradient, with their derivatives.

An update acts on each parameter alone: (w, buffers, g) → (w', buffers'). Its Jacobian is a table of
diagonals, from which the tangent of a whole step and its adjoint follow with one product with the
Hessian of the loss, dg = H dw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from pylyap._thresholds import Hyperparameters, Moments
from pylyap.optimizers import Adam, GradientDescent

Number = Any  # a float, or a tensor (n_params,) with one value per parameter
Table = list[list[Number]]  # entry [i][j]: derivative of output i in input j, the last of them g


@dataclass(frozen=True, eq=False)
class Rule:
    """An update of the weights.

    Attributes
    ----------
    lr : float or Tensor
        Learning rate, before the factor of the schedule.
    weight_decay : float or Tensor
        Coefficient of the weights.
    order : GradientDescent or Adam
        Has the schedule and the order of the minibatches.
    buffer_names : tuple of str
        Names of the buffers that follow the weights in the state.
    """

    lr: Number
    weight_decay: Number
    order: GradientDescent | Adam
    buffer_names: tuple[str, ...]

    def rate(self, t: int) -> Number:
        """Learning rate of step t."""
        factors = self.order._factors(t, 1)
        return self.lr if factors is None else self.lr * float(factors[0])

    @property
    def hyperparameters(self) -> Hyperparameters | None:
        """Settings on which the stability of a step depends, with the largest learning rate.

        None if parameters differ in other settings, or in the decoupled decay of a step.
        """
        given = {k: v for k, v in vars(self).items() if isinstance(v, torch.Tensor)}
        if not given:
            return self._settings()
        lr = given.pop("lr", None)
        decoupled = getattr(self, "decoupled", False) and not _is_zero(self.weight_decay)
        if given or decoupled or lr is None or not float(lr.max()) > 0.0:
            return None
        largest = float(lr.max())
        alike = replace(self, lr=largest)._settings()
        return replace(alike, factors=True, lr_factors=(lr / largest).cpu().numpy())

    def _settings(self) -> Hyperparameters:
        raise NotImplementedError

    def update(self, parts: list[Any], g: Any, t: int) -> list[Any]:
        """Weights and buffers after step t from those before, and the gradient of the loss."""
        raise NotImplementedError

    def table(self, parts: list[Any], g: Any, t: int) -> Table:
        """Derivatives of the outputs of `update` in its inputs (w, buffers, g), in float64."""
        raise NotImplementedError


def _coupled(table: Table, decay: Number) -> Table:
    """The table in the gradient of the loss, from that in the gradient with decay·w added."""
    return [[_plus(row[0], _times(decay, row[-1])), *row[1:]] for row in table]


def _is_zero(a: Number) -> bool:
    return isinstance(a, float) and a == 0.0


def _times(a: Number, b: Number) -> Number:
    return 0.0 if _is_zero(a) or _is_zero(b) else a * b


def _plus(a: Number, b: Number) -> Number:
    return b if _is_zero(a) else (a if _is_zero(b) else a + b)


def combine(coefficients: list[Number], vectors: list[Any]) -> Any:
    """Σ_j coefficient_j · vector_j; terms with coefficient 0 are left out."""
    total = None
    for a, v in zip(coefficients, vectors, strict=True):
        if _is_zero(a):
            continue
        if total is None:
            total = v.clone() if isinstance(a, float) and a == 1.0 else a * v
        elif isinstance(a, float):
            total.add_(v, alpha=a)
        else:
            total.addcmul_(v, a.expand_as(v))
    return torch.zeros_like(vectors[0]) if total is None else total


def _of_momentum(rule: HeavyBall | TorchSGD) -> Hyperparameters:
    """Settings of a rule with momentum, whose threshold does not depend on its buffer's form."""
    return Hyperparameters(
        rule.lr, rule.momentum, rule.weight_decay, rule.nesterov, None, rule.order.batch_size,
        rule.order,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class HeavyBall(Rule):
    """`pylyap.GradientDescent`: v' = βv − lr g, w' = w + v', with the rate in the velocity."""

    momentum: Number
    nesterov: bool

    _settings = _of_momentum

    def update(self, parts: list[Any], g: Any, t: int) -> list[Any]:
        """Weights and velocity after step t."""
        pull = self.rate(t) * (
            g if _is_zero(self.weight_decay) else g + self.weight_decay * parts[0]
        )
        if not self.buffer_names:
            return [parts[0] - pull]
        v = self.momentum * parts[1] - pull
        move = self.momentum * v - pull if self.nesterov else v
        return [parts[0] + move, v]

    def table(self, parts: list[Any], g: Any, t: int) -> Table:
        """Derivatives in w, v and g."""
        lr, b = self.rate(t), self.momentum
        if not self.buffer_names:
            return _coupled([[1.0, -lr]], self.weight_decay)
        weights = [1.0, b * b, -(1.0 + b) * lr] if self.nesterov else [1.0, b, -lr]
        return _coupled([weights, [0.0, b, -lr]], self.weight_decay)


@dataclass(frozen=True, eq=False)
class TorchSGD(Rule):
    """`torch.optim.SGD`: b' = βb + g, w' = w − lr b', with no rate in the buffer."""

    momentum: Number
    nesterov: bool

    _settings = _of_momentum

    def update(self, parts: list[Any], g: Any, t: int) -> list[Any]:
        """Weights and momentum buffer after step t."""
        w, lr = parts[0], self.rate(t)
        if not _is_zero(self.weight_decay):
            g = g + self.weight_decay * w
        if not self.buffer_names:
            return [w - lr * g]
        b = self.momentum * parts[1] + g
        return [w - lr * (g + self.momentum * b if self.nesterov else b), b]

    def table(self, parts: list[Any], g: Any, t: int) -> Table:
        """Derivatives in w, the buffer and g."""
        lr, b = self.rate(t), self.momentum
        if not self.buffer_names:
            return _coupled([[1.0, -lr]], self.weight_decay)
        plain, nesterov = [1.0, -lr * b, -lr], [1.0, -lr * b * b, -lr * (1.0 + b)]
        weights = nesterov if self.nesterov else plain
        return _coupled([weights, [0.0, b, 1.0]], self.weight_decay)


@dataclass(frozen=True, eq=False)
class AdamRule(Rule):
    """Adam, and AdamW where the decay is decoupled from the gradient.

    Attributes
    ----------
    first : int
        Steps that the optimiser had made before step 0, for the bias corrections.
    """

    beta1: Number
    beta2: Number
    epsilon: Number
    decoupled: bool = False
    first: int = 0

    def _settings(self) -> Hyperparameters:
        moments = Moments(self.beta1, self.beta2, self.epsilon, self.decoupled, self.first)
        return Hyperparameters(
            self.lr, 0.0, self.weight_decay, False, moments, self.order.batch_size, self.order
        )

    def _corrections(self, t: int) -> tuple[Number, Number]:
        steps = self.first + t + 1
        return 1.0 / (1.0 - self.beta1**steps), 1.0 / (1.0 - self.beta2**steps)

    def update(self, parts: list[Any], g: Any, t: int) -> list[Any]:
        """Weights and moments after step t."""
        w, m, u = parts
        lr, (first, second) = self.rate(t), self._corrections(t)
        if not _is_zero(self.weight_decay):
            if self.decoupled:
                w = w * (1.0 - lr * self.weight_decay)
            else:
                g = g + self.weight_decay * w
        m = self.beta1 * m + (1.0 - self.beta1) * g
        u = self.beta2 * u + (1.0 - self.beta2) * (g * g)
        return [w - lr * (m * first) / ((u * second).sqrt() + self.epsilon), m, u]

    def table(self, parts: list[Any], g: Any, t: int) -> Table:
        """Derivatives in w, the moments and g; where v' = 0, that in v counts as 0."""
        w, m, u = parts
        lr, (first, second) = self.rate(t), self._corrections(t)
        b1, b2, decay = self.beta1, self.beta2, self.weight_decay
        if not self.decoupled and not _is_zero(decay):
            g = g + decay * w
        m = b1 * m + (1.0 - b1) * g
        root = ((b2 * u + (1.0 - b2) * (g * g)) * second).sqrt()
        below = root + self.epsilon
        by_m = -lr * first / below
        by_u = torch.where(
            root > 0.0, lr * (m * first / below) * (0.5 * second / root) / below, 0.0
        )
        by_g = (1.0 - b1) * by_m + by_u * (2.0 * (1.0 - b2) * g)
        keep = 1.0 - lr * decay if self.decoupled else 1.0
        return _coupled(
            [
                [keep, b1 * by_m, b2 * by_u, by_g],
                [0.0, b1, 0.0, 1.0 - b1],
                [0.0, 0.0, b2, 2.0 * (1.0 - b2) * g],
            ],
            0.0 if self.decoupled else decay,
        )
