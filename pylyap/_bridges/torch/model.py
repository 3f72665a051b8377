"""A module as a pure function of the flat vector of its trainable parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from pylyap import _checks
from pylyap._errors import ArgumentError, ArgumentTypeError

DTYPES = {torch.float64: "float64", torch.float32: "float32"}

# Layers with an argument `dropout`, a probability, that holds while they are in training mode.
_WITH_DROPOUT = (nn.RNNBase, nn.MultiheadAttention)


def unwrap(model: Any, argument: str = "model") -> Any:
    """The module that a compiled one wraps; other wrappers are refused."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            argument, f"must be a torch.nn.Module, got {_checks.describe(model)}"
        )
    inner = getattr(model, "_orig_mod", None)
    model = inner if isinstance(inner, nn.Module) else model
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise ArgumentError(
            argument, f"must be on one device, got a {type(model).__name__}: pass model.module"
        )
    return model


def require_pure(model: Any, argument: str = "model") -> None:
    """Raise ArgumentError for layers whose output is random or changes the module."""
    for name, layer in model.named_modules():
        where = f"{type(layer).__name__} {name!r}" if name else type(layer).__name__
        reason = _impure(layer)
        if reason:
            raise ArgumentError(argument, f"must be a function of its parameters, {where} {reason}")


def _impure(layer: Any) -> str:
    """Why a layer cannot be part of a map; empty if it can."""
    if isinstance(layer, torch.jit.ScriptModule):
        return "is scripted: pass the module it was made from"
    if isinstance(getattr(layer, "_orig_mod", None), nn.Module):
        return "is compiled: pass the model before torch.compile of its parts"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "has no parameters yet: call the model once on a batch"
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer.sparse:
        return "has sparse gradients: use sparse=False"
    if not layer.training:
        return ""
    norms = (nn.modules.batchnorm._NormBase,)
    if isinstance(layer, norms) and layer.track_running_stats:
        return (
            "in training mode changes its running statistics: call eval() on it, which freezes "
            "them, or use GroupNorm"
        )
    rate = layer.p if isinstance(layer, nn.modules.dropout._DropoutNd) else 0.0
    rate = layer.dropout if isinstance(layer, _WITH_DROPOUT) else rate
    if rate > 0.0:
        return f"with p={rate:g} in training mode is random: call model.eval(), or set p to 0"
    if isinstance(layer, (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
        return "is random: call model.eval() or use another layer"
    return ""


class Functional:
    """A copy of a module as a function of a flat vector of parameters and of inputs.

    Parameters
    ----------
    model : torch.nn.Module
        The module; it is copied and never changed.
    trained : set of int, optional
        ``id`` of the parameters that an optimiser updates. By default all that require gradients.

    Attributes
    ----------
    module : torch.nn.Module
        The copy, whose parameters need no gradients.
    names, shapes, sizes : list
        Names, shapes and lengths of the trainable parameters, in the order of
        ``model.parameters()``.
    n : int
        Number of trainable parameters.
    device : torch.device
        Device of all parameters and buffers.
    dtype : torch.dtype
        float64 or float32.
    """

    def __init__(self, model: Any, trained: set[int] | None = None) -> None:
        model = unwrap(model)
        require_pure(model)
        chosen = [
            (name, p)
            for name, p in model.named_parameters()
            if p.requires_grad and (trained is None or id(p) in trained)
        ]
        self.device, self.dtype = _device_and_dtype(model)
        if not chosen:
            raise ArgumentError("model", "must have parameters that are trained, got none")
        self.names = [name for name, _ in chosen]
        self.shapes = [tuple(p.shape) for _, p in chosen]
        self.sizes = [p.numel() for _, p in chosen]
        self.n = int(sum(self.sizes))
        every = sum(1 for _ in model.named_parameters(remove_duplicate=False))
        self._tied = every > sum(1 for _ in model.named_parameters())
        self._rnn = any(isinstance(layer, nn.RNNBase) for layer in model.modules())
        gradients = [(p, p.grad) for p in model.parameters()]
        try:
            for p, _ in gradients:  # not to be copied
                p.grad = None
            self.module = copy.deepcopy(model)
        except Exception as error:  # a module may hold anything
            raise ArgumentError("model", f"must allow copy.deepcopy: {one_line(error)}") from None
        finally:
            for p, gradient in gradients:
                p.grad = gradient
        for p in self.module.parameters():
            p.requires_grad_(False)

    def flat(self, model: Any) -> Any:
        """The trainable parameters of a module with this structure, as one new vector."""
        found = dict(unwrap(model).named_parameters())
        shapes = [tuple(found[name].shape) if name in found else None for name in self.names]
        if shapes != self.shapes:
            raise ArgumentError("model", "must have the parameters of the model of this map")
        return torch.cat([found[name].detach().reshape(-1) for name in self.names])

    def parts(self, w: Any) -> dict[str, Any]:
        """Views of the parameters in a vector (n,), by name."""
        pieces = zip(self.names, w.split(self.sizes), self.shapes, strict=True)
        return {name: part.view(shape) for name, part, shape in pieces}

    def __call__(self, w: Any, X: Any) -> Any:
        """Output of the module with parameters w (n,) for inputs X."""
        return functional_call(self.module, self.parts(w), (X,), tie_weights=self._tied)

    def state_dict(self, w: Any) -> dict[str, Any]:
        """All parameters and buffers of the module, copied, with the parameters w (n,)."""
        found = {name: value.clone() for name, value in self.module.state_dict().items()}
        ours = self.parts(w)
        by_id = {id(p): name for name, p in self.module.named_parameters()}
        for name, p in self.module.named_parameters(remove_duplicate=False):
            if name in found and by_id[id(p)] in ours:
                found[name] = ours[by_id[id(p)]].clone()
        return found

    def load(self, model: Any, w: Any) -> None:
        """Write the parameters w (n,) into a module with this structure."""
        self.flat(model)
        found = dict(unwrap(model).named_parameters())
        with torch.no_grad():
            for name, part in self.parts(w).items():
                found[name].copy_(part)

    def follow(self, model: Any) -> None:
        """Take over the modes of the layers and the buffers of the module that was copied."""
        for ours, theirs in zip(self.module.modules(), unwrap(model).modules(), strict=True):
            ours.training = theirs.training
        with torch.no_grad():
            for mine, given in zip(self.module.buffers(), unwrap(model).buffers(), strict=True):
                mine.copy_(given)

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Operators that have derivatives of both kinds, in the model's own precision."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.enable_grad())
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
                stack.enter_context(torch.autocast(self.device.type, enabled=False))
                if self.device.type == "cuda":  # cuDNN has no second derivatives of recurrent nets
                    stack.enter_context(
                        torch.backends.cudnn.flags(enabled=not self._rnn, deterministic=True)
                    )
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _device_and_dtype(model: Any) -> tuple[Any, Any]:
    """The one device and the one floating dtype of a module."""
    parameters = list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    devices = {str(tensor.device) for tensor in tensors}
    if len(devices) != 1 or devices == {"meta"}:
        listed = ", ".join(sorted(devices)) or "no parameters"
        raise ArgumentError("model", f"must be on one device that holds data, got {listed}")
    dtypes = {p.dtype for p in parameters}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES):
        listed = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ArgumentError(
            "model", f"must have parameters of float64 or of float32, got {listed}: model.double()"
        )
    return tensors[0].device, dtypes.pop()


def one_line(error: BaseException) -> str:
    """Kind and text of an error on one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
