"""The compiled core refuses what does not fit, whatever Python has checked before."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pylyap as pl
from pylyap._native import core

pytestmark = pytest.mark.core

RUNS, N, K = 3, 27, 2
LENGTHS = {"start": 0, "n_transient": 0, "n_steps": 4, "qr_every": 1}


@pytest.fixture
def problem():
    net = pl.Network((4, 3, 3), loss="cross_entropy")
    return pl.TrainingMap(net, *pl.datasets.iris(), pl.GradientDescent(lr=0.5))._runs.problem


def task(first=0, count=RUNS, **changed):
    given = {"cancel": np.zeros(1, np.int32), "done": np.zeros(1, np.int64), "workers": 1}
    return core.Task(**(given | {"first": first, "count": count} | changed))


def rates(runs=RUNS):
    return core.Rates(np.full(runs, 0.5), np.zeros(runs), np.zeros(runs))


def frames(runs=RUNS, k=K):
    return np.array(np.broadcast_to(np.eye(N)[:, :k], (runs, N, k)), order="C")


def spectrum_runs(x0=None, frame=None, **changed):
    x0 = np.zeros((RUNS, N)) if x0 is None else x0
    frame = frames() if frame is None else frame
    return core.SpectrumRuns(x0, frame, **(LENGTHS | {"record_every": 2} | changed))


def covariant_runs(frame=None, end=None, **changed):
    frame = frames() if frame is None else frame
    end = np.eye(K) if end is None else end
    lengths = LENGTHS | {"n_tail": 2, "every": 2, "delay": 2, "segment": 1, "vectors": True}
    return core.CovariantRuns(np.zeros((RUNS, N)), frame, end, **(lengths | changed))


def test_results_are_allocated_with_their_shapes():
    runs = spectrum_runs(segment=2)
    shapes = {
        "growth": (RUNS, 2, K), "loss": (RUNS, 3), "state": (RUNS, N), "frame": (RUNS, N, K),
        "status": (RUNS,), "n_done": (RUNS,), "transient_growth": (RUNS, K),
        "products": (RUNS, 2, K, K), "exponents": (RUNS, 2, K),
    }  # fmt: skip
    assert {name: getattr(runs, name).shape for name in shapes} == shapes
    assert spectrum_runs().products is None
    assert covariant_runs().early_vectors.shape == (RUNS, 3, N, K)
    assert covariant_runs(delay=0).early_error is None
    assert covariant_runs(vectors=False).vectors is None


@pytest.mark.parametrize("size", [1000, 300_000])  # of both kinds of allocation
def test_arrays_of_a_result_do_not_overlap(size):
    runs = core.SpectrumRuns(np.zeros((1, 2)), np.eye(2)[None], **LENGTHS | {
        "n_steps": size, "record_every": 1,
    })  # fmt: skip
    arrays = [runs.growth, runs.loss, runs.state, runs.frame, runs.transient_growth]
    for i, array in enumerate(arrays):
        array[:] = i
    for i, array in enumerate(arrays):
        assert_array_equal(array, i)


def test_the_start_frame_is_not_written(problem):
    frame = frames()
    runs = spectrum_runs(np.full((RUNS, N), 0.1), frame)
    problem.spectrum(runs, rates(), "auto", task())
    assert_array_equal(frame, frames())
    assert not np.array_equal(runs.frame, frame)


@pytest.mark.parametrize(
    "made",
    [
        lambda: spectrum_runs(x0=np.zeros(N)),
        lambda: spectrum_runs(frame=frames(RUNS + 1)),
        lambda: spectrum_runs(frame=np.zeros((RUNS, 2, 3))),
        lambda: spectrum_runs(n_steps=5),
        lambda: spectrum_runs(qr_every=0),
        lambda: spectrum_runs(segment=3),
        lambda: covariant_runs(frame=frames(k=1)),
        lambda: covariant_runs(end=np.eye(K + 1)),
        lambda: covariant_runs(n_tail=1),
        lambda: covariant_runs(every=3),
        lambda: core.Rates(np.zeros(2), np.zeros(3), np.zeros(2)),
        lambda: task(cancel=np.zeros(2, np.int32)),
        lambda: task(workers=0),
        lambda: core.CallableMap(len, None, None, None),
        lambda: core.CallableMap(len, len, len, None),
        lambda: core.CallableMap(4096, len, None, None),
        lambda: core.CallableMap(4096, None, len, None),
    ],
)
def test_sizes_that_do_not_fit_are_refused(made):
    with pytest.raises(ValueError, match=r"must|needs"):
        made()


@pytest.mark.parametrize(
    "changed",
    [
        {"step": -1},
        {"step": 6},
        {"states": np.zeros((RUNS, N + 1))},
        {"states": np.zeros(N)},
        {"pushed": np.zeros((RUNS, N, K + 1))},
        {"source": np.zeros((RUNS, K + 1))},
        {"task": task(0, RUNS + 1)},
    ],
)
def test_steps_of_a_batch_that_do_not_fit_are_refused(changed):
    lockstep = core.Lockstep(spectrum_runs(n_transient=2))
    given = {"step": 5, "states": np.zeros((RUNS, N)), "pushed": frames(), "source": None}
    given |= {"task": task()}
    lockstep.take(**given)
    with pytest.raises(ValueError, match="must"):
        lockstep.take(**given | changed)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (0, 0), (1, RUNS), (2**62, 2**62)])
def test_a_task_beyond_the_runs_is_refused(problem, first, count):
    with pytest.raises(ValueError, match="within the runs"):
        problem.spectrum(spectrum_runs(), rates(), "auto", task(first, count))


def test_runs_rates_and_arrays_of_other_sizes_are_refused(problem):
    states, out = np.zeros((RUNS, N)), np.zeros((RUNS, N))
    for call in (
        lambda: problem.spectrum(spectrum_runs(), rates(2), "auto", task()),
        lambda: problem.covariant(covariant_runs(), rates(2), "auto", task()),
        lambda: problem.spectrum(spectrum_runs(), rates(), "fast", task()),
        lambda: problem.step(states, rates(), -1, out, task()),
        lambda: problem.step(states, rates(), 0, out[:2], task()),
        lambda: problem.step(states[:, :5].copy(), rates(), 0, out, task()),
        lambda: problem.tangent(states, rates(), 0, states, "auto", out, task()),
        lambda: problem.trajectory(states, rates(), 0, 4, 2, out, task()),
        lambda: problem.evaluate(states, np.zeros(2), None, None, task()),
    ):
        with pytest.raises(ValueError, match=r"must"):
            call()


def test_arrays_are_never_converted(problem):
    states, out = np.zeros((RUNS, N)), np.zeros((RUNS, N))
    for wrong in (
        states.astype(np.float32),
        np.asfortranarray(states),
        states[:, ::-1],
    ):
        with pytest.raises(TypeError):
            problem.step(wrong, rates(), 0, out, task())
    out.setflags(write=False)
    with pytest.raises(ValueError, match="not writeable"):
        problem.step(states, rates(), 0, out, task())
