"""Convergence of runs and how fast it happens, from their losses.

The measure of Sohl-Dickstein (arXiv 2402.06184), as its published notebook computes it: with the
losses l_t before each of T steps,

    v_t = min(l_t / l_0, 1e6), 1e6 where l_t is not finite,
    converged if the mean of the last 20 v_t is below 1,
    score = −Σ v_t if converged, Σ 1 / v_t otherwise.

The notebook replaces losses that are not finite before it divides by l_0, so that a run with
l_0 > 1e6 that diverges would have converged. Sums are taken in the order of time, so that they do
not depend on the pieces in which losses come.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylyap._checks import Floats

CAP = 1e6  # of a loss that is not finite, and of one relative to the first
LAST = 20  # losses whose mean decides

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


class Scores:
    """Sums over the losses of runs, which are added in pieces.

    Parameters
    ----------
    runs, n_steps : int
        Number of runs, and of losses of each.
    escape : float or None
        Relative loss above which a run counts as diverged from there on.
    with_loss : bool
        Whether losses are losses; otherwise they are sizes of states, of which only those that are
        not finite or above `escape` count, and all others are taken as 1.

    Attributes
    ----------
    used : ndarray of int, shape (runs,)
        Number of losses of each run up to the first of those that are not finite or above `escape`
        to the end.
    """

    def __init__(self, runs: int, n_steps: int, escape: float | None, with_loss: bool) -> None:
        self._n_steps, self._escape, self._with_loss = n_steps, escape, with_loss
        self._first = np.ones(runs)
        self._sum, self._inverse, self._late = (np.zeros(runs) for _ in range(3))
        self._gone = np.zeros(runs, bool)
        self._fine = np.zeros(runs, np.int64)  # losses up to the last that is fine

    @property
    def used(self) -> Integers:
        return np.minimum(self._fine + 1, self._n_steps)

    def add(self, rows: Integers, losses: Floats, start: int) -> Booleans:
        """Add the losses (len(rows), p) of steps start, start + 1, ...; return which escaped.

        What follows does not count for a run that has escaped. One whose loss is not finite may
        return: its state decides.
        """
        finite = np.isfinite(losses)
        relative = self._relative(rows, losses, finite, start)
        sizes = relative if self._with_loss else np.where(finite, losses, np.inf)
        over = np.zeros(losses.shape, bool) if self._escape is None else ~(sizes <= self._escape)
        over |= ~finite & (not self._with_loss)
        gone = self._gone[rows, np.newaxis] | np.logical_or.accumulate(over, axis=1)
        relative[gone] = CAP
        self._gone[rows] = gone[:, -1]
        fine = finite & ~gone
        last = np.where(fine.any(axis=1), start + fine.shape[1] - fine[:, ::-1].argmax(axis=1), 0)
        self._fine[rows] = np.maximum(self._fine[rows], last)
        self._accumulate(rows, relative, start)
        return gone[:, -1]

    def _relative(self, rows: Integers, losses: Floats, finite: Booleans, start: int) -> Floats:
        """v_t of losses; 1 for sizes of states."""
        if not self._with_loss:
            return np.ones(losses.shape)
        if start == 0:
            self._first[rows] = np.where(finite[:, 0], losses[:, 0], 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            relative = losses / self._first[rows, np.newaxis]
        relative[losses == 0.0] = 0.0
        return np.where(finite, np.minimum(relative, CAP), CAP)

    def _accumulate(self, rows: Integers, relative: Floats, start: int) -> None:
        total, inverse, late = (a[rows] for a in (self._sum, self._inverse, self._late))
        first_late = self._n_steps - min(LAST, self._n_steps)
        with np.errstate(divide="ignore"):
            for j in range(relative.shape[1]):
                v = relative[:, j]
                total += v
                inverse += 1.0 / v
                if start + j >= first_late:
                    late += v
        self._sum[rows], self._inverse[rows], self._late[rows] = total, inverse, late

    def finish(self, rows: Integers, patterns: Floats, starts: Integers) -> None:
        """Add the losses of the remaining steps of decided runs, which repeat `patterns`.

        Parameters
        ----------
        rows : ndarray of int, shape (m,)
            The runs.
        patterns : ndarray, shape (m, p)
            Losses of the steps start, start + 1, ... of each, repeated as often as needed.
        starts : ndarray of int, shape (m,)
            Steps already added.
        """
        order = np.argsort(starts, kind="stable")
        rows, patterns, starts = rows[order], patterns[order], starts[order]
        p = patterns.shape[1]
        for t in range(int(starts[0]) if len(starts) else self._n_steps, self._n_steps):
            m = int(np.searchsorted(starts, t, side="right"))
            losses = patterns[np.arange(m), (t - starts[:m]) % p]
            self.add(rows[:m], losses[:, np.newaxis], t)

    def result(self) -> tuple[Booleans, Floats]:
        """Whether each run converged, and its score."""
        converged: Booleans = ~self._gone
        if self._with_loss:
            converged = self._late / min(LAST, self._n_steps) < 1.0
        return converged, np.where(converged, -self._sum, self._inverse)
