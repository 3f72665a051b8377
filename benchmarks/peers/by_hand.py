"""Formulas by hand, one source for NumPy, JAX and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .workloads import Ensemble, Training


@dataclass
class ByHand:
    """Gradient step and tangent of a three-layer network as matrix products.

    Parameters are stored as [W1 | b1] and [W2 | b2], each in C order, so that biases are weights of
    a constant input; `order` permutes the network's layout to this one, which changes no exponent.
    All arrays may have leading batch axes. xp is numpy, jax.numpy or torch.
    """

    xp: Any
    work: Training
    array: Callable[[Any], Any]

    def __post_init__(self) -> None:
        work, (d, h, o) = self.work, self.work.layers
        X1 = np.column_stack([work.X, np.ones(len(work.X))])
        index = np.arange(work.n)
        W1, b1, W2, b2 = np.split(index, np.cumsum([h * d, h, o * h]))
        self.order = np.concatenate(
            [
                np.column_stack([W1.reshape(h, d), b1]).ravel(),
                np.column_stack([W2.reshape(o, h), b2]).ravel(),
            ]
        )
        labels = work.y.reshape(-1, 1) if work.loss == "mse" else np.eye(o)[work.y]
        self.X = self.array(X1)
        self.target = self.array(labels)
        self.one = self.array(np.ones((len(X1), 1)))
        self.tail = self.array(np.tril(np.ones((o, o))))  # p @ tail: p_c + p_{c+1} + ...
        self.after = self.array(np.triu(np.ones((o, o)), 1)[:-1])
        self.eye_o = self.array(np.eye(o)[: max(o - 1, 1)])
        self.eye_h = self.array(np.eye(h).reshape(h, 1, h, 1))
        self.pad_h = self.array(np.eye(h + 1, h).reshape(1, h + 1, h, 1))
        self.corner = self.array(np.zeros((o * (h + 1), o * (h + 1))))

    def forward(self, w: Any) -> tuple[Any, ...]:
        xp, (d, h, o) = self.xp, self.work.layers
        batch = w.shape[:-1]
        W = w[..., : h * (d + 1)].reshape((*batch, h, d + 1))
        V = w[..., h * (d + 1) :].reshape((*batch, o, h + 1))
        z = self.X @ W.mT
        if self.work.activation == "tanh":
            a = xp.tanh(z)
            f1 = 1 - a * a
            f2 = -2 * a * f1
        else:
            a = 1 / (1 + xp.exp(-z))
            f1 = a * (1 - a)
            f2 = f1 * (1 - 2 * a)
        a1 = xp.concatenate([a, xp.broadcast_to(self.one, (*batch, *self.one.shape))], -1)
        out = a1 @ V.mT
        if self.work.loss == "cross_entropy":
            e = xp.exp(out - xp.amax(out, axis=-1, keepdims=True))
            out = e / e.sum(-1)[..., None]
        e = (out - self.target) / self.work.samples
        return V, a1, f1, f2, out, e, e @ V[..., :h]

    def gradient(self, a1: Any, f1: Any, e: Any, back: Any) -> Any:
        parts = ((back * f1).mT @ self.X, e.mT @ a1)
        return self.xp.concatenate([g.reshape((*g.shape[:-2], -1)) for g in parts], -1)

    def blocks(self, w: Any, Q: Any) -> tuple[Any, Any]:
        """The Hessian from its blocks: one product A^T A plus the terms of the residuals."""
        xp, (d, h, o) = self.xp, self.work.layers
        N = self.work.samples
        V, a1, f1, f2, out, e, back = self.forward(w)
        batch = w.shape[:-1]
        if self.work.loss == "cross_entropy":
            # diag p - p p^T = B^T B with outputs - 1 rows (Tanabe, Sagae, J. R. Stat. Soc. B 54,
            # 211 (1992)); s_c = p_c + p_{c+1} + ...
            s = out @ self.tail
            scale = xp.sqrt(out[..., :-1] * s[..., 1:] / s[..., :-1] / N)[..., None]
            B = scale * (self.eye_o - self.after * out[..., None, :] / s[..., 1:, None])
        else:
            B = xp.broadcast_to(self.eye_o / N**0.5, (*batch, N, 1, 1))
        rank = B.shape[-2]
        BV = (B.reshape((*batch, N * rank, o)) @ V[..., :h]).reshape((*batch, N, rank, h))
        first = (BV * f1[..., None, :])[..., None] * self.X[:, None, None, :]
        second = B[..., None] * a1[..., None, None, :]
        A = xp.concatenate(
            [
                first.reshape((*batch, N * rank, h * (d + 1))),
                second.reshape((*batch, N * rank, o * (h + 1))),
            ],
            -1,
        )
        diagonal = ((back * f2).mT @ self.XX).reshape((*batch, h, d + 1, 1, d + 1)) * self.eye_h
        mixed = (e[..., None] * f1[..., None, :]).reshape((*batch, N, o * h)).mT @ self.X
        mixed = mixed.reshape((*batch, o, 1, h, d + 1)) * self.pad_h
        upper = diagonal.reshape((*batch, h * (d + 1), h * (d + 1)))
        lower = mixed.reshape((*batch, o * (h + 1), h * (d + 1)))
        corner = xp.broadcast_to(self.corner, (*batch, *self.corner.shape))
        H = A.mT @ A + xp.concatenate(
            [xp.concatenate([upper, lower.mT], -1), xp.concatenate([lower, corner], -1)], -2
        )
        lr = self.work.lr
        return w - lr * self.gradient(a1, f1, e, back), Q - lr * (H @ Q)

    def r_operator(self, w: Any, Q: Any) -> tuple[Any, Any]:
        """Hessian times frame without the Hessian (Pearlmutter, Neural Comput. 6, 147 (1994))."""
        xp, (d, h, o) = self.xp, self.work.layers
        N, k, split = self.work.samples, self.work.k, h * (d + 1)
        V, a1, f1, f2, out, e, back = self.forward(w)
        batch = w.shape[:-1]
        columns = Q.mT
        RW = columns[..., :split].reshape((*batch, k * h, d + 1))
        RV = columns[..., split:].reshape((*batch, k, o, h + 1))
        Rz = (self.X @ RW.mT).reshape((*batch, N, k, h))
        Ra = f1[..., None, :] * Rz
        Rout = (a1 @ RV.reshape((*batch, k * o, h + 1)).mT).reshape((*batch, N * k, o))
        Rout = Rout + Ra.reshape((*batch, N * k, h)) @ V[..., :h].mT
        Re = Rout.reshape((*batch, N, k, o))
        if self.work.loss == "cross_entropy":
            p = out[..., None, :]
            Re = p * (Re - (p * Re).sum(-1)[..., None])
        Re = Re / N
        RVh = RV[..., :h].swapaxes(-3, -2).reshape((*batch, o, k * h))
        Rback = (Re.reshape((*batch, N * k, o)) @ V[..., :h]).reshape((*batch, N, k, h))
        Rback = Rback + (e @ RVh).reshape((*batch, N, k, h))
        Rdelta = Rback * f1[..., None, :] + (back * f2)[..., None, :] * Rz
        HW = Rdelta.reshape((*batch, N, k * h)).mT @ self.X
        HV = (Re.reshape((*batch, N, k * o)).mT @ a1).reshape((*batch, k, o, h + 1))
        HVh = (e.mT @ Ra.reshape((*batch, N, k * h))).reshape((*batch, o, k, h)).swapaxes(-3, -2)
        HV = xp.concatenate([HV[..., :h] + HVh, HV[..., h:]], -1)
        HQ = xp.concatenate(
            [HW.reshape((*batch, k, split)), HV.reshape((*batch, k, o * (h + 1)))], -1
        ).mT
        lr = self.work.lr
        return w - lr * self.gradient(a1, f1, e, back), Q - lr * HQ

    def tangent(self, name: str) -> Callable[[Any, Any], tuple[Any, Any]]:
        if name == "R-operator":
            return self.r_operator
        X = np.column_stack([self.work.X, np.ones(self.work.samples)])
        self.XX = self.array(np.einsum("si,sj->sij", X, X).reshape(len(X), -1))
        return self.blocks


def library_qr(xp: Any, A: Any) -> tuple[Any, Any]:
    """The library's Householder QR; signs make diag R > 0."""
    Q, R = xp.linalg.qr(A)
    r = xp.diagonal(R, 0, -2, -1)
    return Q * xp.sign(r)[..., None, :], xp.log(xp.abs(r))


def cholesky_qr2(xp: Any, solve: Callable[[Any, Any], Any], A: Any) -> tuple[Any, Any]:
    """Two rounds of R^T R = A^T A, A <- A R^-1; solve(L, A) is A L^-T."""
    growth = 0.0
    for _ in range(2):
        L = xp.linalg.cholesky(A.mT @ A)
        A = solve(L, A)
        growth = growth + xp.log(xp.diagonal(L, 0, -2, -1))
    return A, growth


def ensemble_step(work: Ensemble, hand: ByHand) -> Callable[[Any], Any]:
    """One step of members (runs, 1 + copies, n) as batched matrix products."""

    def step(w: Any) -> Any:
        _, a1, f1, _, _, e, back = hand.forward(w)
        return w - work.lr * hand.gradient(a1, f1, e, back)

    return step
