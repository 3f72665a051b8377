"""Dense networks of torch that the compiled core computes: recognised, and translated exactly."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import fx, nn
from torch.nn import functional

from pylyap._bridges.torch.losses import is_cross_entropy, is_mse
from pylyap._bridges.torch.model import Functional
from pylyap._bridges.torch.optimizers import Translated
from pylyap._bridges.torch.rules import AdamRule, HeavyBall, TorchSGD
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import Adam, GradientDescent

# Modules, functions and methods that are activations of the core, whatever their options.
_MODULES: dict[Any, str] = {
    nn.Tanh: "tanh",
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
}
_FUNCTIONS: dict[Any, str] = {
    torch.tanh: "tanh", torch.relu: "relu", torch.sigmoid: "sigmoid", torch.sin: "sin",
    functional.tanh: "tanh", functional.relu: "relu", functional.sigmoid: "sigmoid",
    functional.silu: "silu",
}  # fmt: skip
_METHODS = {"tanh": "tanh", "relu": "relu", "sigmoid": "sigmoid", "sin": "sin"}
_LEAK = 0.01  # slope of the core's leaky_relu
_EXACT_SOFTPLUS = 37.0  # threshold from which log(1 + exp(z)) = z in float64


class Dense(NamedTuple):
    """A dense network: units of its layers and activations of the hidden ones."""

    layers: tuple[int, ...]
    activations: tuple[str, ...]


class _Other(Exception):
    """The model is not one that the core computes; the text says why."""


class NativeMap(TrainingMap):
    """A `TrainingMap` that was made from a module of torch.

    It has `unflatten` and `load_into` besides.
    """

    def __init__(self, *data: Any, model: Functional) -> None:
        super().__init__(*data)
        self._model = model

    def __reduce__(self) -> tuple[Any, ...]:
        data = (self.network, self.X, self.y, self.optimizer)
        return partial(NativeMap, model=self._model), data

    @property
    def method(self) -> str:
        """The compiled core."""
        return "native"

    def unflatten(self, x: ArrayLike) -> dict[str, Any]:
        """A ``state_dict`` of the model with the weights of one state, buffers included."""
        return self._model.state_dict(self._tensor(x))

    def load_into(self, model: Any, x: ArrayLike) -> None:
        """Write the weights of one state into a module with the structure of this model."""
        self._model.load(model, self._tensor(x))

    def _tensor(self, x: ArrayLike) -> Any:
        weights = self.weights(x)
        if weights.ndim != 1:
            raise ArgumentError("x", f"must be one state (n,), got shape {np.shape(x)}")
        return torch.from_numpy(weights.copy()).to(self._model.device)


def native_map(
    model: Functional, X: Any, y: Any, loss: Any, given: Any, translated: Translated
) -> tuple[NativeMap, Floats | None] | str:
    """The map of the compiled core and its buffers, or why there is none."""
    try:
        dense = _dense(model)
        name = _loss_name(loss, dense.layers[-1])
        optimizer, buffers = _optimizer(given, translated)
        if model.dtype != torch.float64:
            raise _Other("its parameters are float32: model.double()")
        if model.device.type != "cpu":
            raise _Other(f"it is on {model.device}")
        if not X.is_floating_point():
            raise _Other("X holds integers")
    except _Other as reason:
        return str(reason)
    network = Network(dense.layers, dense.activations, name)
    inputs, targets = X.reshape(len(X), -1).numpy(), y.numpy()
    return NativeMap(network, inputs, targets, optimizer, model=model), buffers


def _loss_name(loss: Any, n_out: int) -> str:
    if is_cross_entropy(loss):
        return "cross_entropy"
    if isinstance(loss, str):
        return loss
    if not is_mse(loss):
        raise _Other("its loss is neither a mean square nor the mean cross-entropy of labels")
    if loss.reduction != "mean":
        raise _Other(f"nn.MSELoss(reduction={loss.reduction!r}) is not a mean")
    if n_out != 2:  # 1/(N n_out) Σ‖·‖² and 1/(2N) Σ‖·‖² are the same for two outputs
        raise _Other(
            f"nn.MSELoss is {2 / n_out:.3g} times the 1/(2N) Σ‖ŷ − y‖² of the core for {n_out} "
            "outputs; loss='mse' is that of the core"
        )
    return "mse"


def _optimizer(given: Any, translated: Translated) -> tuple[Any, Floats | None]:
    """The optimiser of the core, and the buffers that torch's already has in the core's form."""
    if isinstance(given, (GradientDescent, Adam)):
        return given, None
    rule = translated.rule
    order = rule.order
    common: dict[str, Any] = {
        "batch_size": order.batch_size, "shuffle": order.shuffle, "seed": order.seed,
        "schedule": order.schedule,
    }  # fmt: skip
    numbers = [value for value in vars(rule).values() if isinstance(value, torch.Tensor)]
    if numbers:
        raise _Other("the parameter groups of its optimizer differ")
    held = translated.buffers
    if isinstance(rule, AdamRule):
        if rule.decoupled and rule.weight_decay:
            raise _Other("the weight decay of AdamW is decoupled")
        if rule.first:
            raise _Other(f"its optimizer has made {rule.first} steps")
        adam = Adam(
            lr=rule.lr, beta1=rule.beta1, beta2=rule.beta2, epsilon=rule.epsilon,
            weight_decay=rule.weight_decay, **common,
        )  # fmt: skip
        return adam, None
    assert isinstance(rule, (HeavyBall, TorchSGD))
    momentum = rule.momentum if rule.buffer_names else 0.0
    if momentum and order.schedule is not None:
        raise _Other("torch's momentum buffer has no learning rate, and its rate has a schedule")
    if held is not None and rule.lr == 0.0:
        raise _Other("its learning rate is 0 and its momentum is not")
    sgd = GradientDescent(
        lr=rule.lr, momentum=momentum, nesterov=rule.nesterov and bool(momentum),
        weight_decay=rule.weight_decay, **common,
    )  # fmt: skip
    return sgd, None if held is None else -rule.lr * held[0].numpy()


# --- the model ------------------------------------------------------------------------------------


def _dense(model: Functional) -> Dense:
    """Layers and activations, if the traced module is plainly a sequence of them."""
    try:
        graph = fx.symbolic_trace(model.module)
    except Exception:  # control flow that depends on values
        raise _Other("it cannot be traced as a sequence of layers") from None
    widths: list[int] = []
    hidden: list[str] = []
    pending: str | None = None  # activation since the last linear layer
    names: list[str] = []
    before: Any = None
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            if before is not None:
                raise _Other("it has several inputs")
        elif node.op == "output":
            if node.args != (before,):
                raise _Other("it does not return the output of its last layer")
        else:
            inputs = node.all_input_nodes
            if inputs != [before] or len(before.users) != 1:
                raise _Other("it is not a sequence of layers")
            layer = graph.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(layer, nn.Linear):
                if type(layer) is not nn.Linear or layer.bias is None:
                    raise _Other(f"its layer {node.target} has no bias")
                if widths:
                    hidden.append(pending or "identity")
                elif pending is not None:
                    raise _Other("it has an activation before its first layer")
                widths += (
                    [layer.out_features] if widths else [layer.in_features, layer.out_features]
                )
                names += [f"{node.target}.weight", f"{node.target}.bias"]
                pending = None
            elif not _passes(node, layer, not widths):
                if pending is not None:
                    raise _Other("it has two activations in a row")
                pending = _activation(node, layer)
        before = node
    if not widths:
        raise _Other("it has no linear layers")
    if pending is not None:
        raise _Other("it has an activation after its last layer")
    if names != model.names or sum(p.numel() for p in model.module.parameters()) != model.n:
        raise _Other("its parameters are not those of its layers, in order and all trained")
    return Dense(tuple(widths), tuple(hidden))


def _passes(node: Any, layer: Any, at_input: bool) -> bool:
    """Whether a node returns its input, flattened at most."""
    if isinstance(layer, nn.Identity):
        return True
    if isinstance(layer, nn.modules.dropout._DropoutNd):
        return True  # p = 0 or evaluation mode, which was checked
    if isinstance(layer, nn.Flatten):
        return at_input and layer.start_dim == 1 and layer.end_dim == -1
    if (node.op, node.target) in (("call_function", torch.flatten), ("call_method", "flatten")):
        start = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
        return at_input and start == 1 and len(node.args) + len(node.kwargs) == 2
    return False


def _activation(node: Any, layer: Any) -> str:
    """Name of the core's activation that a node computes."""
    if node.op == "call_module":
        name = _module_activation(layer)
        if name is None:
            raise _Other(f"it has a {type(layer).__name__}")
        return name
    name = None
    if len(node.args) == 1 and not any(node.kwargs.values()):
        table = _FUNCTIONS if node.op == "call_function" else _METHODS
        name = table.get(node.target)
    if name is None:
        target = getattr(node.target, "__name__", node.target)
        target = {operator.add: "addition", operator.mul: "product"}.get(node.target, target)
        raise _Other(f"it has the operation {target}")
    return name


def _module_activation(layer: Any) -> str | None:
    kind = type(layer)
    if kind in _MODULES:
        return _MODULES[kind]
    if kind is nn.LeakyReLU:
        return "leaky_relu" if layer.negative_slope == _LEAK else None
    if kind is nn.ELU:
        return "elu" if layer.alpha == 1.0 else None
    if kind is nn.GELU:
        return "gelu" if layer.approximate == "none" else None
    if kind is nn.Softplus:
        exact = layer.beta == 1.0 and layer.threshold >= _EXACT_SOFTPLUS
        return "softplus" if exact else None
    return None
