"""Cubic convolution of four neighbours a side (Keys 1981, a = -1/2), for compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(inline="always")
def keys(t: float) -> tuple[float, float, float, float]:
    """Weights of four samples at -1, 0, 1, 2 for a position t in [0, 1)."""
    t2, t3 = t * t, t * t * t
    return -0.5 * t + t2 - 0.5 * t3, 1 - 2.5 * t2 + 1.5 * t3, 0.5 * t + 2 * t2 - 1.5 * t3, 0.5 * (t3 - t2)


@njit(inline="always")
def keys_slope(t: float) -> tuple[float, float, float, float]:
    """Derivatives of the weights."""
    return (
        0.5 * (4 * t - 3 * t * t - 1), 0.5 * t * (9 * t - 10), 0.5 * (8 * t - 9 * t * t + 1), 0.5 * t * (3 * t - 2),
    )  # fmt: skip


@njit(inline="always")
def weighted(image: Any, r: int, c: int, wy: Any, wx: Any, dy: Any, dx: Any) -> tuple[float, float, float]:
    """Sum of sixteen samples around row r and column c by weights of rows and columns, and its derivatives by those."""
    value = by_y = by_x = 0.0
    for k in range(4):
        across = slope = 0.0
        for m in range(4):
            p = image[r - 1 + k, c - 1 + m]
            across += wx[m] * p
            slope += dx[m] * p
        value += wy[k] * across
        by_y += dy[k] * across
        by_x += wy[k] * slope
    return value, by_y, by_x


@njit(cache=True, nogil=True, error_model="numpy")
def cubic(image: Any, y: float, x: float) -> tuple[float, float, float]:
    """Value of an image (h, w) at row y and column x and its derivatives by y and x; NaN outside."""
    r, c = int(np.floor(y)), int(np.floor(x))
    if r < 1 or c < 1 or r > image.shape[0] - 3 or c > image.shape[1] - 3:
        return np.nan, np.nan, np.nan
    wy, wx, dy, dx = keys(y - r), keys(x - c), keys_slope(y - r), keys_slope(x - c)
    return weighted(image, r, c, wy, wx, dy, dx)
