"""Resampling of an image through a lattice of positions by cubic splines, with no map in memory."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.spline import REACH_PX, coefficients, weights
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile, read_window
from terrain3d.stereo.census import CENSUS_RADIUS
from terrain3d.stereo.epipolar import NODE_PX

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
_MARGIN_PX = 4 + REACH_PX
# Twice as far as a matched pixel sees, through the census and the four taps of a spline: as far as heights that are
# lent by neighbours with texture are within their sigma.
_BLIND_PX = 2 * (CENSUS_RADIUS + 2)


def resample(
    view: View, image_positions: Floats, height: int, width: int,
    *, shift: Singles | None = None, down: Singles | None = None, reduction: int = 1,
) -> Singles:  # fmt: skip
    """Rectified image (height, width) float32, NaN where the view has no value.

    image_positions: (rows, columns, 2) line and sample at lattice nodes. shift: disparity (height, width) by which
    columns are read further left, so that a smooth surface is flattened before matching. down: px by which rows are
    read further down, (height, width). reduction: the rectified pixel is about this many image pixels wide, so the
    image is averaged in blocks of that size first.
    """
    place = image_positions[np.isfinite(image_positions).all(axis=-1)]
    if not len(place):
        return np.full((height, width), np.nan, np.float32)
    low = np.floor(place.min(axis=0)).astype(int) - _MARGIN_PX
    high = np.ceil(place.max(axis=0)).astype(int) + _MARGIN_PX
    moved = shift is not None or down is not None
    if moved:  # what is moved reads beyond the lattice
        shift, down = (np.zeros((height, width), np.float32) if a is None else a for a in (shift, down))
        reach = int(max(np.abs(a).max(initial=0) for a in (shift, down))) * reduction + _MARGIN_PX
        low, high = low - reach, high + reach
    low = np.clip(low, -_MARGIN_PX, np.array(view.image.shape) + _MARGIN_PX)
    high = np.clip(high, -_MARGIN_PX, np.array(view.image.shape) + _MARGIN_PX)
    low, size = low // reduction * reduction, -(-(high - low) // reduction) * reduction
    if (size <= 2 * _MARGIN_PX).any():
        return np.full((height, width), np.nan, np.float32)
    source = _lit_window(view.image, low[0], low[1], size[0], size[1])
    if reduction > 1:
        source = source.reshape(size[0] // reduction, reduction, size[1] // reduction, reduction).mean(axis=(1, 3))
    positions = (image_positions - low - (reduction - 1) / 2) / reduction
    out = np.empty((height, width), np.float32)
    none = np.zeros((1, 1), np.float32)
    _resample(coefficients(source), positions, *((shift, down) if moved else (none, none)), moved, out)
    return out


def _lit_window(image: ImageFile, row: int, column: int, height: int, width: int) -> Singles:
    """``read_window`` without what lies so deep in a saturated area that no texture near it supports a match."""
    if image.saturation is None:
        return read_window(image, row, column, height, width)
    rim = _BLIND_PX
    wide = read_window(image, row - rim, column - rim, height + 2 * rim, width + 2 * rim)
    top = np.float32(image.saturation.value * image.gain)
    deep = cv2.erode((wide >= top).astype(np.uint8), np.ones((2 * rim + 1,) * 2, np.uint8))
    inner = np.s_[rim : rim + height, rim : rim + width]
    return np.where(deep[inner] > 0, np.float32(np.nan), wide[inner])


@njit(cache=True, nogil=True, error_model="numpy")
def _resample(source: Any, lattice: Any, shift: Any, down: Any, moved: bool, out: Any) -> None:
    rows, columns = source.shape
    height, width = out.shape
    nodes_y, nodes_x = lattice.shape[:2]
    for y in range(height):
        for x in range(width):
            fx, fy = x / NODE_PX, y / NODE_PX
            if moved:
                fx -= shift[y, x] / NODE_PX
                fy += down[y, x] / NODE_PX
            i = min(max(int(np.floor(fx)), 0), nodes_x - 2)
            j = min(max(int(np.floor(fy)), 0), nodes_y - 2)
            u, v = fx - i, fy - j  # beyond the lattice the last cell is extrapolated
            w00, w01, w10, w11 = (1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v
            line = (
                w00 * lattice[j, i, 0]
                + w01 * lattice[j, i + 1, 0]
                + w10 * lattice[j + 1, i, 0]
                + w11 * lattice[j + 1, i + 1, 0]
            )
            samp = (
                w00 * lattice[j, i, 1]
                + w01 * lattice[j, i + 1, 1]
                + w10 * lattice[j + 1, i, 1]
                + w11 * lattice[j + 1, i + 1, 1]
            )
            if not (1 <= line < rows - 2 and 1 <= samp < columns - 2):
                out[y, x] = np.nan
                continue
            r, c = int(line), int(samp)
            a0, a1, a2, a3 = weights(line - r)
            b0, b1, b2, b3 = weights(samp - c)
            total = a0 * (
                b0 * source[r - 1, c - 1]
                + b1 * source[r - 1, c]
                + b2 * source[r - 1, c + 1]
                + b3 * source[r - 1, c + 2]
            )
            total += a1 * (b0 * source[r, c - 1] + b1 * source[r, c] + b2 * source[r, c + 1] + b3 * source[r, c + 2])
            total += a2 * (
                b0 * source[r + 1, c - 1]
                + b1 * source[r + 1, c]
                + b2 * source[r + 1, c + 1]
                + b3 * source[r + 1, c + 2]
            )
            total += a3 * (
                b0 * source[r + 2, c - 1]
                + b1 * source[r + 2, c]
                + b2 * source[r + 2, c + 1]
                + b3 * source[r + 2, c + 2]
            )
            out[y, x] = total
