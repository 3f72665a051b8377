"""Scores of a map of two learning rates, the same pixels for all, none of which ends early."""

from __future__ import annotations

from typing import Any

import numpy as np

from .workloads import Landscape, Run


def pylyap_landscape(work: Landscape) -> Run:
    import pylyap as pl

    n = work.layers[0]
    forward = np.array([np.sqrt(2 / n), 1 / n])
    net = pl.Network(work.layers, activation="tanh", loss="mse")
    rule = pl.GradientDescent(lr=1.0, layer_scale=2 * forward**2, bias_scale=0)
    system = pl.TrainingMap(net, work.X, work.y, rule)
    weights = forward[0] * work.W, forward[1] * work.u[np.newaxis]
    w0 = net.pack([(W, np.zeros(len(W))) for W in weights])
    x, y = (np.unique(work.rates[:, i]) for i in (0, 1))

    def run() -> Any:
        found = pl.stability_map(
            system, ("lr_0", x), ("lr_1", y), n_steps=work.steps, w0=w0, stop_early=False
        )
        return found.score.reshape(-1, 1, 1)

    return run


def jax_landscape(work: Landscape, gradient: str) -> Run:
    """By `jax.grad` of one pixel under vmap, or by hand with one product for many pixels.

    By hand the weights of m pixels are one matrix (m n, n): X meets all of them in one product.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    n, N = work.layers[0], work.samples
    alpha = np.sqrt(2 / n)
    X, y = jnp.asarray(work.X), jnp.asarray(work.y)

    def loss(W: Any, u: Any) -> Any:
        return ((jnp.tanh(alpha * X @ W.T) @ u / n - y) ** 2).mean()

    def by_grad(W: Any, u: Any, rates: Any) -> Any:
        def one(W: Any, u: Any, rate: Any) -> Any:
            value, (dW, du) = jax.value_and_grad(loss, (0, 1))(W, u)
            return W - rate[0] * dW, u - rate[1] * du, value

        return jax.vmap(one)(W, u, rates)

    def by_hand(W: Any, u: Any, rates: Any) -> Any:
        m = len(W)
        h = jnp.tanh(alpha * X @ W.reshape(m * n, n).T).reshape(N, m, n)
        error = jnp.einsum("smh,mh->sm", h, u) / n - y[:, None]
        du = (2 / (N * n)) * jnp.einsum("sm,smh->mh", error, h)
        delta = (error[:, :, None] * u) * (1 - h * h)
        dW = (2 * alpha / (N * n)) * (delta.reshape(N, m * n).T @ X).reshape(m, n, n)
        return W - rates[:, :1, None] * dW, u - rates[:, 1:] * du, (error**2).mean(axis=0)

    step = by_grad if gradient.startswith("vmap") else by_hand

    def score(rates: Any) -> Any:
        m = len(rates)
        start = jnp.tile(jnp.asarray(work.W), (m, 1, 1)), jnp.tile(jnp.asarray(work.u), (m, 1))

        def body(carry: Any, _: None) -> Any:
            W, u, value = step(*carry, rates)
            return (W, u), value

        losses = lax.scan(body, start, None, length=work.steps)[1]
        v = jnp.minimum(jnp.where(jnp.isfinite(losses), losses / losses[0], 1e6), 1e6)
        return jnp.where(v[-20:].mean(axis=0) < 1, -v.sum(axis=0), (1 / v).sum(axis=0))

    rates, m = jnp.asarray(work.rates), len(work.rates)
    chunk = int(gradient.rpartition(" ")[2]) if "chunks" in gradient else m
    parts = rates.reshape(-1, chunk, 2) if m % chunk == 0 else rates[None]
    compiled = jax.jit(lambda parts: lax.map(score, parts))
    return lambda: np.asarray(jax.block_until_ready(compiled(parts))).reshape(-1, 1, 1)
