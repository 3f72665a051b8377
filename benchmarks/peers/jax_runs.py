"""The workloads by JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .by_hand import ByHand, cholesky_qr2, ensemble_step, library_qr
from .workloads import Ensemble, Floats, Propagator, Run, Sgd, Sharpness, Training


def gradient_step(work: Training) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """A step of gradient descent by `jax.grad`, and the loss, in the network's order."""
    import jax
    import jax.numpy as jnp

    X, y = jnp.asarray(work.X), jnp.asarray(work.y)
    activation = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[work.activation]
    shapes = list(zip(work.layers[1:], work.layers, strict=False))

    def loss(w: Any) -> Any:
        parts = jnp.split(w, np.cumsum([size for o, d in shapes for size in (o * d, o)])[:-1])
        out = X
        for layer, (shape, W, b) in enumerate(zip(shapes, parts[::2], parts[1::2], strict=True)):
            out = (activation(out) if layer else out) @ W.reshape(shape).T + b
        if work.loss == "mse":
            return ((out[:, 0] - y) ** 2).sum() / (2 * work.samples)
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1).mean()

    return lambda w: w - work.lr * jax.grad(loss)(w), loss


def heavy_ball(push: Any, momentum: float) -> Any:
    """A step with momentum, and its tangent, from those of plain gradient descent."""
    import jax.numpy as jnp

    def stepped(x: Any, Q: Any) -> tuple[Any, Any]:
        (w, v), (W, V) = jnp.split(x, 2), jnp.split(Q, 2)
        after, pushed = push(w, W)
        v, V = momentum * v + (after - w), momentum * V + (pushed - W)
        return jnp.concatenate([w + v, v]), jnp.concatenate([W + V, V])

    return stepped


def jax_propagator(work: Propagator, tangent: str, method: str = "", columns: str = "all") -> Run:
    """All singular triplets by products with the columns of 1 and an SVD, or the largest.

    The largest are those of the block Krylov iteration that pylyap uses, or square roots of the
    largest eigenvalues of DᵀD by JAX's LOBPCG. The Jacobian of a step is symmetric.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    step, _ = gradient_step(work)
    order = np.arange(work.n)
    if tangent == "jvp":

        def push(w: Any, V: Any) -> Any:
            return jax.vmap(lambda v: jax.jvp(step, (w,), (v,))[1], 1, 1)(V)

    elif tangent == "linearize":

        def push(w: Any, V: Any) -> Any:
            return jax.vmap(jax.linearize(step, w)[1], 1, 1)(V)

    else:
        order = ByHand(jnp, work, jnp.asarray).order

        def by_hand(w: Any, V: Any) -> Any:
            return ByHand(jnp, replace(work, k=V.shape[1]), jnp.asarray).r_operator(w, V)

        def push(w: Any, V: Any) -> Any:
            return by_hand(w, V)[1]

        def step(w: Any) -> Any:
            return by_hand(w, jnp.zeros((work.n, 1)))[0]

    w0 = jnp.asarray(work.w0[0, order])

    @jax.jit
    def states() -> Any:
        return lax.scan(lambda w, _: (step(w), w), w0, None, length=work.steps)[1]

    @jax.jit
    def forward(path: Any, V: Any) -> Any:
        return lax.scan(lambda V, w: (push(w, V), None), V, path)[0]

    @jax.jit
    def backward(path: Any, U: Any) -> Any:
        return lax.scan(lambda U, w: (push(w, U), None), U, path, reverse=True)[0]

    def whole() -> Floats:
        path, eye = states(), jnp.eye(work.n)
        width = work.n if columns == "all" else 128
        parts = [forward(path, eye[:, j : j + width]) for j in range(0, work.n, width)]
        _, s, _ = jnp.linalg.svd(jnp.concatenate(parts, axis=1))
        return np.log(np.asarray(s))[np.newaxis, np.newaxis]

    def lobpcg() -> Floats:
        from jax.experimental.sparse.linalg import lobpcg_standard

        path = states()
        start = jax.random.normal(jax.random.key(0), (work.n, work.k))
        found, _, _ = lobpcg_standard(
            lambda V: backward(path, forward(path, V)), start, m=200, tol=1e-10
        )
        return 0.5 * np.log(np.asarray(found))[np.newaxis, np.newaxis]

    return {"": whole, "block Krylov": partial(krylov, states, forward, backward, work)}.get(
        method, lobpcg
    )


def krylov(
    states: Callable[[], Any],
    forward: Callable[[Any, Any], Any],
    backward: Callable[[Any, Any], Any],
    work: Propagator,
) -> Floats:
    """Logarithms of the k largest singular values by the iteration of pylyap, tolerance 1e-10."""
    path, b = states(), work.k + 4

    def without(Q: Floats, B: Floats) -> tuple[Floats, Floats]:
        C = Q.T @ B
        B = B - Q @ C
        again = Q.T @ B
        return B - Q @ again, C + again

    V = np.linalg.qr(np.random.default_rng(0).normal(size=(work.n, b)))[0]
    Q, R = np.linalg.qr(np.asarray(forward(path, V)))
    while True:
        U, s, _ = np.linalg.svd(R)
        outside, _ = without(V, np.asarray(backward(path, Q @ U[:, :b])))
        residual = np.linalg.norm(outside, axis=0)[: work.k] / s[: work.k]
        if (residual <= 1e-10).all():
            return np.log(s[: work.k])[np.newaxis, np.newaxis]
        block = np.linalg.qr(without(V, np.linalg.qr(outside)[0])[0])[0]
        V = np.concatenate([V, block], axis=1)
        rest, C = without(Q, np.asarray(forward(path, block)))
        more, S = np.linalg.qr(rest)
        R = np.block([[R, C], [np.zeros((b, len(R))), S]])
        Q = np.concatenate([Q, more], axis=1)


def jax_training(work: Training, tangent: str, runs: str, qr: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    step, loss = gradient_step(work)

    def jvp(w: Any, Q: Any) -> tuple[Any, Any]:
        pairs: tuple[Any, Any] = jax.vmap(lambda v: jax.jvp(step, (w,), (v,)), 1, (None, 1))(Q)
        return pairs

    def linearize(w: Any, Q: Any) -> tuple[Any, Any]:
        after, push = jax.linearize(step, w)
        return after, jax.vmap(push, in_axes=1, out_axes=1)(Q)

    def hessian(w: Any, Q: Any) -> tuple[Any, Any]:
        return step(w), Q - work.lr * (jax.hessian(loss)(w) @ Q)

    def solve(L: Any, A: Any) -> Any:
        return lax.linalg.triangular_solve(L, A, lower=True, transpose_a=True)

    def by_columns(A: Any) -> tuple[Any, Any]:
        """Modified Gram-Schmidt, one rank-one update per column."""
        columns = jnp.arange(A.shape[1])

        def column(j: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            A, norms = carry
            a = lax.dynamic_index_in_dim(A, j, 1, keepdims=False)
            norm = jnp.sqrt((a * a).sum())
            q = a / norm
            A = A - q[:, None] * jnp.where(columns > j, q @ A, 0.0)
            A = lax.dynamic_update_index_in_dim(A, q, j, 1)
            return A, lax.dynamic_update_index_in_dim(norms, norm, j, 0)

        few = work.k <= 16
        A, norms = lax.fori_loop(0, work.k, column, (A, jnp.zeros(work.k)), unroll=few or None)
        return A, jnp.log(norms)

    def by_panels(A: Any, width: int = 16) -> tuple[Any, Any]:
        """Classical Gram-Schmidt between panels, twice, and CholeskyQR in them."""
        Q, growth = A[:, :0], []
        for j in range(0, work.k, width):
            panel, total = A[:, j : j + width], 0.0
            for _ in range(2):
                panel = panel - Q @ (Q.T @ panel)
                L = jnp.linalg.cholesky(panel.T @ panel)
                panel, total = solve(L, panel), total + jnp.log(jnp.diagonal(L))
            Q = jnp.concatenate([Q, panel], 1)
            growth.append(total)
        return Q, jnp.concatenate(growth)

    tangents: dict[str, Any] = {"jvp": jvp, "linearize": linearize, "hessian": hessian}
    if tangent in tangents:
        push, order = tangents[tangent], np.arange(work.n)
    else:
        hand = ByHand(jnp, work, jnp.asarray)
        push, order = hand.tangent(tangent), hand.order
    if work.momentum:
        push, order = heavy_ball(push, work.momentum), np.concatenate([order, work.n + order])
    methods: dict[str, Callable[[Any], tuple[Any, Any]]] = {
        "QR": partial(library_qr, jnp),
        "CholeskyQR2": partial(cholesky_qr2, jnp, solve),
        "MGS": by_columns,
        "panel GS": by_panels,
    }
    orthonormalise = methods[qr]

    def one(w: Any, Q: Any) -> Any:
        def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Any]:
            w, Q = push(*carry)
            Q, growth = orthonormalise(Q)
            return (w, Q), growth

        return lax.scan(body, (w, Q), None, length=work.steps)[1]

    frame, w0 = jnp.asarray(work.frame[order]), jnp.asarray(work.w0[:, order])
    if runs == "vmap":
        compiled = jax.jit(jax.vmap(one, in_axes=(0, None)))
    else:
        compiled = jax.jit(lambda w, Q: lax.map(lambda start: one(start, Q), w))
    return lambda: jax.block_until_ready(compiled(w0, frame))


def bridge_training(work: Training) -> Run:
    """The same loss by `from_jax`, one run after another on the threads of pylyap."""
    import jax
    import jax.numpy as jnp

    import pylyap as pl

    jax.config.update("jax_enable_x64", True)
    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    activation = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}[work.activation]

    def loss(params: Any, X: Any, y: Any) -> Any:
        (W1, b1), (W2, b2) = params
        out = activation(X @ W1.T + b1) @ W2.T + b2
        if work.loss == "mse":
            return ((out[:, 0] - y) ** 2).mean() / 2
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1).mean()

    rule = pl.GradientDescent(lr=work.lr)
    system, _ = pl.from_jax(loss, net.unpack(work.w0[0]), rule, (work.X, work.y))
    return lambda: (
        pl.lyapunov_spectrum(system, work.w0, work.steps, k=work.k, frame=work.frame).growth
    )


def lyapax_training(work: Training) -> Run:
    """Exponents of the gradient step by lyapax, from the given frame."""
    import jax
    import jax.numpy as jnp
    import lyapax

    jax.config.update("jax_enable_x64", True)
    step, _ = gradient_step(work)
    frame, starts = jnp.asarray(work.frame), [jnp.asarray(w) for w in work.w0]

    def one(w: Any) -> Any:
        begin = lyapax.LyapunovCheckpoint(w, frame, jnp.zeros(work.k), jnp.zeros(()), 1.0)
        found = lyapax.lyapunov_spectrum(step, w, 1.0, work.steps, work.k, resume=begin)
        # Its columns are sorted by the exponents at the end.
        place = jnp.argsort(jnp.argsort(-found.checkpoint.cum_log_growth))
        return jnp.diff((found.history * found.times[:, None])[:, place], axis=0, prepend=0.0)

    compiled = jax.jit(one)
    return lambda: np.stack([compiled(w) for w in starts])


def chaotax_training(work: Training) -> Run:
    """Exponents by chaotax, which cannot be jitted and compiles at each call."""
    import chaotax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    step, _ = gradient_step(work)
    rows, starts = jnp.asarray(work.frame.T), [jnp.asarray(w) for w in work.w0]
    rollout = chaotax.rollout_growth_spectrum(step, work.steps)
    return lambda: np.stack([np.log(np.abs(rollout(w, rows))) for w in starts])


def jax_ensemble(work: Ensemble, gradient: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    d, h, o = work.layers
    hand = ByHand(jnp, work, jnp.asarray)
    X, y, target = jnp.asarray(work.X), jnp.asarray(work.y), jnp.asarray(np.eye(o)[work.y])

    def loss(w: Any) -> Any:
        W1, b1, W2, b2 = jnp.split(w, np.cumsum([h * d, h, o * h]))
        out = jax.nn.sigmoid(X @ W1.reshape(h, d).T + b1) @ W2.reshape(o, h).T + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], axis=1).mean()

    def einsum(w: Any) -> Any:
        """All members of all runs in one batch, parameters in the network's order."""
        flat = w.reshape(-1, work.n)
        W1, b1, W2, b2 = jnp.split(flat, np.cumsum([h * d, h, o * h]), axis=1)
        W1, W2 = W1.reshape(-1, h, d), W2.reshape(-1, o, h)
        a = jax.nn.sigmoid(jnp.einsum("sd,mhd->smh", X, W1) + b1)
        out = jnp.einsum("smh,moh->smo", a, W2) + b2
        e = (jax.nn.softmax(out) - target[:, None]) / work.samples
        back = jnp.einsum("smo,moh->smh", e, W2) * a * (1 - a)
        parts = [
            jnp.einsum("smh,sd->mhd", back, X).reshape(-1, h * d), back.sum(0),
            jnp.einsum("smo,smh->moh", e, a).reshape(-1, o * h), e.sum(0),
        ]  # fmt: skip
        return w - work.lr * jnp.concatenate(parts, 1).reshape(w.shape)

    ways: dict[str, Callable[[Any], Any]] = {
        "vmap(grad)": lambda w: w - work.lr * jax.vmap(jax.vmap(jax.grad(loss)))(w),
        "matmul": ensemble_step(work, hand),
        "einsum": einsum,
    }
    step = ways[gradient]
    order = hand.order if gradient == "matmul" else np.arange(work.n)

    def body(w: Any, _: Any) -> tuple[Any, Any]:
        w = step(w)
        return w, jnp.abs(w[:, 1:] - w[:, :1]).sum(-1)

    @jax.jit
    def compiled(w: Any) -> Any:
        return lax.scan(body, w, None, length=work.steps)[1].swapaxes(0, 1)

    start = jnp.asarray(work.members()[..., order])
    return lambda: jax.block_until_ready(compiled(start))


def jax_sgd(work: Sgd, gradient: str) -> Run:
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    X = jnp.asarray(work.images / 255.0, dtype=work.dtype)
    y = jnp.asarray(work.labels)
    batches = jnp.asarray(np.stack(work.batches()))  # all of one size in so few steps
    start = [jnp.asarray(p) for p in work.start()]
    one_hot = jnp.eye(10, dtype=work.dtype)

    def loss(p: Any, x: Any, labels: Any) -> Any:
        a = jax.nn.relu(x @ p[0].T + p[1])
        a = jax.nn.relu(a @ p[2].T + p[3])
        out = jax.nn.log_softmax(a @ p[4].T + p[5])
        return -jnp.take_along_axis(out, labels[:, None], axis=1).mean()

    def matmul(p: Any, x: Any, labels: Any) -> list[Any]:
        a1 = jax.nn.relu(x @ p[0].T + p[1])
        a2 = jax.nn.relu(a1 @ p[2].T + p[3])
        e = (jax.nn.softmax(a2 @ p[4].T + p[5]) - one_hot[labels]) / work.batch
        e2 = (e @ p[4]) * (a2 > 0)
        e1 = (e2 @ p[2]) * (a1 > 0)
        return [e1.T @ x, e1.sum(0), e2.T @ a1, e2.sum(0), e.T @ a2, e.sum(0)]

    slopes = {"grad": jax.grad(loss), "matmul": matmul}[gradient]

    def body(p: Any, chosen: Any) -> tuple[Any, None]:
        found = slopes(p, X[chosen], y[chosen])
        return [a - work.lr * g for a, g in zip(p, found, strict=True)], None

    compiled = jax.jit(lambda p: lax.scan(body, p, batches)[0])
    return lambda: np.concatenate([np.ravel(p) for p in compiled(start)])[None, None]


def jax_sharpness(work: Sharpness, gradient: str, runs: str, orthogonal: str) -> Run:
    """Lanczos iteration with full orthogonalisation, compiled as a whole.

    Products are `jvp` of the gradient, or its linearisation, which is computed once per state.
    """
    import jax
    import jax.numpy as jnp
    from jax import lax

    jax.config.update("jax_enable_x64", True)
    _, loss = gradient_step(work)
    slopes, m = jax.grad(loss), work.steps
    passes = {"once": 1, "twice": 2}[orthogonal]

    def one(w: Any, start: Any) -> Any:
        if gradient == "linearize":
            product: Any = jax.linearize(slopes, w)[1]
        else:
            product = lambda v: jax.jvp(slopes, (w,), (v,))[1]  # noqa: E731

        def body(j: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            basis, alpha, beta = carry
            v = lax.dynamic_index_in_dim(basis, j, 0, keepdims=False)
            image = product(v)
            alpha = lax.dynamic_update_index_in_dim(alpha, v @ image, j, 0)
            for _ in range(passes):  # rows that are not known yet are 0
                image = image - (basis @ image) @ basis
            norm = jnp.sqrt(image @ image)
            beta = lax.dynamic_update_index_in_dim(beta, norm, j, 0)
            basis = lax.dynamic_update_index_in_dim(basis, image / norm, j + 1, 0)
            return basis, alpha, beta

        basis = jnp.zeros((m + 1, work.n)).at[0].set(start / jnp.linalg.norm(start))
        _, alpha, beta = lax.fori_loop(0, m, body, (basis, jnp.zeros(m), jnp.zeros(m)))
        T = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
        return jnp.linalg.eigvalsh(T)[-1]

    if runs == "vmap":
        compiled = jax.jit(jax.vmap(one, in_axes=(0, None)))
    else:
        compiled = jax.jit(lambda w, v: lax.map(lambda start: one(start, v), w))
    w0, start = jnp.asarray(work.w0), jnp.asarray(work.start)
    return lambda: np.asarray(compiled(w0, start))[:, None, None]
