"""Models of PyTorch as maps: against torch's own training, automatic derivatives, and the core."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap import _extras
from pylyap._native import core
from pylyap._tangent.frames import random_frames

torch = pytest.importorskip("torch")

import torch_models as models  # noqa: E402
from torch import nn  # noqa: E402

from pylyap._bridges.torch.runs import Frame  # noqa: E402

RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(name, optimizer="sgd", native=False, **options):
    """A case, the map of a copy of its model, and the first state."""
    c = models.case(name)
    rule = models.OPTIMIZERS[optimizer](c.model.parameters())
    return c, *pl.from_torch(*c, rule, native, **options)


# --- known answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "n_steps"),
    [("sgd", 200), ("nesterov of pylyap", 50), ("heavy ball of pylyap", 50)],
)
def test_spectra_of_a_dense_net_by_the_core_and_by_torch(optimizer, n_steps):
    c, system, w0 = made("dense", optimizer, jvp="loop")
    native, w1 = pl.from_torch(*c, models.OPTIMIZERS[optimizer](c.model.parameters()), native=True)
    assert isinstance(native, pl.TrainingMap)
    assert native.method == "native"
    net = pl.Network((2, 4, 3, 2), activation="tanh", loss="cross_entropy")
    plain = pl.TrainingMap(net, c.X, c.y, native.optimizer)
    found = [
        pl.lyapunov_spectrum(s, s.state(w), n_steps=n_steps, k=3)
        for s, w in ((system, w0), (native, w1), (plain, w0))
    ]
    assert found[0].loss[-1] < found[0].loss[0]
    for other in found[1:]:
        assert_allclose(found[0].exponents, other.exponents, atol=1e-9)
        assert_allclose(found[0].loss, other.loss, rtol=1e-10)


TORCH = ["sgd", "decay", "momentum", "nesterov", "adam", "adamw"]


@pytest.mark.parametrize("optimizer", TORCH)
def test_fifty_steps_are_those_of_torch(optimizer):
    c, system, w0 = made("small cnn", optimizer)
    path = system.trajectory(w0, 50)[:, : system.n_params]
    own = models.trained(c, models.OPTIMIZERS[optimizer](c.model.parameters()), 50)
    assert_allclose(path, own, rtol=0, atol=1e-10)


@pytest.mark.parametrize("optimizer", TORCH[:-1])
def test_steps_of_the_core_are_those_of_torch(optimizer):
    c, system, w0 = made("dense", optimizer, native=True)
    path = system.trajectory(w0, 10)[:, : system.n_params]
    own = models.trained(c, models.OPTIMIZERS[optimizer](c.model.parameters()), 10)
    assert_allclose(path, own, rtol=0, atol=1e-11)  # 1e-12 per step


def step_by_hand(name, f, x, t):
    """One step of an optimiser on the scalar function f of the weights, for jacrev."""
    p = len(x) // {"sgd": 1, "decay": 1}.get(name, 3 if "adam" in name else 2)
    w, g = x[:p], torch.func.grad(f)(x[:p])
    if name in ("sgd", "decay"):
        return w - 0.1 * (g + (0.02 if name == "decay" else 0.0) * w)
    if name in ("momentum", "nesterov"):
        b = (0.9 if name == "momentum" else 0.8) * x[p:] + g + 0.01 * w
        move = b if name == "momentum" else g + 0.01 * w + 0.8 * b
        return torch.cat([w - 0.05 * move, b])
    if "pylyap" in name and "adam" not in name:
        pull = 0.05 * (g + (0.01 if "heavy" in name else 0.0) * w)
        v = 0.9 * x[p:] - pull
        return torch.cat([w + (v if "heavy" in name else 0.9 * v - pull), v])
    betas, decay = ((0.8, 0.95), 0.1) if name == "adamw" else ((0.9, 0.999), 0.05)
    if name == "adamw":
        w = w * (1 - 0.01 * decay)
    else:
        g = g + decay * w
    m = betas[0] * x[p : 2 * p] + (1 - betas[0]) * g
    u = betas[1] * x[2 * p :] + (1 - betas[1]) * g**2
    first, second = (1 - b ** (t + 1) for b in betas)
    return torch.cat([w - 0.01 * (m / first) / ((u / second).sqrt() + 1e-8), m, u])


def loss_by_hand(c):
    """Loss of the flat parameters, without code of the package."""
    X, y = models.tensors(c)
    named = {name: p.detach() for name, p in c.model.named_parameters() if p.requires_grad}
    sizes = [p.numel() for p in named.values()]

    def f(w):
        parts = {
            name: part.view(p.shape)
            for (name, p), part in zip(named.items(), w.split(sizes), strict=True)
        }
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            output = torch.func.functional_call(c.model, parts, (X,))
        return models.function_of(c.loss)(output, y)

    return f


def lively(system, w0):
    """The weights, with buffers in full swing."""
    rng = np.random.default_rng(3)
    parts = [w0[: system.n_params], 0.1 * rng.normal(size=system.n_params)]
    parts.append(rng.uniform(0.01, 0.1, size=system.n_params))
    return np.concatenate(parts)[: system.n]


def require_jacobian(c, name, system, x, t=2):
    """J V, Jᵀ V against jacrev of some entries of the step, and central differences."""
    chosen = torch.as_tensor(RNG.choice(system.n, size=min(6, system.n), replace=False))
    f = loss_by_hand(c)
    rows = torch.func.jacrev(lambda z: step_by_hand(name, f, z, t)[chosen])(torch.as_tensor(x))
    V = RNG.normal(size=(system.n, 3))
    pushed = system.tangent(x, V, t)
    assert_allclose(pushed[chosen.numpy()], rows.numpy() @ V, atol=1e-10)
    ahead, behind = (
        np.stack([system.step(x + h * v, t) for v in V.T], axis=1) for h in (1e-6, -1e-6)
    )
    scale = np.abs(pushed).max()
    assert_allclose((ahead - behind) / 2e-6, pushed, atol=1e-6 * scale)
    U = RNG.normal(size=(system.n, 2))
    assert_allclose(system.adjoint(x, U, t).T @ V, U.T @ pushed, atol=1e-10 * scale * system.n)


@pytest.mark.parametrize("name", ["cnn", "transformer", "gru", "tied"])
def test_tangent_of_models(name):
    c, system, w0 = made(name, "momentum")
    require_jacobian(c, "momentum", system, lively(system, w0))


@pytest.mark.parametrize("optimizer", list(models.OPTIMIZERS))
def test_tangent_of_optimizers(optimizer):
    c, system, w0 = made("dense", optimizer)
    require_jacobian(c, optimizer, system, lively(system, w0))


@pytest.mark.parametrize("jvp", ["forward-over-reverse", "reverse-over-reverse", "loop"])
def test_methods_of_the_tangent_agree(jvp):
    c, system, w0 = made("transformer", jvp=jvp)
    assert system.method == jvp
    require_jacobian(c, "sgd", system, w0)


def test_wrong_derivatives_of_an_operator_are_found():
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx, g):
            return 3.0 * ctx.saved_tensors[0] ** 2 * g

        @staticmethod
        def jvp(ctx, dx):
            return 2.0 * dx

        generate_vmap_rule = True

    class Model(nn.Linear):
        def forward(self, X):
            return Wrong.apply(super().forward(X))

    model = Model(2, 1).double()
    optimizer = torch.optim.SGD(model.parameters())
    system, w0 = pl.from_torch(model, np.eye(2), [0.3, -0.2], "mse", optimizer)
    with pytest.raises(pl.ArgumentError, match="model must have derivatives that agree"):
        system.tangent(w0, np.eye(3))
    loop, _ = pl.from_torch(model, np.eye(2), [0.3, -0.2], "mse", optimizer, jvp="loop")
    x = loop.step(w0)
    assert np.isfinite(loop.tangent(x, np.eye(3))).all()


def test_adam_where_all_moments_are_zero():
    # A parameter that nothing depends on: dw' = dw − lr dm̂/ε, the same as in the core.
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[0].bias[0] = -100.0  # dead
    X, y = RNG.uniform(-1, 1, (6, 2)), np.array([0, 1, 0, 1, 1, 0])
    both = [pl.from_torch(model, X, y, "cross_entropy", pl.Adam(), flag) for flag in (True, False)]
    V = RNG.normal(size=(both[0][0].n, 4))
    first, second = (system.tangent(w, V, 1) for system, w in both)
    assert_allclose(first, second, rtol=1e-9)
    assert np.abs(first).max() > 1e4


# --- laws -----------------------------------------------------------------------------------------

SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("transformer", "cnn")]


def test_sum_of_all_exponents_is_the_mean_log_determinant():
    _, system, w0 = made("small cnn", jvp="reverse-over-reverse")
    found = pl.lyapunov_spectrum(system, w0, n_steps=3)
    path = system.trajectory(w0, 3)
    logs = [np.linalg.slogdet(system.tangent(x, np.eye(system.n)))[1] for x in path[:-1]]
    assert system.n == 207
    assert_allclose(found.exponents.sum(), np.mean(logs), atol=1e-9)
    assert_array_equal(found.state, path[-1])


@pytest.mark.parametrize("name", ["gru", *SLOWER])
def test_covariant_vectors_are_carried_along(name):
    _, system, w0 = made(name, "momentum", jvp="loop")
    c = pl.covariant_lyapunov_vectors(
        system, system.state(w0), n_steps=10, k=3, n_transient=20, n_tail=10
    )
    assert c.residual.max() <= 1e-8
    pushed = system.tangent(c.states[4], c.vectors[4], 24)
    pushed /= np.linalg.norm(pushed, axis=0)
    assert_allclose(np.abs((pushed * c.vectors[5]).sum(axis=0)), 1.0, atol=1e-8)


def test_other_analyses_take_the_map():
    _, system, w0 = made("dense", jvp="loop")
    values = pl.ftle(system, w0, n_steps=20, window=10, k=2)
    assert_allclose(
        values.mean(axis=0), pl.lyapunov_spectrum(system, w0, n_steps=20, k=2).exponents, atol=1e-12
    )
    assert np.isfinite(pl.gali(system, w0, n_steps=10, k=2)).all()


def test_hessian_vector_is_the_derivative_of_the_gradient():
    c, system, w0 = made("gru", "adam")
    f, w = loss_by_hand(c), torch.as_tensor(w0)
    H = torch.func.hessian(f)(w).numpy()
    V = RNG.normal(size=(2, system.n_params, 4))
    assert_allclose(system.hessian_vector(w0, V), H @ V, atol=1e-12)
    assert_allclose(system.gradient(w0), torch.func.grad(f)(w).numpy(), atol=1e-14)
    assert_allclose(system.loss(np.stack([w0, w0])), float(f(w)), rtol=1e-14)


@pytest.mark.parametrize("name", ["dense", "gru", *SLOWER])
def test_ensembles_and_sharpness(name):
    c, system, w0 = made(name, "momentum", jvp="loop")
    still = pl.perturbation_ensemble(system, w0, eps=0.0, n_perturbations=3, n_steps=10)
    assert_array_equal(still.distances, 0.0)
    directions = RNG.normal(size=(system.n_params, 2))
    small = pl.perturbation_ensemble(
        system, w0, 1e-7, n_perturbations=2, n_steps=20, norm="l2", distribution=directions
    )
    x, V = system.state(w0), np.zeros((system.n, 2))
    V[: system.n_params] = directions
    for t in range(20):
        x, V = system.step(x, t), system.tangent(x, V, t)
    lengths = np.linalg.norm(V[: system.n_params], axis=0)
    assert_allclose(small.distances[:, -1], 1e-7 * lengths, rtol=1e-3)
    found = pl.sharpness(system, w0)
    gradient = torch.func.grad(loss_by_hand(c))
    H = torch.func.jacrev(gradient, chunk_size=32)(torch.as_tensor(w0)).numpy()
    largest = np.linalg.eigvalsh(H)[-1]
    assert_allclose(found.value, largest, rtol=1e-8)
    assert_allclose(found.ratio, 0.05 * (largest + 0.01) / (2 * 1.9), rtol=1e-7)


# --- one path -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense", "small cnn", "transformer", "gru"])
def test_rows_of_a_batch_do_not_depend_on_their_neighbours(name):
    _, system, w0 = made(name, "momentum")
    x = system.state(w0 + 1e-3 * RNG.normal(size=w0.shape))  # the next buffer is the gradient
    crowd = x + 1e-3 * RNG.normal(size=(7, system.n))
    crowd[1] = crowd[6] = x
    after = system.step_batch(crowd, 3)
    assert system._together == {True: True}  # by vmap
    assert_array_equal(after[1], after[6])
    crowd[[0, 2, 5]] *= 1.5
    assert_array_equal(system.step_batch(crowd, 3)[1], after[1])
    assert_allclose(after[1], system.step(x, 3), rtol=1e-12, atol=1e-13)
    assert_array_equal(system.step_batch(crowd[:2], 3)[1], after[1])
    losses = system.loss_batch(crowd)
    assert system._together[False]
    assert losses[1] == losses[6]
    assert_allclose(losses, system.loss(crowd), rtol=1e-12)
    crowd[3, 0] = np.nan
    with_nan = system.step_batch(crowd, 3)
    assert np.isnan(with_nan[3]).all()
    assert_array_equal(with_nan[1], after[1])


def test_many_runs_go_in_groups():
    _, system, w0 = made("dense")
    runs = w0 + 0.1 * RNG.normal(size=(130, system.n))
    runs[129] = runs[0]
    after = system.step(runs)
    assert_array_equal(after[129], after[0])
    assert_allclose(after[100], system.step(runs[100]), atol=1e-14)
    pushed = system.tangent_batch(runs[:3], np.ones((3, system.n, 1)))
    assert_array_equal(pushed[2], system.tangent(runs[2], np.ones((system.n, 1))))


def test_states_do_not_depend_on_tangents():
    _, system, w0 = made("small cnn", "momentum")
    path = system.trajectory(w0, 4)
    for jvp in ("forward-over-reverse", "reverse-over-reverse", "loop"):
        _, other, _ = made("small cnn", "momentum", jvp=jvp)
        found = pl.lyapunov_spectrum(other, other.state(w0), n_steps=4, k=2)
        assert_array_equal(found.state, path[-1])


def test_diverged_states_are_nan():
    _, system, w0 = made("dense", "momentum")
    bad = np.where(np.arange(system.n) == 3, np.inf, system.state(w0))
    assert np.isnan(system.step(bad)).all()
    assert np.isnan(system.tangent(bad, np.ones(system.n))).all()
    assert np.isnan(system.loss(bad))


def test_the_map_can_be_pickled():
    _, system, w0 = made("small cnn", "adam")
    for s in (system, made("dense", native=True)[1]):
        again = pickle.loads(pickle.dumps(s))
        x = lively(s, np.resize(w0, s.n_params))
        assert_array_equal(again.step(x), s.step(x))
        assert set(again.unflatten(x)) == set(s.unflatten(x))


# --- the user's model and data --------------------------------------------------------------------


def test_the_model_is_never_changed():
    c = models.case("gru")
    c.model.train()
    c.model.head.eval()
    c.model(torch.as_tensor(c.X)).sum().backward()
    optimizer = torch.optim.Adam(c.model.parameters())
    before = copy.deepcopy(c.model.state_dict())
    gradients = [p.grad.clone() for p in c.model.parameters()]
    noise = torch.get_rng_state()
    system, w0 = pl.from_torch(*c, optimizer)
    with torch.no_grad():
        pl.lyapunov_spectrum(system, system.state(w0), n_steps=3, k=1)
        system.tangent(w0, np.ones(system.n))
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(before[name], v) for name, v in c.model.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, c.model.parameters(), strict=True))
    assert (c.model.training, c.model.head.training) == (True, False)
    assert all(p.requires_grad for p in c.model.parameters())
    assert not optimizer.state


def test_tied_and_frozen_parameters():
    c, system, w0 = made("tied")
    assert system.n == 6
    x = system.step(w0)
    state = system.unflatten(x)
    assert set(state) == {"first.weight", "second.weight", "shift", "scale"}
    assert torch.equal(state["first.weight"], state["second.weight"])
    assert_array_equal(state["first.weight"].numpy().ravel(), x)
    own = models.trained(c, torch.optim.SGD(c.model.parameters(), lr=0.1), 1)
    assert_allclose(x, own[1], atol=1e-15)
    other = models.Tied().double()
    system.load_into(other, x)
    assert_array_equal(other.second.weight.detach().numpy().ravel(), x)
    other.load_state_dict(state)
    with pytest.raises(pl.ArgumentError, match="model must have the parameters"):
        system.load_into(models.dense(), x)


def test_the_state_of_the_optimizer_enters():
    for name in ("momentum", "adam", "adamw"):
        c = models.case("small cnn")
        optimizer = models.OPTIMIZERS[name](c.model.parameters())
        models.trained(c, optimizer, 3)
        system, w0 = pl.from_torch(*c, optimizer)
        assert w0.shape == (system.n,)
        path = system.trajectory(w0, 4)[:, : system.n_params]
        assert_allclose(path, models.trained(c, optimizer, 4), atol=1e-12)
    c = models.case("dense")
    optimizer = models.OPTIMIZERS["nesterov"](c.model.parameters())
    models.trained(c, optimizer, 3)
    system, w0 = pl.from_torch(*c, optimizer, native=True)
    path = system.trajectory(w0, 4)[:, : system.n_params]
    assert_allclose(path, models.trained(c, optimizer, 4), atol=1e-12)


def test_groups_of_parameters():
    c = models.case("small cnn")
    parts = list(c.model.parameters())
    groups = [
        {"params": parts[3:], "lr": 0.3, "betas": (0.5, 0.9)},
        {"params": parts[:2], "weight_decay": 0.1},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.05)
    system, w0 = pl.from_torch(*c, optimizer)
    V = RNG.normal(size=(system.n, 2))
    x = lively(system, w0)
    numeric = np.stack([system.step(x + 1e-6 * v) - system.step(x - 1e-6 * v) for v in V.T], 1)
    assert_allclose(system.tangent(x, V), numeric / 2e-6, atol=1e-6 * np.abs(numeric).max() / 2e-6)
    path = system.trajectory(w0, 5)[-1]
    models.trained(c, optimizer, 5)
    own = np.concatenate([p.detach().numpy().ravel() for i, p in enumerate(parts) if i != 2])
    assert_allclose(path[: system.n_params], own, atol=1e-12)  # parts[2] is in no group


def test_minibatches_are_those_of_a_training_map():
    c = models.case("dense")
    net = pl.Network((2, 4, 3, 2), activation="tanh", loss="cross_entropy")
    rule = pl.GradientDescent(lr=0.1, batch_size=5, seed=3)
    reference = pl.TrainingMap(net, c.X, c.y, rule)
    optimizer = torch.optim.SGD(c.model.parameters(), lr=0.1)
    options = {"batch_size": 5, "seed": 3}
    system, w0 = pl.from_torch(*c, optimizer, native=False, **options)
    native, _ = pl.from_torch(*c, optimizer, native=True, **options)
    for t in range(5):
        assert_array_equal(system.batch(t), reference.batch(t))
    expected = reference.trajectory(w0, 7)
    assert_allclose(system.trajectory(w0, 7), expected, atol=1e-13)
    assert_array_equal(native.trajectory(w0, 7), expected)
    V = RNG.normal(size=(system.n, 2))
    assert_allclose(system.tangent(w0, V, 2), reference.tangent(w0, V, 2), atol=1e-13)


def test_targets_of_minibatches_take_the_shape_of_the_output():
    model = models.dense(layers=(2, 3, 1)).double()
    X, y = RNG.normal(size=(9, 2)), RNG.normal(size=9)
    for rule in (pl.GradientDescent(batch_size=4, seed=1), pl.Adam(batch_size=4, seed=1)):
        system, w0 = pl.from_torch(model, X, y, "mse", rule, native=False)
        native, _ = pl.from_torch(model, X, y, "mse", rule, native=True)
        assert_allclose(system.trajectory(w0, 5), native.trajectory(w0, 5), atol=1e-13)


def test_a_schedule_keeps_the_form_of_torch():
    c = models.case("small cnn")
    optimizer = torch.optim.SGD(c.model.parameters(), lr=0.1, momentum=0.9)
    system, w0 = pl.from_torch(*c, optimizer, schedule=lambda t: 0.5**t)
    path = system.trajectory(w0, 6)[-1, : system.n_params]
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(6):
        own = models.trained(c, optimizer, 1)[-1]
        scheduler.step()
    assert_allclose(path, own, atol=1e-12)


def test_single_precision():
    c = models.case("small cnn")
    c.model.float()
    X, y = torch.as_tensor(c.X, dtype=torch.float32), torch.as_tensor(c.y)
    optimizer = torch.optim.SGD(c.model.parameters(), lr=0.1, momentum=0.9)
    system, w0 = pl.from_torch(c.model, c.X, y, c.loss, optimizer)
    assert system.dtype == "float32"
    path = system.trajectory(w0, 5)
    assert_array_equal(path, path.astype(np.float32))
    own = models.trained(c._replace(X=X), optimizer, 5)
    assert_allclose(path[:, : system.n_params], own, atol=1e-6)
    double, w1 = pl.from_torch(c.model.double(), c.X, y, c.loss, pl.GradientDescent(lr=0.1))
    single, _ = pl.from_torch(c.model.float(), c.X, y, c.loss, pl.GradientDescent(lr=0.1))
    V = RNG.normal(size=(double.n, 2))
    assert_allclose(single.tangent(w1, V), double.tangent(w1, V), atol=1e-5)


def test_datasets_are_loaded_once():
    c = models.case("small cnn")
    data = torch.utils.data.TensorDataset(*models.tensors(c))
    system, w0 = pl.from_torch(c.model, data, None, c.loss, pl.GradientDescent())
    expected, _ = pl.from_torch(*c, pl.GradientDescent())
    assert_array_equal(system.step(w0), expected.step(w0))
    with pytest.raises(
        pl.ArgumentError, match=r"X must take at most 1e\+03 B .* got .* 24 samples"
    ):
        pl.from_torch(c.model, data, None, c.loss, pl.GradientDescent(), memory_limit=1000)
    loader = torch.utils.data.DataLoader(data)
    with pytest.raises(pl.ArgumentError, match=r"pass loader\.dataset"):
        pl.from_torch(c.model, loader, None, c.loss, pl.GradientDescent())


def test_torch_is_imported_by_its_functions_alone():
    code = (
        "import sys; import pylyap as pl; assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "for f in (pl.from_torch, pl.TangentMonitor):\n"
        "    try: f(None, None, None, None, None)\n"
        "    except ImportError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{name} needs torch: {_extras.install_command('torch', 'torch')}"
        for name in ("from_torch", "TangentMonitor")
    ]


def test_an_analysis_evaluates_no_step_twice(monkeypatch):
    # The model has been found deterministic when the map was made.
    _, system, w0 = made("small cnn", jvp="loop")
    calls, inner = [], type(system)._pushed
    monkeypatch.setattr(type(system), "_pushed", lambda *a: (calls.append(1), inner(*a))[1])
    pl.lyapunov_spectrum(system, w0, n_steps=3, k=1)
    assert len(calls) == 3


@pytest.mark.parametrize("qr_every", [1, 4])
def test_frames_on_the_device_are_those_of_single_steps(qr_every):
    # Propagated as rows in one call, against tangents and orthonormalisation step by step.
    _, system, w0 = made("small cnn", jvp="loop")
    runs = np.stack([w0, 0.9 * w0])
    found = pl.lyapunov_spectrum(
        system, runs, n_steps=8, k=3, n_transient=3, qr_every=qr_every, record_every=qr_every
    )
    for r, start in enumerate(runs):
        x, frame = start, random_frames(0, 1, system.n, 3)[0]
        growth = np.zeros((11, 3))
        for t in range(11):
            frame, x = system.tangent(x, frame, t), system.step_batch(np.stack([x, x]), t)[0]
            if t == 2 or (t - 2) % qr_every == 0:
                frame, norms, _ = core.orthonormalise(np.ascontiguousarray(frame), None)
                growth[t] = np.log(norms)
        expected = growth[3:].reshape(-1, qr_every, 3).sum(axis=1)
        assert_allclose(found.growth[r], expected, atol=1e-12)
        assert_allclose(found.frame[r], frame, atol=1e-11)
        assert_allclose(found.state[r], x, rtol=1e-13)


def test_orthonormalisation_on_other_devices():
    # The path of a GPU, on the CPU: the library's QR with positive diagonal.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, 300))
    ours, theirs = Frame(torch.from_numpy(rows.copy())), Frame(torch.from_numpy(rows.copy()))
    growth, _ = ours.orthonormalise()
    norms, collapsed = theirs._by_library()
    assert_allclose(np.log(norms), growth, atol=1e-14)
    assert_allclose(theirs.rows, ours.rows, atol=1e-14)
    assert not collapsed
    rows[2] = rows[1]
    dependent = Frame(torch.from_numpy(rows))
    assert dependent._by_library()[1]
    long = Frame(torch.from_numpy(np.ldexp(rng.normal(size=(2, 300)), [[900], [-900]])))
    before = long.rows.clone()
    long.rescale()
    assert float(long.rows.abs().max()) <= 1.0
    assert_allclose(np.ldexp(long.rows.numpy(), long.exponents[:, None].astype(int)), before)
