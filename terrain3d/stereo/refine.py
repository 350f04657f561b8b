"""Sub-pixel disparity by least-squares matching along the row (Lucas & Kanade 1981), with its own precision.

Every pixel of a window is compared at its own disparity and all share one increment, so slanted surfaces and the far
side of an edge do not pull. Windows differ in gain and offset between the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.spline import row_coefficients

Singles = NDArray[np.float32]
WINDOW, SMALL_WINDOW, LARGE_WINDOW = 7, 5, 11
SMOOTH_RANGE_PX = 2.0  # of the disparities in a large window that holds no edge
LARGEST_MOVE_PX = 0.7
NOISE_SLOPE = 2.5  # power of the slope of noise over its own, mean over the phases of splines done twice
LEAST_SIGNAL = 0.25  # share of the slopes' power: what noise has is known to about a quarter


@dataclass(frozen=True)
class Refined:
    """disparity, sigma_px: (h, w) float32; NaN where the input has none. sigma_px is the precision of the match.

    smooth: where the surface around has no edge and no hole.
    """

    disparity: Singles
    sigma_px: Singles
    smooth: NDArray[np.bool_]


def refine(left: Singles, right: Singles, disparity: Singles, noise: float = 0.0) -> Refined:
    """Refine disparities (h, w; NaN for none) of a rectified pair: left (x) <-> right (x - disparity).

    First with a medium window everywhere, then with a large one on surfaces without edges, where it lowers the noise,
    and a small one elsewhere, where a large one would blur. noise: variance of the right image's; on surfaces without
    edges only slopes beyond those of noise count for the precision.
    """
    start, inner = smooth_between_edges(disparity), row_coefficients(right)
    d = start.copy()
    warped, slope = warp_row(inner, d)
    step, _ = _increment(_products(left, warped, slope), WINDOW)
    d = _moved(d, step, start)
    smooth = _without_edges(d)
    warped, slope = warp_row(inner, d)
    products = _products(left, warped, slope)
    near, near_variance = _increment(products, SMALL_WINDOW)
    far, far_variance = _increment(products, LARGE_WINDOW, noise)
    d = _moved(d, np.where(smooth, far, near), start)
    d = np.where(smooth, smooth_between_edges(d, 2, 0.5), d)
    variance = np.where(smooth, far_variance, near_variance)
    d[~np.isfinite(disparity)] = np.nan
    return Refined(d.astype(np.float32), np.sqrt(variance).astype(np.float32), smooth)


def _moved(disparity: Singles, step: Singles, start: Singles) -> Singles:
    """Disparities after a step, never far from where they started, neighbours of one surface made even."""
    moved = np.clip(disparity + step, start - LARGEST_MOVE_PX, start + LARGEST_MOVE_PX).astype(np.float32)
    return np.asarray(smooth_between_edges(moved, 1))


def _without_edges(disparity: Singles) -> NDArray[np.bool_]:
    """Pixels around which the disparity has a value everywhere and changes no more than a slope does."""
    kernel = np.ones((LARGE_WINDOW, LARGE_WINDOW), np.uint8)
    known = np.isfinite(disparity)
    high = cv2.dilate(np.where(known, disparity, np.float32(1e6)), kernel)
    low = cv2.erode(np.where(known, disparity, np.float32(-1e6)), kernel)
    return np.asarray(high - low < SMOOTH_RANGE_PX)


def _products(left: Singles, warped: Singles, slope: Singles) -> list[Singles]:
    """Where all have a value (1); there the three and their products, 0 elsewhere."""
    ok = (np.isfinite(left) & np.isfinite(warped) & np.isfinite(slope)).astype(np.float32)
    a, b, g = (np.where(ok > 0, values, np.float32(0)) for values in (left, warped, slope))
    return [ok, a, b, g, a * a, b * b, g * g, a * g, b * g, a * b]


def _increment(products: list[Singles], window: int, noise: float = 0.0) -> tuple[Singles, Singles]:
    """Common increment of every window's disparities, and its variance, px and px^2.

    The model is left = gain * right(x - d - step) + offset, and d right / d step = -slope. products: see there. noise:
    variance of the right image's, of which slopes are no signal.
    """
    means = [cv2.blur(a, (window, window), borderType=cv2.BORDER_CONSTANT).ravel() for a in products]
    step, variance = np.empty_like(products[0]), np.empty_like(products[0])
    _solve(*means, np.float32(window), np.float32(noise), step.ravel(), variance.ravel())
    return step, variance


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(
    share: Any, a: Any, b: Any, g: Any, aa: Any, bb: Any, gg: Any, ag: Any, bg: Any, ab: Any, window: Any, power: Any,
    step: Any, variance: Any,
) -> None:  # fmt: skip
    """Increments from the means of ``_products`` over windows, all in single precision."""
    one = np.float32
    for k in range(share.size):
        weight = max(share[k], one(1e-3))
        ma, mb, mg = a[k] / weight, b[k] / weight, g[k] / weight
        va, vb = max(aa[k] / weight - ma * ma, one(1e-3)), max(bb[k] / weight - mb * mb, one(1e-3))
        gain = min(max(np.sqrt(va / vb), one(0.25)), one(4))
        floor = one(0.02) * vb + one(1e-3)  # windows without texture along the row stay where they are
        known = max(gg[k] / weight - mg * mg, one(0)) + floor
        both, along = ab[k] / weight - ma * mb, ag[k] / weight - ma * mg - gain * (bg[k] / weight - mb * mg)
        noise = max(va - one(2) * gain * both + gain * gain * vb, one(0))  # mean squared difference left in the window
        n = max(weight * window * window / one(4), one(1))  # neighbouring pixels share the sensor's blur
        step[k] = min(max(-along / (gain * known), one(-0.4)), one(0.4))
        of_noise = one(NOISE_SLOPE) * min(power, noise / (one(2) * gain * gain))
        signal = max(known - of_noise, one(LEAST_SIGNAL) * known)  # errors in the slopes: Fuller 1987
        variance[k] = noise * known / (gain * gain * signal * signal * n)


@njit(cache=True, nogil=True, error_model="numpy")
def warp_row(right: Any, disparity: Any) -> Any:
    """Right image, given by its ``row_coefficients``, at x - disparity and its derivative by column there: two (h, w)
    arrays, NaN outside."""
    height, width = disparity.shape
    value, slope = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            value[y, x] = np.nan
            slope[y, x] = np.nan
            at = x - disparity[y, x]
            if not (1 <= at < right.shape[1] - 2):
                continue
            i = int(at)
            t = at - i
            a, b, c, d = right[y, i - 1], right[y, i], right[y, i + 1], right[y, i + 2]
            c0, c1 = (a + 4 * b + c) / 6, 0.5 * (c - a)
            c2, c3 = 0.5 * (a + c) - b, (d - a) / 6 + 0.5 * (b - c)
            value[y, x] = c0 + t * (c1 + t * (c2 + t * c3))
            slope[y, x] = c1 + t * (2 * c2 + t * 3 * c3)
    return value, slope


@njit(cache=True, nogil=True, error_model="numpy")
def smooth_between_edges(disparity: Any, radius: int = 2, step_px: float = 1.0) -> Any:
    """Mean over the neighbours within ``step_px`` of the centre; NaN stays NaN."""
    height, width = disparity.shape
    out = np.empty((height, width), np.float32)
    total, count, limit = np.empty(width, np.float32), np.empty(width, np.float32), np.float32(step_px)
    for y in range(height):
        total[:], count[:] = 0, 0
        for v in range(max(y - radius, 0), min(y + radius + 1, height)):
            for u in range(-radius, radius + 1):
                first = max(-u, 0)
                centre, beside, sums, counts = (
                    disparity[y, first:],
                    disparity[v, max(u, 0) :],
                    total[first:],
                    count[first:],
                )
                for x in range(width - abs(u)):
                    near = abs(beside[x] - centre[x]) < limit
                    sums[x] += beside[x] if near else np.float32(0)
                    counts[x] += np.float32(1) if near else np.float32(0)
        for x in range(width):
            out[y, x] = total[x] / count[x] if count[x] > 0 else np.nan
    return out
