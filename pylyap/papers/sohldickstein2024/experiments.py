"""Maps of two learning rates, zooms into their border, and all conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pylyap.papers.sohldickstein2024.task import CONDITIONS, OFFSETS, RATES, STEPS, Region, Task
from pylyap.stability_maps import StabilityMap, stability_map

WHOLE: Region = (RATES, RATES)
_FACTOR = 8.0  # of each zoom, along each axis


@dataclass(frozen=True)
class Zooms:
    """Maps of successive regions of the border.

    Attributes
    ----------
    maps : tuple of StabilityMap
        The whole range first.
    regions : tuple
        The region of each map after the first.
    """

    maps: tuple[StabilityMap, ...]
    regions: tuple[Region, ...]


def landscape(
    task: Task,
    name: str = "tanh",
    *,
    region: Region = WHOLE,
    shape: tuple[int, int] = (512, 512),
    n_steps: int = STEPS,
) -> StabilityMap:
    """Map two learning rates.

    Parameters
    ----------
    task : Task
        Settings.
    name : str, default "tanh"
        One of `CONDITIONS`.
    region : tuple, optional
        Ranges of the rates of layer 0 and layer 1; the published range by default.
    shape : tuple of int, default (512, 512)
        Rows and columns.
    n_steps : int, default 500
        Steps of each run.

    Returns
    -------
    StabilityMap
        The map.
    """
    system, w0 = task.system(name)
    x, y = ((*ends, "log") for ends in region)
    return stability_map(
        system, ("lr_0", x), ("lr_1", y), shape, n_steps, w0=w0,
        checkpoint=_file(task, name, region, shape, n_steps),
        threads=task.threads, progress=task.progress,
    )  # fmt: skip


def offset(
    task: Task,
    name: str = "offset",
    *,
    region: Region = WHOLE,
    shape: tuple[int, int] = (512, 512),
    n_steps: int = STEPS,
) -> StabilityMap:
    """Map an offset of the first layer's weights and the learning rate of both layers.

    Parameters
    ----------
    task : Task
        Settings.
    name : str, default "offset"
        One of `OFFSETS`: of the initial weights, as the paper describes it, or at every step, as
        its notebook computes it.
    region : tuple, optional
        Ranges of the offset and of the rate; by default that of the rates of `landscape` for both,
        which is assumed: the published range is not known.
    shape : tuple of int, default (512, 512)
        Rows and columns.
    n_steps : int, default 500
        Steps of each run.

    Returns
    -------
    StabilityMap
        The map; offsets are those of the published weights.
    """
    (low, high), rates = region
    y = ("lr", (*rates, "log"))
    arguments: dict[str, Any] = {
        "checkpoint": _file(task, name, region, shape, n_steps),
        "threads": task.threads,
        "progress": task.progress,
    }
    if OFFSETS[name]:
        x = ("offset", (low, high, "log"))
        return stability_map(task.drifting(), x, y, shape, n_steps, **arguments)
    system, w0 = task.system("tanh")
    factor = task.first_scale
    x = ("offset_0", (factor * low, factor * high, "log"))
    found = stability_map(system, x, y, shape, n_steps, w0=w0, **arguments)
    coords = {"lr": found.y, "offset": found.x / factor}
    coords["offset"][[0, -1]] = low, high
    return replace(found, dims=("lr", "offset"), coords=coords)


def offsets(
    task: Task,
    *,
    shape: tuple[int, int] = (129, 129),
    n_zooms: int = 2,
    n_steps: int = STEPS,
) -> dict[str, Zooms]:
    """Zooms into the border of both experiments with an offset.

    Parameters
    ----------
    task : Task
        Settings.
    shape : tuple of int, default (129, 129)
        Rows and columns of all maps.
    n_zooms : int, default 2
        Number of zooms of each.
    n_steps : int, default 500
        Steps of each run.

    Returns
    -------
    dict of Zooms
        Maps of each of `OFFSETS`.
    """
    return _zooms_of(dict.fromkeys(OFFSETS, WHOLE), task, n_zooms, shape, n_steps)


def zooms(
    whole: StabilityMap,
    task: Task,
    *,
    name: str = "tanh",
    n_zooms: int = 3,
    shape: tuple[int, int] = (257, 257),
    n_steps: int = STEPS,
) -> Zooms:
    """Successive maps of the part in which the border is densest, eight times finer each.

    Parameters
    ----------
    whole : StabilityMap
        Map of the whole range, the result of `landscape` or `offset`.
    task : Task
        Settings.
    name : str, default "tanh"
        One of `CONDITIONS` or `OFFSETS`.
    n_zooms : int, default 3
        Number of zooms.
    shape : tuple of int, default (257, 257)
        Rows and columns of their maps.
    n_steps : int, default 500
        Steps of each run.

    Returns
    -------
    Zooms
        Maps and regions.
    """
    compute = _experiment(name)
    maps, regions = [whole], []
    for _ in range(n_zooms):
        region = densest(maps[-1])
        if region is None:
            break
        regions.append(region)
        maps.append(compute(task, name, region=region, shape=shape, n_steps=n_steps))
    return Zooms(tuple(maps), tuple(regions))


def conditions(
    task: Task,
    *,
    shape: tuple[int, int] = (129, 129),
    n_zooms: int = 2,
    n_steps: int = STEPS,
) -> dict[str, Zooms]:
    """Zooms into the border of every condition, from its `region` on.

    Parameters
    ----------
    task : Task
        Settings.
    shape : tuple of int, default (129, 129)
        Rows and columns of all maps.
    n_zooms : int, default 2
        Number of zooms of each.
    n_steps : int, default 500
        Steps of each run.

    Returns
    -------
    dict of Zooms
        Maps of each of `CONDITIONS`.
    """
    regions = {name: condition.region for name, condition in CONDITIONS.items()}
    return _zooms_of(regions, task, n_zooms, shape, n_steps)


def _zooms_of(
    regions: dict[str, Region], task: Task, n_zooms: int, shape: tuple[int, int], n_steps: int
) -> dict[str, Zooms]:
    """Zooms into the border of each experiment, from a map of its region on."""
    found = {}
    for name, region in regions.items():
        compute = _experiment(name)
        first = compute(task, name, region=region, shape=shape, n_steps=n_steps)
        found[name] = zooms(first, task, name=name, n_zooms=n_zooms, shape=shape, n_steps=n_steps)
    return found


def _experiment(name: str) -> Callable[..., StabilityMap]:
    """The function that computes a map of one of `CONDITIONS` or `OFFSETS`."""
    return offset if name in OFFSETS else landscape


def densest(found: StabilityMap) -> Region | None:
    """The region, an eighth of the map along each axis, with most cells of the border.

    The border is that to runs whose states become non-finite, if there are such runs beside
    converging ones. At large rates of layer 0 there is another one, to runs whose loss remains
    above the first: hidden units saturate in one step.

    Parameters
    ----------
    found : StabilityMap
        A map with logarithmic axes.

    Returns
    -------
    tuple or None
        Ranges of both settings; None without a border.
    """
    lost = found.steps_used < found.settings["n_steps"]
    near = lost[1:, 1:] | lost[1:, :-1] | lost[:-1, 1:] | lost[:-1, :-1]
    border = found.border & near if (found.border & near).any() else found.border
    if not border.any():
        return None
    size = [max(round(n / _FACTOR), 1) for n in border.shape]
    total = np.zeros([n + 1 for n in border.shape])
    total[1:, 1:] = border.cumsum(axis=0).cumsum(axis=1)
    a, b = size
    counts = total[a:, b:] - total[:-a, b:] - total[a:, :-b] + total[:-a, :-b]
    i, j = np.unravel_index(int(counts.argmax()), counts.shape)
    x, y = found.x, found.y
    return (float(x[j]), float(x[j + b])), (float(y[i]), float(y[i + a]))


def _file(
    task: Task, name: str, region: Region, shape: tuple[int, int], n_steps: int
) -> Path | None:
    """File of the pixels of a map; its folder exists."""
    if task.checkpoints is None:
        return None
    task.checkpoints.mkdir(parents=True, exist_ok=True)
    ends = "_".join(f"{end:.17g}" for pair in region for end in pair)
    size = f"{shape[0]}x{shape[1]}x{n_steps}"
    return task.checkpoints / f"{name.replace(' ', '-')}-{size}-{ends}.npz"
