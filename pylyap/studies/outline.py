"""What comes of a setting, known before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.studies.analyses import ANALYSES, Found, Labelled
from pylyap.studies.cases import Case, refusals
from pylyap.studies.settings import Wrong
from pylyap.studies.tables import TABLES, Settings

_RECORDS = 10**7  # of one run, at most
_STATUS = {"meaning": "0 finished, 1 diverged, 2 stopped early"}
_NEEDS = {
    "test_loss": "data.test",
    "test_accuracy": "data.test and labels",
    "snapshots": "analysis.snapshots",
    "late_weight": "analysis.observe",
    **dict.fromkeys(("early_error", "early_vectors", "early_coefficients"), "analysis.delay"),
}


@dataclass(frozen=True)
class Variable:
    """What is kept of each run, as one array per study.

    Attributes
    ----------
    dims
        Names of its dimensions after those of the grid and ``"run"``.
    shape
        Their lengths, the largest over the grid; what is smaller is filled up with nan or -1.
    dtype
        ``"float64"``, ``"int64"`` or ``"int8"``.
    attrs
        Units and the like.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: dict[str, str]

    def blank(self, runs: int) -> NDArray[Any]:
        """Where nothing is known."""
        fill = np.nan if self.dtype.startswith("float") else -1
        return np.full((runs, *self.shape), fill, self.dtype)


class Outline(NamedTuple):
    """What comes of a setting, known before anything is computed."""

    variables: dict[str, Variable]
    coords: dict[str, Labelled]
    cost: float
    memory: float


def outline(case: Case, names: tuple[str, ...]) -> Outline:
    """By carrying it out with no run at all: the library checks all and makes its arrays.

    Raises Wrong if it refuses.
    """
    analysis = case.analysis
    kind = analysis["name"]
    with refusals("analysis", TABLES["analysis"][kind]):
        _few_records(analysis)
        found = ANALYSES[kind].run(case, case.weights(0, 0), 0, names, 1)
        variables, coords, memory = _labelled(found, names)
        _checks.memory("the results of one run", memory, "record less")
        for name in analysis["variables"] or ():
            if name not in variables and not (name == "snapshots" and "snapshot" in coords):
                raise ArgumentError(
                    "variables",
                    f"must be those that these settings give, {name!r} needs "
                    f"{_NEEDS.get(name, 'labels')}",
                )
    return Outline(variables, coords, ANALYSES[kind].cost(case), memory)


def _few_records(analysis: Settings) -> None:
    """Refuse records without end before they are allocated."""
    name = "epochs" if "epochs" in analysis else "n_steps"
    if "window" in analysis:
        every = math.gcd(analysis["window"], analysis["stride"] or 0)
    else:
        every = next(
            (n for key in ("record_every", "every", "qr_every") if (n := analysis.get(key))), 1
        )
    if analysis[name] / every > _RECORDS:
        raise ArgumentError(
            name, f"must be at most {_RECORDS:,} records of {every}, got {analysis[name]:,}"
        )


def _labelled(
    found: Found, names: tuple[str, ...]
) -> tuple[dict[str, Variable], dict[str, Labelled], float]:
    """The variables of a result of no runs, the labels of their dimensions, and the bytes that all
    arrays of the result take for one run."""
    dataset = None if found.result is None else found.result.to_dataset()
    variables = {"status": Variable((), (), "int8", _STATUS)}
    for name in dict.fromkeys((*names, *found.more)):
        values = found.array(name)
        if values is None:
            continue
        if name in found.more:
            dims, attrs = found.more[name].dims, found.more[name].attrs
        else:
            assert dataset is not None
            dims, attrs = dataset[name].dims, dataset[name].attrs
            dims = tuple(dim for dim in dims if dim != "run")
        dtype = "int8" if values.dtype.kind == "b" else values.dtype.name
        variables[name] = Variable(dims, values.shape[1:], dtype, dict(attrs))
    coords = dict(found.coords)
    if dataset is not None:
        for name, coord in dataset.coords.items():
            coords[name] = Labelled(coord.dims, coord.values, dict(coord.attrs))
    used = {dim for variable in variables.values() for dim in variable.dims}
    sizes = [array.values.shape[1:] for array in found.more.values()]
    if dataset is not None:
        sizes += [
            tuple(n for dim, n in array.sizes.items() if dim != "run")
            for array in dataset.data_vars.values()
        ]
    memory = 8.0 * sum(map(math.prod, sizes))
    return variables, {name: coord for name, coord in coords.items() if name in used}, memory


def together(outlines: list[Outline]) -> tuple[dict[str, Variable], dict[str, Labelled]]:
    """Variables and labels that hold the results at every point."""
    variables: dict[str, Variable] = {}
    coords: dict[str, Labelled] = {}
    for outline in outlines:
        for name, new in outline.variables.items():
            old = variables.get(name, new)
            if new.dims != old.dims:
                text = (
                    f"grid must leave the dimensions of {name} alone, got {old.dims} and {new.dims}"
                )
                raise Wrong([("grid", text)])
            shape = tuple(map(max, old.shape, new.shape))
            variables[name] = Variable(new.dims, shape, new.dtype, new.attrs)
        for name, coord in outline.coords.items():
            longer, shorter = coord, coords.get(name, coord)
            if len(shorter.values) > len(longer.values):
                longer, shorter = shorter, longer
            if not np.array_equal(longer.values[: len(shorter.values)], shorter.values):
                text = f"grid must leave the labels of {name!r} alone: make a study of each value"
                raise Wrong([("grid", text)])
            longer.values.setflags(write=False)
            coords[name] = longer
    return variables, coords
