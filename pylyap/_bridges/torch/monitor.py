"""Exponents of a training loop that is the user's own: `TangentMonitor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._extras import require
from pylyap._native import core
from pylyap._thresholds import KINDS, Kind, hyperparameters
from pylyap.optimizers import GradientDescent

if TYPE_CHECKING:
    from pylyap._bridges.torch.optimizers import Translated

_CAUSES = (
    "possible causes: clipping of the gradient, dropout, BatchNorm in training mode, a scaled or "
    "accumulated gradient, mixed precision, another batch, loss or optimizer"
)
# Relative error of an update that is not rounding. Rounding errors of the weights themselves, of
# some tens of units, are allowed as well.
_UPDATE = 1e-2
_ROUNDING = 64.0


class TangentMonitor:
    """Lyapunov exponents of a training loop in PyTorch, step by step.

    The loop stays as it is: after each ``optimizer.step()`` it calls ``monitor.step((X, y))`` with
    the batch of that step. The monitor keeps the parameters and the state of the optimiser from
    before the step, recomputes it, and carries k tangent vectors through it.

    Parameters
    ----------
    model : torch.nn.Module
        The model that is trained. Its parameters, gradients and modes are only read. What
        `from_torch` refuses is refused here too.
    loss : {"mse", "cross_entropy"}, loss module, or callable
        The loss of a batch that the loop minimises, as in `from_torch`.
    optimizer : torch.optim.SGD, torch.optim.Adam or torch.optim.AdamW
        The optimiser of the loop. Its hyperparameters are read at every step, so schedulers may
        change them.
    k : int, default 1
        Number of tangent vectors.
    every : int, default 1
        Steps between two orthonormalisations, each of which gives a record. All steps are carried.
    window : int, optional
        Steps of a window, a multiple of `every`. Windows start after every `stride` steps of the
        optimiser; steps between them cost nothing. By default all steps are carried.
    stride : int, optional
        Steps from the start of a window to that of the next, at least `window`, which is the
        default.
    seed : int, SeedSequence or Generator, default 0
        Seed of the start frame, which is that of `lyapunov_spectrum`. Each window continues with
        the last frame of the window before.
    rtol : float, default 1e-6
        Largest difference of the recomputed parameters and those found, relative to their norm.
    jvp : {"forward-over-reverse", "reverse-over-reverse", "loop"}, optional
        Method of the Hessian–vector products, as in `from_torch`; the fastest by default.

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the model or the optimiser cannot be a map.
    ImportError
        If PyTorch is not installed.

    See Also
    --------
    from_torch : A model as a map for all analyses.

    Notes
    -----
    A step costs about that of the training step itself and two to three more for each vector. Each
    window without overlap gives ``ftle(system, w0, window=window, stride=window)`` of the same
    steps. The difference of the recomputed update and the one found may also not exceed 1 % of the
    update, except for rounding, so that a clipped gradient is found at small learning rates.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(4, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> monitor = pl.TangentMonitor(model, "cross_entropy", optimizer, k=2)
    >>> X, y = (torch.as_tensor(a) for a in pl.datasets.iris())
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     torch.nn.functional.cross_entropy(model(X.float()), y).backward()
    ...     optimizer.step()
    ...     monitor.step((X.float(), y))
    >>> monitor.exponents.shape
    (2,)
    """

    def __init__(
        self,
        model: Any,
        loss: Any,
        optimizer: Any,
        k: int = 1,
        every: int = 1,
        *,
        window: int | None = None,
        stride: int | None = None,
        seed: Seed = 0,
        rtol: float = 1e-6,
        jvp: Literal["forward-over-reverse", "reverse-over-reverse", "loop"] | None = None,
    ) -> None:
        require("torch", extra="torch", for_="TangentMonitor")
        from pylyap._bridges.torch.losses import loss_function
        from pylyap._bridges.torch.model import Functional, unwrap
        from pylyap._bridges.torch.optimizers import is_torch, trained
        from pylyap._bridges.torch.products import Products

        self._every = _checks.integer("every", every, least=1)
        self._window = self._every
        self._stride = self._every
        if window is not None:
            self._window = self._stride = _checks.integer("window", window, least=1)
            if self._window % self._every:
                raise ArgumentError(
                    "window", f"must be a multiple of every={self._every}, got {self._window}"
                )
        if stride is not None:
            if window is None:
                raise ArgumentError("stride", "needs a window, got window=None")
            self._stride = _checks.integer("stride", stride, least=1)
            if self._stride < self._window:
                raise ArgumentError(
                    "stride", f"must be at least window={self._window}, got {self._stride}"
                )
        self._rtol = _checks.real("rtol", rtol, above=0.0)
        self._seed = _checks.reusable_seed(seed)
        self._function, self._loss = loss_function(loss), loss
        if not is_torch(optimizer):
            raise ArgumentTypeError(
                "optimizer", f"must be an optimizer of torch, got {_checks.describe(optimizer)}"
            )
        self._model, self._optimizer = unwrap(model), optimizer
        self._functional = Functional(self._model, trained(optimizer))
        named = dict(self._model.named_parameters())
        self._parameters = [named[name] for name in self._functional.names]
        buffers = len(self._translated().rule.buffer_names)
        self.n = self._functional.n * (1 + buffers)
        self.k = _checks.integer("k", k, least=1, most=self.n)
        self._products = Products(jvp)
        self._frame: Any = None  # (k, n) on the device of the model
        self._before: tuple[Any, Translated] | None = None  # parameters and optimiser
        self._found: Any = None  # parameters after the last step that was carried
        self._batch: Any = None
        self._count = 0  # steps of the optimiser
        self._pending = 0  # of these, since the last call of `step`
        self._moved = False  # whether parameters were changed between two steps
        self._growth = np.zeros(self.k)  # of the current window
        self._rows: list[Floats] = []
        self._starts: list[int] = []
        self._total, self._n_steps = np.zeros(self.k), 0
        self._hook = optimizer.register_step_pre_hook(self._remember)

    def close(self) -> None:
        """Stop watching the optimiser; the results stay."""
        self._hook.remove()
        self._before = None

    def __enter__(self) -> TangentMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"TangentMonitor(n={self.n}, k={self.k}, {self._n_steps} steps, "
            f"exponents={np.array2string(self.exponents[:4], precision=4)})"
        )

    # --- the loop ---------------------------------------------------------------------------------

    def _translated(self) -> Translated:
        from pylyap._bridges.torch.optimizers import translate

        return translate(self._optimizer, self._parameters)

    @property
    def _position(self) -> int:
        """Position of the next step of the optimiser in its stride."""
        return self._count % self._stride

    def _remember(self, *_: Any) -> None:
        """Keep parameters and optimiser before a step of a window."""
        if self._position < self._window:
            self._pending += 1
            w = self._functional.flat(self._model)
            self._moved = self._found is not None and not bool((w == self._found).all())
            self._before = w, self._translated()
        self._found = None
        self._count += 1

    def step(self, batch: Any) -> None:
        """Carry the tangent vectors through the step that the optimiser has just made.

        Parameters
        ----------
        batch : pair of Tensor or array_like
            Inputs and targets of the step.

        Raises
        ------
        ArgumentError
            If the recomputed parameters differ from those found; the message names what can cause
            it. If the optimiser has made no step or several since the last call, or parameters were
            changed by something else.
        """
        if self._before is None:
            if self._count == 0:
                raise ArgumentError("batch", "must follow a call of optimizer.step(), got none yet")
            return  # between windows
        (w, translated), pending, moved = self._before, self._pending, self._moved
        self._before, self._pending, self._moved = None, 0, False
        if pending != 1:
            raise ArgumentError(
                "batch", f"must follow each call of optimizer.step(), got {pending} since the last"
            )
        if moved:
            raise ArgumentError(
                "batch",
                "must be of a training whose parameters are changed by the optimizer alone; they "
                "changed between two steps",
            )
        self._batch = self._prepared(batch, w)
        self._carry(w, translated, *self._batch)

    def _prepared(self, batch: Any, w: Any, name: str = "batch") -> tuple[Any, Any]:
        """Tensors of a batch, and the copy of the model in the state of the model."""
        import torch

        from pylyap._bridges.torch.data import tensors
        from pylyap._bridges.torch.losses import prepared_targets
        from pylyap._bridges.torch.model import one_line, require_pure

        pair = _checks.sequence(name, batch, "a pair (X, y)")
        if len(pair) != 2:
            raise ArgumentError(name, f"must be a pair (X, y), got {len(pair)} entries")
        model = self._functional
        require_pure(self._model)
        model.follow(self._model)
        names = (f"{name}[0]", f"{name}[1]")
        X, y = tensors(*pair, model.device, model.dtype, float("inf"), names)
        if isinstance(self._loss, str):
            with model.exact(), torch.no_grad():
                try:
                    output = model(w, X)
                except Exception as error:  # any error of the model's own
                    text = f"must be inputs of the model: {one_line(error)}"
                    raise ArgumentError(names[0], text) from None
                y = prepared_targets(self._loss, output, y, names[1])
        return X, y

    def _carry(self, w: Any, translated: Translated, X: Any, y: Any) -> None:
        import torch

        from pylyap._bridges.torch.products import gradient_of
        from pylyap._bridges.torch.rules import combine

        model, rule, p = self._functional, translated.rule, self._functional.n
        if self._frame is None:
            self._frame = self._start_frame()
        parts = list(self._frame.split(p, dim=-1))

        def function(v: Any) -> Any:
            return self._function(model(v, X), y)

        with model.exact():
            curved, gradient = self._products(function, w, parts[0].to(w.dtype))
            gradient = gradient_of(function, w) if gradient is None else gradient
        state = [w, *(translated.buffers or [torch.zeros_like(w) for _ in rule.buffer_names])]
        found = model.flat(self._model)
        with torch.no_grad():
            after = rule.update(state, gradient, 0)[0].to(w.dtype)
            self._require_same(w, after, found)
            table = rule.table([part.double() for part in state], gradient.double(), 0)
            inputs = [*parts, curved.double()]
            self._frame = torch.cat([combine(row, inputs) for row in table], dim=-1)
            if not bool(torch.isfinite(found).all()):
                self._frame = torch.full_like(self._frame, torch.nan)
        self._found = found
        position = (self._count - 1) % self._stride + 1  # steps of this window so far
        if position % self._every == 0:
            self._orthonormalise()
        if position == self._window:
            self._rows.append(self._growth / self._window)
            self._starts.append(self._count - self._window)
            self._growth = np.zeros(self.k)

    def _require_same(self, w: Any, after: Any, found: Any) -> None:
        """Raise ArgumentError if the update that was found is not the recomputed one."""
        import torch

        norm = torch.linalg.vector_norm
        error, size, update = float(norm(after - found)), float(norm(found)), float(norm(found - w))
        if not np.isfinite(size):
            return  # the run has diverged: nan from here on
        rounding = _ROUNDING * torch.finfo(w.dtype).eps * size
        if error <= max(self._rtol * size, rounding) and error <= max(_UPDATE * update, rounding):
            return
        raise ArgumentError(
            "batch",
            "must be that of the last optimizer.step(): the recomputed parameters differ from "
            f"those found by {error / size:.1e} of their norm and {error / max(update, 1e-300):.1e}"
            f" of the update; {_CAUSES}",
        )

    # --- the frame --------------------------------------------------------------------------------

    def _start_frame(self) -> Any:
        import torch

        from pylyap._tangent.frames import random_frames

        frame = random_frames(self._seed, 1, self.n, self.k)[0]
        return torch.from_numpy(frame).to(self._functional.device).t().contiguous()

    def _orthonormalise(self) -> None:
        """Orthonormal rows; the log of their norms is added to the growth."""
        import torch

        if self._frame.device.type == "cpu":
            columns = np.ascontiguousarray(self._frame.numpy().T)
            frame, norms, _ = core.orthonormalise(columns, None)
            self._frame = torch.from_numpy(frame).t().contiguous()
        else:
            q, r = torch.linalg.qr(self._frame.t())
            diagonal = r.diagonal()
            self._frame = (q * diagonal.sign()).t().contiguous()
            norms = diagonal.abs().cpu().numpy()
        with np.errstate(divide="ignore"):
            growth = np.log(norms)
        self._growth += growth
        self._total += growth
        self._n_steps += self._every

    # --- results ----------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Number of steps in `exponents`."""
        return self._n_steps

    @property
    def exponents(self) -> Floats:
        """Mean growth of each vector over all steps carried (k,), nats per step; nan before."""
        mean: Floats = self._total / self._n_steps if self._n_steps else np.full(self.k, np.nan)
        return mean

    @property
    def ftle(self) -> Floats:
        """Finite-time exponents of each complete window (n_windows, k), nats per step.

        Without `window` there is one row for every `every` steps.
        """
        return np.array(self._rows).reshape(-1, self.k)

    @property
    def starts(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Step of the optimiser, counted from 0, at which each row of `ftle` starts."""
        return np.array(self._starts, dtype=np.int64)

    def sharpness(
        self,
        batch: Any = None,
        *,
        tol: float = 1e-6,
        kind: Kind | None = "hessian",
        batches: Any = None,
        relative: bool = False,
        max_products: int = 300,
    ) -> float:
        """Sharpness at the present parameters, which are those before the next step.

        Parameters
        ----------
        batch : pair of Tensor or array_like, optional
            Inputs and targets of the loss whose curvature is measured: the whole data, or some of
            it. By default the batch of the last step carried, before it the first of `batches`.
        tol : float, default 1e-6
            Relative tolerance of the Lanczos iteration.
        kind : {"hessian", "preconditioned", "batch", "gradient", "critical"} or None
            What is computed, as by `sharpness`. ``"preconditioned"`` takes the moments and the
            number of steps that Adam or AdamW of torch has, and the learning rates of parameter
            groups. None stands for the eigenvalue to which the threshold of the optimiser applies.
        batches : sequence of such pairs, optional
            Minibatches of the next steps; by default `batch` alone. Kind ``"batch"`` is the mean
            over them. Kinds ``"preconditioned"`` and ``"gradient"`` of Adam and ``"critical"`` take
            the gradient of the next step from the first of them.
        relative : bool, default False
            Return the sharpness relative to the stability threshold of the optimiser with its
            present hyperparameters, as `Sharpness.ratio`: 1 is the edge of stability. For
            ``"batch"`` the threshold is that of small batches, 2(1 − β)/lr.
        max_products : int, default 300
            Maximum number of Hessian–vector products of an eigenvalue. Without convergence by then
            it is a lower bound.

        Returns
        -------
        float
            The sharpness, or its ratio to the threshold; that is nan where none is known. nan for
            parameters that are not finite.

        Raises
        ------
        ArgumentError
            If an argument is out of range, a batch does not fit the model, `batches` is given for
            kind ``"hessian"``, which needs no minibatch, or parameter groups differ in other
            settings than the learning rate, so that no preconditioner is known.

        Notes
        -----
        The value is that of `sharpness_along` for the map of `from_torch` with the same data, loss
        and optimiser. An eigenvalue takes some 20 products of the Hessian with a vector, each of
        which takes about the time of two to three training steps.
        """
        from pylyap._bridges.torch.data import ListedBatches
        from pylyap._bridges.torch.maps import TorchMap
        from pylyap._bridges.torch.optimizers import equivalent, translate
        from pylyap._tangent.sharpness import sharpness

        tol = _checks.real("tol", tol, above=0.0)
        kind = None if kind is None else _checks.choice("kind", kind, KINDS)
        relative = _checks.flag("relative", relative)
        max_products = _checks.integer("max_products", max_products, least=1)
        if batch is None and batches is None and self._batch is None:
            raise ArgumentError("batch", "must be given before the first step, got None")
        if kind == "hessian" and batches is not None:
            raise ArgumentError(
                "batches", "must be None for kind='hessian', which depends on `batch` alone"
            )
        model = self._functional
        w = model.flat(self._model)
        listed = [] if batches is None else self._listed(batches, w)
        if batch is not None:
            whole = self._prepared(batch, w)
        else:
            whole = listed[0] if self._batch is None else self._batch
        order = None
        if kind == "batch":  # with the threshold of small batches
            listed = listed or [whole]
            order = GradientDescent(lr=1.0, batch_size=len(listed[0][0]))
        translated = translate(self._optimizer, self._parameters, order)
        optimizer = equivalent(translated.rule)
        if kind == "preconditioned" and hyperparameters(optimizer) is None:
            raise ArgumentError(
                "kind",
                "must not be 'preconditioned' where parameter groups differ in other settings than "
                "the learning rate, or decoupled weight decay is combined with several rates: the "
                "step has no known preconditioner",
            )
        system = TorchMap(
            model, ListedBatches(whole, listed), self._function, translated.rule, optimizer,
            self._products,
        )  # fmt: skip
        state = [w, *(translated.buffers or [])]
        x = np.concatenate([part.double().cpu().numpy() for part in state])
        if not np.isfinite(x).all():
            return float("nan")
        found = sharpness(system, x, tol, max_products, kind=kind, t=0, seed=self._seed)
        return float(found.ratio if relative else found.value)

    def _listed(self, batches: Any, w: Any) -> list[tuple[Any, Any]]:
        """Tensors of the minibatches of the next steps."""
        given = _checks.sequence("batches", batches, "a sequence of pairs (X, y)")
        if not given:
            raise ArgumentError("batches", "must have at least one pair (X, y), got none")
        return [self._prepared(pair, w, f"batches[{i}]") for i, pair in enumerate(given)]

    def log(self, prefix: str = "pylyap/") -> dict[str, float]:
        """Present results as a flat dictionary of numbers, for any logger.

        Parameters
        ----------
        prefix : str, default "pylyap/"
            Start of each key.

        Returns
        -------
        dict of str to float
            ``exponent_1`` … ``exponent_k``, ``ftle_1`` … of the last complete window, and
            ``steps``.
        """
        if not isinstance(prefix, str):
            raise ArgumentTypeError("prefix", f"must be a str, got {_checks.describe(prefix)}")
        out = {f"{prefix}steps": float(self._n_steps)}
        for name, values in (("exponent", self.exponents), ("ftle", self.ftle[-1:])):
            for i, value in enumerate(np.ravel(values)):
                out[f"{prefix}{name}_{i + 1}"] = float(value)
        return out

    # --- state ------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Frame, records and counters, as tensors and numbers, for ``torch.save``.

        Returns
        -------
        dict
            The state, to be saved beside those of the model and the optimiser after `step`.
        """
        import torch

        frame = self._frame if self._frame is not None else self._start_frame()
        return {
            "frame": frame.detach().cpu().clone(),
            "growth": torch.from_numpy(self._growth.copy()),
            "total": torch.from_numpy(self._total.copy()),
            "rows": torch.from_numpy(self.ftle),
            "starts": torch.from_numpy(self.starts),
            "steps": self._n_steps,
            "count": self._count,
            "every": self._every,
            "window": self._window,
            "stride": self._stride,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned.

        Parameters
        ----------
        state : dict
            The state, of a monitor with the same k, `every`, `window` and `stride`.

        Raises
        ------
        ArgumentError
            If the state is of another monitor.
        """
        if not isinstance(state, dict) or set(state) != set(self.state_dict()):
            raise ArgumentTypeError(
                "state", f"must be a result of state_dict(), got {_checks.describe(state)}"
            )
        for name in ("every", "window", "stride"):
            if state[name] != getattr(self, f"_{name}"):
                raise ArgumentError(
                    "state",
                    f"must have {name}={getattr(self, f'_{name}')}, got {name}={state[name]}",
                )
        if tuple(state["frame"].shape) != (self.k, self.n):
            raise ArgumentError(
                "state",
                f"must have a frame of shape {(self.k, self.n)}, got {tuple(state['frame'].shape)}",
            )
        self._frame = state["frame"].to(self._functional.device).clone()
        self._growth = state["growth"].numpy().copy()
        self._total = state["total"].numpy().copy()
        self._rows = list(state["rows"].numpy().copy())
        self._starts = state["starts"].tolist()
        self._n_steps, self._count = state["steps"], state["count"]
        self._before, self._found, self._pending, self._moved = None, None, 0, False
