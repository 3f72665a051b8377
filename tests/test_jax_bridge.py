"""Models of JAX as maps, against compiled training, optax's own loops and the step by step path."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._bridges.jax_map import JaxMap
from pylyap._bridges.minibatches import Minibatches

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.integers(3, size=20)
CLIPPED = optax.chain(
    optax.clip_by_global_norm(0.3), optax.adam(optax.cosine_decay_schedule(0.05, 60))
)
NET = pl.Network((3, 4, 3), activation="sigmoid", loss="cross_entropy")
W0 = NET.init("normal", seed=0)
START = np.array([0.5, -0.4, 0.3])
RESULTS = ("growth", "loss", "state", "frame", "transient_growth")


def network_loss(params, X, y):
    (W1, b1), (W2, b2) = params
    logits = jax.nn.sigmoid(X @ W1.T + b1) @ W2.T + b2
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def bowl(w):
    return 0.5 * (jnp.array([1.0, 0.5, 0.25]) * w * w).sum()


def coupled(w):
    return jnp.cos(w[0] * w[1]) + jnp.exp(w[1] - w[2]) + (w**2).sum()


def quartic(w):
    return (w**4).sum() / 4


# Compilation takes longer than the tests. It takes half the time without passes of LLVM and without
# the emitters of fusions.
FAST = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
JIT = jax.jit


def fast_jit(function, **options):
    outer, inner = JIT(function, compiler_options=FAST, **options), JIT(function, **options)

    def call(*given, **named):
        nested = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree_util.tree_leaves(given))
        return (inner if nested else outer)(*given, **named)

    return call


@pytest.fixture(autouse=True)
def double_precision(request, monkeypatch):
    # Bits of results are compared in programs that are compiled as those of a user.
    if "optimized" not in request.fixturenames:
        monkeypatch.setattr(jax, "jit", fast_jit)
    with jax.enable_x64(True):
        yield


def made(optimizer):
    return pl.from_jax(network_loss, NET.unpack(W0), optimizer, (X, Y))[0]


def shared():
    with jax.enable_x64(True):
        return made(pl.GradientDescent(lr=0.1))


@pytest.fixture(scope="module")
def plain():
    return shared()


@pytest.fixture(scope="module")
def optimized():
    return shared()


class StepByStep:
    """A map with the functions of another, without its runs that need no Python."""

    def __init__(self, system):
        self.n, self.step, self.tangent = system.n, system.step, system.tangent
        self.loss, self.n_params, self.state = system.loss, system.n_params, system.state


# ------------------------------------------------------------------------- the same as compiled


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (pl.GradientDescent(lr=0.1), {"qr_every": 5, "n_transient": 7, "record_every": 10}),
        (
            pl.GradientDescent(
                lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.01, batch_size=8, seed=3,
                schedule=lambda t: 1 / (1 + 0.01 * t),
            ),
            {"record_every": 2, "start": 2},
        ),
        (pl.Adam(lr=0.003, batch_size=10, weight_decay=0.1), {}),
    ],
    ids=["plain", "nesterov", "adam"],
)  # fmt: skip
def test_dense_nets_have_the_spectra_of_the_compiled_core(optimizer, options, plain):
    system = plain if optimizer == plain.optimizer else made(optimizer)
    core = pl.TrainingMap(NET, X, Y, optimizer)
    assert_array_equal(system.initial_weights, W0)
    assert system.n == core.n
    for t in range(5):
        assert_array_equal(system.batch(t), core.batch(t))
    found, expected = (pl.lyapunov_spectrum(m, W0, 200, k=3, **options) for m in (system, core))
    for name in RESULTS:
        assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-9, rtol=1e-9)
    assert_array_equal(found.n_done, expected.n_done)
    x = core.trajectory(W0, 3)[-1]
    assert_allclose(system.step(x, 3), core.step(x, 3), rtol=1e-12, atol=1e-14)


def test_sharpness_is_that_of_the_compiled_core(plain):
    core = pl.TrainingMap(NET, X, Y, plain.optimizer)
    assert_allclose(plain.gradient(W0), core.gradient(W0), atol=1e-14)
    H = plain.hessian_vector(W0, np.eye(NET.n_params))
    assert_allclose(H, core.hessian(W0), atol=1e-13)
    found, expected = pl.sharpness(plain, W0), pl.sharpness(core, W0)
    assert_allclose(found.value, expected.value, rtol=1e-8)
    assert_allclose(found.value, np.linalg.eigvalsh(H)[-1], rtol=1e-8)
    assert_allclose(found.ratio, expected.ratio, rtol=1e-8)


# ---------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("optimizer", [pl.Adam(lr=0.01), CLIPPED], ids=["adam", "optax"])
def test_the_tangent_is_the_derivative_of_the_step(optimizer):
    system, w0 = pl.from_jax(coupled, START, optimizer)
    x = system.trajectory(w0, 3)[-1]
    derivative = jax.jit(
        jax.jacfwd(lambda x: system._programs._step((), x, jnp.asarray(3), None, None)[0])
    )
    J, exact = system.tangent(x, np.eye(system.n), 3), np.asarray(derivative(x))
    assert_allclose(J, exact, atol=1e-10 * np.abs(exact).max())
    # Relative to each buffer, since second moments are small.
    h = np.where(np.arange(system.n) < system.n_params, 1e-5, 1e-4 * np.abs(x))
    ahead, behind = (system.step(x + sign * np.diag(h), 3) for sign in (1, -1))
    error = np.linalg.norm((ahead - behind).T / (2 * h) - J, axis=0)
    assert (error <= 1e-6 * np.linalg.norm(J, axis=0)).all()


def test_all_exponents_sum_to_the_mean_log_determinant():
    system, w0 = pl.from_jax(coupled, START, pl.GradientDescent(0.1, 0.5))
    total = pl.lyapunov_spectrum(system, w0, 20).exponents.sum()
    J = system.tangent(system.trajectory(system.state(w0), 19), np.eye(6))
    assert_allclose(total, np.linalg.slogdet(J)[1].mean(), rtol=1e-9)


@pytest.fixture
def carried(monkeypatch):
    """Numbers of steps that maps have made in one call with vectors."""
    steps, inner = [], JaxMap.carry
    monkeypatch.setattr(
        JaxMap, "carry", lambda *a, **options: (steps.append(a[4]), inner(*a, **options))[1]
    )
    return steps


@pytest.mark.parametrize(
    "options", [{}, {"qr_every": 3, "every": 3, "delay": 12, "memory_limit": 4e5}]
)
def test_covariant_vectors_are_those_of_single_steps(plain, carried, options):
    w = NET.init("normal", runs=2, seed=1)
    lengths = {"n_steps": 60, "k": 3, "n_transient": 21, "n_tail": 21}
    found, expected = (
        pl.covariant_lyapunov_vectors(m, w, **lengths, **options)
        for m in (plain, StepByStep(plain))
    )
    assert max(carried) > 40
    assert found.residual.max() <= 1e-8
    for name in ("vectors", "states", "growth", "frame_growth", "tail_growth", "early_vectors"):
        if getattr(expected, name) is not None:
            assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-9)


def test_other_vectors_are_those_of_single_steps(plain, carried):
    step_by_step = StepByStep(plain)
    for analysis in (
        lambda m: pl.gali(m, W0, 40, k=3, record_every=5, start=3),
        lambda m: pl.ftle(m, W0, 40, window=20, stride=10, k=3, kind="svd"),
        lambda m: pl.ftle(m, W0, 40, window=20, k=3, kind="clv"),
    ):
        carried.clear()
        found = analysis(plain)
        assert 40 <= sum(carried) <= 60
        assert_allclose(found, analysis(step_by_step), rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------- optax


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9, nesterov=True),
        optax.adam(0.01),
        optax.adamw(0.01, weight_decay=0.1),
        CLIPPED,
        optax.inject_hyperparams(optax.sgd)(0.1, momentum=0.5),
    ],
    ids=["sgd", "adam", "adamw", "chain", "injected"],
)  # fmt: skip
def test_fifty_steps_of_optax(optimizer):
    w = jnp.asarray(START)
    state = optimizer.init(w)

    @jax.jit
    def own(w, state):
        value, gradient = jax.value_and_grad(coupled)(w)
        updates, state = optimizer.update(
            gradient, state, w, value=value, grad=gradient, value_fn=None
        )
        return optax.apply_updates(w, updates), state

    for _ in range(50):
        w, state = own(w, state)
    system, w0 = pl.from_jax(coupled, START, optimizer)
    x = system.trajectory(w0, 50, every=25)[-1]
    assert_allclose(system.unflatten(x), w, atol=1e-10)
    moved = [s for s in jax.tree_util.tree_leaves(state) if np.ndim(s)]
    assert system.n == 3 + sum(s.size for s in moved)  # neither counters nor rates
    assert_allclose(x[3:], np.ravel(moved), atol=1e-10)


def test_parameters_without_a_gradient_have_the_tangent_of_adam():
    # √v has an infinite derivative at v = 0, where a dead unit stays.
    def dead(w):
        return (w[0] - 1.0) ** 2 * w[1] + jax.nn.relu(w[2] - 100.0) ** 2

    V = RNG.normal(size=(9, 2))
    (a, w0), (b, _) = (
        pl.from_jax(dead, np.ones(3) / 2, rule) for rule in (pl.Adam(0.01), optax.adam(0.01))
    )
    x = a.trajectory(w0, 3)[-1]
    assert_array_equal(x[[5, 8]], 0.0)  # its moments
    pushed = a.tangent(x, V, 3)
    assert np.isfinite(pushed).all()
    assert_allclose(b.tangent(x, V, 3), pushed, rtol=1e-9)


def test_minibatches_of_optax_are_those_of_the_package():
    def mean(w, X, y):
        return ((X @ w - y) ** 2).mean()

    rule = pl.GradientDescent(lr=0.1, batch_size=8, seed=5)
    a, w0 = pl.from_jax(mean, START, rule, (X, Y))
    b, _ = pl.from_jax(mean, START, optax.sgd(0.1), (X, Y), batch_size=8, seed=5)
    assert_allclose(a.trajectory(w0, 9, 3), b.trajectory(w0, 9, 3), atol=1e-14)
    assert_array_equal(a.batch(2), pl.TrainingMap(NET, X, Y, rule).batch(2))


@pytest.mark.parametrize(("n", "size", "shuffle"), [(20, 7, True), (9, 8, True), (10, 5, False)])
def test_minibatches_are_those_of_a_training_map(n, size, shuffle):
    rule = pl.GradientDescent(batch_size=size, shuffle=shuffle, seed=4)
    core = pl.TrainingMap(pl.Network((1, 1)), np.zeros((n, 1)), np.zeros(n), rule)
    rows = Minibatches(rule, n).rows(1, 12, 15)
    for i in range(12):
        batch = core.batch(1 + i)
        assert_array_equal(rows[i, : len(batch)], batch)


# ------------------------------------------------------------------ bits, and how runs can end


def test_a_run_has_the_same_bits_in_any_batch_and_on_any_number_of_threads(optimized, many_cores):
    w = NET.init("normal", runs=5, seed=1)
    whole = pl.lyapunov_spectrum(optimized, w, 40, k=3, threads=4)
    for r in (0, 3):
        alone = pl.lyapunov_spectrum(optimized, w[r], 40, k=3, record_every=8)
        assert_array_equal(alone.state, whole.state[r])
        assert_array_equal(alone.frame, whole.frame[r])
        assert_array_equal(alone.growth, whole.growth[r].reshape(5, 8, 3).sum(1))
    assert_allclose(whole.state, optimized.trajectory(w, 40)[:, -1], rtol=1e-12)


def test_runs_batched_as_on_an_accelerator(plain, monkeypatch):
    w = NET.init("normal", runs=4, seed=1)
    expected = pl.lyapunov_spectrum(plain, w, 20, k=3)
    monkeypatch.setattr(system := made(pl.GradientDescent(lr=0.1)), "lanes", 4)
    found = pl.lyapunov_spectrum(system, w, 20, k=3)
    for name in ("exponents", "loss", "state"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    assert_allclose(system.step(w), plain.step(w), rtol=1e-12)


def test_steps_have_the_same_bits_in_every_call(optimized):
    w = NET.init("normal", runs=7, seed=1)
    path = optimized.trajectory(w, 6)
    assert_array_equal(optimized.trajectory(w[2], 6, every=3), path[2, ::3])
    assert_array_equal(optimized.trajectory(path[:, 2], 4, start=2)[:, -1], path[:, -1])
    batch = optimized.step_batch(path[:, 3], 3)
    assert_array_equal(batch, path[:, 4])
    assert_array_equal(optimized.step(path[5, 3], 3), batch[5])
    equal = optimized.step_batch(np.repeat(w[:1], 11, 0))
    assert_array_equal(equal, np.repeat(equal[:1], 11, 0))


def test_ensembles_of_unperturbed_members_stay_together(plain):
    w = NET.init("normal", runs=2, seed=1)
    e = pl.perturbation_ensemble(plain, w, [0.0, 1e-8], 3, 10)
    assert_array_equal(e.distances[:, 0], 0.0)
    assert (e.distances[:, 1] > 0).all()


def test_runs_end_as_step_by_step():
    # w - lr w³ converges for |w| < √(2/lr) and diverges beyond it.
    start = np.array([[0.5, 0.2, 0.1], [0.5, 5.1, 0.1], [9.0, 0.1, 0.2]])
    system, _ = pl.from_jax(quartic, np.ones(3), pl.GradientDescent(lr=0.1, momentum=0.1))
    # With two vectors a direction collapses as the other grows, and the core makes the steps.
    for options in (
        {"k": 1},
        {"k": 1, "n_transient": 3, "qr_every": 2, "record_every": 4},
        {"k": 2, "n_transient": 3},
    ):
        found, expected = (
            pl.lyapunov_spectrum(m, start, 20, **options) for m in (system, StepByStep(system))
        )
        assert_array_equal(found.status, [0, 1, 1])
        assert_array_equal(found.status, expected.status)
        assert_array_equal(found.n_done, expected.n_done)
        for name in RESULTS:
            assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-9)
    found, expected = (
        pl.covariant_lyapunov_vectors(m, start, 6, k=2, n_transient=3, n_tail=3)
        for m in (system, StepByStep(system))
    )
    assert_array_equal(found.status, [0, 1, 1])
    assert_array_equal(found.n_done, expected.n_done)
    assert_allclose(found.vectors, expected.vectors, atol=1e-9)


def test_a_destroyed_direction_is_that_of_the_core():
    # I - lr H = diag(0, 1/2, 3/4): one direction is destroyed in each step, the others are not.
    system, w0 = pl.from_jax(bowl, np.array([1.0, 2.0, 3.0]), pl.GradientDescent(lr=1.0))
    found, expected = (
        pl.lyapunov_spectrum(m, w0, 6, n_transient=2) for m in (system, StepByStep(system))
    )
    assert np.isneginf(found.exponents).any()
    for name in RESULTS:
        assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-14)
    vectors, others = (
        pl.covariant_lyapunov_vectors(m, w0, 4, n_transient=2, n_tail=2)
        for m in (system, StepByStep(system))
    )
    assert np.isneginf(vectors.growth).any()
    assert_allclose(vectors.growth, others.growth, atol=1e-13)
    assert_allclose(vectors.vectors, others.vectors, atol=1e-13)


def test_windows_and_stopping_use_the_same_runs(plain):
    windows = pl.ftle(plain, W0, 40, window=10, k=3)
    growth = pl.lyapunov_spectrum(plain, W0, 40, k=3).growth
    assert_allclose(windows, growth.reshape(4, 10, 3).mean(1), atol=1e-12)
    stopped = pl.lyapunov_spectrum(plain, W0, 640, k=3, n_transient=50, tol=0.1)
    assert stopped.status == pl.Status.STOPPED


# ----------------------------------------------------------------------------- the rest of a map


def test_states_weights_and_trees():
    params = {"a": np.ones((2, 2)), "b": [np.full(3, 2.0), np.array(5.0)]}

    def loss(p):
        return (p["a"] ** 2).sum() + (p["b"][0] ** 2).sum() + p["b"][1] ** 2

    system, w0 = pl.from_jax(loss, params, optax.adagrad(0.1, initial_accumulator_value=0.25))
    assert_array_equal(w0, [1, 1, 1, 1, 2, 2, 2, 5])
    assert_array_equal(system.state(w0), np.append(w0, np.full(8, 0.25)))
    assert system.state(np.ones((4, 2, 8))).shape == (4, 2, 16)
    tree = system.unflatten(np.stack([w0, 2 * w0]))
    assert tree["a"].shape == (2, 2, 2)
    assert_array_equal(tree["b"][1], [5.0, 10.0])
    assert_allclose(system.loss(np.stack([w0, 2 * w0])), [41.0, 164.0])


def test_pickles_make_the_same_steps(plain):
    system = pickle.loads(pickle.dumps(plain))
    assert_array_equal(system.trajectory(W0, 3), plain.trajectory(W0, 3))
    assert "network_loss" in repr(system)


def test_single_precision():
    rule = pl.GradientDescent(lr=0.1)
    double, _ = pl.from_jax(coupled, START, rule)
    with jax.enable_x64(False):
        system, w0 = pl.from_jax(coupled, START.astype(np.float32), rule)
    assert w0.dtype == np.float64
    x = system.step(w0)
    assert_array_equal(x, x.astype(np.float32))
    found, expected = (pl.lyapunov_spectrum(m, w0, 40, k=2) for m in (system, double))
    assert_allclose(found.exponents, expected.exponents, atol=1e-5)
    assert found.growth.dtype == np.float64
    assert np.abs(found.exponents - expected.exponents).max() > 0


def test_keys_inside_the_loss_are_deterministic():
    def noisy(w):
        return ((w + 0.1 * jax.random.normal(jax.random.key(3), w.shape)) ** 2).sum()

    system, w0 = pl.from_jax(noisy, np.ones(3), pl.GradientDescent())
    assert_array_equal(system.step(w0), system.step(w0))


# ---------------------------------------------------------------------------------------- errors


def numbers(w):
    return ((w - np.random.default_rng().normal(size=3)) ** 2).sum()


HALF = np.ones(3, np.float16)


@pytest.mark.parametrize(
    ("argument", "values", "text"),
    [
        ("loss", {"loss": 3}, "callable"),
        ("loss", {"loss": lambda w: w}, r"scalar .* shape \(3,\)"),
        ("loss", {"loss": lambda w: (w.sum(), 1.0)}, "scalar"),
        ("loss", {"loss": lambda w: 1j * w.sum()}, "complex"),
        ("loss", {"loss": lambda w: jnp.log(-w).sum()}, "finite at params, got nan"),
        ("loss", {"loss": lambda w: w.astype(jnp.float32).sum()}, "float64"),
        ("loss", {"loss": lambda w, X: w.sum()}, "TypeError"),
        ("loss", {"loss": numbers}, "deterministic"),
        ("params", {"params": {}}, "empty"),
        ("params", {"params": [np.ones(3), np.arange(2)]}, r"int64 at params\[1\]"),
        ("params", {"params": 1j * np.ones(3)}, "complex128"),
        ("params", {"params": HALF}, "float16"),
        ("params", {"params": [np.ones(2), np.ones(2, np.float32)]}, "one dtype"),
        ("params", {"params": {"w": np.array([1.0, np.nan])}}, r"finite, got nan at params\['w'\]"),
        ("params", {"params": [jax.nn.relu, np.ones(2)]}, "array"),
        ("optimizer", {"optimizer": "adam"}, "optax GradientTransformation"),
        ("optimizer", {"optimizer": optax.apply_if_finite(optax.sgd(0.1), 3)}, "bool"),
        ("optimizer", {"optimizer": optax.noisy_sgd(0.1, key=0)}, "rng_key is the key"),
        ("optimizer", {"optimizer": optax.adam(0.1, mu_dtype="bfloat16")}, "mu is bfloat16"),
        ("optimizer", {"optimizer": optax.apply_every(3)}, "count is 0 after 2"),
        ("optimizer", {"optimizer": optax.lbfgs()}, "finite state"),
        ("lr", {"optimizer": pl.GradientDescent(lr=[0.1, 0.2])}, "number for from_jax"),
        ("data", {"data": X}, "tuple"),
        ("data", {"data": (X, Y[:5])}, r"20 at data\[0\] and 5 at data\[1\]"),
        ("data", {"data": (X, 3.0)}, r"shape \(\) at data\[1\]"),
        ("data", {"data": ()}, "at least one"),
        ("batch_size", {"batch_size": 3}, "that of the optimizer"),
        ("batch_size", {"batch_size": 3, "optimizer": optax.sgd(0.1)}, "needs data"),
    ],
)  # fmt: skip
def test_errors(argument, values, text):
    given = {"loss": lambda w: (w**2).sum(), "params": np.ones(3)}
    given |= {"optimizer": pl.GradientDescent()} | values
    with pytest.raises(pl.ArgumentError, match=text) as caught:
        pl.from_jax(**given)
    assert caught.value.argument == argument


def test_double_precision_is_asked_for():
    with jax.enable_x64(False):
        with pytest.raises(pl.ArgumentError, match='update\\("jax_enable_x64", True\\)'):
            pl.from_jax(bowl, np.ones(3), pl.GradientDescent())
        with pytest.raises(pl.ArgumentError, match=r"data .*float64 at data"):
            pl.from_jax(
                lambda w, X: (X @ w).sum(), np.ones(3, np.float32), pl.GradientDescent(), (X,)
            )


def test_wrong_shapes_are_named(plain):
    with pytest.raises(pl.ArgumentError, match=r"x must have shape \(..., 31\)"):
        plain.step(np.ones(5))
    with pytest.raises(pl.ArgumentError, match=r"V must have shape \(..., 31, k\)"):
        plain.tangent(W0, np.ones((5, 2)))
    with pytest.raises(pl.ArgumentError, match="every must divide"):
        plain.trajectory(W0, 5, every=2)


def test_without_jax_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ImportError, match="from_jax needs jax"):
        pl.from_jax(bowl, np.ones(3), pl.GradientDescent())


def test_importing_the_package_imports_no_jax():
    code = "import sys, pylyap; assert not {'jax', 'optax', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
