"""TangentMonitor: the exponents of a training loop of one's own."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

torch = pytest.importorskip("torch")

import torch_models as models  # noqa: E402
from torch import nn  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Loop:
    """A training loop in plain PyTorch."""

    def __init__(self, name="dense", optimizer="momentum"):
        self.case = models.case(name)
        self.model = self.case.model
        self.function = models.function_of(self.case.loss)
        self.optimizer = models.OPTIMIZERS[optimizer](self.model.parameters())
        self.X, self.y = models.tensors(self.case)

    def monitor(self, k=2, **options):
        options = {"jvp": "loop", **options}
        return pl.TangentMonitor(self.model, self.case.loss, self.optimizer, k, **options)

    def train(self, monitor, steps, batches=lambda t: slice(None), first=0, clip=math.inf):
        for t in range(first, first + steps):
            chosen = batches(t)
            self.optimizer.zero_grad()
            self.function(self.model(self.X[chosen]), self.y[chosen]).backward()
            if clip < math.inf:
                nn.utils.clip_grad_norm_(self.model.parameters(), clip)
            self.optimizer.step()
            if monitor is not None:
                monitor.step((self.X[chosen], self.y[chosen]))


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", "adamw"])
def test_exponents_are_those_of_the_map_on_the_same_batches(optimizer):
    loop = Loop(optimizer=optimizer)
    system, w0 = pl.from_torch(
        *loop.case, loop.optimizer, native=False, batch_size=5, seed=2, jvp="loop"
    )
    expected = pl.lyapunov_spectrum(system, system.state(w0), n_steps=30, k=3)
    with loop.monitor(3) as monitor:
        loop.train(monitor, 30, lambda t: torch.as_tensor(system.batch(t)))
    assert_allclose(monitor.exponents, expected.exponents, rtol=0, atol=1e-9)
    assert_allclose(monitor.ftle, expected.growth, rtol=0, atol=1e-9)
    assert monitor.steps == 30
    loop.train(None, 1)  # the hook is gone
    assert monitor._before is None


def test_windows_are_those_of_ftle():
    loop = Loop("small cnn")
    system, w0 = pl.from_torch(*loop.case, loop.optimizer, native=False, jvp="loop")
    expected = pl.ftle(system, system.state(w0), n_steps=12, window=4, k=2)
    monitor = loop.monitor(2, window=4, every=2)
    loop.train(monitor, 12)
    assert_allclose(monitor.ftle, expected, atol=1e-9)
    assert_array_equal(monitor.starts, [0, 4, 8])


def test_no_work_between_windows(monkeypatch):
    loop = Loop()
    monitor = loop.monitor(1, window=3, stride=10)
    carried = []
    inner = monitor._carry
    monkeypatch.setattr(monitor, "_carry", lambda *a: (carried.append(monitor._count), inner(*a)))
    flat, copies = monitor._functional.flat, []
    monkeypatch.setattr(monitor._functional, "flat", lambda m: (copies.append(1), flat(m))[1])
    loop.train(monitor, 25)
    assert carried == [1, 2, 3, 11, 12, 13, 21, 22, 23]
    assert len(copies) == 18  # before and after each of these
    assert_array_equal(monitor.starts, [0, 10, 20])
    assert monitor.ftle.shape == (3, 1)
    assert monitor.steps == 9


def test_a_scheduler_may_change_the_rate():
    loop = Loop("small cnn")
    system, w0 = pl.from_torch(*loop.case, loop.optimizer, schedule=lambda t: 0.5**t, jvp="loop")
    expected = pl.lyapunov_spectrum(system, system.state(w0), n_steps=6, k=2).exponents
    monitor = loop.monitor(2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(loop.optimizer, 0.5)
    for t in range(6):
        loop.train(None, 1)
        scheduler.step()  # before the monitor
        monitor.step((loop.X, loop.y))
        assert monitor.steps == t + 1
    assert_allclose(monitor.exponents, expected, atol=1e-9)


def test_what_the_monitor_cannot_follow_is_found():
    wrong = "the recomputed parameters differ .* clipping of the gradient, dropout, BatchNorm"
    loop = Loop(optimizer="sgd")
    monitor = loop.monitor()
    with pytest.raises(pl.ArgumentError, match=r"must follow a call of optimizer\.step"):
        monitor.step((loop.X, loop.y))
    with pytest.raises(pl.ArgumentError, match=wrong):
        loop.train(monitor, 1, clip=1e-2)
    loop.train(None, 1)
    with pytest.raises(pl.ArgumentError, match=wrong):  # another batch
        monitor.step((loop.X[:5], loop.y[:5]))
    loop.train(None, 2)
    with pytest.raises(pl.ArgumentError, match="got 2 since the last"):
        monitor.step((loop.X, loop.y))
    loop.train(monitor, 1)
    with torch.no_grad():
        loop.model[0].weight *= 0.9
    with pytest.raises(pl.ArgumentError, match="changed between two steps"):
        loop.train(monitor, 1)
    loop.train(monitor, 3)


@pytest.mark.parametrize("rate", [1e-9, 1e-5])
def test_a_clipped_gradient_is_found_at_small_rates(rate):
    loop = Loop(optimizer="sgd")
    loop.optimizer.param_groups[0]["lr"] = rate
    monitor = loop.monitor()
    loop.train(monitor, 2)
    with pytest.raises(pl.ArgumentError, match="recomputed parameters differ"):
        loop.train(monitor, 1, clip=1e-2)


def test_layers_in_training_mode_are_found_at_the_step():
    loop = Loop()
    loop.model.insert(1, nn.Dropout(0.5))
    loop.model.eval()
    monitor = loop.monitor()
    loop.train(monitor, 1)
    loop.model.train()
    with pytest.raises(pl.ArgumentError, match=r"model .* Dropout '1' .* model\.eval"):
        loop.train(monitor, 1)


def test_buffers_are_those_of_the_model():
    torch.manual_seed(0)
    loop = Loop()
    loop.model.insert(1, nn.BatchNorm1d(4).double().eval())
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.1)
    monitor = loop.monitor()
    for shift in (0.0, 0.5, -1.0):
        loop.model[1].running_mean += shift
        loop.train(monitor, 2)
    assert monitor.steps == 6


def test_the_loop_is_not_disturbed():
    plain, watched = Loop("gru", "adam"), Loop("gru", "adam")
    monitor = watched.monitor()
    plain.train(None, 5)
    watched.train(monitor, 5)
    for a, b in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)
    assert set(plain.optimizer.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_near_a_minimum_rounding_is_no_fault(dtype):
    model = nn.Linear(3, 1).to(dtype)
    X = torch.randn(20, 3, dtype=dtype)
    y = X @ torch.ones(3, 1, dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.5)
    monitor = pl.TangentMonitor(model, nn.MSELoss(), optimizer, jvp="loop")
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()
        optimizer.step()
        monitor.step((X, y))
    assert monitor.exponents[0] < -0.1


def test_a_training_that_diverges_gives_nan():
    model = nn.Linear(2, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e200)
    monitor = pl.TangentMonitor(model, "mse", optimizer)
    X, y = torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        (0.5 * ((model(X) - y) ** 2).sum() / 3).backward()
        optimizer.step()
        monitor.step((X, y))
    assert np.isnan(monitor.exponents).all()


def test_sharpness_is_the_largest_eigenvalue():
    loop = Loop("gru", "adam")
    monitor = loop.monitor()
    loop.train(monitor, 3)
    system, w = pl.from_torch(*loop.case, loop.optimizer, jvp="loop")
    H = system.hessian_vector(w, np.eye(system.n_params))
    assert_allclose(monitor.sharpness(), np.linalg.eigvalsh(H)[-1], rtol=1e-8)
    part = monitor.sharpness((loop.X[:4], loop.y[:4]))
    assert part != pytest.approx(monitor.sharpness(), rel=1e-3)


KINDS = ("hessian", "preconditioned", "batch", "gradient", "critical")
# Parameters and moments after four steps of torch and of the map differ by rounding, which the
# bisection of the critical rate does not amplify beyond its tolerance.
RTOL = {"critical": 1e-7}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("optimizer", ["decay", "momentum", "nesterov", "adam", "adamw"])
def test_every_kind_is_that_of_the_map_along_the_run(optimizer, kind):
    loop = Loop(optimizer=optimizer)
    data = loop.X, loop.y
    options = {"native": False, "jvp": "loop", "seed": 2}
    system, w0 = pl.from_torch(*loop.case, loop.optimizer, **options)
    small, _ = pl.from_torch(*loop.case, loop.optimizer, **options, batch_size=5)
    rtol = RTOL.get(kind, 1e-9)
    monitor = loop.monitor()
    loop.train(monitor, 4)
    whole = pl.sharpness_along(system, system.state(w0), 4, kind=kind, tol=1e-8)
    assert_allclose(monitor.sharpness(kind=kind, tol=1e-8), whole.value[-1], rtol=rtol)
    assert_allclose(monitor.sharpness(data, kind=kind, tol=1e-8), whole.value[-1], rtol=rtol)
    if kind != "batch":  # whose threshold is that of small batches here
        found = monitor.sharpness(kind=kind, tol=1e-8, relative=True)
        assert_allclose(found, whole.ratio[-1], rtol=rtol)
    if kind == "hessian":
        return
    start = pl.sharpness_along(small, system.trajectory(w0, 4)[-1], 0, start=4, kind=kind, tol=1e-8)
    chosen = [torch.as_tensor(small.batch(t)) for t in range(4, 4 + small.steps_per_epoch)]
    batches = [(loop.X[i], loop.y[i]) for i in chosen]
    for relative, expected in ((False, start.value[0]), (True, start.ratio[0])):
        found = monitor.sharpness(data, kind=kind, batches=batches, tol=1e-8, relative=relative)
        assert_allclose(found, expected, rtol=rtol)


def test_the_preconditioner_is_that_of_the_optimizer_and_of_its_groups():
    loop = Loop()
    first, *others = loop.model.parameters()
    loop.optimizer = torch.optim.Adam([{"params": [first], "lr": 0.02}, {"params": others}], lr=0.1)
    monitor = loop.monitor()
    loop.train(monitor, 3)
    loop.optimizer.zero_grad()
    loop.function(loop.model(loop.X), loop.y).backward()
    parameters = list(loop.model.parameters())
    P = []
    for p in parameters:  # the state of torch, one gradient later
        v = 0.999 * loop.optimizer.state[p]["exp_avg_sq"] + 0.001 * p.grad**2
        rate = 0.02 if p is first else 0.1
        P.append(((1 - 0.9**4) * ((v / (1 - 0.999**4)).sqrt() + 1e-8) * 0.1 / rate).ravel())
    P = torch.cat(P).numpy()
    system, w = pl.from_torch(*loop.case, loop.optimizer, native=False)
    H = system.hessian_vector(w, np.eye(system.n_params))
    expected = np.linalg.eigvalsh(H / np.sqrt(np.outer(P, P)))[-1]
    assert_allclose(monitor.sharpness(kind="preconditioned", tol=1e-9), expected, rtol=1e-8)
    assert_allclose(monitor.sharpness(kind=None, tol=1e-9), expected, rtol=1e-8)
    relative = monitor.sharpness(kind=None, tol=1e-9, relative=True)
    assert_allclose(relative, expected * 0.1 / 38, rtol=1e-8)
    assert math.isnan(monitor.sharpness(relative=True))  # the Hessian has no threshold with Adam


def test_before_the_first_step_and_for_schedulers_the_optimizer_is_the_present_one():
    loop = Loop(optimizer="adam")
    monitor = loop.monitor()
    system, w0 = pl.from_torch(*loop.case, loop.optimizer, native=False)
    expected = pl.sharpness(system, w0, kind="preconditioned", t=0)
    data = loop.X, loop.y
    assert_allclose(monitor.sharpness(data, kind="preconditioned"), expected.value, rtol=1e-9)
    assert_allclose(
        monitor.sharpness(kind="preconditioned", batches=[data]), expected.value, rtol=1e-9
    )
    loop.optimizer.param_groups[0]["lr"] *= 0.5
    found = monitor.sharpness(data, kind="preconditioned", relative=True)
    assert_allclose(found, 0.5 * expected.ratio, rtol=1e-9)


def test_without_convergence_it_is_a_lower_bound_and_of_a_diverged_model_nan():
    loop = Loop(optimizer="adam")
    monitor = loop.monitor()
    loop.train(monitor, 2)
    assert monitor.sharpness(max_products=2) < monitor.sharpness(max_products=30)
    with torch.no_grad():
        next(loop.model.parameters())[0, 0] = math.inf
    for kind in KINDS:
        assert math.isnan(monitor.sharpness((loop.X, loop.y), kind=kind))


def test_batch_sharpness_is_a_mean_with_the_threshold_of_small_batches():
    loop = Loop(optimizer="momentum")
    monitor = loop.monitor()
    parts = [(loop.X[i::3], loop.y[i::3]) for i in range(3)]
    each = [monitor.sharpness(part, kind="gradient") for part in parts]
    assert_allclose(monitor.sharpness(kind="batch", batches=parts), np.mean(each), rtol=1e-12)
    found = monitor.sharpness(kind="batch", batches=parts, relative=True)
    assert_allclose(found, (np.mean(each) + 0.01) * 0.05 / (2 * 0.1), rtol=1e-12)


def test_what_a_sharpness_cannot_be_is_refused_by_name():
    loop = Loop()
    first, *others = loop.model.parameters()
    groups = [{"params": [first], "lr": 0.02}, {"params": others}]
    loop.optimizer = torch.optim.AdamW(groups, lr=0.1)
    monitor = loop.monitor()
    data = loop.X, loop.y
    for options, words in (
        ({"kind": "preconditioned"}, "kind must not be 'preconditioned' where parameter groups"),
        ({"kind": "hesian"}, "kind must be one of .*'hessian'"),
        ({"relative": 1}, "relative must be True or False"),
        ({"tol": 0.0}, "tol must be finite and > 0"),
        ({"max_products": 0}, "max_products must be at least 1"),
        ({"batches": [data]}, "batches must be None for kind='hessian'"),
        ({"kind": "batch", "batches": []}, "batches must have at least one pair"),
        ({"kind": "batch", "batches": 3}, "batches must be a sequence of pairs"),
        ({"kind": "batch", "batches": [data, data[0]]}, r"batches\[1\] must be a pair"),
        ({"kind": "batch", "batches": [(loop.X, loop.y[:3])]}, r"batches\[0\]\[1\] must have as"),
    ):
        with pytest.raises(pl.ArgumentError, match=words):
            monitor.sharpness(data, **options)
    with pytest.raises(pl.ArgumentError, match="batch must be given before the first step"):
        monitor.sharpness(kind="batch")


def test_state_is_saved_and_loaded(tmp_path):
    whole, first = Loop("small cnn"), Loop("small cnn")
    expected, monitor = whole.monitor(every=3), first.monitor(every=3)
    whole.train(expected, 12)
    first.train(monitor, 5)
    torch.save(monitor.state_dict(), tmp_path / "monitor.pt")
    monitor.close()
    again = first.monitor(every=3)
    again.load_state_dict(torch.load(tmp_path / "monitor.pt", weights_only=True))
    first.train(again, 7)
    assert_array_equal(again.exponents, expected.exponents)
    assert_array_equal(again.ftle, expected.ftle)
    with pytest.raises(pl.ArgumentError, match="state must have every=2, got every=3"):
        first.monitor(every=2).load_state_dict(again.state_dict())
    with pytest.raises(pl.ArgumentError, match="state must have a frame of shape"):
        first.monitor(1, every=3).load_state_dict(again.state_dict())
    with pytest.raises(pl.ArgumentError, match="state must be a result of state_dict"):
        again.load_state_dict({})


def test_a_flat_dictionary_of_numbers():
    loop = Loop()
    monitor = loop.monitor(2)
    assert math.isnan(monitor.log()["pylyap/exponent_2"])
    loop.train(monitor, 2)
    found = monitor.log("a/")
    assert list(found) == ["a/steps", "a/exponent_1", "a/exponent_2", "a/ftle_1", "a/ftle_2"]
    assert all(type(value) is float for value in found.values())
    assert found["a/ftle_2"] == monitor.ftle[-1, 1]


def test_arguments_are_refused_by_name():
    loop = Loop()
    for options, words in (
        ({"k": 0}, "k must be in 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"window": 3, "every": 2}, "window must be a multiple of every=2"),
        ({"stride": 3}, "stride needs a window"),
        ({"window": 3, "stride": 2}, "stride must be at least window=3"),
        ({"rtol": 0.0}, "rtol must be finite and > 0"),
    ):
        with pytest.raises(pl.ArgumentError, match=words):
            loop.monitor(**options)
    for optimizer in (pl.GradientDescent(), torch.optim.RMSprop(loop.model.parameters())):
        with pytest.raises(pl.ArgumentError, match="optimizer must be"):
            pl.TangentMonitor(loop.model, "mse", optimizer)
    monitor = loop.monitor()
    with pytest.raises(pl.ArgumentError, match="batch must be given before the first step"):
        monitor.sharpness()
    loop.train(None, 1)
    with pytest.raises(pl.ArgumentError, match="batch must be a pair"):
        monitor.step(3)
