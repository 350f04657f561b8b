"""A surface model on coarser cells: the surface that fills most of a cell, so that an edge stays an edge.

Within a coarse cell the slope is the median of the steps from fine cell to fine cell that are no walls. What is
left without it has a weighted median, which says which surface the cell belongs to; the mean of the fine cells that
agree with it is the height at the centre. A mean of all cells would be a height between roof and ground where neither
is.
"""

from __future__ import annotations

from math import erfc
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.surface.mask import MaskCode

Singles = NDArray[np.float32]
Codes = NDArray[np.uint8]

AGREE_M = 0.75  # fine cells this near to the median are the same surface
AGREE_CELLS = 0.1  # the same as a share of the coarse cell, for relief within large ones
STEEPEST = 1.5  # metres a metre; a step from cell to cell that is steeper is a wall
EDGE_M = 0.5  # 1-sigma of where walls and rims lie, which may give a block to another surface
LEAST_DOUBT = 0.02  # of the share of a block that a surface fills
CODES = len(MaskCode)


def coarse_surface(
    height: Singles, sigma: Singles, mask: Codes, fold: int, resolution: float, alike: float
) -> tuple[Singles, Singles, Codes]:
    """Height, its 1-sigma and mask code of blocks of ``fold`` x ``fold`` cells, (h / fold, w / fold).

    height, sigma: metres, (h, w), multiples of ``fold``; NaN for none. mask: as ``MaskCode``; a block has that of most
    of the cells that make its height. resolution: of the fine cells, metres. alike: sigma of the mean of the cells of a
    block over that of one of them, 1 where errors are all the same. The sigma is that of the height of the surface that
    fills most of the block, with the chance that it is another one where two fill nearly as much. Fine cells that are
    uncertain by metres have little say.
    """
    rows, columns = height.shape[0] // fold, height.shape[1] // fold
    z, spread = (np.full((rows, columns), np.nan, np.float32) for _ in range(2))
    codes = np.zeros((rows, columns), np.uint8)
    agree, wall = max(AGREE_M, AGREE_CELLS * fold * resolution), max(AGREE_M, STEEPEST * resolution)
    _coarse(height, sigma, mask, fold, agree, wall, EDGE_M / resolution, alike, z, spread, codes)
    return z, spread, codes


@njit(cache=True, nogil=True, error_model="numpy")
def _coarse(
    height: Any, sigma: Any, mask: Any, fold: int, agree: float, wall: float, edge: float, alike: float, z: Any,
    spread: Any, codes: Any,
) -> None:  # fmt: skip
    rest, weight, error = np.empty(fold * fold), np.empty(fold * fold), np.empty(fold * fold)
    code = np.empty(fold * fold, np.uint8)
    half = 0.5 * (fold - 1)
    for y in range(z.shape[0]):
        for x in range(z.shape[1]):
            block = height[y * fold : (y + 1) * fold, x * fold : (x + 1) * fold]
            down, right, jumps = _steps(block, wall)
            n = 0
            for i in range(fold):
                for j in range(fold):
                    if not np.isfinite(block[i, j]):
                        continue
                    s = sigma[y * fold + i, x * fold + j]
                    rest[n] = block[i, j] - down * (i - half) - right * (j - half)
                    error[n] = s if np.isfinite(s) else 1.0
                    weight[n] = 1.0 / (1.0 + error[n] ** 2)
                    code[n] = mask[y * fold + i, x * fold + j]
                    n += 1
            if n > 0:
                unsure = 1.0 - weight[:n].sum() / n
                doubt = max(np.hypot(edge * jumps / n, 0.5 * unsure), LEAST_DOUBT)
                z[y, x], spread[y, x], codes[y, x] = _one(
                    rest[:n], error[:n], weight[:n], code[:n], agree, doubt, alike
                )  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _steps(block: Any, wall: float) -> tuple[float, float, int]:
    """Median of the steps from cell to cell, down and to the right, that are no walls, and how many are."""
    fold = block.shape[0]
    down, right = np.empty(fold * fold), np.empty(fold * fold)
    n, m, walls = 0, 0, 0
    for i in range(fold):
        for j in range(fold):
            if i + 1 < fold:
                step = block[i + 1, j] - block[i, j]
                walls += abs(step) > wall
                if abs(step) <= wall:
                    down[n] = step
                    n += 1
            if j + 1 < fold:
                step = block[i, j + 1] - block[i, j]
                walls += abs(step) > wall
                if abs(step) <= wall:
                    right[m] = step
                    m += 1
    return (np.median(down[:n]) if n > 0 else 0.0), (np.median(right[:m]) if m > 0 else 0.0), walls


@njit(nogil=True, error_model="numpy")
def _one(
    rest: Any, error: Any, weight: Any, code: Any, agree: float, doubt: float, alike: float
) -> tuple[float, float, int]:
    """Height, sigma and code of one block from its cells without their slope. doubt: 1-sigma of the shares of its
    surfaces, which move the median from one to the other."""
    order = np.argsort(rest)
    all_weight, run, centre = weight.sum(), 0.0, rest[order[-1]]
    for k in order:
        run += weight[k] / all_weight
        if run >= 0.5:
            centre = rest[k]
            break
    total, mean, square, other, run = 0.0, 0.0, 0.0, 0.0, 0.0
    votes = np.zeros(CODES)
    for k in order:
        d, share = rest[k] - centre, weight[k] / all_weight
        if abs(d) <= agree:
            total += share
            mean += share * d
            square += share * error[k] ** 2
            votes[min(code[k], CODES - 1)] += share
        else:
            other += d * d * (_below((run + share - 0.5) / doubt) - _below((run - 0.5) / doubt))
        run += share
    return centre + mean / total, np.sqrt(alike**2 * square / total + other), int(np.argmax(votes))


@njit(nogil=True, error_model="numpy")
def _below(deviations: float) -> float:
    """Chance of a normal variable to lie below so many sigmas."""
    return 0.5 * erfc(-deviations / np.sqrt(2.0))
