"""The map of a model of torch from the arguments of `pylyap.from_torch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pylyap import _checks
from pylyap._bridges.torch.data import Batches, tensors
from pylyap._bridges.torch.losses import Loss, loss_function, prepared_targets
from pylyap._bridges.torch.maps import TorchMap
from pylyap._bridges.torch.model import Functional, one_line, unwrap
from pylyap._bridges.torch.native import NativeMap, native_map
from pylyap._bridges.torch.optimizers import equivalent, is_torch, trained, translate
from pylyap._bridges.torch.products import Products, gradient_of
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap.optimizers import GradientDescent

_SAME = {torch.float64: 1e-10, torch.float32: 1e-4}  # relative difference of two evaluations


@dataclass(frozen=True)
class Options:
    """The keyword arguments of `pylyap.from_torch`."""

    native: bool | None
    jvp: Any
    batch_size: int | None
    shuffle: bool
    seed: Any
    schedule: Any
    memory_limit: float


def build(
    model: Any, X: Any, y: Any, loss: Any, optimizer: Any, options: Options
) -> tuple[TorchMap | NativeMap, Floats]:
    """The map, and the state of the model."""
    native = options.native if options.native is None else _checks.flag("native", options.native)
    limit = _checks.real("memory_limit", options.memory_limit, above=0.0)
    order = _order(optimizer, options)
    products = Products(options.jvp)
    module = unwrap(model)
    function = loss_function(loss)
    functional = Functional(module, trained(optimizer))
    named = dict(module.named_parameters())
    translated = translate(optimizer, [named[name] for name in functional.names], order)
    inputs, targets = tensors(X, y, functional.device, functional.dtype, limit)
    batches = Batches(inputs, targets, translated.rule.order)
    batches = batches.with_targets(require_function(functional, function, loss, batches))
    w = functional.flat(module)
    buffers = translated.buffers
    if native is not False:
        found = native_map(functional, inputs, batches.y, loss, optimizer, translated)
        if not isinstance(found, str):
            return found[0], _state(w, found[1])
        if native:
            raise ArgumentError("native", f"must be False or None for this model: {found}")
    given = equivalent(translated.rule) if is_torch(optimizer) else optimizer
    system = TorchMap(functional, batches, function, translated.rule, given, products)
    _require_derivatives(system, w)
    held = None if buffers is None else torch.cat(buffers).double().cpu().numpy()
    return system, _state(w, held)


def _state(w: Any, buffers: Floats | None) -> Floats:
    weights: Floats = w.double().cpu().numpy()
    return weights if buffers is None else np.concatenate([weights, buffers])


def _order(optimizer: Any, options: Options) -> GradientDescent | None:
    """Minibatches and schedule of an optimiser of torch."""
    given = {
        "batch_size": options.batch_size is not None,
        "shuffle": options.shuffle is not True,
        "seed": not (isinstance(options.seed, int) and options.seed == 0),
        "schedule": options.schedule is not None,
    }
    if not is_torch(optimizer):
        for name, is_given in given.items():
            if is_given:
                raise ArgumentError(
                    name, "must be set in the optimizer where that is one of pylyap"
                )
        return None
    return GradientDescent(
        lr=1.0,
        batch_size=options.batch_size,
        shuffle=options.shuffle,
        seed=options.seed,
        schedule=options.schedule,
    )


def require_function(model: Functional, function: Loss, loss: Any, batches: Batches) -> Any:
    """The targets in the form that the loss needs.

    Raises
    ------
    ArgumentError
        If the model fails on the data, its loss is no finite number, differs between two
        evaluations, or an evaluation changes a buffer.
    """
    w = model.flat(model.module)
    devices = [model.device] if model.device.type == "cuda" else []
    held = [buffer.clone() for buffer in model.module.buffers()]
    with torch.random.fork_rng(devices), model.exact(), torch.no_grad():
        X, _ = batches(0)
        try:
            output = model(w, X)
        except Exception as error:  # any error of the model's own
            raise ArgumentError(
                "model", f"must accept the inputs X {tuple(X.shape)}: {one_line(error)}"
            ) from None
        targets = prepared_targets(loss, output, batches.y)
        y = targets if batches.whole else targets[torch.from_numpy(batches.indices(0)).to(X.device)]
        try:
            values = [function(model(w, X), y) for _ in range(2)]
        except Exception as error:
            raise ArgumentError(
                "loss", f"must accept the output and y: {one_line(error)}"
            ) from None
    value = values[0]
    if not isinstance(value, torch.Tensor) or value.numel() != 1 or value.ndim != 0:
        raise ArgumentError("loss", f"must be one number, got {_checks.describe(value)}")
    if not value.is_floating_point():
        raise ArgumentError("loss", f"must be a real number, got dtype {value.dtype}")
    first, second = (float(v) for v in values)
    if np.isfinite(first) and not abs(first - second) <= _SAME[model.dtype] * abs(first):
        raise ArgumentError(
            "model",
            f"must return the same for the same inputs, got losses {first!r} and {second!r}: it is "
            "random, or keeps a state between calls",
        )
    for (name, _), before, after in zip(
        model.module.named_buffers(), held, model.module.buffers(), strict=True
    ):
        if not torch.equal(before, after):
            raise ArgumentError("model", f"must not change its buffers, it changes {name!r}")
    return targets


def _require_derivatives(system: TorchMap, w: Any) -> None:
    """Raise ArgumentError if gradient or Hessian–vector products cannot be computed."""
    model = system._model
    with model.exact():
        function = system._at(0)
        try:
            gradient_of(function, w)
        except Exception as error:
            raise ArgumentError(
                "model", f"must have a gradient in its parameters: {one_line(error)}"
            ) from None
        system._products.require(function, w)
