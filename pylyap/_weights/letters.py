"""Letter masks on initial weights, and their legibility after training."""

from __future__ import annotations

import os
import warnings
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pylyap import _checks
from pylyap._checks import Floats
from pylyap._errors import ArgumentError, ArgumentTypeError
from pylyap._extras import require
from pylyap._roc import fraction_below
from pylyap.network import Network

Booleans: TypeAlias = NDArray[np.bool_]

# Pixels. In a smaller font the bars of letters such as "a" and "e" merge.
_SMALLEST_FONT = 12.0

_MISSING = "\U0010ffff"  # never a character, so drawn as the font's sign for a missing one


def letter_mask(
    shape: tuple[int, int],
    text: str = "a",
    *,
    fraction: float = 0.8,
    font: str | os.PathLike[str] | None = None,
) -> Booleans:
    """Bitmap of one or more letters in the middle of a matrix.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns; row 0 is the top.
    text : str, default "a"
        Letters, on one line.
    fraction : float, default 0.8
        Fraction of the rows and of the columns within which the letters are as large as possible.
    font : path_like, optional
        A TrueType or OpenType file. By default the font included in Pillow, which has Latin
        letters.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True inside the letters. Reproducible for a given version of Pillow.

    Raises
    ------
    ArgumentError
        If the font lacks a letter, the bitmap would be empty, or the shape is too small for the
        letters to be legible.
    ImportError
        If Pillow is not installed.

    Examples
    --------
    >>> mask = pl.letter_mask((40, 40), "a")
    >>> mask.shape, mask.dtype, bool(mask[0].any())
    ((40, 40), dtype('bool'), False)
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
            "give font= the file of another font",
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
    # Hinting rounds to whole pixels: start too large and take the first size that fits.
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


def apply_letter_mask(
    network: Network, w: ArrayLike, mask: ArrayLike, layer: int = 1, *, background: float = 0.0
) -> Floats:
    """Multiply the matrix of one layer by a mask.

    Parameters
    ----------
    network : Network
        Network that the weights belong to.
    w : array_like, shape (..., n_params)
        Initial weights.
    mask : array_like of bool, shape (n_out, n_in)
        Weights are kept where it is True. `letter_mask` makes one; ``~mask`` is its negative.
    layer : int, default 1
        Layer whose matrix is masked: 0 is the layer after the inputs; 1, in a network with two
        hidden layers, the one between them.
    background : float, default 0.0
        Factor of the weights where the mask is False.

    Returns
    -------
    ndarray, shape (..., n_params)
        A copy; biases and other layers are unchanged.

    Raises
    ------
    ArgumentError
        If shapes do not agree, the mask is not boolean or is constant, or `background` is not
        finite.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Examples
    --------
    >>> net = pl.Network((2, 3, 3, 1))
    >>> masked = pl.apply_letter_mask(net, net.init("normal"), np.eye(3, dtype=bool), layer=1)
    >>> matrix, bias = net.unpack(masked)[1]
    >>> int(np.count_nonzero(matrix))
    3
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


def mark(
    network: Network, w: ArrayLike, mask: ArrayLike, layer: int = 1, *, background: float = 0.0
) -> Floats:
    """Deprecated alias of `apply_letter_mask`.

    Parameters
    ----------
    network : Network
        Network that the weights belong to.
    w : array_like, shape (..., n_params)
        Initial weights.
    mask : array_like of bool, shape (n_out, n_in)
        Weights are kept where it is True.
    layer : int, default 1
        Layer whose matrix is masked.
    background : float, default 0.0
        Factor of the weights where the mask is False.

    Returns
    -------
    ndarray, shape (..., n_params)
        As from `apply_letter_mask`.

    Examples
    --------
    >>> import warnings
    >>> net = pl.Network((2, 3, 3, 1))
    >>> with warnings.catch_warnings(action="ignore"):
    ...     masked = pl.mark(net, net.init("normal"), np.eye(3, dtype=bool))
    >>> masked.shape == (net.n_params,)
    True
    """
    warnings.warn("mark is deprecated, use apply_letter_mask", DeprecationWarning, stacklevel=2)
    return apply_letter_mask(network, w, mask, layer, background=background)


def legibility(
    w: ArrayLike, mask: ArrayLike, network: Network | None = None, layer: int = 1
) -> Floats:
    """Probability that a weight inside a mask is larger in absolute value than one outside.

    Ties count half: this is the area under the ROC curve of |w| as a classifier of the mask. It is
    1 for a legible mask, 1/2 if no trace of it remains, and 0 for its negative.

    Parameters
    ----------
    w : array_like, shape (..., n_params) or (..., n_out, n_in)
        Weights of `network`, or matrices without one. Snapshots are a leading axis.
    mask : array_like of bool, shape (n_out, n_in)
        Mask, as given to `apply_letter_mask`.
    network : Network, optional
        Network that the weights belong to.
    layer : int, default 1
        Layer of the mask, as in `apply_letter_mask`.

    Returns
    -------
    ndarray, shape (...)
        Legibility; nan for a matrix with an entry that is not finite.

    Raises
    ------
    ArgumentError
        If shapes do not agree or the mask is not boolean or is constant.

    References
    ----------
    Jesus, Antunes, da Costa, Dorogovtsev, Mendes, Aguiar, Mathematics 9, 2246 (2021).

    Examples
    --------
    >>> float(pl.legibility([[0.9, 0.1], [0.2, -0.8]], np.eye(2, dtype=bool)))
    1.0
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
            # Sorted, so that the look-ups go through the other array in the order of memory.
            result[index] = fraction_below(np.sort(size[inside]), size[~inside]).mean()
    return result[()]


class _Font:
    """Letters of one size, drawn by Pillow."""

    def __init__(self, path: str | os.PathLike[str] | None, size: float) -> None:
        require("PIL", extra="images", for_="letter_mask")
        from PIL import Image, ImageDraw, ImageFont

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
        """The text in black and white, cropped; empty if no pixel is black."""
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
            f"must be an array of bool of shape {shape}, the shape of the matrix of w (of the "
            "layer, if a network is given), "
            f"got dtype {kept.dtype} and shape {kept.shape}",
        )
    if kept.all() or not kept.any():
        raise ArgumentError("mask", f"must have both True and False, got only {bool(kept.any())}")
    return kept
