"""Records of a training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pylyap._batches import BatchResult
from pylyap._checks import Floats
from pylyap._labelled import dataset_class
from pylyap._status import Status

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]

CURVES = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")


@dataclass(frozen=True, eq=False, repr=False)
class History(BatchResult):
    """Evolution of a batch of runs, epoch by epoch. Leading axes are the batch.

    Records are nan from where a run became non-finite, and after it stopped.

    Attributes
    ----------
    epochs : ndarray of int, shape (n_records,)
        Epochs done at each record; the first is 0.
    train_loss, test_loss : ndarray, shape (..., n_records)
        Mean loss of the whole data and of the test data (None without them).
    train_accuracy, test_accuracy : ndarray, shape (..., n_records), or None
        Fractions correctly classified; None for squared errors.
    scopes : tuple of str, length n_scopes
        ``"all weights"``, then ``"layer 0"`` (the layer after the inputs), ``"layer 1"``, …
    deviation : ndarray, shape (..., n_scopes, n_records)
        Root mean square of w − w(0), without biases; as in `weight_deviation`.
    snapshot_epochs : ndarray of int, shape (n_snapshots,)
        Epochs after which weights were kept.
    snapshots : dict of ndarray
        ``{"weights": (..., n_snapshots, n_params)}``, or for chosen layers their matrices, like
        ``{"layer 1": (..., n_snapshots, n_out, n_in)}``; empty without snapshots.
    w_initial : ndarray, shape (..., n_params)
        Weights at the start.
    state : ndarray, shape (..., n)
        The last state (weights and buffers), nan for a run that diverged.
    status : ndarray of int, shape (...)
        0 finished, 1 diverged (its state or its training loss became non-finite), 2 stopped early;
        see `Status`.
    n_done : ndarray of int, shape (...)
        Number of epochs after which the run was finite.
    seconds : ndarray, shape (n_epochs,)
        Wall-clock time of the steps of each epoch, all runs together, without records; nan for
        epochs that were not made.
    settings : dict
        Arguments of the call; `guess_loss` is the loss of a constant prediction: ln K for K
        classes, half the variance of the targets for squared errors.
    dims : tuple of str
        Names of the batch axes, such as ``("lr", "run")``.
    coords : dict of ndarray
        Settings of the optimiser along the batch, such as the learning rates, by name.

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    >>> history = pl.train(system, net.init("normal", runs=2), epochs=4)
    >>> history.epochs, history.train_loss.shape, history.w_final.shape
    (array([0, 1, 2, 3, 4]), (2, 5), (2, 13))
    """

    epochs: Integers
    train_loss: Floats
    test_loss: Floats | None
    train_accuracy: Floats | None
    test_accuracy: Floats | None
    scopes: tuple[str, ...]
    deviation: Floats
    snapshot_epochs: Integers
    snapshots: dict[str, Floats]
    w_initial: Floats
    state: Floats
    status: Integers
    n_done: Integers
    seconds: Floats
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.status.shape

    @property
    def w_final(self) -> Floats:
        """(..., n_params) weights of the last state."""
        return self.state[..., : self.w_initial.shape[-1]]

    def __repr__(self) -> str:
        runs, epochs = self.status.size, int(self.epochs[-1])
        text = f"History of {runs} run{'s'[: runs != 1]}"
        text += f" ({self._batch_text})" if self._batch_text else ""
        text += f": {epochs} epoch{'s'[: epochs != 1]}"
        for name, code in (("diverged", Status.DIVERGED), ("stopped early", Status.STOPPED)):
            count = int((self.status == code).sum())
            text += f", {count} {name}" if count else ""
        for name, values in (("training", self.train_loss), ("test", self.test_loss)):
            if values is not None:
                last = _latest(values).ravel()
                last = last[np.isfinite(last)]
                if last.size:
                    text += f"\n  {name} loss {np.median(last):.4g}"
                    text += " (median)" if runs > 1 else ""
        return text

    def to_dataset(self) -> xarray.Dataset:
        """Convert to an xarray Dataset with labelled dimensions.

        Returns
        -------
        xarray.Dataset
            One variable per array; settings in attributes.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        dataset = dataset_class()
        batch = list(self.dims)
        weight = {"units": "weight"}
        variables: dict[str, Any] = {
            name: ([*batch, "epoch"], values)
            for name in CURVES
            if (values := getattr(self, name)) is not None
        }
        variables |= {
            "deviation": ([*batch, "scope", "epoch"], self.deviation, weight),
            "w_initial": ([*batch, "parameter"], self.w_initial, weight),
            "state": ([*batch, "component"], self.state),
            "status": (batch, self.status, {"meaning": "0 finished, 1 diverged, 2 stopped early"}),
            "n_done": (batch, self.n_done, {"units": "epochs"}),
            "seconds": (["made_epoch"], self.seconds, {"units": "s"}),
        }
        for name, values in self.snapshots.items():
            key = name.replace(" ", "_")
            inner = ["parameter"] if name == "weights" else [f"{key}_to", f"{key}_from"]
            variables[key] = ([*batch, "snapshot", *inner], values, weight)
        coordinates = {
            "epoch": ("epoch", self.epochs),
            "scope": ("scope", list(self.scopes)),
            "snapshot": ("snapshot", self.snapshot_epochs, {"units": "epochs"}),
        }
        return dataset(variables, coordinates | self._labels, attrs=dict(self.settings))


def _latest(values: Floats) -> Floats:
    """The last finite entry of values (..., n)."""
    finite = np.isfinite(values)
    last = values.shape[-1] - 1 - np.argmax(finite[..., ::-1], axis=-1)
    result: Floats = np.take_along_axis(values, last[..., np.newaxis], axis=-1)[..., 0]
    return result
