"""Data, network, optimiser and stored Jacobians that all experiments share."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks, datasets
from pylyap._errors import ArgumentError
from pylyap._extras import require
from pylyap._files import user_file, write_npz
from pylyap._tangent.training_jacobian import training_jacobian
from pylyap.maps import TrainingMap
from pylyap.network import Network
from pylyap.optimizers import GradientDescent
from pylyap.papers.training_jacobian2024.results import Jacobian

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_TEST = 197


@dataclass(frozen=True, eq=False)
class Task:
    """Data, network, optimiser and stored Jacobians that all experiments share.

    Parameters
    ----------
    hidden : int, default 64
        Number of hidden units.
    n_train : int, default 1600
        Number of training images, the first ones of the published split.
    epochs : int, default 25
        Number of epochs.
    batch_size : int, default 64
        Minibatch size; divides `n_train`.
    lr, momentum : float
        Learning rate at the start, default 0.1, and momentum, default 0.9. The rate decays to 0 as
        a half cosine.
    seed : int, default 0
        Seed of the initial weights, an assumption.
    folder : Path, optional
        Folder in which Jacobians are stored, and from which they are read; created if it does not
        exist.
    progress : bool, default False
        Show a progress bar.

    Raises
    ------
    ArgumentError
        If `batch_size` does not divide `n_train`.
    """

    hidden: int = 64
    n_train: int = 1600
    epochs: int = 25
    batch_size: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    seed: int = 0
    folder: Path | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden", "n_train", "epochs", "batch_size"):
            _checks.integer(name, getattr(self, name), least=1)
        if self.n_train % self.batch_size:
            raise ArgumentError(
                "batch_size", f"must divide n_train={self.n_train}, got {self.batch_size}"
            )
        _checks.integer("seed", self.seed, least=0)  # the seed of other weights is the next one

    @cached_property
    def digits(self) -> tuple[Floats, Integers, Floats, Integers]:
        """Training images and labels, and test images and labels: the published split."""
        require("sklearn", extra=None, for_="digits")
        from sklearn.model_selection import train_test_split

        X, y = datasets.digits()
        learnt, unseen, labels, others = train_test_split(X, y, test_size=N_TEST, random_state=0)
        return learnt[: self.n_train], labels[: self.n_train], unseen, others

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return self.epochs * (self.n_train // self.batch_size)

    @cached_property
    def network(self) -> Network:
        """The 64-hidden-10 network with GELU."""
        return Network((64, self.hidden, 10), activation="gelu", loss="cross_entropy")

    def start(self, seed: int | None = None) -> Floats:
        """Initial weights (n_params,): LeCun normal, biases N(0, 1/hidden)."""
        seed = self.seed if seed is None else seed
        w = self.network.init("lecun_normal", seed=seed)
        biases = np.random.default_rng([seed, 1])
        for _, b in self.network.unpack(w):  # views
            b[:] = biases.normal(scale=self.hidden**-0.5, size=b.shape)
        return w

    def system(self, *, order: int | None = None, labels: int | None = None) -> TrainingMap:
        """Training map; `order` and `labels` are seeds of permutations of images and of labels.

        By default the images have the order of the split, the same in every epoch.
        """
        X, y, _, _ = self.digits
        if order is not None:
            places = np.random.default_rng(order).permutation(len(X))
            X, y = X[places], y[places]
        if labels is not None:
            y = np.random.default_rng(labels).permutation(y)
        steps = np.arange(self.n_steps)
        descent = GradientDescent(
            lr=self.lr,
            momentum=self.momentum,
            batch_size=self.batch_size,
            shuffle=False,
            schedule=0.5 * (1.0 + np.cos(np.pi * steps / self.n_steps)),
        )
        return TrainingMap(self.network, X, y, descent)

    def test_loss(self, weights: Floats) -> Floats:
        """Mean loss (...) of the test images at weights (..., n_params)."""
        _, _, X, y = self.digits
        return TrainingMap(self.network, X, y, GradientDescent()).loss(weights)

    def jacobian(
        self, name: str, start: Floats, *, order: int | None = None, labels: int | None = None
    ) -> Jacobian:
        """Training Jacobian of the parameters: computed, or read from the folder.

        Parameters
        ----------
        name : str
            Name of the file, without its ending.
        start : ndarray, shape (n_params,)
            Initial weights.
        order, labels : int, optional
            Seeds of `system`.

        Returns
        -------
        Jacobian
            Singular values and right vectors.

        Raises
        ------
        ArgumentError
            If the stored Jacobian has other settings.
        """
        settings = {
            "layers": list(self.network.layers), "n_train": self.n_train, "epochs": self.epochs,
            "batch_size": self.batch_size, "lr": self.lr, "momentum": self.momentum,
            "seed": self.seed, "order": order, "labels": labels,
        }  # fmt: skip
        path = None if self.folder is None else self.folder / f"{name}.npz"
        if path is not None and path.exists():
            return _read(path, settings, start)
        system = self.system(order=order, labels=labels)
        found = training_jacobian(
            system, start, self.n_steps, of="parameters", progress=self.progress
        )
        final = system.trajectory(start, self.n_steps, every=self.n_steps)[-1]
        result = Jacobian(
            start=start,
            final=final[: len(start)],
            logs=found.log_singular_values,
            error=found.error,
            cosines=np.einsum("ij,ij->j", found.left, found.right),
            right=found.right,
        )
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with user_file(path) as file:
                content = {"settings": np.array(json.dumps(settings)), **result._asdict()}
                write_npz(file, content, compressed=False)
        return result


def _read(path: Path, settings: dict[str, Any], start: Floats) -> Jacobian:
    """A stored Jacobian, after a check that it is the one of these settings and weights."""
    try:
        with np.load(path) as stored:
            known = json.loads(str(stored["settings"]))
            found = Jacobian(*(stored[name] for name in Jacobian._fields))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ArgumentError(
            "folder", f"must have Jacobians of this study, got {path.name} ({error})"
        ) from None
    other = [name for name, value in settings.items() if known.get(name) != value]
    if other:
        name = other[0]
        raise ArgumentError(
            "folder",
            f"must have Jacobians of these settings: {path} has {name} {known.get(name)} (here "
            f"{settings[name]}); remove it or take another folder",
        )
    if not np.array_equal(found.start, start):
        raise ArgumentError(
            "folder",
            f"must have Jacobians of these settings: {path} has other initial weights; remove it "
            "or take another folder",
        )
    return found
