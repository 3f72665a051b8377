from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import pylyap as pl

from . import digits

SIZES = {"4-10-3": ((4, 10, 3), 120, 500), "64-32-10": ((64, 32, 10), 500, 20)}


class JaxModel:
    """Exponents of a dense net through `from_jax`, beside a `lax.scan` written by hand."""

    params = (list(SIZES), [1, 10], ["from_jax", "by hand"])
    param_names = ("layers", "k", "loop")
    timeout = 300

    def setup(self, layers: str, k: int, loop: str) -> None:
        try:
            import jax
        except ImportError:
            raise NotImplementedError from None  # asv skips it
        jax.config.update("jax_enable_x64", True)
        widths, samples, self.n_steps = SIZES[layers]
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(samples, widths[0])), rng.integers(widths[-1], size=samples)
        net = pl.Network(widths, activation="tanh", loss="cross_entropy")
        self.core = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1))
        self.w0, tree = net.init("normal", seed=0), net.unpack(net.init("normal", seed=0))
        self.system, _ = pl.from_jax(dense_loss, tree, pl.GradientDescent(lr=0.1), (X, y))
        self.frame = np.linalg.qr(rng.normal(size=(net.n_params, k)))[0]
        self.hand = by_hand(tree, (X, y), self.n_steps)
        self.run(loop)

    def run(self, loop: str) -> Any:
        if loop == "by hand":
            return np.asarray(self.hand(self.w0, self.frame))
        return pl.lyapunov_spectrum(self.system, self.w0, self.n_steps, frame=self.frame).growth

    def time_exponents(self, layers: str, k: int, loop: str) -> None:
        self.run(loop)

    def track_ratio(self, layers: str, k: int, loop: str) -> float:
        """Time of the loop in units of that by hand, in alternation in one process."""
        times: dict[str, list[float]] = {"by hand": [], loop: []}
        for which in times:
            self.run(which)
        for _ in range(15):
            for which, taken in times.items():
                begin = time.perf_counter()
                self.run(which)
                taken.append(time.perf_counter() - begin)
        return float(np.median(times[loop]) / np.median(times["by hand"]))

    track_ratio.unit = "times by hand"

    def track_agreement(self, layers: str, k: int, loop: str) -> float:
        """The growth of every step is that of the compiled core."""
        spectrum = pl.lyapunov_spectrum(self.core, self.w0, self.n_steps, frame=self.frame)
        return digits(float(np.abs(self.run(loop) - spectrum.growth).max()))

    track_agreement.unit = "digits"


def dense_loss(params: Any, X: Any, y: Any) -> Any:
    """Softmax cross-entropy of a dense tanh net with one hidden layer."""
    import jax
    import jax.numpy as jnp

    (W1, b1), (W2, b2) = params
    logits = jnp.tanh(X @ W1.T + b1) @ W2.T + b2
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], axis=1).mean()


def by_hand(params: Any, data: Any, n_steps: int) -> Callable[[Any, Any], Any]:
    """Log growth (n_steps, k) of gradient descent, as one writes it in JAX."""
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.flatten_util import ravel_pytree

    unravel = ravel_pytree(params)[1]
    X, y = map(jnp.asarray, data)

    def step(w: Any) -> Any:
        return w - 0.1 * jax.grad(lambda w: dense_loss(unravel(w), X, y))(w)

    def body(carry: tuple[Any, Any], _: None) -> Any:
        w, Q = carry
        w, Q = jax.vmap(lambda v: jax.jvp(step, (w,), (v,)), 1, (None, 1))(Q)
        Q, R = jnp.linalg.qr(Q)
        r = jnp.diagonal(R)
        return (w, Q * jnp.sign(r)), jnp.log(jnp.abs(r))

    def run(w: Any, Q: Any) -> Any:
        return lax.scan(body, (w, Q), None, length=n_steps)[1]

    compiled: Callable[[Any, Any], Any] = jax.jit(run)
    return compiled
