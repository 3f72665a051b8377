"""Maps of the user in every analysis: known answers, batches, time, what is refused."""

import pickle
import re
from pathlib import Path

import cases
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

RNG = np.random.default_rng(0)

# ------------------------------------------------------------------------------------------- maps


def mixed(f, coupling=0.3):
    """Diffusive coupling along the second axis, of a batch of lattices or of their frames."""
    out = (1.0 - coupling) * f
    out += 0.5 * coupling * np.roll(f, 1, axis=1)
    out += 0.5 * coupling * np.roll(f, -1, axis=1)
    return out


quietly = np.errstate(over="ignore", invalid="ignore")  # lattices may diverge


@quietly
def lattice_step(X):
    return mixed(3.9 * X * (1.0 - X))


@quietly
def lattice_tangent(X, V):
    return mixed((3.9 - 7.8 * X)[:, :, np.newaxis] * V)


@quietly
def lattice_loss(X):
    return (X**2).sum(axis=1)


def lattice(n=6, vectorized=True, **more):
    """Coupled logistic maps, for whole batches or for one state at a time, with the same bits."""
    functions = {"tangent": lattice_tangent, "loss": lattice_loss}
    if vectorized:
        return pl.DiscreteMap(lattice_step, n=n, vectorized=True, **functions | more)
    return pl.DiscreteMap(
        lambda x: lattice_step(x[np.newaxis])[0],
        n=n,
        tangent=lambda x, V: lattice_tangent(x[np.newaxis], V[np.newaxis])[0],
        loss=lambda x: lattice_loss(x[np.newaxis])[0],
    )


class Copy:
    """A training of a small network from its formulas in NumPy, as a plain class."""

    def __init__(self, name="plain"):
        self.net, self.rule = pl.Network((2, 3, 1)), cases.reference(name)
        self.X, self.y = cases.data(self.net, 9)
        self.same = pl.TrainingMap(self.net, self.X, self.y, cases.optimizer(name))
        self.n, self.n_params = self.same.n, self.same.n_params
        self.optimizer = self.same.optimizer
        self.w = cases.weights(self.net, 0.5, runs=3)

    def step(self, x, t=0):
        return oracles.step(self.net, self.rule, x, self.X, self.y, t)

    def tangent(self, x, V, t=0):
        return oracles.step_jacobian(self.net, self.rule, x, self.X, self.y, t) @ V

    def loss(self, x):
        return oracles.loss(self.net, x[: self.n_params], self.X, self.y)

    def hessian_vector(self, x, V):
        return oracles.hessian(self.net, x[: self.n_params], self.X, self.y) @ V


class Quadratic:
    """Gradient descent on x·H x/2."""

    def __init__(self, n=6):
        self.n = n
        basis = np.linalg.qr(np.random.default_rng(1).normal(size=(n, n)))[0]
        self.H = basis * np.linspace(-1.0, 3.0, n) @ basis.T
        self.optimizer = pl.GradientDescent(lr=0.2, weight_decay=0.1)

    def step(self, x, t=0):
        return x - 0.2 * (self.H @ x + 0.1 * x)

    def tangent(self, x, V, t=0):
        return V - 0.2 * (self.H @ V + 0.1 * V)

    def loss(self, x):
        return 0.5 * x @ self.H @ x

    def hessian_vector(self, x, V):
        return self.H @ V


# ---------------------------------------------------------------------------------- known answers


def test_a_lattice_of_bernoulli_maps_has_the_exponents_of_its_circulant_jacobian():
    # ln 2 + ln |1 - c (1 - cos 2πj/N)|, j = 0 ... N - 1: eigenvalues of the coupling.
    n, c = 8, 0.3
    system = pl.DiscreteMap(
        lambda X: mixed(2.0 * X % 1.0, c), tangent=lambda X, V: mixed(2.0 * V, c), n=n,
        vectorized=True,
    )  # fmt: skip
    found = pl.lyapunov_spectrum(system, RNG.random((3, n)), 10, n_transient=400)
    known = np.log(2) + np.log(np.abs(1 - c * (1 - np.cos(2 * np.pi * np.arange(n) / n))))
    assert_allclose(found.exponents, np.tile(-np.sort(-known), (3, 1)), atol=1e-12)


def test_uncoupled_logistic_maps_have_exponents_of_ln_2():
    system = pl.DiscreteMap(
        lambda X: 4.0 * X * (1.0 - X),
        tangent=lambda X, V: (4.0 - 8.0 * X)[:, :, np.newaxis] * V,
        n=3,
        vectorized=True,
    )
    found = pl.lyapunov_spectrum(system, RNG.random((20, 3)), 4000, n_transient=50)
    mean, error = found.exponents.mean(axis=0), np.sqrt((found.stderr**2).mean(axis=0) / 20)
    assert_allclose(mean.sum(), 3 * np.log(2), atol=4 * np.sqrt((error**2).sum()))
    assert_allclose(mean, np.log(2), atol=0.02)


@pytest.mark.parametrize("vectorized", [False, True])
def test_small_perturbations_grow_as_the_tangent_vector(vectorized):
    system, x0 = lattice(vectorized=vectorized), RNG.random((2, 6))
    frame = np.linalg.qr(RNG.normal(size=(6, 1)))[0]
    s = pl.lyapunov_spectrum(system, x0, 20, frame=frame)
    e = pl.perturbation_ensemble(system, x0, 1e-9, 1, 20, distribution=frame, norm="l2")
    growth = np.exp(np.cumsum(s.growth[..., 0], axis=-1))
    assert_allclose(e.distances[:, 0, 1:] / 1e-9, growth, rtol=1e-3)  # eps times the growth


def test_perturbations_of_the_henon_map_grow_by_its_exponent():
    # 0.41922: Sprott, Chaos and Time-Series Analysis (2003).
    x0 = cases.henon().trajectory(RNG.uniform(-0.1, 0.1, (40, 2)), 100, every=100)[:, -1]
    c = pl.compare_growth(cases.henon(), x0, 1e-12, 2, 50)
    slope = c.until_saturation.slope[:, 0]
    assert_allclose(slope.mean(), 0.41922, atol=4 * slope.std() / np.sqrt(40))
    assert_allclose(c.exponent.mean(), 0.41922, atol=4 * c.exponent.std() / np.sqrt(40))
    assert c.settings["perturb"] == "all"


def test_sharpness_of_a_quadratic():
    system, x = Quadratic(), RNG.normal(size=(2, 3, 6))
    found = pl.sharpness(system, x)
    assert_allclose(found.value, 3.0, rtol=1e-8)
    assert_allclose(found.ratio, 0.2 * (3.0 + 0.1) / 2, rtol=1e-8)
    assert_allclose(np.abs(np.linalg.eigh(system.H)[1][:, -1] @ found.vector[0, 0]), 1, rtol=1e-8)
    everything = pl.hessian_spectrum(system, x)
    known = np.broadcast_to(np.linalg.eigvalsh(system.H)[::-1], (2, 3, 6))
    assert_allclose(everything.eigenvalues, known, atol=1e-13)
    along = pl.sharpness_along(system, x[0], 6, every=3)
    assert along.value.shape == (3, 3)
    assert_allclose(along.value, 3.0, rtol=1e-6)
    system.optimizer = None
    assert np.isnan(pl.sharpness(system, x).ratio).all()
    system.optimizer = pl.GradientDescent(lr=np.ones(4))
    with pytest.raises(ValueError, match="x must have a batch"):
        pl.sharpness(system, x)


@pytest.mark.parametrize("name", ["plain", "heavy_ball_decay", "adam"])
def test_a_class_with_the_formulas_of_a_training_gives_its_results(name):
    mine = Copy(name)
    same, w = mine.same, mine.w
    options = {"n_steps": 30, "k": 4, "n_transient": 3, "seed": 3}
    a, b = (pl.lyapunov_spectrum(system, w, **options) for system in (mine, same))
    assert_allclose(a.exponents, b.exponents, rtol=1e-9)
    assert_allclose(a.loss, b.loss, rtol=1e-12)
    assert_allclose(a.state, b.state, atol=1e-13)
    options = {"n_steps": 10, "losses": True, "path_lengths": True, "states": True, "start": 2}
    a, b = (pl.perturbation_ensemble(system, w, 1e-3, 3, **options) for system in (mine, same))
    for part in ("distances", "losses", "path_lengths", "states"):
        assert_allclose(getattr(a, part), getattr(b, part), rtol=1e-9, atol=1e-13)
    a, b = (pl.travel(system, w, 10, every=5) for system in (mine, same))
    for part in ("displacement", "path_length", "norm"):
        assert_allclose(getattr(a, part), getattr(b, part), rtol=1e-9)
    a, b = (pl.sharpness_along(system, w, 4, every=2) for system in (mine, same))
    assert_allclose(a.value, b.value, rtol=1e-8)
    assert_allclose(a.ratio, b.ratio, rtol=1e-8)  # nan for Adam
    x = same.state(w)
    assert_allclose(
        pl.hessian_spectrum(mine, x).eigenvalues, pl.hessian_spectrum(same, x).eigenvalues,
        atol=1e-12,
    )  # fmt: skip
    first = np.arange(6)  # weights of the first layer, which is 2-3
    assert_allclose(
        pl.knock_out(mine, x)[:, first].reshape(3, 3, 2), pl.knock_out(same, x), rtol=1e-9
    )
    vectors = {"n_steps": 5, "k": 2, "n_transient": 20, "n_tail": 20}
    a, b = (pl.covariant_lyapunov_vectors(system, w, **vectors) for system in (mine, same))
    assert_allclose(a.growth, b.growth, atol=1e-6)
    assert_array_equal(a.settings["seed"], b.settings["seed"])


def test_start_frames_are_the_same_for_every_map():
    class Identity(Quadratic):
        def tangent(self, x, V, t=0):
            return V

    one = pl.lyapunov_spectrum(Identity(6), np.zeros(6), 1, 3, seed=5).frame
    two = pl.lyapunov_spectrum(
        pl.DiscreteMap(lambda X: X, tangent=lambda X, V: V, n=6, vectorized=True),
        np.zeros((4, 6)), 1, 3, seed=5,
    ).frame  # fmt: skip
    three = pl.lyapunov_spectrum(
        pl.DiscreteMap(lambda x: x, lambda x: np.eye(6), 6), np.zeros(6), 1, 3, seed=5
    ).frame
    assert_allclose(two, np.broadcast_to(one, (4, 6, 3)), atol=1e-15)
    assert_allclose(three, one, atol=1e-15)


# ---------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 3, "n_transient": 5, "qr_every": 4, "record_every": 12},
        {"k": 1, "n_transient": 2, "qr_every": 3},
        {"k": 1, "qr_every": 120},  # growth beyond 2^64, of which powers of two are factored out
        {"frame": "aligned"},
        {"tol": 0.02, "k": 2},
    ],
)
def test_a_vectorized_map_has_the_bits_of_the_loop(options):
    x0 = RNG.random((5, 6))
    x0[2] = 7.0  # diverges
    many, one = (
        pl.lyapunov_spectrum(lattice(vectorized=v), x0, 120, **options) for v in (True, False)
    )
    parts = ("growth", "loss", "state", "frame", "status", "n_done", "transient_growth")
    for part in parts:
        assert_array_equal(getattr(many, part), getattr(one, part), err_msg=part)
    assert_array_equal(many.status == pl.Status.DIVERGED, np.arange(5) == 2)
    alone = pl.lyapunov_spectrum(lattice(), x0[4], 120, **options)
    for part in parts:
        assert_array_equal(getattr(alone, part), getattr(many, part)[4], err_msg=part)


def test_other_analyses_of_a_vectorized_map_have_the_bits_of_the_loop():
    x0 = RNG.random((2, 3, 6))
    x0[1, 1] = 7.0
    many, loop = lattice(), lattice(vectorized=False)
    for call in (
        lambda s: pl.ftle(s, x0, 40, 10, k=3),
        lambda s: pl.ftle(s, x0, 40, 10, 5, "svd", k=6),
        lambda s: pl.gali(s, x0, 24, 4, record_every=3),
        lambda s: pl.covariant_lyapunov_vectors(s, x0, 6, 3, 10, 10).vectors,
        lambda s: pl.perturbation_ensemble(s, x0, [0.0, 1e-3], 3, 12, start=2).distances,
        lambda s: pl.perturbation_ensemble(s, x0, 1e-3, 3, 12, losses=True).losses,
        lambda s: pl.compare_growth(s, x0, 1e-6, 2, 40).until_saturation.slope,
        lambda s: pl.travel(s, x0, 12, every=3).norm,
        lambda s: pl.knock_out(s, x0),
    ):
        assert_array_equal(call(many), call(loop))


def test_without_a_perturbation_distances_are_exactly_zero():
    x0 = RNG.random((2, 6))
    for system in (lattice(), lattice(vectorized=False), cases.henon()):
        e = pl.perturbation_ensemble(system, 0.1 * x0[:, : system.n], 0.0, 5, 30)
        assert (e.distances == 0).all()


def test_more_threads_change_no_bit():
    n, k = 400, 20
    x0 = RNG.random((8, n))
    one, two = (pl.lyapunov_spectrum(lattice(n), x0, 6, k, threads=t) for t in (1, 2))
    assert_array_equal(one.growth, two.growth)
    assert_array_equal(one.frame, two.frame)


def test_all_runs_make_a_step_in_one_call_without_those_that_diverged():
    sizes = []

    def step(X):
        assert np.isfinite(X).all()
        sizes.append(len(X))
        return np.where(X > 5.0, np.inf, X + 1.0)

    system = pl.DiscreteMap(step, tangent=lambda X, V: 2.0 * V, n=1, vectorized=True)
    x0 = np.array([[-90.0], *[[float(i)] for i in range(7)]])
    s = pl.lyapunov_spectrum(system, x0, 9)
    assert_array_equal(s.status, [0] + 7 * [1])
    assert_array_equal(s.n_done, [9, 6, 5, 4, 3, 2, 1, 0])
    assert_array_equal(np.isfinite(s.growth[..., 0]).sum(axis=1), s.n_done)
    assert_allclose(s.exponents[0], np.log(2), rtol=1e-14)
    assert sizes == [8, 8, 8, 8, 8, 4, 4, 2, 1, 1]  # the first step twice
    sizes.clear()
    pl.perturbation_ensemble(system, x0[:1], 1e-3, 10, 4)
    assert sizes == [11] * 5


def test_all_runs_may_diverge_and_there_may_be_none():
    s = pl.lyapunov_spectrum(lattice(), np.full((2, 6), 9.0), 50, 2)
    assert (s.status == pl.Status.DIVERGED).all()
    assert np.isnan(s.growth[:, 20:]).all()
    assert np.isnan(s.state).all()
    assert pl.lyapunov_spectrum(lattice(), np.ones((0, 6)), 4, 2).growth.shape == (0, 4, 2)
    assert pl.perturbation_ensemble(lattice(), np.ones((0, 6)), 0.1, 2, 4).distances.size == 0


def test_jacobians_of_batches_agree_with_the_loop():
    def jacobian(X):
        return mixed((3.9 - 7.8 * X)[:, :, np.newaxis] * np.eye(6))

    x0 = RNG.random((4, 6))
    one = pl.lyapunov_spectrum(lattice(), x0, 30)
    two = pl.lyapunov_spectrum(pl.DiscreteMap(lattice_step, jacobian, 6, vectorized=True), x0, 30)
    assert_allclose(two.exponents, one.exponents, rtol=1e-12)
    assert_array_equal(two.state, one.state)


def test_a_destroyed_direction_is_found_in_a_batch_of_jacobians():
    # (1, 1) becomes differences of nearly equal numbers, 5.6e-17: rounding, not growth.
    J = np.array([[0.1 + 0.2, -0.3], [0.1 + 0.2, -0.3]])
    for vectorized in (False, True):
        system = pl.DiscreteMap(
            lambda x: x,
            (lambda X: np.broadcast_to(J, (len(X), 2, 2))) if vectorized else lambda x: J,
            2,
            vectorized=vectorized,
        )
        found = pl.lyapunov_spectrum(system, np.zeros((1, 2)), 1, frame=[[1.0], [1.0]])
        assert np.isneginf(found.exponents[0, 0])


def test_sharpness_in_batches():
    q, x = Quadratic(), RNG.normal(size=(2, 3, 6))
    system = pl.DiscreteMap(
        lambda X: X - 0.2 * X @ q.H,
        n=6,
        tangent=lambda X, V: V - 0.2 * q.H @ V,
        loss=lambda X: np.einsum("mi,ij,mj->m", X, q.H, X) / 2,
        hessian_vector=lambda X, V: q.H @ V,
        vectorized=True,
    )
    assert_allclose(pl.sharpness(system, x).value, 3.0, rtol=1e-8)
    assert_allclose(pl.sharpness_along(system, x, 4, every=2).value, 3.0, rtol=1e-6)
    assert_allclose(pl.hessian_spectrum(system, x).eigenvalues[..., 0], 3.0, rtol=1e-12)
    assert_allclose(pl.knock_out(system, x), pl.knock_out(q, x), rtol=1e-12)


def test_only_step_or_only_tangent_in_batches():
    class StepOnly(Quadratic):
        def step_batch(self, X, t):
            return X - 0.2 * (X @ self.H + 0.1 * X)

    class TangentOnly(Quadratic):
        def tangent_batch(self, X, V, t):
            return V - 0.2 * (self.H @ V + 0.1 * V)

        def loss_batch(self, X):
            return 0.5 * np.einsum("mi,ij,mj->m", X, self.H, X)

    x0 = RNG.normal(size=(3, 6))
    results = [pl.lyapunov_spectrum(s(), x0, 20) for s in (Quadratic, StepOnly, TangentOnly)]
    for other in results[1:]:
        for part in ("exponents", "loss", "state"):
            assert_allclose(getattr(other, part), getattr(results[0], part), rtol=1e-12)


# -------------------------------------------------------------------------------------------- time


def test_a_map_may_depend_on_the_index_of_the_step():
    factors = np.exp(np.random.default_rng(3).normal(size=40))
    single = pl.DiscreteMap(lambda x, t: factors[t] * x, lambda x, t: [[factors[t]]], 1)
    tangent = pl.DiscreteMap(
        lambda x, t: factors[t] * x, n=1, tangent=lambda x, V, t: factors[t] * V
    )
    vectorized = pl.DiscreteMap(
        lambda X, t: factors[t] * X, n=1, tangent=lambda X, V, t: factors[t] * V, vectorized=True
    )
    for system in (single, tangent, vectorized):
        s = pl.lyapunov_spectrum(system, [[1.0]], 20, start=7, n_transient=3)
        assert_allclose(s.growth[0, :, 0], np.log(factors[10:30]), rtol=1e-12)
        assert_allclose(s.state[0, 0], factors[7:30].prod(), rtol=1e-12)
        e = pl.perturbation_ensemble(system, [1.0], 1e-3, 1, 10, start=4)
        assert_allclose(e.distances[0] / e.distances[0, 0], [1, *factors[4:14].cumprod()])
        assert_allclose(pl.travel(system, [1.0], 5, start=2).norm, [1, *factors[2:7].cumprod()])
        assert_allclose(system.trajectory([1.0], 4, start=6)[:, 0], [1, *factors[6:10].cumprod()])
        assert_allclose(system.step([2.0], t=5), 2 * factors[5:6])
        assert_allclose(system.jacobian([2.0], t=5), factors[5:6, np.newaxis])
        assert_allclose(system.tangent([2.0], [3.0], t=5), 3 * factors[5:6])
        c = pl.covariant_lyapunov_vectors(system, [1.0], 10, n_transient=0, n_tail=5, start=2)
        assert_allclose(c.growth[:, 0], np.log(factors[2:12]), rtol=1e-9)


def test_what_takes_the_index_is_decided_by_the_signature():
    def with_default(x, a=2.0):
        return a * x

    def named(x, t=0):
        return (2.0 + t) * x

    system = pl.DiscreteMap(with_default, lambda x: [[2.0]], 1)
    assert system.step([1.0], t=5) == 2.0
    assert pl.DiscreteMap(named, lambda x: [[2.0]], 1).step([1.0], t=5) == 7.0
    assert pl.DiscreteMap(np.negative, lambda x: [[-1.0]], 1).step([1.0], t=5) == -1.0


# --------------------------------------------------------------------------------- what is refused


def noisy(x):
    return x + np.random.default_rng().normal(size=x.shape)


class Counter:
    """A step that keeps a state of its own."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return x + self.calls


class Reusing:
    """A random step that returns the same array each time."""

    out = None

    def __call__(self, x):
        self.out = np.empty_like(x) if self.out is None else self.out
        self.out[:] = noisy(x)
        return self.out


ANALYSES = {
    "spectrum": lambda s, x: pl.lyapunov_spectrum(s, x, 4),
    "ftle": lambda s, x: pl.ftle(s, x, 4, 2),
    "gali": lambda s, x: pl.gali(s, x, 4),
    "covariant": lambda s, x: pl.covariant_lyapunov_vectors(s, x, 4, n_transient=2, n_tail=2),
    "ensemble": lambda s, x: pl.perturbation_ensemble(s, x, 1e-3, 2, 4),
    "comparison": lambda s, x: pl.compare_growth(s, x, 1e-3, 2, 40),
    "travel": lambda s, x: pl.travel(s, x, 4),
}
REFUSED = r"^system must be deterministic: two calls of {} .* different results \(largest diff.*t,"


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize("analysis", ANALYSES)
def test_random_and_stateful_steps_are_refused(analysis, vectorized):
    x0 = np.zeros((2, 3))
    for step in (noisy, Counter(), Reusing()):
        system = pl.DiscreteMap(step, n=3, tangent=lambda x, V: 2.0 * V, vectorized=vectorized)
        with pytest.raises(pl.ArgumentError, match=REFUSED.format("step")) as caught:
            ANALYSES[analysis](system, x0)
        assert caught.value.argument == "system"


@pytest.mark.parametrize("vectorized", [False, True])
def test_random_derivatives_and_losses_are_refused(vectorized):
    def run(**functions):
        given = {"tangent": lambda x, V: 2.0 * V} | functions
        system = pl.DiscreteMap(lambda x: x + 1.0, n=3, vectorized=vectorized, **given)
        pl.lyapunov_spectrum(system, np.zeros((2, 3)), 4)

    run()
    for name, function in (
        ("tangent", lambda x, V: noisy(V)),
        ("loss", lambda x: noisy(x).sum(axis=-1)),
        ("jacobian", lambda x: noisy(np.ones((*x.shape, 3)))),
    ):
        given = {name: function} | ({"tangent": None} if name == "jacobian" else {})
        with pytest.raises(pl.ArgumentError, match=REFUSED.format(name)):
            run(**given)
    random = Quadratic()
    random.hessian_vector = lambda x, V: noisy(V)
    with pytest.raises(pl.ArgumentError, match=REFUSED.format("hessian_vector")):
        pl.sharpness(random, np.zeros(6))


def test_a_map_that_is_nan_twice_is_deterministic():
    system = pl.DiscreteMap(lambda x: x * np.nan, n=1, tangent=lambda x, V: V * np.nan)
    assert pl.lyapunov_spectrum(system, [1.0], 3).status == pl.Status.DIVERGED


@pytest.mark.parametrize("vectorized", [False, True])
def test_functions_may_work_in_place_and_reuse_their_arrays(vectorized):
    kept = {}

    def step(x):
        x *= 1.0 - x
        x *= 3.7
        return x

    def reusing_step(x):
        out = kept.setdefault("x", np.empty_like(x))
        if out.shape != x.shape:
            out = kept["x"] = np.empty_like(x)
        out[:] = np.roll(3.7 * x * (1.0 - x), 1, axis=-1)
        return out

    def tangent(x, V):
        x *= -2.0
        x += 1.0
        V *= x[..., np.newaxis]
        V *= 3.7
        return V

    def reusing_tangent(x, V):
        out = kept.setdefault("V", np.empty_like(V))
        if out.shape != V.shape:
            out = kept["V"] = np.empty_like(V)
        out[:] = np.roll(3.7 * (1.0 - 2.0 * x)[..., np.newaxis] * V, 1, axis=-2)
        return out

    def pure_tangent(x, V):
        return (-2.0 * x + 1.0)[..., np.newaxis] * V * 3.7

    def make(step, tangent):
        return pl.DiscreteMap(step, n=3, tangent=tangent, vectorized=vectorized)

    x0 = RNG.random((4, 3))
    before = x0.copy()
    for mine, pure in (
        (make(step, tangent), make(lambda x: x * (1.0 - x) * 3.7, pure_tangent)),
        (
            make(reusing_step, reusing_tangent),
            make(
                lambda x: np.roll(3.7 * x * (1.0 - x), 1, axis=-1),
                lambda x, V: np.roll(3.7 * (1.0 - 2.0 * x)[..., np.newaxis] * V, 1, axis=-2),
            ),
        ),
    ):
        for part in ("growth", "state", "frame"):
            a, b = (
                getattr(pl.lyapunov_spectrum(s, x0, 12, qr_every=2), part) for s in (mine, pure)
            )
            assert_array_equal(a, b)
        a, b = (pl.perturbation_ensemble(s, x0, 1e-3, 3, 9, start=1) for s in (mine, pure))
        assert_array_equal(a.distances, b.distances)
        assert_array_equal(mine.trajectory(x0, 5), pure.trajectory(x0, 5))
        assert_array_equal(mine.step(x0), pure.step(x0))
        assert_array_equal(mine.tangent(x0, np.eye(3)), pure.tangent(x0, np.eye(3)))
    assert_array_equal(x0, before)


WITHOUT = {
    "sharpness": (lambda s, x: pl.sharpness(s, x), "hessian_vector for sharpness"),
    "along": (lambda s, x: pl.sharpness_along(s, x, 3), "hessian_vector for sharpness_along"),
    "spectrum": (lambda s, x: pl.hessian_spectrum(s, x), "hessian_vector for hessian_spectrum"),
    "losses": (
        lambda s, x: pl.perturbation_ensemble(s, x, 0.1, losses=True), "loss for losses=True"
    ),
    "knock_out": (lambda s, x: pl.knock_out(s, x), "loss for knock_out"),
}  # fmt: skip


@pytest.mark.parametrize("case", WITHOUT)
def test_what_needs_a_loss_says_so(case):
    call, needs = WITHOUT[case]
    message = f"^system must have a method {needs}, got DiscreteMap.*n=2.*, which has none$"
    with pytest.raises(pl.ArgumentTypeError, match=message):
        call(cases.henon(), [0.1, 0.1])


HENON, SMOOTH = cases.henon(), {"step": lambda x: x, "n": 2, "tangent": lambda x, V: V}
BAD = {
    "weights": (
        lambda: pl.perturbation_ensemble(HENON, [0, 0], 1, perturb="weights"),
        r"perturb must be 'all' or a mask of shape \(2,\) .* got 'weights'",
    ),
    "biases": (
        lambda: pl.compare_growth(HENON, [0, 0], 1, perturb="biases"), "perturb must be 'all'"
    ),
    "entries": (lambda: pl.travel(HENON, [0, 0], 3, entries="weights"), "entries must be 'all'"),
    "mask": (lambda: pl.travel(HENON, [0, 0], 3, entries=[True]), r"a mask of shape \(2,\)"),
    "many": (
        lambda: pl.perturbation_ensemble(HENON, [0, 0], 1, perturb=3), "perturb must be in 1 ... 2"
    ),
    "layer": (lambda: pl.knock_out(Quadratic(), np.ones(6), 0), "layer must be left out"),
    "method": (
        lambda: pl.lyapunov_spectrum(HENON, [0, 0], 3, method="dense"), "method must be left out"
    ),
    "train": (
        lambda: pl.train(HENON, [0, 0], 3), "system must be a TrainingMap, whose batches, data"
    ),
    "scan": (
        lambda: pl.learning_rate_scan(HENON, np.ones((3, 2)), np.ones(3), [0.1], 40),
        "network must be a Network, which the scan trains with an optimiser for each rate",
    ),
    "n": (lambda: pl.DiscreteMap(abs, abs), "n must be an integer, the length of a state"),
    "no derivative": (lambda: pl.DiscreteMap(abs, n=1), "jacobian must be callable where tangent"),
    "tangent": (lambda: pl.DiscreteMap(abs, n=1, tangent=3), "tangent must be callable, got 3"),
    "loss": (lambda: pl.DiscreteMap(**SMOOTH, loss=1.0), "loss must be callable, got 1.0"),
    "compiled t": (
        lambda: pl.DiscreteMap(lambda x, t: x, lambda x: [[1.0]], 1, compiled=True),
        "step must be a function of the state alone for compiled=True",
    ),
    "compiled tangent": (
        lambda: pl.DiscreteMap(**SMOOTH, compiled=True), "jacobian must be callable for compiled"
    ),
    "compiled loss": (
        lambda: pl.DiscreteMap(abs, abs, 1, loss=abs, compiled=True), "loss must be left out"
    ),
    "compiled batches": (
        lambda: pl.DiscreteMap(abs, abs, 1, vectorized=True, compiled=True),
        "vectorized must be False",
    ),
    "batch of step": (
        lambda: pl.lyapunov_spectrum(
            pl.DiscreteMap(lambda X: X[0], n=2, tangent=lambda X, V: V, vectorized=True),
            np.ones((3, 2)), 4,
        ),
        r"step must return shape \(3, 2\), got \(2,\)",
    ),
    "batch of tangent": (
        lambda: pl.lyapunov_spectrum(
            pl.DiscreteMap(lambda X: X, n=2, tangent=lambda X, V: V[0], vectorized=True),
            np.ones((3, 2)), 4, 1,
        ),
        r"tangent must return shape \(3, 2, 1\), got \(2, 1\)",
    ),
    "length": (lambda: pl.travel(sized(n="two"), [1.0], 3), "system must have an integer n"),
    "zero": (lambda: pl.travel(sized(n=0), [1.0], 3), "system must have n of at least 1, got 0"),
    "weights of all": (
        lambda: pl.travel(sized(n=2, n_params=3), [1.0], 3),
        "system must have n_params of at least 1 and at most n=2, got 3",
    ),
    "shape": (
        lambda: pl.lyapunov_spectrum(sized(n=2, n_params=1), np.ones(3), 3),
        r"w0 must have shape \(..., 2\) or, for plain weights, \(..., 1\), got \(3,\)",
    ),
    "state": (
        lambda: pl.travel(sized(n=2, n_params=1, state=lambda w: w), [1.0], 3),
        r"system must have a method state that returns shape \(2,\) .* got \(1,\)",
    ),
}  # fmt: skip


def sized(**attributes):
    system = Quadratic(2)
    for name, value in attributes.items():
        setattr(system, name, value)
    return system


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    call, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_an_exception_of_the_map_is_the_users_own():
    def step(X):
        raise ZeroDivisionError("mine")

    system = pl.DiscreteMap(step, n=2, tangent=lambda X, V: V, vectorized=True)
    for analysis in ANALYSES.values():
        with pytest.raises(ZeroDivisionError, match="mine"):
            analysis(system, np.ones((2, 2)))


# ------------------------------------------------------------------------------- weights and states


def test_weights_become_states_with_zeros_or_by_the_maps_own_method():
    class Momentum(Quadratic):
        def __init__(self):
            super().__init__(3)
            self.n_params, self.n = 3, 6
            self.J = np.block([[np.eye(3) - 0.2 * self.H, 0.9 * np.eye(3)],
                               [-0.2 * self.H, 0.9 * np.eye(3)]])  # fmt: skip

        def step(self, x, t=0):
            return self.J @ x

        def tangent(self, x, V, t=0):
            return self.J @ V

        def loss(self, x):
            return 0.5 * x[:3] @ self.H @ x[:3]

    class Warm(Momentum):
        def state(self, w):
            return np.concatenate([w, np.ones_like(w)], axis=-1)

    w = RNG.normal(size=(2, 3))
    for system, rest in ((Momentum(), np.zeros((2, 3))), (Warm(), np.ones((2, 3)))):
        states = np.concatenate([w, rest], axis=1)
        assert_array_equal(
            pl.lyapunov_spectrum(system, w, 5).state, pl.lyapunov_spectrum(system, states, 5).state
        )
        e = pl.perturbation_ensemble(system, w, 1e-3, 2, 4, states=True, path_lengths=True)
        assert e.states.shape == (2, 2, 6)
        assert e.path_lengths.shape == (2, 3, 3)
        # Distances are those of the weights alone.
        ends = pl.perturbation_ensemble(system, states, 0.0, 1, 4, states=True).states[:, 0]
        moved = np.abs(e.states[..., :3] - ends[:, np.newaxis, :3]).sum(axis=-1)
        assert_allclose(e.distances[..., -1], moved, rtol=1e-9)
        assert pl.travel(system, w, 4).path_length.shape == (2, 3)
        assert_allclose(pl.sharpness(system, w).value, 3.0, rtol=1e-7)
        assert pl.knock_out(system, w).shape == (2, 3)


# ----------------------------------------------------------------------------- methods and pickles


def test_methods_of_a_map_that_was_given_a_loss():
    q = Quadratic(3)
    system = pl.DiscreteMap(
        q.step, n=3, tangent=q.tangent, loss=q.loss, gradient=lambda x: q.H @ x,
        hessian_vector=q.hessian_vector,
    )  # fmt: skip
    x, V = RNG.normal(size=(4, 3)), RNG.normal(size=(3, 2))
    assert_allclose(system.loss(x), np.einsum("mi,ij,mj->m", x, q.H, x) / 2)
    assert np.ndim(system.loss(x[0])) == 0
    assert_allclose(system.gradient(x), x @ q.H)
    assert_allclose(system.hessian_vector(x, V), np.broadcast_to(q.H @ V, (4, 3, 2)))
    assert_allclose(system.jacobian(x[0]), q.tangent(x[0], np.eye(3)))
    assert_allclose(system.tangent(x, V[:, 0]), np.broadcast_to(q.tangent(x[0], V[:, 0]), (4, 3)))
    assert_allclose(pl.sharpness(system, x).value, 3.0, rtol=1e-8)
    assert not hasattr(cases.henon(), "loss")
    with pytest.raises(ValueError, match="V must broadcast against states of batch shape"):
        system.tangent(x, np.ones((5, 3, 2)))


def test_maps_with_all_options_pickle():
    system = lattice()
    copy = pickle.loads(pickle.dumps(system))
    assert repr(copy) == repr(system)
    assert repr(system) == "DiscreteMap(lattice_step, n=6, vectorized=True)"
    x0 = RNG.random((3, 6))
    for part in ("growth", "loss"):
        a, b = (getattr(pl.lyapunov_spectrum(s, x0, 5), part) for s in (system, copy))
        assert_array_equal(a, b)
    plain = pl.DiscreteMap(lattice_step, lattice_step, 2)
    assert len(plain.__reduce__()[1]) == 5  # as in files of earlier versions


def test_progress_counts_the_steps_of_all_runs(capsys):
    pytest.importorskip("tqdm")
    x0 = RNG.random((4, 6))
    pl.lyapunov_spectrum(lattice(), x0, 25, progress=True)
    assert "100/100" in capsys.readouterr().err
    pl.lyapunov_spectrum(lattice(), x0, 100, tol=1e-9, progress=True)  # in pieces
    assert "400/400" in capsys.readouterr().err
    pl.perturbation_ensemble(lattice(), x0, 1e-3, 4, 5, progress=True)
    assert "100/100" in capsys.readouterr().err


def test_the_examples_of_the_documentation_run(capsys):
    text = (Path(__file__).parents[1] / "docs" / "howto" / "maps.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "maps.md", "exec"), names)
    assert_allclose(names["exponents"].mean(axis=0), [0.419, -1.623], atol=0.01)
    assert_allclose(names["growth"].until_saturation.slope.mean(), 0.419, atol=0.05)
    assert (names["s"].loss[:, -1] < names["s"].loss[:, 0]).all()
    assert "must have a method hessian_vector for sharpness" in capsys.readouterr().out
