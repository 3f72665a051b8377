"""Maps of two learning rates, zooms into their border, and all conditions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pylyap._checks import Floats
from pylyap._files import user_file, write_npz
from pylyap._parallel import ProgressBar
from pylyap._stability.axes import of_range
from pylyap.papers.sohldickstein2024.task import CONDITIONS, RATES, STEPS, Task
from pylyap.stability_maps import StabilityMap, stability_map

Region = tuple[tuple[float, float], tuple[float, float]]  # of the rates of layer 0 and layer 1

WHOLE: Region = (RATES, RATES)
_STRIP = 16  # rows that are stored together
_FACTOR = 8.0  # of each zoom, along each axis
_FIELDS = ("converged", "score", "steps_used")


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
    """Map two learning rates, in strips that are stored as they are done.

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
    y = _spaced(region[1], shape[0])
    strips = []
    with ProgressBar(shape[0] * shape[1] * n_steps, f"map, {name}", task.progress) as bar:
        for first in range(0, shape[0], _STRIP):
            # Two rows at least, which the last strip may share with the one before.
            rows = y[first : first + _STRIP]
            given = y[-2:] if len(rows) == 1 else rows
            path = _path(task, name, region, shape, n_steps, first)
            found = _stored(path)
            if found is None:
                strip = stability_map(
                    system,
                    ("lr_0", (*region[0], "log")),
                    ("lr_1", given),
                    (len(given), shape[1]),
                    n_steps,
                    w0=w0,
                    threads=task.threads,
                    progress=bar,
                )
                found = {field: getattr(strip, field)[-len(rows) :] for field in _FIELDS}
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with user_file(path) as file:
                        write_npz(file, found)
            else:
                bar.advance(len(rows) * shape[1] * n_steps)
            strips.append(found)
    arrays = {field: np.concatenate([strip[field] for strip in strips]) for field in _FIELDS}
    return StabilityMap(
        **arrays,
        settings={
            "system": repr(system), "condition": name, "x_scale": "log", "y_scale": "log",
            "n_steps": n_steps, "escape": np.inf,
        },
        dims=("lr_1", "lr_0"),
        coords={"lr_1": y, "lr_0": _spaced(region[0], shape[1])},
    )  # fmt: skip


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
        Map of the whole range, the result of `landscape`.
    task : Task
        Settings.
    name : str, default "tanh"
        One of `CONDITIONS`.
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
    maps, regions = [whole], []
    for _ in range(n_zooms):
        region = densest(maps[-1])
        if region is None:
            break
        regions.append(region)
        maps.append(landscape(task, name, region=region, shape=shape, n_steps=n_steps))
    return Zooms(tuple(maps), tuple(regions))


def conditions(
    task: Task,
    *,
    shape: tuple[int, int] = (129, 129),
    n_zooms: int = 2,
    n_steps: int = STEPS,
) -> dict[str, Zooms]:
    """Zooms into the border of every condition.

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
    found = {}
    for name in CONDITIONS:
        whole = landscape(task, name, shape=shape, n_steps=n_steps)
        found[name] = zooms(whole, task, name=name, n_zooms=n_zooms, shape=shape, n_steps=n_steps)
    return found


def densest(found: StabilityMap) -> Region | None:
    """The region, an eighth of the map along each axis, with most cells of the border.

    Parameters
    ----------
    found : StabilityMap
        A map with logarithmic axes.

    Returns
    -------
    tuple or None
        Ranges of both settings; None without a border.
    """
    border = found.border
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


def _spaced(ends: tuple[float, float], n: int) -> Floats:
    values: Floats = of_range("region", "lr", *ends, "log", n).values
    return values


def _path(
    task: Task, name: str, region: Region, shape: tuple[int, int], n_steps: int, first: int
) -> Path | None:
    """File of a strip."""
    if task.checkpoints is None:
        return None
    ends = "_".join(f"{end:.17g}" for pair in region for end in pair)
    folder = f"{name.replace(' ', '-')}-{shape[0]}x{shape[1]}x{n_steps}-{ends}"
    return task.checkpoints / folder / f"{first:05d}.npz"


def _stored(path: Path | None) -> dict[str, Any] | None:
    """The arrays of a strip that is done."""
    if path is None or not path.is_file():
        return None
    with np.load(path) as stored:
        return {field: stored[field] for field in _FIELDS}
