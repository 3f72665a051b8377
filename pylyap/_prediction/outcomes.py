"""Which runs end with a high loss."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError

Booleans = NDArray[np.bool_]


def loss_threshold(losses: Floats, threshold: float | None) -> tuple[float, str]:
    """The threshold between low and high final losses, and how it was found.

    Without a given one the logarithms of the losses are split into two clusters of least squared
    distance; the threshold is half-way between the clusters.
    """
    if threshold is not None:
        return _checks.real("threshold", threshold), "given"
    finite = np.sort(losses[np.isfinite(losses)])
    if finite.size and finite[0] < 0:
        raise ArgumentError("threshold", f"must be given for negative losses, got {finite[0]:.3g}")
    if finite.size < 2 or finite[0] == finite[-1]:
        raise ArgumentError(
            "final_loss",
            f"must have two different finite values to be split, got {finite.size} runs "
            f"with {'one value' if finite.size else 'none'}: give threshold=",
        )
    positive = finite[finite > 0]
    logs = np.log(np.maximum(finite, positive[0] * 1e-3))  # a zero is low, not infinitely low
    # Squared distances of all splits, from running sums.
    count = np.arange(1, len(logs))
    sums, total = np.cumsum(logs)[:-1], logs.sum()
    between = (sums - count * total / len(logs)) ** 2 / (count * (len(logs) - count))
    between[logs[1:] == logs[:-1]] = -1.0  # equal losses are not separated
    i = int(np.argmax(between))
    explained = between[i] * len(logs) / max(((logs - logs.mean()) ** 2).sum(), 1e-300)
    return float(np.exp(0.5 * (logs[i] + logs[i + 1]))), (
        f"two clusters of log loss, which explain {100 * explained:.0f} % of its variance"
    )


def require_both(ends_high: Booleans, cut: float, how: str) -> None:
    """Refuse runs that all end on one side of the threshold."""
    for side, count in (("high", int(ends_high.sum())), ("low", int((~ends_high).sum()))):
        if count == 0:
            raise ArgumentError(
                "final_loss",
                f"must have runs on both sides of the threshold {cut:.3g} ({how}), "
                f"got none that ends {side}: skill is undefined",
            )


def require_finite_in_both(finite: Booleans, ends_high: Booleans) -> None:
    """Refuse an indicator that is finite in no run that ends high, or in none that ends low."""
    if not finite.any():
        raise ArgumentError("indicator", f"must have finite values, got none in {finite.size} runs")
    for side, chosen in (("high", ends_high), ("low", ~ends_high)):
        if not (finite & chosen).any():
            raise ArgumentError(
                "indicator",
                f"must be finite in runs of both kinds, got {int(finite.sum())} finite "
                f"values and none in a run that ends {side}: skill is undefined",
            )
