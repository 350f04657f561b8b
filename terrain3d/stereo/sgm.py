"""Semi-global matching (Hirschmueller 2008) of census words along eight paths, on explicit vectors.

Two sweeps of four directions with line buffers only; costs come from the census words on the fly and are never
stored. The over-counted data term is taken out of the sum (Drory et al. 2014): S = sum of L_r - 7 C. ``sgm_plain``
is the same arithmetic in plain loops and must give the same bits.

Disparity d: left pixel x is the same point as right pixel x - d, d = 0 .. disparities - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, uint8, uint16, uint32, uintp
from numpy.typing import NDArray

from terrain3d.stereo import simd as v
from terrain3d.stereo.census import CENSUS_BITS, INVALID

OUTSIDE = 200  # path cost of disparities beyond the range: more than any path can have, and no overflow with P1
MAX_P2 = (255 - CENSUS_BITS) // 4
_JIT: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


@dataclass(frozen=True)
class SgmResult:
    """Per left pixel, (h, w): integer disparity (-1 where left and right disagree), sub-pixel disparity (float32),
    aggregated cost of the best disparity and of the best one that is not its neighbour (uint16)."""

    integer: NDArray[np.int16]
    disparity: NDArray[np.float32]
    best: NDArray[np.uint16]
    second: NDArray[np.uint16]


class SgmBuffers:
    """Memory that is kept from tile to tile by one thread."""

    def __init__(self) -> None:
        self._sums = np.empty(0, np.uint8)

    def sums(self, size: int) -> NDArray[np.uint8]:
        if self._sums.size < size:
            self._sums = np.empty(size, np.uint8)
        return self._sums


def padded_disparities(wanted: int) -> int:
    """Disparities that the kernel works on: the next multiple of its vector length."""
    return -(-max(wanted, 1) // v.LANES) * v.LANES


def reversed_right(right: NDArray[np.uint32], disparities: int) -> NDArray[np.uint32]:
    """Right words with columns reversed, so that rising disparity is rising memory, and padded with INVALID."""
    height, width = right.shape
    out = np.full((height, width + disparities), INVALID, np.uint32)
    out[:, :width] = right[:, ::-1]
    return out


def match_census(
    left: NDArray[np.uint32],
    right: NDArray[np.uint32],
    disparities: int,
    *,
    p1: Any,
    p2: Any,
    left_right_px: int = 1,
    buffers: SgmBuffers | None = None,
) -> SgmResult:
    """Match two (h, w) census images over ``disparities`` (a multiple of 64) integer disparities.

    p1, p2: penalties of a disparity step of one, and of more, in bits, into each pixel: (h, w) or one figure;
    p1 < p2 <= MAX_P2.
    left_right_px: largest difference between the disparities seen from the left and from the right.
    """
    height, width = left.shape
    small, large = (np.broadcast_to(np.asarray(p), left.shape) for p in (p1, p2))
    if disparities % v.LANES or small.min() <= 0 or (small >= large).any() or large.max() > MAX_P2:
        raise ValueError(f"disparities {disparities} must be a multiple of {v.LANES}, and 0 < p1 < p2 <= {MAX_P2}")
    result = SgmResult(
        np.empty((height, width), np.int16),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.uint16),
        np.empty((height, width), np.uint16),
    )
    sums = (buffers or SgmBuffers()).sums(height * width * disparities)
    _sgm(
        np.ascontiguousarray(left), reversed_right(right, disparities), np.ascontiguousarray(small, np.uint8),
        np.ascontiguousarray(large, np.uint8), disparities, left_right_px, sums,
        result.integer, result.disparity, result.best, result.second,
    )  # fmt: skip
    return result


@njit(inline="always", **_JIT)
def _step(previous: int, here: int, cost: Any, low: Any, jump: Any, p1: Any) -> Any:
    """One step of a path: L(d) = C(d) + min(L'(d), L'(d +- 1) + P1, min L' + P2) - min L', stored at ``here``."""
    beside = v.add8(v.min8(v.load8(previous - uintp(1)), v.load8(previous + uintp(1))), p1)
    value = v.add8(v.sub8(v.min8(v.min8(v.load8(previous), beside), jump), low), cost)
    v.store8(here, value)
    return value


@njit(inline="always", **_JIT)
def vertex(below: int, best: int, above: int) -> float:
    """Offset of the minimum between integer disparities by the equiangular fit, -0.5 to 0.5."""
    left, right = below - best, above - best
    largest = max(left, right)
    return 0.5 * (left - right) / largest if largest > 0 else 0.0


@njit(cache=True, **_JIT)
def _sgm(
    left: Any, right: Any, small: Any, large: Any, disparities: int, left_right_px: int,
    sums: Any, integer: Any, disparity: Any, best: Any, second: Any,
) -> None:  # fmt: skip
    height, width = left.shape
    pitch = disparities + 64  # one pixel's path costs with a margin of 32 on both sides
    line = (width + 2) * pitch
    paths = np.empty((6, line), np.uint8)  # three directions, previous and present line
    lows = np.zeros((2, 4 * (width + 2)), np.uint8)
    along = np.empty((2, pitch), np.uint8)  # the direction along the line
    total = np.empty(disparities + 2 * 64, np.uint16)
    best_right = np.empty(width + disparities, np.uint32)
    found = np.empty(width, np.int64)
    a_sums, a_right = uintp(sums.ctypes.data), uintp(right.ctypes.data)
    a_total, a_best_right = uintp(total.ctypes.data) + uintp(128), uintp(best_right.ctypes.data)
    u_pitch, u_disparities = uintp(pitch), uintp(disparities)
    for sweep in range(2):
        paths[:] = OUTSIDE
        lows[:] = 0
        for k in range(6):
            for x in range(width + 2):
                paths[k, x * pitch + 32 : x * pitch + 32 + disparities] = 0
        flip = 0
        back = 1 if sweep else -1  # neighbour that this sweep has already passed
        u_back = u_pitch if sweep else uintp(-pitch)
        for step in range(height):
            y = height - 1 - step if sweep else step
            along[:] = OUTSIDE
            along[0, 32 : 32 + disparities] = 0
            low0 = uint8(0)
            base = uintp(paths.ctypes.data) + uintp(32)
            from1, to1 = base + uintp(flip * line), base + uintp((1 - flip) * line)
            from2, to2 = base + uintp((2 + flip) * line), base + uintp((3 - flip) * line)
            from3, to3 = base + uintp((4 + flip) * line), base + uintp((5 - flip) * line)
            from0 = uintp(along.ctypes.data) + uintp(32)
            to0 = from0 + u_pitch
            low_from, low_to = lows[flip], lows[1 - flip]
            if sweep:
                best_right[:] = uint32(0xFFFFFFFF)
            for column in range(width):
                x = width - 1 - column if sweep else column
                b = x + 1
                u_here = uintp(b * pitch)
                word, p2, v_p1 = left[y, x], large[y, x], v.splat8(small[y, x])
                a_words = a_right + uintp((y * (width + disparities) + (width - 1 - x)) * 4)
                low1, low2, low3 = low_from[(b + back) * 4 + 1], low_from[b * 4 + 2], low_from[(b - back) * 4 + 3]
                v_low0, v_low1, v_low2, v_low3 = v.splat8(low0), v.splat8(low1), v.splat8(low2), v.splat8(low3)
                v_jump0, v_jump1 = v.splat8(uint8(low0 + p2)), v.splat8(uint8(low1 + p2))
                v_jump2, v_jump3 = v.splat8(uint8(low2 + p2)), v.splat8(uint8(low3 + p2))
                new0 = v.splat8(uint8(255))
                new1, new2, new3 = new0, new0, new0
                a_sum = a_sums + uintp((y * width + x) * disparities)
                v_best = v.splat32(uint32(0xFFFFFFFF))
                d = uintp(0)
                while d < u_disparities:
                    cost = v.hamming(a_words + d * uintp(4), word)
                    e = u_here + d
                    r0 = _step(from0 + d, to0 + d, cost, v_low0, v_jump0, v_p1)
                    r1 = _step(from1 + e + u_back, to1 + e, cost, v_low1, v_jump1, v_p1)
                    r2 = _step(from2 + e, to2 + e, cost, v_low2, v_jump2, v_p1)
                    r3 = _step(from3 + e - u_back, to3 + e, cost, v_low3, v_jump3, v_p1)
                    new0, new1 = v.min8(new0, r0), v.min8(new1, r1)
                    new2, new3 = v.min8(new2, r2), v.min8(new3, r3)
                    twice = v.add8(cost, cost)
                    four = v.sub8(v.add8(v.add8(r0, r1), v.add8(r2, r3)), v.add8(twice, twice))
                    if sweep:
                        # the first sweep kept one cost, so the two together lack exactly seven
                        s = v.add16(v.widen(four), v.widen(v.load8(a_sum + d)))
                        v.store16(a_total + d * uintp(2), s)
                        tagged = v.tag_with_index(s, uint32(d))
                        v_best = v.min32(v_best, tagged)
                        a_r = a_best_right + (uintp(width - 1 - x) + d) * uintp(4)
                        v.store32(a_r, v.min32(v.load32(a_r), tagged))
                    else:
                        v.store8(a_sum + d, v.add8(four, cost))
                    d += uintp(64)
                low0 = v.reduce8(new0)
                low_to[b * 4 + 1], low_to[b * 4 + 2], low_to[b * 4 + 3] = (
                    v.reduce8(new1),
                    v.reduce8(new2),
                    v.reduce8(new3),
                )
                swap = from0
                from0 = to0
                to0 = swap
                if sweep:
                    tag = v.reduce32(v_best)
                    d_best, s_best = np.int64(tag & uint32(0xFFFF)), np.int64(tag >> uint32(16))
                    at = 64 + d_best
                    offset = 0.0
                    if 0 < d_best < disparities - 1:
                        offset = vertex(np.int64(total[at - 1]), s_best, np.int64(total[at + 1]))
                    total[at - 1], total[at], total[at + 1] = uint16(0xFFFF), uint16(0xFFFF), uint16(0xFFFF)
                    v_second = v.load16(a_total)
                    d = uintp(64)
                    while d < u_disparities:
                        v_second = v.min16(v_second, v.load16(a_total + d * uintp(2)))
                        d += uintp(64)
                    found[x] = d_best
                    disparity[y, x] = np.float32(d_best + offset)
                    best[y, x] = uint16(s_best)
                    second[y, x] = v.reduce16(v_second)
            if sweep:
                for x in range(width):
                    other = np.int64(best_right[width - 1 - x + found[x]] & uint32(0xFFFF))
                    integer[y, x] = np.int16(found[x]) if abs(found[x] - other) <= left_right_px else np.int16(-1)
            flip = 1 - flip
