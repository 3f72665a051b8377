"""Benettin's method over the runs of a plan: all steps, until a tolerance, or aligned frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pylyap import _checks
from pylyap._checks import Floats, Seed
from pylyap._map_runs import MapRuns
from pylyap._native import core
from pylyap._parallel import ProgressBar, progress_bar
from pylyap._statistics import MIN_RECORDS, batch_means
from pylyap._status import Status
from pylyap._tangent import aligned_frame
from pylyap._tangent.frames import Plan, in_pieces, kernels_of, random_frames
from pylyap._tangent.lockstep import in_lockstep
from pylyap._tangent.scanned import scanned
from pylyap.maps import TrainingMap


def benettin(
    plan: Plan,
    qr_every: int,
    record_every: int,
    *,
    segment: int = 0,
    threads: int | None,
    progress: bool | ProgressBar,
) -> core.SpectrumRuns:
    """All runs, recorded every `record_every` steps, R factors multiplied over `segment` steps."""
    if not isinstance(progress, ProgressBar):
        _checks.flag("progress", progress)
    if threads is not None:
        _checks.integer("threads", threads, least=1)
    runs = _allocate(plan, qr_every, record_every, segment)
    if segment == 0 and hasattr(plan.system, "propagate"):
        lost = scanned(plan, runs, qr_every, record_every, threads=threads, progress=progress)
        if lost.size:
            some = plan._replace(
                states=plan.states[lost], frame=plan.start_frames()[lost], chosen=lost
            )
            part = _allocate(some, qr_every, record_every)
            _step_by_step(
                some, part, qr_every, record_every, threads=threads, progress=False, losses=True
            )
            for name in _ARRAYS:
                getattr(runs, name)[lost] = getattr(part, name)
        return runs
    _step_by_step(
        plan, runs, qr_every, record_every, threads=threads, progress=progress, losses=segment == 0
    )
    return runs


_ARRAYS = ("growth", "loss", "state", "frame", "status", "n_done", "transient_growth")


def _step_by_step(
    plan: Plan,
    runs: core.SpectrumRuns,
    qr_every: int,
    record_every: int,
    *,
    threads: int | None,
    progress: bool | ProgressBar,
    losses: bool,
) -> None:
    steps = plan.n_transient + plan.n_steps
    if not isinstance(plan.system, TrainingMap):
        maps = MapRuns(plan.system)
        if maps.in_lockstep:
            in_lockstep(
                plan, maps, runs, record_every, threads=threads, progress=progress, losses=losses
            )
            return
    kernels = kernels_of(plan, steps, qr_every, 1.0 / qr_every, threads, losses=losses)
    kernels.over_runs(
        lambda task: kernels.spectrum(runs, task), plan.runs, steps,
        progress=progress, label="spectrum",
    )  # fmt: skip


def _allocate(plan: Plan, qr_every: int, record_every: int, segment: int = 0) -> core.SpectrumRuns:
    records = plan.n_steps // record_every
    segments = plan.n_steps // segment if segment else 0
    _checks.memory(
        f"the history of {records} records (n_steps={plan.n_steps}) for {plan.runs} runs",
        8.0 * plan.runs * (records * (plan.k + 1) + segments * plan.k * (plan.k + 1)),
        "record less with record_every= (or take longer windows), or take fewer runs",
    )
    return core.SpectrumRuns(
        plan.states,
        plan.start_frames(),
        start=plan.start,
        n_transient=plan.n_transient,
        n_steps=plan.n_steps,
        qr_every=qr_every,
        record_every=record_every,
        segment=segment,
    )


def benettin_until(
    plan: Plan,
    tol: float,
    qr_every: int,
    record_every: int,
    *,
    threads: int | None,
    progress: bool | ProgressBar,
) -> core.SpectrumRuns:
    """As `benettin`, but a run stops once the standard errors of its exponents are below `tol`.

    Steps are made in pieces, each for the runs that have not stopped.
    """
    records = plan.n_steps // record_every
    whole = _allocate(plan, qr_every, record_every)
    for array in (whole.growth, whole.loss):
        in_pieces(array, np.nan)
    active, done, size = np.arange(plan.runs), 0, max(2 * MIN_RECORDS, records // 64)
    total = plan.runs * (plan.n_transient + plan.n_steps)
    with progress_bar(progress, total, "spectrum") as bar:
        while active.size:
            size = min(size, records - done)
            piece = _continued(plan, active, whole, done * record_every, size * record_every)
            part = benettin(piece, qr_every, record_every, threads=threads, progress=bar)
            if done == 0:
                whole.transient_growth[:] = part.transient_growth
            done, before = done + size, done
            whole.growth[active, before:done] = part.growth
            whole.loss[active, before : done + 1] = part.loss
            whole.state[active], whole.frame[active] = part.state, part.frame
            whole.status[active] = part.status
            whole.n_done[active] = before * record_every + part.n_done
            alive = part.status == Status.FINISHED
            if done == records:
                break
            rates = growth_rates(whole.growth[active, :done], done * record_every)
            destroyed = np.isneginf(rates).any(axis=-2)
            below = ((batch_means(rates).stderr < tol) | destroyed).all(axis=-1) & alive
            whole.status[active[below]] = Status.STOPPED
            active, size = active[alive & ~below], max(1, done // 4)
    return whole


def _continued(
    plan: Plan, runs: NDArray[np.int64], whole: core.SpectrumRuns, done: int, n_steps: int
) -> Plan:
    """The plan of the next steps of these runs, after `done` steps."""
    piece = plan._replace(
        states=np.ascontiguousarray((whole.state if done else plan.states)[runs]),
        frame=np.ascontiguousarray(whole.frame[runs]),
        n_steps=n_steps,
        chosen=runs,
    )
    if done == 0:
        return piece
    return piece._replace(start=plan.start + plan.n_transient + done, n_transient=0)


def growth_rates(growth: Floats, n_steps: int) -> Floats:
    """Growth per step in each record."""
    rates: Floats = growth / (n_steps / growth.shape[-2])
    return rates


def align(plan: Plan, qr_every: int, seed: Seed, threads: int | None) -> tuple[Plan, Floats, int]:
    """Replace the start frames by the leading right singular vectors of the first steps.

    Returns the plan with these frames, ln of their pivots (runs, k) against the frames after these
    steps, and the number of steps. A run that diverges within them keeps its start frame.
    """
    n, k = plan.n, plan.k
    _checks.memory(
        f"all {n} vectors of length {n}, which frame='aligned' needs",
        40.0 * n**2,
        "take a transient instead",
    )
    factors = max(1, (plan.n_transient + plan.n_steps) // qr_every)
    factors = min(factors, aligned_frame.most_steps(n))
    steps = factors * qr_every
    used = np.zeros(plan.runs, bool)

    def factors_of(these: slice) -> tuple[Floats, Floats, Floats, Floats]:
        chosen = np.arange(plan.runs)[these]
        piece = plan._replace(
            states=np.ascontiguousarray(plan.states[these]),
            k=n,
            frame=random_frames(seed, len(chosen), n, n),
            n_steps=steps,
            n_transient=0,
            chosen=chosen,
        )
        runs = benettin(piece, qr_every, steps, segment=qr_every, threads=threads, progress=False)
        used[these] = runs.status != Status.DIVERGED
        assert runs.products is not None
        assert runs.exponents is not None
        assert piece.frame is not None
        return piece.frame, runs.frame, runs.products, runs.exponents

    found, overlap = aligned_frame.aligned(factors_of, plan.runs, n, k, factors)
    frame = plan.start_frames().copy()
    frame[used] = found[used]
    overlap[~used] = np.nan
    return plan._replace(frame=frame), overlap, steps
