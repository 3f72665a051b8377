"""What is trained at a point of a study's grid: data, network, optimiser."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pylyap import datasets
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import Adam, GradientDescent
from pylyap.studies.settings import Problem, Wrong
from pylyap.studies.tables import TABLES, Settings

# Branches of a study's seed, so that weights and perturbations are drawn independently.
_WEIGHTS, _PERTURBATIONS = 0, 1

# Keys of [data] that its reader does not need.
_AFTERWARDS = ("train", "test", "split_seed", "sha256")


class Samples(NamedTuple):
    """Inputs, targets, and a digest of both if they come from files."""

    X: NDArray[Any]
    y: NDArray[Any]
    digest: str


@dataclass(frozen=True)
class Data:
    """Samples to train on, others to test on, and how many outputs they want of a network."""

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    test: tuple[NDArray[Any], NDArray[Any]] | None
    outputs: int

    @property
    def inputs(self) -> int:
        return math.prod(self.X.shape[1:])

    @property
    def labelled(self) -> bool:
        return bool(self.y.dtype.kind == "i")


@dataclass(frozen=True)
class Case:
    """One setting of everything."""

    data: Data
    system: TrainingMap
    init: Settings
    seed: int
    analysis: Settings

    def weights(self, first: int, count: int) -> Floats:
        """Initial weights (count, n_params) of runs first, first + 1, ...: of (seed, run) alone."""
        network = self.system.network
        weights = np.empty((count, network.n_params))
        for r in range(count):
            key = (_WEIGHTS, first + r)
            seed = np.random.SeedSequence(self.seed, spawn_key=key)
            weights[r] = network.init(seed=seed, **self.init)
        return weights

    @property
    def perturbations(self) -> np.random.SeedSequence:
        """The seed from which each run's perturbations branch off."""
        return np.random.SeedSequence(self.seed, spawn_key=(_PERTURBATIONS,))

    def given(self, *without: str) -> Settings:
        """The analysis' keys as arguments of the library's function."""
        return {
            key: value
            for key, value in self.analysis.items()
            if key not in ("name", "variables", *without)
        }


def case(tables: Settings, seed: int, data: Data) -> Case:
    """A case of a study; raises Wrong if the library refuses it."""
    options = dict(tables["optimizer"])
    kind = {"gradient_descent": GradientDescent, "adam": Adam}[options.pop("name")]
    dtype: Any = tables["analysis"].get("dtype", "float64")
    problems: list[Problem] = []
    with _collected(problems), refusals("network", TABLES["network"][""]):
        network = _network(tables["network"], data)
    with _collected(problems), refusals("optimizer", options):
        optimizer = kind(**options)
    if problems:
        raise Wrong(problems)
    with refusals("optimizer", options):
        system = TrainingMap(network, data.X, data.y, optimizer, dtype=dtype)
    return Case(data, system, tables["init"], seed, tables["analysis"])


@contextmanager
def _collected(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except Wrong as wrong:
        problems += wrong.problems


@contextmanager
def refusals(table: str, keys: Collection[str]) -> Iterator[None]:
    """Errors of the library as problems of the key that is their argument."""
    try:
        yield
    except Wrong:
        raise
    except (ValueError, TypeError, ImportError, OSError, MemoryError) as error:
        key = error.argument if isinstance(error, ArgumentError) else ""
        if key in keys:
            raise Wrong([(f"{table}.{key}", f"{table}.{error}")]) from None
        raise Wrong([(table, f"{table}: {str(error) or type(error).__name__}")]) from None


def _network(given: Settings, data: Data) -> Network:
    hidden, layers, loss = given["hidden"], given["layers"], given["loss"]
    if (hidden is None) == (layers is None):
        came = "neither" if hidden is None else "both"
        raise ArgumentError(
            "hidden", f"must be given (widths, like 10 or [10, 5]) or layers, got {came}"
        )
    if layers is None:
        layers = [data.inputs, *hidden, data.outputs]
    few = layers[-1] < data.outputs if data.labelled else layers[-1] != data.outputs
    if layers[0] != data.inputs or few:
        ends = f"the {data.inputs} inputs of {data.name} to its {data.outputs} outputs"
        raise ArgumentError("layers", f"must go from {ends}, got {layers}")
    if data.labelled == (loss == "mse"):
        fits = "cross_entropy or cross_entropy_clipped" if data.labelled else "mse"
        what = "labels" if data.labelled else "numbers"
        raise ArgumentError("loss", f"must be {fits} for the {what} of {data.name}, got {loss!r}")
    return Network(layers, given["activation"], loss)


def source(given: Settings) -> str:
    """What a table [data] says of where all samples come from."""
    return json.dumps({key: value for key, value in given.items() if key not in _AFTERWARDS})


def read(source: str) -> Samples:
    """All samples of a source; raises Wrong if they are not there or damaged."""
    options = json.loads(source)
    name = options.pop("name")
    with refusals("data", options):
        if name != "idx":
            X, y, *_ = getattr(datasets, name)(**options)
        else:
            X, y = (datasets.idx(options[key]) for key in ("images", "labels"))
            if X.ndim < 2 or y.shape != (len(X),) or len(X) == 0:
                raise ArgumentError(
                    "labels",
                    f"must be one for each of the images, (N,) for (N, ...) with N >= 1, "
                    f"got {y.shape} for {X.shape}",
                )
            y = y.astype(np.int64)
        in_files = "sha256" in TABLES["data"][name]
        return Samples(X, y, _digest(X, y) if in_files else "")


def _digest(X: NDArray[Any], y: NDArray[Any]) -> str:
    digest = sha256(repr((X.shape, y.shape)).encode())
    for array in (X, y):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def parted(given: Settings, samples: Samples) -> Data:
    """Samples to train on and to test on; raises Wrong if there are too few."""
    with refusals("data", given):
        X, y, _ = samples
        if X.dtype == np.uint8 and X.ndim == 2:  # images in one row, in an IDX file
            X = X[:, :, np.newaxis]
        outputs = int(y.max()) + 1 if y.dtype.kind == "i" else math.prod(y.shape[1:])
        n_test = given["test"]
        n = len(X) - n_test if given["train"] is None else given["train"]
        if n_test >= len(X):
            raise ArgumentError("test", f"must be below the {len(X)} samples, got {n_test}")
        if n > len(X) - n_test:
            besides = f" besides {n_test} to test on" if n_test else ""
            raise ArgumentError("train", f"must be at most {len(X) - n_test}{besides}, got {n}")
        test = None
        if n < len(X):
            X, y, *rest = datasets.split(X, y, n, seed=given["split_seed"])
            test = (rest[0][:n_test], rest[1][:n_test]) if n_test else None
        return Data(given["name"], X, y, test, outputs)
