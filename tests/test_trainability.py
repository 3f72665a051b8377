"""Phases of training: curves whose phases are known, and histories of several widths."""

import cases
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import pylyap as pl

LN = np.log(10.0)
EPOCHS = np.arange(0, 101)


def curve(name):
    """Losses of 101 epochs with a guess of ln 10, and what becomes of them."""
    t = EPOCHS / 100.0
    fall = LN * np.exp(-8.0 * t)
    rng = np.random.default_rng(0)
    return {
        # name: loss, phase at the end, divergence
        "learns": (fall, "high", -1),
        "learns late": (np.where(t < 0.9, 0.98 * LN, 0.3 * LN), "high", -1),
        "never learns": (LN * (1 - 0.4 * t), "low", -1),
        "rises to a plateau": (np.where(t < 0.6, fall, 16.1), "untrainable", 60),
        "rises slowly": (np.where(t < 0.5, fall, LN * (t - 0.4) * 2), "untrainable", 66),
        "leaves the numbers": (np.where(t < 0.7, fall, np.nan), "untrainable", 70),
        "is never a number": (np.full(101, np.nan), "untrainable", 0),
        "leaves them at the last": (np.where(t < 1.0, fall, np.nan), "untrainable", 100),
        "comes back": (np.where((t > 0.3) & (t < 0.9), 16.1, fall), "high", -1),
        "has spikes": (np.where(EPOCHS % 10 == 5, 3.0, fall), "high", -1),
        "ends in a spike": (np.where(t > 0.985, 3.0, fall), "high", -1),
        "ends in three": (np.where(t > 0.975, 3.0, fall), "untrainable", 98),
        "is noise around nothing": (1e-6 * (1 + 9 * rng.uniform(size=101)), "high", -1),
        "has learnt all": (np.where(t < 0.5, fall, 0.0), "high", -1),
        "flies off at once": (np.where(t == 0, LN, 16.1), "untrainable", 1),
        "loses what is little": (np.where(t < 0.5, 0.9 * LN, 1.7 * LN), "low", -1),
        "overfits": (0.3 * LN + 0.15 * LN * t, "high", -1),
    }[name]


CURVES = (
    *("learns", "learns late", "never learns", "rises to a plateau", "rises slowly"),
    *("leaves the numbers", "is never a number", "leaves them at the last", "comes back"),
    *("has spikes", "ends in a spike", "ends in three", "is noise around nothing"),
    *("has learnt all", "flies off at once", "loses what is little", "overfits"),
)


@pytest.mark.parametrize("name", CURVES)
def test_the_rule_as_documented(name):
    loss, label, divergence = curve(name)
    rule = pl.TrainabilityRule()
    phases = rule.phases(loss, LN)
    assert pl.PHASES[phases[-1]] == label
    assert rule.divergence(loss, LN) == divergence
    low = int((~(np.fmin.accumulate(loss) <= 0.5 * LN)).sum())
    names = np.array(pl.PHASES)[phases]
    end = 101 if divergence < 0 else divergence
    assert_array_equal(names[: min(low, end)], "low")
    assert_array_equal(names[low:end], "high")
    assert_array_equal(names[end:], "untrainable")


def test_thresholds_are_those_that_are_given():
    loss, *_ = curve("rises to a plateau")
    assert pl.TrainabilityRule(share=8.0).divergence(loss, LN) == -1
    assert pl.TrainabilityRule(guess=40.0).divergence(loss, LN) == -1
    assert pl.TrainabilityRule(factor=1e6).divergence(loss, LN) == -1
    assert pl.TrainabilityRule(hold=41).divergence(loss, LN) == 60
    assert pl.TrainabilityRule(hold=42).divergence(loss, LN) == -1
    late, *_ = curve("learns late")
    assert pl.PHASES[pl.TrainabilityRule(share=0.2).phases(late, LN)[-1]] == "low"
    both = pl.TrainabilityRule().divergence(np.stack([loss, late]), [LN, LN])
    assert_array_equal(both, [60, -1])


def made(losses, test=None, batch=None, width=4, **changes):
    """A History with these training losses (..., 101)."""
    train = np.asarray(losses, float)
    batch = train.shape[:-1]
    net = pl.Network((2, width, 10), loss="cross_entropy")
    content = {
        "epochs": EPOCHS,
        "train_loss": train,
        "test_loss": test,
        "train_accuracy": None,
        "test_accuracy": None,
        "scopes": ("all weights", "layer 0", "layer 1"),
        "deviation": np.broadcast_to(0.01 * EPOCHS, (*batch, 3, 101)).copy(),
        "snapshot_epochs": np.empty(0, np.int64),
        "snapshots": {},
        "w_initial": np.zeros((*batch, net.n_params)),
        "state": np.zeros((*batch, net.n_params)),
        "status": np.isnan(train[..., -1]).astype(np.int64),
        "n_done": np.full(batch, 100),
        "seconds": np.ones(100),
        "settings": {"guess_loss": LN, "layers": net.layers},
    }
    return pl.History(**content | changes)


def test_epochs_of_the_least_losses_and_of_divergence():
    names = [
        ["never learns", "never learns", "learns"],
        ["rises to a plateau", "leaves the numbers", "is never a number"],
        ["learns", "has learnt all", "rises slowly"],
    ]
    histories = [
        made(
            [curve(name)[0] for name in row],
            test=np.stack([np.abs(EPOCHS - 10 * i - 5) / 50 + i for i in range(3)]),
            width=width,
        )
        for row, width in zip(names, (4, 8, 16), strict=True)
    ]
    found = pl.trainability(histories)
    assert_array_equal(found.widths, [4, 8, 16])
    expected = [[curve(name)[2] for name in row] for row in names]
    assert_array_equal(found.divergence_epoch, expected)
    assert_array_equal(found.label, [[curve(name)[1] for name in row] for row in names])
    assert_array_equal(found.regime, ["low", "untrainable", "high"])
    assert_array_equal(found.min_train_epoch, [[100, 100, 100], [59, 69, -1], [100, 50, 49]])
    assert_array_equal(found.min_test_epoch, [[5, 15, 25]] * 3)
    assert_array_equal(found.min_test_loss, [[0, 1, 2]] * 3)
    least = [np.nanmin(h.train_loss, axis=-1) for h in (histories[0], histories[2])]
    assert_array_equal(found.min_train_loss[[0, 2]], least)
    assert_allclose(found.min_train_loss[1], [LN * np.exp(-4.72), LN * np.exp(-5.52), np.nan])
    mean, spread = found.over_runs("min_test_epoch")
    assert_allclose(mean, [15, 15, 15])
    assert_allclose(spread, [10, 10, 10])  # √((100 + 0 + 100)/2)
    mean, spread = found.over_runs("divergence_epoch")
    assert_allclose(mean, [np.nan, 130 / 3, 66])
    assert_allclose(spread, [np.nan, np.std([60, 70, 0], ddof=1), np.nan])
    mean, spread = found.over_runs("min_train_loss")
    assert_allclose(mean[1], found.min_train_loss[1, :2].mean())
    assert_allclose(spread[1], found.min_train_loss[1, :2].std(ddof=1))
    share = found.share
    assert_allclose(sum(share.values()), 1.0)
    assert share["untrainable"].shape == (3, 101)
    lost = 3 * share["untrainable"][1, [0, 59, 60, 69, 70, 100]]
    assert_allclose(lost, [1, 1, 2, 2, 3, 3])
    assert_array_equal(found.deviation[1], histories[1].deviation[:, 0])
    assert "8: untrainable (3/3)" in repr(found)


def test_ties_between_runs_go_to_the_worse():
    learns, never, lost = (curve(n)[0] for n in ("learns", "never learns", "rises to a plateau"))
    pairs = [[learns, never], [never, lost], [lost, learns]]
    found = pl.trainability(made(pairs), widths=[1, 2, 5])
    assert_array_equal(found.regime, ["low", "untrainable", "untrainable"])
    assert_array_equal(found.widths, [1, 2, 5])


def test_a_run_that_was_stopped_keeps_its_last_loss():
    learns = curve("learns")[0].copy()
    learns[40:] = np.nan
    stopped = pl.trainability(made([learns], status=np.array([2])))
    assert_array_equal(stopped.label, [["high"]])
    assert_array_equal(stopped.divergence_epoch, [[-1]])
    assert_array_equal(stopped.min_train_epoch, [[39]])
    diverged = pl.trainability(made([learns], status=np.array([1])))
    assert_array_equal(diverged.divergence_epoch, [[40]])


def test_histories_of_training():
    X, y = pl.datasets.iris()
    histories = []
    for width in (2, 5):
        net = pl.Network((4, width, 3), activation="relu", loss="cross_entropy")
        system = pl.TrainingMap(net, X[::2], y[::2], pl.GradientDescent(lr=0.1, batch_size=25))
        w = net.init(runs=3)
        w[0] *= 1e-3  # learns nothing in so few epochs
        histories.append(pl.train(system, w, 20, test=(X[1::2], y[1::2]), record_every=2))
    found = pl.trainability(histories)
    assert_array_equal(found.widths, [2, 5])
    assert_array_equal(found.epochs, np.arange(0, 21, 2))
    assert_array_equal(found.train_loss, [h.train_loss for h in histories])
    assert_array_equal(found.settings["guess_loss"], [np.log(3)] * 2)
    for i, h in enumerate(histories):
        assert_array_equal(found.min_train_loss[i], h.train_loss.min(axis=-1))
        assert_array_equal(found.min_test_epoch[i], 2 * h.test_loss.argmin(axis=-1))
    one = pl.trainability(pl.train(system, w[1], 4))
    assert one.phase.shape == (1, 1, 5)
    assert one.min_test_loss is None
    with pytest.raises(ValueError, match="min_test_loss needs histories with test data"):
        one.over_runs("min_test_loss")
    with pytest.raises(ValueError, match="name must be one of min_train_loss"):
        one.over_runs("min_loss")


def test_trainability_becomes_a_dataset(tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    losses = [[curve("learns")[0], curve("never learns")[0]]] * 3
    found = pl.trainability(made(losses, test=np.ones((3, 2, 101))))
    found.to_dataset().to_netcdf(tmp_path / "t.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "t.nc", engine="h5netcdf") as back:
        assert dict(back.sizes) == {"width": 3, "run": 2, "epoch": 101}
        for name in ("phase", "min_test_loss", "divergence_epoch", "label", "regime"):
            assert_array_equal(back[name].values, getattr(found, name))


GOOD = made([curve("learns")[0]] * 2)


@pytest.mark.parametrize(
    ("histories", "options", "says"),
    [
        ([], {}, "histories must be one History or several"),
        (3, {}, "histories must be one History or several"),
        ([GOOD, 3], {}, r"histories\[1\] must be a History, got 3"),
        ([GOOD, GOOD], {}, "widths must be 2 numbers that increase"),
        ([GOOD], {"widths": [1, 2]}, "widths must be 1 numbers that increase"),
        ([GOOD, GOOD], {"widths": [2, 1]}, "widths must be 2 numbers that increase"),
        ([GOOD], {"widths": ["a"]}, "widths must be real numbers"),
        ([GOOD], {"rule": 0.5}, "rule must be a TrainabilityRule"),
        ([GOOD, made([GOOD.train_loss] * 2)], {}, "must have the batch shape of histories"),
        ([made([GOOD.train_loss] * 2)] * 2, {}, "histories must have batch shape"),
        (made([[GOOD.train_loss]]), {}, "histories must have batch shape"),
        (
            [GOOD, made(GOOD.train_loss, epochs=2 * EPOCHS)],
            {},
            r"histories\[1\] must have the epochs of histories\[0\], \[0, 1, ..., 100\]",
        ),
        ([GOOD, made(GOOD.train_loss, test=GOOD.train_loss)], {}, "must have the test data of"),
    ],
)
def test_bad_arguments_are_named(histories, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        pl.trainability(histories, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"share": 0.0}, "share must be finite and > 0"),
        ({"factor": 0.9}, "factor must be finite and >= 1"),
        ({"hold": 0}, "hold must be at least 1"),
        ({"guess": -1.0}, "guess must be finite and > 0"),
    ],
)
def test_bad_thresholds_are_named(options, says):
    with pytest.raises(ValueError, match=says):
        pl.TrainabilityRule(**options)


def test_a_map_that_learns_nothing_has_no_history():
    with pytest.raises(TypeError, match="must be a History"):
        pl.trainability([cases.henon()])
