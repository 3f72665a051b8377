"""Models of PyTorch: pylyap's bridge, and the loops that one writes by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .by_hand import library_qr
from .workloads import Model, Run


def module(work: Model) -> Any:
    """The model of a workload, in float64."""
    from torch import nn

    if work.kind == "cnn":
        layers = [
            nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
        ]  # fmt: skip
    else:  # LayerNorm, so that the compiled core does not take it
        layers = [
            nn.Flatten(), nn.Linear(64, 256), nn.LayerNorm(256), nn.Tanh(),
            nn.Linear(256, 300), nn.Tanh(), nn.Linear(300, 10),
        ]  # fmt: skip
    model = nn.Sequential(*layers).double()
    nn.utils.vector_to_parameters(_tensor(work.w0[0]), model.parameters())
    return model


def _tensor(array: Any) -> Any:
    import torch

    return torch.as_tensor(array)


def pylyap_model(work: Model) -> Run:
    import pylyap as pl

    rule = pl.GradientDescent(lr=work.lr)
    system, w0 = pl.from_torch(module(work), work.X, work.y, "cross_entropy", rule)
    options = {"k": work.k, "frame": work.frame}
    pl.lyapunov_spectrum(system, w0, 1, **options)  # chooses the method of the products
    return lambda: pl.lyapunov_spectrum(system, w0[None], work.steps, **options).growth


def torch_model(work: Model, tangent: str) -> Run:
    import torch
    from torch import func

    model, X, y = module(work), _tensor(work.X), _tensor(work.y)
    named = {name: p.detach() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in named.values()]

    def loss(w: Any) -> Any:
        parts = {
            name: part.view(p.shape)
            for (name, p), part in zip(named.items(), w.split(sizes), strict=True)
        }
        return torch.nn.functional.cross_entropy(func.functional_call(model, parts, (X,)), y)

    def jvp(w: Any, Q: Any) -> tuple[Any, Any]:
        gradient, HQ = func.vmap(
            lambda v: func.jvp(func.grad(loss), (w,), (v,)), in_dims=1, out_dims=(None, 1)
        )(Q)
        return gradient, HQ

    def graph(w: Any) -> tuple[Any, Any]:
        w = w.detach().requires_grad_()
        return w, torch.autograd.grad(loss(w), w, create_graph=True)[0]

    def double(w: Any, Q: Any) -> tuple[Any, Any]:
        w, g = graph(w)
        rows = [torch.autograd.grad(g, w, v, retain_graph=True)[0] for v in Q.T]
        return g.detach(), torch.stack(rows, 1)

    def batched(w: Any, Q: Any) -> tuple[Any, Any]:
        w, g = graph(w)
        rows = torch.autograd.grad(g, w, Q.T, is_grads_batched=True)[0]
        return g.detach(), rows.T

    products: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
        "vmap of jvp": jvp, "double backward": double, "batched double backward": batched
    }  # fmt: skip
    product = products[tangent]

    def run() -> Any:
        w, Q = _tensor(work.w0[0]), _tensor(work.frame)
        growth = []
        for _ in range(work.steps):
            gradient, HQ = product(w, Q)
            w, Q = w - work.lr * gradient, Q - work.lr * HQ
            Q, logs = library_qr(torch, Q)
            growth.append(logs)
        return torch.stack(growth)[None].numpy()

    return run
