"""Letters printed into initial weights, and whether they can still be read after training."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._statistics import fraction_below
from pylyap.network import Network

Booleans: TypeAlias = NDArray[np.bool_]

# In a font of fewer pixels the bars of letters such as "a" and "e" run into each other.
_SMALLEST_FONT = 12.0

_MISSING = "\U0010ffff"  # never a character, so drawn as the font's sign for what it has not


def letter_mask(
    shape: tuple[int, int],
    text: str = "a",
    *,
    fraction: float = 0.8,
    font: str | os.PathLike[str] | None = None,
) -> Booleans:
    """A bitmap of a letter, or of a few, in the middle of a matrix.

    Parameters
    ----------
    shape
        Rows and columns; row 0 is the top.
    text
        What to print, on one line.
    fraction
        The letters are as large as they can be within this share of the rows and of the columns.
    font
        A TrueType or OpenType file. By default the one that Pillow brings, which has Latin letters.

    Returns
    -------
    (rows, columns) bool array
        True where there is ink. The same for the same version of Pillow.

    Raises
    ------
    ValueError
        If the font lacks a letter, nothing would be seen, or the shape is too small to read them.
    ImportError
        If Pillow is not installed.
    """
    rows, columns = _shape(shape)
    fraction = _checks.real("fraction", fraction, above=0.0)
    if fraction > 1.0:
        raise ArgumentError("fraction", f"must be at most 1, got {fraction}")
    if not isinstance(text, str):
        raise ArgumentTypeError("text", f"must be a string, got {_checks.describe(text)}")
    if not text.isprintable() or not text.strip():
        raise ArgumentError("text", f"must have letters on one line, got {text!r}")
    _checks.memory("the mask", 2.0 * rows * columns, "ask for a shape of fewer rows or columns")
    unit = _Font(font, 100.0)
    lacking = [letter for letter in text if unit.ink(letter) == unit.ink(_MISSING)]
    if lacking:
        raise ArgumentError(
            "text",
            f"must have letters of the font {unit.name}, got {lacking[0]!r}; "
            "font= takes the file of another",
        )
    ink = unit.draw(text)
    if not ink.size:
        raise ArgumentError("text", f"must leave ink, got {text!r}")
    room = (fraction * rows, fraction * columns)
    size = 100.0 * min(room[0] / ink.shape[0], room[1] / ink.shape[1])
    if size < _SMALLEST_FONT:
        with np.errstate(over="ignore"):
            needed = np.ceil(np.array(ink.shape) * _SMALLEST_FONT / (100.0 * fraction))
        needed = np.minimum(needed, 2.0**53)
        raise ArgumentError(
            "shape",
            f"must be at least {(int(needed[0]), int(needed[1]))} for "
            f"{_checks.describe(text)} to be read (text, at fraction={fraction:g}), "
            f"got {(rows, columns)}",
        )
    # Hinting rounds to whole pixels: a little larger than it may be, then the first that fits.
    size *= 1.1
    while True:
        ink = _Font(font, size).draw(text)
        if ink.shape[0] <= room[0] and ink.shape[1] <= room[1]:
            break
        size *= 0.99
    mask = np.zeros((rows, columns), bool)
    top, left = (rows - ink.shape[0]) // 2, (columns - ink.shape[1]) // 2
    mask[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return mask


def mark(
    network: Network, w: ArrayLike, mask: ArrayLike, layer: int = 1, *, background: float = 0.0
) -> Floats:
    """Weights with the matrix of one layer multiplied by a mask.

    Parameters
    ----------
    network, w : (..., n_params) array
        Initial weights.
    mask : (n_out, n_in) bool array
        Weights stay where it is True. `letter_mask` makes one; ``~mask`` is its negative.
    layer
        0 for the weights that leave the inputs; 1, with two hidden layers, for those between them.
    background
        Factor of the weights where the mask is False.

    Returns
    -------
    (..., n_params) array
        A copy. Biases and other layers stay as they are.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit or the mask is not one.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).
    """
    _require_network(network)
    background = _checks.real("background", background)
    result = network._weights(w, finite=False).copy()
    matrix = network.unpack(result)[_layer(network, layer)][0]  # a view
    kept = _mask(mask, matrix.shape[-2:])
    with np.errstate(invalid="ignore"):  # inf times 0
        matrix[..., ~kept] *= background
    result += 0.0  # no negative zeros
    return result


def legibility(
    w: ArrayLike, mask: ArrayLike, network: Network | None = None, layer: int = 1
) -> Floats:
    """How well the sizes of the weights tell a mask: 1 is legible, 1/2 is gone, 0 its negative.

    The probability that a weight inside the mask is larger in size than one outside, ties counting
    half: the area under the ROC curve of |w|.

    Parameters
    ----------
    w : (..., n_params) or (..., n_out, n_in) array
        Weights of `network`, or matrices without one. Snapshots are like any leading axis.
    mask : (n_out, n_in) bool array
        As it was printed by `mark`.
    network, layer
        As in `mark`.

    Returns
    -------
    (...) array
        nan for a matrix with an entry that is not finite.

    Raises
    ------
    ValueError, TypeError
        If shapes do not fit or the mask is not one.
    """
    if network is None:
        matrices = _checks.floats("w", w, finite=False)
        if matrices.ndim < 2:
            raise ArgumentError("w", f"must have shape (..., n_out, n_in), got {matrices.shape}")
    else:
        _require_network(network)
        matrices = network.unpack(w)[_layer(network, layer)][0]
    inside = _mask(mask, matrices.shape[-2:])
    result = np.full(matrices.shape[:-2], np.nan)
    for index in np.ndindex(result.shape):
        matrix = matrices[index]
        if np.isfinite(matrix).all():
            size = np.abs(matrix)
            # Sorted, they are looked up in the order in which the others lie in memory.
            result[index] = fraction_below(np.sort(size[inside]), size[~inside]).mean()
    return result[()]


class _Font:
    """Letters of one size, drawn by Pillow."""

    def __init__(self, path: str | os.PathLike[str] | None, size: float) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError as error:
            raise ImportError("letters need Pillow: pip install 'pylyap[images]'") from error
        self._image, self._drawing = Image, ImageDraw
        self._font: Any
        if path is None:
            self._font = ImageFont.load_default(size=size)
        else:
            layout = ImageFont.Layout.BASIC  # the one that every build of Pillow has
            file = str(_checks.path("font", path))
            self._font = ImageFont.truetype(file, size, layout_engine=layout)

    @property
    def name(self) -> str:
        return " ".join(part for part in self._font.getname() if part)

    def ink(self, letter: str) -> bytes:
        return bytes(self._font.getmask(letter))

    def draw(self, text: str) -> Booleans:
        """The text in black and white, cut out; empty if there is no ink."""
        left, top, right, bottom = self._font.getbbox(text)
        size = (max(int(right - left), 1), max(int(bottom - top), 1))
        image = self._image.new("L", size)
        self._drawing.Draw(image).text((-left, -top), text, fill=255, font=self._font)
        ink: Booleans = np.asarray(image) > 127
        rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
        if not rows.size:
            return np.zeros((0, 0), bool)
        return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _shape(shape: tuple[int, int]) -> tuple[int, int]:
    try:
        both = _checks.sequence("shape", shape, "rows and columns")
    except TypeError as error:
        raise ValueError(str(error)) from None
    if len(both) != 2:
        raise ArgumentError("shape", f"must be rows and columns, got {_checks.describe(shape)}")
    rows, columns = both
    return (
        _checks.integer("shape[0]", rows, least=1),
        _checks.integer("shape[1]", columns, least=1),
    )


def _require_network(network: Any) -> None:
    if not isinstance(network, Network):
        raise ArgumentTypeError("network", f"must be a Network, got {_checks.describe(network)}")


def _layer(network: Network, layer: int) -> int:
    return _checks.integer("layer", layer, least=0, most=len(network.layers) - 2)


def _mask(mask: ArrayLike, shape: tuple[int, ...]) -> Booleans:
    kept = _checks.array("mask", mask)
    if kept.dtype != bool or kept.shape != shape:
        raise ArgumentError(
            "mask",
            f"must be an array of bool of shape {shape}, that of the matrix of w (of a layer "
            "where a network is given), "
            f"got dtype {kept.dtype} and shape {kept.shape}",
        )
    if kept.all() or not kept.any():
        raise ArgumentError("mask", f"must have both True and False, got only {bool(kept.any())}")
    return kept
