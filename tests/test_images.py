"""Images from files, and the parts that samples are split into."""

import csv
import gzip
import io
import math
import os
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

import pylyap as pl
from pylyap import _extras

# ------------------------------------------------------------------------------ known answers


def test_mnist_has_ten_thousand_test_digits():
    folder = os.environ.get("PYLYAP_MNIST")
    if folder is None:
        pytest.skip("PYLYAP_MNIST names no folder with t10k-images-idx3-ubyte and its labels")
    images, labels = pl.datasets.mnist(folder, "test")
    assert images.shape == (10_000, 28, 28)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    # as counted in the published test set
    assert_array_equal(np.bincount(labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    assert_array_equal(labels[:10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9])
    # the digits were centred by their mass in a frame of 4 empty pixels (LeCun et al. 1998)
    assert (images.min(), images.max()) == (0, 255)
    mass = images.sum(axis=0, dtype=float)
    rows, columns = np.indices((28, 28))
    np.testing.assert_allclose((mass * rows).sum() / mass.sum(), 14, atol=0.5)
    np.testing.assert_allclose((mass * columns).sum() / mass.sum(), 14, atol=0.5)


def test_digits_are_scikit_learns_in_the_unit_interval():
    pytest.importorskip("sklearn")
    X, y = pl.datasets.digits()
    assert X.shape == (1797, 64)
    assert X.dtype == np.float64
    assert y.dtype == np.int64
    assert (X.min(), X.max()) == (0, 1)
    assert_array_equal(X * 16, np.round(X * 16))
    # as the repository's description of the test part counts them
    assert_array_equal(np.bincount(y), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])


def test_an_idx_file_is_read_as_written_byte_by_byte(tmp_path):
    file = tmp_path / "small"
    file.write_bytes(bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 253, 254, 255]))
    array = pl.datasets.idx(file)
    assert array.dtype == np.uint8
    assert_array_equal(array, [[1, 2, 3], [253, 254, 255]])
    array[0, 0] = 9  # its own memory
    assert_array_equal(pl.datasets.idx(str(file))[0], [1, 2, 3])


# --------------------------------------------------------------------------------------- IDX


def packed(array):
    """The array as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@given(
    arrays(np.uint8, array_shapes(min_dims=1, max_dims=6, min_side=0, max_side=6)), st.booleans()
)
def test_arrays_of_any_rank_come_back_from_idx_files(tmp_path_factory, array, zipped):
    data = packed(array)
    file = tmp_path_factory.mktemp("idx") / "array"  # no suffix to go by
    file.write_bytes(gzip.compress(data) if zipped else data)
    again = pl.datasets.idx(file)
    assert again.shape == array.shape
    assert_array_equal(again, array)


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "plain.gz").write_bytes(packed(array))
    # two members one after the other are one file, as `cat` makes them
    (tmp_path / "zipped").write_bytes(
        gzip.compress(packed(array)[:20]) + gzip.compress(packed(array)[20:])
    )
    for name in ("plain.gz", "zipped"):
        assert_array_equal(pl.datasets.idx(tmp_path / name), array)


SMALL = packed(np.arange(6, dtype=np.uint8).reshape(2, 3))
ZIPPED = gzip.compress(SMALL)
ABSURD = bytes([0, 0, 8, 2]) + b"\xff" * 8 + b"1234"


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


BAD_IDX = {
    "an empty file": (b"", "IDX header", "after 0 bytes"),
    "half a magic number": (SMALL[:3], "IDX header", "after 3 bytes"),
    "text": (b"5,0,4,1", "00 00 08", "35 2c 30"),
    "bytes the other way round": (SMALL[3::-1] + SMALL[4:], "00 00 08", "02 08 00"),
    "floats": (SMALL[:2] + b"\x0d" + SMALL[3:], "0x08", "float32, type 0x0d"),
    "int16": (SMALL[:2] + b"\x0b" + SMALL[3:], "0x08", "int16, type 0x0b"),
    "an unknown type": (SMALL[:2] + b"\x07" + SMALL[3:], "0x08", "0x07"),
    "no dimension": (bytes([0, 0, 8, 0, 1]), "1 ... 64 dimensions", "0"),
    "more dimensions than arrays have": (
        bytes([0, 0, 8, 65]) + b"\0\0\0\1" * 65 + b"1",
        "1 ... 64 dimensions",
        "65",
    ),
    "half a dimension": (SMALL[:10], "2 dimensions", "after 6"),
    "a byte too few": (SMALL[:-1], "2 x 3 bytes", "after 5 of 6"),
    "a byte too many": (SMALL + b"!", "2 x 3 bytes", "goes on"),
    "an absurd size": (ABSURD, "4294967295 x 4294967295", "1.64e+04 PiB"),
    "255 dimensions": (bytes([0, 0, 8, 255]) + b"\xff" * 1020, "1 ... 64 dimensions", "255"),
    "64 absurd dimensions": (bytes([0, 0, 8, 64]) + b"\xff" * 256, "x 4294967295", "PiB"),
    "nothing of an absurd size": (
        bytes([0, 0, 8, 3, 0, 0, 0, 0]) + b"\xff" * 8,
        "an array",
        "0 x 4294967295",
    ),
    "gzip of text": (gzip.compress(b"5,0,4,1"), "00 00 08", "35 2c 30"),
    "gzip of a byte too few": (gzip.compress(SMALL[:-1]), "2 x 3 bytes", "after 5 of 6"),
    "gzip of a byte too many": (gzip.compress(SMALL + b"!"), "2 x 3 bytes", "goes on"),
    "gzip of an absurd size": (gzip.compress(ABSURD), "4294967295 x 4294967295", "PiB"),
    "gzip of nothing": (gzip.compress(b""), "IDX header", "after 0 bytes"),
    "gzip without its end": (ZIPPED[:-3], "truncated gzip", "too early"),
    "gzip cut in its data": (ZIPPED[:-12], "truncated gzip", "too early"),
    "gzip cut in its header": (ZIPPED[:4], "truncated gzip", "too early"),
    "gzip with a wrong checksum": (flipped(ZIPPED, len(ZIPPED) - 8), "damaged gzip", "CRC"),
    "gzip with a wrong length": (flipped(ZIPPED, len(ZIPPED) - 4), "damaged gzip", "length"),
    "gzip with damaged data": (flipped(ZIPPED, 10), "damaged gzip", ""),
    "gzip with more behind": (ZIPPED + b"tail", "damaged gzip", "ta"),
    "gzip of an unknown method": (flipped(ZIPPED, 2), "damaged gzip", "compression"),
}


def assert_refused(call, *words, error=ValueError):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert str(word) in message
    assert "\n" not in message


def outcome(call):
    """What comes back, or None and the words of its refusal."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("what", BAD_IDX)
def test_a_bad_idx_file_is_refused_by_name(tmp_path, what):
    data, expected, came = BAD_IDX[what]
    file = tmp_path / "bad"
    file.write_bytes(data)
    assert_refused(lambda: pl.datasets.idx(file), file, expected, came)


def test_what_is_no_file_is_refused_by_name(tmp_path):
    assert_refused(lambda: pl.datasets.idx(tmp_path), "path", tmp_path, "folder")
    for missing in (tmp_path / "none", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        assert_refused(
            lambda m=missing: pl.datasets.idx(m), "path", missing, error=FileNotFoundError
        )
    for wrong in (3, None, b"bytes"):
        assert_refused(lambda w=wrong: pl.datasets.idx(w), "path", wrong, error=TypeError)


@given(st.integers(0, len(ZIPPED) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_file_gives_no_wrong_array(tmp_path_factory, at, value, cut):
    """Of gzip, whose checksum tells; a changed byte of a plain file cannot be told."""
    data = ZIPPED[:at] if cut else ZIPPED[:at] + bytes([value]) + ZIPPED[at + 1 :]
    file = tmp_path_factory.mktemp("idx") / "damaged"
    file.write_bytes(data)
    array, refusal = outcome(lambda: pl.datasets.idx(file))
    if array is not None:  # time, system and the like in gzip's header
        assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])
    assert str(file) in refusal or array is not None


# ------------------------------------------------------------------------------------- MNIST


IMAGES = np.random.default_rng(0).integers(0, 256, size=(30, 28, 28), dtype=np.uint8)
LABELS = np.random.default_rng(1).permutation(np.arange(30, dtype=np.uint8) % 10)


def write_mnist(folder, stem="train", *, images=IMAGES, labels=LABELS, zipped=False):
    for kind, array in (("images", images), ("labels", labels)):
        name = f"{stem}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
        data = packed(np.asarray(array, dtype=np.uint8))
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_both_parts_of_mnist_come_back(tmp_path, zipped):
    write_mnist(tmp_path, "train", zipped=zipped)
    write_mnist(tmp_path, "t10k", images=IMAGES[::-1], labels=LABELS[::-1], zipped=zipped)
    images, labels = pl.datasets.mnist(tmp_path)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert_array_equal(images, IMAGES)
    assert_array_equal(labels, LABELS)
    images, labels = pl.datasets.mnist(str(tmp_path), part="test")
    assert_array_equal(images, IMAGES[::-1])
    assert_array_equal(labels, LABELS[::-1])


def test_mnist_trains_a_network(tmp_path):
    images, labels = pl.datasets.mnist(write_mnist(tmp_path))
    net = pl.Network((784, 2, 10), loss="cross_entropy")
    X = images.reshape(len(images), -1) / 255
    system = pl.TrainingMap(net, X, labels, pl.GradientDescent())
    w = net.init("normal", seed=0)
    assert system.loss(system.step(w)) < system.loss(w)


BAD_MNIST = {
    "a label too few": ({"labels": LABELS[:-1]}, "30 images", "29 labels"),
    "images of another size": ({"images": IMAGES[:, :, :27]}, "(N, 28, 28)", "(30, 28, 27)"),
    "images in rows": ({"images": IMAGES.reshape(30, 784)}, "(N, 28, 28)", "(30, 784)"),
    "labels in a table": ({"labels": np.eye(30)}, "(N,)", "(30, 30)"),
    "label 10": ({"labels": np.where(np.arange(30) == 17, 10, LABELS)}, "0 ... 9", "10 at 17"),
    "no 3 and no 7": (
        {"labels": np.where(np.isin(LABELS, [3, 7]), 0, LABELS)},
        "10 classes",
        "2 do not occur: 3, 7",
    ),
    "no image": ({"images": IMAGES[:0], "labels": LABELS[:0]}, "10 classes", "10 do not occur"),
}


@pytest.mark.parametrize("what", BAD_MNIST)
def test_images_and_labels_that_do_not_fit_are_refused(tmp_path, what):
    arrays, expected, came = BAD_MNIST[what]
    write_mnist(tmp_path, **arrays)
    assert_refused(lambda: pl.datasets.mnist(tmp_path), tmp_path, "-ubyte", expected, came)


def test_a_missing_part_of_mnist_is_named(tmp_path):
    def read(folder=tmp_path, part="train"):
        return lambda: pl.datasets.mnist(folder, part)

    write_mnist(tmp_path, "t10k")
    names = ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "neither")
    assert_refused(read(), tmp_path, *names, error=FileNotFoundError)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte").mkdir()  # as some unpackers leave it
    names = ("t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz", "neither")
    assert_refused(read(part="test"), tmp_path, *names, error=FileNotFoundError)
    none, file = tmp_path / "none", tmp_path / "t10k-images-idx3-ubyte"
    assert_refused(read(none), "folder", none, error=FileNotFoundError)
    assert_refused(read(file), "folder", file, "is a file")
    assert_refused(read(part="tset"), "part", "train, test", "'tset'; did you mean 'test'?")
    assert_refused(read(3), "folder", "3", error=TypeError)


def test_a_damaged_part_of_mnist_is_named(tmp_path):
    write_mnist(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-100])
    assert_refused(lambda: pl.datasets.mnist(tmp_path), file, "truncated gzip")


# -------------------------------------------------------------------------------------- HASY


SYMBOLS = {31: "A", 7: r"\alpha", 196: ",", 1400: '"'}  # neither sorted nor without commas
ROWS = [31, 7, 1400, 196, 7, 31]
DRAWN = np.random.default_rng(2).choice(np.array([0, 255], np.uint8), size=(6, 32, 32))


def saved(format, array, mode="RGB"):
    pillow = pytest.importorskip("PIL.Image", reason="the images of HASY need Pillow")
    stream = io.BytesIO()
    pillow.fromarray(array).convert(mode).save(stream, format=format)
    return stream.getvalue()


def png(array, mode="RGB"):
    return saved("PNG", array, mode)


def write_csv(file, header, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


HEADER = ("path", "symbol_id", "latex", "user_id")


def write_hasy(folder, mode="RGB"):
    """A folder laid out like HASYv2: an index, the folds, the symbols, the images."""
    (folder / "hasy-data").mkdir()
    rows = []
    for i, (number, image) in enumerate(zip(ROWS, DRAWN, strict=True)):
        (folder / f"hasy-data/v2-{i:05d}.png").write_bytes(png(image, mode))
        rows.append([f"hasy-data/v2-{i:05d}.png", number, SYMBOLS[number], 50 + i])
    write_csv(folder / "hasy-data-labels.csv", HEADER, rows)
    fold = [[f"../../{path}", *rest] for path, *rest in rows[::-1]]
    write_csv(folder / "classification-task/fold-1/train.csv", HEADER, fold)
    header = ("symbol_id", "latex", "training_samples", "test_samples")
    write_csv(folder / "symbols.csv", header, [[n, name, 1, 1] for n, name in SYMBOLS.items()])
    return folder


@pytest.fixture
def hasy(tmp_path):
    return write_hasy(tmp_path)


def test_hasy_has_ink_as_large_values_and_classes_by_symbol_id(hasy):
    images, labels, names = pl.datasets.hasy(hasy)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert_array_equal(images, 255 - DRAWN)
    assert names == [r"\alpha", "A", ",", '"']
    assert_array_equal(labels, [1, 0, 3, 2, 0, 1])
    stored, _, _ = pl.datasets.hasy(str(hasy), invert=False)
    assert_array_equal(stored, DRAWN)


def test_a_fold_of_hasy_is_read_from_where_its_index_is(hasy):
    whole, labels, names = pl.datasets.hasy(hasy)
    images, y, again = pl.datasets.hasy(hasy, index="classification-task/fold-1/train.csv")
    assert_array_equal(images, whole[::-1])
    assert_array_equal(y, labels[::-1])
    assert again == names


@pytest.mark.parametrize("mode", ["L", "1"])
def test_images_saved_in_fewer_bits_are_the_same(tmp_path, mode):
    images, _, _ = pl.datasets.hasy(write_hasy(tmp_path, mode), invert=False)
    assert_array_equal(images, DRAWN)


def test_a_selection_of_symbols_has_classes_of_its_own(hasy):
    rows = [["hasy-data/v2-00003.png", 196, ",", 1], ["hasy-data/v2-00000.png", 31, "A", 1]]
    write_csv(hasy / "mine.csv", HEADER, rows)
    images, labels, names = pl.datasets.hasy(hasy, index="mine.csv", symbols=None)
    assert_array_equal(images, 255 - DRAWN[[3, 0]])
    assert_array_equal(labels, [1, 0])
    assert names == ["A", ","]
    # with the list of all symbols it is one that lacks some
    assert_refused(lambda: pl.datasets.hasy(hasy, index="mine.csv"), "4 classes", r"\alpha, " + '"')


FIRST = ["hasy-data/v2-00000.png", "31", "A", "50"]
BAD_ROWS = {
    "an absolute path": (["/etc/hostname.png", *FIRST[1:]], "line 8: path", "/etc/hostname.png"),
    "a path out of the folder": (["../x.png", *FIRST[1:]], "line 8: path", "'../x.png'"),
    "a path out and back": (["hasy-data/../../x.png", *FIRST[1:]], "line 8: path", "inside"),
    "a path with a null": (["hasy-data/\0.png", *FIRST[1:]], "line 8: path", "inside"),
    "no path": (["", *FIRST[1:]], "line 8", "is a folder"),
    "a folder": (["hasy-data", *FIRST[1:]], "line 8", "is a folder"),
    "half a symbol": ([FIRST[0], "31.5", "A", "50"], "line 8: symbol_id", "31.5"),
    "a negative symbol": ([FIRST[0], "-31", "A", "50"], "line 8: symbol_id", "-31"),
    "no symbol": ([FIRST[0], "", "A", "50"], "line 8: symbol_id", "''"),
    "a symbol beyond numbers": ([FIRST[0], "9" * 5000, "A", "50"], "line 8: symbol_id", "999"),
    "an unknown symbol": ([FIRST[0], "32", "B", "50"], "line 8: symbol_id", "symbols.csv, got 32"),
    "a symbol of two names": ([FIRST[0], "31", "B", "50"], "line 8: latex", "'A'", "'B'"),
    "a field too few": (FIRST[:3], "line 8", "4 fields", "got 3"),
    "a field too many": ([*FIRST, "?"], "line 8", "4 fields", "got 5"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_bad_row_of_the_index_is_refused_by_its_line(hasy, what):
    row, *words = BAD_ROWS[what]
    with (hasy / "hasy-data-labels.csv").open("a", newline="") as stream:
        csv.writer(stream).writerow(row)
    assert_refused(lambda: pl.datasets.hasy(hasy), "hasy-data-labels.csv", *words)


def test_a_symbol_of_two_names_is_refused_without_the_list_too(hasy):
    write_csv(hasy / "mine.csv", HEADER, [FIRST, [FIRST[0], "31", "B", "50"]])
    options = {"index": "mine.csv", "symbols": None}
    assert_refused(
        lambda: pl.datasets.hasy(hasy, **options), "mine.csv, line 3: latex", "'A'", "'B'"
    )


BAD_INDEX = {
    "an empty index": (b"", "lacks path, symbol_id, latex", ""),
    "an index without rows": (b"path,symbol_id,latex,user_id\n\n", "rows", "none"),
    "a column missing": (b"path,symbol,latex\nx.png,31,A\n", "lacks symbol_id", "symbol,latex"),
    "latin-1": ("path,symbol_id,latex\nx.png,31,\xe9\n".encode("latin-1"), "UTF-8", "0xe9"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "UTF-8", "0x89"),
    "a field beyond reading": (b"path,symbol_id,latex\n" + b"x" * 200_000, "CSV", "limit"),
}


@pytest.mark.parametrize("what", BAD_INDEX)
def test_a_bad_index_is_refused_by_name(hasy, what):
    data, *words = BAD_INDEX[what]
    (hasy / "hasy-data-labels.csv").write_bytes(data)
    assert_refused(lambda: pl.datasets.hasy(hasy), hasy / "hasy-data-labels.csv", *words)


def test_a_list_of_symbols_is_checked_too(hasy):
    def read(data):
        (hasy / "symbols.csv").write_bytes(data)
        return lambda: pl.datasets.hasy(hasy)

    header = b"symbol_id,latex\n"
    assert_refused(read(b"symbol_id\n31\n"), hasy / "symbols.csv", "lacks latex")
    assert_refused(read(header + b"31,A\n31,A\n"), "symbols.csv, line 3", "31 must occur once")
    assert_refused(read(header + b"x,A\n"), "symbols.csv, line 2: symbol_id", "'x'")


PATHS = {
    "a folder that is not there": ({"folder": "none"}, FileNotFoundError, "folder", "none"),
    "a file for a folder": ({"folder": "symbols.csv"}, ValueError, "folder", "is a file"),
    "an index that is not there": ({"index": "no.csv"}, FileNotFoundError, "index", "no.csv"),
    "a folder for an index": ({"index": "hasy-data"}, ValueError, "index", "is a folder"),
    "an index elsewhere": ({"index": "../x.csv"}, ValueError, "index", "inside", "../x.csv"),
    "an absolute index": ({"index": "/x.csv"}, ValueError, "index", "inside", "/x.csv"),
    "a number for an index": ({"index": 3}, TypeError, "index", "3"),
    "symbols that are not there": ({"symbols": "no"}, FileNotFoundError, "symbols", "None"),
    "symbols elsewhere": ({"symbols": "../x.csv"}, ValueError, "symbols", "inside"),
    "invert by a number": ({"invert": 1}, TypeError, "invert", "1"),
}


@pytest.mark.parametrize("what", PATHS)
def test_a_bad_argument_of_hasy_is_refused_by_name(hasy, what):
    options, error, *words = PATHS[what]
    folder = hasy / options.pop("folder", ".") if "folder" in options else hasy
    assert_refused(lambda: pl.datasets.hasy(folder, **options), *words, error=error)


def test_an_image_that_is_not_there_is_named_with_its_line(hasy):
    file = hasy / "hasy-data/v2-00002.png"
    file.unlink()
    assert_refused(lambda: pl.datasets.hasy(hasy), file, "line 4", error=FileNotFoundError)


def colours():
    return np.random.default_rng(3).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)


def bomb():
    """A header that promises 4e9 x 4e9 pixels."""
    data = png(DRAWN[0])
    return data[:16] + b"\xff" * 8 + data[24:]


def chunk(kind, content):
    return (
        struct.pack(">I", len(content)) + kind + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )  # fmt: skip


def two_headers(first, second):
    """An image of 32 x 32 whose second header has another size, with pixels for either."""

    def header(size):
        return chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0))

    pixels = zlib.compress(bytes(40_000))
    headers = header(first) + header(second)
    return b"\x89PNG\r\n\x1a\n" + headers + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def hidden_header():
    """32 x 32 where a header is expected; the header comes second, and is a bomb."""
    data = png(DRAWN[0])
    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0))
    first = chunk(b"tEXt", struct.pack(">II", 32, 32) + b"\0\0\0\0\0")
    return data[:8] + first + bomb + data[33:]


BAD_IMAGES = {
    "one row in a second header": (lambda: two_headers((32, 32), (32, 1)), "32 x 32", "32 x 1"),
    "one pixel in a second header": (lambda: two_headers((32, 32), (1, 1)), "32 x 32", "1 x 1"),
    "two equal headers": (lambda: two_headers((32, 32), (32, 32)), "two headers"),
    "a bomb in a second header": (
        lambda: two_headers((32, 32), (50_000, 50_000)),
        "32 x 32",
        "50000 x 50000",
    ),
    "a bomb in a late header": (hidden_header, "32 x 32", "50000 x 50000"),
    "a megabyte of text": (
        lambda: png(DRAWN[0])[:33] + chunk(b"tEXt", bytes(2**20)) + png(DRAWN[0])[33:],
        "too long",
    ),
    "text that inflates": (
        lambda: (
            png(DRAWN[0])[:33]
            + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
            + png(DRAWN[0])[33:]
        ),
        "whole PNG",
    ),
    "28 x 28": (lambda: png(DRAWN[0][:28, :28]), "32 x 32", "28 x 28"),
    "a bomb": (bomb, "32 x 32", "4294967295"),
    "colours": (lambda: png(colours()), "grey", "colours"),
    "transparency": (lambda: png(DRAWN[0], "RGBA"), "mode 1, L or RGB", "RGBA"),
    "a palette": (lambda: png(DRAWN[0], "P"), "mode 1, L or RGB", "mode P"),
    "16 bits": (lambda: png(DRAWN[0].astype(np.uint16), "I;16"), "mode 1, L or RGB", "got mode I"),
    "a JPEG": (lambda: saved("JPEG", DRAWN[0]), "PNG", "none"),
    "nothing": (lambda: b"", "PNG", "truncated"),
    "a header alone": (lambda: png(DRAWN[0])[:40], "whole PNG", "damaged"),
    "half an image": (lambda: png(DRAWN[0])[:200], "whole PNG", "damaged"),
    "an image without its end": (lambda: png(DRAWN[0])[:-14], "whole PNG", "damaged"),
    "a bit of the image": (lambda: flipped(png(DRAWN[0]), 100), "whole PNG", "damaged"),
}


@pytest.mark.parametrize("what", BAD_IMAGES)
def test_a_bad_image_is_refused_by_name(hasy, what):
    make, *words = BAD_IMAGES[what]
    file = hasy / "hasy-data/v2-00004.png"
    file.write_bytes(make())
    assert_refused(lambda: pl.datasets.hasy(hasy), file, *words)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, IndexError, OverflowError])
def test_whatever_pillow_raises_names_the_file(hasy, error, monkeypatch):
    from PIL import Image

    def explode(*_, **__):
        raise error("what")

    monkeypatch.setattr(Image, "open", explode)
    assert_refused(lambda: pl.datasets.hasy(hasy), "v2-00000.png", "whole PNG")


def test_a_bomb_has_our_words_whatever_pillow_allows(hasy, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_refused(lambda: pl.datasets.hasy(hasy), "v2-00000.png", "whole PNG")


@pytest.mark.parametrize("what", ["index", "symbols", "an image", "images", "labels", "idx"])
def test_pipes_and_devices_are_refused_and_never_waited_for(what, hasy):
    file = {
        "index": hasy / "hasy-data-labels.csv",
        "symbols": hasy / "symbols.csv",
        "an image": hasy / "hasy-data/v2-00004.png",
    }.get(what, hasy / "x")
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    call = {"idx": lambda: pl.datasets.idx(file)}.get(what, lambda: pl.datasets.hasy(hasy))
    if what in ("images", "labels"):
        data = {"images": file, "labels": file, "name": "idx"}
        tables = {"network": {"hidden": 3}, "analysis": {"name": "train", "epochs": 1}, "runs": 1}
        pytest.importorskip("xarray")
        call = lambda: pl.Study(data=data, **tables)  # noqa: E731
    assert_refused(call, file, "a device or a pipe")


def test_a_header_is_held_against_the_file_before_anything_is_unpacked(tmp_path):
    """78 MB that 80 kB of gzip hold, and as many that it cannot."""
    header = bytes([0, 0, 8, 3]) + struct.pack(">III", 10**5, 28, 28)
    packing = zlib.compressobj(9, zlib.DEFLATED, 31)
    zipped = (
        packing.compress(header)
        + b"".join(packing.compress(bytes(10**5)) for _ in range(784))
        + packing.flush()
    )
    (tmp_path / "train-images-idx3-ubyte").write_bytes(zipped)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(packed(np.arange(10, dtype=np.uint8)))
    tracemalloc.start()
    try:
        assert_refused(lambda: pl.datasets.mnist(tmp_path), "100000 images", "10 labels")
        for data in (gzip.compress(header), header):
            (tmp_path / "short").write_bytes(data)
            assert_refused(lambda: pl.datasets.idx(tmp_path / "short"), "short", "cannot hold more")
        assert tracemalloc.get_traced_memory()[1] < 2**22  # the images would take 78 MB
    finally:
        tracemalloc.stop()


def test_a_long_list_is_held_against_memory_before_it_is_read(hasy):
    with (hasy / "hasy-data-labels.csv").open("ab") as file:
        file.truncate(10**13)  # a hole
    assert_refused(lambda: pl.datasets.hasy(hasy), "index", "hasy-data-labels.csv", "would take")


def mutations(data, seed, n):
    """Bytes changed, cut out, repeated, and cut off."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        a, b = np.sort(rng.integers(0, len(data) + 1, 2))
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 5)):
            changed[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(256)])
        yield from (bytes(changed), data[:a] + data[b:], data[:b] + data[a:], data[:a])


READERS = {
    "idx": (lambda where: where / "x", lambda where: pl.datasets.idx(where / "x"), SMALL),
    "gzip": (lambda where: where / "x", lambda where: pl.datasets.idx(where / "x"), ZIPPED),
    "index": (lambda where: where / "hasy-data-labels.csv", pl.datasets.hasy, None),
    "symbols": (lambda where: where / "symbols.csv", pl.datasets.hasy, None),
    "image": (lambda where: where / "hasy-data/v2-00000.png", pl.datasets.hasy, None),
}


@pytest.mark.parametrize("reader", READERS)
def test_mutated_files_are_read_or_refused_by_name(reader, hasy):
    pytest.importorskip("PIL")
    place, read, data = READERS[reader]
    file = place(hasy)
    data = file.read_bytes() if data is None else data
    refused = 0
    for mutated in mutations(data, 5, 60):
        file.write_bytes(mutated)
        try:
            read(hasy)
        except (ValueError, OSError) as error:
            assert str(hasy) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 120


def test_a_damaged_image_is_never_another_one(hasy):
    """Every byte changed once: refused by name, or seen through, and every length cut."""
    file = hasy / "hasy-data/v2-00000.png"
    data, options = file.read_bytes(), {"symbols": None, "invert": False}
    write_csv(hasy / "mine.csv", HEADER, [FIRST])
    for damaged in [
        *(flipped(data, at) for at in range(len(data))),
        *(data[:at] for at in range(len(data))),
    ]:
        file.write_bytes(damaged)
        read, refusal = outcome(lambda: pl.datasets.hasy(hasy, index="mine.csv", **options))
        if read is not None:
            assert_array_equal(read[0][0], DRAWN[0])
        assert str(file) in refusal or read is not None


@pytest.mark.parametrize(
    ("module", "call", "command"),
    [
        ("PIL", lambda: pl.datasets.hasy("."), _extras.install_command("images", "PIL")),
        ("sklearn", pl.datasets.digits, "pip install scikit-learn"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_helps(monkeypatch, module, call, command):
    monkeypatch.setitem(sys.modules, module, None)
    assert_refused(call, command, error=ImportError)


# ------------------------------------------------------------------------------------- split


@given(st.integers(2, 40), st.data())
def test_the_two_parts_are_the_samples_shuffled(N, data):
    first = data.draw(st.integers(1, N - 1))
    seed = data.draw(st.integers(0, 2**32))
    X = np.arange(4 * N).reshape(N, 2, 2)
    y = np.arange(N, dtype=np.uint8)
    X1, y1, X2, y2 = pl.datasets.split(X, y, first, seed)
    assert len(X1) == len(y1) == first
    assert_array_equal(np.sort(np.concatenate([y1, y2])), y)
    for images, labels in ((X1, y1), (X2, y2)):
        assert_array_equal(images, X[labels])  # each with its label still
    # the order does not depend on where it is parted
    assert_array_equal(np.concatenate([y1, y2])[:1], pl.datasets.split(X, y, 1, seed)[1])


def test_bytes_stay_bytes_and_a_seed_gives_one_order():
    parts = pl.datasets.split(IMAGES, np.eye(10)[LABELS], 20)
    assert [part.shape for part in parts] == [(20, 28, 28), (20, 10), (10, 28, 28), (10, 10)]
    assert parts[0].dtype == parts[2].dtype == np.uint8
    for part, again in zip(parts, pl.datasets.split(IMAGES, np.eye(10)[LABELS], 20), strict=True):
        assert_array_equal(part, again)
    assert (pl.datasets.split(IMAGES, LABELS, 20, seed=1)[0] != parts[0]).any()
    # a shuffle: each sample is as likely in front, 1/30 ± 5 standard errors of 3000 seeds
    front = [pl.datasets.split(LABELS, np.arange(30), 1, seed)[1][0] for seed in range(3000)]
    error = math.sqrt(1 / 30 * 29 / 30 / 3000)
    assert abs(np.bincount(front, minlength=30) / 3000 - 1 / 30).max() < 5 * error


def test_the_parts_are_copies():
    X, y = np.arange(10.0), np.arange(10)
    for part in pl.datasets.split(X, y, 5):
        part[:] = -1
    assert_array_equal(X, y)
    assert_array_equal(y, np.arange(10))


NINE = np.zeros(9)
BAD_SPLITS = {
    "none in the first part": ((NINE, NINE, 0), ValueError, "n_first", "1 ... 8", "0"),
    "all in the first part": ((NINE, NINE, 9), ValueError, "n_first", "1 ... 8", "9"),
    "half a sample": ((NINE, NINE, 1.5), TypeError, "n_first", "1.5"),
    "labels too short": ((NINE, NINE[:8], 3), ValueError, "y", "X", "9", "8"),
    "labels in a cube": ((NINE, np.zeros((9, 1, 1)), 3), ValueError, "y", "(9, 1, 1)"),
    "one sample": ((NINE[:1], NINE[:1], 1), ValueError, "X", "at least 2", "1"),
    "no rows": ((1.0, NINE, 3), ValueError, "X", "1.0"),
    "one label for all": ((NINE, 1, 3), ValueError, "y", "1"),
    "rows of different lengths": (([[1, 2], [3]], [0, 1], 1), ValueError, "X", "rectangular"),
    "a mask": ((np.ma.masked_equal(NINE, 0), NINE, 3), ValueError, "X", "masked", "9"),
    "a negative seed": ((NINE, NINE, 3, -1), ValueError, "seed", "-1"),
    "half a seed": ((NINE, NINE, 3, 1.5), TypeError, "seed", "1.5"),
}


@pytest.mark.parametrize("what", BAD_SPLITS)
def test_a_bad_split_is_refused_by_name(what):
    arguments, error, *words = BAD_SPLITS[what]
    assert_refused(lambda: pl.datasets.split(*arguments), *words, error=error)
