"""Stability maps: which of two settings' values make training converge, and how fast."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._batches import BatchResult
from pylyap._checks import Floats, Seed
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._parallel import ProgressBar, progress_bar, thread_count
from pylyap._stability.axes import Axis, axis, lengths, of_range, require_memory
from pylyap._stability.geometry import (
    BoxDimension,
    UncertaintyExponent,
    box_dimension,
    uncertainty_exponent,
)
from pylyap._stability.pixels import (
    FunctionPixels,
    Pixels,
    TrainingPixels,
    require_relative_loss,
)
from pylyap._stability.running import Measured, Plan, measure, room
from pylyap._stability.stored import Stored, identity
from pylyap._weights import checkpoints
from pylyap.maps import TrainingMap
from pylyap.network import INITIALISERS, Initialiser

__all__ = [
    "BoxDimension",
    "StabilityMap",
    "UncertaintyExponent",
    "box_dimension",
    "stability_map",
    "uncertainty_exponent",
]

SystemOf: TypeAlias = TrainingMap | Callable[[float, float], Any]
Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class StabilityMap(BatchResult):
    """Convergence of runs on a grid of two settings, one run per pixel.

    `stability_map` returns it. Rows are values of the setting y, columns values of x.

    Attributes
    ----------
    converged : ndarray of bool, shape (ny, nx)
        Whether the mean of the last 20 losses, relative to the first loss, is below 1.
    score : ndarray, shape (ny, nx)
        How fast it happens, the measure of Sohl-Dickstein (2024): with the losses v_t relative to
        the first, −Σ v_t of a run that converged and Σ 1/v_t of one that did not. Values near 0 are
        fast.
    steps_used : ndarray of int, shape (ny, nx)
        Steps up to the first of those whose loss is not finite (or beyond `escape`) to the end;
        all steps for other runs.
    exponent : ndarray, shape (ny, nx), or None
        Leading Lyapunov exponent of the whole run, nats per step; nan for runs that diverged to
        states that are not finite. None unless requested.
    settings : dict
        Arguments of the call, and the number of steps that were made.
    dims : tuple of str
        Names of the settings, y and x.
    coords : dict of ndarray
        Values of the settings, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent())
    >>> rates = (0.01, 10.0, "log")
    >>> found = pl.stability_map(system, ("lr_0", rates), ("lr_1", rates), (8, 12), n_steps=40)
    >>> found.dims, found.score.shape
    (('lr_1', 'lr_0'), (8, 12))
    """

    converged: NDArray[np.bool_]
    score: Floats
    steps_used: NDArray[np.int64]
    exponent: Floats | None = None
    settings: dict[str, Any] = field(default_factory=dict, repr=False)

    _UNITS: ClassVar[dict[str, str]] = {"steps_used": "steps", "exponent": "nats per step"}

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.converged.shape

    def __repr__(self) -> str:
        rows, columns = self.converged.shape
        lines = [f"StabilityMap: {rows} × {columns} runs"]
        for name, letter in zip(self.dims, "yx", strict=True):
            values, scale = self.coords[name], self.settings.get(f"{letter}_scale", "")
            text = f"  {letter}  {name}, {values[0]:.6g} ... {values[-1]:.6g}"
            lines.append(f"{text}, {scale}" if scale else text)
        lines.append(f"  converged   {self.converged.mean():.1%} of the runs")
        made, steps = self.settings.get("steps_made"), self.settings.get("n_steps")
        if made is not None and steps:
            lines.append(f"  steps made  {made / (rows * columns * steps):.1%} of {steps} per run")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_call"}

    @property
    def x(self) -> Floats:
        """Values of the setting along the columns, (nx,)."""
        return self.coords[self.dims[1]]

    @property
    def y(self) -> Floats:
        """Values of the setting along the rows, (ny,)."""
        return self.coords[self.dims[0]]

    @property
    def border(self) -> NDArray[np.bool_]:
        """(ny − 1, nx − 1) whether the four runs at the corners of a cell end differently."""
        c = self.converged
        corners = np.stack([c[1:, 1:], c[1:, :-1], c[:-1, 1:], c[:-1, :-1]])
        return np.asarray(corners.any(axis=0) & ~corners.all(axis=0))

    def zoom(
        self,
        region: tuple[Interval, Interval],
        *,
        shape: tuple[int, int] | None = None,
        n_steps: int | None = None,
        system_of: SystemOf | None = None,
        w0: ArrayLike | None = None,
        threads: int | None = None,
        progress: bool = False,
    ) -> StabilityMap:
        """The map of a region, with the same settings.

        Parameters
        ----------
        region : tuple of tuple of float
            ((x_low, x_high), (y_low, y_high)) in the units of the settings.
        shape : tuple of int, optional
            Rows and columns, as those of this map by default.
        n_steps : int, optional
            Steps of each run, as here by default.
        system_of : TrainingMap or callable, optional
            As for `stability_map`; by default that of this map, which files and pickles do not
            have.
        w0 : array_like, shape (n_params,), optional
            Initial weights; by default those of this map.
        threads : int, optional
            Number of threads, at most (and by default) all cores available to the process.
        progress : bool, default False
            Whether to show a progress bar on stderr.

        Returns
        -------
        StabilityMap
            The map of the region.

        Raises
        ------
        ArgumentError
            If `region` is reversed or holds fewer different numbers than pixels, or the map was
            read from a file and `system_of` is not given.

        Examples
        --------
        >>> net = pl.Network((2, 3, 1))
        >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent())
        >>> rates = (0.01, 10.0, "log")
        >>> found = pl.stability_map(system, ("lr_0", rates), ("lr_1", rates), (8, 8), n_steps=40)
        >>> found.zoom(((0.5, 2.0), (0.5, 2.0)), shape=(4, 4)).x.round(3)
        array([0.5  , 0.794, 1.26 , 2.   ])
        """
        call = getattr(self, "_call", None)
        if call is None:
            if system_of is None:
                raise ArgumentError(
                    "system_of", "must be given for a map that was read from a file or a pickle"
                )
            seed = self.settings.get("seed", 0)
            escape = float(self.settings["escape"])
            call = _Call(
                system_of, w0, "glorot_uniform", self.settings["n_steps"],
                None if np.isinf(escape) else escape,
                self.exponent is not None, True, int(seed) if isinstance(seed, int) else 0,
            )  # fmt: skip
        changes: dict[str, Any] = {"system_of": system_of, "w0": w0, "n_steps": n_steps}
        call = replace(call, **{k: v for k, v in changes.items() if v is not None})
        rows, columns = self.converged.shape if shape is None else lengths(shape)
        axes = []
        pairs = _checks.sequence("region", region, "((x_low, x_high), (y_low, y_high))")
        if len(pairs) != 2:
            raise ArgumentError("region", f"must have two intervals, got {len(pairs)}")
        for letter, name, pair, n in zip(
            "xy", self.dims[::-1], pairs, (columns, rows), strict=True
        ):
            ends = _checks.sequence("region", pair, "((x_low, x_high), (y_low, y_high))")
            if len(ends) != 2:
                raise ArgumentError("region", f"must have two ends on each axis, got {len(ends)}")
            axes.append(of_range("region", name, *ends, self.settings[f"{letter}_scale"], n))
        return _computed(call, axes[0], axes[1], threads, progress)


@dataclass(frozen=True)
class _Call:
    """Arguments of `stability_map` besides its axes."""

    system_of: Any
    w0: Any
    init: Initialiser
    n_steps: int
    escape: float | None
    exponent: bool
    stop_early: bool
    seed: int | np.random.SeedSequence


def stability_map(
    system_of: SystemOf,
    x: tuple[str, Any],
    y: tuple[str, Any],
    shape: tuple[int, int] = (512, 512),
    n_steps: int = 500,
    *,
    w0: ArrayLike | None = None,
    init: str = "glorot_uniform",
    escape: float | None = None,
    exponent: bool = False,
    stop_early: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: bool | ProgressBar = False,
    seed: Seed = 0,
) -> StabilityMap:
    """Vary two settings on a grid and train one run per pixel from the same initial weights.

    Parameters
    ----------
    system_of : TrainingMap or callable
        A training, whose settings are varied by name, or a function of two numbers (x, y) that
        returns (system, w0): a map and the initial state of its pixel. Pixels for which the
        function returns the same object as the map are computed together, so that a parameter that
        is part of the state costs little.
    x, y : tuple
        The setting along the columns and along the rows: ``(name, (low, high, "log"))``, ``(name,
        (low, high, "linear"))`` with both ends included, or ``(name, values)`` with increasing
        values. Names for a training: ``"lr"``, ``"momentum"``, ``"weight_decay"``; ``"lr_0"``,
        ``"lr_1"``, …, the learning rate of one layer in place of `lr` (factors `layer_scale` of the
        optimiser multiply it); ``"scale"``, a factor of `w0`; ``"offset"``, a number added to all
        initial weights except biases (after the factor), and ``"offset_0"``, ``"offset_1"``, …, to
        those of one layer. For a function any two names.
    shape : tuple of int, default (512, 512)
        Rows and columns, numbers of values of ranges; an axis with given values has their number.
    n_steps : int, default 500
        Steps of each run.
    w0 : array_like, shape (n_params,), optional
        Initial weights of all runs of a training; by default drawn by `init` and `seed`.
    init : str, default "glorot_uniform"
        Distribution of the initial weights, as in `Network.init`.
    escape : float, optional
        Loss relative to the first, above 1, beyond which a run counts as diverged and ends: its
        losses are then 1e6, their cap. By default only runs whose states are not finite end. For a
        map without a loss the norm of a state, above 0.
    exponent : bool, default False
        Whether to compute leading Lyapunov exponents, which takes the runs once more with a tangent
        vector.
    stop_early : bool, default True
        Whether runs end that are decided: those whose states are not finite, those beyond `escape`,
        and those of full batches without schedule that return to a state of 16 steps before, bit by
        bit, so that their losses repeat. Results are the same bits without it.
    checkpoint : path_like, optional
        A file from which the map resumes if it exists, and to which pixels are saved: about every
        30 seconds between tiles, at the end, and on interruption (Ctrl-C). Writes are atomic. A
        file of another map is refused. A function `system_of` is identified by its name and the
        first state.
    threads : int, optional
        Number of threads, at most (and by default) all cores available to the process.
    progress : bool, default False
        Whether to show a progress bar on stderr.
    seed : int, SeedSequence or Generator, default 0
        Seed of the initial weights and of the tangent vectors.

    Returns
    -------
    StabilityMap
        Convergence and its speed at each pixel.

    Raises
    ------
    ArgumentError
        If a setting does not exist, a range is reversed, the map does not fit in memory (the
        message says which tiles would), `checkpoint` cannot be written, is damaged or belongs to
        another map, or another argument is out of range.

    See Also
    --------
    box_dimension : Dimension of the border between converging and diverging runs.
    learning_rate_scan : Regimes along one setting, with many runs at each value.

    Notes
    -----
    A map without a loss counts as converged if its states remain finite (and within `escape`), with
    v_t = 1 until then: the score is −n_steps, or the number of steps to the escape.

    Pixels are computed in tiles of bounded memory. The bits of a pixel depend on its settings
    alone, not on its tile, on the other runs or on the number of threads.

    References
    ----------
    Sohl-Dickstein, arXiv 2402.06184 (2024).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent())
    >>> found = pl.stability_map(
    ...     system, ("lr", (0.01, 100.0, "log")), ("momentum", [0.0, 0.5, 0.9]), (8, 8), n_steps=40)
    >>> bool(found.converged[:, 0].all()), bool(found.converged[:, -1].any())
    (True, False)

    Which complex numbers c keep z → z² + c bounded, with c as part of the state:

    >>> def square(X):
    ...     u, v, a, b = X.T
    ...     return np.stack([u * u - v * v + a, 2.0 * u * v + b, a, b], axis=1)
    >>> def along(X, V):
    ...     u, v = X[:, :2].T[..., np.newaxis]
    ...     du, dv, da, db = V.transpose(1, 0, 2)
    ...     return np.stack([2 * (u * du - v * dv) + da, 2 * (v * du + u * dv) + db, da, db], 1)
    >>> system = pl.DiscreteMap(square, tangent=along, n=4, vectorized=True)
    >>> found = pl.stability_map(
    ...     lambda a, b: (system, [0.0, 0.0, a, b]),
    ...     ("Re c", (-2.0, 0.5, "linear")), ("Im c", (-1.2, 1.2, "linear")),
    ...     (25, 25), n_steps=50, escape=4.0)
    >>> int(found.converged.sum())
    152
    """
    rows, columns = lengths(shape)
    first, second = axis("x", x, columns), axis("y", y, rows)
    if first.name == second.name:
        raise ArgumentError("y", f"must have another setting than x, got {second.name!r} for both")
    call = _Call(
        system_of=system_of,
        w0=w0,
        init=_checks.choice("init", init, INITIALISERS),
        n_steps=_checks.integer("n_steps", n_steps, least=1),
        escape=None if escape is None else _checks.real("escape", escape, above=0.0),
        exponent=_checks.flag("exponent", exponent),
        stop_early=_checks.flag("stop_early", stop_early),
        seed=_checks.reusable_seed(seed),
    )
    path = None if checkpoint is None else checkpoints.target(checkpoint)
    return _computed(call, first, second, threads, progress, path)


def _computed(
    call: _Call,
    x: Axis,
    y: Axis,
    threads: int | None,
    progress: bool | ProgressBar,
    checkpoint: Path | None = None,
) -> StabilityMap:
    """The map of these axes."""
    n_steps = _checks.integer("n_steps", call.n_steps, least=1)
    thread_count(threads)
    rows, columns = len(y.values), len(x.values)
    require_memory(rows, columns)
    pixels, name = _pixels(call, x, y, threads)
    plan = Plan(n_steps, call.escape, call.exponent, call.stop_early, threads, call.seed)
    total = rows * columns * n_steps * (2 if call.exponent else 1)
    found = room(rows * columns, call.exponent)
    with progress_bar(progress, total, "map") as bar:
        if checkpoint is None:
            made = measure(pixels, plan, bar, found)
        else:
            made = _resumed(checkpoint, call, pixels, plan, bar, found, x, y)
    grid = (rows, columns)
    result = StabilityMap(
        found.converged.reshape(grid),
        found.score.reshape(grid),
        found.steps_used.reshape(grid),
        None if found.exponent is None else found.exponent.reshape(grid),
        settings={
            "system": name,
            "x_scale": x.scale,
            "y_scale": y.scale,
            "n_steps": n_steps,
            "escape": np.inf if call.escape is None else call.escape,
            "init": call.init if call.w0 is None else "given weights",
            "seed": call.seed if isinstance(call.seed, int) else repr(call.seed),
            "steps_made": made,
        },
        dims=(y.name, x.name),
        coords={y.name: y.values, x.name: x.values},
    )
    object.__setattr__(result, "_call", call)  # for zoom; not of files and pickles
    return result


def _resumed(
    path: Path,
    call: _Call,
    pixels: Pixels,
    plan: Plan,
    bar: ProgressBar,
    found: Measured,
    x: Axis,
    y: Axis,
) -> int:
    """Measure the pixels that are not in the file; return the steps made, also for it."""
    seed = repr(call.seed) if call.exponent else "any"
    about = identity(
        call.system_of, pixels.first_state, x, y, plan.n_steps, escape=plan.escape,
        exponent=plan.exponent, frame=seed,
    )  # fmt: skip
    stored = Stored(path, about, found)
    before: int = stored.made
    bar.advance(stored.done * plan.n_steps * (2 if plan.exponent else 1))
    try:
        made = measure(
            pixels, plan, bar, found, stored.done,
            lambda done, made: stored.add(done, before + made),
        )  # fmt: skip
    finally:  # the last complete tile, also on interruption
        stored.save()
    return before + made


def _pixels(call: _Call, x: Axis, y: Axis, threads: int | None) -> tuple[Pixels, str]:
    """The runs of all pixels, and the name of the system."""
    system = call.system_of
    if isinstance(system, TrainingMap):
        w0 = call.w0
        if w0 is None:
            w0 = system.network.init(call.init, seed=call.seed)
        require_relative_loss(call.escape)
        return TrainingPixels(system, w0, {"y": y, "x": x}, threads), repr(system)
    if not callable(system):
        raise ArgumentTypeError(
            "system_of",
            "must be a TrainingMap or a function of two numbers that returns (system, w0), "
            f"got {_checks.describe(system)}",
        )
    if call.w0 is not None:
        raise ArgumentError(
            "w0", "must be None where system_of is a function, which returns the initial states"
        )
    return FunctionPixels(system, x, y, threads), getattr(system, "__name__", repr(system))
