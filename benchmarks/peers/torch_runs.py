"""The workloads by PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .by_hand import ByHand, cholesky_qr2, ensemble_step, library_qr
from .workloads import Ensemble, Run, Sgd, Training


def torch_training(work: Training, tangent: str, runs: str, qr: str) -> Run:
    import torch
    from torch import func

    hand = ByHand(torch, work, lambda a: torch.as_tensor(np.asarray(a)))
    d, h, o = work.layers
    X, y = torch.as_tensor(work.X), torch.as_tensor(work.y)
    activation = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}[work.activation]

    def loss(w: Any) -> Any:
        W1, b1, W2, b2 = torch.split(w, [h * d, h, o * h, o])
        out = activation(X @ W1.reshape(h, d).T + b1) @ W2.reshape(o, h).T + b2
        if work.loss == "mse":
            return ((out[:, 0] - y) ** 2).sum() / (2 * work.samples)
        return torch.nn.functional.cross_entropy(out, y)

    def step(w: Any) -> Any:
        return w - work.lr * func.grad(loss)(w)

    def jvp(w: Any, Q: Any) -> tuple[Any, Any]:
        after, JQ = func.vmap(lambda v: func.jvp(step, (w,), (v,)), 1, (0, 1))(Q)
        return after[0], JQ

    def hessian(w: Any, Q: Any) -> tuple[Any, Any]:
        return step(w), Q - work.lr * (func.hessian(loss)(w) @ Q)

    def solve(L: Any, A: Any) -> Any:
        return torch.linalg.solve_triangular(L.mT, A, upper=True, left=False)

    tangents: dict[str, Any] = {"jvp": jvp, "hessian": hessian}
    autodiff = tangents.get(tangent)
    push = autodiff or hand.tangent(tangent)
    if autodiff and runs == "vmap":
        push = func.vmap(autodiff)
    order = np.arange(work.n) if autodiff else hand.order
    methods: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "QR": partial(library_qr, torch),
        "CholeskyQR2": partial(cholesky_qr2, torch, solve),
    }
    orthonormalise = methods[qr]

    def advance(w: Any, Q: Any) -> Any:
        growth = []
        for _ in range(work.steps):
            w, Q = push(w, Q)
            Q, g = orthonormalise(Q)
            growth.append(g)
        return torch.stack(growth, -2)

    frame, w0 = torch.as_tensor(work.frame[order]), torch.as_tensor(work.w0[:, order])

    def run() -> Any:
        with torch.no_grad():
            if runs == "vmap":
                return advance(w0, frame.expand(work.runs, *frame.shape))
            return torch.stack([advance(w, frame) for w in w0])

    return run


def torch_ensemble(work: Ensemble, gradient: str) -> Run:
    import torch

    hand = ByHand(torch, work, torch.as_tensor)
    step, start = ensemble_step(work, hand), torch.as_tensor(work.members()[..., hand.order])

    def run() -> Any:
        w, out = start, []
        with torch.no_grad():
            for _ in range(work.steps):
                w = step(w)
                out.append((w[:, 1:] - w[:, :1]).abs().sum(-1))
        return torch.stack(out, 1).numpy()

    return run


def torch_sgd(work: Sgd, gradient: str) -> Run:
    import torch

    dtype = getattr(torch, work.dtype)
    X = torch.as_tensor(work.images / 255.0, dtype=dtype)
    y = torch.as_tensor(work.labels)
    batches = [torch.as_tensor(b) for b in work.batches()]
    start = [torch.as_tensor(p) for p in work.start()]

    def autograd() -> Any:
        p = [a.clone().requires_grad_() for a in start]
        for chosen in batches:
            a = X[chosen]
            for i in (0, 2, 4):
                a = torch.nn.functional.linear(a, p[i], p[i + 1])
                a = torch.relu(a) if i < 4 else a
            loss = torch.nn.functional.cross_entropy(a, y[chosen])
            slopes = torch.autograd.grad(loss, p)
            with torch.no_grad():
                torch._foreach_add_(p, slopes, alpha=-work.lr)
        return p

    def by_hand() -> Any:
        W = [a.clone() for a in start]
        with torch.no_grad():
            for chosen in batches:
                x = X[chosen]
                a1 = torch.relu_(torch.addmm(W[1], x, W[0].T))
                a2 = torch.relu_(torch.addmm(W[3], a1, W[2].T))
                e = torch.softmax(torch.addmm(W[5], a2, W[4].T), 1)
                e[torch.arange(len(chosen)), y[chosen]] -= 1.0
                e *= -work.lr / len(chosen)
                e2 = (e @ W[4]).mul_(a2 > 0)
                e1 = (e2 @ W[2]).mul_(a1 > 0)
                for i, (error, value) in enumerate(((e1, x), (e2, a1), (e, a2))):
                    W[2 * i].addmm_(error.T, value)
                    W[2 * i + 1] += error.sum(0)
        return W

    run = {"autograd": autograd, "by hand": by_hand}[gradient]
    return lambda: torch.cat([p.detach().ravel() for p in run()])[None, None].numpy()
