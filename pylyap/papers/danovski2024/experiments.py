"""Experiments of the study, at the published sizes by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pylyap._perturbations.comparison import GrowthComparison, compare_growth
from pylyap._perturbations.ensembles import perturbation_ensemble
from pylyap._perturbations.series import autocorrelation, expansion_rates
from pylyap._tangent.exponents import lyapunov_spectrum
from pylyap._weights.travel import knock_out, travel
from pylyap.maps import DiscreteMap
from pylyap.papers.danovski2024.results import ChaoticSeries, LowRate, Perturbed, Trained
from pylyap.papers.danovski2024.task import (
    EDGE_SIZES,
    N_TRAIN,
    PUBLISHED,
    SIZES,
    Floats,
    Integers,
    Task,
)
from pylyap.regimes import learning_rate_scan


def low_rate(
    task: Task = PUBLISHED,
    *,
    runs: int = 10,
    copies: int = 20,
    n_steps: int = 5000,
    eps: Sequence[float] = SIZES,
    record_every: int = 10,
) -> LowRate:
    """Perturb convergent training (learning rate 0.01) before the first step.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs, copies : int
        Number of runs, default 10, and of perturbed copies per run and size, default 20.
    n_steps : int, default 5000
        Number of steps.
    eps : sequence of float
        Perturbation sizes, default 1e-15 to 1e-2.
    record_every : int, default 10
        Number of steps between records; path lengths include every step.

    Returns
    -------
    LowRate
        Distances, displacements and path lengths.
    """
    system, start = task.system(0.01), task.start(runs)
    shape = (runs, task.network.n_params, copies)
    unit = np.random.default_rng(task.seed).uniform(-1.0, 1.0, shape)
    found = _copies(
        task, 0.01, runs, copies, n_steps, eps, record_every, distribution=unit, states=True
    )
    last, chosen = found.ensemble.states, task.weights
    assert last is not None
    apart = found.eps[:, np.newaxis, np.newaxis] * unit.swapaxes(1, 2)[:, np.newaxis]
    first = (start[:, np.newaxis, np.newaxis] + apart)[..., chosen]
    moved = np.abs(last[..., chosen] - first)
    final = system.trajectory(start, n_steps, every=n_steps, threads=task.threads)[:, -1]
    return LowRate(
        task=task,
        lr=0.01,
        eps=found.eps,
        ensemble=found.ensemble,
        displacement=moved.sum(axis=-1) / np.abs(first).sum(axis=-1),
        travel=travel(system, start, n_steps, record_every, "weights", threads=task.threads),
        final=final,
        knock_out=knock_out(system, final),
    )


def long_run(
    task: Task = PUBLISHED,
    *,
    runs: int = 3,
    copies: int = 20,
    n_steps: int = 50_000,
    eps: float = 1e-8,
    record_every: int = 50,
) -> Perturbed:
    """Perturb convergent training (learning rate 0.01) and follow it for ten times as many steps.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs, copies : int
        Number of runs, default 3, and of perturbed copies per run, default 20.
    n_steps : int, default 50000
        Number of steps.
    eps : float, default 1e-8
        Perturbation size.
    record_every : int, default 50
        Number of steps between records.

    Returns
    -------
    Perturbed
        Distances.
    """
    return _copies(task, 0.01, runs, copies, n_steps, [eps], record_every)


def after_learning(
    task: Task = PUBLISHED,
    *,
    runs: int = 10,
    copies: int = 20,
    start: int = 4000,
    n_steps: int = 1000,
    eps: Sequence[float] = SIZES,
    record_every: int = 10,
) -> Perturbed:
    """Perturb convergent training (learning rate 0.01) after it has converged.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs, copies : int
        Number of runs, default 10, and of perturbed copies per run and size, default 20.
    start : int, default 4000
        Step of the perturbation.
    n_steps : int, default 1000
        Number of steps after it.
    eps : sequence of float
        Perturbation sizes, default 1e-15 to 1e-2.
    record_every : int, default 10
        Number of steps between records.

    Returns
    -------
    Perturbed
        Distances.
    """
    return _copies(task, 0.01, runs, copies, n_steps, eps, record_every, start=start)


def edge(
    task: Task = PUBLISHED,
    *,
    runs: int = 4,
    copies: int = 5,
    n_steps: int = 5000,
    eps: float = 1e-8,
) -> Perturbed:
    """Perturb training at the edge of stability (learning rate 1) before the first step.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs, copies : int
        Number of runs, default 4, and of perturbed copies per run, default 5.
    n_steps : int, default 5000
        Number of steps.
    eps : float, default 1e-8
        Perturbation size.

    Returns
    -------
    Perturbed
        Distances.
    """
    return _copies(task, 1.0, runs, copies, n_steps, [eps])


def edge_growth(
    task: Task = PUBLISHED,
    *,
    runs: int = 500,
    copies: int = 5,
    n_steps: int = 200,
    eps: Sequence[float] = EDGE_SIZES,
) -> GrowthComparison:
    """Measure the growth rates of perturbations at the edge of stability in the first steps.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs, copies : int
        Number of runs, default 500, and of perturbed copies per run and size, default 5.
    n_steps : int, default 200
        Number of steps.
    eps : sequence of float
        Perturbation sizes, default 1e-14 to 0.1.

    Returns
    -------
    GrowthComparison
        Growth rates, and exponents of the tangent dynamics.
    """
    return compare_growth(
        task.system(1.0),
        task.start(runs),
        eps,
        copies,
        n_steps,
        threads=task.threads,
        progress=task.progress,
        seed=task.seed,
    )


def chaotic(
    task: Task = PUBLISHED, *, runs: int = 20, n_steps: int = 10_000, n_late: int = 2000
) -> Trained:
    """Train at learning rate 5.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    runs : int, default 20
        Number of runs.
    n_steps, n_late : int
        Number of steps, default 10000, and length of the late window for exponents and regimes,
        default 2000.

    Returns
    -------
    Trained
        Losses, norms, exponents and regimes.
    """
    return _train(task, 5.0, runs, n_steps, n_late)


def chaotic_series(
    trained: Trained,
    task: Task = PUBLISHED,
    *,
    n_steps: int = 45_000,
    start: int = 3000,
    max_lag: int = 100,
    n_shuffles: int = 1000,
    n_points: int = 1000,
    radius: float = 5e-5,
    theiler: int = 100,
) -> ChaoticSeries:
    """Analyse a longer run of the initial weights with the largest late exponent.

    At learning rate 5 most runs end in exact cycles or on a plateau. This rule selects a chaotic
    run, if there is one, without using the later steps.

    Parameters
    ----------
    trained : Trained
        Result of `chaotic`.
    task : Task, optional
        Data, network and seeds.
    n_steps, start : int
        Number of steps, default 45000, and first step of the analysis, default 3000.
    max_lag, n_shuffles : int
        Maximum lag, default 100, and number of shuffles, default 1000, of the autocorrelation.
    n_points : int, default 1000
        Number of reference points of the expansion rates.
    radius : float, default 5e-5
        Radius of the neighbourhood of a reference point.
    theiler : int, default 100
        Theiler window of the corrected expansion rates, in steps.

    Returns
    -------
    ChaoticSeries
        Autocorrelation, expansion rates and exponents.
    """
    run = int(np.nanargmax(trained.exponent))
    system = task.system(trained.lr)
    path = system.trajectory(task.start(len(trained.loss))[run], n_steps, threads=task.threads)
    loss, late = system.loss(path), path[start:]
    names, weights = [], []
    pace = np.median(np.abs(np.diff(late, axis=0)), axis=0)
    for i, (W, _) in enumerate(task.network.unpack(np.arange(float(system.n)))):
        row, column = divmod(int(pace[W.astype(int)].argmax()), W.shape[1])
        names.append(f"$W_{i + 1}$[{row + 1}, {column + 1}]")
        weights.append(path[:, int(W[row, column])])
    probability, units_on = _outputs(task, path[-1])
    outputs = np.log(probability.mean(axis=0))
    reduced = lyapunov_spectrum(
        saturated_map(task, trained.lr, int(units_on)), outputs, n_steps - start, 1
    )
    return ChaoticSeries(
        lr=trained.lr,
        run=run,
        start=start,
        loss=loss,
        names=tuple(names),
        weights=np.array(weights),
        autocorrelation=autocorrelation(loss[start:], max_lag, n_shuffles, seed=task.seed),
        published=expansion_rates(loss[start:], radius, n_points, seed=task.seed),
        corrected=expansion_rates(
            loss[start:],
            radius,
            n_points,
            theiler=theiler,
            window=10,
            geometric=True,
            seed=task.seed,
        ),
        theiler=theiler,
        tangent=lyapunov_spectrum(system, path[0], n_steps - start, 1, start, seed=task.seed),
        units_on=int(units_on),
        reduced=float(reduced.exponents[0]),
    )


def saturated_map(task: Task, lr: float, units_on: int) -> DiscreteMap:
    """Reduced map of the outputs of a network whose hidden units are all saturated.

    z ← z − lr (1 + K) (softmax(z) − f), with relative frequencies f of the species and K hidden
    units on. If every hidden unit is saturated, off or on, for all samples, the outputs do not
    depend on the sample. The biases of the outputs and the weights from the units that are on then
    have the gradient softmax(z) − f.

    Parameters
    ----------
    task : Task
        Data, network and seeds.
    lr : float
        Learning rate.
    units_on : int
        Number K of hidden units that are on.

    Returns
    -------
    DiscreteMap
        Map of the three outputs.
    """
    share = np.bincount(task.flowers[1], minlength=3) / N_TRAIN
    rate = lr * (1 + units_on)

    def softmax(z: Floats) -> Floats:
        odds = np.exp(z - z.max())
        p: Floats = odds / odds.sum()
        return p

    def step(z: Floats) -> Floats:
        after: Floats = z - rate * (softmax(z) - share)
        return after

    def jacobian(z: Floats) -> Floats:
        p = softmax(z)
        J: Floats = np.eye(3) - rate * (np.diag(p) - np.outer(p, p))
        return J

    return DiscreteMap(step, jacobian, 3)


def other_rates(
    task: Task = PUBLISHED,
    *,
    lrs: Sequence[float] = (2.0, 3.0, 10.0),
    runs: int = 20,
    n_steps: int = 2000,
    n_late: int = 500,
) -> list[Trained]:
    """Train at other learning rates.

    Parameters
    ----------
    task : Task, optional
        Data, network and seeds.
    lrs : sequence of float
        Learning rates, default 2, 3 and 10.
    runs : int, default 20
        Number of runs per rate. The published number is unknown; four of each are shown.
    n_steps, n_late : int
        Number of steps, default 2000, and length of the late window, default 500.

    Returns
    -------
    list of Trained
        Losses, norms, exponents and regimes, one for each rate.
    """
    return [_train(task, lr, runs, n_steps, n_late) for lr in lrs]


def _copies(
    task: Task,
    lr: float,
    runs: int,
    copies: int,
    n_steps: int,
    eps: Sequence[float],
    record_every: int = 1,
    **options: Any,
) -> Perturbed:
    found = perturbation_ensemble(
        task.system(lr),
        task.start(runs),
        eps,
        copies,
        n_steps,
        perturb="weights",
        record_every=record_every,
        losses=True,
        threads=task.threads,
        progress=task.progress,
        seed=task.seed,
        norm="l1",
        **options,
    )
    return Perturbed(task, lr, np.asarray(eps), found)


def _train(task: Task, lr: float, runs: int, n_steps: int, n_late: int) -> Trained:
    system, start = task.system(lr), task.start(runs)
    common: dict[str, Any] = {"threads": task.threads, "progress": task.progress}
    course = lyapunov_spectrum(system, start, n_steps, 1, **common)
    scan = learning_rate_scan(
        task.network,
        system.X,
        system.y,
        [lr],
        n_steps,
        w0=start,
        n_late=n_late,
        n_perturbations=0,
        seed=task.seed,
        **common,
    )
    probability, units_on = _outputs(task, course.state)
    return Trained(
        lr=lr,
        steps=np.arange(n_steps + 1),
        loss=course.loss,
        norm=travel(system, start, n_steps, entries="weights", threads=task.threads).norm,
        scan=scan,
        output_spread=np.ptp(probability, axis=-2).max(axis=-1),
        units_on=units_on,
    )


def _outputs(task: Task, state: Floats) -> tuple[Floats, Integers]:
    """Predicted probabilities (..., 120, 3), and number (...) of hidden units that are on."""
    X = task.flowers[0]
    W, b = task.network.unpack(state)[0]
    on = (X @ np.swapaxes(W, -1, -2) + b[..., np.newaxis, :] > 0).all(axis=-2)
    return task.network.predict(state, X), on.sum(axis=-1)


def nearest(sizes: Floats, eps: float) -> int:
    """Index of the perturbation size nearest to `eps` on a logarithmic scale.

    Parameters
    ----------
    sizes : ndarray, shape (n_eps,)
        Perturbation sizes.
    eps : float
        A size.

    Returns
    -------
    int
        Index.
    """
    return int(np.abs(np.log(sizes / eps)).argmin())
