"""Runs of a model of torch with tangent vectors, which stay on the model's device as rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pylyap._checks import Floats
from pylyap._native import core
from pylyap._tangent.scanned import Propagation

if TYPE_CHECKING:
    from pylyap._bridges.torch.maps import TorchMap

# Numbers of a frame from which starting threads pays: it takes about 0.1 ms, as orthonormalising
# 5,000 × 10 on one core does (AMD EPYC, November 2026).
_THREADED = 300_000
_FAR = 64.0  # binary orders of length by which a vector may leave 1 between orthonormalisations


class Frame:
    """Tangent vectors of one run, rows (k, n) in float64.

    Parameters
    ----------
    rows : Tensor, shape (k, n)
        The vectors; the frame owns them.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.exponents = np.zeros(len(rows))  # vector c is 2^exponents[c] rows[c]

    def rescale(self) -> None:
        """Keep the lengths of the vectors in range until they are orthonormalised."""
        lengths = self.rows.abs().amax(dim=1).cpu().numpy()  # squares may overflow
        orders = np.frexp(lengths)[1].astype(float)
        far = np.isfinite(lengths) & (lengths > 0) & (np.abs(orders) > _FAR)
        if far.any():
            orders = np.where(far, orders, 0.0)
            factors = torch.from_numpy(np.exp2(-orders)).to(self.rows.device)
            self.rows.mul_(factors[:, None])
            self.exponents += orders

    def orthonormalise(self) -> tuple[Floats, bool]:
        """ln diag R (k,), and whether a direction collapsed that has not been replaced."""
        if self.rows.device.type == "cpu":
            self.rows = self.rows.contiguous()
            workers = torch.get_num_threads() if self.rows.numel() >= _THREADED else 1
            norms, collapsed = core.orthonormalise_rows(self.rows.numpy(), workers)[0], False
        else:
            norms, collapsed = self._by_library()
        with np.errstate(divide="ignore", invalid="ignore"):
            growth: Floats = np.log(norms) + math.log(2.0) * self.exponents
        self.exponents[:] = 0.0
        return growth, collapsed

    def _by_library(self) -> tuple[Floats, bool]:
        """diag R by Householder reflections on the device, and whether a direction collapsed."""
        Q, R = torch.linalg.qr(self.rows.T)
        diagonal = torch.diagonal(R)
        self.rows = (Q * torch.where(diagonal < 0, -1.0, 1.0)).T.contiguous()
        norms: Floats = diagonal.abs().cpu().numpy()
        sizes = torch.linalg.vector_norm(R, dim=0).cpu().numpy()
        least = 4.0 * math.sqrt(self.rows.shape[1]) * np.finfo(float).eps
        return norms, bool((norms <= least * sizes).any())


def propagate(
    system: TorchMap,
    x: Floats,
    V: Floats,
    t: int,
    n_steps: int,
    qr_every: int,
    record_every: int,
    since_record: int,
) -> Propagation:
    """Runs (m, n) with frames (m, n, k), as `Propagating.propagate` of scanned.py documents."""
    m, k = len(x), V.shape[-1]
    frames = [Frame(system._rows(vectors)) for vectors in V]
    units = -(-n_steps // qr_every)
    growth, loss = np.full((m, units, k), np.nan), np.full((m, units), np.nan)
    n_finite, collapsed = np.zeros(m, np.int64), np.zeros(m, bool)
    states, alive = x, np.array(np.isfinite(x).all(axis=1))
    for s in range(n_steps):
        if not alive.any():
            break
        unit = s // qr_every
        if (since_record + s) % record_every == 0:
            loss[:, unit] = system.loss_batch(states)
        for r in np.flatnonzero(alive):
            frames[r].rows = system._pushed(states[r], frames[r].rows, t + s)
        states = system.step_batch(states, t + s)
        alive &= np.isfinite(states).all(axis=1)
        n_finite += alive
        due = (s + 1) % qr_every == 0 or s + 1 == n_steps
        for r in np.flatnonzero(alive):
            if not due:
                frames[r].rescale()
                continue
            growth[r, unit], lost = frames[r].orthonormalise()
            collapsed[r] |= lost
            alive[r] = bool((growth[r, unit] < np.inf).all())
    frame = np.full(V.shape, np.nan)
    for r in np.flatnonzero(alive):
        frame[r] = frames[r].rows.cpu().numpy().T
    return Propagation(
        np.where(alive[:, np.newaxis], states, np.nan), frame, growth, loss, n_finite, collapsed
    )
