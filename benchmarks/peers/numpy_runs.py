"""The workloads by NumPy, with formulas by hand."""

from __future__ import annotations

from functools import partial

import numpy as np

from .by_hand import ByHand, cholesky_qr2, ensemble_step, library_qr
from .workloads import DGEMM_SIZE, Ensemble, Floats, Product, Run, Training


def dgemm(work: Product) -> Run:
    a, b = np.random.default_rng(0).normal(size=(2, DGEMM_SIZE, DGEMM_SIZE))
    out = np.empty((DGEMM_SIZE, DGEMM_SIZE))

    def run() -> Floats:
        np.matmul(a, b, out=out)
        return np.zeros((1, 1, 1))

    return run


def numpy_training(work: Training, tangent: str, qr: str) -> Run:
    hand = ByHand(np, work, np.asarray)
    push = hand.tangent(tangent)
    orthonormalise = {
        "QR": partial(library_qr, np),
        "CholeskyQR2": partial(cholesky_qr2, np, lambda L, A: A @ np.linalg.inv(L).mT),
    }[qr]

    def run() -> Floats:
        w = work.w0[:, hand.order]
        Q = np.broadcast_to(work.frame[hand.order], (work.runs, *work.frame.shape))
        growth = np.empty((work.runs, work.steps, work.k))
        for t in range(work.steps):
            w, Q = push(w, Q)
            Q, growth[:, t] = orthonormalise(Q)
        return growth

    return run


def numpy_ensemble(work: Ensemble, gradient: str) -> Run:
    hand = ByHand(np, work, np.asarray)
    step, start = ensemble_step(work, hand), work.members()[..., hand.order]

    def run() -> Floats:
        w, out = start, np.empty((work.runs, work.steps, work.copies))
        for t in range(work.steps):
            w = step(w)
            out[:, t] = np.abs(w[:, 1:] - w[:, :1]).sum(-1)
        return out

    return run
