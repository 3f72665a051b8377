"""Models of PyTorch as maps: `from_torch`, and `TangentMonitor` for a training loop of one's own.

Nothing here imports torch before it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import ArrayLike

from pylyap._bridges.torch.monitor import TangentMonitor
from pylyap._checks import Floats, Seed
from pylyap._extras import require
from pylyap.optimizers import Schedule

if TYPE_CHECKING:
    from pylyap._bridges.torch.maps import TorchMap
    from pylyap._bridges.torch.native import NativeMap

__all__ = ["TangentMonitor", "from_torch"]


def from_torch(
    model: Any,
    X: ArrayLike | Any,
    y: ArrayLike | Any | None,
    loss: Any,
    optimizer: Any,
    native: bool | None = None,
    *,
    jvp: Literal["forward-over-reverse", "reverse-over-reverse", "loop"] | None = None,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: Seed = 0,
    schedule: Schedule | None = None,
    memory_limit: float = 4e9,
) -> tuple[TorchMap | NativeMap, Floats]:
    """Training of a PyTorch model as a map for all analyses, and the model's state.

    Parameters
    ----------
    model : torch.nn.Module
        The model. It is copied, with its buffers and the modes of its layers, and never changed. A
        compiled model is unwrapped. All parameters and buffers are on one device; parameters are
        float64 or float32. Parameters that do not require gradients stay constant.
    X : array_like, Tensor or Dataset
        Inputs, one sample per entry of the first axis. Real numbers take the dtype of the model,
        integers become int64. A map-style ``torch.utils.data.Dataset`` of pairs (input, target) is
        loaded once; `y` is then None.
    y : array_like or Tensor, or None
        Targets, one per sample.
    loss : {"mse", "cross_entropy"}, loss module, or callable
        ``"mse"`` is 1/(2N) Σ‖ŷ − y‖², as in `Network`; ``nn.MSELoss()`` is the mean over all
        entries. ``"cross_entropy"`` is the mean softmax cross-entropy of the logits. A function of
        output and target returns a scalar tensor.
    optimizer : GradientDescent, Adam, torch.optim.SGD, torch.optim.Adam or torch.optim.AdamW
        The optimiser. One of torch is an instance made on parameters of `model`; only these are
        trained. Its hyperparameters, which may differ between groups, are read once. The state that
        it already has enters the initial state, and the number of steps made the bias corrections.
    native : bool, optional
        Whether to use the compiled core. By default it is used where it computes the same function:
        float64 dense networks on the CPU of ``nn.Linear`` with biases and an activation of
        `Network` between them, with a loss and an optimiser of the core. True raises an error with
        the reason if that is not the case.
    jvp : {"forward-over-reverse", "reverse-over-reverse", "loop"}, optional
        Method of the Hessian–vector products, batched over the vectors by ``vmap`` except for
        ``"loop"``, which calls double backward for one vector after another. By default the
        fastest, measured at the first call for each number of vectors.
    batch_size : int, optional
        Samples per step, for an optimiser of torch; those of pylyap have their own. All by default.
    shuffle : bool, default True
        Draw a new permutation of the samples for every epoch, for an optimiser of torch.
    seed : int, SeedSequence or Generator, default 0
        Seed of the permutations, for an optimiser of torch.
    schedule : callable or array_like, shape (n_steps,), optional
        Factor of the learning rate at each step, for an optimiser of torch, as in
        `GradientDescent`. Schedulers of torch are not read.
    memory_limit : float, default 4e9
        Largest size of a Dataset in memory, in bytes.

    Returns
    -------
    system : Map
        A `TrainingMap` for the compiled core, otherwise an object with the same methods on arrays
        of NumPy: `step`, `tangent`, `adjoint`, `loss`, `gradient`, `hessian_vector`, `trajectory`
        and batched forms. Both have ``unflatten(x)``, which returns a ``state_dict``, and
        ``load_into(model, x)``.
    w0 : ndarray, shape (n_params,) or (n,)
        The trainable parameters, flattened in the order of ``model.parameters()``; followed by the
        buffers of the optimiser if it has made steps.

    Raises
    ------
    ArgumentError
        If the model or the optimiser cannot be a map: dropout with p > 0 or BatchNorm in training
        mode, random or stateful layers, operators without second derivatives, several devices or
        dtypes, amsgrad, maximize, dampening. If shapes of data, output and target do not fit.
    ImportError
        If PyTorch is not installed.

    See Also
    --------
    TangentMonitor : Exponents of a training loop of one's own.
    TrainingMap : The same for the networks of pylyap.

    Notes
    -----
    Buffers, such as running statistics, are constants of the map. Attention uses the math backend,
    which has derivatives of all kinds.

    Momentum keeps the form of the optimiser. That of torch has no learning rate in its buffer,
    b' = βb + g, w' = w − lr b', which differs from `GradientDescent` under a schedule. For the
    compiled core, which is used at constant lr only, the velocity is v = −lr b.

    A model in float32 makes steps in float32; the state holds float32 numbers. Hessian–vector
    products are in float32, frames and the derivatives of the optimiser in float64.

    The state after a step does not depend on the tangents. Several runs of a model of at most 5,000
    parameters are stepped together by ``vmap``, in groups of 16, if copies of a run in one group
    give the same bits; those of other models one after another. The bits of a run in a group do not
    depend on its neighbours or their number, but may differ from those of a run alone. Exponents
    depend in the last bits on the method of the products: `jvp` fixes it.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    >>> X, y = pl.datasets.iris()
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> system, w0 = pl.from_torch(net.double(), X, y, "cross_entropy", optimizer)
    >>> pl.lyapunov_spectrum(system, w0, n_steps=50, k=2).exponents.shape
    (2,)
    """
    require("torch", extra="torch", for_="from_torch")
    from pylyap._bridges.torch.build import Options, build

    options = Options(native, jvp, batch_size, shuffle, seed, schedule, memory_limit)
    return build(model, X, y, loss, optimizer, options)
