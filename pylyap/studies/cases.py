"""Training problem at one point of a grid: data, network and optimiser."""

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
from pylyap.studies.settings import InvalidStudy, Problem
from pylyap.studies.tables import TABLES, Settings

# Spawn keys of a study's seed: weights and perturbations are independent.
_WEIGHTS, _PERTURBATIONS = 0, 1

# Keys of [data] that are no arguments of its reader.
_SPLIT_KEYS = ("train", "test", "split_seed", "sha256")


class Samples(NamedTuple):
    """Inputs, targets, and a digest of both if they come from files."""

    X: NDArray[Any]
    y: NDArray[Any]
    digest: str


@dataclass(frozen=True)
class Data:
    """Training and test samples, and the number of network outputs that they require."""

    name: str
    X: NDArray[Any]
    y: NDArray[Any]
    test: tuple[NDArray[Any], NDArray[Any]] | None
    outputs: int

    @property
    def inputs(self) -> int:
        return math.prod(self.X.shape[1:])

    @property
    def has_labels(self) -> bool:
        """Whether the targets are class labels."""
        return bool(self.y.dtype.kind == "i")


@dataclass(frozen=True)
class Case:
    """Training problem and analysis at one point of a grid."""

    data: Data
    system: TrainingMap
    init: Settings
    seed: int
    analysis: Settings

    def weights(self, first: int, count: int) -> Floats:
        """Initial weights (count, n_params) of runs first, first + 1, ...

        They depend on the seed and the number of the run alone.
        """
        network = self.system.network
        weights = np.empty((count, network.n_params))
        for r in range(count):
            key = (_WEIGHTS, first + r)
            seed = np.random.SeedSequence(self.seed, spawn_key=key)
            weights[r] = network.init(seed=seed, **self.init)
        return weights

    @property
    def perturbations(self) -> np.random.SeedSequence:
        """Seed from which the perturbations of each run are spawned."""
        return np.random.SeedSequence(self.seed, spawn_key=(_PERTURBATIONS,))

    def arguments(self, *without: str) -> Settings:
        """Settings of the analysis that are arguments of the library's function."""
        return {
            key: value
            for key, value in self.analysis.items()
            if key not in ("name", "variables", *without)
        }


def make_case(tables: Settings, seed: int, data: Data) -> Case:
    """Make the case of these tables. Raises InvalidStudy if the library rejects a setting."""
    options = dict(tables["optimizer"])
    kind = {"gradient_descent": GradientDescent, "adam": Adam}[options.pop("name")]
    dtype: Any = tables["analysis"].get("dtype", "float64")
    problems: list[Problem] = []
    with _collect_problems(problems), library_errors("network", TABLES["network"][""]):
        network = _network(tables["network"], data)
    with _collect_problems(problems), library_errors("optimizer", options):
        optimizer = kind(**options)
    if problems:
        raise InvalidStudy(problems)
    with library_errors("optimizer", options):
        system = TrainingMap(network, data.X, data.y, optimizer, dtype=dtype)
    return Case(data, system, tables["init"], seed, tables["analysis"])


@contextmanager
def _collect_problems(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except InvalidStudy as error:
        problems += error.problems


@contextmanager
def library_errors(table: str, keys: Collection[str]) -> Iterator[None]:
    """Convert errors of the library to InvalidStudy, at the key that is their argument."""
    try:
        yield
    except InvalidStudy:
        raise
    except (ValueError, TypeError, ImportError, OSError, MemoryError) as error:
        key = error.argument if isinstance(error, ArgumentError) else ""
        if key in keys:
            raise InvalidStudy([(f"{table}.{key}", f"{table}.{error}")]) from None
        raise InvalidStudy([(table, f"{table}: {str(error) or type(error).__name__}")]) from None


def _network(settings: Settings, data: Data) -> Network:
    hidden, layers, loss = settings["hidden"], settings["layers"], settings["loss"]
    if (hidden is None) == (layers is None):
        got = "neither" if hidden is None else "both"
        raise ArgumentError(
            "hidden", f"must be given (widths, like 10 or [10, 5]) or layers, got {got}"
        )
    if layers is None:
        layers = [data.inputs, *hidden, data.outputs]
    fits = layers[-1] >= data.outputs if data.has_labels else layers[-1] == data.outputs
    if layers[0] != data.inputs or not fits:
        ends = f"the {data.inputs} inputs of {data.name} to its {data.outputs} outputs"
        raise ArgumentError("layers", f"must go from {ends}, got {layers}")
    if data.has_labels == (loss == "mse"):
        allowed = "cross_entropy or cross_entropy_clipped" if data.has_labels else "mse"
        targets = "labels" if data.has_labels else "real-valued targets"
        raise ArgumentError(
            "loss", f"must be {allowed} for the {targets} of {data.name}, got {loss!r}"
        )
    return Network(layers, settings["activation"], loss)


def source_key(settings: Settings) -> str:
    """Key (JSON) of the source of all samples of a table [data]."""
    return json.dumps({key: value for key, value in settings.items() if key not in _SPLIT_KEYS})


def read_samples(source: str) -> Samples:
    """Read all samples of a source. Raises InvalidStudy if they are missing or damaged."""
    options = json.loads(source)
    name = options.pop("name")
    with library_errors("data", options):
        if name != "idx":
            X, y, *_ = getattr(datasets, name)(**options)
        else:
            X, y = (datasets.idx(options[key]) for key in ("images", "labels"))
            if X.ndim < 2 or y.shape != (len(X),) or len(X) == 0:
                raise ArgumentError(
                    "labels",
                    f"must have shape (N,) for images of shape (N, ...) with N >= 1, "
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


def split_samples(settings: Settings, samples: Samples) -> Data:
    """Split samples into training and test data. Raises InvalidStudy if there are too few."""
    with library_errors("data", settings):
        X, y, _ = samples
        if X.dtype == np.uint8 and X.ndim == 2:  # an IDX file of flattened images
            X = X[:, :, np.newaxis]
        outputs = int(y.max()) + 1 if y.dtype.kind == "i" else math.prod(y.shape[1:])
        n_test = settings["test"]
        n = len(X) - n_test if settings["train"] is None else settings["train"]
        if n_test >= len(X):
            raise ArgumentError("test", f"must be below the {len(X)} samples, got {n_test}")
        if n > len(X) - n_test:
            rest = f" besides {n_test} test samples" if n_test else ""
            raise ArgumentError("train", f"must be at most {len(X) - n_test}{rest}, got {n}")
        test = None
        if n < len(X):
            X, y, *others = datasets.split(X, y, n, seed=settings["split_seed"])
            test = (others[0][:n_test], others[1][:n_test]) if n_test else None
        return Data(settings["name"], X, y, test, outputs)
