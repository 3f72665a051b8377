"""Stability maps of a study: its rows at the points of a grid, put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap._stability.axes import of_values
from pylyap._stability.rows import NAMES
from pylyap.stability_maps import StabilityMap
from pylyap.studies.store import is_done
from pylyap.studies.summary import grid_of

if TYPE_CHECKING:
    import xarray


class Map(NamedTuple):
    """A map of the first run, which of its rows are complete, and its point of the grid."""

    found: StabilityMap
    done: NDArray[np.bool_]
    at: dict[str, int]


def row_axis(data: xarray.Dataset) -> str | None:
    """The dimension of the grid along which the rows of a map lie: the longest of a setting."""
    able = [d for d, path in grid_of(data).items() if path.removeprefix("analysis.") in NAMES]
    longest = max(able, key=data.sizes.__getitem__, default=None)
    return None if longest is None or data.sizes[longest] < 2 else longest


def maps(data: xarray.Dataset, points: Iterator[dict[str, int]], rows: str) -> Iterator[Map]:
    """The maps at some points of the other dimensions; rows that are not complete are nan."""
    columns = str(data["converged"].dims[-1])
    for at in points:
        here = data.isel(at).isel(run=0)
        # Rows by increasing values, in whatever order the grid lists them.
        here = here.sortby(rows)[["status", "converged", "score", "steps_used"]].load()
        done = is_done(here["status"].values)
        if not done.any():
            continue
        y = of_values("grid", grid_of(data)[rows].removeprefix("analysis."), here[rows].values)
        x = of_values("x_values", columns, here[columns].values)
        found = StabilityMap(
            here["converged"].values,
            np.where(done[:, np.newaxis], here["score"].values, np.nan),
            here["steps_used"].values,
            settings={"x_scale": x.scale, "y_scale": y.scale},
            dims=(y.name, x.name),
            coords={y.name: y.values, x.name: x.values},
        )
        yield Map(found, done, at)
