"""Bad input: an error that names the argument and says what came, or the right answer."""

import re

import cases
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pylyap as pl

pytestmark = pytest.mark.core

NAN, INF = float("nan"), float("inf")
HUGE = 2**70  # beyond what the core counts with
NET = pl.Network((2, 3, 1))
CLASSES = pl.Network((2, 3, 3), loss="cross_entropy")
X, Y = np.linspace(-1, 1, 10).reshape(5, 2), np.linspace(0, 1, 5)
LABELS = np.array([0, 1, 2, 1, 0])
W = NET.init("normal", seed=0)
SYSTEM = pl.TrainingMap(NET, X, Y, pl.GradientDescent())


def training(net=NET, X=X, y=Y, optimizer=None):
    return pl.TrainingMap(net, X, y, optimizer or pl.GradientDescent())


def spectrum(w0=W, n_steps=10, system=SYSTEM, **options):
    return pl.lyapunov_spectrum(system, w0, n_steps, **options)


def ftle(n_steps=10, **options):
    return pl.ftle(SYSTEM, W, n_steps, **{"window": 5} | options)


def table(call, argument, *values):
    """One row per bad value of one argument."""
    name = call.__qualname__.replace("<lambda>", "")
    return [
        pytest.param(call, argument, value, id=f"{name}-{argument}-{value}") for value in values
    ]


REFUSED = [
    *table(pl.Network, "layers", (), (3,), 5, "2-3-1"),
    *table(lambda **o: pl.Network((2, 3, 1), **o), "activation", "tahn", 3, None),
    *table(lambda **o: pl.Network((2, 3, 1), **o), "loss", "mes", 3, None),
    *table(NET.init, "kind", "he_norml", 3),
    *table(lambda **o: NET.init("normal", **o), "runs", -1, 1.5, "two"),
    *table(lambda **o: NET.init("normal", **o), "scale", NAN, INF, "wide"),
    *table(lambda **o: NET.init("normal", **o), "seed", -1, 1.5, "a"),
    *table(pl.GradientDescent, "lr", -1.0, NAN, INF, "fast", None),
    *table(pl.GradientDescent, "momentum", -0.1, NAN, INF, "heavy"),
    *table(pl.GradientDescent, "weight_decay", -1.0, NAN, INF, "much"),
    *table(pl.GradientDescent, "batch_size", 0, -3, 1.5, "all"),
    *table(pl.GradientDescent, "seed", -1, 1.5),
    *table(pl.Adam, "lr", -1.0, NAN, INF, "fast"),
    *table(pl.Adam, "beta1", -0.1, 1.0, NAN),
    *table(pl.Adam, "beta2", -0.1, 1.0, NAN),
    *table(pl.Adam, "epsilon", -1e-8, NAN, INF),
    *table(pl.Adam, "weight_decay", -1.0, NAN),
    *table(pl.Adam, "batch_size", 0, 2.5),
    *table(spectrum, "n_steps", 0, -1, 1.5, "ten", None),
    *table(spectrum, "k", 0, -1, 14, 1.5, "all"),
    *table(spectrum, "n_transient", -1, 1.5, "some", HUGE),
    *table(spectrum, "qr_every", 0, -1, 1.5, 3),
    *table(spectrum, "record_every", 0, -1, 1.5, 3),
    *table(spectrum, "start", -1, 1.5, HUGE),
    *table(spectrum, "method", "dens", 3),
    *table(spectrum, "threads", 0, -1, 1.5, "many"),
    *table(spectrum, "seed", -1, 1.5, "a"),
    *table(ftle, "n_steps", 0, -1, 1.5),
    *table(ftle, "window", 0, -1, 1.5, 11, "wide"),
    *table(ftle, "stride", 0, -1, 1.5),
    *table(ftle, "k", 0, 14, 1.5),
    *table(ftle, "kind", "sdv", 3),
    *table(ftle, "threads", 0, -1),
    *table(lambda **o: SYSTEM.trajectory(W, **o), "n_steps", -1, 1.5, "ten"),
    *table(lambda **o: SYSTEM.trajectory(W, 10, **o), "every", 0, 1.5, 3),
    *table(lambda **o: SYSTEM.trajectory(W, 10, **o), "start", -1, 1.5, HUGE),
    *table(lambda **o: SYSTEM.step(W, **o), "t", -1, 1.5, HUGE),
    *table(lambda **o: SYSTEM.batch(**o), "t", -1, 1.5, HUGE),
    *table(lambda **o: pl.DiscreteMap(step=abs, jacobian=abs, **o), "n", 0, -1, 1.5, "two"),
    *table(lambda **o: pl.DiscreteMap(jacobian=abs, n=1, **o), "step", 3, None),
    *table(lambda **o: pl.DiscreteMap(step=abs, n=1, **o), "jacobian", 3, None),
    *table(lambda **o: pl.kaplan_yorke_dimension([0.1, -1.0], **o), "n", 1, 0, 2.5),
]


def assert_refused(call, argument, came):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert re.search(rf"\b{argument}\b", message), message
    assert came in message
    assert "\n" not in message


@pytest.mark.parametrize(("call", "argument", "value"), REFUSED)
def test_a_bad_value_is_refused_by_name(call, argument, value):
    assert_refused(lambda: call(**{argument: value}), argument, str(value))


def holed(a, value):
    a = np.array(a, dtype=float)
    a.flat[3] = value
    return a


ARRAYS = {
    # shapes
    "a layer without units": (lambda: pl.Network((2, 0, 1)), "layers", "0"),
    "a layer of -1 units": (lambda: pl.Network((2, -1, 1)), "layers", "-1"),
    "half a unit": (lambda: pl.Network((2, 1.5, 1)), "layers", "1.5"),
    "one class": (lambda: pl.Network((2, 3, 1), loss="cross_entropy"), "layers", "1"),
    "X without columns": (lambda: training(X=Y), "X", "(5,)"),
    "X with a column too many": (lambda: training(X=np.ones((5, 3))), "X", "(5, 3)"),
    "X of three axes": (lambda: training(X=np.ones((1, 5, 2))), "X", "(1, 5, 2)"),
    "no data": (lambda: training(X=X[:0], y=Y[:0]), "X", "(0, 2)"),
    "y too short": (lambda: training(y=Y[:4]), "y", "4"),
    "y with a column too many": (lambda: training(y=np.ones((5, 2))), "y", "(5, 2)"),
    "labels in a column": (lambda: training(CLASSES, y=np.ones((5, 3), int)), "y", "(5, 3)"),
    "weights too short": (lambda: SYSTEM.step(W[:-1]), "x", "(12,)"),
    "weights of runs too long": (lambda: spectrum(np.ones((4, 14))), "w0", "(4, 14)"),
    "a number for weights": (lambda: spectrum(1.0), "w0", "()"),
    "vectors too short": (lambda: SYSTEM.tangent(W, np.ones((12, 2))), "V", "(12, 2)"),
    "frame too short": (lambda: spectrum(frame=np.ones((12, 2))), "frame", "(12, 2)"),
    "frame too wide": (lambda: spectrum(frame=np.ones((13, 14))), "frame", "(13, 14)"),
    "frame against k": (lambda: spectrum(frame=np.eye(13)[:, :2], k=3), "frame", "(13, 2)"),
    "parts of another net": (lambda: NET.pack(CLASSES.unpack(np.ones(21))), "parts", "(3, 3)"),
    "one part": (lambda: NET.pack([(np.ones((3, 2)), np.ones(3))]), "parts", "1"),
    "weights to unpack": (lambda: NET.unpack(np.ones(12)), "w", "(12,)"),
    "weights to predict": (lambda: NET.predict(np.ones(12), X), "w", "(12,)"),
    "inputs to predict": (lambda: NET.predict(W, np.ones((5, 3))), "X", "(5, 3)"),
    "no exponents": (lambda: pl.kaplan_yorke_dimension([]), "exponents", "(0,)"),
    # values
    "nan in X": (lambda: training(X=holed(X, NAN)), "X", "nan"),
    "inf in X": (lambda: training(X=holed(X, INF)), "X", "inf"),
    "nan in y": (lambda: training(y=holed(Y, NAN)), "y", "nan"),
    "inf in y": (lambda: training(y=holed(Y, -INF)), "y", "inf"),
    "nan in w0": (lambda: spectrum(holed(W, NAN)), "w0", "nan"),
    "inf in w0": (lambda: spectrum(holed(W, INF)), "w0", "inf"),
    "nan in w0 of ftle": (lambda: pl.ftle(SYSTEM, holed(W, NAN), 5, window=5), "w0", "nan"),
    "nan in the frame": (lambda: spectrum(frame=holed(np.eye(13), NAN)), "frame", "nan"),
    "label 3 of 3": (lambda: training(CLASSES, y=[0, 1, 3, 0, 1]), "y", "3"),
    "label -1": (lambda: training(CLASSES, y=[0, 1, -1, 0, 1]), "y", "-1"),
    "half a label": (lambda: training(CLASSES, y=[0, 1, 0.5, 0, 1]), "y", "0.5"),
    "nan for a label": (lambda: training(CLASSES, y=[0, 1, NAN, 0, 1]), "y", "nan"),
    "labels to score": (lambda: CLASSES.accuracy(np.ones(21), X, [0, 1, 3, 0, 1]), "y", "3"),
    # kinds
    "words in X": (lambda: training(X=[["a", "b"]] * 5), "X", ""),
    "words in y": (lambda: training(CLASSES, y=["setosa"] * 5), "y", ""),
    "complex X": (lambda: training(X=X + 1j), "X", "complex"),
    "complex weights": (lambda: spectrum(W + 0j), "w0", "complex"),
    "ragged X": (lambda: training(X=[[1.0, 2.0], [3.0]]), "X", ""),
    "nothing for X": (lambda: training(X=None), "X", "object"),
    "a dictionary for w0": (lambda: spectrum({"w": 1}), "w0", ""),
    "no network": (lambda: training(net=(2, 3, 1)), "network", "(2, 3, 1)"),
    "no optimiser": (lambda: training(optimizer="adam"), "optimizer", "adam"),
    "no map": (lambda: spectrum(system=NET), "system", "Network"),
    # arguments that do not fit each other
    "activations for three layers": (
        lambda: pl.Network((2, 3, 1), activation=("tanh", "tanh")),
        "activation",
        "2",
    ),
    "nan among learning rates": (lambda: pl.GradientDescent(lr=[0.1, NAN]), "lr", "nan"),
    "learning rates for other runs": (
        lambda: training(optimizer=pl.GradientDescent(lr=[0.1, 0.2, 0.3])).step(np.ones((2, 13))),
        "lr",
        "(3,)",
    ),
    "nesterov without momentum": (
        lambda: pl.GradientDescent(nesterov=True),
        "nesterov",
        "momentum",
    ),
    "records between orthonormalisations": (
        lambda: spectrum(qr_every=2, record_every=5),
        "record_every",
        "5",
    ),
}


@pytest.mark.parametrize("what", ARRAYS)
def test_a_bad_array_or_object_is_refused_by_name(what):
    assert_refused(*ARRAYS[what])


@pytest.mark.parametrize(
    ("call", "nearest"),
    [
        (lambda: pl.Network((2, 3, 1), activation="tahn"), "tanh"),
        (lambda: pl.Network((2, 3, 3, 1), activation=("tanh", "rleu")), "relu"),
        (lambda: pl.Network((2, 3, 1), loss="cross_entorpy"), "cross_entropy"),
        (lambda: NET.init("glorot_unifrom"), "glorot_uniform"),
        (lambda: ftle(kind="sdv"), "svd"),
    ],
)
def test_an_unknown_name_brings_the_nearest_known_one(call, nearest):
    with pytest.raises(ValueError, match=f"{nearest!r}"):
        call()


def wide():
    """Four million weights: 32 MB, and 128 TB for a matrix of them."""
    system = training(pl.Network((2, 10**6, 1)))
    return system, np.zeros(system.n)


TOO_LARGE = {
    "steps": lambda: spectrum(n_steps=10**14),
    "steps of a user map": lambda: pl.lyapunov_spectrum(cases.henon(), [0.1, 0.1], 10**14),
    "windows": lambda: ftle(n_steps=10**14, window=5),
    "trajectory": lambda: SYSTEM.trajectory(W, 10**14),
    "trajectory of a user map": lambda: cases.henon().trajectory([0.1, 0.1], 10**14),
    "initial weights": lambda: NET.init("normal", runs=10**13),
    "jacobian": lambda: wide()[0].jacobian(wide()[1]),
    "hessian": lambda: wide()[0].hessian(wide()[1]),
    "frame": lambda: pl.lyapunov_spectrum(*wide(), 10),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_work_that_cannot_fit_is_refused_before_it_starts_with_its_size(what):
    with pytest.raises(ValueError, match=r"\d[\d.,]* ?([KMGTPE]i?B|bytes)"):
        TOO_LARGE[what]()


# -------------------------------------------------------- the user's own maps, judged when called


@pytest.mark.parametrize(
    ("step", "jacobian", "argument", "came"),
    [
        (lambda x: np.ones(3), lambda x: np.eye(2), "step", "(3,)"),
        (lambda x: x, lambda x: np.ones(2), "jacobian", "(2,)"),
        (lambda x: x, lambda x: np.eye(3), "jacobian", "(3, 3)"),
        (lambda x: None, lambda x: np.eye(2), "step", ""),
        (lambda x: x + 1j, lambda x: np.eye(2), "step", "complex"),
        (lambda x: x, lambda x: 1j * np.eye(2), "jacobian", "complex"),
        (lambda x: ["a", "b"], lambda x: np.eye(2), "step", ""),
        (lambda x: x, lambda x: [["a", "b"], ["c", "d"]], "jacobian", ""),
    ],
)
def test_a_map_that_returns_something_else_is_refused(step, jacobian, argument, came):
    system = pl.DiscreteMap(step, jacobian, 2)
    assert_refused(lambda: pl.lyapunov_spectrum(system, np.ones(2), 3), argument, came)


def test_an_error_inside_a_map_is_the_users_own():
    def step(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        pl.lyapunov_spectrum(pl.DiscreteMap(step, lambda x: np.eye(2), 2), np.ones(2), 3)


# ------------------------------------------------------- accepted, where a copy makes it right


def rounded(a):
    """Numbers that float32 holds exactly."""
    return np.asarray(a, dtype=np.float32).astype(np.float64)


FORMS = {
    "list": lambda a: a.tolist(),
    "float32": lambda a: a.astype(np.float32),
    "longdouble": lambda a: a.astype(np.longdouble),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "every second": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1],
    "Fortran order": np.asfortranarray,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "unaligned": lambda a: (
        np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_the_same_numbers_gives_the_same_bits(form):
    shape = FORMS[form]
    w = rounded(cases.weights(NET, runs=4))
    frame = rounded(np.random.default_rng(0).normal(size=(13, 3)))
    V = rounded(np.random.default_rng(1).normal(size=(4, 13, 2)))
    data, targets, rates = rounded(X), rounded(Y), rounded([0.1, 0.2, 0.3, 0.4])

    def results(form):
        optimizer = pl.GradientDescent(lr=form(rates))
        system = pl.TrainingMap(NET, form(data), form(targets), optimizer)
        s = pl.lyapunov_spectrum(system, form(w), 5, frame=form(frame))
        return (
            system.step(form(w)),
            system.hessian(form(w)),
            system.tangent(form(w), form(V)),
            system.trajectory(form(w), 3),
            s.growth,
            NET.predict(form(w), form(data)),
            NET.pack([(form(a), form(b)) for a, b in NET.unpack(w)]),
        )

    for ours, expected in zip(results(shape), results(lambda a: a), strict=True):
        assert_array_equal(ours, expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64", "float64", ">i4"])
def test_labels_of_any_kind_that_holds_whole_numbers(dtype):
    expected = training(CLASSES, y=LABELS).loss(np.ones(21))
    assert training(CLASSES, y=LABELS.astype(dtype)).loss(np.ones(21)) == expected
    assert training(CLASSES, y=LABELS.astype(dtype).tolist()).loss(np.ones(21)) == expected


def test_whole_numbers_may_be_of_any_integer_type():
    a = spectrum(n_steps=np.int64(6), k=np.uint8(2), qr_every=np.int32(2))
    assert_array_equal(a.growth, spectrum(n_steps=6, k=2, qr_every=2).growth)


def test_integer_data_are_numbers_too():
    ints = training(X=np.arange(10).reshape(5, 2), y=np.arange(5))
    floats = training(X=np.arange(10.0).reshape(5, 2), y=np.arange(5.0))
    assert ints.loss(W) == floats.loss(W)
