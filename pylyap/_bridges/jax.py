"""Training of a JAX model as a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pylyap import _checks, _extras
from pylyap._bridges.jax_map import JaxMap
from pylyap._bridges.jax_optimizers import require
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap.optimizers import GradientDescent, Optimizer


def from_jax(
    loss: Callable[..., Any],
    params: Any,
    optimizer: Any,
    data: tuple[Any, ...] | None = None,
    *,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: Seed = 0,
) -> tuple[JaxMap, Floats]:
    """Training of a JAX model as a map, with its tangent by forward-mode differentiation.

    The state is the parameters, flattened in the order of the pytree's leaves, followed by the
    floating-point state of the optimiser. Steps and tangent vectors are compiled by XLA;
    `lyapunov_spectrum` and `ftle` propagate and orthonormalise them without Python between the
    steps.

    Parameters
    ----------
    loss : callable
        ``loss(params)``, or ``loss(params, *data)`` if there are data; returns a scalar. It is
        traced, as by ``jax.jit``, and must be deterministic: random numbers of JAX with a fixed key
        are.
    params : pytree of arrays
        Initial parameters, all of them float64 or all float32. They decide the precision of the
        steps and of the tangent vectors. float64 needs
        ``jax.config.update("jax_enable_x64", True)``.
    optimizer : GradientDescent, Adam or optax.GradientTransformation
        An optimiser of this package, whose rates must be numbers, or one of optax.
    data : tuple of pytrees of arrays, optional
        Arguments of `loss` after the parameters, such as ``(X, y)``. The first axis of each array
        is the samples, from which minibatches are drawn.
    batch_size : int, optional
        Samples per step, for an optimiser of optax; those of this package have their own. By
        default all samples. The last batch of an epoch may be smaller.
    shuffle : bool, default True
        Draw a new permutation of the samples for every epoch, for an optimiser of optax.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations, for an optimiser of optax.

    Returns
    -------
    system : JaxMap
        The map, with `n`, `n_params`, `step`, `tangent`, `loss`, `gradient`, `hessian_vector`,
        `trajectory`, `state`, `weights`, `batch` and `unflatten`. Arguments and results are float64
        arrays of NumPy.
    w0 : ndarray, shape (n_params,)
        The initial parameters, flattened.

    Raises
    ------
    ArgumentError
        If a leaf of the parameters is not float64 or float32 or not finite, the loss is not a
        finite scalar or not deterministic, arrays of the data differ in length, or the state of the
        optimiser contains keys of random numbers or counters that do not advance by one at every
        step.
    ImportError
        If JAX is not installed.

    See Also
    --------
    TrainingMap : Dense networks, with compiled kernels.

    Notes
    -----
    With an optimiser of this package the map is that of `TrainingMap`, with the same minibatches.
    Counters in the state of an optax optimiser are functions of t and not part of the map's state;
    neither are numbers that its update never changes. The derivative of a square root at 0 is taken
    as 0 in the update, as in `Adam`: second moments of parameters without a gradient are 0.

    In float32 the frame is orthonormal to about 1e-6, and a direction is destroyed below a relative
    length of about 1e-6 √n.

    On a CPU the runs of a batch are computed one after another by the same program, on several
    threads, so that the results of a run do not depend on the others, bit by bit; this is also
    faster than a batched program. `step` and `trajectory` give the same bits. The states of
    analyses with tangent vectors agree with them to rounding errors, because XLA fuses the step
    with the tangents. On an accelerator runs are batched with ``jax.vmap``, and results of a run
    agree to rounding errors; this has not been tested on one yet.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import pylyap as pl
    >>> jax.config.update("jax_enable_x64", True)
    >>> X, y = pl.datasets.iris()
    >>> w = pl.Network((4, 10, 3)).init(seed=0)[:43]
    >>> params = {"W": jnp.asarray(w[:40].reshape(10, 4)), "V": jnp.ones((3, 10)) / 10}
    >>> def loss(params, X, y):
    ...     logits = jnp.tanh(X @ params["W"].T) @ params["V"].T
    ...     return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()
    >>> system, w0 = pl.from_jax(loss, params, pl.GradientDescent(lr=0.1), (X, y))
    >>> pl.lyapunov_spectrum(system, w0, n_steps=50, k=3).exponents.shape
    (3,)
    >>> system.unflatten(w0)["V"].shape
    (3, 10)
    """
    _extras.require("jax", extra="jax", for_="from_jax")
    if not callable(loss):
        raise ArgumentTypeError("loss", f"must be callable, got {_checks.describe(loss)}")
    require(optimizer)
    size = None if batch_size is None else _checks.integer("batch_size", batch_size, least=1)
    shuffle, seed = _checks.flag("shuffle", shuffle), _checks.reusable_seed(seed)
    if isinstance(optimizer, Optimizer):
        if size is not None:
            raise ArgumentError("batch_size", "must be that of the optimizer, which has its own")
        order: Optimizer = optimizer
    else:
        order = GradientDescent(batch_size=size, shuffle=shuffle, seed=seed)
    system = JaxMap(loss, params, optimizer, data, order)
    return system, system.initial_weights
