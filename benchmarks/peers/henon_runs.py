"""The Hénon map by pylyap, lyapynov, clvlib and pynamicalsys."""

from __future__ import annotations

from typing import Any

import numpy as np

from .workloads import Floats, Henon, Run


def henon_step(x: Floats) -> Floats:
    return np.array([1.0 - 1.4 * x[0] * x[0] + x[1], 0.3 * x[0]])


def henon_jacobian(x: Floats) -> Floats:
    return np.array([[-2.8 * x[0], 1.0], [0.3, 0.0]])


def compiled(callables: str) -> tuple[Any, Any]:
    if callables.startswith("numba"):
        from numba import njit

        return njit(henon_step), njit(henon_jacobian)
    return henon_step, henon_jacobian


def increments(means: Floats) -> Floats:
    """Growth at each step (..., steps, k) from its running means."""
    count = np.arange(1, means.shape[-2] + 1)[:, np.newaxis]
    return np.diff(means * count, axis=-2, prepend=0.0)


def pylyap_henon(callables: str) -> Any:
    import pylyap as pl

    if callables.startswith("numba tuple"):
        return pl.DiscreteMap(
            lambda x: (1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]),
            lambda x: ((-2.8 * x[0], 1.0), (0.3, 0.0)),
            2,
            compiled=True,
        )
    return pl.DiscreteMap(henon_step, henon_jacobian, 2, compiled=callables.startswith("numba"))


def pylyap_henon_spectrum(work: Henon, callables: str) -> Run:
    import pylyap as pl

    system = pylyap_henon(callables)
    return lambda: pl.lyapunov_spectrum(system, work.x0, work.steps).growth


def pylyap_henon_vectors(work: Henon, callables: str) -> Run:
    import pylyap as pl

    system = pylyap_henon(callables)
    steps, margin = work.steps, work.margin

    def run() -> Floats:
        c = pl.covariant_lyapunov_vectors(system, work.x0, steps, 2, margin, margin)
        return c.vectors  # type: ignore[return-value]

    return run


def lyapynov_henon(x: Floats, callables: str) -> Any:
    import lyapynov

    step, jacobian = compiled(callables)
    return lyapynov.DiscreteDS(x.copy(), 0, lambda x, t: step(x), lambda x, t: jacobian(x))


def lyapynov_henon_spectrum(work: Henon, callables: str) -> Run:
    import lyapynov

    def one(x: Floats) -> Floats:
        means: Floats = lyapynov.LCE(lyapynov_henon(x, callables), 2, 0, work.steps, True)[1]
        return means

    return lambda: increments(np.stack([one(x) for x in work.x0]))


def lyapynov_henon_vectors(work: Henon, callables: str) -> Run:
    import lyapynov

    def one(x: Floats) -> Floats:
        system = lyapynov_henon(x, callables)
        return np.array(lyapynov.CLV(system, 2, 0, work.margin, work.steps, work.margin, False))

    return lambda: np.stack([one(x) for x in work.x0])


def clvlib_henon_vectors(work: Henon, callables: str) -> Run:
    from clvlib.numpy import lyap_analysis_from_ic

    step, jacobian = compiled(callables)
    times = np.arange(work.margin + work.steps + work.margin + 1.0)  # it has no transient

    def one(x: Floats) -> Floats:
        found = lyap_analysis_from_ic(
            lambda t, x: step(x), lambda t, x: jacobian(x), x, times, stepper="discrete"
        )
        vectors: Floats = found[4][work.margin : work.margin + work.steps]
        return vectors

    return lambda: np.stack([one(x) for x in work.x0])


def pynamicalsys_henon() -> Any:
    from numba import njit
    from pynamicalsys import DiscreteDynamicalSystem

    step, jacobian = compiled("numba")
    return DiscreteDynamicalSystem(
        mapping=njit(lambda u, parameters: step(u)),
        jacobian=njit(lambda u, parameters, *args: jacobian(u)),
        system_dimension=2,
        number_of_parameters=0,
    )


def pynamicalsys_henon_spectrum(work: Henon, **_: str) -> Run:
    system = pynamicalsys_henon()

    def one(x: Floats) -> Floats:
        # It takes the tangent map after each step, not before: start from the preimage.
        u = x[1] / 0.3
        before = np.array([u, x[0] - 1.0 + 1.4 * u * u])
        means: Floats = system.lyapunov(before, work.steps, method="QR", return_history=True)
        return means

    return lambda: increments(np.stack([one(x) for x in work.x0]))


def pynamicalsys_henon_vectors(work: Henon, **_: str) -> Run:
    system = pynamicalsys_henon()

    def one(x: Floats) -> Floats:
        vectors: Floats = system.CLV(x, work.steps, warmup_time=work.margin, tail_time=work.margin)[
            0
        ]
        return vectors

    return lambda: np.stack([one(x) for x in work.x0])
