"""Least-squares matching of small image patches, between cameras that are nearly known.

Gruen (1985), with the shape that two cameras leave open: a patch of ground is a plane, so apart from its place only the
two slopes of the plane are free, and these act along the epipolar line alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.view import View
from terrain3d.io.images import read_window

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

READ_PX = 1024
MARGIN_PX = 5  # around a window for moves, slopes and interpolation
MAX_TURNS = 25
CONVERGED_PX = 0.005
MAX_MOVE_PX = 3.0
MAX_SLOPE_PX = 1.0
SLOPE_SIGMA_PX = 0.3


@dataclass(frozen=True)
class PatchMatch:
    """line, sample: (N,) places in the second view, px; NaN where nothing converged. likeness: (N,) normalized
    cross-correlation there."""

    line: Floats
    sample: Floats
    likeness: Floats


def cut_patches(view: View, line: Floats, sample: Floats, half: int) -> Singles:
    """Pixels around the nearest pixel of places, (N, 2 half + 1, 2 half + 1), NaN outside the image.

    The image is read once, block by block.
    """
    size = 2 * half + 1
    out = np.full((len(line), size, size), np.nan, np.float32)
    row, column = np.rint(line).astype(np.int64), np.rint(sample).astype(np.int64)
    block = np.stack([row // READ_PX, column // READ_PX], axis=-1)
    for key in np.unique(block, axis=0):
        mine = np.flatnonzero((block == key).all(axis=1))
        top, left = row[mine].min() - half, column[mine].min() - half
        window = read_window(
            view.image, int(top), int(left),
            int(row[mine].max() - top + half + 1), int(column[mine].max() - left + half + 1),
        )  # fmt: skip
        views = np.lib.stride_tricks.sliding_window_view(window, (size, size))
        out[mine] = views[row[mine] - half - top, column[mine] - half - left]
    return out


def match_patches(
    template: Singles, at: Floats, image: Singles, start: Floats, shape: Floats, epipolar: Floats, half: int
) -> PatchMatch:
    """Move ``start`` (N, 2) line, sample in the second view onto what lies at ``at`` (N, 2) in the first.

    template, image: (N, S, S) patches about the nearest pixels of both, S at least 2 (half + MARGIN_PX) + 1.
    shape: (N, 2, 2) change of the place in the second view by that in the first, on level ground. epipolar: (N, 2) unit
    direction in the second view in which height moves a point. half: of the window that is compared, px.
    """
    out = np.full((3, len(at)), np.nan)
    _match(
        template, at - np.rint(at), image, start - np.rint(start), np.ascontiguousarray(shape),
        np.ascontiguousarray(epipolar), half, out,
    )  # fmt: skip
    return PatchMatch(start[:, 0] + out[0], start[:, 1] + out[1], out[2])


@njit(cache=True, nogil=True, error_model="numpy")
def _keys(t: float) -> tuple[float, float, float, float]:
    """Weights of four neighbours at t, 0 to 1 between the middle two (Keys 1981)."""
    return (
        0.5 * t * (2 * t - t * t - 1), 0.5 * (t * t * (3 * t - 5) + 2), 0.5 * t * (4 * t - 3 * t * t + 1),
        0.5 * t * t * (t - 1),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _keys_slope(t: float) -> tuple[float, float, float, float]:
    """Derivatives of the weights."""
    return (
        0.5 * (4 * t - 3 * t * t - 1), 0.5 * t * (9 * t - 10), 0.5 * (8 * t - 9 * t * t + 1), 0.5 * t * (3 * t - 2),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def cubic(image: Any, y: float, x: float) -> tuple[float, float, float]:
    """Value and derivatives by y and x of cubic interpolation; NaN outside."""
    r, c = int(np.floor(y)), int(np.floor(x))
    if r < 1 or c < 1 or r > image.shape[0] - 3 or c > image.shape[1] - 3:
        return np.nan, np.nan, np.nan
    wy, wx, dy, dx = _keys(y - r), _keys(x - c), _keys_slope(y - r), _keys_slope(x - c)
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
def _match(template, offset, image, start, shape, epipolar, half, out):  # type: ignore[no-untyped-def]
    size = 2 * half + 1
    middle = template.shape[1] // 2
    wanted = np.empty((size, size))
    normal, right = np.empty((6, 6)), np.empty(6)
    row = np.empty(6)
    for n in range(len(template)):
        mean = 0.0
        for i in range(size):
            for j in range(size):
                wanted[i, j] = cubic(template[n], middle + offset[n, 0] + i - half, middle + offset[n, 1] + j - half)[0]
                mean += wanted[i, j]
        mean /= size * size
        if not np.isfinite(mean):
            continue
        spread = 0.0
        for i in range(size):
            for j in range(size):
                wanted[i, j] -= mean
                spread += wanted[i, j] ** 2
        spread = np.sqrt(spread / size**2)
        if spread <= 0.0:
            continue
        move_y = move_x = slope_y = slope_x = 0.0
        gain, level = 1.0, mean
        a, e = shape[n], epipolar[n]
        converged = False
        for _ in range(MAX_TURNS):
            normal[:] = 0.0
            right[:] = 0.0
            squares = cross = found = found2 = 0.0
            for i in range(size):
                for j in range(size):
                    y, x = float(i - half), float(j - half)
                    s = slope_y * y + slope_x * x
                    ty = a[0, 0] * y + a[0, 1] * x + e[0] * s + move_y + start[n, 0] + middle
                    tx = a[1, 0] * y + a[1, 1] * x + e[1] * s + move_x + start[n, 1] + middle
                    value, gy, gx = cubic(image[n], ty, tx)
                    # gain and level stand on the side of the template, whose values have no part in the derivatives
                    r = gain * wanted[i, j] + level - value
                    along = gy * e[0] + gx * e[1]
                    row[0], row[1], row[2], row[3] = gy, gx, along * y, along * x
                    row[4], row[5] = -wanted[i, j], -1.0
                    for k in range(6):
                        right[k] += row[k] * r
                        for m in range(k, 6):
                            normal[k, m] += row[k] * row[m]
                    squares += r * r
                    cross += wanted[i, j] * value
                    found += value
                    found2 += value * value
            if not np.isfinite(squares) or normal[0, 0] <= 0.0 or normal[1, 1] <= 0.0:  # void, or flat: saturated
                break
            for k in range(6):
                for m in range(k):
                    normal[k, m] = normal[m, k]
            variance = squares / (size**2 - 6) + 1e-12
            # slopes of which the patch tells little stay small
            for k in (2, 3):
                keep = variance / SLOPE_SIGMA_PX**2
                right[k] -= keep * (slope_y if k == 2 else slope_x)
                normal[k, k] += keep
            for k in range(6):
                normal[k, k] *= 1.0 + 1e-9
            step = np.linalg.solve(normal, right)
            move_y += step[0]
            move_x += step[1]
            slope_y += step[2]
            slope_x += step[3]
            gain += step[4]
            level += step[5]
            if not (abs(move_y) < MAX_MOVE_PX and abs(move_x) < MAX_MOVE_PX):
                break
            if abs(slope_y) > MAX_SLOPE_PX or abs(slope_x) > MAX_SLOPE_PX:
                break
            if abs(step[0]) < CONVERGED_PX and abs(step[1]) < CONVERGED_PX:
                converged = True
                break
        if converged:
            count = size**2
            out[0, n], out[1, n] = move_y, move_x
            out[2, n] = cross / count / (spread * np.sqrt(max(found2 / count - (found / count) ** 2, 1e-12)))
