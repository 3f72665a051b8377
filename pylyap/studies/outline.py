"""Outline of the results of a case: shapes, types, labels, cost and memory, without any run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._errors import ArgumentError
from pylyap.studies.analyses import ANALYSES, BlockResult, LabelledArray
from pylyap.studies.cases import Case
from pylyap.studies.samples import library_errors
from pylyap.studies.settings import InvalidStudy
from pylyap.studies.tables import TABLES, Settings

_MAX_RECORDS = 10**7  # of one run
_STATUS = {"meaning": "0 finished, 1 diverged, 2 stopped early"}
_NEEDS = {
    "test_loss": "data.test",
    "test_accuracy": "data.test and labels",
    "snapshots": "analysis.snapshots",
    "late_weight": "analysis.observe",
    **dict.fromkeys(("loss", "final_loss", "losses"), "a system with a loss"),
    **dict.fromkeys(("stderr", "upper_threshold"), "analysis.kind = 'batch'"),
    **dict.fromkeys(("early_error", "early_vectors", "early_coefficients"), "analysis.delay"),
}


@dataclass(frozen=True)
class Variable:
    """A result of each run that the study keeps as one array.

    Attributes
    ----------
    dims : tuple of str
        Names of its dimensions after those of the grid and ``"run"``.
    shape : tuple of int
        Lengths of these dimensions, the largest over the grid. Shorter results are padded with nan
        or -1.
    dtype : str
        ``"float64"``, ``"int64"`` or ``"int8"``.
    attrs : dict
        Attributes such as units.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    attrs: dict[str, str]

    def blank(self, runs: int) -> NDArray[Any]:
        """Array (runs, ...) of fill values: nan, or -1 for integers."""
        fill = np.nan if self.dtype.startswith("float") else -1
        return np.full((runs, *self.shape), fill, self.dtype)


class Outline(NamedTuple):
    """Variables and labels of a case, and cost (multiplications) and memory (bytes) of one run."""

    variables: dict[str, Variable]
    coords: dict[str, LabelledArray]
    cost: float
    memory: float


def outline(case: Case, names: tuple[str, ...]) -> Outline:
    """Outline of a case, from the analysis of zero runs: the library checks all arguments.

    Raises InvalidStudy if the library rejects a setting.
    """
    analysis = case.analysis
    kind = analysis["name"]
    with library_errors("analysis", TABLES["analysis"][kind]):
        _require_few_records(analysis)
        result = case.run(ANALYSES[kind].run, case.weights(0, 0), 0, names, 1)
        variables, coords, memory = _described(result, names)
        _checks.memory("the results of one run", memory, "record less")
        for name in analysis["variables"] or ():
            if name not in variables and not (name == "snapshots" and "snapshot" in coords):
                raise ArgumentError(
                    "variables",
                    f"must be results of these settings, {name!r} needs "
                    f"{_NEEDS.get(name, 'labels')}",
                )
    return Outline(variables, coords, ANALYSES[kind].cost(case), memory)


def _require_few_records(analysis: Settings) -> None:
    """Reject too many records before they are allocated."""
    name = "epochs" if "epochs" in analysis else "n_steps"
    if "window" in analysis:
        every = math.gcd(analysis["window"], analysis["stride"] or 0)
    else:
        every = next(
            (n for key in ("record_every", "every", "qr_every") if (n := analysis.get(key))), 1
        )
    if analysis[name] / every > _MAX_RECORDS:
        raise ArgumentError(
            name, f"must be at most {_MAX_RECORDS:,} records of {every}, got {analysis[name]:,}"
        )


def _described(
    result: BlockResult, names: tuple[str, ...]
) -> tuple[dict[str, Variable], dict[str, LabelledArray], float]:
    """Variables of a result of zero runs, labels of their dimensions, and memory of one run."""
    dataset = None if result.result is None else result.result.to_dataset()
    variables = {"status": Variable((), (), "int8", _STATUS)}
    for name in dict.fromkeys((*names, *result.extra)):
        values = result.array(name)
        if values is None:
            continue
        if name in result.extra:
            dims, attrs = result.extra[name].dims, result.extra[name].attrs
        else:
            assert dataset is not None
            dims, attrs = dataset[name].dims, dataset[name].attrs
            dims = tuple(dim for dim in dims if dim != "run")
        dtype = "int8" if values.dtype.kind == "b" else values.dtype.name
        variables[name] = Variable(dims, values.shape[1:], dtype, dict(attrs))
    coords = dict(result.coords)
    if dataset is not None:
        for name, coord in dataset.coords.items():
            coords[name] = LabelledArray(coord.dims, coord.values, dict(coord.attrs))
    used = {dim for variable in variables.values() for dim in variable.dims}
    sizes = [array.values.shape[1:] for array in result.extra.values()]
    if dataset is not None:
        sizes += [
            tuple(n for dim, n in array.sizes.items() if dim != "run")
            for array in dataset.data_vars.values()
        ]
    memory = 8.0 * sum(map(math.prod, sizes))
    return variables, {name: coord for name, coord in coords.items() if name in used}, memory


def merge_outlines(outlines: list[Outline]) -> tuple[dict[str, Variable], dict[str, LabelledArray]]:
    """Variables and labels that hold the results at all points of the grid."""
    variables: dict[str, Variable] = {}
    coords: dict[str, LabelledArray] = {}
    for outline in outlines:
        for name, new in outline.variables.items():
            old = variables.get(name, new)
            if new.dims != old.dims:
                text = (
                    f"grid must not change the dimensions of {name}, got {old.dims} and {new.dims}"
                )
                raise InvalidStudy([("grid", text)])
            shape = tuple(map(max, old.shape, new.shape))
            variables[name] = Variable(new.dims, shape, new.dtype, new.attrs)
        for name, coord in outline.coords.items():
            longer, shorter = coord, coords.get(name, coord)
            if len(shorter.values) > len(longer.values):
                longer, shorter = shorter, longer
            if not np.array_equal(longer.values[: len(shorter.values)], shorter.values):
                text = f"grid must not change the labels of {name!r}: make one study per value"
                raise InvalidStudy([("grid", text)])
            longer.values.setflags(write=False)
            coords[name] = longer
    return variables, coords
