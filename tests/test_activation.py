"""A user's own activation: compiled by Numba, in the same table as the built-in ones."""

import copy
import functools
import math
import pickle
import subprocess
import sys
import threading

import cases
import numpy as np
import pytest
from cases import assert_close
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._native import core

pytest.importorskip("numba")


def tanh(z):
    return math.tanh(z)


def tanh_slope(z):
    return 1 / math.cosh(z) ** 2


def tanh_curvature(z):
    return -2 * math.tanh(z) / math.cosh(z) ** 2


def softsign(z):
    return z / (1 + abs(z))


def softsign_slope(z):
    return 1 / (1 + abs(z)) ** 2


def softsign_curvature(z):
    return -2 * math.copysign(1.0, z) / (1 + abs(z)) ** 3


def zero(z):
    return 0.0


@pytest.fixture(scope="module")
def mine():
    return pl.Activation(tanh, tanh_slope, tanh_curvature, name="mine")


@pytest.fixture(scope="module")
def soft():
    return pl.Activation(softsign, softsign_slope, softsign_curvature)


def training(net, seed=0):
    X, y = cases.data(net, 9, seed)
    return pl.TrainingMap(net, X, y, pl.GradientDescent(lr=0.2))


# ------------------------------------------------------------------------------ known answers


def test_softsign_by_hand(soft):
    # out = softsign(2x) at x = 1 is 2/3, y = 0: dC/da = f f' with f' = 1/9, and
    # d²C/da² = f'² + f f'' with f'' = -2/27
    net = pl.Network((1, 1, 1), activation=soft)
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent())
    w = np.array([2.0, 0.0, 1.0, 0.0])
    assert_allclose(system.loss(w), 2 / 9, rtol=1e-15)
    assert_allclose(system.gradient(w)[0], 2 / 27, rtol=1e-15)
    assert_allclose(system.hessian(w)[0, 0], 1 / 81 - 4 / 81, rtol=1e-14)


# ----------------------------------------------------------------------------------- agreement


@pytest.mark.parametrize(
    "layers", [(2, 10, 2), (3, 4, 5, 2), (3, 300, 2)]
)  # the last without lanes
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_my_own_tanh_is_the_built_in_one(mine, layers, loss):
    own, named = (training(pl.Network(layers, a, loss)) for a in (mine, "tanh"))
    w = cases.weights(own.network, 0.5, runs=5 if layers[1] < 100 else 2)
    for of in ("loss", "gradient", "step"):
        assert_close(getattr(own, of)(w), getattr(named, of)(w), 1e-13)
    V = np.random.default_rng(0).normal(size=(*w.shape, 3))
    assert_close(own.tangent(w, V), named.tangent(w, V), 1e-13)
    if layers[1] < 100:
        assert_close(own.hessian(w), named.hessian(w), 1e-13)
    assert_close(own.network.predict(w, own.X), named.network.predict(w, own.X), 1e-13)


@pytest.mark.parametrize("method", ["dense", "matrix-free"])
def test_the_spectrum_with_my_own_tanh_is_that_with_the_built_in_one(mine, method):
    own, named = (training(pl.Network((2, 10, 1), a)) for a in (mine, "tanh"))
    w = cases.weights(own.network, runs=3)
    spectra = [pl.lyapunov_spectrum(s, w, 50, k=4, method=method) for s in (own, named)]
    assert_close(spectra[0].growth, spectra[1].growth, 1e-11)
    assert_close(spectra[0].loss, spectra[1].loss, 1e-13)


def test_own_and_named_activations_mix(mine, soft):
    own = pl.Network((2, 3, 4, 3, 1), activation=[mine, "sigmoid", soft])
    assert own.activations == (mine, "sigmoid", soft)
    first_named = pl.Network((2, 3, 4, 3, 1), activation=["tanh", "sigmoid", soft])
    w = cases.weights(own)
    assert_close(training(own).hessian(w), training(first_named).hessian(w), 1e-13)


def test_tangents_are_the_derivative_of_the_step(soft):
    system = training(pl.Network((2, 5, 1), activation=soft))
    w = cases.weights(system.network)
    v = np.random.default_rng(1).normal(size=w.size)
    h = 1e-6
    numeric = (system.step(w + h * v) - system.step(w - h * v)) / (2 * h)
    assert_close(system.tangent(w, v[:, np.newaxis])[:, 0], numeric, 1e-8)


@pytest.mark.parametrize("count", [1, 2, 5, 7, 64])
def test_a_value_does_not_depend_on_where_it_stands(mine, count):
    z = np.random.default_rng(count).normal(size=count)
    together = core.activate(mine._code, z)
    alone = [core.activate(mine._code, z[i : i + 1]) for i in range(count)]
    for part in range(3):
        assert_array_equal(together[part], [a[part][0] for a in alone])


# --------------------------------------------------------------------------------- determinism


@pytest.mark.usefixtures("many_cores")
def test_bits_do_not_depend_on_threads_or_batch(soft):
    system = training(pl.Network((2, 6, 1), activation=soft))
    w = cases.weights(system.network, runs=11)
    all_at_once = pl.lyapunov_spectrum(system, w, 40, threads=1)
    threaded = pl.lyapunov_spectrum(system, w, 40, threads=4)
    assert_array_equal(all_at_once.growth, threaded.growth)
    assert_array_equal(all_at_once.growth[7], pl.lyapunov_spectrum(system, w[7], 40).growth)


def test_many_threads_at_once_may_compile_and_use_one():
    results, errors = [], []

    def work():
        try:
            own = pl.Activation(softsign, softsign_slope, softsign_curvature, name="threads")
            system = training(pl.Network((2, 3, 1), activation=own))
            results.append(system.loss(cases.weights(system.network)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(map(float, results))) == 1


def test_compiled_code_is_kept_alive_by_its_users():
    code = """
import gc, math, numpy as np, pylyap as pl
from pylyap import _compile
from pylyap._native import core
def make():
    own = pl.Activation(lambda z: z * z, lambda z: 2 * z, lambda z: 2.0)
    net = pl.Network((1, 1, 1), activation=own)
    arrays = np.ones((1, 1)), np.zeros((1, 1))
    settings = dict(adam=False, momentum=False, nesterov=False, beta1=0, beta2=0, epsilon=0)
    return core.Problem(
        net._core, *arrays, core.Optimizer(**settings), batch_size=1, shuffle=True, seed=0,
        single=False,
    )
problem = make()
_compile.clear_cache()
for _ in range(3):
    gc.collect()
for i in range(3):
    pl.Activation(lambda z: i * z, lambda z: i, lambda z: 0)  # the memory is used again
loss = np.empty(1)
task = core.Task(np.zeros(1, np.int32), np.zeros(1, np.int64), workers=1, first=0, count=1)
problem.evaluate(np.array([[3.0, 0, 1, 0]]), loss, None, None, task)
print(loss[0])  # (3²)² / 2
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 40.5


# ---------------------------------------------------------------------------- what it is worth


def test_networks_with_my_own_activation_can_be_pickled(soft):
    net = pl.Network((2, 3, 2, 1), activation=[soft, "tanh"])
    again = pickle.loads(pickle.dumps(net))
    assert again == net
    assert hash(again) == hash(net)
    system = training(net)
    w = cases.weights(net)
    assert pickle.loads(pickle.dumps(system)).loss(w) == system.loss(w)
    assert copy.deepcopy(net) == net


def test_pickles_do_not_carry_code(soft):
    assert len(pickle.dumps(soft)) < 300


def test_local_functions_cannot_be_pickled():
    own = pl.Activation(lambda z: z, lambda z: 1.0, zero)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(own)


def test_equality_is_that_of_functions_and_name(soft):
    same = pl.Activation(softsign, softsign_slope, softsign_curvature)
    other = pl.Activation(softsign, softsign_slope, softsign_curvature, name="other")
    assert soft == same
    assert hash(soft) == hash(same)
    assert soft != other
    assert soft != "softsign"
    assert pl.Network((1, 2, 1), soft) == pl.Network((1, 2, 1), same)
    assert pl.Network((1, 2, 1), soft) != pl.Network((1, 2, 1), other)


def test_name_and_repr(soft):
    assert soft.name == "softsign"
    assert repr(soft) == "Activation('softsign')"
    net = pl.Network((1, 2, 2, 1), [soft, "relu"])
    assert (
        repr(net)
        == "Network((1, 2, 2, 1), activation=[Activation('softsign'), 'relu'], loss='mse')"
    )
    assert pl.Activation(softsign, softsign_slope, softsign_curvature, name="s").name == "s"


def test_numba_is_imported_when_it_is_needed():
    code = "import sys, pylyap as pl; pl.Network((1, 2, 1))._core; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert done.stdout.strip() == "False", done.stderr


# -------------------------------------------------------------------------------------- limits


def test_functions_of_math_and_numpy_are_taken_as_they_are():
    own = pl.Activation(np.sin, math.cos, lambda z: -np.sin(z))
    z = np.linspace(-3, 3, 11)
    for actual, expected in zip(core.activate(own._code, z), core.activate("sin", z), strict=True):
        assert_allclose(actual, expected, rtol=1e-15, atol=1e-15)


def test_compiled_functions_are_taken_too():
    import numba

    f = numba.njit(lambda z: z**3)
    own = pl.Activation(f, numba.njit(lambda z: 3 * z**2), lambda z: 6 * z, name="cube")
    assert_array_equal(core.activate(own._code, np.array([2.0]))[0], [8.0])


def test_integers_and_single_precision_are_real_numbers():
    step = pl.Activation(lambda z: z, lambda z: 1, lambda z: 0)
    assert [a[0] for a in core.activate(step._code, np.array([2.5]))] == [2.5, 1.0, 0.0]
    single = pl.Activation(
        lambda z: np.float32(z) ** 2, lambda z: 2 * np.float32(z), lambda z: np.float32(2.0)
    )
    assert core.activate(single._code, np.array([1.5]))[0][0] == 2.25


def test_an_exception_is_nan_and_a_division_by_zero_infinite_there_and_nowhere_else():
    def guarded(z):
        if z == 7.0:
            raise ValueError("seven")
        return 1 / z

    own = pl.Activation(guarded, lambda z: -1 / z**2, lambda z: 2 / z**3)
    f, df, d2f = core.activate(own._code, np.array([1.0, 0.0, 7.0, 2.0, -4.0, 7.0]))
    assert_array_equal(f, [1.0, np.inf, np.nan, 0.5, -0.25, np.nan])
    assert_array_equal(df[[0, 1, 3, 4]], [-1.0, -np.inf, -0.25, -0.0625])
    assert_allclose(d2f, [2.0, np.inf, 2 / 343, 0.25, -0.03125, 2 / 343], rtol=1e-15)


def test_a_run_that_diverges_in_a_user_function_does_not_affect_the_others():
    own = pl.Activation(np.log, lambda z: 1 / z, lambda z: -1 / z**2, name="log")  # nan below 0
    net = pl.Network((1, 1, 1), activation=own)
    system = pl.TrainingMap(net, [[1.0]], [0.0], pl.GradientDescent(lr=0.1))
    w = np.array([[1.5, 0.0, 1.0, 0.0], [-1.5, 0.0, 1.0, 0.0], [2.5, 0.0, 1.0, 0.0]])
    s = pl.lyapunov_spectrum(system, w, 10)
    assert_array_equal(s.status, [0, 1, 0])
    assert_array_equal(s.growth[2], pl.lyapunov_spectrum(system, w[2], 10).growth)


def test_kinks_are_accepted():
    pl.Activation(
        lambda z: max(z, 0.0), lambda z: 1.0 if z > 0 else 0.0, lambda z: 0.0, name="my_relu"
    )
    pl.Activation(lambda z: abs(z - 1), lambda z: np.sign(z - 1), zero)


def test_fast_oscillations_and_steep_slopes_are_accepted():
    pl.Activation(
        lambda z: np.sin(1e5 * z),
        lambda z: 1e5 * np.cos(1e5 * z),
        lambda z: -1e10 * np.sin(1e5 * z),
    )
    pl.Activation(np.exp, np.exp, np.exp)
    pl.Activation(
        lambda z: np.tanh(1e4 * z),
        lambda z: 1e4 / np.cosh(1e4 * z) ** 2,
        lambda z: -2e8 * np.tanh(1e4 * z) / np.cosh(1e4 * z) ** 2,
    )


# -------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("argument", ["f", "df", "d2f"])
@pytest.mark.parametrize("value", [None, 1.0, "tanh", float, np.zeros(3)])
def test_what_is_no_function_is_refused(argument, value):
    functions = {"f": tanh, "df": tanh_slope, "d2f": tanh_curvature} | {argument: value}
    with pytest.raises(TypeError, match=rf"^{argument} must be a function of one float, got "):
        pl.Activation(**functions)


@pytest.mark.parametrize("argument", ["f", "df", "d2f"])
@pytest.mark.parametrize("value", [lambda: 0.0, lambda a, b: a, lambda z, *, s: z])
def test_wrong_numbers_of_arguments_are_refused(argument, value):
    functions = {"f": tanh, "df": tanh_slope, "d2f": tanh_curvature} | {argument: value}
    with pytest.raises(TypeError, match=rf"^{argument} must be a function of one float, got "):
        pl.Activation(**functions)


@pytest.mark.parametrize("argument", ["f", "df", "d2f"])
@pytest.mark.parametrize(
    ("value", "came"),
    [
        (lambda z: z + 1j, "complex128"),
        (lambda z: "a", "str"),
        (lambda z: None, "none"),
        (lambda z: (z, z), "Tuple"),
        (lambda z: z > 0, "bool"),
        (lambda z: np.zeros(2), "array"),
    ],
)
def test_what_returns_no_real_number_is_refused(argument, value, came):
    functions = {"f": tanh, "df": tanh_slope, "d2f": tanh_curvature} | {argument: value}
    with pytest.raises(TypeError, match=rf"^{argument} must return a float, got .*{came}"):
        pl.Activation(**functions)


@pytest.mark.parametrize("argument", ["f", "df", "d2f"])
@pytest.mark.parametrize(
    "value",
    [
        lambda z: undefined(z),  # noqa: F821
        lambda z: z.real_part(),
        lambda z: open(z),  # noqa: SIM115
        functools.partial(softsign),
    ],
)
def test_what_numba_cannot_compile_is_refused(argument, value):
    functions = {"f": tanh, "df": tanh_slope, "d2f": tanh_curvature} | {argument: value}
    with pytest.raises(ValueError, match=rf"^{argument} must be a function that Numba compiles"):
        pl.Activation(**functions)


@pytest.mark.parametrize(
    ("argument", "wrong", "of"),
    [
        ("df", lambda z: -1 / math.cosh(z) ** 2, "f"),
        ("df", lambda z: 1 + math.tanh(z) ** 2, "f"),
        ("df", lambda z: 1 - math.tanh(z) ** 2 if z > -2 else math.nan, "f"),
        ("df", lambda z: 1 - math.tanh(z) ** 2 if z > -2 else 1.0, "f"),
        ("d2f", tanh_slope, "df"),
        ("d2f", zero, "df"),
    ],
)
def test_wrong_derivatives_are_refused(argument, wrong, of):
    functions = {"f": tanh, "df": tanh_slope, "d2f": tanh_curvature} | {argument: wrong}
    with pytest.raises(ValueError, match=rf"^{argument} must be the derivative of {of}, got "):
        pl.Activation(**functions)


@pytest.mark.parametrize("name", [1, "", b"tanh"])
def test_bad_names_are_refused(name):
    with pytest.raises(TypeError, match="name must be a string"):
        pl.Activation(tanh, tanh_slope, tanh_curvature, name=name)


@pytest.mark.parametrize("activation", [tanh, [tanh]])
def test_a_bare_function_is_no_activation(activation):
    with pytest.raises(TypeError, match="activation must be"):
        pl.Network((1, 2, 1), activation=activation)


# ------------------------------------------------------------------- what its functions read

SHARPNESS = 2.0


def scaled(z):
    return math.tanh(SHARPNESS * z)


def scaled_slope(z):
    return SHARPNESS / math.cosh(SHARPNESS * z) ** 2


def scaled_curvature(z):
    return -2 * SHARPNESS**2 * math.tanh(SHARPNESS * z) / math.cosh(SHARPNESS * z) ** 2


def test_globals_are_fixed_when_an_activation_is_constructed(monkeypatch):
    z = np.array([0.5, -1.5])
    made = {}
    for value in (2.0, 3.0):
        monkeypatch.setitem(globals(), "SHARPNESS", value)
        made[value] = pl.Activation(scaled, scaled_slope, scaled_curvature)
    for value, own in made.items():
        f, df, d2f = core.activate(own._code, z)
        assert_allclose(f, np.tanh(value * z), rtol=1e-14)
        assert_allclose(df, value / np.cosh(value * z) ** 2, rtol=1e-14)
        assert_allclose(
            d2f, -2 * value**2 * np.tanh(value * z) / np.cosh(value * z) ** 2, rtol=1e-13
        )
    # they are not equal, nor are networks of them; a copy is, though the global has changed
    assert made[2.0] != made[3.0]
    assert pl.Network((1, 2, 1), made[2.0]) != pl.Network((1, 2, 1), made[3.0])
    assert copy.deepcopy(pl.Network((1, 2, 1), made[2.0])) == pl.Network((1, 2, 1), made[2.0])
    assert pl.Activation(scaled, scaled_slope, scaled_curvature)._loops is made[3.0]._loops
    data = pickle.dumps(made[2.0])
    with pytest.raises(ValueError, match=r"the global SHARPNESS of d2f must be 2\.0.*got 3\.0"):
        pickle.loads(data)
    monkeypatch.setitem(globals(), "SHARPNESS", 2.0)
    assert pickle.loads(data) == made[2.0]
