"""Covariant vectors against eigenvectors, a plain NumPy version, and the laws that define them."""

import itertools

import cases
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import null_space, subspace_angles

import pylyap as pl
from pylyap._tangent import covariant

pytestmark = pytest.mark.core

FIELDS = (
    "vectors",
    "coefficients",
    "states",
    "growth",
    "frame_growth",
    "residual",
    "status",
    "transient_growth",
    "tail_growth",
)


def jacobians(system, states, start=0):
    return [system.jacobian(x, t=start + t) for t, x in enumerate(states)]


def lines(a, b):
    """Sines of the angles between the lines of columns."""
    a, b = (v / np.linalg.norm(v, axis=-2, keepdims=True) for v in (a, b))
    return np.linalg.norm(a - b * (a * b).sum(axis=-2, keepdims=True), axis=-2)


def spans(a, b):
    """The largest sine between two spans of columns."""
    a, b = (np.linalg.qr(v)[0] for v in (a, b))
    return np.linalg.norm(b - a @ (a.T @ b), 2)


def random_product(n, seed=0):
    """A map whose Jacobian is another matrix at every step, state (t,) and then nothing."""
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(400, n, n))

    def jacobian(x):
        return matrices[int(x[0])]

    def step(x):
        return np.concatenate([[x[0] + 1.0], np.zeros(n - 1)])

    return pl.DiscreteMap(step, jacobian, n)


def heavy_ball():
    net = pl.Network((2, 3, 1), activation="tanh")
    X, y = cases.data(net, 9)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2, momentum=0.6))
    return system, system.state(cases.weights(net))


MAPS = {
    "henon": lambda: (cases.henon(), np.array([0.1, 0.1])),
    "lozi": lambda: (cases.lozi(), np.array([0.1, 0.1])),
    "product": lambda: (random_product(5), np.zeros(5)),
    "heavy ball": heavy_ball,
}


@pytest.mark.parametrize("qr_every", [1, 5])
@pytest.mark.parametrize("k", [2, None])
@pytest.mark.parametrize("name", MAPS)
def test_vectors_are_covariant_over_the_whole_window(name, k, qr_every):
    system, x = MAPS[name]()
    c = pl.covariant_lyapunov_vectors(
        system, x, 60, k, n_transient=60, n_tail=60, every=qr_every, qr_every=qr_every
    )
    states = system.trajectory(c.states[0], 60)
    assert_array_equal(states[::qr_every], c.states)
    for r in range(60 // qr_every):
        pushed, v = c.vectors[r], c.vectors[r]
        amplified = 1.0
        for t in range(r * qr_every, (r + 1) * qr_every):
            J = system.jacobian(states[t])
            pushed = J @ pushed
            amplified *= np.linalg.norm(J, 2)
        length = np.linalg.norm(pushed, axis=0)
        bound = 100 * np.finfo(float).eps * amplified / length
        assert (lines(pushed, c.vectors[r + 1]) <= bound).all()
        assert (c.residual[r] <= bound).all()
        assert_allclose(c.growth[r], np.log(length), atol=1e-9)
        assert_allclose(np.linalg.norm(v, axis=0), 1, rtol=1e-14)
    assert_allclose(np.linalg.norm(c.vectors[-1], axis=0), 1, rtol=1e-14)


@pytest.mark.parametrize("name", MAPS)
def test_vectors_agree_with_a_plain_version(name):
    system, x = MAPS[name]()
    k = min(3, system.n)
    frame = np.linalg.qr(np.random.default_rng(5).normal(size=(system.n, k)))[0]
    c = pl.covariant_lyapunov_vectors(system, x, 40, k, 20, 30, frame=frame, seed=4)
    plain = oracles.covariant_vectors(
        jacobians(system, system.trajectory(x, 89)), frame, covariant._far_end(4, k), 20, 30
    )
    assert lines(c.vectors, plain).max() < 1e-10


@pytest.mark.parametrize("name", MAPS)
def test_the_diagram_of_ginelli_commutes(name):
    # on frames from elsewhere: V_t = Q_t C_t, and R_t C_t = C_t+1 D_t where J_t Q_t = Q_t+1 R_t
    system, x = MAPS[name]()
    k = min(3, system.n)
    c = pl.covariant_lyapunov_vectors(system, x, 8, k, n_transient=30, n_tail=30)
    frames = [pl.lyapunov_spectrum(system, x, 30 + t, k).frame for t in range(9)]
    for t in range(9):
        assert_allclose(frames[t] @ c.coefficients[t], c.vectors[t], atol=1e-12)
        assert_array_equal(np.tril(c.coefficients[t], -1), 0)
    for t in range(8):
        R = frames[t + 1].T @ system.jacobian(c.states[t]) @ frames[t]
        D = c.coefficients[t + 1] * np.exp(c.growth[t])
        pushed = R @ c.coefficients[t]
        signs = np.sign((pushed * D).sum(axis=0))
        assert_allclose(pushed, D * signs, atol=1e-10 * np.abs(R).max())


def test_of_a_quadratic_they_are_the_eigenvectors_of_the_hessian():
    h = np.array([0.3, 0.7, 1.7])
    system, w = cases.quadratic_bowl(h, 0.4)
    c = pl.covariant_lyapunov_vectors(system, w, 20, n_transient=400, n_tail=400)
    eigenvalues, eigenvectors = np.linalg.eigh(system.hessian(w))
    rates = np.log(np.abs(1 - 0.4 * eigenvalues))
    order = np.argsort(-rates)
    for v in c.vectors:
        assert lines(v, eigenvectors[:, order]).max() < 1e-10
    assert_allclose(c.exponents, rates[order], rtol=1e-10)


def test_at_the_end_of_training_they_span_the_eigenspaces_of_the_hessian():
    net = pl.Network((2, 3, 1), activation="tanh")
    X, _ = cases.data(net, 9)
    teacher = cases.weights(net)
    system = pl.TrainingMap(net, X, net.predict(teacher, X), pl.GradientDescent(lr=0.2))
    start = teacher + 0.05 * np.random.default_rng(6).normal(size=13)
    w = system.trajectory(start, 5000, every=5000)[-1]
    for _ in range(20):  # the rest by Newton's method, in the directions that are curved
        w = w - np.linalg.pinv(system.hessian(w), rcond=1e-8) @ system.gradient(w)
    assert np.linalg.norm(system.gradient(w)) < 1e-14
    eigenvalues, eigenvectors = np.linalg.eigh(np.eye(13) - 0.2 * system.hessian(w))
    rates = np.log(np.abs(eigenvalues))
    order = np.argsort(-rates)
    rates, eigenvectors = rates[order], eigenvectors[:, order]
    steps = 4000
    c = pl.covariant_lyapunov_vectors(system, w, 10, n_transient=steps, n_tail=steps)
    resolved = np.flatnonzero(rates[:-1] - rates[1:] > 40 / steps) + 1
    blocks = np.split(np.arange(13), resolved)
    assert [len(block) for block in blocks] == [10, 1, 1, 1]
    for block in blocks:
        if len(block) == 1:  # told apart from all others
            assert lines(c.vectors[..., block], eigenvectors[:, block]).max() < 1e-9
            assert_allclose(c.exponents[block], rates[block], atol=1e-9)
            assert (c.contamination[block] < 1e-12).all()
        for v in c.vectors:
            assert spans(v[:, block], eigenvectors[:, block]) < 1e-9


@pytest.mark.parametrize("k", [3, 7, None])
@pytest.mark.parametrize("runs", [None, 1, 11])
def test_checkpoints_and_storage_give_the_same_bits(k, runs):
    net = pl.Network((2, 4, 2), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 30), pl.GradientDescent(lr=0.5, batch_size=7))
    w = cases.weights(net, runs=runs)
    options = {"k": k, "n_transient": 8, "n_tail": 12, "every": 4, "qr_every": 2, "threads": 1}
    stored = pl.covariant_lyapunov_vectors(system, w, 60, **options)
    with pytest.raises(ValueError, match="memory_limit must be at least") as refused:
        pl.covariant_lyapunov_vectors(system, w, 60, memory_limit=1000, **options)
    least = int(str(refused.value).split()[5].replace(",", ""))
    for limit in (least, 1.5 * least):
        again = pl.covariant_lyapunov_vectors(system, w, 60, memory_limit=limit, **options)
        for name in FIELDS:
            assert_array_equal(getattr(again, name), getattr(stored, name), err_msg=name)
    without = pl.covariant_lyapunov_vectors(system, w, 60, vectors=False, **options)
    assert without.vectors is None
    assert_array_equal(without.angles(), stored.angles())


def test_frames_and_states_are_those_of_the_spectrum():
    *_, system, w = cases.training("tanh", "cross_entropy", 2, "adam", n_samples=9)
    c = pl.covariant_lyapunov_vectors(system, w, 24, 5, n_transient=10, n_tail=6, every=3)
    s = pl.lyapunov_spectrum(system, w, 24, 5, n_transient=10, record_every=3)
    assert_array_equal(c.frame_growth, s.growth)
    assert_array_equal(c.states[-1], s.state)
    assert_array_equal(c.steps, np.append(s.steps, 34))


def test_growth_over_transient_and_tail_is_that_of_the_parts():
    # the same steps in one window: its records are those of transient, window and tail
    system, w = heavy_ball()
    c = pl.covariant_lyapunov_vectors(system, w, 20, 4, n_transient=12, n_tail=8, every=4)
    whole = pl.covariant_lyapunov_vectors(system, w, 40, 4, n_transient=0, n_tail=0, every=4)
    assert_array_equal(c.frame_growth, whole.frame_growth[3:8])
    # sums over the same steps in another order
    assert_allclose(c.transient_growth, whole.frame_growth[:3].sum(axis=0), rtol=1e-13)
    assert_allclose(c.tail_growth, whole.growth[8:].sum(axis=0), rtol=1e-13)
    none = pl.covariant_lyapunov_vectors(system, w, 20, 4, n_transient=0, n_tail=0)
    assert_array_equal(none.transient_growth, 0)
    assert_array_equal(none.tail_growth, 0)


def test_one_run_alone_or_among_others_and_on_two_threads():
    system = cases.iris(lr=0.5)
    w = cases.weights(system.network, runs=19)
    options = {"k": 4, "n_transient": 5, "n_tail": 5}
    all_runs = pl.covariant_lyapunov_vectors(system, w, 10, **options, threads=1)
    two = pl.covariant_lyapunov_vectors(system, w, 10, **options, threads=2)
    alone = pl.covariant_lyapunov_vectors(system, w[13], 10, **options)
    for name in FIELDS:
        assert_array_equal(getattr(two, name), getattr(all_runs, name), err_msg=name)
        assert_array_equal(getattr(alone, name), getattr(all_runs, name)[13], err_msg=name)


def test_a_destroyed_direction_has_the_kernel_and_no_part_in_others():
    x = np.array([0.3, 0.4, 0.5])
    c = pl.covariant_lyapunov_vectors(cases.linear(2, 0, 0.5), x, 10, n_transient=60, n_tail=60)
    assert_allclose(c.exponents, [np.log(2), -np.log(2), -np.inf], atol=1e-12)
    for v in c.vectors:
        assert_allclose(np.abs(v), np.eye(3)[:, [0, 2, 1]], atol=1e-12)
    assert (c.residual <= 1e-14).all()


def test_neutral_blocks_are_flagged_and_their_span_is_right():
    rates = (1.5, 1.0, 1.0, 0.5)
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))[0]
    shear = np.array([[1.5, 0.3, 0.2, 0.1], [0, 1, 0, 0.4], [0, 0, 1, 0.2], [0, 0, 0, 0.5]])
    matrix = rotation @ shear @ rotation.T
    system = pl.DiscreteMap(lambda x: x, lambda x: matrix, 4)
    c = pl.covariant_lyapunov_vectors(system, np.zeros(4), 5, n_transient=150, n_tail=150)
    assert_allclose(c.exponents, np.log(rates), atol=1e-12)
    assert (c.contamination[[0, 3]] < 1e-10).all()
    assert (c.contamination[[1, 2]] > 0.9).all()
    true = {rate: rotation @ null_space(shear - rate * np.eye(4)) for rate in set(rates)}
    for v in c.vectors:
        assert lines(v[:, [0]], true[1.5]).max() < 1e-10
        assert lines(v[:, [3]], true[0.5]).max() < 1e-10
        assert spans(v[:, [1, 2]], true[1.0]) < 1e-10


def test_a_run_that_diverges_is_nan_from_there_and_alone():
    net = pl.Network((2, 4, 1), activation="relu")
    X, y = cases.data(net, 20)
    w = cases.weights(net, 0.5, runs=9)
    rates = np.full(9, 0.05)
    options = {"k": 3, "n_transient": 4, "n_tail": 4, "every": 2}
    fine = pl.covariant_lyapunov_vectors(
        pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates)), w, 200, **options
    )
    rates[4] = 3e2
    c = pl.covariant_lyapunov_vectors(
        pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates)), w, 200, **options
    )
    assert c.status[4] == 1
    done = c.n_done[4]
    assert 0 < done < 200
    assert np.isnan(c.vectors[4, done // 2 + 1 :]).all()
    assert np.isnan(c.growth[4, done // 2 :]).all()
    assert np.isnan(c.transient_growth[4]).all()
    assert np.isnan(c.tail_growth[4]).all()
    assert np.isfinite(c.vectors[4, : done // 2]).all()
    others = np.arange(9) != 4
    for name in FIELDS:
        assert_array_equal(getattr(c, name)[others], getattr(fine, name)[others], err_msg=name)


def test_angles():
    system, x = heavy_ball()
    c = pl.covariant_lyapunov_vectors(system, x, 12, 5, n_transient=5, n_tail=5)
    pairs = list(itertools.combinations(range(5), 2))
    expected = np.stack([lines(c.vectors[..., [i]], c.vectors[..., [j]])[..., 0] for i, j in pairs])
    assert_allclose(np.sin(c.angles()), expected.T, rtol=1e-9)
    assert_allclose(c.angles([[3, 1]]), c.angles([[1, 3]]), rtol=1e-14)

    ours = c.subspace_angles([0, 1], [2, 3, 4])
    for v, angles in zip(c.vectors, ours, strict=True):
        assert_allclose(angles, subspace_angles(v[:, :2], v[:, 2:])[::-1], rtol=1e-9)
    h = c.hyperbolicity(2)
    assert_allclose(h.angle, ours.min())
    assert 0 <= h.dominated <= 1
    for bad in ([[0, 5]], [[0]], [0, 1], [[0.5, 1]]):
        with pytest.raises(ValueError, match="pairs must be"):
            c.angles(bad)
    with pytest.raises(ValueError, match="a must be"):
        c.subspace_angles([], [1])


def test_tangencies_of_henon_but_not_of_lozi():
    angles = {}
    for name in ("henon", "lozi"):
        system, x = MAPS[name]()
        c = pl.covariant_lyapunov_vectors(
            system, x, 20_000, n_transient=100, n_tail=100, vectors=False
        )
        angles[name] = c.angles()[:, 0]
    assert angles["henon"].min() < 1e-3
    assert angles["lozi"].min() > 0.1


def test_adjoint_vectors_are_biorthogonal_and_carried_by_the_adjoint_dynamics():
    system, x = MAPS["product"]()
    c = pl.covariant_lyapunov_vectors(system, x, 10, n_transient=80, n_tail=80)
    dual = c.adjoint_vectors()
    smallest = np.sin(c.angles().min())
    inner = np.swapaxes(dual, -1, -2) @ c.vectors
    off = inner - np.eye(5) * inner
    assert np.abs(off).max() < 1e-9 / smallest
    states = system.trajectory(c.states[0], 10)
    for t in range(10):
        assert lines(system.jacobian(states[t]).T @ dual[t + 1], dual[t]).max() < 1e-9 / smallest
    few = pl.covariant_lyapunov_vectors(system, x, 4, k=2, n_transient=4, n_tail=4)
    with pytest.raises(ValueError, match="k must be n=5"):
        few.adjoint_vectors()


def test_time_reversal_exchanges_the_ends():
    a, b = 1.4, 0.3
    forward, x = cases.henon(a, b), np.array([0.1, 0.1])
    path = forward.trajectory(x, 120)[20:]

    def inverse(p):  # of (x, y) -> (1 - a x^2 + y, b x)
        u = p[1] / b
        return np.array([u, p[0] - 1 + a * u**2])

    assert_allclose(inverse(forward.step(x)), x, atol=1e-14)
    ahead = pl.covariant_lyapunov_vectors(forward, path[0], 20, n_transient=40, n_tail=40)
    # computed orbits of the inverse leave the attractor: the stored states, one after another
    rest = path[-2::-1]

    def step(p, t):
        return rest[t]

    def jacobian(p):
        return np.linalg.inv(forward.jacobian(inverse(p)))

    reversed_map = pl.DiscreteMap(step, jacobian, 2)
    back = pl.covariant_lyapunov_vectors(
        reversed_map, path[-1], 20, n_transient=40, n_tail=40, memory_limit=1e9
    )
    assert_allclose(back.states, ahead.states[::-1])
    for mine, theirs in zip(back.vectors, ahead.vectors[::-1], strict=True):
        assert lines(mine[:, ::-1], theirs).max() < 1e-6


BAD = {
    "n_steps": ({"n_steps": 0}, "n_steps"),
    "k too many": ({"k": 14}, "k must be in 1 ... 13"),
    "k none": ({"k": 0}, "k must be in 1 ... 13"),
    "every": ({"every": 3}, "every must divide n_steps=10"),
    "qr": ({"qr_every": 2, "every": 1}, "every must be a multiple of qr_every=2"),
    "transient": ({"qr_every": 2, "every": 2, "n_transient": 3}, "n_transient must be a multiple"),
    "tail": ({"n_tail": -1}, "n_tail must be at least 0"),
    "memory": ({"memory_limit": -1.0}, "memory_limit must be finite and > 0"),
    "vectors": ({"vectors": 2}, "vectors must be"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_at_once(case):
    more, message = BAD[case]
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent())
    with pytest.raises((ValueError, TypeError), match=message):
        pl.covariant_lyapunov_vectors(system, cases.weights(net), **({"n_steps": 10} | more))


def test_no_runs_are_no_error():
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *cases.data(net), pl.GradientDescent())
    for each, n in ((system, system.n), (cases.henon(), 2)):
        c = pl.covariant_lyapunov_vectors(each, np.empty((0, n)), 10, 2)
        assert c.vectors.shape == (0, 11, n, 2)


def test_the_result_describes_itself():
    pytest.importorskip("xarray")
    system = cases.iris()
    w = cases.weights(system.network, runs=3)
    c = pl.covariant_lyapunov_vectors(system, w, 10, 2, every=5)
    assert repr(c).startswith("CovariantVectors of 3 runs: 2 of 83, 10 steps in 2 records")
    dataset = c.to_dataset()
    assert dataset["vectors"].dims == ("run", "time", "component", "vector")
    assert dataset["contamination"].dims == ("run", "vector")
    assert dataset.attrs["n_tail"] == 2
    assert c.stderr.shape == (3, 2)


# ------------------------------------------------------------------------------- early vectors


@pytest.mark.parametrize("delay", [2, 6, 8, 20, 26])
@pytest.mark.parametrize("runs", [None, 9])
def test_early_vectors_know_nothing_of_what_comes_after_their_delay(delay, runs):
    net = pl.Network((2, 4, 2), activation="sigmoid", loss="cross_entropy")
    system = pl.TrainingMap(net, *cases.data(net, 30), pl.GradientDescent(lr=0.5, batch_size=7))
    w = cases.weights(net, runs=runs)
    options = {"k": 4, "n_transient": 8, "every": 8, "qr_every": 2}
    c = pl.covariant_lyapunov_vectors(system, w, 40, n_tail=30, delay=delay, **options)
    whole = pl.covariant_lyapunov_vectors(system, w, 40, n_tail=30, **options)
    for name in FIELDS:
        assert_array_equal(getattr(c, name), getattr(whole, name), err_msg=name)
    for record in range(1, 6):
        # a run that ends `delay` steps after the record has nothing else to go by
        short = pl.covariant_lyapunov_vectors(system, w, 8 * record, n_tail=delay, **options)
        assert_array_equal(c.early_vectors[..., record, :, :], short.vectors[..., -1, :, :])
        assert_array_equal(
            c.early_coefficients[..., record, :, :], short.coefficients[..., -1, :, :]
        )
    assert_allclose(c.early_error, lines(c.early_vectors, c.vectors), atol=1e-14)
    assert_allclose(c.early_error[..., 0], 0, atol=1e-15)  # the first is that of the frame
    assert c.early_error.shape == (*c.vectors.shape[:-2], 4)
    assert_array_equal(c.known(early=True), c.steps + delay)
    assert_array_equal(c.known(early=False), [78] * 6)
    assert c.angles(early=True).shape == c.angles().shape
    little = pl.covariant_lyapunov_vectors(
        system, w, 40, n_tail=30, delay=delay, vectors=False, memory_limit=250_000, **options
    )
    assert little.early_vectors is None
    assert_array_equal(little.early_coefficients, c.early_coefficients)
    assert_array_equal(little.early_error, c.early_error)


def test_the_delay_is_chosen_from_the_gap_and_the_error_measured():
    system, x = MAPS["henon"]()
    c = pl.covariant_lyapunov_vectors(
        system, x, 2000, n_transient=50, n_tail=60, delay="auto", vectors=False
    )
    gap = float(c.gap[0])
    assert c.settings["delay"] == np.ceil(np.log(100) / gap) == 3
    assert 1e-4 < np.median(c.early_error[:, 1]) < 0.05
    longer = pl.covariant_lyapunov_vectors(system, x, 2000, n_transient=50, n_tail=60, delay=30)
    assert np.median(longer.early_error[:, 1]) < 1e-12
    assert "early vectors after 30 steps" in repr(longer)


def test_early_vectors_of_a_run_that_diverges_end_a_delay_before_it():
    net = pl.Network((2, 4, 1), activation="relu")
    X, y = cases.data(net, 20)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[0.05, 3e2]))
    w = cases.weights(net, 0.5, runs=2)
    c = pl.covariant_lyapunov_vectors(system, w, 60, 3, n_transient=0, n_tail=10, delay=2)
    done = c.n_done[1]
    assert 2 < done < 60
    assert np.isfinite(c.early_vectors[1, : done - 1]).all()
    assert np.isnan(c.early_vectors[1, done - 1 :]).all()
    assert np.isnan(c.early_error[1, done - 1 :]).all()
    assert np.isfinite(c.early_error[0]).all()


def test_without_a_delay_there_are_no_early_vectors():
    system, x = MAPS["henon"]()
    c = pl.covariant_lyapunov_vectors(system, x, 10)
    assert c.early_vectors is c.early_coefficients is c.early_error is None
    for ask in (c.angles, lambda early: c.subspace_angles([0], [1], early=early)):
        with pytest.raises(ValueError, match="delay="):
            ask(early=True)
    for delay, message in ((3, "delay must be in 1 ... 2"), (0, "delay must be"), ("x", "delay")):
        with pytest.raises((ValueError, TypeError), match=message):
            pl.covariant_lyapunov_vectors(system, x, 10, delay=delay)
    with pytest.raises(ValueError, match="delay must be a multiple of qr_every=2"):
        pl.covariant_lyapunov_vectors(
            system, x, 10, n_tail=4, delay=3, qr_every=2, every=2, n_transient=0
        )
    neutral = pl.DiscreteMap(lambda x: x, lambda x: np.eye(2), 2)
    with pytest.raises(ValueError, match="delay must be given, 'auto' found no gap"):
        pl.covariant_lyapunov_vectors(neutral, np.zeros(2), 10, delay="auto")


# ------------------------------------------------------------------------------- contamination

MORE = 400  # steps of the reference on both sides


def contaminated(case):
    """A short run of a random system, with vectors of a run of 400 more steps on both sides."""
    rng = np.random.default_rng([18, case])
    before, after = np.exp(rng.uniform(np.log(2), np.log(300), 2)).astype(int)
    window = int(rng.choice([10, 30, 100]))
    steps = 2 * MORE + before + window + after
    system, x = cases.random_system(cases.KINDS[case % len(cases.KINDS)], rng, steps)
    k = system.n if rng.random() < 0.5 else int(rng.integers(1, system.n + 1))
    more = min(k + 1, system.n)
    true = pl.covariant_lyapunov_vectors(
        system, x, window, more, MORE + before, after + MORE, seed=2 * case + 1
    )
    if true.status:
        return None  # training diverged
    later = system.trajectory(x, MORE, every=MORE)[-1]
    c = pl.covariant_lyapunov_vectors(
        system, later, window, k, before, after, start=MORE, delay=max(1, after // 3), seed=2 * case
    )
    return c, true.vectors[..., :k]


def coverage(numbers):
    """Shares of vectors and of early ones whose error is covered, and by which factor, in the
    median: of all vectors, and of those that are determined or said to be."""
    found = {"final": [], "early": []}
    for c, true in filter(None, map(contaminated, numbers)):
        known = slice(None) if c.k == true.shape[-2] else slice(-1)  # not the last of k < n
        assert np.isnan(c.contamination[known]).sum() == 0
        assert np.isnan(c.contamination).sum() == (c.k < true.shape[-2])
        error = lines(c.vectors, true).max(axis=0)
        found["final"].append(np.stack([c.contamination, error])[:, known])
        error = lines(c.early_vectors, true).max(axis=0)
        found["early"].append(np.stack([c.early_contamination.max(axis=0), error])[:, known])
    result = {}
    for name, parts in found.items():
        estimate, error = np.concatenate(parts, axis=1)
        ratio = estimate / np.maximum(error, 1e-17)
        open_ = (estimate < 1) | (error > estimate)
        result[name] = [((ratio[of] >= 1).mean(), np.median(ratio[of])) for of in (..., open_)]
    return result


def test_contamination_covers_the_error_of_short_transients_and_tails():
    found = coverage(range(90))
    for (share, ratio), (least, _) in zip(found["final"], [(0.97, 0), (0.9, 0)], strict=True):
        assert share >= least
        assert ratio <= 30
    for share, ratio in found["early"]:
        assert share >= 0.9
        assert ratio <= 30


@pytest.mark.slow
def test_contamination_covers_the_error_in_many_cases():
    found = coverage(range(1000, 2800))
    for share, ratio in [*found["final"], *found["early"]]:
        assert share >= 0.95
        assert ratio <= 30


def test_contamination_at_each_time_and_of_early_vectors():
    c, true = contaminated(3)  # Hénon
    errors = lines(c.vectors, true)
    assert c.local_contamination.shape == errors.shape
    assert (errors <= c.local_contamination).all()
    # a longer past makes the first vector better, a shorter future the last one worse
    assert c.local_contamination[0, 0] >= c.local_contamination[-1, 0]
    assert c.local_contamination[0, -1] <= c.local_contamination[-1, -1]
    assert_array_equal(c.contamination, c.local_contamination.max(axis=0))
    assert (lines(c.early_vectors, true) <= c.early_contamination).all()
    with pytest.raises(ValueError, match="delay="):
        pl.covariant_lyapunov_vectors(cases.henon(), np.zeros(2), 10).early_contamination  # noqa: B018


@pytest.mark.parametrize("transient", [0, 100])
@pytest.mark.parametrize("k", [1, 3])
def test_of_fewer_than_all_vectors_the_last_has_no_neighbour_to_tell(k, transient):
    system = random_product(5)
    c = pl.covariant_lyapunov_vectors(system, np.zeros(5), 10, k, transient, 100)
    assert np.isnan(c.contamination[-1])
    assert np.isfinite(c.contamination[:-1]).all()
    assert np.isnan(c.local_contamination[:, -1]).all()


def test_vectors_without_transient_and_tail_are_not_determined():
    c = pl.covariant_lyapunov_vectors(random_product(4), np.zeros(4), 10, None, 0, 0)
    assert_array_equal(c.contamination, 1)
    one = pl.covariant_lyapunov_vectors(cases.logistic(), np.array([0.3]), 10, 1, 0, 0)
    assert one.contamination < 1e-14  # a line has one direction


def test_contamination_in_batches_and_by_its_former_name():
    system = cases.iris(lr=0.5)
    w = cases.weights(system.network, runs=6).reshape(2, 3, -1)
    c = pl.covariant_lyapunov_vectors(system, w, 10, 4, 100, 50, every=5)
    assert c.contamination.shape == (2, 3, 4)
    alone = pl.covariant_lyapunov_vectors(system, w[1, 2], 10, 4, 100, 50, every=5)
    # sums in another order
    assert_allclose(alone.contamination, c.contamination[1, 2], rtol=1e-10)
    with pytest.warns(DeprecationWarning, match="use contamination"):
        assert_array_equal(c.mixing, c.contamination)


# ----------------------------------------------------- growth beyond the range of a double


def scaled_henon(factor):
    """Henon's map of which every Jacobian is multiplied by a factor."""
    plain = cases.henon()
    return pl.DiscreteMap(plain.step_one, lambda x: factor * plain.jacobian_one(x), 2)


@pytest.mark.parametrize("qr_every", [1, 5])
@pytest.mark.parametrize("power", [-950, -600, -180, 180, 600, 950])
def test_a_power_of_two_in_the_jacobian_adds_its_log_to_the_growth(power, qr_every):
    x = np.array([0.1, 0.1])
    options = {"n_transient": 20, "n_tail": 20, "qr_every": qr_every, "every": 5, "delay": 10}
    plain, scaled = (
        pl.covariant_lyapunov_vectors(scaled_henon(f), x, 40, **options) for f in (1.0, 2.0**power)
    )
    assert scaled.status == 0
    shift = 5 * power * np.log(2)
    # sums of order 3000 nats; vectors are solved for in another order of operations
    assert_allclose(scaled.growth, plain.growth + shift, rtol=1e-14, atol=1e-11)
    assert_allclose(scaled.frame_growth, plain.frame_growth + shift, rtol=1e-14, atol=1e-11)
    assert_allclose(scaled.vectors, plain.vectors, atol=1e-11)
    assert_allclose(scaled.early_vectors, plain.early_vectors, atol=1e-11)
    assert_allclose(scaled.early_error, plain.early_error, atol=1e-11)
    assert (scaled.residual < 1e-10).all()  # nearly parallel vectors; 2e-11 without FMA


def test_a_contraction_far_from_its_orthonormalisation():
    c = pl.covariant_lyapunov_vectors(
        cases.linear(0.01), [1.0], 400, qr_every=100, every=100, n_transient=100, n_tail=100
    )
    assert c.status == 0
    assert_allclose(c.exponents, [np.log(0.01)], rtol=1e-14)
    assert_array_equal(np.abs(c.vectors), np.ones((5, 1, 1)))
    assert_array_equal(c.residual, np.zeros((4, 1)))


def test_rates_that_differ_by_many_orders_of_magnitude():
    # each vector is solved for through pivots of 1e200 and 1e-107
    c = pl.covariant_lyapunov_vectors(
        cases.linear(1e200, 1e190, 1e-107), np.zeros(3), 12, n_transient=6, n_tail=6
    )
    assert_allclose(c.exponents, np.log([1e200, 1e190, 1e-107]), rtol=1e-14)
    assert_allclose(np.abs(c.vectors), np.stack([np.eye(3)] * 13), atol=1e-15)
    assert (c.residual < 1e-15).all()


def test_a_destroyed_direction_beside_others_out_of_range():
    system = cases.linear(1e200, 0.0, 1e-200)
    c = pl.covariant_lyapunov_vectors(
        system, np.zeros(3), 8, n_transient=4, n_tail=4, qr_every=2, every=2
    )
    assert c.status == 0
    assert_array_equal(np.isneginf(c.exponents), [False, True, False])
    assert_allclose(c.exponents[[0, 2]], np.log([1e200, 1e-200]), rtol=1e-14)
    assert_allclose(np.abs(c.vectors), np.stack([np.eye(3)] * 5), atol=1e-15)
    assert_array_equal(c.residual, np.zeros((4, 3)))
