"""Trainability of networks by width: phases low, high and untrainable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._labelled import dataset_class
from pylyap._results import Result
from pylyap._status import Status
from pylyap._weights.history import History

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]

PHASES = ("low", "untrainable", "high")

_TIES = (1, 0, 2)  # order of precedence among equally frequent phases


@dataclass(frozen=True)
class TrainabilityRule:
    """Thresholds of the rule that labels a run at each record of its training loss.

    The first of these that holds is the label:

    1. **untrainable**: the run has diverged. Divergence is the first record from which on, until
       the last one, the loss stays above `factor` times the minimum before it and above the
       fraction `share` of the guess loss: progress is lost permanently, by a rise that exceeds
       noise around a small minimum. The loss must stay there for `hold` records, which excludes a
       spike at the last record; a run that became non-finite has diverged in any case.
    2. **low**: the loss has not yet decreased to the fraction `share` of the guess loss.
    3. **high**: it has.

    The label of a run is that of its last record; a run that was stopped keeps its last loss. The
    guess loss is that of a constant prediction: ln K for K classes and half the variance of the
    targets for squared errors (from the `History`), or `guess`. The thresholds are conventions.

    Parameters
    ----------
    share : float, default 0.5
        Fraction of the guess loss that separates low from high.
    factor : float, default 2.0
        Ratio of the loss to its previous minimum above which a run may have diverged.
    hold : int, default 3
        Records for which the loss must stay above.
    guess : float, optional
        Guess loss; that of the history by default.

    Raises
    ------
    ArgumentError
        If a threshold is out of range.

    Examples
    --------
    >>> rule = pl.TrainabilityRule()
    >>> rule.phases(np.array([1.0, 0.4, 0.1, 0.9, 0.9, 0.9]), 1.0)
    array([0, 2, 2, 1, 1, 1], dtype=int8)
    """

    share: float = 0.5
    factor: float = 2.0
    hold: int = 3
    guess: float | None = None

    def __post_init__(self) -> None:
        _checks.real("share", self.share, above=0.0)
        _checks.real("factor", self.factor, least=1.0)
        _checks.integer("hold", self.hold, least=1)
        if self.guess is not None:
            _checks.real("guess", self.guess, above=0.0)

    def divergence(self, loss: Floats, guess: ArrayLike) -> Integers:
        """Record at which each run diverges.

        Parameters
        ----------
        loss : ndarray, shape (..., n_records)
            Training losses.
        guess : array_like
            Guess losses, which broadcast against (...). Ignored if the rule has its own.

        Returns
        -------
        ndarray of int, shape (...)
            Index of the record; -1 for a run that does not diverge.

        Raises
        ------
        ArgumentError
            If shapes do not agree.
        """
        loss, known = self._checked(loss, guess)
        with np.errstate(over="ignore"):
            limit = np.maximum(self.factor * _least(loss), self.share * known)
        calm = loss <= limit[..., np.newaxis]  # nan is not
        n = loss.shape[-1]
        first = np.where(calm.any(axis=-1), n - np.argmax(calm[..., ::-1], axis=-1), 0)
        diverged = (first <= n - self.hold) | np.isnan(loss[..., -1])
        return np.where(diverged, first, -1)

    def phases(self, loss: Floats, guess: ArrayLike) -> NDArray[np.int8]:
        """Phase of each run at each record.

        Parameters
        ----------
        loss : ndarray, shape (..., n_records)
            Training losses.
        guess : array_like
            Guess losses, which broadcast against (...). Ignored if the rule has its own.

        Returns
        -------
        ndarray of int8, shape (..., n_records)
            Index into `PHASES`.

        Raises
        ------
        ArgumentError
            If shapes do not agree.
        """
        loss, known = self._checked(loss, guess)
        first = self.divergence(loss, guess)[..., np.newaxis]
        limit = self.share * known
        learned = np.fmin.accumulate(loss, axis=-1) <= limit[..., np.newaxis]
        diverged = (first >= 0) & (np.arange(loss.shape[-1]) >= first)
        return np.where(diverged, 1, np.where(learned, 2, 0)).astype(np.int8)

    def _checked(self, loss: ArrayLike, guess: ArrayLike) -> tuple[Floats, Floats]:
        losses = _checks.floats("loss", loss, finite=False)
        if losses.ndim == 0 or losses.shape[-1] == 0:
            raise ArgumentError("loss", f"must have shape (..., n_records), got {losses.shape}")
        known = _checks.floats("guess", guess if self.guess is None else self.guess, finite=False)
        try:
            return losses, np.broadcast_to(known, losses.shape[:-1])
        except ValueError:
            raise ArgumentError(
                "guess",
                f"must broadcast against loss without its last axis, {losses.shape[:-1]}, "
                f"got {known.shape}",
            ) from None


@dataclass(frozen=True, eq=False, repr=False)
class Trainability(Result):
    """Outcome of training networks of several widths.

    Attributes
    ----------
    widths : ndarray, shape (n_widths,)
        Units of a hidden layer, or another parameter of the rows.
    epochs : ndarray of int, shape (n_records,)
        Epochs done at each record.
    train_loss, test_loss, deviation : ndarray, shape (n_widths, n_runs, n_records)
        Records of the histories; `deviation` is the rms of all weights, `test_loss` is None without
        test data.
    min_train_loss, min_test_loss : ndarray, shape (n_widths, n_runs)
        The minimum of each; nan for a run without a finite loss.
    min_train_epoch, min_test_epoch : ndarray of int, shape (n_widths, n_runs)
        Epoch of the first minimum; -1 for a run without a finite loss.
    divergence_epoch : ndarray of int, shape (n_widths, n_runs)
        Epoch at which the run diverged; -1 for a run that did not.
    phase : ndarray of int8, shape (n_widths, n_runs, n_records)
        Index into `PHASES` at each record; see `TrainabilityRule`.
    settings : dict
        `guess_loss` of each width, and the thresholds of the rule.

    Examples
    --------
    >>> histories = []
    >>> for width in (2, 4):
    ...     net = pl.Network((2, width, 1))
    ...     system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    ...     histories.append(pl.train(system, net.init("normal", runs=3), 4))
    >>> t = pl.trainability(histories)
    >>> t.widths, t.phase.shape, t.label.shape
    (array([2., 4.]), (2, 3, 5), (2, 3))
    """

    widths: Floats
    epochs: Integers
    train_loss: Floats
    test_loss: Floats | None
    deviation: Floats
    min_train_loss: Floats
    min_test_loss: Floats | None
    min_train_epoch: Integers
    min_test_epoch: Integers | None
    divergence_epoch: Integers
    phase: NDArray[np.int8]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> NDArray[np.str_]:
        """(n_widths, n_runs) phase of each run at the last record."""
        labels: NDArray[np.str_] = np.array(PHASES)[self.phase[..., -1]]
        return labels

    @property
    def regime(self) -> NDArray[np.str_]:
        """(n_widths,) most frequent label; of ties the first of untrainable, low, high."""
        counts = np.stack([(self.phase[..., -1] == p).sum(axis=1) for p in _TIES])
        labels: NDArray[np.str_] = np.array(PHASES)[np.array(_TIES)[counts.argmax(axis=0)]]
        return labels

    @property
    def share(self) -> dict[str, Floats]:
        """Phase diagram: fraction of runs (n_widths, n_records) under the name of each phase."""
        return {name: (self.phase == p).mean(axis=1) for p, name in enumerate(PHASES)}

    def over_runs(self, name: str) -> tuple[Floats, Floats]:
        """Mean and sample standard deviation over the runs of a width.

        Parameters
        ----------
        name : str
            ``"min_train_loss"``, ``"min_test_loss"``, ``"min_train_epoch"``, ``"min_test_epoch"``
            or ``"divergence_epoch"``.

        Returns
        -------
        mean : ndarray, shape (n_widths,)
            Mean over the runs that have a value.
        spread : ndarray, shape (n_widths,)
            Sample standard deviation (n − 1 in the denominator); nan for one run.

        Raises
        ------
        ArgumentError
            If the name is none of these, or there are no test data.
        """
        _checks.choice("name", name, _PER_RUN)
        values = getattr(self, name)
        if values is None:
            raise ArgumentError(name, "needs histories with test data, got none")
        counts = values >= 0  # excludes nan and -1
        number = counts.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(counts, values, 0).sum(axis=1) / number
            square = np.where(counts, values - mean[:, np.newaxis], 0.0) ** 2
            spread = np.sqrt(square.sum(axis=1) / np.where(number > 1, number - 1, np.nan))
        return mean, spread

    def __repr__(self) -> str:
        runs = self.phase.shape[1]
        lines = [
            f"Trainability of {len(self.widths)} width{'s'[: len(self.widths) != 1]}, "
            f"{runs} run{'s'[: runs != 1]} each, {self.epochs[-1]} epochs"
        ]
        mean, spread = self.over_runs("min_train_loss")
        for i, (width, regime) in enumerate(zip(self.widths, self.regime, strict=True)):
            agree = (self.label[i] == regime).sum()
            lines.append(
                f"{width:g}: {regime} ({agree}/{runs}), least loss {mean[i]:.3g} ± {spread[i]:.2g}"
            )
        return "\n  ".join(lines)

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
        units = {name: {"units": "epochs"} for name in _PER_RUN if name.endswith("epoch")}
        units["phase"] = {"meaning": ", ".join(f"{p} {name}" for p, name in enumerate(PHASES))}
        variables: dict[str, Any] = {
            name: (["width", "run", "epoch"][: np.ndim(values)], values, units.get(name, {}))
            for name, values in vars(self).items()
            if isinstance(values, np.ndarray) and values.ndim > 1
        }
        variables["label"] = (["width", "run"], self.label)
        variables["regime"] = (["width"], self.regime)
        coordinates = {"width": ("width", self.widths), "epoch": ("epoch", self.epochs)}
        return dataset(variables, coordinates, attrs=dict(self.settings))


_PER_RUN = (
    *("min_train_loss", "min_test_loss"),
    *("min_train_epoch", "min_test_epoch", "divergence_epoch"),
)


def trainability(
    histories: History | Sequence[History],
    *,
    widths: ArrayLike | None = None,
    rule: TrainabilityRule | None = None,
) -> Trainability:
    """Best losses, divergence and phases of runs of each width.

    Parameters
    ----------
    histories : History or sequence of History
        One history for each width, of batch shape () or (n_runs,), the same for all; or one of
        batch shape (n_widths, n_runs), as for a scan of the learning rate.
    widths : array_like, shape (n_widths,), optional
        Parameter of the rows, increasing: units of the first hidden layer by default, or 0, 1, …
        for one history of several rows.
    rule : TrainabilityRule, optional
        Thresholds of the phases.

    Returns
    -------
    Trainability
        Losses, epochs and phases by width and run.

    Raises
    ------
    ArgumentError
        If histories do not agree with each other, or `widths` does not match them or increase.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Examples
    --------
    >>> net = pl.Network((2, 3, 1))
    >>> rates = pl.GradientDescent(lr=np.array([[0.1], [1e9]]))
    >>> system = pl.TrainingMap(net, *pl.datasets.quadratic(20), rates)
    >>> history = pl.train(system, net.init("normal", runs=3), 4)
    >>> pl.trainability(history, widths=[0.1, 1e9]).regime.tolist()
    ['low', 'untrainable']
    """
    rule = TrainabilityRule() if rule is None else rule
    if not isinstance(rule, TrainabilityRule):
        raise ArgumentTypeError("rule", f"must be a TrainabilityRule, got {_checks.describe(rule)}")
    rows, known = _rows(histories)
    if widths is not None:
        known = _checks.floats("widths", widths)
    if known.shape != (len(rows["train_loss"]),) or (np.diff(known) <= 0).any():
        raise ArgumentError(
            "widths",
            f"must be {len(rows['train_loss'])} numbers that increase, got {known.tolist()}",
        )
    epochs, guess = rows["epochs"], rows["guess"]
    train, test = rows["train_loss"], rows.get("test_loss")
    judged = np.where(rows["stopped"][..., np.newaxis], _held(train), train)
    first = rule.divergence(judged, guess)
    return Trainability(
        widths=known.copy(),
        epochs=epochs,
        train_loss=train,
        test_loss=test,
        deviation=rows["deviation"],
        min_train_loss=_least(train),
        min_test_loss=None if test is None else _least(test),
        min_train_epoch=_when(train, epochs),
        min_test_epoch=None if test is None else _when(test, epochs),
        divergence_epoch=np.where(first < 0, -1, epochs[first]),
        phase=rule.phases(judged, guess),
        settings={
            "guess_loss": (guess[:, 0] if rule.guess is None else guess[:, 0] * 0 + rule.guess),
            **{f"rule_{k}": v for k, v in asdict(rule).items() if v is not None},
        },
    )


def _rows(histories: History | Sequence[History]) -> tuple[dict[str, Any], Floats]:
    """Arrays (n_widths, n_runs, n_records) of all histories, and the parameter of the rows."""
    given = [histories] if isinstance(histories, History) else histories
    if not isinstance(given, Sequence) or not given:
        raise ArgumentTypeError(
            "histories", f"must be one History or several, got {_checks.describe(given)}"
        )
    for i, history in enumerate(given):
        if not isinstance(history, History):
            raise ArgumentTypeError(
                f"histories[{i}]", f"must be a History, got {_checks.describe(history)}"
            )
    first = given[0]
    depth = first.status.ndim
    if depth > (2 if len(given) == 1 else 1) or first.status.size == 0:
        raise ArgumentError(
            "histories",
            "must have batch shape () or (n_runs,), or be one of (n_widths, n_runs), "
            f"got {first.status.shape}",
        )
    for i, history in enumerate(given):
        for what, one, other in (
            ("batch shape", history.status.shape, first.status.shape),
            ("epochs", history.epochs.tolist(), first.epochs.tolist()),
            ("test data", history.test_loss is not None, first.test_loss is not None),
        ):
            if one != other:
                raise ArgumentError(
                    f"histories[{i}]",
                    f"must have the {what} of histories[0], {_short(other)}, got {_short(one)}",
                )
    names = ["train_loss"] + ["test_loss"] * (first.test_loss is not None)

    def rows(values: list[Any], inner: int) -> Any:
        """(n_widths, n_runs) and inner axes, of one history of two axes or several of fewer."""
        shape = values[0].shape[values[0].ndim - inner :]
        runs = first.status.shape[-1] if depth else 1
        return np.stack(values).reshape(-1, runs, *shape)

    stacked = {name: rows([getattr(h, name) for h in given], 1) for name in names}
    stacked["deviation"] = rows([h.deviation[..., 0, :] for h in given], 1)
    stacked["stopped"] = rows([h.status == Status.STOPPED for h in given], 0)
    stacked["epochs"] = first.epochs.copy()
    n_widths = len(stacked["train_loss"])
    guess = np.array([h.settings["guess_loss"] for h in given])[:, np.newaxis]
    stacked["guess"] = np.broadcast_to(guess, (n_widths, 1))
    if depth == 2:
        return stacked, np.arange(n_widths, dtype=float)
    return stacked, np.array([float(h.settings["layers"][1]) for h in given])


def _short(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 4:
        return f"[{value[0]}, {value[1]}, ..., {value[-1]}]"
    return value


def _least(loss: Floats) -> Floats:
    """The smallest finite of losses (..., n), or nan."""
    result: Floats = np.fmin.reduce(np.where(np.isfinite(loss), loss, np.nan), axis=-1)
    return result


def _when(loss: Floats, epochs: Integers) -> Integers:
    """Epoch of the first minimum of losses (..., n), or -1."""
    finite = np.isfinite(loss)
    at = np.where(finite, loss, np.inf).argmin(axis=-1)
    return np.where(finite.any(axis=-1), epochs[at], -1)


def _held(loss: Floats) -> Floats:
    """Losses (..., n) with the last finite value in place of nan."""
    last = np.maximum.accumulate(np.where(np.isfinite(loss), np.arange(loss.shape[-1]), 0), axis=-1)
    return np.take_along_axis(loss, last, axis=-1)
