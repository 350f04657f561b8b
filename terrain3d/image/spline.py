"""Cubic B-spline interpolation (Unser, Aldroubi & Eden 1993), for compiled loops.

Cubic convolution of the pixels themselves blurs halfway between them and not on them, so that two views of the same
ground differ by where their pixels happen to lie. A spline through the pixels has three quarters of the finest detail
that convolution loses. Its coefficients are those of a recursive filter, cut off where they are less than any noise: a
coefficient depends on nothing beyond ``REACH_PX``, and is the same to the bit in any window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.cubic import weighted

Singles = NDArray[np.float32]

REACH_PX = 6  # of the filter on either side; what is left out is 2e-4 of a pixel
_POLE = 3**0.5 - 2
_POWERS = np.array([_POLE**k for k in range(REACH_PX + 1)])
_TAPS = (_POWERS / (2 * _POWERS.sum() - 1)).astype(np.float32)


def coefficients(image: Singles) -> Singles:
    """Coefficients of the spline through the pixels of an image (h, w; NaN for none), NaN where there is none.

    Beyond the border, and where pixels have no value, the last one before them goes on.
    """
    across = row_coefficients(image)
    out = np.empty_like(across)
    _filter_columns(across, _TAPS, out)
    return out


def row_coefficients(image: Singles) -> Singles:
    """The same of a spline along each row, for places on rows."""
    out = np.empty(image.shape, np.float32)
    _filter_rows(np.ascontiguousarray(image, np.float32), _TAPS, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _filter_rows(image: Any, taps: Any, out: Any) -> None:
    height, width = image.shape
    reach = taps.size - 1
    line = np.empty(width + 2 * reach, np.float32)
    for i in range(height):
        line[reach : reach + width] = image[i]
        line[:reach], line[reach + width :] = image[i, 0], image[i, width - 1]
        row = out[i]
        for j in range(width):
            row[j] = taps[0] * line[j + reach]
        for k in range(1, reach + 1):
            before, after, tap = line[reach - k :], line[reach + k :], taps[k]
            for j in range(width):
                row[j] += tap * (before[j] + after[j])
        for j in range(width):
            if np.isnan(out[i, j]) and not np.isnan(image[i, j]):
                out[i, j] = _beside_none(line, taps, j + reach)


@njit(cache=True, nogil=True, error_model="numpy")
def _beside_none(line: Any, taps: Any, at: int) -> float:
    """The filter at a place of a line, some of whose values around are NaN."""
    before = after = line[at]
    total = taps[0] * line[at]
    for k in range(1, taps.size):
        before = before if np.isnan(line[at - k]) else line[at - k]
        after = after if np.isnan(line[at + k]) else line[at + k]
        total += taps[k] * (before + after)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _filter_columns(image: Any, taps: Any, out: Any) -> None:
    height, width = image.shape
    reach = taps.size - 1
    line = np.empty(2 * reach + 1, np.float32)
    for i in range(height):
        for j in range(width):
            out[i, j] = taps[0] * image[i, j]
        for k in range(1, reach + 1):
            above, below = max(i - k, 0), min(i + k, height - 1)
            for j in range(width):
                out[i, j] += taps[k] * (image[above, j] + image[below, j])
        for j in range(width):
            if np.isnan(out[i, j]) and not np.isnan(image[i, j]):
                for k in range(2 * reach + 1):
                    line[k] = image[min(max(i + k - reach, 0), height - 1), j]
                out[i, j] = _beside_none(line, taps, reach)


@njit(inline="always")
def weights(t: float) -> tuple[float, float, float, float]:
    """Of four coefficients at -1, 0, 1, 2 for a position t in [0, 1)."""
    t2, t3 = t * t, t * t * t
    return (1 - 3 * t + 3 * t2 - t3) / 6, (4 - 6 * t2 + 3 * t3) / 6, (1 + 3 * t + 3 * t2 - 3 * t3) / 6, t3 / 6


@njit(inline="always")
def weights_slope(t: float) -> tuple[float, float, float, float]:
    """Derivatives of the weights."""
    return -0.5 * (1 - t) * (1 - t), 0.5 * t * (3 * t - 4), 0.5 * (1 + 2 * t - 3 * t * t), 0.5 * t * t


@njit(cache=True, nogil=True, error_model="numpy")
def spline(image: Any, y: float, x: float) -> tuple[float, float, float]:
    """Value of an image, given by its coefficients (h, w), at row y and column x and its derivatives by y and x; NaN
    outside."""
    r, c = int(np.floor(y)), int(np.floor(x))
    if r < 1 or c < 1 or r > image.shape[0] - 3 or c > image.shape[1] - 3:
        return np.nan, np.nan, np.nan
    wy, wx, dy, dx = weights(y - r), weights(x - c), weights_slope(y - r), weights_slope(x - c)
    return weighted(image, r, c, wy, wx, dy, dx)
