"""Sharpness of models of PyTorch and JAX: against their own optimisers, and the compiled core."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import pylyap as pl

KINDS = ("preconditioned", "batch", "gradient", "critical")
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)), RNG.integers(3, size=20)
NET = pl.Network((3, 4, 3), activation="tanh", loss="cross_entropy")
W0 = NET.init("normal", seed=0)


def dense(system, x, P, decay=0.0):
    """Largest eigenvalue of the generalised problem (H + decay) u = λ P u."""
    n = len(P)
    H = system.hessian_vector(x, np.eye(n)) + decay * np.eye(n)
    return np.linalg.eigvalsh(H / np.sqrt(np.outer(P, P)))[-1]


class TestTorch:
    @pytest.fixture(autouse=True)
    def library(self):
        self.torch = pytest.importorskip("torch")
        self.models = pytest.importorskip("torch_models")
        before = self.torch.get_num_threads()
        self.torch.set_num_threads(1)
        yield
        self.torch.set_num_threads(before)

    @pytest.mark.parametrize("name", ["adam", "adamw"])
    @pytest.mark.parametrize("steps_before", [0, 4])
    def test_the_preconditioner_is_that_of_the_next_step_of_torch(self, name, steps_before):
        c = self.models.case("dense")
        optimizer = self.models.OPTIMIZERS[name](c.model.parameters())
        self.models.trained(c, optimizer, steps_before)
        system, x = pl.from_torch(*c, optimizer, native=False)
        path = system.trajectory(x, 3)
        self.models.trained(c, optimizer, 4)  # torch's own four steps
        settings = optimizer.param_groups[0]
        lr, (beta1, beta2), decay = settings["lr"], settings["betas"], settings["weight_decay"]
        count = steps_before + 4
        v = self.torch.cat([optimizer.state[p]["exp_avg_sq"].ravel() for p in c.model.parameters()])
        P = (1 - beta1**count) * (np.sqrt(v.numpy() / (1 - beta2**count)) + settings["eps"])
        found = pl.sharpness(system, path[-1], kind="preconditioned", t=3)
        coupled = decay if name == "adam" else 0.0
        assert_allclose(found.value, dense(system, path[-1], P, coupled), rtol=1e-8)
        two = 2 - lr * decay if name == "adamw" else 2
        threshold = two * (1 + beta1) / ((1 - beta1) * lr)
        assert_allclose(found.ratio, found.value / threshold, rtol=1e-13)
        along = pl.sharpness_along(system, x, 3)
        assert_allclose(along.value[-1], found.value, rtol=1e-6)
        assert_allclose(along.threshold, threshold, rtol=1e-13)

    def test_a_schedule_is_part_of_the_threshold_of_adamw(self):
        c = self.models.case("dense")
        optimizer = self.models.OPTIMIZERS["adamw"](c.model.parameters())
        factors = [1.0, 0.5, 0.25]
        system, w = pl.from_torch(*c, optimizer, native=False, schedule=factors)
        lr = 0.01 * np.array([1.0, 0.5, 0.25, 0.25])
        found = pl.sharpness_along(system, w, 3)
        assert_allclose(found.threshold, (2 - 0.1 * lr) * 9.0 / lr, rtol=1e-13)

    @pytest.mark.parametrize("decay", [0.0, 0.1])
    def test_learning_rates_of_groups_are_a_preconditioner(self, decay):
        c = self.models.case("dense")
        first, *others = c.model.parameters()
        groups = [{"params": [first], "lr": 0.1}, {"params": others}]
        descent = self.torch.optim.SGD(groups, lr=0.3, weight_decay=decay)
        system, w = pl.from_torch(*c, descent, native=False)
        found = pl.sharpness_along(system, w, 3, tol=1e-8)
        assert found.kind == "preconditioned"
        assert_allclose(found.threshold, 2 / 0.3, rtol=1e-14)
        for x, ratio in zip(system.trajectory(w, 3), found.ratio, strict=True):
            J = system.tangent(x, np.eye(len(w)))  # 1 − lr F (H + decay)
            assert_allclose(np.linalg.eigvals(np.eye(len(w)) - J).real.max(), 2 * ratio, rtol=1e-7)
        adam = self.torch.optim.Adam(groups, lr=0.3, weight_decay=decay)
        system, w = pl.from_torch(*c, adam, native=False)
        x = system.trajectory(w, 2)[-1]
        n = system.n_params
        P = (1 - 0.9**3) * (np.sqrt(system.step(x, 2)[2 * n :] / (1 - 0.999**3)) + 1e-8)
        P[: first.numel()] *= 3.0
        found = pl.sharpness(system, x, kind="preconditioned", t=2)
        assert_allclose(found.value, dense(system, x, P, decay), rtol=1e-8)
        assert_allclose(found.ratio, found.value * 0.3 / 38, rtol=1e-13)

    def test_groups_that_differ_in_their_decoupled_decay_have_no_threshold(self):
        c = self.models.case("dense")
        first, *others = c.model.parameters()
        groups = [{"params": [first], "lr": 0.1}, {"params": others}]
        system, w = pl.from_torch(*c, self.torch.optim.AdamW(groups, lr=0.01), native=False)
        found = pl.sharpness_along(system, w, 2)
        assert found.kind == "hessian"
        assert np.isnan(found.ratio).all()
        with pytest.raises(TypeError, match="must have an attribute optimizer with a known"):
            pl.sharpness(system, w, kind="preconditioned")

    @pytest.mark.parametrize("kind", KINDS)
    def test_all_kinds_are_those_of_the_core(self, kind):
        optimizer = pl.Adam(lr=0.05, weight_decay=0.1, batch_size=6)
        c = self.models.case("dense")
        maps = [pl.from_torch(*c, optimizer, native=native) for native in (True, False)]
        core, torch = (pl.sharpness_along(s, s.state(w), 4, kind=kind) for s, w in maps)
        assert_allclose(torch.value, core.value, rtol=1e-6)
        assert_allclose(torch.ratio, core.ratio, rtol=1e-6)


class TestJax:
    @pytest.fixture(autouse=True)
    def library(self):
        self.jax = pytest.importorskip("jax")
        self.optax = pytest.importorskip("optax")
        # Passes of the compiler are left out, which take longer than the tests.
        self.jax.config.update("jax_disable_most_optimizations", True)
        with self.jax.enable_x64(True):
            yield
        self.jax.config.update("jax_disable_most_optimizations", False)

    def system(self, optimizer, **options):
        jax, jnp = self.jax, self.jax.numpy

        def loss(params, X, y):
            (W1, b1), (W2, b2) = params
            logits = jnp.tanh(X @ W1.T + b1) @ W2.T + b2
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

        return pl.from_jax(loss, NET.unpack(W0), optimizer, (X, Y), **options)[0]

    def test_all_kinds_are_those_of_the_core(self):
        optimizer = pl.Adam(lr=0.05, weight_decay=0.1, batch_size=6)
        maps = self.system(optimizer), pl.TrainingMap(NET, X, Y, optimizer)
        for kind in KINDS:
            found, expected = (pl.sharpness_along(s, W0, 4, every=2, kind=kind) for s in maps)
            assert_allclose(found.value, expected.value, rtol=1e-6)
            assert_allclose(found.ratio, expected.ratio, rtol=1e-6)

    def test_optax_optimisers_are_recognised_by_their_updates(self):
        optax = self.optax
        for given, lr, momentum, nesterov in (
            (optax.sgd(0.1), 0.1, 0.0, False),
            (optax.sgd(0.1, 0.8), 0.1, 0.8, False),
            (optax.sgd(0.1, 0.8, nesterov=True), 0.1, 0.8, True),
        ):
            found = self.system(given).hyperparameters
            assert_allclose([found.lr, found.momentum], [lr, momentum], rtol=1e-12)
            assert (found.nesterov, found.moments) == (nesterov, None)
        coupled = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.02, b1=0.7, eps=1e-6))
        found = self.system(coupled).hyperparameters
        moments = found.moments
        numbers = [found.lr, moments.beta1, moments.beta2, moments.epsilon, found.weight_decay]
        assert_allclose(numbers, [0.02, 0.7, 0.999, 1e-6, 0.1], rtol=1e-9)
        assert not moments.decoupled

    def test_adamw_of_optax(self):
        system = self.system(self.optax.adamw(0.02, weight_decay=0.3))
        x = system.trajectory(W0, 3)[-1]
        P = (1 - 0.9**4) * (np.sqrt(system.step(x, 3)[-31:] / (1 - 0.999**4)) + 1e-8)
        found = pl.sharpness(system, x, kind="preconditioned", t=3)
        assert_allclose(found.value, dense(system, x, P), rtol=1e-8)
        threshold = (2 - 0.02 * 0.3) * 19.0 / 0.02
        assert_allclose(found.ratio, found.value / threshold, rtol=1e-9)

    def test_other_updates_have_no_threshold_but_a_critical_rate(self):
        optax = self.optax
        system = self.system(optax.chain(optax.clip_by_global_norm(0.3), optax.adam(0.02)))
        assert system.hyperparameters is None
        critical = pl.sharpness(system, W0, kind="critical")
        assert np.isfinite(critical.ratio)
        assert np.isnan(critical.value)
