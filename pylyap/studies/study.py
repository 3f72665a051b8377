"""A study: checked settings, its grid, and what is computed of any block of runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap.maps import TrainingMap
from pylyap.studies.analyses import ANALYSES, Found, Labelled
from pylyap.studies.cases import Case, case, load, refusals
from pylyap.studies.settings import (
    VARIABLES,
    Problem,
    Settings,
    Wrong,
    as_toml,
    at_point,
    checked,
    keys_of,
    parsed,
)

Array = NDArray[Any]
Point = tuple[int, ...]

# Keys of a grid on which no shape, label or cost depends, nor whether a setting can be carried out.
_FREE = {
    *("data.seed", "data.split_seed", "init.kind", "init.scale", "init.biases", "analysis.seed"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.shuffle", "optimizer.seed"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"),
}
_RECORDS = 10**7  # of one run, at most
_STATUS = {"meaning": "0 finished, 1 diverged, 2 stopped early"}
_CASES = 4  # that stay built, with their data


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


class _Outline(NamedTuple):
    """What comes of a setting, known before anything is computed."""

    variables: dict[str, Variable]
    coords: dict[str, Labelled]
    cost: float


class Study:
    """Many runs of one analysis at each point of a grid of settings; immutable.

    All settings are checked, and all mistakes told at once, before there is a study. The arguments
    are the tables of a study file, see `from_file`.

    Parameters
    ----------
    data, network, init, optimizer, analysis
        Tables, as dicts: ``{"name": "iris", "train": 120}``. Their keys are the arguments of the
        library's functions, with the same defaults.
    runs
        Initial weights at each point of the grid.
    seed
        Of what differs from run to run, initial weights and perturbations. Those of run r depend on
        `seed` and r alone.
    grid
        Dotted names of settings and their values: ``{"optimizer.lr": [0.1, 1.0]}``, or
        ``{"linspace": [a, b, n]}``, likewise ``"logspace"`` and ``"geomspace"``, as in NumPy.
    title
        A line for pictures and reports.

    Raises
    ------
    ValueError
        If a key is unknown or missing, a value is of the wrong type or out of range, data are not
        there, or the library would refuse a setting of the grid. Each mistake has its path.
    ImportError
        If xarray is not installed.
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        network: Mapping[str, Any],
        analysis: Mapping[str, Any],
        runs: int,
        init: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        seed: int = 0,
        grid: Mapping[str, Any] | None = None,
        title: str = "",
    ) -> None:
        given = {
            "title": title,
            "runs": runs,
            "seed": seed,
            "data": data,
            "network": network,
            "init": {} if init is None else init,
            "optimizer": {} if optimizer is None else optimizer,
            "analysis": analysis,
            "grid": {} if grid is None else grid,
        }
        self._set_up(checked(given))

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Study:
        """The study of a TOML file; relative paths in it start at its folder.

        Raises ValueError with all mistakes and their lines, OSError if the file cannot be read.
        """
        file = Path(path)
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} must be UTF-8 text: {error}") from None
        try:
            given = parsed(text)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        study = cls.__new__(cls)
        try:
            study._set_up(checked(given, base=str(file.parent)))
        except Wrong as wrong:
            raise wrong.in_file(str(file), text) from None
        return study

    def _set_up(self, settings: Settings) -> None:
        self._settings = settings
        self._axes = {path: tuple(values) for path, values in settings["grid"].items()}
        self._make_caches()
        analysis = settings["analysis"]
        usual, _ = VARIABLES[analysis["name"]]
        self._names = tuple(usual if analysis["variables"] is None else analysis["variables"])
        outlines = self._outlines()
        self._costs = {point: outline.cost for point, outline in outlines.items()}
        self._variables, self._labels = _together(list(outlines.values()))
        self._dims = _short_names(self._axes, self._variables)

    def _make_caches(self) -> None:
        self._case = lru_cache(maxsize=_CASES)(self._make_case)
        self._data = lru_cache(maxsize=_CASES)(lambda text: load(json.loads(text)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_case", "_data")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_caches()

    # --- what it is -------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """All settings with defaults filled in: numbers, text, lists and dicts.

        ``Study(**study.settings) == study``.
        """
        return deepcopy(self._settings)

    @property
    def title(self) -> str:
        """As given."""
        return str(self._settings["title"])

    @property
    def runs(self) -> int:
        """Runs at each point of the grid."""
        return int(self._settings["runs"])

    @property
    def seed(self) -> int:
        """Of all runs' initial weights and perturbations."""
        return int(self._settings["seed"])

    @property
    def grid(self) -> dict[str, tuple[Any, ...]]:
        """The values of each dimension of the grid, under its short name, in order."""
        return dict(zip(self._dims, self._axes.values(), strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the grid's dimensions."""
        return tuple(len(values) for values in self._axes.values())

    @property
    def variables(self) -> dict[str, Variable]:
        """What is kept of each run; ``"status"`` always is."""
        return dict(self._variables)

    @property
    def coords(self) -> dict[str, Labelled]:
        """Labels of the grid's dimensions and of the variables' own: (dims, array, attrs)."""
        axes = {
            dim: Labelled((dim,), _axis_labels(values), {"long_name": path})
            for dim, (path, values) in zip(self._dims, self._axes.items(), strict=True)
        }
        return axes | self._labels

    def to_toml(self) -> str:
        """A study file that says the same, defaults filled in."""
        return as_toml(self._settings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Study) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> str:
        return json.dumps(self._settings)

    def __repr__(self) -> str:
        s = self._settings
        title = f" {self.title!r}" if self.title else ""
        text = f"Study{title}: {s['analysis']['name']} of {s['data']['name']}, "
        text += f"{self.runs} run{'s'[: self.runs != 1]}"
        if self._dims:
            text += " at each of " + " × ".join(
                f"{n} {dim}" for dim, n in zip(self._dims, self.shape, strict=True)
            )
        kept = (
            f"{name} ({', '.join(map(str, v.shape))})" if v.shape else name
            for name, v in self._variables.items()
        )
        return f"{text}\n  keeps {', '.join(kept)}"

    # --- what it computes -------------------------------------------------------------------------

    def system(self, point: Point = ()) -> TrainingMap:
        """What is trained at a point of the grid, given by the indices of its values."""
        return self._case(self._checked(point)).system

    def weights(self, point: Point, first: int, count: int) -> Floats:
        """Initial weights (count, n_params) of the runs first … first + count − 1 at a point."""
        case = self._case(self._checked(point))
        return case.weights(*self._block(first, count))

    def cost(self, point: Point) -> float:
        """Rough number of multiplications of one run at a point; only ratios mean something."""
        return self._costs[self._distinct(self._checked(point))]

    def group(self, point: Point) -> int:
        """Runs that the kernels take at once at a point: fewer take as long."""
        return int(self.system(point)._core.group)

    def compute(
        self, point: Point, first: int, count: int, *, threads: int | None = 1
    ) -> dict[str, Array]:
        """All variables of the runs first … first + count − 1 at a point of the grid.

        Returns
        -------
        dict
            ``{name: (count, *variable.shape)}`` in the order of `variables`. The bits of a run
            do not depend on the block that it is in, nor on the number of threads.
        """
        case = self._case(self._checked(point))
        first, count = self._block(first, count)
        found = self._found(case, first, count, threads)
        return {
            name: _padded(found.status if name == "status" else found.array(name), variable, count)
            for name, variable in self._variables.items()
        }

    def _found(self, case: Case, first: int, count: int, threads: int | None) -> Found:
        run = ANALYSES[case.analysis["name"]].run
        return run(case, case.weights(first, count), first, self._names, threads)

    def _checked(self, point: Point) -> Point:
        if len(point) != len(self.shape):
            raise ValueError(f"point must have {len(self.shape)} indices, got {point}")
        return tuple(
            _checks.integer(f"point[{i}]", index, least=0, most=size - 1)
            for i, (index, size) in enumerate(zip(point, self.shape, strict=True))
        )

    def _block(self, first: int, count: int) -> tuple[int, int]:
        first = _checks.integer("first", first, least=0, most=self.runs)
        return first, _checks.integer("count", count, least=0, most=self.runs - first)

    def _make_case(self, point: Point) -> Case:
        values = {path: axis[i] for (path, axis), i in zip(self._axes.items(), point, strict=True)}
        tables = at_point(self._settings, values)
        return case(tables, self.seed, self._data(json.dumps(tables["data"])))

    # --- before it computes -----------------------------------------------------------------------

    def _distinct(self, point: Point) -> Point:
        """The point that stands for this one and all others that differ in free keys alone."""
        return tuple(0 if path in _FREE else i for path, i in zip(self._axes, point, strict=True))

    def _outlines(self) -> dict[Point, _Outline]:
        """Of each point that stands for others; raises Wrong if one cannot be carried out."""
        outlines: dict[Point, _Outline] = {}
        problems: dict[Problem, Point] = {}
        ranges = [range(1 if path in _FREE else len(values)) for path, values in self._axes.items()]
        for point in product(*ranges):
            try:
                outlines[point] = self._outline(self._case(point))
            except Wrong as wrong:
                for problem in wrong.problems:
                    problems.setdefault(problem, point)
        if problems:
            raise Wrong(
                [(path, text + self._at(point)) for (path, text), point in problems.items()]
            )
        return outlines

    def _at(self, point: Point) -> str:
        """Where on the grid, for messages."""
        values = [
            f"{path} = {_checks.describe(axis[i])}"
            for (path, axis), i in zip(self._axes.items(), point, strict=True)
            if path not in _FREE
        ]
        return f" (at {', '.join(values)})" if values else ""

    def _outline(self, case: Case) -> _Outline:
        """By carrying it out with no run at all: the library checks everything and makes arrays."""
        name = case.analysis["name"]
        with refusals("analysis", keys_of(self._settings, "analysis")):
            _few_records(case.analysis)
            found = self._found(case, 0, 0, 1)
            variables, coords = _labelled(found, self._names)
            asked = case.analysis["variables"] or ()
            for variable in asked:
                if variable not in variables and variable != "snapshots":
                    raise ValueError(f"variables must be there to be kept, got {variable!r}")
        return _Outline(variables, coords, ANALYSES[name].cost(case))


def _few_records(analysis: Settings) -> None:
    """Refuse records without end before they are allocated."""
    steps = "epochs" if "epochs" in analysis else "n_steps"
    every = [analysis.get(key) or 1 for key in ("record_every", "every", "stride", "qr_every")]
    if analysis["name"] == "ftle":
        every = [analysis["stride"] or analysis["window"]]
    if analysis[steps] / max(every) > _RECORDS:
        raise ValueError(
            f"{steps} must leave a run at most {_RECORDS:,} records, "
            f"got {analysis[steps]} with one every {max(every)}"
        )


def _labelled(
    found: Found, names: tuple[str, ...]
) -> tuple[dict[str, Variable], dict[str, Labelled]]:
    """The variables of a result of no runs, and the labels of their dimensions."""
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
    return variables, {name: coord for name, coord in coords.items() if name in used}


def _together(outlines: list[_Outline]) -> tuple[dict[str, Variable], dict[str, Labelled]]:
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
            coords[name] = longer
    return variables, coords


def _short_names(axes: Mapping[str, Any], variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """Names of the grid's dimensions: the key alone where nothing else is called so."""
    taken = {"run", *variables}.union(*(variable.dims for variable in variables.values()))
    keys = [path.partition(".")[2] for path in axes]
    return tuple(
        key if key not in taken and keys.count(key) == 1 else path.replace(".", "_")
        for key, path in zip(keys, axes, strict=True)
    )


def _axis_labels(values: tuple[Any, ...]) -> Array:
    """Numbers, or text for everything else."""
    plain = [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in plain):
        return np.array(plain)
    texts = ["-".join(map(str, v)) if isinstance(v, list) else str(v) for v in plain]
    return np.array(texts, dtype=np.str_)


def _padded(values: Array | None, variable: Variable, count: int) -> Array:
    """Values (count, ...) filled up to the variable's shape."""
    shape = (count, *variable.shape)
    if values is not None and values.shape == shape:
        return values.astype(variable.dtype, copy=False)
    fill = np.nan if variable.dtype.startswith("float") else -1
    out = np.full(shape, fill, variable.dtype)
    if values is not None:
        out[tuple(slice(size) for size in values.shape)] = values
    return out
