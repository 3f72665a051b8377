"""One row of a map: one setting varies, others are fixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap._parallel import progress_bar
from pylyap._stability.axes import Axis, of_values
from pylyap._stability.pixels import TrainingPixels, require_relative_loss
from pylyap._stability.running import Measured, Plan, measure, room
from pylyap.maps import TrainingMap

MOST_LAYERS = 10  # that have settings of their own in a study
NAMES = (
    *("lr", "momentum", "weight_decay", "scale", "offset"),
    *(f"lr_{i}" for i in range(MOST_LAYERS)),
    *(f"offset_{i}" for i in range(MOST_LAYERS)),
)


def row(
    system: TrainingMap,
    w0: ArrayLike | None,
    x: str,
    x_values: ArrayLike,
    fixed: Mapping[str, float],
    plan: Plan,
) -> Measured | None:
    """The pixels of one row, to the bit those of a `stability_map` with these values.

    Parameters
    ----------
    system : TrainingMap
        The training.
    w0 : array_like, shape (n_params,) or (n,), optional
        Initial weights or state; without them the settings are checked, and None is returned.
    x, x_values
        The setting along the row and its values.
    fixed : mapping of str to float
        The other settings that the map varies.
    plan : Plan
        What is measured.
    """
    if x in fixed:
        raise ArgumentError("x", f"must be another setting than {', '.join(fixed)}, got {x!r}")
    axes = {name: Axis(name, np.array([value]), "linear") for name, value in fixed.items()}
    axes["x"] = of_values("x_values", x, x_values)
    require_relative_loss(plan.escape)
    start = np.zeros(system.n_params) if w0 is None else w0
    pixels = TrainingPixels(system, start, axes, plan.threads)
    if w0 is None:
        return None
    found = room(len(axes["x"].values), plan.exponent)
    with progress_bar(False, 1, "map") as bar:
        measure(pixels, plan, bar, found)
    return found


def given(settings: Mapping[str, Any]) -> dict[str, float]:
    """The settings of a row that are fixed."""
    return {
        name: _checks.real(name, settings[name]) for name in NAMES if settings.get(name) is not None
    }
