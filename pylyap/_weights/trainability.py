"""Which widths can be trained: low, high, or trained and then lost."""

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
from pylyap._status import Status
from pylyap._weights.training import History

if TYPE_CHECKING:
    import xarray

Integers = NDArray[np.int64]

PHASES = ("low", "untrainable", "high")

_TIES = (1, 0, 2)  # of a width's runs: the first of these phases


@dataclass(frozen=True)
class TrainabilityRule:
    """How a run is labelled at each record of its training loss. The first that holds counts:

    1. **untrainable**: it has diverged. That is the first record from which on, to the last one,
       the loss stays above `factor` times the minimum before it and above the share `share` of the
       loss of guessing: what was learnt is lost for good, by a rise that is more than noise around
       a small minimum. It must have stayed there for `hold` records, or be a spike that happens to
       come last; but a run that left the finite numbers has diverged in any case.
    2. **low**: the loss has not yet come down to the share `share` of the loss of guessing.
    3. **high**: it has.

    The label of a run is that of its last record; a run that was stopped keeps its last loss. The
    loss of guessing is ln K for K classes and half the variance of the targets for squared errors
    (`History` knows it), or `guess`. Where the boundaries lie is our choice.
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
        """Records (...) at which losses (..., n_records) diverge, -1 for none, for losses of
        guessing that broadcast against (...)."""
        loss, known = self._checked(loss, guess)
        with np.errstate(over="ignore"):
            limit = np.maximum(self.factor * _least(loss), self.share * known)
        calm = loss <= limit[..., np.newaxis]  # nan is not
        n = loss.shape[-1]
        first = np.where(calm.any(axis=-1), n - np.argmax(calm[..., ::-1], axis=-1), 0)
        diverged = (first <= n - self.hold) | np.isnan(loss[..., -1])
        return np.where(diverged, first, -1)

    def phases(self, loss: Floats, guess: ArrayLike) -> NDArray[np.int8]:
        """Index into `PHASES` at each record of losses (..., n_records)."""
        loss, known = self._checked(loss, guess)
        first = self.divergence(loss, guess)[..., np.newaxis]
        limit = self.share * known
        learnt = np.fmin.accumulate(loss, axis=-1) <= limit[..., np.newaxis]
        lost = (first >= 0) & (np.arange(loss.shape[-1]) >= first)
        return np.where(lost, 1, np.where(learnt, 2, 0)).astype(np.int8)

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
class Trainability:
    """What becomes of networks of several widths.

    Attributes
    ----------
    widths : (n_widths,)
        Units of a hidden layer, or what else tells the rows apart.
    epochs : (n_records,)
        Epochs done at each record.
    train_loss, test_loss, deviation : (n_widths, n_runs, n_records)
        Of the histories; `deviation` is the rms of all weights, `test_loss` None without test data.
    min_train_loss, min_test_loss : (n_widths, n_runs)
        The least of each; nan for a run without a finite one.
    min_train_epoch, min_test_epoch : (n_widths, n_runs)
        When that was, the first time; -1 for never.
    divergence_epoch : (n_widths, n_runs)
        When the run diverged; -1 for never.
    phase : (n_widths, n_runs, n_records)
        Index into `PHASES` at each record; see `TrainabilityRule`.
    settings
        What was asked for; `guess_loss` of each width.
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
        """(n_widths, n_runs) phase of each run at the end."""
        labels: NDArray[np.str_] = np.array(PHASES)[self.phase[..., -1]]
        return labels

    @property
    def regime(self) -> NDArray[np.str_]:
        """(n_widths,) label that most runs have; of ties the first of untrainable, low, high."""
        counts = np.stack([(self.phase[..., -1] == p).sum(axis=1) for p in _TIES])
        labels: NDArray[np.str_] = np.array(PHASES)[np.array(_TIES)[counts.argmax(axis=0)]]
        return labels

    @property
    def share(self) -> dict[str, Floats]:
        """Phase diagram: share of the runs in each phase, (n_widths, n_records) under its name."""
        return {name: (self.phase == p).mean(axis=1) for p, name in enumerate(PHASES)}

    def over_runs(self, name: str) -> tuple[Floats, Floats]:
        """Mean and standard deviation (n_widths,) over the runs of ``"min_train_loss"``,
        ``"min_test_loss"``, ``"min_train_epoch"``, ``"min_test_epoch"`` or ``"divergence_epoch"``.

        Runs that have none are left out. The deviation is that of a sample, n − 1 in the
        denominator: nan for one run.
        """
        _checks.choice("name", name, _PER_RUN)
        values = getattr(self, name)
        if values is None:
            raise ArgumentError(name, "needs histories with test data, got none")
        counts = values >= 0  # neither nan nor -1
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
        """An xarray Dataset with labelled dimensions; settings in attributes.

        Raises ImportError, with the command that helps, if xarray is not installed.
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
    """When runs of each width are at their best, whether and when they diverge, and in which phase.

    Parameters
    ----------
    histories
        One `History` for each width, of batch shape () or (n_runs,), the same for all; or one of
        batch shape (n_widths, n_runs), as for a scan of the learning rate.
    widths : (n_widths,) array
        What tells them apart, increasing: units of the first hidden layer by default, or 0, 1, …
        for one history of several rows.
    rule
        Thresholds of the phases.

    Raises
    ------
    ValueError, TypeError
        If histories do not fit each other, or `widths` does not fit them or increase.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).
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


def _rows(histories: Any) -> tuple[dict[str, Any], Floats]:
    """Arrays (n_widths, n_runs, n_records) of all histories, and what tells rows apart."""
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
    """The least finite of losses (..., n), or nan."""
    result: Floats = np.fmin.reduce(np.where(np.isfinite(loss), loss, np.nan), axis=-1)
    return result


def _when(loss: Floats, epochs: Integers) -> Integers:
    finite = np.isfinite(loss)
    at = np.where(finite, loss, np.inf).argmin(axis=-1)
    return np.where(finite.any(axis=-1), epochs[at], -1)


def _held(loss: Floats) -> Floats:
    """Losses (..., n) that keep their last finite value where they are nan."""
    last = np.maximum.accumulate(np.where(np.isfinite(loss), np.arange(loss.shape[-1]), 0), axis=-1)
    return np.take_along_axis(loss, last, axis=-1)
