"""Least-squares matching of small image patches, between cameras that are nearly known.

Gruen (1985), with the shape that two cameras leave open: a patch of ground is a plane, so apart from its place only the
two slopes of the plane are free, and these act along the epipolar line alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.cubic import cubic
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
def _match(template, offset, image, start, shape, epipolar, half, out):  # type: ignore[no-untyped-def]
    size = 2 * half + 1
    middle = template.shape[1] // 2
    wanted = np.empty((size, size))
    normal, right, found = np.empty((6, 6)), np.empty(6), np.empty(4)
    move, slope = np.empty(2), np.empty(2)
    for n in range(len(template)):
        mean, spread = _normalized(template[n], middle + offset[n, 0] - half, middle + offset[n, 1] - half, wanted)
        if not spread > 0.0:
            continue
        move[:] = 0.0
        slope[:] = 0.0
        gain, level = 1.0, mean
        converged = False
        for _ in range(MAX_TURNS):
            _equations(
                wanted, image[n], start[n] + middle + move, shape[n], epipolar[n], slope, gain, level,
                normal, right, found,
            )  # fmt: skip
            if not np.isfinite(found[0]) or normal[0, 0] <= 0.0 or normal[1, 1] <= 0.0:  # void, or flat: saturated
                break
            variance = found[0] / (size**2 - 6) + 1e-12
            for k in range(2):  # slopes of which the patch tells little stay small
                keep = variance / SLOPE_SIGMA_PX**2
                right[2 + k] -= keep * slope[k]
                normal[2 + k, 2 + k] += keep
            for k in range(6):
                normal[k, k] *= 1.0 + 1e-9
            step = np.linalg.solve(normal, right)
            move += step[:2]
            slope += step[2:4]
            gain += step[4]
            level += step[5]
            if not np.abs(move).max() < MAX_MOVE_PX or np.abs(slope).max() > MAX_SLOPE_PX:
                break
            if np.abs(step[:2]).max() < CONVERGED_PX:
                converged = True
                break
        if converged:
            count = size**2
            deviation = np.sqrt(max(found[3] / count - (found[2] / count) ** 2, 1e-12))
            out[0, n], out[1, n] = move
            out[2, n] = found[1] / count / (spread * deviation)


@njit(cache=True, nogil=True, error_model="numpy")
def _normalized(patch, top, left, wanted):  # type: ignore[no-untyped-def]
    """Put the window at (top, left), less its mean, into ``wanted``; its mean and deviation, NaN if it lacks pixels."""
    mean = spread = 0.0
    size = len(wanted)
    for i in range(size):
        for j in range(size):
            wanted[i, j] = cubic(patch, top + i, left + j)[0]
            mean += wanted[i, j]
    mean /= size * size
    for i in range(size):
        for j in range(size):
            wanted[i, j] -= mean
            spread += wanted[i, j] ** 2
    return mean, np.sqrt(spread / size**2)


@njit(cache=True, nogil=True, error_model="numpy")
def _equations(wanted, image, centre, a, e, slope, gain, level, normal, right, found):  # type: ignore[no-untyped-def]
    """Normal equations of move (2), slopes (2), gain and level; into ``found`` sums over the window: squared residuals,
    wanted times found, found, found squared."""
    size = len(wanted)
    half = size // 2
    row = np.empty(6)
    normal[:] = 0.0
    right[:] = 0.0
    found[:] = 0.0
    for i in range(size):
        for j in range(size):
            y, x = float(i - half), float(j - half)
            s = slope[0] * y + slope[1] * x
            value, gy, gx = cubic(
                image,
                a[0, 0] * y + a[0, 1] * x + e[0] * s + centre[0],
                a[1, 0] * y + a[1, 1] * x + e[1] * s + centre[1],
            )
            # gain and level stand on the side of the template, whose values have no part in the derivatives
            r = gain * wanted[i, j] + level - value
            along = gy * e[0] + gx * e[1]
            row[0], row[1], row[2], row[3] = gy, gx, along * y, along * x
            row[4], row[5] = -wanted[i, j], -1.0
            for k in range(6):
                right[k] += row[k] * r
                for m in range(k, 6):
                    normal[k, m] += row[k] * row[m]
            found[0] += r * r
            found[1] += wanted[i, j] * value
            found[2] += value
            found[3] += value * value
    for k in range(6):
        for m in range(k):
            normal[k, m] = normal[m, k]
