"""A study: checked settings, its grid, and what is computed of any block of runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from functools import lru_cache
from hashlib import sha256
from itertools import product
from os import PathLike
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap.maps import TrainingMap
from pylyap.studies.analyses import ANALYSES, Found, Labelled
from pylyap.studies.cases import Case, case, parted, read, source
from pylyap.studies.outline import Outline, Variable, outline, together
from pylyap.studies.settings import Problem, Wrong, at_point, checked
from pylyap.studies.tables import VARIABLES, Settings
from pylyap.studies.toml import as_toml, parsed, read_text

__all__ = ["Study", "Variable"]

Array = NDArray[Any]
Point = tuple[int, ...]
T = TypeVar("T")

# Keys of a grid on which no shape, label or cost depends, nor whether a setting can be carried out.
_FREE = {
    *("data.seed", "data.split_seed", "init.kind", "init.scale", "init.biases", "analysis.seed"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.shuffle", "optimizer.seed"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"),
}
_MOST_SETTINGS = 10**5  # that are set up to check them, some milliseconds each
_CASES = 2  # that stay built, with their data


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
        try:
            self._set_up(checked(given))
        except Wrong as wrong:
            raise ValueError(str(wrong)) from None

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Study:
        """The study of a TOML file; relative paths in it start at its folder.

        Raises ValueError with all mistakes and their lines, also if the file exceeds the limits
        on its size (4 MiB, 1000 keys, 16 parts of a key); OSError if it cannot be read.
        """
        file = _checks.path("path", path)
        text = read_text(file)
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
        dataset_class()  # names, dimensions and units are those of the results' datasets
        self._settings = settings
        self._axes = {path: tuple(values) for path, values in settings["grid"].items()}
        self._make_caches()
        analysis = settings["analysis"]
        usual, _ = VARIABLES[analysis["name"]]
        self._names = tuple(usual if analysis["variables"] is None else analysis["variables"])
        outlines = self._outlines()
        self._costs = {point: outline.cost for point, outline in outlines.items()}
        self._memory = {point: outline.memory for point, outline in outlines.items()}
        self._variables, self._labels = together(list(outlines.values()))
        self._dims = _short_names(self._axes, self._variables)

    def _make_caches(self) -> None:
        self._case = lru_cache(maxsize=_CASES)(self._make_case)
        self._samples = lru_cache(maxsize=_CASES)(read)

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_case", "_samples")
        return {name: value for name, value in vars(self).items() if name not in caches}

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
            dim: Labelled((dim,), axis_labels(values), {"long_name": path})
            for dim, (path, values) in zip(self._dims, self._axes.items(), strict=True)
        }
        return axes | self._labels

    def to_toml(self) -> str:
        """A study file that says the same, defaults filled in.

        `from_file` reads files of up to 4 MiB: some 200,000 numbers.
        """
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
        if self._settings["analysis"]["name"] == "ensemble":
            return 1  # its copies are what is taken at once
        return int(self.system(point)._runs.group)

    def memory(self, point: Point) -> float:
        """Bytes that the results of one run at a point take, those that are not kept included."""
        return self._memory[self._distinct(self._checked(point))]

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
        point = _checks.sequence("point", point, "an index for each axis of the grid")
        if len(point) != len(self.shape):
            raise ArgumentError("point", f"must have {len(self.shape)} indices, got {len(point)}")
        return tuple(
            _checks.integer(f"point[{i}]", index, least=0, most=size - 1)
            for i, (index, size) in enumerate(zip(point, self.shape, strict=True))
        )

    def _block(self, first: int, count: int) -> tuple[int, int]:
        first = _checks.integer("first", first, least=0, most=self.runs)
        return first, _checks.integer("count", count, least=0, most=self.runs - first)

    def _make_case(self, point: Point) -> Case:
        tables = self._tables(point)
        data = parted(tables["data"], self._samples(source(tables["data"])))
        return case(tables, self.seed, data)

    def _tables(self, point: Point) -> Settings:
        values = {path: axis[i] for (path, axis), i in zip(self._axes.items(), point, strict=True)}
        return at_point(self._settings, values)

    # --- before it computes -----------------------------------------------------------------------

    def _distinct(self, point: Point) -> Point:
        """The point that stands for this one and all others that differ in free keys alone."""
        return tuple(0 if path in _FREE else i for path, i in zip(self._axes, point, strict=True))

    def _digest(self, point: Point) -> str:
        """Of the data at a point; raises Wrong if they are not there."""
        data = self._tables(point)["data"]
        samples = self._samples(source(data))
        parted(data, samples)
        return samples.digest

    def _outlines(self) -> dict[Point, Outline]:
        """Of each point that stands for others; raises Wrong if some cannot be carried out."""
        settings = math.prod(
            n for n, path in zip(self.shape, self._axes, strict=True) if path not in _FREE
        )
        if settings > _MOST_SETTINGS:
            text = (
                f"grid must have at most {_MOST_SETTINGS} settings that are checked one by one "
                f"(all but learning rates, seeds and the like), got {settings}"
            )
            raise Wrong([("grid", text)])
        digests = self._tried("data.", self._digest)
        if "sha256" in self._settings["data"]:
            self._settings["data"] |= _same_data(self._settings["data"], digests.values())
        return self._tried("", lambda point: outline(self._case(point), self._names))

    def _tried(self, table: str, attempt: Callable[[Point], T]) -> dict[Point, T]:
        """What an attempt gives at all points that differ in keys of this table, free ones aside;
        raises Wrong with the problems of all."""
        ranges = [
            range(len(values) if path.startswith(table) and path not in _FREE else 1)
            for path, values in self._axes.items()
        ]
        found: dict[Point, T] = {}
        problems: dict[Problem, list[Point]] = {}
        for point in product(*ranges):
            try:
                found[point] = attempt(point)
            except Wrong as wrong:
                for problem in wrong.problems:
                    problems.setdefault(problem, []).append(point)
        if problems:
            located = ((path, text + self._at(table, at)) for (path, text), at in problems.items())
            raise Wrong(list(located))
        return found

    def _at(self, table: str, points: list[Point]) -> str:
        """Where on the grid, for messages: keys of this table that do not go wrong with all their
        values."""
        values = [
            f"{path} = {_checks.describe(axis[indices[0]])}"
            for (path, axis), indices in zip(
                self._axes.items(), zip(*points, strict=True), strict=True
            )
            if path.startswith(table) and path not in _FREE and len(set(indices)) < len(axis)
        ]
        return f" (at {', '.join(values)})" if values else ""


def _same_data(data: Settings, digests: Iterable[str]) -> Settings:
    """The digest of the data; Wrong if another one is wanted."""
    digest = sha256("".join(digests).encode()).hexdigest()
    if data["sha256"] not in (None, digest):
        text = f"data.sha256 must be that of the data, which are others: got {data['sha256']}, "
        raise Wrong([("data.sha256", f"{text}found {digest}")])
    return {"sha256": digest}


def _short_names(axes: Mapping[str, Any], variables: Mapping[str, Variable]) -> tuple[str, ...]:
    """Names of the grid's dimensions: the key alone where nothing else is called so."""
    taken = {"run", *variables}.union(*(variable.dims for variable in variables.values()))
    keys = [path.partition(".")[2] for path in axes]
    return tuple(
        key if key not in taken and keys.count(key) == 1 else path.replace(".", "_")
        for key, path in zip(keys, axes, strict=True)
    )


def axis_labels(values: tuple[Any, ...]) -> Array:
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
    out = variable.blank(count)
    if values is not None:
        out[tuple(slice(size) for size in values.shape)] = values
    return out
