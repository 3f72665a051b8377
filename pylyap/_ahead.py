"""Functions of a map whose steps and tangent vectors are computed for many steps in one call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from pylyap._checks import Floats


class Carried(NamedTuple):
    """Some steps of a run with its vectors, the result of ``carry``.

    Attributes
    ----------
    states : ndarray, shape (n_steps, n)
        States after each step, all of a state nan if an entry of it is not finite.
    before, pushed : ndarray, shape (n_steps, n, k)
        Vectors before each step, and times its Jacobian.
    """

    states: Floats
    before: Floats
    pushed: Floats


class Carrying(Protocol):
    """A map that makes steps of one run with vectors in one call."""

    @property
    def carried_rounding(self) -> float:
        """Relative rounding error of the vectors."""

    def steps_per_carry(self, k: int) -> int:
        """Number of steps of a call with k vectors, at most."""

    def carry(self, x: Floats, V: Floats, t: int, n_steps: int, *, qr_every: int) -> Carried:
        """Steps t ... t + n_steps − 1, with the vectors orthonormalised every `qr_every` steps."""


# Of the distance between the vectors of a call and those they are compared with, in units of their
# rounding error: two orthonormalisations of vectors whose lengths differ by a factor of 100 or so.
_APART = 1e3


class Ahead:
    """``step`` and ``tangent`` for one run after another, from calls of ``carry``.

    The core asks for J V with vectors V that it has orthonormalised itself. They are those of the
    call to rounding errors, as long as no direction is replaced; where they differ by more, the
    call is made anew from V. Fewer steps are made at once after each such call.

    Parameters
    ----------
    system : Carrying
        The map.
    stop : int
        Index of the step after the last that is needed.
    qr_every : int
        Steps between two orthonormalisations; a call begins with one.
    """

    def __init__(self, system: Carrying, stop: int, qr_every: int) -> None:
        self._system, self._stop, self._qr_every = system, stop, qr_every
        self._tolerance = _APART * system.carried_rounding
        self._ahead = _AT_FIRST
        self._first = self._length = 0
        self._x: Floats = np.empty((0, 0))  # states before each step, and after the last
        self._before = self._pushed = np.empty((0, 0, 0))

    def step(self, x: Floats, t: int) -> Floats:
        """State (n,) after step t, whose tangent has been asked for."""
        i = t - self._first
        assert self._has(x, i)
        after: Floats = self._x[i + 1]
        return after

    def tangent(self, x: Floats, V: Floats, t: int) -> Floats:
        """Vectors (n, k) after step t."""
        i = t - self._first
        if not (self._has(x, i) and self._near(V, i)):
            self._carry(x, V, t)
            i = 0
        pushed: Floats = self._pushed[i]
        return pushed

    def _has(self, x: Floats, i: int) -> bool:
        """Whether x is the state before step i of the last call."""
        return 0 <= i < self._length and np.array_equal(x, self._x[i])

    def _near(self, V: Floats, i: int) -> bool:
        return bool(np.abs(V - self._before[i]).max() <= self._tolerance * np.abs(V).max())

    def _carry(self, x: Floats, V: Floats, t: int) -> None:
        """Call the map, for as many steps as the last call turned out to be good for."""
        i = t - self._first
        if 0 < i < self._length:
            self._ahead = max(1, i // 2)
        elif 0 < i == self._length:
            self._ahead = 2 * i
        n_steps = min(self._ahead, self._system.steps_per_carry(V.shape[1]))
        if n_steps > self._qr_every:
            n_steps -= n_steps % self._qr_every
        n_steps = min(n_steps, self._stop - t)
        found = self._system.carry(x, V, t, n_steps, qr_every=self._qr_every)
        self._first, self._length = t, n_steps
        self._x = np.concatenate([x[np.newaxis], found.states])
        self._before, self._pushed = found.before, found.pushed


_AT_FIRST = 16  # steps of a first call
