"""Letters in weights: where their ink lies, what they leave of weights, whether they are read."""

import sys
import time
from pathlib import Path

import cases
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import pylyap as pl

NET = pl.Network((5, 20, 18, 3), activation="relu", loss="cross_entropy")


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], rows[-1] + 1, columns[0], columns[-1] + 1


def half(shape=(18, 20)):
    mask = np.zeros(shape, bool)
    mask[:, : shape[1] // 2] = True
    return mask


# Letters


@pytest.mark.parametrize("shape", [(512, 512), (100, 30), (30, 100), (32, 33), (12, 12)])
@pytest.mark.parametrize("text", ["a", "W", "j", "-", "a b"])
@pytest.mark.parametrize("fraction", [0.8, 1.0])
def test_a_letter_is_centred_and_as_large_as_it_may_be(shape, text, fraction):
    pytest.importorskip("PIL")
    try:
        mask = pl.letter_mask(shape, text, fraction=fraction)
    except ValueError as error:
        assert "shape must be at least" in str(error)  # noqa: PT017
        assert min(shape) < 40
        return
    assert mask.shape == shape
    assert mask.dtype == bool
    top, bottom, left, right = bounds(mask)
    assert abs(top - (shape[0] - bottom)) <= 1
    assert abs(left - (shape[1] - right)) <= 1
    room = fraction * np.array(shape)
    ink = np.array([bottom - top, right - left])
    assert (ink <= room).all()
    # One pixel of hinting on either side, and steps of a hundredth of the size.
    assert ((room - ink) <= 2.0 + 0.02 * room).any()


def test_an_a_has_a_bowl_and_a_stem():
    pytest.importorskip("PIL")
    from scipy.ndimage import label

    mask = pl.letter_mask((64, 64))
    assert label(mask)[1] == 1  # one piece of ink
    assert label(~mask)[1] == 2  # the ground and the bowl
    top, bottom, left, right = bounds(mask)
    upright = mask[top:bottom, left:right].mean(axis=0)
    third = (right - left) // 3
    assert upright[-third:].max() > upright[:third].max() + 0.05  # the stem is on the right
    assert_array_equal(mask, pl.letter_mask((64, 64), "a"))
    assert (mask != pl.letter_mask((64, 64), "e")).any()
    assert label(pl.letter_mask((64, 64), "i"))[1] == 2


def test_a_font_of_ones_own():
    pytest.importorskip("PIL")
    matplotlib = pytest.importorskip("matplotlib")
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for font in (path, str(path)):
        mask = pl.letter_mask((40, 40), "λ", font=font)
        assert 0.1 < mask.mean() < 0.5
    with pytest.raises(
        ValueError, match=r"the font DejaVu Sans Book, got '\\U0010ffff'|on one line"
    ):
        pl.letter_mask((40, 40), "\U0010ffff", font=path)
    with pytest.raises(OSError, match="resource"):
        pl.letter_mask((40, 40), font="no such file.ttf")


BAD = {
    "greek": ((64, 64), {"text": "λ"}, ValueError, "letters of the font .*, got 'λ'"),
    "in between": ((64, 64), {"text": "a☃"}, ValueError, "got '☃'"),
    "blank": ((64, 64), {"text": " "}, ValueError, "text must have letters on one line, got ' '"),
    "nothing": ((64, 64), {"text": ""}, ValueError, "text must have letters"),
    "lines": ((64, 64), {"text": "a\nb"}, ValueError, "text must have letters on one line"),
    "number": ((64, 64), {"text": 4}, TypeError, "text must be a string"),
    "small": ((5, 64), {}, ValueError, r"shape must be at least \(9, 7\) for 'a' to be read"),
    "narrow": ((64, 5), {}, ValueError, r"got \(64, 5\)"),
    "long": ((16, 16), {"text": "legible"}, ValueError, "shape must be at least"),
    "three": ((64, 64, 64), {}, ValueError, "shape must be rows and columns"),
    "one": (64, {}, ValueError, "shape must be rows and columns"),
    "zero": ((0, 64), {}, ValueError, r"shape\[0\] must be at least 1"),
    "float": ((64, 64.0), {}, TypeError, r"shape\[1\] must be an integer"),
    "fraction": ((64, 64), {"fraction": 0.0}, ValueError, "fraction must be"),
    "too much": ((64, 64), {"fraction": 1.1}, ValueError, "fraction must be at most 1"),
    "huge": ((10**7, 10**7), {}, ValueError, "the mask would take"),
}


@pytest.mark.parametrize("case", BAD)
def test_letters_that_are_refused(case):
    pytest.importorskip("PIL")
    shape, more, error, message = BAD[case]
    with pytest.raises(error, match=message):
        pl.letter_mask(shape, **more)


def test_the_shape_that_a_refusal_names_is_enough():
    pytest.importorskip("PIL")
    assert pl.letter_mask((9, 7)).any()
    with pytest.raises(ValueError, match="at least"):
        pl.letter_mask((8, 7))


def test_without_pillow_letters_are_a_clear_import_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="needs Pillow: pip install"):
        pl.letter_mask((64, 64))


# Marks


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("background", [0.0, 0.25, -1.0])
def test_a_mark_multiplies_one_matrix(batch, background):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(*batch, NET.n_params))
    before = w.copy()
    for layer, shape in enumerate(((20, 5), (18, 20), (3, 18))):
        mask = rng.random(shape) < 0.4
        marked = pl.apply_letter_mask(NET, w, mask, layer, background=background)
        parts = [(W.copy(), b) for W, b in NET.unpack(w)]
        parts[layer] = (parts[layer][0] * np.where(mask, 1.0, background), parts[layer][1])
        assert_array_equal(marked, NET.pack(parts))
        assert_array_equal(np.signbit(marked[marked == 0]), False)
    assert_array_equal(w, before)
    assert_array_equal(
        pl.apply_letter_mask(NET, w, half()), pl.apply_letter_mask(NET, w, half(), 1)
    )  # hidden to hidden


def test_a_mark_leaves_what_is_lost():
    w = np.full(NET.n_params, np.inf)
    marked = pl.apply_letter_mask(NET, w, half())
    matrix = NET.unpack(marked)[1][0]
    assert np.isinf(matrix[half()]).all()
    assert np.isnan(matrix[~half()]).all()


def test_the_former_name_warns():
    w = np.random.default_rng(0).normal(size=NET.n_params)
    with pytest.warns(DeprecationWarning, match="use apply_letter_mask"):
        former = pl.mark(NET, w, half(), 1, background=0.5)
    assert_array_equal(former, pl.apply_letter_mask(NET, w, half(), 1, background=0.5))


# Legibility


def test_legible_gone_and_negative():
    rng = np.random.default_rng(0)
    mask = half((30, 40))
    w = rng.normal(size=mask.shape)
    assert pl.legibility(w * mask, mask) == 1.0
    assert pl.legibility(-w * mask, mask) == 1.0
    assert pl.legibility(w * mask, ~mask) == 0.0
    assert pl.legibility(np.ones(mask.shape), mask) == 0.5
    assert pl.legibility(np.zeros(mask.shape), mask) == 0.5
    # Four standard errors of Mann and Whitney's statistic.
    n = m = 600
    assert_allclose(pl.legibility(w, mask), 0.5, atol=4 * ((n + m + 1) / (12 * n * m)) ** 0.5)


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_against_mann_and_whitney_with_midranks(seed, share):
    rng = np.random.default_rng(seed)
    w = rng.integers(-3, 4, size=(12, 9)).astype(float)  # many ties, many zeros
    mask = rng.random(w.shape) < share
    mask.flat[:2] = [True, False]
    found = pl.legibility(w, mask)
    a, b = np.abs(w[mask]), np.abs(w[~mask])
    pairs = (a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()
    assert_allclose(found, pairs, rtol=1e-13)
    assert_allclose(found, stats.mannwhitneyu(a, b).statistic / (a.size * b.size), rtol=1e-13)
    assert_allclose(pl.legibility(w, ~mask), 1.0 - found, rtol=1e-12, atol=1e-13)
    assert_allclose(pl.legibility(7.0 * w, mask), found, rtol=1e-13)
    order = rng.permutation(9)
    assert_allclose(pl.legibility(w[:, order], mask[:, order]), found, rtol=1e-13)


def test_batches_snapshots_and_runs_that_diverged():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(2, 3, NET.n_params))
    w[1, 2, 5 * 20 + 20] = np.inf  # in the matrix of layer 1
    w[0, 0, 0] = np.nan  # in that of layer 0, which is not asked for
    found = pl.legibility(w, half(), NET)
    assert found.shape == (2, 3)
    matrices = NET.unpack(w)[1][0]
    assert_array_equal(found, pl.legibility(matrices, half()))
    assert np.isnan(found[1, 2])
    assert np.isfinite(found).sum() == 5
    for i, j in ((0, 0), (1, 1)):
        assert found[i, j] == pl.legibility(w[i, j], half(), NET)
    assert np.ndim(pl.legibility(w[0, 1], half(), NET)) == 0


def test_training_blurs_a_mark():
    system = pl.TrainingMap(NET, *cases.data(NET, 60), pl.GradientDescent(lr=0.1))
    mask = half()
    path = system.trajectory(pl.apply_letter_mask(NET, NET.init(runs=3), mask), 200, every=50)
    found = pl.legibility(system.weights(path), mask, NET)
    assert (found[:, 0] == 1.0).all()
    assert (found[:, 1:] < 1.0).all()
    assert (found > 0.6).all()


def test_a_hundred_large_matrices_take_seconds():
    w = np.random.default_rng(0).normal(size=(10, 512, 512))
    begin = time.perf_counter()
    pl.legibility(w, half((512, 512)))
    assert time.perf_counter() - begin < 5.0  # 0.15 s when nothing else runs


W = np.zeros(NET.n_params)
BAD_USE = {
    "shape": ((W, half((20, 18)), NET), ValueError, r"array of bool of shape \(18, 20\)"),
    "type": ((W, half().astype(float), NET), ValueError, "got dtype float64"),
    "full": ((W, np.ones((18, 20), bool), NET), ValueError, "both True and False, got only True"),
    "empty": ((W, np.zeros((18, 20), bool), NET), ValueError, "got only False"),
    "layer": ((W, half(), NET, 3), ValueError, r"layer must be in 0 \.\.\. 2"),
    "weights": ((W[:-1], half(), NET), ValueError, r"w must have shape"),
    "network": ((W, half(), "net"), TypeError, "network must be a Network"),
}


@pytest.mark.parametrize("case", BAD_USE)
def test_bad_input(case):
    (w, mask, network, *layer), error, message = BAD_USE[case]
    with pytest.raises(error, match=message):
        pl.apply_letter_mask(network, w, mask, *layer)
    with pytest.raises(error, match=message):
        pl.legibility(w, mask, network, *layer)
    with pytest.raises(ValueError, match=r"w must have shape \(\.\.\., n_out, n_in\)"):
        pl.legibility(W, half())
    with pytest.raises(ValueError, match="background must be finite"):
        pl.apply_letter_mask(NET, W, half(), background=np.inf)
