"""The arithmetic of ``sgm`` in plain loops: slow, short, the yardstick that the vector kernel must equal bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from terrain3d.stereo.sgm import OUTSIDE, SgmResult, reversed_right, vertex

_PATHS = np.array([(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)], np.int64)


def match_census_plain(
    left: Any, right: Any, disparities: int, *, p1: Any, p2: Any, left_right_px: int = 1
) -> SgmResult:
    """See ``sgm.match_census``."""
    shape = left.shape
    total = np.zeros((*shape, disparities), np.int64)
    words = reversed_right(right, disparities)
    small, large = (np.ascontiguousarray(np.broadcast_to(np.asarray(p), shape), np.int64) for p in (p1, p2))
    for dy, dx in _PATHS:
        _aggregate(left, words, dy, dx, small, large, disparities, total)
    result = SgmResult(
        np.empty(shape, np.int16), np.empty(shape, np.float32), np.empty(shape, np.uint16), np.empty(shape, np.uint16)
    )
    _choose(left, words, total, left_right_px, result.integer, result.disparity, result.best, result.second)
    return result


@njit(cache=True)
def _bits(word: Any) -> int:
    count = 0
    while word:
        word &= word - np.uint32(1)
        count += 1
    return count


@njit(cache=True)
def _cost(left: Any, words: Any, y: int, x: int, d: int) -> int:
    return _bits(left[y, x] ^ words[y, left.shape[1] - 1 - x + d])


@njit(cache=True)
def _aggregate(left: Any, words: Any, dy: int, dx: int, p1: Any, p2: Any, disparities: int, total: Any) -> None:
    height, width = left.shape
    path = np.zeros((height, width, disparities), np.int64)
    for i in range(height):
        y = height - 1 - i if dy > 0 or (dy == 0 and dx > 0) else i
        for j in range(width):
            x = width - 1 - j if dy > 0 or (dy == 0 and dx > 0) else j
            py, px = y + dy, x + dx
            inside = 0 <= py < height and 0 <= px < width
            low = path[py, px].min() if inside else 0
            for d in range(disparities):
                here = path[py, px, d] if inside else 0
                below = (path[py, px, d - 1] if inside else 0) if d > 0 else OUTSIDE
                above = (path[py, px, d + 1] if inside else 0) if d < disparities - 1 else OUTSIDE
                smooth = min(here, min(below, above) + p1[y, x], low + p2[y, x]) - low
                path[y, x, d] = smooth + _cost(left, words, y, x, d)
                total[y, x, d] += smooth


@njit(cache=True)
def _choose(
    left: Any, words: Any, total: Any, tolerance: int, integer: Any, disparity: Any, best: Any, second: Any
) -> None:
    height, width, disparities = total.shape
    for y in range(height):
        best_right = np.full(width + disparities, -1, np.int64)
        low_right = np.full(width + disparities, 1 << 40, np.int64)
        for x in range(width):
            for d in range(disparities):
                total[y, x, d] += _cost(left, words, y, x, d)
        for x in range(width):
            for d in range(disparities):
                k = width - 1 - x + d
                tagged = total[y, x, d] * 65536 + d
                if tagged < low_right[k]:
                    low_right[k], best_right[k] = tagged, d
        for x in range(width):
            t = total[y, x]
            d = int(np.argmin(t))
            offset = vertex(t[d - 1], t[d], t[d + 1]) if 0 < d < disparities - 1 else 0.0
            other = 65535
            for k in range(disparities):
                if abs(k - d) > 1:
                    other = min(other, t[k])
            disparity[y, x], best[y, x], second[y, x] = np.float32(d + offset), t[d], other
            integer[y, x] = d if abs(d - best_right[width - 1 - x + d]) <= tolerance else -1
