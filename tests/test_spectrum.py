"""lyapunov_spectrum: textbook values first, then laws, then the plain-NumPy twin."""

import cases
import numpy as np
import oracles
import pytest
from cases import OPTIMIZERS, networks, optimizers, seeds
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import digamma

import pylyap as pl
from pylyap import _native

pytestmark = pytest.mark.core


def assert_within_four_errors(spectrum, expected, digits=1e-4):
    """Agreement up to four standard errors and the digits of the published value.

    Bars as wide as the values would agree with anything: they may be 0.02 at most.
    """
    assert (spectrum.stderr < 0.02).all()
    assert_allclose(spectrum.exponents, expected, atol=4 * spectrum.stderr.max() + digits)


# ------------------------------------------------------------------------------ known answers


def test_diagonal_map_with_a_destroyed_direction():
    # a peer prints −62.9 here, another raises
    s = pl.lyapunov_spectrum(cases.linear(2.0, 0.0, 0.5), np.ones(3), 50, n_transient=50)
    assert_allclose(s.exponents[:2], [np.log(2), -np.log(2)], rtol=1e-12)  # aligned to 4^-50
    assert s.exponents[2] == -np.inf
    assert np.isnan(s.stderr[2])
    assert np.isfinite(s.stderr[:2]).all()
    assert s.status == 0
    assert np.isfinite(s.frame).all()
    assert_allclose(s.frame.T @ s.frame, np.eye(3), atol=1e-14)


def test_a_map_that_destroys_everything():
    s = pl.lyapunov_spectrum(cases.linear(0.0, 0.0), np.ones(2), 5)
    assert_array_equal(s.exponents, [-np.inf, -np.inf])
    assert s.status == 0


def test_identity_has_exponents_zero_to_the_bit_for_an_aligned_frame():
    s = pl.lyapunov_spectrum(cases.linear(1.0, 1.0), np.ones(2), 5, frame=np.eye(2))
    assert_array_equal(s.exponents, [0.0, 0.0])
    assert_array_equal(s.growth, np.zeros((5, 2)))


@pytest.mark.parametrize("r", [1.5, 2.0, 2.9])
def test_stable_fixed_point_of_the_logistic_map(r):
    with np.errstate(divide="ignore"):
        expected = np.log(abs(2 - r))  # superstable at r = 2
    s = pl.lyapunov_spectrum(cases.logistic(r), [0.4], 200, n_transient=500)
    assert_allclose(s.exponents, [expected], atol=1e-9)  # 0.9^500 of the transient is left


def test_stable_two_cycle_of_the_logistic_map():
    # ln|4 + 2r − r²| over two steps
    s = pl.lyapunov_spectrum(cases.logistic(3.2), [0.4], 200, n_transient=200)
    assert_allclose(s.exponents, [np.log(0.16) / 2], atol=1e-9)


def test_stable_fixed_point_of_the_henon_map():
    a, b = 0.2, 0.3
    x = (b - 1 + np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    expected = np.log(np.abs(np.linalg.eigvals([[-2 * a * x, 1.0], [b, 0.0]])))
    s = pl.lyapunov_spectrum(cases.henon(a, b), [0.0, 0.0], 100, n_transient=300)
    assert_allclose(s.exponents, np.sort(expected)[::-1], atol=1e-9)  # 0.85^300 is left


def test_stable_two_cycle_of_the_henon_map():
    a, b = 0.45, 0.3
    s = pl.lyapunov_spectrum(cases.henon(a, b), [0.0, 0.0], 200, n_transient=400)
    # x₁x₂ = ((1 − b)² − a)/a² on the cycle, so that the product of its two Jacobians has the trace
    # 4a²x₁x₂ + 2b, and the determinant b²; at this a its eigenvalues are real
    trace = 4 * ((1 - b) ** 2 - a) + 2 * b
    multipliers = np.roots([1.0, -trace, b * b])
    expected = np.sort(np.log(np.abs(multipliers)) / 2)[::-1]
    assert_allclose(s.exponents, expected, atol=1e-9)


def test_cat_map():
    s = pl.lyapunov_spectrum(cases.cat(), [0.1, 0.2], 200, n_transient=50)
    golden = np.log((3 + np.sqrt(5)) / 2)
    assert_allclose(s.exponents, [golden, -golden], atol=1e-9)
    assert_allclose(s.exponents.sum(), 0, atol=1e-12)


def test_henon_map():
    # 0.41922, −1.62319: Sprott, Chaos and Time-Series Analysis (2003)
    s = pl.lyapunov_spectrum(cases.henon(), [0.1, 0.1], 20_000, n_transient=100)
    assert_within_four_errors(s, [0.41922, -1.62319])
    assert_allclose(s.exponents.sum(), np.log(0.3), atol=1e-10)


def test_logistic_map_at_4():
    # |f'(x)| = 2 u(f(x)) / u(x) with u = √(x(1 − x)), so that the sum telescopes
    system, x = cases.logistic(4.0), np.array([0.3])
    s = pl.lyapunov_spectrum(system, x, 2000)
    u = 0.5 * np.log([z * (1 - z) for z in (x[0], s.state[0])])
    assert_allclose(s.exponents[0], np.log(2) + (u[1] - u[0]) / 2000, atol=1e-10)
    assert_allclose(s.exponents[0], np.log(2), atol=1e-2)


@pytest.mark.parametrize(
    ("mu", "expected"), [(0.83, [0.39272, -0.76538]), (0.9, [0.50752, -0.71824])]
)
def test_ikeda_map(mu, expected):
    # sites.google.com/view/lyapunov-spectrum, the later of its two tables; 2e7 steps of our own in
    # plain NumPy confirm them to 5e-4. At 0.9 they are Sprott's (2003) as well
    s = pl.lyapunov_spectrum(cases.ikeda(mu), [0.1, 0.1], 12_000, n_transient=500)
    assert_within_four_errors(s, expected)
    assert_allclose(s.exponents.sum(), 2 * np.log(mu), atol=1e-10)


def test_lozi_map():
    s = pl.lyapunov_spectrum(cases.lozi(), [0.1, 0.1], 15_000, n_transient=200)
    # 0.47 ± 0.01 in Elhadj and Sprott's tables; the sum is exact
    assert_within_four_errors(s, s.exponents)
    assert 0.4 < s.exponents[0] < 0.55
    assert_allclose(s.exponents.sum(), np.log(0.5), atol=1e-10)


def test_generalised_baker_map():
    s = pl.lyapunov_spectrum(cases.baker(), [0.3, 0.2137], 15_000)
    assert_within_four_errors(s, cases.baker_exponents(), digits=1e-9)
    assert_allclose(s.exponents.sum(), np.log(0.8), atol=1e-10)


def test_chirikov_map_in_its_chaotic_sea():
    # about 0.105 at k = 1, but sticky: 0.03 to 0.13 for runs of any practical length
    s = pl.lyapunov_spectrum(cases.chirikov(1.0), [0.1, 0.05], 15_000)
    assert 0.03 < s.exponents[0] < 0.16
    assert_allclose(s.exponents.sum(), 0, atol=1e-10)


@pytest.mark.parametrize("lr", [0.05, 0.3, 1.1])
def test_gradient_descent_on_a_quadratic(lr):
    system, h = cases.quadratic_bowl(np.array([0.2, 0.7, 1.9]), lr)
    order = np.argsort(-np.abs(1 - lr * h))
    s = pl.lyapunov_spectrum(system, np.ones(4), 30, frame=np.eye(4)[:, order])
    assert_allclose(s.exponents, np.log(np.abs(1 - lr * h))[order], rtol=1e-12)
    assert_allclose(s.growth, np.tile(s.exponents, (30, 1)), rtol=1e-12)
    random = pl.lyapunov_spectrum(system, np.ones(4), 30, n_transient=800)
    assert_allclose(random.exponents, s.exponents, atol=1e-9)


def teacher():
    """A ReLU network that is right about everything: loss 0, gradient 0, a critical point.

    Its second unit is dead: the weights 2, 3, 7 (inwards) and 10 (outwards).
    """
    net = pl.Network((2, 3, 1), activation="relu")
    rng = np.random.default_rng(22)  # nonzero eigenvalues of H between 0.07 and 7.4
    w, X = 1.5 * rng.normal(size=13), rng.uniform(-1, 1, (100, 2))
    w[DEAD[:3]] = [0.1, 0.2, -50.0]
    return pl.TrainingMap(net, X, net.predict(w, X), pl.GradientDescent(lr=0.2)), w


DEAD = [2, 3, 7, 10]


def test_at_a_critical_point_exponents_are_those_of_the_hessian():
    system, w = teacher()
    assert_array_equal(system.step(w), w)
    H = oracles.hessian(system.network, w, system.X, system.y)
    values, vectors = np.linalg.eigh(np.eye(13) - 0.2 * H)
    order = np.argsort(-np.abs(values))
    expected = np.log(np.abs(values))[order]
    s = pl.lyapunov_spectrum(system, w, 20, frame=vectors[:, order])
    # an eigenvector known to eps/gap strays; its own growth feels that in the second order only
    assert_allclose(s.exponents, expected, atol=1e-11)
    # four directions of the dead unit, and for each other unit the rescaling of what comes in
    # against what goes out; the next exponent is ln(1 − 0.2 · 0.07)
    assert_allclose(s.exponents[:6], 0, atol=1e-12)
    assert (s.exponents[6:] < -0.01).all()


def test_dead_units_are_neutral_exactly_for_an_aligned_frame():
    net = pl.Network((2, 3, 1), activation="relu")
    w = cases.weights(net, 0.5)
    w[DEAD[:3]] = [0.1, 0.2, -50.0]
    system = pl.TrainingMap(net, *cases.data(net, 20), pl.GradientDescent(lr=0.3))
    s = pl.lyapunov_spectrum(system, w, 25, frame=np.eye(13)[:, DEAD])
    assert_array_equal(s.exponents, np.zeros(4))
    assert_array_equal(s.growth, np.zeros((25, 4)))
    assert_array_equal(s.frame, np.eye(13)[:, DEAD])


def test_dead_units_are_neutral_after_alignment():
    system, w = teacher()
    s = pl.lyapunov_spectrum(system, w, 50, n_transient=3000)  # 0.986^3000 is 1e-18
    assert_allclose(s.exponents[:6], 0, atol=1e-12)
    assert (s.exponents[6:] < -0.01).all()


@pytest.mark.parametrize("momentum", [0.3, 0.9])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_heavy_ball_contracts_volumes_by_beta_at_every_step(activation, momentum):
    net = cases.network(activation)
    optimizer = pl.GradientDescent(lr=0.1, momentum=momentum)
    system = pl.TrainingMap(net, *cases.data(net), optimizer)
    s = pl.lyapunov_spectrum(system, cases.weights(net), 50)
    expected = system.n_params * np.log(momentum)
    assert_allclose(s.growth.sum(axis=1), np.full(50, expected), atol=1e-12)


# ---------------------------------------------------------------------------------------- laws


@given(networks(), optimizers(), seeds())
def test_exponents_sum_to_the_mean_log_determinant(net, name, seed):
    X, y = cases.data(net)
    system = pl.TrainingMap(net, X, y, cases.optimizer(name))
    x = cases.state(system, cases.weights(net, 0.7, seed), seed)
    s = pl.lyapunov_spectrum(system, x, 10)
    states = system.trajectory(x, 10)
    logs = [np.linalg.slogdet(system.jacobian(states[t], t=t))[1] for t in range(10)]
    assert_allclose(s.exponents.sum(), np.mean(logs), atol=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_the_first_exponents_do_not_depend_on_how_many_are_asked_for(name, k):
    *_, system, w = cases.training(optimizer_name=name)
    whole = pl.lyapunov_spectrum(system, w, 30, seed=3)
    part = pl.lyapunov_spectrum(system, w, 30, k=k, seed=3)
    assert part.exponents.shape == (k,)
    assert part.frame.shape == (system.n, k)
    # the start frame is nested; the tangent may be computed another way for few vectors
    assert_allclose(part.exponents, whole.exponents[:k], atol=1e-10)


@pytest.mark.parametrize("name", ["plain", "nesterov", "adam"])
def test_orthonormalising_less_often_changes_no_sum(name):
    *_, system, w = cases.training(optimizer_name=name, batch_size=3)
    often = pl.lyapunov_spectrum(system, w, 60, k=5)
    seldom = pl.lyapunov_spectrum(system, w, 60, k=5, qr_every=5)
    assert seldom.growth.shape == (12, 5)
    assert_array_equal(seldom.steps, np.arange(0, 60, 5))
    # five steps of one frame lose at most the ratio of growths in them, times rounding
    grouped = often.growth.reshape(12, 5, 5).sum(axis=1)
    assert_allclose(seldom.growth, grouped, atol=1e-9)
    assert_array_equal(seldom.state, often.state)
    assert_allclose(seldom.loss, often.loss[::5], rtol=1e-14)


def test_records_are_sums_of_steps():
    *_, system, w = cases.training(optimizer_name="heavy_ball")
    fine = pl.lyapunov_spectrum(system, w, 24, k=4)
    coarse = pl.lyapunov_spectrum(system, w, 24, k=4, record_every=6)
    assert fine.growth.shape == (24, 4)
    assert coarse.growth.shape == (4, 4)
    assert coarse.loss.shape == (5,)
    assert_array_equal(coarse.steps, [0, 6, 12, 18])
    assert_allclose(coarse.growth, fine.growth.reshape(4, 6, 4).sum(axis=1), atol=1e-13)
    assert_allclose(coarse.exponents, coarse.growth.sum(axis=0) / 24, atol=1e-15)
    assert_array_equal(coarse.loss, fine.loss[::6])
    both = pl.lyapunov_spectrum(system, w, 24, k=4, qr_every=3, record_every=6)
    assert_allclose(both.growth, coarse.growth, atol=1e-10)


def test_the_loss_is_recorded_before_each_record_and_at_the_end():
    *_, system, w = cases.training("relu", "cross_entropy", batch_size=2)
    s = pl.lyapunov_spectrum(system, w, 12, k=2, record_every=3)
    states = system.trajectory(w, 12, every=3)
    # of the whole data, whatever batch a step saw
    assert_allclose(s.loss, [system.loss(x) for x in states], rtol=1e-14)
    assert_array_equal(s.state, states[-1])


def test_maps_without_a_loss_have_none():
    s = pl.lyapunov_spectrum(cases.henon(), [0.1, 0.1], 10)
    assert s.loss.shape == (11,)
    assert np.isnan(s.loss).all()


@pytest.mark.parametrize("name", ["plain", "adam"])
def test_a_transient_is_steps_whose_growth_is_not_counted(name):
    *_, system, w = cases.training(optimizer_name=name, batch_size=3)
    first = pl.lyapunov_spectrum(system, w, 20, k=6)
    whole = pl.lyapunov_spectrum(system, w, 15, k=6, n_transient=20)
    resumed = pl.lyapunov_spectrum(system, first.state, 15, k=6, start=20, frame=first.frame)
    assert_array_equal(whole.state, resumed.state)
    assert_array_equal(whole.loss, resumed.loss)
    # a frame that is handed over is orthonormalised once more
    assert_allclose(whole.growth, resumed.growth, atol=1e-13)
    assert_allclose(whole.frame, resumed.frame, atol=1e-12)
    assert_array_equal(whole.steps, 20 + np.arange(15))
    assert_array_equal(resumed.steps, 20 + np.arange(15))


def test_frames_stay_orthonormal():
    *_, system, w = cases.training("relu", "cross_entropy", 3, "heavy_ball")
    s = pl.lyapunov_spectrum(system, w, 200)
    assert_allclose(s.frame.T @ s.frame, np.eye(system.n), atol=3e-14)


@pytest.mark.parametrize("condition", [1e0, 1e6, 1e12])
@pytest.mark.parametrize(("n", "k"), [(3, 3), (41, 41), (83, 10), (2410, 24)])
def test_ill_conditioned_frames_become_orthonormal(n, k, condition):
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.normal(size=(m, k)))[0] for m in (n, k))
    frame = left * np.geomspace(1, 1 / condition, k) @ right.T
    Q, norms, R = _native.core.orthonormalise(frame, None)
    assert np.linalg.norm(Q.T @ Q - np.eye(k), 2) <= 1e-13
    assert_allclose(Q @ R, frame, atol=1e-15 * k)
    assert_array_equal(np.diag(R), norms)


@pytest.mark.parametrize(("momentum", "steps"), [(0.0, 6), (0.5, 24)])
def test_frames_that_became_ill_conditioned_in_lanes_are_orthonormal(momentum, steps):
    net = pl.Network((2, 5, 1), activation="sin")
    X, y = cases.data(net, 30)
    rates = np.linspace(0.05, 0.5, 11)  # more than one group of lanes
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates, momentum=momentum))
    w = cases.weights(net, runs=11)
    once = pl.lyapunov_spectrum(system, w, steps, qr_every=steps, seed=3)
    spread = np.exp(np.ptp(once.growth[:, 0], axis=-1))
    assert spread.max() > 1e6  # what one orthonormalisation had to undo
    for frame in once.frame:
        assert np.linalg.norm(frame.T @ frame - np.eye(system.n), 2) <= 1e-13


def test_a_frame_need_not_be_orthonormal_to_begin_with():
    *_, system, w = cases.training()
    frame = np.random.default_rng(0).normal(size=(system.n, 3))
    tidy = oracles.qr_positive(frame)[0]
    given_raw = pl.lyapunov_spectrum(system, w, 10, frame=frame)
    given_tidy = pl.lyapunov_spectrum(system, w, 10, frame=tidy)
    assert_allclose(given_raw.growth, given_tidy.growth, atol=1e-12)


def test_the_start_frame_is_a_function_of_the_seed_alone():
    *_, system, w = cases.training()
    a, b, c = (pl.lyapunov_spectrum(system, w, 3, seed=seed).growth for seed in (1, 1, 2))
    assert_array_equal(a, b)
    assert (a != c).any()


def test_batches_of_runs_and_a_scan_of_learning_rates():
    net = cases.network()
    X, y = cases.data(net)
    rates = np.array([0.1, 0.5])
    scan = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=rates))
    w = cases.weights(net, runs=3)
    s = pl.lyapunov_spectrum(scan, w[:, None], 10, k=4, record_every=5)
    assert s.exponents.shape == s.stderr.shape == (3, 2, 4)
    assert s.growth.shape == (3, 2, 2, 4)
    assert s.loss.shape == (3, 2, 3)
    assert s.state.shape == (3, 2, scan.n)
    assert s.frame.shape == (3, 2, scan.n, 4)
    assert s.status.shape == s.n_done.shape == (3, 2)
    for i in range(3):
        for j, lr in enumerate(rates):
            alone = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=lr))
            one = pl.lyapunov_spectrum(alone, w[i], 10, k=4, record_every=5)
            assert_array_equal(one.growth, s.growth[i, j])


def test_user_maps_take_batches_too():
    x = np.array([[0.1, 0.1], [0.2, 0.1], [0.0, 0.1]])
    s = pl.lyapunov_spectrum(cases.henon(), x, 20)
    assert_array_equal(s.growth[1], pl.lyapunov_spectrum(cases.henon(), x[1], 20).growth)


class Clock:
    """A map of one's own that knows the time: step t multiplies by exp(t)."""

    n = 1

    def step(self, x, t=0):
        return x + t

    def tangent(self, x, V, t=0):
        return np.exp(t) * V


@pytest.mark.parametrize("qr_every", [1, 2])
def test_anything_with_a_step_and_a_tangent_is_a_map(qr_every):
    s = pl.lyapunov_spectrum(Clock(), [0.0], 6, n_transient=2, start=5, qr_every=qr_every)
    # steps 7 to 12 are counted, and 5 and 6 made before them
    expected = np.arange(7.0, 13.0).reshape(-1, qr_every).sum(axis=1)
    assert_allclose(s.growth[:, 0], expected, rtol=1e-14)
    assert_array_equal(s.steps, np.arange(7, 13, qr_every))
    assert_array_equal(s.state, [5 + 6 + np.arange(7, 13).sum()])


# -------------------------------------------------------------------- agreement with the oracle


def oracle_spectrum(net, name, x, X, y, T, frame):
    jacobians = []
    for t in range(T):
        jacobians.append(oracles.step_jacobian(net, cases.reference(name), x, X, y, t))
        x = oracles.step(net, cases.reference(name), x, X, y, t)
    return oracles.lyapunov_growth(jacobians, frame)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("loss", cases.LOSSES)
def test_growth_agrees_with_plain_qr(loss, name):
    net, X, y, system, w = cases.training("tanh", loss, optimizer_name=name, n_samples=5)
    x = cases.state(system, w)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(system.n, system.n)))[0]
    s = pl.lyapunov_spectrum(system, x, 15, frame=frame)
    growth, last = oracle_spectrum(net, name, x, X, y, 15, frame)
    # the smallest of 17 to 51 growths carry the rounding of the largest
    assert_allclose(s.growth, growth, atol=1e-9)
    assert_allclose(np.abs(np.diag(s.frame.T @ last)), 1, atol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 4, 7, 13])
@pytest.mark.parametrize("depth", [1, 3])
def test_few_vectors_agree_with_plain_qr(depth, k):
    net, X, y, system, w = cases.training("softplus", "cross_entropy", depth, n_samples=5)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(system.n, k)))[0]
    s = pl.lyapunov_spectrum(system, w, 25, frame=frame)
    growth, last = oracle_spectrum(net, "plain", w, X, y, 25, frame)
    assert_allclose(s.growth, growth, atol=1e-11)
    assert_allclose(s.frame, last, atol=1e-10)


def test_the_iris_network_agrees_with_the_oracle():
    system = cases.iris(lr=1.0)
    net, X, y = system.network, system.X, system.y
    w = net.init("normal", seed=1)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(83, 5)))[0]
    s = pl.lyapunov_spectrum(system, w, 6, frame=frame)
    x, growth = w, []
    for _ in range(6):
        H = oracles.hessian(net, x, X, y)
        frame, R = oracles.qr_positive(frame - H @ frame)
        growth.append(np.log(np.diag(R)))
        x = x - oracles.gradient(net, x, X, y)
    assert_allclose(s.growth, growth, atol=1e-10)


@pytest.mark.parametrize(
    ("exponents", "n", "dimension"),
    [
        ([0.41922, -1.62319], None, 1 + 0.41922 / 1.62319),
        ([0.0, -1.0], None, 1.0),
        ([-0.1, -0.2], None, 0.0),
        ([0.5, -0.1, -0.2], None, 3.0),  # a peer prints 22.6 in five dimensions
        ([0.5, -0.1, -0.2], 3, 3.0),
        ([0.5, -0.1, -0.2], 7, np.nan),  # unknown: the sum has not turned yet
        ([0.5, -1.0], 7, 1.5),
        ([-0.5], 7, 0.0),
        ([0.5, -np.inf], None, 1.0),
        ([np.nan, np.nan], None, np.nan),
    ],
)
def test_kaplan_yorke_dimension(exponents, n, dimension):
    computed = pl.kaplan_yorke_dimension(np.array(exponents), n=n)
    assert_allclose(computed, dimension, rtol=1e-15)


def test_kaplan_yorke_dimension_of_a_batch():
    exponents = np.array([[[0.4, -1.6], [-1.0, -2.0]], [[0.5, 0.1], [0.1, -0.1]]])
    assert_allclose(pl.kaplan_yorke_dimension(exponents), [[1.25, 0.0], [2.0, 2.0]])


@given(seeds())
def test_kaplan_yorke_dimension_agrees_with_the_oracle(seed):
    rng = np.random.default_rng(seed)
    exponents = np.sort(rng.normal(rng.uniform(-1, 1), size=rng.integers(1, 9)))[::-1]
    assert_allclose(
        pl.kaplan_yorke_dimension(exponents), oracles.kaplan_yorke(exponents), rtol=1e-13
    )


# -------------------------------------------------------------------------------------- limits


def test_a_run_that_leaves_the_finite_numbers_has_nan_from_there_on():
    net = pl.Network((1, 1))  # w ← (1 − lr h) w with h up to 2: overflows soon
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=1e30))
    s = pl.lyapunov_spectrum(system, np.array([1.0, 1.0]), 40, record_every=1)
    assert s.status == 1
    assert 5 <= s.n_done < 15  # a factor 2e30 a step, 1e308 in about ten
    # weights, not growth, overflow: each finished step has its growth
    assert np.isfinite(s.growth[: s.n_done, 0]).all()
    assert np.isnan(s.growth[s.n_done :]).all()
    assert np.isnan(s.exponents).all()
    assert np.isnan(s.stderr).all()
    assert not np.isfinite(s.loss[-1])


def test_a_user_map_that_diverges_has_nan_from_there_on():
    def step(x):
        return x * x

    system = pl.DiscreteMap(step, lambda x: np.array([[2 * x[0]]]), 1)
    with np.errstate(over="ignore"):
        s = pl.lyapunov_spectrum(system, [10.0], 20)  # 10^(2^t) overflows at t = 9
    assert s.status == 1
    assert s.n_done == 8
    assert np.isfinite(s.growth[:8]).all()
    assert np.isnan(s.growth[9:]).all()
    assert np.isnan(s.exponents[0])


def test_a_run_that_diverges_during_its_transient_says_so():
    system = pl.TrainingMap(pl.Network((1, 1)), [[1.0]], [0.0], pl.GradientDescent(lr=1e30))
    s = pl.lyapunov_spectrum(system, np.array([1.0, 1.0]), 10, n_transient=100)
    assert s.status == 1
    assert np.isnan(s.growth).all()
    assert np.isnan(s.exponents).all()


def test_one_record_has_no_error_bar():
    *_, system, w = cases.training()
    s = pl.lyapunov_spectrum(system, w, 1, k=2)
    assert s.growth.shape == (1, 2)
    assert np.isnan(s.stderr).all()
    assert not s.trend.any()


def test_growth_may_use_the_whole_range_of_floats():
    s = pl.lyapunov_spectrum(cases.linear(1e200, 1.0, 1e-200), np.zeros(3), 5, frame=np.eye(3))
    assert_allclose(s.exponents, np.log([1e200, 1.0, 1e-200]), rtol=1e-13, atol=1e-13)
    assert s.status == 0
    random = pl.lyapunov_spectrum(cases.linear(1e200, 1e100), np.zeros(2), 5, n_transient=3)
    assert_allclose(random.exponents, np.log([1e200, 1e100]), rtol=1e-13)


def test_growth_between_orthonormalisations_is_not_bounded_by_the_range_of_floats():
    net = pl.Network((1, 1))
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=10.0))
    s = pl.lyapunov_spectrum(system, [0.0, 0.0], 2000, k=1, qr_every=1000, n_transient=1000)
    assert s.status == 0
    assert_allclose(s.exponents, [np.log(19)], rtol=1e-14)  # 19^1000 between two


def test_a_jacobian_that_overflows_is_not_a_destroyed_direction():
    for J in (np.inf, np.nan):
        broken = pl.DiscreteMap(lambda x: x, lambda x, J=J: np.array([[J]]), 1)
        for qr_every in (1, 5):
            s = pl.lyapunov_spectrum(broken, [0.0], 20, qr_every=qr_every)
            assert s.status == 1
            assert np.isnan(s.exponents[0])


def test_adam_has_the_rates_of_its_moments_in_a_dead_unit():
    net = pl.Network((2, 3, 1), activation="relu")
    w = cases.weights(net, 0.5)
    w[DEAD[:3]] = [0.1, 0.2, -50.0]
    system = pl.TrainingMap(net, *cases.data(net, 20), pl.Adam())
    rows = np.concatenate([DEAD, 26 + np.array(DEAD), 13 + np.array(DEAD)])
    s = pl.lyapunov_spectrum(system, w, 25, frame=np.eye(39)[:, rows])
    assert_array_equal(s.exponents[:4], np.zeros(4))
    expected = np.log(np.repeat([0.999, 0.9], 4))
    assert_allclose(s.exponents[4:], expected, rtol=1e-12)  # rounding of 1 is 1e-13 of ln 0.999


@pytest.mark.parametrize("layers", [(3, 4, 3), (2, 3, 3, 2)])
def test_methods_agree_with_the_oracle_over_a_thousand_contracting_steps(layers):
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    X, y = cases.data(net, 8)
    options = {"lr": 0.1, "weight_decay": 0.3}
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(**options))
    w = cases.weights(net, runs=3)
    frame = np.linalg.qr(np.random.default_rng(0).normal(size=(system.n, 6)))[0]
    dense, free = (
        pl.lyapunov_spectrum(system, w, 1000, frame=frame, method=method)
        for method in ("dense", "matrix-free")
    )
    assert (dense.exponents < 0).all()
    assert_allclose(free.exponents, dense.exponents, rtol=0, atol=1e-11)
    x, growth = w[1], np.zeros(6)
    optimizer = oracles.GradientDescent(**options)
    for _ in range(1000):
        columns = oracles.complex_step(
            lambda c, x=x, Q=frame: oracles.step(net, optimizer, x + Q @ c, X, y), np.zeros(6)
        )  # J Q
        frame, R = oracles.qr_positive(columns)
        growth += np.log(np.diag(R))
        x = oracles.step(net, optimizer, x, X, y)
    assert_allclose(dense.exponents[1], growth / 1000, rtol=0, atol=1e-11)


def test_methods_agree():
    *_, system, w = cases.training("gelu", "cross_entropy", 2, n_samples=20)
    default = pl.lyapunov_spectrum(system, w, 20, k=4)
    for method in ("dense", "matrix-free"):
        s = pl.lyapunov_spectrum(system, w, 20, k=4, method=method)
        assert_allclose(s.growth, default.growth, atol=1e-11)
        assert_array_equal(s.state, default.state)


def test_the_cocycle_of_sgd_at_an_interpolating_minimum():
    # Where every sample is fitted exactly all minibatches share the fixed point: the state rests,
    # and the tangent is a product of random matrices I - lr H_B, known for a linear model.
    rng = np.random.default_rng(5)
    X = rng.normal(size=(12, 20))  # fewer samples than weights
    w = rng.normal(size=21)
    net = pl.Network((20, 1))
    lr, steps, k = 0.1, 300, 12
    system = pl.TrainingMap(
        net, X, X @ w[:20] + w[20], pl.GradientDescent(lr=lr, batch_size=3, seed=2)
    )
    assert_allclose(system.trajectory(w, 50)[-1], w, rtol=1e-12)
    s = pl.lyapunov_spectrum(system, w, steps, k, n_transient=50)
    X1 = np.column_stack([X, np.ones(12)])
    Q, growth = pl.lyapunov_spectrum(system, w, 1, k).frame, np.zeros(k)
    for t in range(1, 50 + steps):
        batch = X1[system.batch(t)]
        Q, R = oracles.qr_positive(Q - lr * batch.T @ (batch @ Q) / len(batch))
        growth += np.log(np.diag(R)) * (t >= 50)
    assert_allclose(s.exponents, growth / steps, atol=1e-9)
    assert_allclose(s.exponents[:9], 0.0, atol=3e-3)  # no sample sees them; the frame still turns
    assert (s.exponents[9:] < -5e-3).all()
    unstable = pl.TrainingMap(
        net, X, X @ w[:20] + w[20], pl.GradientDescent(lr=1.0, batch_size=3, seed=2)
    )
    assert pl.lyapunov_spectrum(unstable, w, 20, 1).exponents[0] > 0.1  # before rounding grows


# ------------------------------------------------------------------------- the start frame


def rotated(system, seed=0):
    """The same constant Jacobian in another orthonormal basis."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(system.n, system.n)))[0]
    J = basis @ system.jacobian(np.zeros(system.n)) @ basis.T
    return pl.DiscreteMap(lambda x: x, lambda x: J, system.n)


def triangular(seed):
    """A constant upper triangular Jacobian with a sorted diagonal, and its exponents."""
    rng = np.random.default_rng(seed)
    rates = -np.sort(-rng.uniform(-0.5, 0.5, 4)) + np.array([0.3, 0.1, -0.1, -0.3])
    J = np.diag(np.exp(rates)) + np.triu(rng.normal(size=(4, 4)), 1)
    return pl.DiscreteMap(lambda x: x, lambda x: J, 4), rates


KNOWN = {
    "diagonal": lambda seed: (cases.linear(1.1, 0.8), np.log([1.1, 0.8])),
    "rotated": lambda seed: (rotated(cases.linear(1.1, 0.8), seed), np.log([1.1, 0.8])),
    "three": lambda seed: (rotated(cases.linear(1.2, 0.9, 0.7), seed), np.log([1.2, 0.9, 0.7])),
    "cat": lambda seed: (cases.cat(), np.log((3 + np.array([1, -1]) * np.sqrt(5)) / 2)),
    "triangular": triangular,
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("steps", [40, 100])
def test_alignment_error_contains_what_a_random_start_frame_costs(name, steps):
    # an estimate for 98 % of the frames: of 40 draws at most 4 miss in 999 of 1000 cases
    inside = []
    for seed in range(40):
        system, true = KNOWN[name](seed)
        for transient in (0, 5):
            x = np.full(system.n, 0.1)
            s = pl.lyapunov_spectrum(system, x, steps, n_transient=transient, seed=seed)
            assert s.alignment_error.shape == true.shape
            assert (s.alignment_error <= 10 / steps).all()
            inside.append(np.abs(s.exponents - true) <= s.alignment_error + 1e-12)
    assert np.mean(inside) >= 0.95
    assert (np.mean(inside, axis=0) >= 0.9).all()


def test_the_mean_error_of_random_frames_is_that_of_the_docstring():
    error = [
        pl.lyapunov_spectrum(cases.linear(2.0, 1.0, 0.5), np.zeros(3), 50, seed=seed).exponents
        - np.log([2.0, 1.0, 0.5])
        for seed in range(400)
    ]
    i = np.arange(1, 4)
    expected = (digamma(i / 2) - digamma((4 - i) / 2)) / (2 * 50)
    assert_allclose(np.mean(error, axis=0), expected, atol=4 * np.std(error) / np.sqrt(400))


@pytest.mark.parametrize("name", ["diagonal", "rotated", "three", "cat"])
@pytest.mark.parametrize("k", [1, None])
def test_an_aligned_frame_gives_the_exponents_of_normal_jacobians(name, k):
    system, true = KNOWN[name](3)
    x = np.full(system.n, 0.1)
    s = pl.lyapunov_spectrum(system, x, 100, k, frame="aligned")
    # what 100 steps leave of the next direction, squared: at most (0.8 / 1.1)^200
    assert_allclose(s.exponents, true[: s.exponents.size], atol=1e-12)
    assert (s.alignment_error < 1e-6).all()
    assert s.settings["frame"] == "aligned"
    assert s.settings["aligned_over"] == 100


@pytest.mark.parametrize("case", ["henon", "plain", "heavy_ball"])
@pytest.mark.parametrize("k", [1, None])
def test_an_aligned_frame_grows_by_the_singular_values_of_all_steps(case, k):
    if case == "henon":
        system, x = cases.henon(), np.array([0.1, 0.1])
    else:
        *_, system, x = cases.training("tanh", "mse", 1, case)
    steps = 20
    s = pl.lyapunov_spectrum(system, x, steps, k, frame="aligned", qr_every=2, start=3)
    svd = pl.ftle(system, x, steps, steps, kind="svd", start=3)[0]
    # QR iteration leaves at most 0.2 / 8 nats of directions that the steps hardly separate
    assert_allclose(s.exponents, svd[: s.exponents.size], atol=0.025 / steps)


def test_aligned_frames_of_batches_are_each_runs_own():
    net = pl.Network((2, 4, 1), activation="relu")
    X, y = cases.data(net, 20)
    w = cases.weights(net, 0.5, runs=3)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[0.1, 0.5, 3e9]))
    s = pl.lyapunov_spectrum(system, w, 12, 2, frame="aligned", n_transient=4)
    assert s.status.tolist() == [0, 0, 1]
    assert np.isfinite(s.exponents[:2]).all()
    assert s.settings["aligned_over"] == 16
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.5))
    alone = pl.lyapunov_spectrum(system, w[1], 12, 2, frame="aligned", n_transient=4)
    assert_array_equal(alone.exponents, s.exponents[1])
    assert_array_equal(alone.alignment_error, s.alignment_error[1])


def test_alignment_error_of_the_kinds_of_runs():
    system, x = cases.henon(), np.array([0.1, 0.1])
    long = pl.lyapunov_spectrum(system, x, 100, n_transient=100)
    assert (long.alignment_error < 1e-12).all()  # all that k = n vectors need was seen
    one = pl.lyapunov_spectrum(system, x, 100, 1, n_transient=100)
    assert one.alignment_error == pl.lyapunov_spectrum(system, x, 100, 1).alignment_error
    given = pl.lyapunov_spectrum(system, x, 100, frame=np.eye(2))
    assert np.isnan(given.alignment_error).all()
    assert pl.lyapunov_spectrum(cases.logistic(), np.array([0.3]), 10).alignment_error == 0
    short = pl.lyapunov_spectrum(cases.linear(1.1, 0.8), np.zeros(2), 100)
    assert "without a transient: error of up to 0.03 due to the start frame" in repr(short)
    assert "start frame" not in repr(long)
    rng = np.random.default_rng(0)
    seeds = [np.random.default_rng(0), rng]
    a, b = (
        pl.lyapunov_spectrum(system, x, 50, frame="aligned", seed=seed).exponents for seed in seeds
    )
    assert_array_equal(a, b)
    with pytest.raises(ValueError, match="frame must be"):
        pl.lyapunov_spectrum(system, x, 10, frame="singular")
    wide = pl.DiscreteMap(lambda x: x, lambda x: x, n=10**6)
    with pytest.raises(ValueError, match="frame='aligned' needs"):
        pl.lyapunov_spectrum(wide, np.zeros(10**6), 10, 1, frame="aligned")


@pytest.mark.parametrize("frame", [None, "aligned"])
def test_alignment_error_of_random_systems_against_a_long_past(frame):
    inside, sizes = [], []
    for case in range(45):
        kind = cases.KINDS[case % len(cases.KINDS)]
        if kind == "standard":
            continue  # regular orbits: nothing separates exponentially
        rng = np.random.default_rng([19, case])
        steps, before = int(rng.integers(20, 200)), 400
        system, x = cases.random_system(kind, rng, before + steps)
        k = system.n if case % 2 else int(rng.integers(1, system.n + 1))
        true = pl.lyapunov_spectrum(system, x, steps, k, before)
        if true.status:
            continue  # training diverged
        later = system.trajectory(x, before, every=before)[-1]
        s = pl.lyapunov_spectrum(system, later, steps, k, frame=frame, start=before, seed=case)
        alive = np.isfinite(true.exponents)  # not below the rounding of the others
        error = np.abs(s.exponents[alive] - true.exponents[alive])
        inside.append(error <= s.alignment_error[alive] + 1e-12)
        sizes.append(s.alignment_error * steps)
    assert np.concatenate(inside).mean() >= 0.93  # 98 and 95 % of 1594; here of 250
    assert np.median(np.concatenate(sizes)) < 6.0  # of order 1 / T


# ----------------------------------------------------- growth beyond the range of a double


def times(factor, n=3):
    """x -> 0 with the Jacobian `factor` times a matrix, not symmetric, of order one."""
    J = factor * (np.random.default_rng(5).normal(size=(n, n)) + 2 * np.eye(n))
    return pl.DiscreteMap(lambda x: 0 * x, lambda x: J, n)


@pytest.mark.parametrize("qr_every", [1, 2, 4, 12])
@pytest.mark.parametrize("power", [-900, -500, -30, 30, 500, 900])
def test_a_power_of_two_in_the_map_adds_its_log_to_all_exponents(power, qr_every):
    # It multiplies every number of the frame exactly: the orthonormal frame keeps its bits.
    x = np.zeros((3, 3))
    plain, scaled = (
        pl.lyapunov_spectrum(times(f), x, 24, qr_every=qr_every, n_transient=6)
        for f in (1.0, 2.0**power)
    )
    assert_array_equal(scaled.status, [0, 0, 0])
    assert_array_equal(scaled.frame, plain.frame)
    expected = plain.growth + qr_every * power * np.log(2)
    assert_allclose(scaled.growth, expected, rtol=1e-14)  # the rounding of three logs and a sum


@pytest.mark.parametrize("n_steps", [750, 1500, 15_000])
def test_the_doubling_map_between_two_orthonormalisations_far_apart(n_steps):
    doubling = pl.DiscreteMap(lambda x: 2 * x % 1, lambda x: np.array([[2.0]]), 1)
    s = pl.lyapunov_spectrum(doubling, [0.3], 2 * n_steps, qr_every=n_steps, n_transient=n_steps)
    assert s.status == 0
    assert_allclose(s.exponents, [np.log(2)], rtol=1e-15)


def test_runs_that_overflow_do_not_affect_other_lanes():
    # the state is the log2 of the factor; of nan the third run is lost
    def step(x):
        return (x[0] + 0.0, x[1])

    def jacobian(x):
        factor = 2.0 ** x[0]
        return (factor, 0.5 * factor), (0.0, 0.5 * factor)

    system = pl.DiscreteMap(step, jacobian, 2, compiled=True)
    powers = np.array([0.0, 1.0, 2000.0, -300.0, 300.0, 0.0, -1000.0, 5.0, 900.0])
    x = np.stack([powers, np.zeros(9)], axis=1)
    s = pl.lyapunov_spectrum(system, x, 24, qr_every=8)
    c = pl.covariant_lyapunov_vectors(system, x, 24, n_transient=8, n_tail=8, qr_every=8, every=8)
    expected = np.zeros(9, int)
    expected[2] = 1  # its Jacobian is infinite
    assert_array_equal(s.status, expected)
    assert_array_equal(c.status, expected)
    for run in np.flatnonzero(expected == 0):
        assert_array_equal(
            s.growth[run], pl.lyapunov_spectrum(system, x[run], 24, qr_every=8).growth
        )
        assert_array_equal(s.frame[run], s.frame[0])
        shift = 8 * powers[run] * np.log(2)
        # of a sum that may cancel the rounding of its terms is left
        assert_allclose(s.growth[run], s.growth[0] + shift, rtol=1e-14, atol=1e-14 * abs(shift))
        # logs of order 1e4 are added up; the vectors are solved for in another order of operations
        assert_allclose(c.growth[run], c.growth[0] + shift, rtol=1e-13, atol=1e-11)
        assert_allclose(c.vectors[run], c.vectors[0], atol=1e-12)
        assert (c.residual[run] < 1e-12).all()


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
def test_training_whose_tangents_leave_the_range(method):
    # At the minimum of a quadratic the state stays, J = I - lr H: with lr = 1e100 that is -lr H to
    # the last bit.
    qr_every, lr = 5, 1e100
    system, h = cases.quadratic_bowl(np.array([64.0, 8.0]), lr)
    options = {"qr_every": qr_every, "n_transient": 40, "method": method}
    s = pl.lyapunov_spectrum(system, np.zeros((2, 3)), 20, **options)
    expected = np.log(lr * np.sort(h)[::-1])
    assert_array_equal(s.status, [0, 0])
    assert_allclose(s.exponents, np.stack([expected] * 2), rtol=1e-13)
    c = pl.covariant_lyapunov_vectors(
        system, np.zeros(3), 20, n_tail=20, every=qr_every, delay=10, **options
    )
    assert_allclose(c.exponents, expected, rtol=1e-13)
    assert (c.residual < 1e-13).all()
    assert_allclose(np.abs(c.vectors), np.stack([np.eye(3)] * 5), atol=1e-12)
    assert (c.early_error < 8.0**-8).all()  # the neighbour above decays as 8 per step


def test_a_direction_below_the_resolution_of_one_step_is_destroyed():
    # a documented limit: ln 1e-20 = -46.05 is right
    J = np.array([[1.0, 1.0], [0.0, 1e-20]])
    system = pl.DiscreteMap(lambda x: 0 * x, lambda x: J, 2)
    s = pl.lyapunov_spectrum(system, [0.0, 0.0], 1, frame=np.eye(2))
    assert_array_equal(s.exponents, [0.0, -np.inf])
