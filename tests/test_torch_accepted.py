"""Which models of PyTorch the core takes, which are refused, and why."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

torch = pytest.importorskip("torch")

import torch_models as models  # noqa: E402
from torch import nn  # noqa: E402

RNG = np.random.default_rng(1)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- what the core takes --------------------------------------------------------------------------

ACTIVATIONS = {
    "tanh": nn.Tanh, "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid,
    "softplus": lambda: nn.Softplus(threshold=40.0), "elu": nn.ELU, "gelu": nn.GELU,
    "silu": nn.SiLU, "identity": nn.Identity,
}  # fmt: skip


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_activations_of_the_core(name):
    model = models.dense(ACTIVATIONS[name]).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    X, y = RNG.normal(size=(9, 2)), RNG.normal(size=(9, 2))
    system, w0 = pl.from_torch(model, X, y, nn.MSELoss(), optimizer)
    assert system.network.activations == (name, name)
    own = models.trained(models.Case(model, X, y, nn.MSELoss()), optimizer, 4)
    assert_allclose(system.trajectory(w0, 4), own, atol=1e-12)


def test_a_module_that_is_plainly_sequential_goes_to_the_core():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, X):
            return self.b(torch.sin(self.a(X.flatten(1))))

    X, y = RNG.normal(size=(7, 2, 2)), np.arange(7) % 2
    system, w0 = pl.from_torch(Net().double(), X, y, nn.CrossEntropyLoss(), pl.Adam(), native=True)
    assert system.network.activations == ("sin",)
    other, _ = pl.from_torch(Net().double(), X, y, nn.CrossEntropyLoss(), pl.Adam(), native=False)
    assert_allclose(system.trajectory(w0, 5), other.trajectory(w0, 5), atol=1e-12)


def sequence(*layers):
    return lambda: nn.Sequential(*[layer() for layer in layers]).double()


def linear(n_in=2, n_out=2, **options):
    return lambda: nn.Linear(n_in, n_out, **options)


OTHERS = {
    "has no bias": sequence(linear(bias=False)),
    "after its last layer": sequence(linear(), nn.Tanh),
    "before its first layer": sequence(nn.Tanh, linear()),
    "two activations in a row": sequence(linear(), nn.Tanh, nn.Tanh, linear()),
    "a Softplus": sequence(linear(), nn.Softplus, linear()),
    "a LayerNorm": sequence(linear(), lambda: nn.LayerNorm(2), linear()),
    "float32": lambda: nn.Sequential(nn.Linear(2, 2)),
}


@pytest.mark.parametrize("reason", list(OTHERS))
def test_other_models_are_not_taken_by_the_core(reason):
    model, X, y = OTHERS[reason](), RNG.normal(size=(5, 2)), RNG.normal(size=(5, 2))
    with pytest.raises(pl.ArgumentError, match=f"native must be False .*{reason}"):
        pl.from_torch(model, X, y, "mse", pl.GradientDescent(), native=True)
    system, w0 = pl.from_torch(model, X, y, "mse", pl.GradientDescent())
    assert not isinstance(system, pl.TrainingMap)
    assert np.isfinite(system.step(w0)).all()


def test_the_scale_of_the_loss():
    model, X, y = models.dense(layers=(2, 3, 1)).double(), RNG.normal(size=(6, 2)), np.ones((6, 1))
    with pytest.raises(pl.ArgumentError, match=r"nn.MSELoss is 2 times .* for 1 outputs"):
        pl.from_torch(model, X, y, nn.MSELoss(), pl.GradientDescent(), native=True)
    system, w0 = pl.from_torch(model, X, y, nn.MSELoss(), pl.GradientDescent())
    half, _ = pl.from_torch(model, X, y[:, 0], "mse", pl.GradientDescent())
    assert isinstance(half, pl.TrainingMap)
    assert_allclose(system.loss(w0), 2 * half.loss(w0), rtol=1e-14)
    with pytest.raises(pl.ArgumentError, match=r"output, \(N, 1\), got \(N,\): y\[:, None\]"):
        pl.from_torch(model, X, y[:, 0], nn.MSELoss(), pl.GradientDescent())


# --- refusals -------------------------------------------------------------------------------------


class Random(nn.Linear):
    def forward(self, X):
        return super().forward(X) + torch.randn(1)


class Stateful(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, X):
        self.calls += 1
        return super().forward(X)


def partly_half():
    return nn.Sequential(nn.Linear(2, 2).half(), nn.Linear(2, 2))


BAD_MODELS = {
    "Dropout '1' with p=0.5 in training mode is random: call model.eval": sequence(
        linear(), nn.Dropout
    ),
    "BatchNorm1d '1' in training mode changes its running statistics: call eval": sequence(
        linear(), lambda: nn.BatchNorm1d(2)
    ),
    "is on|on one device": lambda: nn.Linear(2, 2, device="meta"),
    "got float16, float32": partly_half,
    "got bfloat16": lambda: nn.Linear(2, 2).bfloat16(),
    "got complex64": lambda: nn.Linear(2, 2, dtype=torch.complex64),
    "trained, got none": lambda: nn.Linear(2, 2).requires_grad_(False),
    "return the same for the same inputs": lambda: Random(2, 2),
    "change its buffers, it changes 'calls'": Stateful,
    "accept the inputs X": lambda: nn.Linear(3, 2),
    "no parameters yet": lambda: nn.LazyLinear(2),
    "sparse gradients": sequence(linear(), lambda: nn.Embedding(2, 2, sparse=True)),
    "must return one tensor": lambda: nn.GRU(2, 2),
}


@pytest.mark.parametrize("reason", list(BAD_MODELS))
def test_models_that_are_no_maps_are_refused(reason):
    with pytest.raises(pl.ArgumentError, match=f"^model (must .*)?({reason})"):
        pl.from_torch(BAD_MODELS[reason](), np.eye(2), np.eye(2), "mse", pl.GradientDescent())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_and_scripted_modules():
    model = models.dense().double()
    X, y = np.eye(2), np.eye(2)
    system, w0 = pl.from_torch(torch.compile(model), X, y, "mse", pl.GradientDescent())
    assert_array_equal(w0, pl.from_torch(model, X, y, "mse", pl.GradientDescent())[1])
    assert isinstance(system, pl.TrainingMap)
    for bad, reason in ((torch.jit.script(model), "is scripted"), (nn.Sequential(
            torch.compile(model)), "is compiled")):  # fmt: skip
        with pytest.raises(pl.ArgumentError, match=reason):
            pl.from_torch(bad, X, y, "mse", pl.GradientDescent())


def test_evaluation_mode_freezes_buffers():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))
    model(torch.randn(8, 2))
    system, w0 = pl.from_torch(
        model.eval().double(), RNG.normal(size=(6, 2)), np.ones((6, 2)), "mse", pl.GradientDescent()
    )
    state = system.unflatten(system.step(w0))
    assert torch.equal(state["1.running_mean"], model[1].running_mean)


BAD_OPTIMIZERS = {
    "amsgrad=True": lambda p: torch.optim.Adam(p, amsgrad=True),
    "maximize=True": lambda p: torch.optim.SGD(p, lr=0.1, maximize=True),
    "dampening=0.1": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
    "must be one of pl.GradientDescent, .* got a RMSprop": torch.optim.RMSprop,
    "must be one of pl.GradientDescent, .* got 'sgd'": lambda p: "sgd",
    "of another one": lambda p: torch.optim.SGD([*p, nn.Parameter(torch.ones(3))], lr=0.1),
}


@pytest.mark.parametrize("reason", list(BAD_OPTIMIZERS))
def test_optimizers_that_are_refused(reason):
    model = nn.Linear(2, 2).double()
    with pytest.raises(pl.ArgumentError, match=f"^optimizer (must .*)?{reason}"):
        pl.from_torch(
            model, np.eye(2), np.eye(2), "mse", BAD_OPTIMIZERS[reason](model.parameters())
        )


def test_other_arguments_are_refused_by_name():
    model, eye = nn.Linear(2, 2).double(), np.eye(2)
    valid = {"model": model, "X": eye, "y": eye, "loss": "mse", "optimizer": pl.GradientDescent()}
    for name, value, words in (
        ("model", "net", "torch.nn.Module"),
        ("loss", "huber", "mse, cross_entropy"),
        ("loss", lambda a, b: (a - b) ** 2, "one number"),
        ("y", np.ones(3), "as many samples as X"),
        ("y", None, "Dataset"),
        ("X", np.full((2, 2), np.nan), "finite"),
        ("X", eye.astype(complex), "real numbers"),
        ("native", 1, "True or False"),
        ("jvp", "fast", "loop"),
        ("batch_size", 2, "set in the optimizer"),
        ("memory_limit", -1.0, "> 0"),
    ):
        with pytest.raises(pl.ArgumentError, match=words) as caught:
            pl.from_torch(**{**valid, name: value})
        assert caught.value.argument == name
    with pytest.raises(pl.ArgumentError, match="lr must be one number"):
        pl.from_torch(model, eye, eye, "mse", pl.GradientDescent(lr=[0.1, 0.2]), native=False)
    with pytest.raises(pl.ArgumentError, match=r"y must hold integer labels in 0 \.\.\. 1"):
        pl.from_torch(model, eye, [0, 2], "cross_entropy", pl.GradientDescent())
    system, w0 = pl.from_torch(**{**valid, "native": False})
    with pytest.raises(pl.ArgumentError, match=r"^x must have shape \(\.\.\., 6\), got \(5,\)"):
        system.step(np.ones(5))
    with pytest.raises(pl.ArgumentError, match=r"^V must have shape \(\.\.\., 6, k\)"):
        system.tangent(w0, np.ones((5, 2)))
