"""The optimisers of pylyap and of torch as rules, with the state that they already have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from pylyap import _checks
from pylyap._bridges.torch.rules import AdamRule, HeavyBall, Number, Rule, TorchSGD
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap.optimizers import Adam, GradientDescent

SUPPORTED = "pl.GradientDescent, pl.Adam, torch.optim.SGD, torch.optim.Adam and torch.optim.AdamW"


@dataclass(frozen=True, eq=False)
class Translated:
    """An optimiser as a rule, and its buffers.

    Attributes
    ----------
    rule : Rule
        The update.
    buffers : list of Tensor (n_params,), or None
        Buffers that the optimiser already has; None before its first step.
    """

    rule: Rule
    buffers: list[Any] | None


def is_torch(optimizer: Any) -> bool:
    """Whether an optimiser is one of torch."""
    return isinstance(optimizer, torch.optim.Optimizer)


def trained(optimizer: Any) -> set[int] | None:
    """``id`` of the parameters that an optimiser of torch updates; None for one of pylyap."""
    if not is_torch(optimizer):
        return None
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def translate(
    optimizer: Any, parameters: list[Any], order: GradientDescent | None = None
) -> Translated:
    """The rule of an optimiser for these parameters, in this order.

    `order` has the minibatches and the schedule of an optimiser of torch.
    """
    if isinstance(optimizer, (GradientDescent, Adam)):
        optimizer._require_no_factors("a model of PyTorch")
        return Translated(_ours(optimizer), None)
    order = GradientDescent(lr=1.0) if order is None else order
    if not is_torch(optimizer):
        raise ArgumentTypeError(
            "optimizer", f"must be one of {SUPPORTED}, got {_checks.describe(optimizer)}"
        )
    known: dict[type, Callable[..., Translated]] = {
        torch.optim.SGD: _sgd, torch.optim.Adam: _adam, torch.optim.AdamW: _adam
    }  # fmt: skip
    make = known.get(type(optimizer))
    if make is None:
        raise ArgumentTypeError(
            "optimizer", f"must be one of {SUPPORTED}, got a {type(optimizer).__name__}"
        )
    owned = {id(p) for p in parameters}
    strange = [p for g in optimizer.param_groups for p in g["params"] if id(p) not in owned]
    if any(p.requires_grad for p in strange):
        raise ArgumentError(
            "optimizer",
            "must update parameters of the model alone, got a parameter of shape "
            f"{tuple(next(p for p in strange if p.requires_grad).shape)} of another one",
        )
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return make(optimizer, parameters, [group_of[id(p)] for p in parameters], order)


def _ours(optimizer: GradientDescent | Adam) -> Rule:
    rates = {}
    for name in ("lr", "momentum", "weight_decay"):
        value = getattr(optimizer, name)
        if not isinstance(value, float):
            raise ArgumentError(
                name, f"must be one number for a model of torch, got shape {value.shape}"
            )
        rates[name] = value
    if isinstance(optimizer, Adam):
        return AdamRule(
            rates["lr"], rates["weight_decay"], optimizer, optimizer.buffer_names,
            optimizer.beta1, optimizer.beta2, optimizer.epsilon,
        )  # fmt: skip
    return HeavyBall(
        rates["lr"], rates["weight_decay"], optimizer, optimizer.buffer_names,
        rates["momentum"], optimizer.nesterov,
    )  # fmt: skip


def equivalent(rule: Rule) -> GradientDescent | Adam | Rule:
    """The optimiser of pylyap with the hyperparameters of a rule, if there is one.

    That of `torch.optim.SGD` has its velocity in another form, and the same stability threshold.
    """
    numbers = [v for v in vars(rule).values() if isinstance(v, torch.Tensor)]
    if not isinstance(rule, TorchSGD) or numbers or rule.momentum > 1.0:
        return rule
    order = rule.order
    return GradientDescent(
        lr=rule.lr, momentum=rule.momentum, nesterov=rule.nesterov, weight_decay=rule.weight_decay,
        batch_size=order.batch_size, shuffle=order.shuffle, seed=order.seed,
        schedule=order.schedule,
    )  # fmt: skip


# --- of torch -------------------------------------------------------------------------------------


def _values(parameters: list[Any], groups: list[dict[str, Any]], option: Any) -> Number:
    """A number of the groups: a float, or where they differ one value per parameter."""
    values = [float(option(group)) for group in groups]
    if len(set(values)) == 1:
        return values[0]
    device = parameters[0].device
    parts = [
        torch.full((p.numel(),), v, dtype=torch.float64, device=device)
        for p, v in zip(parameters, values, strict=True)
    ]
    return torch.cat(parts)


def _refuse(groups: list[dict[str, Any]], *flags: str) -> None:
    for flag in flags:
        if any(group.get(flag) for group in groups):
            value = next(group[flag] for group in groups if group.get(flag))
            raise ArgumentError("optimizer", f"must not have {flag}, got {flag}={value!r}")


def _buffer(optimizer: Any, parameters: list[Any], name: str) -> Any:
    """A buffer of all parameters as one vector (0 where there is none yet), or None."""
    found = [optimizer.state.get(p, {}).get(name) for p in parameters]
    if all(part is None for part in found):
        return None
    parts = [
        torch.zeros(p.numel(), dtype=p.dtype, device=p.device)
        if part is None
        else part.detach().reshape(-1).to(p.dtype)
        for p, part in zip(parameters, found, strict=True)
    ]
    return torch.cat(parts)


def _sgd(
    optimizer: Any, parameters: list[Any], groups: list[dict[str, Any]], order: GradientDescent
) -> Translated:
    _refuse(groups, "maximize", "dampening", "differentiable")
    nesterov = {bool(group["nesterov"]) for group in groups}
    if len(nesterov) > 1:
        raise ArgumentError("optimizer", "must have the same nesterov in all parameter groups")
    momentum = _values(parameters, groups, lambda group: group["momentum"])
    moving = not (isinstance(momentum, float) and momentum == 0.0)
    rule = TorchSGD(
        _values(parameters, groups, lambda group: group["lr"]),
        _values(parameters, groups, lambda group: group["weight_decay"]),
        order,
        ("momentum_buffer",) if moving else (),
        momentum,
        nesterov.pop(),
    )
    buffer = _buffer(optimizer, parameters, "momentum_buffer") if moving else None
    return Translated(rule, None if buffer is None else [buffer])


def _adam(
    optimizer: Any, parameters: list[Any], groups: list[dict[str, Any]], order: GradientDescent
) -> Translated:
    _refuse(groups, "maximize", "amsgrad", "differentiable")
    decoupled = {
        bool(group.get("decoupled_weight_decay", isinstance(optimizer, torch.optim.AdamW)))
        for group in groups
    }
    if len(decoupled) > 1:
        raise ArgumentError(
            "optimizer", "must have the same decoupled_weight_decay in all parameter groups"
        )
    steps = {int(optimizer.state.get(p, {}).get("step", 0)) for p in parameters}
    if len(steps) > 1:
        raise ArgumentError(
            "optimizer",
            f"must have made the same number of steps for all parameters, got {sorted(steps)}",
        )
    rule = AdamRule(
        _values(parameters, groups, lambda group: group["lr"]),
        _values(parameters, groups, lambda group: group["weight_decay"]),
        order,
        Adam.buffer_names,
        _values(parameters, groups, lambda group: group["betas"][0]),
        _values(parameters, groups, lambda group: group["betas"][1]),
        _values(parameters, groups, lambda group: group["eps"]),
        decoupled.pop(),
        steps.pop(),
    )
    buffers = [_buffer(optimizer, parameters, name) for name in ("exp_avg", "exp_avg_sq")]
    missing = any(buffer is None for buffer in buffers)
    return Translated(rule, None if missing else buffers)
