"""The case at one point of a grid: a system and its analysis."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import datasets
from pylyap._checks import Floats
from pylyap._errors import ArgumentError
from pylyap._readers.tables import scaled
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import Adam, GradientDescent
from pylyap.studies.samples import Samples, library_errors, name_of, outputs_of
from pylyap.studies.settings import InvalidStudy, Problem
from pylyap.studies.tables import TABLES, Settings

# Spawn keys of a study's seed: weights and perturbations are independent.
_WEIGHTS, _PERTURBATIONS = 0, 1


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
class Case(ABC):
    """System and analysis at one point of a grid."""

    system: Any
    seed: int
    analysis: Settings

    @abstractmethod
    def weights(self, first: int, count: int) -> Floats:
        """Initial weights or states (count, ...) of runs first, first + 1, ..."""

    @property
    def group(self) -> int:
        """Number of runs that are computed together."""
        return int(self.system._runs.group)

    def step_cost(self, k: int, method: Any) -> float:
        """Approximate number of multiplications of a step with k tangent vectors."""
        return float(self.system._runs.step_cost(k, method))

    def run(self, analysis: Callable[..., Any], *arguments: Any) -> Any:
        """Call the function of an analysis with this case."""
        return analysis(self, *arguments)

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


@dataclass(frozen=True)
class TrainingCase(Case):
    """Training problem and analysis at one point of a grid."""

    data: Data
    init: Settings

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


def make_case(tables: Settings, seed: int, data: Data) -> TrainingCase:
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
    return TrainingCase(system, seed, tables["analysis"], data, tables["init"])


@contextmanager
def _collect_problems(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except InvalidStudy as error:
        problems += error.problems


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


def split_samples(settings: Settings, samples: Samples) -> Data:
    """Split samples into training and test data. Raises InvalidStudy if there are too few."""
    with library_errors("data", settings):
        X, y = samples.X, samples.y
        if X.dtype == np.uint8 and X.ndim == 2:  # an IDX file of flattened images
            X = X[:, :, np.newaxis]
        outputs = outputs_of(y)
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
        if settings.get("standardize"):  # by the training samples
            if X.dtype == np.uint8:
                raise ArgumentError("standardize", "must be false for images")
            X, *scaled_test = scaled(X, X, *([test[0]] if test else []))
            test = (scaled_test[0], test[1]) if test else None
        return Data(name_of(settings), np.ascontiguousarray(X), y, test, outputs)
