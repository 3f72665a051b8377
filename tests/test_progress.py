"""Progress bars: each stands at 100 % exactly when the work is done."""

import re

import numpy as np
import pytest

import pylyap as pl


def training():
    net = pl.Network((2, 3, 1))
    system = pl.TrainingMap(net, *pl.datasets.quadratic(20), pl.GradientDescent(lr=0.1))
    return system, net.init("normal", runs=5, seed=0)


def lattice():
    return pl.DiscreteMap(
        lambda X: 4 * X * (1 - X), tangent=lambda X, V: (4 - 8 * X)[..., None] * V, n=3,
        vectorized=True,
    ), np.linspace(0.1, 0.4, 15).reshape(5, 3)  # fmt: skip


def scan(n_perturbations):
    system, w0 = training()
    return pl.learning_rate_scan(
        system.network, system.X, system.y, [0.1, 1e9], 60, w0=w0, progress=True,
        n_perturbations=n_perturbations,
    )  # fmt: skip


def curve():
    system, w0 = training()
    s = pl.lyapunov_spectrum(system, w0, 40, 2, record_every=5)
    return pl.prediction_curve(s, np.arange(1.0, 6.0), threshold=2.5, progress=True)


def stability_map(exponent):
    system, w0 = training()
    return pl.stability_map(
        system, ("lr", (0.01, 1e3, "log")), ("scale", [0.5, 1.0, 2.0]), (3, 20), 60, w0=w0[0],
        exponent=exponent, progress=True,
    )  # fmt: skip


CALLS = {
    "trajectory": lambda s, w: s.trajectory(w, 60, progress=True),
    "spectrum": lambda s, w: pl.lyapunov_spectrum(s, w, 60, 2, 10, progress=True),
    "ftle": lambda s, w: pl.ftle(s, w, 60, window=20, progress=True),
    "gali": lambda s, w: pl.gali(s, w, 60, 2, progress=True),
    "covariant": lambda s, w: pl.covariant_lyapunov_vectors(s, w, 60, 2, 10, 10, progress=True),
    "ensemble": lambda s, w: pl.perturbation_ensemble(s, w, 1e-8, 3, 60, start=20, progress=True),
    "comparison": lambda s, w: pl.compare_growth(s, w, 1e-8, 3, 60, start=20, progress=True),
    "Jacobian": lambda s, w: pl.training_jacobian(s, w, 60, progress=True),
    "travel": lambda s, w: pl.travel(s, w, 60, every=10, progress=True),
}
OF_A_LOSS = {
    "sharpness": lambda s, w: pl.sharpness_along(s, w, 60, 20, progress=True),
    "sharpness by batches": lambda s, w: pl.sharpness_along(
        s, w, 60, 20, kind="batch", progress=True
    ),
    "critical sharpness": lambda s, w: pl.sharpness_along(
        s, w, 60, 20, kind="critical", progress=True
    ),
    "sharpness, diverged": lambda s, w: pl.sharpness_along(s, w * 1e120, 60, 20, progress=True),
    "knock_out": lambda s, w: pl.knock_out(s, w, progress=True),
    "scan": lambda s, w: scan(3),
    "map": lambda s, w: stability_map(exponent=False),
    "map with exponents": lambda s, w: stability_map(exponent=True),
    "scan, no perturbations": lambda s, w: scan(0),
    "prediction": lambda s, w: curve(),
}


def bars(text):
    """The states of each bar in a text, as shares of its total."""
    found = {}
    for label, share in re.findall(r"([\w ]+): +(\d+)%", text):
        found.setdefault(label, []).append(int(share))
    return found


@pytest.mark.parametrize("name", [*CALLS, *OF_A_LOSS])
def test_bar_of_a_training_ends_at_its_total(name, capsys):
    (CALLS | OF_A_LOSS)[name](*training())
    found = bars(capsys.readouterr().err)
    assert found
    assert {shares[-1] for shares in found.values()} == {100}


@pytest.mark.parametrize("name", [name for name in CALLS if name != "trajectory"])
def test_bar_of_a_map_ends_at_its_total(name, capsys):
    CALLS[name](*lattice())
    found = bars(capsys.readouterr().err)
    assert found
    assert {shares[-1] for shares in found.values()} == {100}


def test_bar_is_not_full_before_the_end(capsys, monkeypatch):
    # The measurements after the spectrum take part of the bar.
    seen = []
    measure = pl.regimes.measure

    def watched(*args):
        bar = args[-1]
        found = measure(*args)
        seen.append((bar.base, bar._bar.total))
        return found

    monkeypatch.setattr(pl.regimes, "measure", watched)
    monkeypatch.setattr("pylyap._regimes.measures._AT_ONCE", 1.0)  # a run at a time
    scan(3)
    capsys.readouterr()
    done, totals = np.array(seen).T
    assert (totals == totals[0]).all()
    np.testing.assert_array_equal(done, totals[0] // len(seen) * np.arange(1, len(seen) + 1))
