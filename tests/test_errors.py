"""Bad input: an error that names the argument and says what came, or the right answer."""

import re
from decimal import Decimal
from fractions import Fraction

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


COUNTS = {
    "n_perturbations": lambda n: pl.perturbation_ensemble(SYSTEM, W, 1e-8, n, 4, keep="mean"),
    "runs": lambda n: NET.init("normal", (n, 2)),
    "layers": lambda n: pl.Network((n, n, n)).init(),
    "network": lambda n: training(pl.Network((2, n, 1))),
    "n_steps": lambda n: pl.travel(SYSTEM, W, n),
    "epochs": lambda n: pl.train(SYSTEM, W, n),
    "n": lambda n: pl.datasets.quadratic(n),
    "n_shuffles": lambda n: pl.autocorrelation(X[:, 0], 2, n),
    "bins": lambda n: pl.weight_deviation(W, W, NET, bins=n),
    "max_products": lambda n: pl.sharpness(*wide(), max_products=n),
    "w0": lambda n: pl.travel(SYSTEM, np.broadcast_to(W, (n, 13)), 3),
}
MORE = {
    "n_perturbations": lambda n: pl.learning_rate_scan(
        NET, X, Y, [0.1], 40, runs=2, n_perturbations=n
    ),
    "runs": lambda n: pl.learning_rate_scan(NET, X, Y, [0.1], 40, runs=n),
    "n_steps": lambda n: pl.sharpness_along(SYSTEM, W, n),
    "bins": lambda n: pl.joint_histogram(W, W, NET, bins=n),
}


@pytest.mark.parametrize("count", [10**12, 2**53])
@pytest.mark.parametrize("argument", COUNTS)
def test_counts_whose_memory_would_not_fit_are_refused_by_name(argument, count):
    for calls in (COUNTS, MORE):
        if argument in calls:
            assert_refused(lambda call=calls[argument]: call(count), argument, "free")


def test_flags_of_numpy_are_flags(capsys):
    pytest.importorskip("tqdm")
    pytest.importorskip("numba")
    yes = np.True_
    for call in (
        lambda: pl.lyapunov_spectrum(SYSTEM, W, 5, progress=yes),
        lambda: pl.covariant_lyapunov_vectors(SYSTEM, W, 4, 2, 2, 2, progress=yes, vectors=yes),
        lambda: SYSTEM.trajectory(W, 4, progress=yes),
        lambda: pl.train(SYSTEM, W, 2, progress=yes),
        lambda: pl.perturbation_ensemble(SYSTEM, W, 1e-8, 2, 4, progress=yes, relative=yes),
        lambda: pl.learning_rate_scan(NET, X, Y, [0.1], 40, runs=1, progress=yes),
    ):
        call()
        assert "%" in capsys.readouterr().err  # a bar
    assert pl.weight_deviation(W, 2 * W, NET, bins=2, pool=yes).settings["pool"] is True


# ------------------------------------------------- one rule for numbers, whatever they come in

REALS = {  # every kind of argument that is a real number
    "lr": pl.GradientDescent,
    "momentum": pl.GradientDescent,
    "weight_decay": pl.GradientDescent,
    "beta1": pl.Adam,
    "beta2": pl.Adam,
    "epsilon": pl.Adam,
    "scale": lambda **o: NET.init("normal", **o),
    "schedule": lambda schedule: pl.GradientDescent(schedule=[schedule, 1]),
    "eps": lambda **o: pl.perturbation_ensemble(SYSTEM, W, n_perturbations=2, n_steps=3, **o),
    "least_r2": lambda **o: pl.compare_growth(SYSTEM, W, 1e-8, 2, 30, **o),
    "least_slope": lambda **o: pl.compare_growth(SYSTEM, W, 1e-8, 2, 30, **o),
    "centre": lambda **o: pl.joint_histogram(W, W, NET, bins=3).strip(**o),
    "width": lambda **o: pl.joint_histogram(W, W, NET, bins=3).strip(0.0, **o),
    "tol": lambda **o: pl.sharpness(SYSTEM, W, **o),
    "memory_limit": lambda **o: pl.covariant_lyapunov_vectors(SYSTEM, W, 4, 1, 0, 0, **o),
    "background": lambda **o: pl.apply_letter_mask(NET, W, np.eye(3, 2) > 0, 0, **o),
    "lrs": lambda **o: pl.learning_rate_scan(NET, X, Y, n_steps=40, runs=1, **o),
    "exponents": lambda exponents: pl.kaplan_yorke_dimension([exponents, -1]),
    "w0": lambda w0: spectrum(w0=[w0] * 13),
    "X": lambda X: training(X=[[X, 1]] * 5),
    "y": lambda y: training(y=[y, 1, 1, 1, 1]),
}

NOT_REAL = [True, np.True_, np.array(True), 1j, 1 + 0j, np.complex128(1), np.array(1 + 0j)]
NOT_REAL += ["1", np.array("1"), b"1", np.array(b"1"), bytearray(b"1"), None, np.array(None)]
NOT_REAL += [np.datetime64(1, "s"), np.timedelta64(1, "s"), np.ma.masked, {}, [[1, 2], [3]]]


@pytest.mark.parametrize("value", NOT_REAL, ids=repr)
@pytest.mark.parametrize("argument", REALS)
def test_what_is_no_real_number_is_not_taken_for_one(argument, value):
    assert_refused(lambda: REALS[argument](**{argument: value}), argument, "")


@pytest.mark.parametrize("value", [*NOT_REAL, 1.0, np.float64(1), np.array(1.0)], ids=repr)
def test_what_is_no_integer_is_not_taken_for_one(value):
    assert_refused(lambda: SYSTEM.trajectory(W, n_steps=value), "n_steps", "")
    assert_refused(lambda: pl.GradientDescent(seed=value), "seed", "")


def test_numbers_without_axes_are_numbers():
    for one in (np.float32(1), np.array(1), np.array(1.0), Fraction(1), Decimal(1), np.int8(1)):
        assert pl.Adam(epsilon=one).epsilon == 1.0
    for one in (np.int8(1), np.uint64(1), np.array(1)):
        assert pl.GradientDescent(batch_size=one).batch_size == 1


def masked(a, at=0):
    hidden = np.zeros(np.shape(a), bool)
    hidden.flat[at] = True
    return np.ma.array(a, mask=hidden)


IMAGES = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
OF_FOUR = pl.Network((4, 3, 3), loss="cross_entropy")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: training(X=masked(X)), "X"),
        (lambda: training(X=masked(X.astype(np.float32))), "X"),
        (lambda: training(OF_FOUR, masked(IMAGES), LABELS), "X"),
        (lambda: training(OF_FOUR, [masked(image) for image in IMAGES], LABELS), "X"),
        (lambda: training(X=[masked(row) for row in X]), "X"),
        (lambda: training(X=[list(masked(row)) for row in X]), "X"),
        (lambda: training(y=masked(Y)), "y"),
        (lambda: training(CLASSES, y=masked(LABELS)), "y"),
        (lambda: OF_FOUR.predict(np.ones(27), masked(IMAGES)), "X"),
        (lambda: spectrum(masked(W)), "w0"),
        (lambda: pl.travel(SYSTEM, W, 3, entries=masked(W > 0)), "entries"),
        (lambda: pl.apply_letter_mask(NET, W, masked(np.eye(3, 2) > 0), 0), "mask"),
        (lambda: pl.datasets.split(masked(IMAGES), LABELS, 2), "X"),
        (lambda: pl.datasets.split([masked(row) for row in X], LABELS, 2), "X"),
    ],
)
def test_masked_entries_are_never_used(call, argument):
    assert_refused(call, argument, "masked")


def test_a_mask_that_hides_nothing_is_none():
    shown = np.ma.array(X, mask=np.zeros(X.shape, bool))
    assert training(X=shown).loss(W) == SYSTEM.loss(W)


def containers(a):
    """The same numbers of the same dtype, in whatever holds them."""
    yield a
    yield list(a)  # rows, or images
    yield [[*row] for row in a] if a.ndim == 2 else [[*map(list, image)] for image in a]
    if a.ndim == 2:
        pandas = pytest.importorskip("pandas")
        yield pandas.DataFrame(a)
    torch = pytest.importorskip("torch")
    yield torch.as_tensor(a)
    yield pytest.importorskip("xarray").DataArray(a)


def test_bytes_of_images_are_images_in_any_container():
    w = OF_FOUR.init("normal", seed=0)
    expected = training(OF_FOUR, IMAGES.reshape(5, 4) / 255.0, LABELS).loss(w)
    for images in containers(IMAGES):
        system = training(OF_FOUR, images, LABELS)
        assert system.loss(w) == expected
        assert_array_equal(OF_FOUR.predict(w, images), OF_FOUR.predict(w, system.X))
        assert OF_FOUR.accuracy(w, images, LABELS) == system.accuracy(w)


def test_bytes_in_a_table_could_be_numbers_or_pixels_in_any_container():
    table = IMAGES.reshape(5, 4)
    for numbers in containers(table):
        for call in (
            lambda X: training(OF_FOUR, X, LABELS),
            lambda X: OF_FOUR.predict(np.ones(27), X),
            lambda X: OF_FOUR.accuracy(np.ones(27), X, LABELS),
            lambda X: pl.learning_rate_scan(OF_FOUR, X, LABELS, [0.1], 40, runs=1),
            lambda X: pl.train(training(OF_FOUR, IMAGES, LABELS), np.ones(27), 1, test=(X, LABELS)),
        ):
            assert_refused(lambda call=call, X=numbers: call(X), "X", "uint8")
    net = pl.Network((2, 3, 4))
    for numbers in containers(table):
        assert_refused(lambda y=numbers: training(net, X, y), "y", "uint8")
    assert_refused(lambda: training(OF_FOUR, IMAGES % 2, LABELS), "X", "0 and 1")
    for numbers in (table.tolist(), table.astype(int), table.astype(float)):
        assert_array_equal(training(OF_FOUR, numbers, LABELS).X, table)


@pytest.mark.parametrize("form", [np.array, list, lambda a: [[*row] for row in a]])
def test_booleans_are_no_data(form):
    assert_refused(lambda: training(X=form(X > 0)), "X", "booleans")
    assert_refused(lambda: training(CLASSES, y=LABELS > 0), "y", "booleans")
    assert_refused(lambda: training(X=[*form(X > 0)[:4], [0.0, 1.0]]), "X", "booleans")


def test_missing_values_and_words_in_a_table_are_told():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 2, None, 4, 5], "b": [1.0] * 5})
    assert_refused(lambda: training(X=table), "X", "nan")
    assert_refused(lambda: training(X=table.astype("Int64")), "X", "NA")
    assert_refused(lambda: training(X=table.fillna(0).assign(b="word")), "X", "word")
    assert_refused(lambda: training(X=pandas.DataFrame({"a": [True] * 5, "b": 1})), "X", "True")
    full = table.fillna(0)
    for nullable in ("Float64", "UInt8"):  # NumPy finds objects in them
        assert_refused(lambda kind=nullable: training(X=full.astype(kind)), "X", "astype(float)")
    assert training(X=full.astype("float32")).loss(W) == training(X=full.to_numpy()).loss(W)


def test_a_tensor_that_cannot_be_an_array_says_why():
    torch = pytest.importorskip("torch")
    assert_refused(lambda: training(X=torch.zeros(5, 2, requires_grad=True)), "X", "detach")


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
