"""A study: its checked settings, its grid, and the computation of any block of runs."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from functools import lru_cache
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._labelled import dataset_class
from pylyap._stability.rows import NAMES
from pylyap.maps import Map
from pylyap.studies.analyses import ANALYSES, BlockResult, LabelledArray
from pylyap.studies.cases import Case, make_case, split_samples
from pylyap.studies.outline import Outline, Variable, merge_outlines, outline
from pylyap.studies.samples import (
    ARRAYS_IN_FILE,
    ARRAYS_TO_FILE,
    STORED,
    Samples,
    checked_digest,
    read_samples,
    source_key,
    store_arrays,
    subject_of,
    with_arrays,
)
from pylyap.studies.settings import InvalidStudy, Problem, at_point, validated_settings
from pylyap.studies.shapes import axis_labels, padded, short_names
from pylyap.studies.systems import (
    LOSSES,
    SYSTEM_IN_FILE,
    GivenSystem,
    SystemCase,
    given_system,
    store_states,
    study_settings,
)
from pylyap.studies.tables import VARIABLES, Settings
from pylyap.studies.toml import parse_toml, read_text, to_toml_text

__all__ = ["Study", "Variable"]

Array = NDArray[Any]
Point = tuple[int, ...]
T = TypeVar("T")

# Settings that change neither shapes, labels and costs nor whether the library accepts the others.
_VALUE_ONLY_KEYS = {
    *("data.seed", "data.split_seed", "init.kind", "init.scale", "init.biases", "analysis.seed"),
    *("optimizer.lr", "optimizer.weight_decay", "optimizer.shuffle", "optimizer.seed"),
    *("optimizer.beta1", "optimizer.beta2", "optimizer.epsilon"),
    *(f"analysis.{name}" for name in NAMES),
}
_MAX_CHECKED_SETTINGS = 10**5  # points of the grid that are built for the checks, some ms each
_CACHED_CASES = 2  # each holds its data


class Study:
    """Many runs of one analysis at each point of a grid of settings.

    A study is immutable. All settings are checked when it is made, and one error reports all
    problems. The arguments are the tables of a study file, see `from_file`: trainings of networks.
    In Python, `system` and `states` in place of `data` and `network` study any map.

    Parameters
    ----------
    data : mapping
        Training data, such as ``{"name": "iris", "train": 120}``. The other keys are arguments of
        the function of `pylyap.datasets` with this name, and of `pylyap.datasets.split`. A table of
        one's own: ``{"path": "wine.csv", "target": "class", "standardize": True}``, with the
        arguments of `pylyap.datasets.table`; integers are classes. Arrays: ``{"X": X, "y": y}``,
        labels 0, 1, ... or real values, which are copied. Inputs are standardized by the training
        samples.
    network : mapping
        Arguments of `Network`; ``"hidden"`` gives the widths of the hidden layers.
    analysis : mapping
        Name and arguments of an analysis: ``"spectrum"`` (`lyapunov_spectrum`), ``"ftle"``,
        ``"clv"`` (`covariant_lyapunov_vectors`), ``"training_jacobian"``, ``"ensemble"``
        (`perturbation_ensemble` and `growth_rate`), ``"sharpness"`` (`sharpness_along`),
        ``"stability"`` (rows of a `stability_map`), ``"train"`` or ``"scan"``
        (`learning_rate_scan`). ``"variables"`` lists the arrays to keep.
    runs : int
        Number of runs, each from its own initial weights, at each point of the grid. Required
        without `system`; with it the default is the number of rows of `states`.
    init : mapping, optional
        Arguments of `Network.init`.
    optimizer : mapping, optional
        Name, ``"gradient_descent"`` (default) or ``"adam"``, and arguments of the optimiser.
    seed : int, default 0
        Seed of the initial weights and perturbations. Those of run r depend on `seed` and r alone.
    grid : mapping, optional
        Values of the settings that vary, by dotted name: ``{"optimizer.lr": [0.1, 1.0]}``, or
        ``{"linspace": [a, b, n]}``, ``{"logspace": ...}`` or ``{"geomspace": ...}`` as in NumPy.
        The grid is the Cartesian product.
    title : str, default ""
        Title of figures and reports.
    system : Map, optional
        A map to study: a `TrainingMap`, a `DiscreteMap`, a map of `from_torch` or `from_jax`, or
        any object with `n`, `step` and `tangent`. `data`, `network`, `init` and `optimizer` are
        omitted then, `analysis` is ``"spectrum"``, ``"ftle"``, ``"clv"``, ``"training_jacobian"``,
        ``"ensemble"``, ``"sharpness"`` or, for a `TrainingMap`, ``"stability"``, and `grid` varies
        its settings alone. Three steps are made from the first state to identify the system.
    states : array_like, shape (>= runs, n) or (>= runs, n_params), optional
        Initial states of `system`: run r begins at row r. They are copied.

    Raises
    ------
    ValueError
        If a key is unknown or missing, a value has a wrong type or is out of range, data are
        missing, or the library rejects a setting of the grid. The message names the path of each.
    TypeError
        If `system` is not a map, or `states` is not an array.
    ImportError
        If xarray is not installed.

    Examples
    --------
    >>> import pylyap as pl
    >>> study = pl.Study(
    ...     data={"name": "iris"},
    ...     network={"hidden": 3, "loss": "cross_entropy"},
    ...     analysis={"name": "spectrum", "n_steps": 20, "k": 2, "variables": ["exponents"]},
    ...     runs=4,
    ...     grid={"optimizer.lr": [0.1, 1.0]},
    ... )
    >>> study
    Study: spectrum of iris, 4 runs at each of 2 lr
      keeps status, exponents (2)
    >>> study.compute((1,), first=0, count=4)["exponents"].shape
    (4, 2)

    A map of one's own:

    >>> def henon(x):
    ...     return [1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]]
    >>> def derivative(x):
    ...     return [[-2.8 * x[0], 1.0], [0.3, 0.0]]
    >>> pl.Study(
    ...     system=pl.DiscreteMap(henon, derivative, n=2),
    ...     states=[[0.1, 0.1], [0.2, 0.1]],
    ...     analysis={"name": "ftle", "n_steps": 100, "window": 10},
    ... )
    Study: ftle of DiscreteMap(henon, n=2), 2 runs
      keeps status, ftle (10, 2)
    """

    def __init__(
        self,
        *,
        data: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        analysis: Mapping[str, Any],
        runs: int | None = None,
        init: Mapping[str, Any] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        seed: int = 0,
        grid: Mapping[str, Any] | None = None,
        title: str = "",
        system: Map | None = None,
        states: ArrayLike | None = None,
    ) -> None:
        given: Settings = {
            "title": title,
            "runs": runs,
            "seed": seed,
            "data": data,
            "network": network,
            "init": init,
            "optimizer": optimizer,
            "analysis": analysis,
            "grid": {} if grid is None else grid,
        }
        try:
            if system is not None:
                found = given_system(system, states)
                self._set_up(study_settings(given, found), None, found)
                return
            if states is not None:
                text = "states must be omitted without system: init draws the initial weights"
                raise InvalidStudy([("states", text)])
            given |= {name: {} for name in ("init", "optimizer") if given[name] is None}
            given["data"], arrays = with_arrays(data)
            self._set_up(validated_settings(given), arrays)
        except InvalidStudy as error:
            raise ValueError(str(error)) from None

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Study:
        """Read a study from a TOML file.

        Parameters
        ----------
        path : str or path-like
            Study file. Relative paths in it are resolved against its folder.

        Returns
        -------
        Study
            The study.

        Raises
        ------
        ValueError
            If a setting is invalid; the message lists all problems with their lines. Also if the
            file is not TOML or exceeds the limits of 4 MiB, 1000 keys and 16 parts of a key.
        OSError
            If the file cannot be read.
        """
        file = _checks.path("path", path)
        text = read_text(file)
        try:
            given = parse_toml(text)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        study = cls.__new__(cls)
        try:
            if isinstance(given.get("data"), dict) and {"X", "y"} & set(given["data"]):
                raise InvalidStudy([("data", ARRAYS_IN_FILE)])
            for name in ("system", "states"):
                if name in given:
                    raise InvalidStudy([(name, f"{name} {SYSTEM_IN_FILE}")])
            study._set_up(validated_settings(given, base=str(file.parent)), None)
        except InvalidStudy as error:
            raise error.in_file(str(file), text) from None
        return study

    def _set_up(
        self, settings: Settings, arrays: Samples | None, given: GivenSystem | None = None
    ) -> None:
        dataset_class()  # names, dimensions and units are those of the results' datasets
        self._settings = settings
        self._arrays = arrays
        self._given = given
        self._bytes = 0 if given is None else given.states.nbytes  # of the largest data set
        self._notes: list[str] = []  # warnings of the data
        self._axes = {path: tuple(values) for path, values in settings["grid"].items()}
        self._make_caches()
        analysis = settings["analysis"]
        default, _ = VARIABLES[analysis["name"]]
        self._names = tuple(default if analysis["variables"] is None else analysis["variables"])
        if given is not None and not given.has_loss:  # the outline rejects those asked for
            self._names = tuple(name for name in self._names if name not in LOSSES)
        outlines = self._outlines()
        self._costs = {point: outline.cost for point, outline in outlines.items()}
        self._memory = {point: outline.memory for point, outline in outlines.items()}
        self._variables, self._labels = merge_outlines(list(outlines.values()))
        self._dims = short_names(self._axes, self._variables)

    def _make_caches(self) -> None:
        self._case = lru_cache(maxsize=_CACHED_CASES)(self._build_case)
        self._samples = lru_cache(maxsize=_CACHED_CASES)(self._read_samples)

    def _read_samples(self, source: str) -> Samples:
        return read_samples(source) if self._arrays is None else self._arrays

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_case", "_samples")
        return {name: value for name, value in vars(self).items() if name not in caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_caches()

    # --- properties -------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """All settings with their defaults, as numbers, strings, lists and dicts.

        ``Study(**study.settings) == study``, except for a study of arrays, which has their digest
        here and, once it has been run, the file of its folder that holds them, and for a study of a
        system, which has numbers here that identify it.
        """
        return deepcopy(self._settings)

    @property
    def title(self) -> str:
        """Title of figures and reports."""
        return str(self._settings["title"])

    @property
    def runs(self) -> int:
        """Number of runs at each point of the grid."""
        return int(self._settings["runs"])

    @property
    def seed(self) -> int:
        """Seed of the initial weights and perturbations of all runs."""
        return int(self._settings["seed"])

    @property
    def grid(self) -> dict[str, tuple[Any, ...]]:
        """Values along each dimension of the grid, by its short name, in order."""
        return dict(zip(self._dims, self._axes.values(), strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions of the grid."""
        return tuple(len(values) for values in self._axes.values())

    @property
    def variables(self) -> dict[str, Variable]:
        """Arrays that are kept of each run; ``"status"`` is always among them."""
        return dict(self._variables)

    @property
    def coords(self) -> dict[str, LabelledArray]:
        """Labels of the dimensions of the grid and of the variables, as (dims, array, attrs)."""
        axes = {
            dim: LabelledArray((dim,), axis_labels(values), {"long_name": path})
            for dim, (path, values) in zip(self._dims, self._axes.items(), strict=True)
        }
        return axes | self._labels

    def to_toml(self) -> str:
        """Write the settings, defaults included, as the text of a study file.

        `from_file` reads files of at most 4 MiB, about 200,000 numbers.

        Returns
        -------
        str
            TOML text.

        Raises
        ------
        ArgumentError
            If the data are arrays that are in no file, or for a study of a system.
        """
        if self._given is not None:
            raise ArgumentError("system", SYSTEM_IN_FILE)
        data = self._settings["data"]
        if data["name"] == "arrays" and data["file"] is None:
            raise ArgumentError("data", ARRAYS_TO_FILE)
        return to_toml_text(self._settings)

    @property
    def data_bytes(self) -> int:
        """Size of the samples or states that each worker process holds, of the largest data set."""
        return self._bytes

    def _stored_in(self, folder: Path) -> Study:
        """The study with its arrays in a file of a folder, which `_store_arrays` writes."""
        if self._arrays is None:
            return self
        study = copy(self)
        study._settings = {
            **self._settings,
            "data": self._settings["data"] | {"file": str(folder.absolute() / STORED)},
        }
        study._make_caches()
        return study

    def _store_arrays(self, folder: Path) -> None:
        if self._arrays is not None:
            store_arrays(folder, self._arrays)
        if self._given is not None:
            store_states(folder, self._given)

    @property
    def _in_turn(self) -> bool:
        """Whether tasks in threads of one process take turns."""
        return self._given is not None and self._given.calls_python

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
        text = f"Study{title}: {s['analysis']['name']} of {subject_of(s)}, "
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

    # --- computation ------------------------------------------------------------------------------

    def system(self, point: Point = ()) -> Any:
        """Make the training map at a point of the grid, or return the given system.

        Parameters
        ----------
        point : tuple of int, optional
            Index along each dimension of the grid; ``()`` without a grid.

        Returns
        -------
        TrainingMap or Map
            Network, training data and optimiser; or the given system.
        """
        return self._case(self._checked_point(point)).system

    def weights(self, point: Point, first: int, count: int) -> Floats:
        """Draw the initial weights of a block of runs, or return their given states.

        Parameters
        ----------
        point : tuple of int
            Index along each dimension of the grid.
        first, count : int
            First run of the block and number of its runs.

        Returns
        -------
        ndarray, shape (count, n_params)
            Initial weights; rows of the given states.
        """
        case = self._case(self._checked_point(point))
        return case.weights(*self._checked_block(first, count))

    def cost(self, point: Point) -> float:
        """Estimate the number of multiplications of one run; only ratios are meaningful.

        Parameters
        ----------
        point : tuple of int
            Index along each dimension of the grid.

        Returns
        -------
        float
            Approximate number of multiplications.
        """
        return self._costs[self._representative(self._checked_point(point))]

    def group(self, point: Point) -> int:
        """Number of runs that the kernels process together; fewer runs take the same time.

        Parameters
        ----------
        point : tuple of int
            Index along each dimension of the grid.

        Returns
        -------
        int
            Runs per group.
        """
        if self._settings["analysis"]["name"] in ("ensemble", "stability"):
            return 1  # a group consists of the perturbed copies or the pixels of one run
        return self._case(self._checked_point(point)).group

    def memory(self, point: Point) -> float:
        """Memory of all results of one run, including those that are not kept.

        Parameters
        ----------
        point : tuple of int
            Index along each dimension of the grid.

        Returns
        -------
        float
            Size in bytes.
        """
        return self._memory[self._representative(self._checked_point(point))]

    def compute(
        self, point: Point, first: int, count: int, *, threads: int | None = 1
    ) -> dict[str, Array]:
        """Compute all variables of a block of runs.

        The bits of a run depend neither on the block that contains it nor on the number of
        threads.

        Parameters
        ----------
        point : tuple of int
            Index along each dimension of the grid.
        first, count : int
            First run of the block and number of its runs.
        threads : int, optional
            Number of threads, default 1; None uses all cores.

        Returns
        -------
        dict of ndarray
            Arrays of shape ``(count, *variable.shape)`` by name, in the order of `variables`.

        Raises
        ------
        ArgumentError
            If the point or the runs are not part of the study.
        """
        case = self._case(self._checked_point(point))
        first, count = self._checked_block(first, count)
        result = self._run_analysis(case, first, count, threads)
        return {
            name: padded(result.status if name == "status" else result.array(name), variable, count)
            for name, variable in self._variables.items()
        }

    def _run_analysis(self, case: Case, first: int, count: int, threads: int | None) -> BlockResult:
        run = ANALYSES[case.analysis["name"]].run
        found: BlockResult = case.run(run, case.weights(first, count), first, self._names, threads)
        return found

    def _checked_point(self, point: Point) -> Point:
        point = _checks.sequence("point", point, "an index for each axis of the grid")
        if len(point) != len(self.shape):
            raise ArgumentError("point", f"must have {len(self.shape)} indices, got {len(point)}")
        return tuple(
            _checks.integer(f"point[{i}]", index, least=0, most=size - 1)
            for i, (index, size) in enumerate(zip(point, self.shape, strict=True))
        )

    def _checked_block(self, first: int, count: int) -> tuple[int, int]:
        first = _checks.integer("first", first, least=0, most=self.runs)
        return first, _checks.integer("count", count, least=0, most=self.runs - first)

    def _build_case(self, point: Point) -> Case:
        tables = self._tables(point)
        if self._given is not None:
            return SystemCase(self._given.system, self.seed, tables["analysis"], self._given)
        data = split_samples(tables["data"], self._samples(source_key(tables["data"])))
        return make_case(tables, self.seed, data)

    def _tables(self, point: Point) -> Settings:
        values = {path: axis[i] for (path, axis), i in zip(self._axes.items(), point, strict=True)}
        return at_point(self._settings, values)

    # --- checks -----------------------------------------------------------------------------------

    def _representative(self, point: Point) -> Point:
        """The first of the points that differ from this one in value-only keys alone."""
        return tuple(
            0 if path in _VALUE_ONLY_KEYS else i for path, i in zip(self._axes, point, strict=True)
        )

    def _digest(self, point: Point) -> str:
        """Digest of the data at a point. Raises InvalidStudy if they are missing."""
        data = self._tables(point)["data"]
        samples = self._samples(source_key(data))
        split_samples(data, samples)
        self._notes += [text for text in samples.warnings if text not in self._notes]
        self._bytes = max(self._bytes, samples.nbytes)
        return samples.digest

    def _outlines(self) -> dict[Point, Outline]:
        """Outline at each representative point. Raises InvalidStudy if some are not possible."""
        n_settings = math.prod(
            n
            for n, path in zip(self.shape, self._axes, strict=True)
            if path not in _VALUE_ONLY_KEYS
        )
        if n_settings > _MAX_CHECKED_SETTINGS:
            text = (
                f"grid must have at most {_MAX_CHECKED_SETTINGS} points that differ in more than "
                f"learning rates, seeds and other values that need no check, got {n_settings}"
            )
            raise InvalidStudy([("grid", text)])
        digests = {} if self._given else self._at_each_point("data.", self._digest)
        for text in self._notes:
            warnings.warn(f"data: {text}", UserWarning, stacklevel=4)
        if "sha256" in self._settings["data"]:
            self._settings["data"] |= checked_digest(self._settings["data"], digests.values())
        return self._at_each_point("", lambda point: outline(self._case(point), self._names))

    def _at_each_point(self, table: str, function: Callable[[Point], T]) -> dict[Point, T]:
        """Apply a function at all points that differ in keys of a table, value-only keys excluded.

        Raises InvalidStudy with the problems of all points.
        """
        ranges = [
            range(len(values) if path.startswith(table) and path not in _VALUE_ONLY_KEYS else 1)
            for path, values in self._axes.items()
        ]
        results: dict[Point, T] = {}
        problems: dict[Problem, list[Point]] = {}
        for point in product(*ranges):
            try:
                results[point] = function(point)
            except InvalidStudy as error:
                for problem in error.problems:
                    problems.setdefault(problem, []).append(point)
        if problems:
            raise InvalidStudy(
                [(path, text + self._location(table, at)) for (path, text), at in problems.items()]
            )
        return results

    def _location(self, table: str, points: list[Point]) -> str:
        """Location of a problem for messages, by the keys whose other values do not have it."""
        values = [
            f"{path} = {_checks.describe(axis[indices[0]])}"
            for (path, axis), indices in zip(
                self._axes.items(), zip(*points, strict=True), strict=True
            )
            if path.startswith(table)
            and path not in _VALUE_ONLY_KEYS
            and len(set(indices)) < len(axis)
        ]
        return f" (at {', '.join(values)})" if values else ""
