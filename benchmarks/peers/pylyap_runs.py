"""The workloads by pylyap."""

from __future__ import annotations

import numpy as np

from .workloads import Ensemble, Floats, Propagator, Run, Sgd, Sharpness, Training


def pylyap_training(work: Training) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    rule = pl.GradientDescent(lr=work.lr, momentum=work.momentum)
    system = pl.TrainingMap(net, work.X, work.y, rule)
    return lambda: (
        pl.lyapunov_spectrum(system, work.w0, work.steps, k=work.k, frame=work.frame).growth
    )


def pylyap_ensemble(work: Ensemble) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    system = pl.TrainingMap(net, work.X, work.y, pl.GradientDescent(lr=work.lr))

    def run() -> Floats:
        e = pl.perturbation_ensemble(
            system, work.w0, work.eps, work.copies, work.steps, distribution=work.directions
        )
        return e.distances[..., 1:].swapaxes(-1, -2)

    return run


def pylyap_sgd(work: Sgd) -> Run:
    system = work.system()
    return lambda: system.trajectory(work.w0, work.steps, every=work.steps)[np.newaxis, -1:]


def pylyap_propagator(work: Propagator) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    system = pl.TrainingMap(net, work.X, work.y, pl.GradientDescent(lr=work.lr))

    def run() -> Floats:
        found = pl.training_jacobian(system, work.w0, work.steps, work.k)
        return found.log_singular_values[:, np.newaxis]

    return run


def pylyap_sharpness(work: Sharpness) -> Run:
    import pylyap as pl

    net = pl.Network(work.layers, activation=work.activation, loss=work.loss)
    system = pl.TrainingMap(net, work.X, work.y, pl.GradientDescent(lr=work.lr))

    def run() -> Floats:
        # A tolerance that is never met: all products are made.
        found = pl.sharpness(system, work.w0, tol=1e-300, max_products=work.steps)
        return found.value[:, np.newaxis, np.newaxis]

    return run
