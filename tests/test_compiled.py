"""Maps of the user's own, compiled: the same numbers without Python."""

import copy
import pickle
import subprocess
import sys
import types

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl
from pylyap._compile import Frozen

numba = pytest.importorskip("numba")

pytestmark = pytest.mark.core

A, B = 1.4, 0.3


def henon_step(x):
    return np.array([1 - A * x[0] ** 2 + x[1], B * x[0]])


def henon_jacobian(x):
    return np.array([[-2 * A * x[0], 1.0], [B, 0.0]])


def henon_step_of_tuples(x):
    return 1 - A * x[0] ** 2 + x[1], B * x[0]


def henon_jacobian_of_tuples(x):
    return (-2 * A * x[0], 1), (B, 0.0)


@pytest.fixture(scope="module", params=["arrays", "tuples"])
def henon(request):
    functions = {
        "arrays": (henon_step, henon_jacobian),
        "tuples": (henon_step_of_tuples, henon_jacobian_of_tuples),
    }
    return pl.DiscreteMap(*functions[request.param], 2, compiled=True)


def test_the_same_numbers_as_from_python(henon):
    x = np.array([0.1, 0.1])
    ours = pl.lyapunov_spectrum(henon, x, 25, record_every=5)
    theirs = pl.lyapunov_spectrum(cases.henon(A, B), x, 25, record_every=5)
    assert_allclose(ours.growth, theirs.growth, atol=1e-9)
    assert_allclose(henon.trajectory(x, 25)[-1], ours.state, rtol=1e-12)
    c = pl.covariant_lyapunov_vectors(henon, x, 20, n_transient=20, n_tail=20)
    d = pl.covariant_lyapunov_vectors(cases.henon(A, B), x, 20, n_transient=20, n_tail=20)
    assert_allclose(c.growth, d.growth, atol=1e-6)
    assert (c.residual < 1e-14).all()


def test_the_known_exponents(henon):
    s = pl.lyapunov_spectrum(henon, [0.1, 0.1], 200_000, n_transient=100, record_every=100)
    assert_allclose(s.exponents[0], 0.41922, atol=max(4 * s.stderr[0], 1e-3))
    assert_allclose(s.exponents.sum(), np.log(B), atol=1e-10)


def test_threads_and_batches_change_no_bit(henon):
    x = np.random.default_rng(0).uniform(-0.1, 0.1, (7, 2))
    one, two = (pl.lyapunov_spectrum(henon, x, 4000, threads=n) for n in (1, 2))
    for name in ("growth", "state", "frame"):
        assert_array_equal(getattr(one, name), getattr(two, name))
    assert_array_equal(pl.lyapunov_spectrum(henon, x[3], 4000).growth, one.growth[3])


def test_a_run_that_escapes_is_nan_and_alone(henon):
    x = np.array([[0.1, 0.1], [50.0, 0.0], [0.2, 0.1]])
    s = pl.lyapunov_spectrum(henon, x, 50)
    assert_array_equal(s.status, [0, 1, 0])
    assert np.isnan(s.exponents[1]).all()
    assert_array_equal(pl.lyapunov_spectrum(henon, x[2], 50).growth, s.growth[2])


def test_it_can_be_pickled_and_names_itself(henon):
    again = pickle.loads(pickle.dumps(henon))
    assert repr(again) == repr(henon)
    assert repr(henon).startswith("DiscreteMap(henon_step")
    assert repr(henon).endswith(", n=2, compiled=True)")
    x = np.array([0.1, 0.1])
    assert_array_equal(again.step(x), henon.step(x))


BAD = {
    "a list": (lambda x: [x[0], x[1]], henon_jacobian, TypeError, "step must return an array"),
    "three entries": (lambda x: (x[0], x[1], 0.0), henon_jacobian, TypeError, "tuple of numbers"),
    "a row short": (henon_step, lambda x: ((1.0, 0.0),), TypeError, "tuple of tuples of numbers"),
    "a vector": (henon_step, henon_step, TypeError, "jacobian must return an array of float64"),
    "no numbers": (lambda x: undefined(x), henon_jacobian, ValueError, "step must be a function"),  # noqa: F821
    "whole": (lambda x: np.array([1, 2]), henon_jacobian, TypeError, "step must return an array"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_compiled_is_said_at_once(case):
    step, jacobian, error, message = BAD[case]
    with pytest.raises(error, match=message):
        pl.DiscreteMap(step, jacobian, 2, compiled=True)


def test_a_wrong_length_is_refused_before_the_computation(henon):
    short = pl.DiscreteMap(lambda x: x[:1].copy(), henon_jacobian, 2, compiled=True)
    with pytest.raises(ValueError, match="step must return shape"):
        pl.lyapunov_spectrum(short, [0.1, 0.1], 10**9, record_every=10**9)


def test_functions_that_work_in_place():
    def step(x):
        x[0], x[1] = 1 - A * x[0] ** 2 + x[1], B * x[0]
        return x

    def jacobian(x):
        x *= -2 * A
        return (x[0], 1.0), (B, 0.0)

    mine = pl.DiscreteMap(step, jacobian, 2, compiled=True)
    plain = pl.DiscreteMap(henon_step, henon_jacobian, 2, compiled=True)
    x = np.random.default_rng(1).uniform(-0.1, 0.1, (3, 2))
    a, b = (pl.lyapunov_spectrum(system, x, 20) for system in (mine, plain))
    assert_allclose(a.growth, b.growth, atol=1e-9)
    assert_allclose(mine.trajectory(x, 20)[:, -1], a.state, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_larger_map_in_lanes_and_its_rounding(k):
    # a coupled map lattice, against the same functions called from Python
    def step(x):
        y = 1 - 1.7 * x**2
        return 0.9 * y + 0.05 * (np.roll(y, 1) + np.roll(y, -1))

    def jacobian(x):
        n = x.size
        J = np.zeros((n, n))
        for i in range(n):
            for j, weight in ((i - 1, 0.05), (i, 0.9), ((i + 1) % n, 0.05)):
                J[i, j] -= 3.4 * weight * x[j]
        return J

    compiled = pl.DiscreteMap(step, jacobian, 5, compiled=True)
    python = pl.DiscreteMap(step, jacobian, 5)
    x = np.random.default_rng(2).uniform(0, 0.5, (11, 5))
    a, b = (pl.lyapunov_spectrum(s, x, 12, k, qr_every=3) for s in (compiled, python))
    assert_allclose(a.growth, b.growth, atol=1e-9)
    c, d = (pl.covariant_lyapunov_vectors(s, x, 12, k, 8, 8) for s in (compiled, python))
    assert_allclose(c.growth, d.growth, atol=1e-6)
    assert_array_equal(
        pl.covariant_lyapunov_vectors(compiled, x[9], 12, k, 8, 8).vectors, c.vectors[9]
    )


# ---------------------------------------------------------- what is compiled in, and until when

RATE = 3.9


def global_step(x):
    return (RATE * x[0] * (1 - x[0]),)


def global_jacobian(x):
    return ((RATE * (1 - 2 * x[0]),),)


def of_rate(rate, change):
    """Step and Jacobian of a logistic map whose rate is reached in another way each, and a function
    that changes it."""
    names = {"RATE": rate, "np": np}

    def define(text):
        exec(text, names)
        return names["step"], names["jacobian"]

    if change == "global":
        functions = define(
            "def step(x): return (RATE * x[0] * (1 - x[0]),)\n"
            "def jacobian(x): return ((RATE * (1 - 2 * x[0]),),)"
        )
        return (*functions, lambda new: names.update(RATE=new))
    if change == "array in place":
        names["RATE"] = np.array([rate, 1.0])
        functions = define(
            "def step(x): return (RATE[0] * x[0] * (1 - x[0]),)\n"
            "def jacobian(x): return ((RATE[0] * (1 - 2 * x[0]),),)"
        )
        return (*functions, lambda new: names["RATE"].__setitem__(0, new))
    if change == "module":
        names["settings"] = types.ModuleType("settings")
        names["settings"].inner = types.ModuleType("settings.inner")
        names["settings"].inner.rate = rate
        functions = define(
            "def step(x): return (settings.inner.rate * x[0] * (1 - x[0]),)\n"
            "def jacobian(x): return ((settings.inner.rate * (1 - 2 * x[0]),),)"
        )
        return (*functions, lambda new: setattr(names["settings"].inner, "rate", new))
    if change == "closure":
        value = rate

        def step(x):
            return (value * x[0] * (1 - x[0]),)

        def jacobian(x):
            return ((value * (1 - 2 * x[0]),),)

        def set_rate(new):
            nonlocal value
            value = new

        return step, jacobian, set_rate
    if change == "default":

        def with_default(x, value=rate):
            return (value * x[0] * (1 - x[0]),)

        def its_jacobian(x, value=rate):
            return ((value * (1 - 2 * x[0]),),)

        def set_default(new):
            with_default.__defaults__ = its_jacobian.__defaults__ = (new,)

        return with_default, its_jacobian, set_default
    # A function that the two call, compiled by the user, is defined anew or compiled anew.
    helper = "@njit\ndef helper(x): return RATE * x\n"
    names["njit"] = numba.njit
    exec(helper, names)
    functions = define(
        "def step(x): return (helper(x[0] * (1 - x[0])),)\n"
        "def jacobian(x): return ((helper(1 - 2 * x[0]),),)"
    )

    def set_in_helper(new):
        names["RATE"] = new
        if change == "function defined anew":
            exec(helper, names)
        else:
            names["helper"].recompile()

    return (*functions, set_in_helper)


CHANGES = ["global", "array in place", "module", "closure", "default"]
CHANGES += ["function defined anew", "function compiled anew"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_functions_read_is_seen(change):
    step, jacobian, set_rate = of_rate(3.9, change)
    keys = []
    for rate in (3.9, 3.5, 3.9):
        set_rate(rate)
        now = Frozen({"step": step, "jacobian": jacobian})
        assert now.known
        keys.append(now.key)
    assert keys[0] != keys[1]
    if "function" not in change:  # a new function is another one, whatever is in it
        assert keys[0] == keys[2]


@pytest.mark.parametrize("change", ["global", "array in place", "function compiled anew"])
def test_globals_are_fixed_when_a_map_is_constructed(change):
    step, jacobian, set_rate = of_rate(3.9, change)
    x = np.array([0.3])
    maps = []
    for rate in (3.9, 3.5):
        set_rate(rate)
        maps.append(pl.DiscreteMap(step, jacobian, 1, compiled=True))
        for made, value in zip(maps, (3.9, 3.5), strict=False):  # the first keeps its own
            assert_allclose(made.step(x), value * x * (1 - x), rtol=1e-15)
            assert_allclose(made.jacobian(x), [value * (1 - 2 * x)], rtol=1e-15)
            s = pl.lyapunov_spectrum(made, x, 1)  # by the core
            assert_allclose(s.exponents, np.log(value * 0.4), rtol=1e-14)
    if change != "function compiled anew":
        set_rate(3.9)
        assert pl.DiscreteMap(step, jacobian, 1, compiled=True)._compiled is maps[0]._compiled


def test_numbers_of_other_types_and_signs_are_other_values():
    keys = [Frozen({"step": of_rate(v, "closure")[0]}).key for v in (1, 1.0, True, 0.0, -0.0)]
    assert len(set(keys)) == len(keys)
    assert Frozen({"step": of_rate(np.nan, "closure")[0]}).key == (
        Frozen({"step": of_rate(np.nan, "closure")[0]}).key
    )


def test_objects_that_may_change_unseen_are_not_kept():
    def step(x, table={0: 1}):  # noqa: B006
        return x

    def with_list(x, objects=np.array([None])):  # noqa: B008
        return x

    assert not Frozen({"step": step}).known
    assert not Frozen({"step": with_list}).known
    assert Frozen({"step": global_step, "jacobian": henon_jacobian}).known


def test_a_pickle_does_not_change_its_numbers(monkeypatch):
    system = pl.DiscreteMap(global_step, global_jacobian, 1, compiled=True)
    data = pickle.dumps(system)
    x = np.array([0.3])
    assert_array_equal(pickle.loads(data).step(x), system.step(x))
    monkeypatch.setitem(globals(), "RATE", 3.5)
    with pytest.raises(ValueError, match=r"the global RATE of jacobian must be 3\.9.*got 3\.5"):
        pickle.loads(data)
    # a copy is no pickle: it shares what is compiled
    assert copy.deepcopy(system).step(x) == system.step(x) == 3.9 * 0.3 * 0.7


# ------------------------------------------------------------------------ functions that misbehave


def raising_step(x):
    if x[0] > 0.875:
        raise ValueError("too large")
    return ((2 * x[0]) % 1.0,)


def doubling(x):
    return ((2.0,),)


@pytest.fixture(scope="module")
def raiser():
    return pl.DiscreteMap(raising_step, doubling, 1, compiled=True)


# 1/15 goes to 2/15, 4/15, 8/15, 1/15 ...; 7/32 to 7/16, 7/8, 3/4, 1/2, 0; 0.9 cannot begin; 15/128
# is at 15/16 when step 3 begins; 1/5 goes to 2/5, 4/5, 3/5, 1/5 ...
STARTS = np.array([[1 / 15], [7 / 32], [0.9], [15 / 128], [1 / 5]])
FIRST_RAISED = {2: 0, 3: 3}  # run -> step


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_whose_function_raises_ends_with_status_3_and_alone(raiser, threads):
    s = pl.lyapunov_spectrum(raiser, STARTS, 24, threads=threads)
    assert_array_equal(s.status, [0, 0, 3, 3, 0])
    for run in range(len(STARTS)):
        stop = FIRST_RAISED.get(run, 24)
        assert s.n_done[run] == stop
        assert_array_equal(s.growth[run, :stop, 0], np.full(stop, np.log(2)))
        assert np.isnan(s.growth[run, stop:]).all()
        assert np.isnan(s.state[run]).all() == (run in FIRST_RAISED)
        assert np.isnan(s.frame[run]).all() == (run in FIRST_RAISED)
    assert_allclose(s.exponents[[0, 1, 4], 0], np.log(2), rtol=1e-15)
    assert np.isnan(s.exponents[[2, 3]]).all()
    assert "2 raised an exception" in repr(s)
    # alone, first of all runs, and until an error is small enough
    assert_array_equal(pl.lyapunov_spectrum(raiser, STARTS[0], 24).growth, s.growth[0])
    assert pl.lyapunov_spectrum(raiser, STARTS[2], 24).status == 3
    assert_array_equal(pl.lyapunov_spectrum(raiser, STARTS, 40, tol=1e-9).status, [2, 2, 3, 3, 2])


def test_covariant_vectors_of_a_run_whose_function_raises(raiser):
    c = pl.covariant_lyapunov_vectors(raiser, STARTS, 12, n_transient=0, n_tail=4)
    assert_array_equal(c.status, [0, 0, 3, 3, 0])
    assert_array_equal(c.n_done, [16, 16, 0, 3, 16])
    assert_allclose(c.exponents[[0, 1, 4], 0], np.log(2), rtol=1e-15)
    assert np.isnan(c.growth[3, 3:]).all()
    assert "2 raised an exception" in repr(c)
    windows = pl.ftle(raiser, STARTS, 24, window=3, kind="svd")
    assert_array_equal(np.isnan(windows[3, :, 0]), [False] + 7 * [True])


def test_a_jacobian_that_raises_ends_its_run(raiser):
    def step(x):
        return ((2 * x[0]) % 1.0,)

    def jacobian(x):
        if x[0] > 0.875:
            raise RuntimeError
        return ((2.0,),)

    system = pl.DiscreteMap(step, jacobian, 1, compiled=True)
    s = pl.lyapunov_spectrum(system, STARTS, 24)
    expected = pl.lyapunov_spectrum(raiser, STARTS, 24)
    for name in ("growth", "status", "n_done", "state"):
        assert_array_equal(getattr(s, name), getattr(expected, name))


def test_what_python_calls_hands_an_exception_on(raiser):
    with pytest.raises(ValueError, match="too large"):
        raiser.step([0.9])
    with pytest.raises(ValueError, match="too large"):
        raiser.trajectory(STARTS[3], 10)
    # what a function raises later ends a map that is not compiled
    with pytest.raises(ValueError, match="too large"):
        pl.lyapunov_spectrum(pl.DiscreteMap(raising_step, doubling, 1), STARTS, 24)


def shrinking_step(x):
    n = 1 if x[0] > 0.45 else 2
    return np.full(n, x[0] + 0.1)


def shrinking_jacobian(x):
    return np.eye(2)[: 1 if x[0] > 0.45 else 2]


@pytest.mark.parametrize("argument", ["step", "jacobian"])
def test_an_array_that_changes_its_length_is_refused_by_name(argument):
    functions = {"step": lambda x: x + 0.1, "jacobian": lambda x: np.eye(2)}
    functions[argument] = shrinking_step if argument == "step" else shrinking_jacobian
    system = pl.DiscreteMap(**functions, n=2, compiled=True)
    wanted, came = (r"\(2,\)", r"\(1,\)") if argument == "step" else (r"\(2, 2\)", r"\(1, 2\)")
    message = f"^{argument} must return shape {wanted} at every state, got {came}$"
    x = np.zeros(2)
    assert pl.lyapunov_spectrum(system, x, 4).status == 0
    for threads in (1, 2):
        with pytest.raises(ValueError, match=message):
            pl.lyapunov_spectrum(system, [x, x], 100, threads=threads)
    with pytest.raises(ValueError, match=message):
        pl.covariant_lyapunov_vectors(system, x, 20, n_transient=0, n_tail=0)
    with pytest.raises(ValueError, match=f"^{argument} must return shape {wanted}, got {came}$"):
        getattr(system, argument)([0.5, 0.0])


# ---------------------------------------------------------------------------------------- Ctrl-C

INTERRUPT = """
import os, signal, threading, time
import numpy as np
import pylyap as pl

signal.signal(signal.SIGINT, signal.default_int_handler)

def make(loops):
    def step(x):
        total = 0.0
        for i in range(loops):
            total += np.sin(x[0] + i)
        return (0.5 * x[0] + 0.0 * total, x[0])

    return pl.DiscreteMap(step, lambda x: ((0.5, 0.0), (1.0, 0.0)), 2, compiled=True)

system, slow = make(1), make(300_000)
x = np.array([0.1, 0.1])
net = pl.Network((50, 200, 10))

def interrupt():
    time.sleep(0.3)
    global sent
    sent = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

for name, call in {
    "many records": lambda: pl.lyapunov_spectrum(system, x, 40_000_000),
    "many records of vectors": lambda: pl.covariant_lyapunov_vectors(system, x, 5_000_000),
    "many windows": lambda: pl.ftle(system, x, 300_000, window=20_000, stride=1),
    "a slow step": lambda: pl.lyapunov_spectrum(slow, x, 5_000),
    "a prediction": lambda: net.predict(np.zeros((300, net.n_params)), np.zeros((20_000, 50))),
}.items():
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        call()
    except KeyboardInterrupt:
        print(f"{time.perf_counter() - sent} {name}", flush=True)
    else:
        print(f"inf {name} ended before the signal", flush=True)
        os._exit(1)
os._exit(0)
"""


def test_ctrl_c_interrupts_long_calls():
    # one process for all: most of its time is its start and compilation
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT], capture_output=True, text=True, timeout=240, cwd="/"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    delays = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert len(delays) == 5
    for delay, name in delays:
        assert float(delay) < 0.5, name
