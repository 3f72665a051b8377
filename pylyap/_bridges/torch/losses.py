"""Losses: names, modules of torch, or functions, as functions of output and target."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError

LOSSES = ("mse", "cross_entropy")
Loss = Callable[[Any, Any], Any]

# Modules that broadcast a target against the output, with a warning at most.
_ENTRYWISE = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss,
)  # fmt: skip


def mse(output: Any, target: Any) -> Any:
    """1/(2N) Σ‖output − target‖², the definition of `pylyap.Network`."""
    return 0.5 * (output - target).square().sum() / len(output)


def loss_function(loss: Any) -> Loss:
    """The function of output and target for the argument `loss`."""
    if isinstance(loss, str):
        name = _checks.choice("loss", loss, LOSSES)
        return mse if name == "mse" else functional.cross_entropy
    if isinstance(loss, nn.Module):
        if any(p.requires_grad for p in loss.parameters()):
            raise ArgumentError(
                "loss", "must have no trainable parameters; put them into the model"
            )
        copied: Loss = copy.deepcopy(loss)
        return copied
    if isinstance(loss, type) or not callable(loss):
        raise ArgumentTypeError(
            "loss",
            f"must be one of {', '.join(LOSSES)}, a loss module or a function of output and "
            f"target, got {_checks.describe(loss)}",
        )
    return loss  # type: ignore[no-any-return]


def is_mse(loss: Any) -> bool:
    """Whether a loss is a mean square, of whatever scale."""
    return loss == "mse" if isinstance(loss, str) else type(loss) is nn.MSELoss


def is_cross_entropy(loss: Any) -> bool:
    """Whether a loss is the mean softmax cross-entropy of integer labels."""
    if isinstance(loss, str):
        return loss == "cross_entropy"
    return loss is functional.cross_entropy or (
        type(loss) is nn.CrossEntropyLoss
        and loss.weight is None
        and loss.label_smoothing == 0.0
        and loss.reduction == "mean"
    )


def prepared_targets(loss: Any, output: Any, y: Any, name: str = "y") -> Any:
    """Targets in the shape and dtype that a loss needs for outputs of the model (N, ...)."""
    if not isinstance(output, torch.Tensor):
        raise ArgumentTypeError(
            "model", f"must return one tensor, got {_checks.describe(output)}; wrap it in a module"
        )
    if is_cross_entropy(loss) or isinstance(loss, nn.CrossEntropyLoss):
        return _labels(loss, output, y, name)
    if is_mse(loss) or isinstance(loss, _ENTRYWISE):
        single = output.shape[1:] == (1,) and y.ndim == 1
        if single and loss == "mse":
            y = y[:, None]
        if y.shape[1:] != output.shape[1:]:
            hint = f": {name}[:, None] has it" if single else ""
            raise ArgumentError(
                name,
                f"must have the shape of the model's output, {_shape(output)}, got "
                f"{_shape(y)}{hint}",
            )
        return y.to(output.dtype)
    return y


def _shape(tensor: Any) -> str:
    return f"(N, {', '.join(map(str, tensor.shape[1:]))})" if tensor.ndim > 1 else "(N,)"


def _labels(loss: Any, output: Any, y: Any, name: str) -> Any:
    if output.ndim < 2 or output.shape[1] < 2:
        raise ArgumentError(
            "model",
            f"must return logits (N, classes, ...) for a cross-entropy, got {tuple(output.shape)}",
        )
    if isinstance(loss, nn.Module) and y.is_floating_point() and y.shape[1:] == output.shape[1:]:
        return y  # probabilities of the classes
    if y.shape[1:] != output.shape[2:]:
        raise ArgumentError(
            name, f"must have one integer label per output, got shape {tuple(y.shape)}"
        )
    classes = output.shape[1]
    labels = y.to(torch.int64)
    wrong = (labels != y) | (labels < 0) | (labels >= classes)
    if isinstance(loss, nn.CrossEntropyLoss):
        wrong &= labels != loss.ignore_index
    if bool(wrong.any()):
        raise ArgumentError(
            name, f"must hold integer labels in 0 ... {classes - 1}, got {y[wrong][0].item():g}"
        )
    return labels
