"""Wide nets: threads inside a run, pictures in bytes, single precision, schedules, PyTorch."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import oracles
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

LAYERS = (200, 130, 150, 7)  # layers whose products threads share, and the last that they do not
N = 96

OPTIMIZERS = {
    "plain": {"lr": 0.1},
    "heavy ball": {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"lr": 0.05, "momentum": 0.8, "nesterov": True},
    "adam": {"lr": 1e-3, "beta1": 0.9},
}


def optimizer(name, **more):
    options = OPTIMIZERS[name] | more
    return (pl.Adam if "beta1" in options else pl.GradientDescent)(**options)


def pictures(n=N, size=LAYERS[0], seed=0, density=1.0):
    """Bytes, of which that share is not black: where it is little, the core multiplies no other."""
    rng = np.random.default_rng(seed)
    X, y = rng.integers(1, 256, (n, size), dtype=np.uint8), rng.integers(0, LAYERS[-1], n)
    X[rng.random(X.shape) >= density] = 0
    return X[:, :, np.newaxis], y


def network(activation="relu"):
    return pl.Network(LAYERS, activation=activation, loss="cross_entropy")


@pytest.mark.usefixtures("many_cores")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    ("batch_size", "density"), [(None, 1.0), (40, 1.0), (None, 0.2), (40, 0.2)]
)
def test_bits_do_not_depend_on_threads_or_on_what_is_asked(name, batch_size, density, dtype):
    X, y = pictures(density=density)
    net = network("tanh")
    system = pl.TrainingMap(net, X, y, optimizer(name, batch_size=batch_size), dtype=dtype)
    w = net.init(seed=1, runs=2)
    path = system.trajectory(w, 5, threads=1)
    for threads in (2, 5):
        assert_array_equal(system.trajectory(w, 5, threads=threads), path)
    x = path[:, 0]
    for t in range(5):
        x = system.step(x, t)
        assert_array_equal(x, path[:, t + 1])
    assert_array_equal(system.trajectory(path[1, 2], 3, start=2), path[1, 2:])
    if dtype == "float64":
        s = pl.lyapunov_spectrum(system, w, 5, 2, threads=2)
        assert_array_equal(s.state, path[:, -1])
        assert_array_equal(s.loss, system.loss(path))


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_clipped", "mse"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_gradient_is_that_of_the_oracle(activation, loss):
    rng = np.random.default_rng(3)
    net = pl.Network(LAYERS, activation=activation, loss=loss)
    X = rng.normal(size=(300, LAYERS[0]))  # two blocks
    y = rng.normal(size=(300, 7)) if loss == "mse" else rng.integers(0, 7, 300)
    w = net.init("he_normal", seed=2, biases=True)
    plain = oracles.Net(LAYERS, (activation,) * 2, loss)
    exact, value = oracles.gradient(plain, w, X, y), oracles.loss(plain, w, X, y)
    for dtype, tol in (("float64", 1e-12), ("float32", 3e-6)):
        system = pl.TrainingMap(net, X, y, pl.GradientDescent(), dtype=dtype)
        error = np.linalg.norm(system.gradient(w) - exact) / np.linalg.norm(exact)
        assert error < tol
        assert_allclose(system.loss(w), value, rtol=tol)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("batch_size", [None, 10, 96])
def test_bytes_are_their_values_over_255(batch_size, density, dtype):
    X, y = pictures(density=density)
    net = network()
    w = net.init(seed=1)
    rule = optimizer("plain", batch_size=batch_size)
    data = (X, X.reshape(N, 20, 10), X[:, :, 0] / 255.0)
    systems = [pl.TrainingMap(net, x, y, rule, dtype=dtype) for x in data]
    paths = [system.trajectory(w, 4) for system in systems]
    assert_array_equal(paths[1], paths[0])
    assert_array_equal(paths[2], paths[0])
    assert systems[0].X.dtype == np.uint8
    losses, gradients = zip(*((s.loss(w), s.gradient(w)) for s in systems), strict=True)
    assert losses[0] == losses[2]
    assert_array_equal(gradients[0], gradients[2])
    assert_array_equal(systems[1].X, data[1])  # images, as they were given
    assert_array_equal(net.predict(w, X), net.predict(w, data[2]))
    assert systems[0].accuracy(w) == net.accuracy(w, data[1], y)


def test_small_nets_take_bytes_too():
    X, y = pictures(30, 6)
    net = pl.Network((6, 4, 7), activation="tanh", loss="cross_entropy")
    w = net.init(seed=0, runs=3)
    for batch_size in (None, 7):
        rule = optimizer("plain", batch_size=batch_size)
        a, b = (pl.TrainingMap(net, x, y, rule) for x in (X, X[:, :, 0] / 255.0))
        assert_array_equal(a.trajectory(w, 6), b.trajectory(w, 6))
        assert_array_equal(a.hessian(w), b.hessian(w))
        assert_array_equal(a.loss(w), b.loss(w))
        s, t = (pl.lyapunov_spectrum(m, w, 6) for m in (a, b))
        assert_array_equal(s.growth, t.growth)


@pytest.mark.parametrize("layers", [(6, 4, 7), LAYERS])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_single_precision_stays_near_double(name, layers):
    X, y = pictures(N, layers[0])
    net = pl.Network(layers, activation="sigmoid", loss="cross_entropy")
    w = net.init(seed=1)
    a, b = (
        pl.TrainingMap(net, X, y, optimizer(name, batch_size=32), dtype=dtype)
        for dtype in ("float64", "float32")
    )
    double, single = a.trajectory(w, 20), b.trajectory(w, 20)
    assert_array_equal(single, single.astype(np.float32))  # numbers of single precision
    assert not np.array_equal(single, double)
    apart = np.linalg.norm(single - double, axis=-1) / np.linalg.norm(double, axis=-1)
    assert apart.max() < (2e-4 if name == "adam" else 2e-5)
    assert_allclose(b.loss(double[-1]), a.loss(double[-1]), rtol=1e-5)
    # at a state, derivatives are in double precision
    assert_array_equal(b.tangent(w, np.ones(b.n)), a.tangent(w, np.ones(a.n)))


def test_single_precision_is_refused_where_vectors_travel():
    X, y = pictures()
    net = network()
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(), dtype="float32")
    w = net.init(seed=0)
    for call in (
        lambda: pl.lyapunov_spectrum(system, w, 3, 1),
        lambda: pl.covariant_lyapunov_vectors(system, w, 3, 1, 0, 0),
        lambda: pl.ftle(system, w, 4, 2, k=1),
        lambda: pl.gali(system, w, 3, 2),
    ):
        with pytest.raises(ValueError, match=r"system must have dtype='float64'.*got 'float32'"):
            call()
    e = pl.perturbation_ensemble(system, w, [0.0, 1e-3], 2, 4)
    assert (e.distances[0] == 0).all()
    assert (e.distances[1] > 0).all()


def test_single_precision_survives_a_pickle():
    X, y = pictures()
    net = network()
    system = pl.TrainingMap(net, X, y, optimizer("plain", batch_size=20), dtype=np.float32)
    again = pickle.loads(pickle.dumps(system))
    assert again.dtype == "float32"
    assert "float32" in repr(again)
    w = net.init(seed=0)
    assert_array_equal(again.trajectory(w, 3), system.trajectory(w, 3))


def test_a_run_that_diverges_leaves_the_others():
    X, y = pictures()
    net = pl.Network(LAYERS, activation="identity", loss="cross_entropy")
    for dtype in ("float64", "float32"):
        system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=[0.1, 1e300]), dtype=dtype)
        w = net.init(seed=0, runs=2)
        path = system.trajectory(w, 6)
        assert np.isfinite(path[0]).all()
        assert np.isnan(path[1, -1]).all()
        alone = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.1), dtype=dtype)
        assert_array_equal(path[0], alone.trajectory(w[0], 6))


# --- schedules ---


def factors(t):
    return 1.0 / (1.0 + 0.5 * t)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("layers", [(6, 4, 7), LAYERS])
def test_a_schedule_multiplies_the_rate(name, layers):
    X, y = pictures(N, layers[0])
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    w = net.init(seed=1, runs=2)
    function = pl.TrainingMap(net, X, y, optimizer(name, batch_size=32, schedule=factors))
    table = pl.TrainingMap(
        net, X, y, optimizer(name, batch_size=32, schedule=[factors(t) for t in range(8)])
    )
    path = function.trajectory(w, 8)
    assert_array_equal(table.trajectory(w, 8), path)
    assert_array_equal(function.trajectory(path[:, 3], 5, start=3), path[:, 3:])
    x = path[:, 0]
    for t in range(8):
        lr = OPTIMIZERS[name]["lr"] * factors(t)
        now = pl.TrainingMap(net, X, y, optimizer(name, batch_size=32, lr=lr))
        assert_array_equal(now.step(x, t), path[:, t + 1])
        assert_array_equal(function.step(x, t), path[:, t + 1])
        V = np.ones((function.n, 1))
        assert_array_equal(now.tangent(x, V, t), function.tangent(x, V, t))
        x = path[:, t + 1]
    s = pl.lyapunov_spectrum(function, w, 6, 1, n_transient=2)
    assert_array_equal(s.state, path[:, -1])
    c = pl.covariant_lyapunov_vectors(function, w, 4, 1, 2, 2)
    assert_array_equal(c.states[:, -1], path[:, 6])
    one = pl.TrainingMap(net, X, y, optimizer(name, batch_size=32, schedule=np.ones(3)))
    none = pl.TrainingMap(net, X, y, optimizer(name, batch_size=32))
    assert_array_equal(one.trajectory(w, 3), none.trajectory(w, 3))
    assert_array_equal(pickle.loads(pickle.dumps(function)).trajectory(w, 8), path)


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ([1.0, 0.5], "schedule must have a factor for each step, got 2 for 3 steps"),
        ([], r"schedule must give one number per step, got shape \(0,\)"),
        ([[1.0]], "schedule must give one number per step"),
        ([1.0, -1.0, 1.0], "schedule must be at least 0, got -1.0"),
        ([1.0, np.nan, 1.0], "schedule must be finite"),
        ("cosine", "schedule must be real numbers"),
        (lambda t: -1.0, r"schedule\(t\) must be at least 0"),
        (lambda t: "fast", r"schedule\(t\) must be real numbers"),
    ],
)
def test_bad_schedules_are_named(schedule, says):
    *_, w = cases.training()
    net, X, y, *_ = cases.training()
    with pytest.raises((ValueError, TypeError), match=says):
        pl.TrainingMap(net, X, y, pl.GradientDescent(schedule=schedule)).trajectory(w, 3)


@pytest.mark.parametrize(
    ("X", "options", "says"),
    [
        (np.zeros((5, 4, 4), np.uint8), {}, "X must have images of 2 pixels, got shape"),
        (np.zeros((0, 2, 1), np.uint8), {}, "X must have at least one sample"),
        (np.zeros((7, 2)), {"dtype": "float16"}, "dtype must be 'float64' or 'float32'"),
        (np.zeros((7, 2)), {"dtype": 3}, "dtype must be 'float64' or 'float32'"),
    ],
)
def test_bad_data_and_precisions_are_named(X, options, says):
    net, _, y, *_ = cases.training()
    with pytest.raises(ValueError, match=says):
        pl.TrainingMap(net, X, y, pl.GradientDescent(), **options)


# --- a second library ---


def torch_path(torch, layers, X, y, w, batches, lr, dtype):
    """States of SGD by PyTorch, over the same batches."""
    parts = pl.Network(layers, loss="cross_entropy").unpack(w)
    parameters = [torch.tensor(p, dtype=dtype, requires_grad=True) for pair in parts for p in pair]
    inputs, labels = torch.tensor(X, dtype=dtype), torch.tensor(y)
    rule = torch.optim.SGD(parameters, lr=lr)
    for chosen in batches:
        a = inputs[chosen]
        for i in range(0, len(parameters), 2):
            a = torch.nn.functional.linear(a, parameters[i], parameters[i + 1])
            if i < len(parameters) - 2:
                a = torch.relu(a)
        rule.zero_grad()
        torch.nn.functional.cross_entropy(a, labels[chosen]).backward()
        rule.step()
    flat = [p.detach().numpy().ravel() for p in parameters]
    gradients = [p.grad.numpy().ravel() for p in parameters]
    return np.concatenate(flat), np.concatenate(gradients)


def test_sgd_on_real_digits_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    folder = Path(os.environ.get("PYLYAP_MNIST", ""))
    if not (folder / "t10k-images-idx3-ubyte.gz").exists() or not folder.name:
        pytest.skip("PYLYAP_MNIST names no folder of MNIST's test digits")
    images, labels = pl.datasets.mnist(folder, "test")
    images, labels = images[:2000], labels[:2000]
    layers = (784, 64, 64, 10)
    net = pl.Network(layers, activation="relu", loss="cross_entropy")
    w = net.init(seed=0)
    for dtype, steps, tol in (("float64", 400, 1e-9), ("float32", 200, 1e-3)):
        rule = pl.GradientDescent(lr=0.1, batch_size=128)
        system = pl.TrainingMap(net, images, labels, rule, dtype=dtype)
        path = system.trajectory(w, steps, every=steps)
        batches = [system.batch(t) for t in range(steps)]
        X = images.reshape(len(images), -1) / 255.0
        theirs, _ = torch_path(torch, layers, X, labels, w, batches, 0.1, getattr(torch, dtype))
        assert_allclose(path[-1], theirs, atol=tol * np.abs(theirs).max())
        assert system.accuracy(path[-1]) > 0.8
    whole = [np.arange(2000)]
    _, gradient = torch_path(torch, layers, X, labels, path[-1], whole, 0.0, torch.float64)
    system = pl.TrainingMap(net, images, labels, pl.GradientDescent())
    error = np.linalg.norm(system.gradient(path[-1]) - gradient) / np.linalg.norm(gradient)
    assert error < 1e-12


# --- inputs that are zero in all of the data ---


@pytest.mark.parametrize("batch_size", [None, 40])
@pytest.mark.parametrize("layers", [(48, 16, 4), (48, 16, 9, 4)])
def test_dead_inputs_change_nothing(layers, batch_size):
    rng = np.random.default_rng(4)
    X, y = rng.normal(size=(80, 48)), rng.integers(0, 4, 80)
    X[:, ::3] = 0.0
    live = X.any(axis=0)
    small = pl.Network((int(live.sum()), *layers[1:]), activation="tanh", loss="cross_entropy")
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    w = net.init(seed=1, biases=True)
    rule = pl.GradientDescent(lr=0.3, momentum=0.5, weight_decay=0.01, batch_size=batch_size)
    system = pl.TrainingMap(net, X, y, rule)
    chosen = (
        net.pack(
            [
                (np.broadcast_to(live, W.shape), np.ones(b.shape))
                if W.shape[1] == 48
                else (np.ones(W.shape), np.ones(b.shape))
                for W, b in net.unpack(w)
            ]
        )
        == 1
    )
    without = pl.TrainingMap(small, X[:, live], y, rule)
    path, there = system.trajectory(w, 6), without.trajectory(w[chosen], 6)
    both = np.concatenate([chosen, chosen])
    assert_array_equal(path[:, both], there)
    # the others know of no data: decay alone
    v, x = np.zeros((~chosen).sum()), w[~chosen]
    for t in range(6):
        v = 0.5 * v - 0.3 * 0.01 * x
        x = x + v
        assert_allclose(system.weights(path[t + 1])[~chosen], x, rtol=1e-12)
    gradient = system.gradient(w)
    assert (gradient[~chosen] == 0).all()
    assert_allclose(gradient[chosen], without.gradient(w[chosen]), rtol=1e-12, atol=1e-15)
    plain = oracles.Net(layers, ("tanh",) * (len(layers) - 2), "cross_entropy")
    assert_allclose(gradient, oracles.gradient(plain, w, X, y), atol=1e-13)
    V = rng.normal(size=(system.n, 3))
    tangents = [system.tangent(path[2], V, 2, method=m) for m in ("matrix-free", "dense")]
    assert_allclose(tangents[0], tangents[1], rtol=1e-9, atol=1e-12)
    assert_allclose(tangents[0], system.jacobian(path[2], 2) @ V, rtol=1e-9, atol=1e-12)
    if batch_size is None:
        H = system.hessian(w)
        exact = oracles.hessian(plain, w, X, y)
        assert np.linalg.norm(H - exact) < 1e-9 * np.linalg.norm(exact)
    assert_allclose(net.predict(w, X), small.predict(w[chosen], X[:, live]), rtol=1e-12)


# --- data that are mostly zero ---


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(16, 5), (70, 33), (130,)])
def test_steps_on_mostly_zero_data_are_those_of_the_oracle(hidden, name):
    layers = (90, *hidden, 7)
    X, y = pictures(300, 90, density=0.2)
    X[:, ::4] = 0  # in all of the data
    X[17] = 0
    net = pl.Network(layers, activation="tanh", loss="cross_entropy")
    w = net.init(seed=1, biases=True)
    plain = oracles.Net(layers, ("tanh",) * len(hidden), "cross_entropy")
    for size in (None, 1, 280):  # of two blocks but for one
        options = OPTIMIZERS[name] | {"weight_decay": 0.01}
        kind = oracles.Adam if "beta1" in options else oracles.GradientDescent
        system = pl.TrainingMap(net, X, y, optimizer(name, weight_decay=0.01, batch_size=size))
        single = pl.TrainingMap(
            net, X, y, optimizer(name, weight_decay=0.01, batch_size=size), dtype="float32"
        )
        x = system.state(w)
        for t in range(3):
            some = system.batch(t)
            after = oracles.step(plain, kind(**options), x, X[some, :, 0] / 255.0, y[some], t)
            assert_allclose(system.step(x, t), after, rtol=1e-11, atol=1e-14)
            assert_allclose(single.step(x, t), after, rtol=1e-4, atol=1e-5)
            x = after


@pytest.mark.parametrize("loss", ["cross_entropy", "cross_entropy_clipped", "mse"])
def test_derivatives_on_mostly_zero_data_are_those_of_the_oracle(loss):
    rng = np.random.default_rng(5)
    layers = (34, 16, 3)
    X = rng.normal(size=(260, 34)) * (rng.random((260, 34)) < 0.2)
    y = rng.normal(size=(260, 3)) if loss == "mse" else rng.integers(0, 3, 260)
    net = pl.Network(layers, activation="tanh", loss=loss)
    w = net.init("he_normal", seed=2, biases=True)
    plain = oracles.Net(layers, ("tanh",), loss)
    H = oracles.hessian(plain, w, X, y)
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.3))
    assert_allclose(system.loss(w), oracles.loss(plain, w, X, y), rtol=1e-13)
    slope = oracles.gradient(plain, w, X, y)
    assert np.linalg.norm(system.gradient(w) - slope) < 1e-13 * np.linalg.norm(slope)
    assert np.linalg.norm(system.hessian(w) - H) < 1e-12 * np.linalg.norm(H)
    V = rng.normal(size=(system.n, 5))
    for method in ("dense", "matrix-free"):
        assert_allclose(system.tangent(w, V, method=method), V - 0.3 * H @ V, atol=1e-12)
    s = pl.lyapunov_spectrum(system, w, 4, 5, method="matrix-free", threads=2)
    one = pl.lyapunov_spectrum(system, w, 4, 5, method="matrix-free", threads=1)
    assert_array_equal(s.growth, one.growth)
    assert_array_equal(s.frame, one.frame)


def test_nothing_but_zeros_leaves_the_biases():
    net = pl.Network((50, 20, 4), activation="tanh", loss="cross_entropy")
    w = net.init(seed=0, biases=True)
    for X, one in ((np.zeros((30, 50)), 1), (np.zeros((30, 50, 1), np.uint8), 255)):
        X[3, 7] = one  # and nothing else
        system = pl.TrainingMap(net, X, np.arange(30) % 4, pl.GradientDescent(batch_size=8))
        plain = oracles.Net((50, 20, 4), ("tanh",), "cross_entropy")
        exact = oracles.gradient(plain, w, system.X.reshape(30, 50) / one, system.y)
        assert_allclose(system.gradient(w), exact, atol=1e-15)
        moved = np.abs(system.trajectory(w, 8) - w).max(axis=0) > 0
        (first, bias), *_ = net.unpack(moved.astype(float))
        assert bias.all()
        assert (first.any(axis=0) == (np.arange(50) == 7)).all()


# --- tangent vectors along minibatch training, n of 10⁵ and more ---


def learning(layers, n_images=512):
    """A net that learns pictures in batches, and its weights."""
    X, y = pictures(n_images, layers[0])
    net = pl.Network(layers, activation="relu", loss="cross_entropy")
    system = pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.5, batch_size=128))
    return system, net.init(seed=0)


@pytest.mark.parametrize("layers", [(784, 128, 10), (784, 256, 256, 10)])
def test_growth_is_that_of_neighbouring_trajectories(layers):
    system, w = learning(layers)
    path = system.trajectory(w, 12)
    steps = np.diff(path[8:12], axis=0).T  # gradients: directions in which something happens
    frame = np.linalg.qr(steps)[0]
    w = path[8]
    s = pl.lyapunov_spectrum(system, w, 8, record_every=8, start=8, frame=frame)
    svd = pl.ftle(system, w, 8, 8, kind="svd", start=8, frame=frame)
    eps = 1e-7  # so small that no unit of a sample turns on or off between the two
    there, back = (
        system.trajectory(w + sign * eps * frame.T, 8, every=8, start=8)[:, -1] for sign in (1, -1)
    )
    factor = np.linalg.qr((there - back).T / (2 * eps))[1]
    assert np.abs(s.growth).max() > 0.1
    # rounding of the weights over eps, 1e-16 / 1e-7, in each of many directions
    assert_allclose(s.growth[0], np.log(np.abs(np.diag(factor))), atol=1e-7)
    assert_allclose(8 * svd[0], np.log(np.linalg.svd(factor)[1]), atol=1e-7)


def test_sharpness_is_an_eigenvalue_of_neighbouring_gradients():
    system, w = learning((784, 128, 10))
    found = pl.sharpness(system, w, tol=1e-7)
    eps = 1e-7
    there, back = (system.gradient(w + sign * eps * found.vector) for sign in (1, -1))
    image = (there - back) / (2 * eps)
    assert np.linalg.norm(image - found.value * found.vector) < 1e-5 * found.value


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak of memory")
def test_memory_grows_with_the_vectors_alone(tmp_path):
    # Three frames at the most in a deep net: the result, the vectors, and what the Hessian makes of
    # them; one exponent more takes 24 n bytes.
    program = (
        "import sys, numpy as np, pylyap as pl\n"
        "net = pl.Network((784, 512, 512, 10), activation='relu', loss='cross_entropy')\n"
        "X = np.zeros((128, 28, 28), np.uint8); X[:, ::7] = 50\n"
        "rule = pl.GradientDescent(lr=0.1, batch_size=64)\n"
        "system = pl.TrainingMap(net, X, np.arange(128) % 10, rule)\n"
        "pl.lyapunov_spectrum(system, net.init(), 2, int(sys.argv[1]))\n"
        "status = open('/proc/self/status').read()\n"
        "print(system.n, 1024 * int(status.split('VmHWM:')[1].split()[0]))\n"
    )
    peaks = []
    for k in (1, 17):
        done = subprocess.run(
            [sys.executable, "-c", program, str(k)],
            capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path,
        )  # fmt: skip
        n, peak = map(int, done.stdout.split())
        peaks.append(peak)
    assert (peaks[1] - peaks[0]) / 16 < 3.4 * 8 * n
