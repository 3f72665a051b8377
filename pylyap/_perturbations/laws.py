"""Fits of growth laws to the logarithm of distances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pylyap._checks import Floats

_LARGEST = math.log(np.finfo(float).max)

Fit = Callable[[Floats, Floats], tuple[tuple[float, ...], float]]

# Each fit takes times and ln distances and returns the parameters and the sum of squared residuals.
# Laws are fitted in the time since the first record, so that fits do not depend on the origin of t.
# A and B at t = 0 may overflow or underflow; they are then infinite or 0.


def _exponential(t: Floats, y: Floats) -> tuple[tuple[float, ...], float]:
    elapsed = t - t[0]
    line = _line(elapsed / elapsed[-1], y)
    rate = line[0] / float(elapsed[-1])
    return (_exp(line[1] - rate * float(t[0])), rate), line[2]


def _line(t: Floats, y: Floats) -> tuple[float, float, float]:
    """Slope, intercept and sum of squared residuals of the line through y."""
    late, height = t - t.mean(), float(y.mean())
    slope = float((late * (y - height)).sum() / (late**2).sum())
    residual = y - height - slope * late
    return slope, height - slope * float(t.mean()), float((residual**2).sum())


def _exp(x: float) -> float:
    """e^x; infinite where it overflows."""
    return math.exp(x) if x < _LARGEST else math.inf


def _straight(t: Floats, y: Floats) -> tuple[tuple[float, ...], float]:
    return _rising(t - t[0], float(t[0]), y)


def _square_root(t: Floats, y: Floats) -> tuple[tuple[float, ...], float]:
    root = np.sqrt(t)
    return _rising((t - t[0]) / np.maximum(root + root[0], root[-1] * 1e-300), float(root[0]), y)


def _rising(elapsed: Floats, start: float, y: Floats) -> tuple[tuple[float, ...], float]:
    """A + B (start + elapsed), with B and the first distance >= 0, fitted in the logarithm."""
    from scipy.optimize import least_squares

    span, scale = float(elapsed[-1]), float(y.max())

    def residual(p: Floats) -> Floats:
        result: Floats = np.log(np.maximum(p[0] + p[1] * elapsed / span, 1e-300)) + scale - y
        return result

    first = math.exp(float(y[0]) - scale)
    found = least_squares(residual, [first, max(1.0 - first, 1e-3)], bounds=(0.0, np.inf))
    A, B = (float(p) * math.exp(scale) for p in found.x)
    return (A - B * (start / span), B / span), float(2.0 * found.cost)


def _bounded(t: Floats, y: Floats) -> tuple[tuple[float, ...], float]:
    """A − B exp(−t/τ), 0 <= B exp(−t/τ) <= A."""
    from scipy.optimize import least_squares

    elapsed = t - t[0]
    scale, span = float(np.median(y[-max(len(y) // 4, 1) :])), float(elapsed[-1])

    def value(p: Floats) -> Floats:
        # A = e^p0, B exp(−t/τ) = A s at the first record with s in (0, 1), tau = span e^p2
        part = p[1] * np.exp(-elapsed / span * math.exp(-float(p[2])))
        result: Floats = p[0] + np.log(np.maximum(1.0 - part, 1e-300))
        return result

    best: Any = None
    first = min(max(1.0 - _exp(float(y[0]) - scale), 1e-3), 1.0 - 1e-9)
    for tau in (-4.0, -2.0, -0.5):
        found = least_squares(
            lambda p: value(p) + scale - y,
            [0.0, first, tau],
            bounds=([-50.0, 0.0, -12.0], [50.0, 1.0, 0.0]),
        )
        if best is None or found.cost < best.cost:
            best = found
    log_a, tau = scale + float(best.x[0]), span * math.exp(float(best.x[2]))
    log_b = log_a + math.log(max(float(best.x[1]), 1e-300)) + float(t[0]) / tau
    return (_exp(log_a), _exp(log_b), tau), float(2.0 * best.cost)


LAWS: dict[str, Fit] = {
    "exponential": _exponential,
    "linear": _straight,
    "square root": _square_root,
    "bounded": _bounded,
}


def aicc(residual: float, n: int, p: int) -> float:
    """Akaike's criterion, corrected for few records; the variance counts as a parameter."""
    k = p + 1
    fitted = n * math.log(max(residual / n, 1e-30)) + 2 * k
    return fitted + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf
