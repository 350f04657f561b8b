"""Where surfaces at different depths meet: which one a pixel shows, and which matches there are not to be believed.

Census windows and the smoothness of SGM carry the nearer surface some pixels over its outline. Beside a step two
answers are possible, and a small window that counts only pixels of the same radiance as the one in question (adaptive
support weights, Yoon & Kweon 2006) tells them apart better than the window that found them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.image.spline import row_coefficients
from terrain3d.stats import NMAD_FACTOR
from terrain3d.stereo.refine import warp_row

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

STEP_PX = 1.0  # disparities that differ by more belong to two surfaces
BESIDE_PX = 3  # how far the nearer surface is carried
RADIUS = 2  # of the window that decides
SIMILAR = 3.0  # noise sigmas of radiance over which a neighbour's weight falls to 1/e
CLEARLY = 0.7  # of the farther surface's residual, below which a pixel without a match is given the nearer one
LARGEST_RESIDUAL = 2.0  # mean of the window, noise sigmas: more is no match
GAP_PX = 5  # a void this wide at most parts a surface from the lower one beyond
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Alike:
    """right: the right image brought to the radiometry of the left. noise: 1-sigma of their difference at matches."""

    right: Singles
    noise: float


def bring_alike(left: Singles, right: Singles, disparity: Singles) -> Alike | None:
    """Right image with the gain and offset of the left, from the matches so far; None if there are too few."""
    warped, _ = warp_row(row_coefficients(right), disparity)
    ok = np.isfinite(warped) & np.isfinite(left)
    if ok.sum() < 100:
        return None
    a, b = left[ok], warped[ok]
    middle_a, middle_b = np.median(a), np.median(b)
    gain = np.median(np.abs(a - middle_a)) / max(np.median(np.abs(b - middle_b)), 1e-6)
    noise = NMAD_FACTOR * np.median(np.abs(a - middle_a - gain * (b - middle_b)))
    return Alike(((right - middle_b) * gain + middle_a).astype(np.float32), max(float(noise), 1e-3))


def settle(left: Singles, alike: Alike, sure: Singles, disparity: Singles) -> tuple[Singles, Bools]:
    """Disparities with the pixels beside steps decided anew, and which of them were given another one.

    sure: (h, w) disparities that are trusted, NaN elsewhere; only they say what surfaces there are. disparity: (h, w)
    with the doubtful ones, which stay where nothing is decided.
    """
    low, high = _extremes(sure, BESIDE_PX)
    beside = np.isfinite(left) & (high - low > STEP_PX + 2 * _rise(_unevenness(sure), BESIDE_PX))
    out = disparity.copy()
    given = np.zeros(left.shape, np.bool_)
    _settle(left, alike.right, np.float32(alike.noise), sure, low, high, beside, out, given)
    return out, given


def _extremes(disparity: Singles, radius: int) -> tuple[Singles, Singles]:
    """Lowest and highest disparity in a square window; the lowest above the highest where there is none."""
    kernel = np.ones((2 * radius + 1,) * 2, np.uint8)
    known = np.isfinite(disparity)
    low = cv2.erode(np.where(known, disparity, np.float32(1e6)), kernel)
    return low, cv2.dilate(np.where(known, disparity, np.float32(-1e6)), kernel)


def _unevenness(disparity: Singles) -> Singles:
    """Range of disparities in 3 x 3 pixels, averaged, because whole disparities turn a slope into stairs; large where
    too little is known."""
    low, high = _extremes(disparity, 1)
    known = (low <= high).astype(np.float32)
    share = cv2.blur(known, (5, 5))
    mean = cv2.blur(np.where(known > 0, high - low, np.float32(0)), (5, 5)) / np.maximum(share, 0.01)
    return np.where(share > 0.5, mean, np.float32(1e6))


def _rise(unevenness: Singles, radius: int) -> Singles:
    """Rise over ``radius`` pixels of the evenest surface in a square window: a slope is no step."""
    even = cv2.erode(unevenness, np.ones((2 * radius + 1,) * 2, np.uint8))
    return np.asarray(np.where(even < 1e5, radius / 2 * even, 0), np.float32)


@njit(**_JIT)
def _settle(
    left: Any, right: Any, noise: Any, sure: Any, low: Any, high: Any, beside: Any, out: Any, given: Any
) -> None:
    height, width = left.shape
    for y in range(height):
        for x in range(width):
            if not beside[y, x]:
                continue
            far, near = low[y, x], high[y, x]
            here = sure[y, x]
            of_far, of_near = _surfaces(sure, y, x, far, near)
            cost_far, cost_near = _residuals(left, right, noise, y, x, of_far, of_near)
            half = 0.5 * (near - far)
            if cost_far <= cost_near and cost_far < LARGEST_RESIDUAL:
                if not abs(here - far) < half:
                    out[y, x] = of_far
                    given[y, x] = True
            elif cost_near < LARGEST_RESIDUAL:
                out[y, x] = here
                if np.isnan(here) and cost_near < CLEARLY * cost_far:
                    out[y, x] = of_near
                    given[y, x] = True
            elif abs(here - near) < half:
                out[y, x] = np.nan
            else:
                out[y, x] = here


@njit(inline="always")
def _surfaces(sure: Any, y: int, x: int, far: float, near: float) -> tuple[float, float]:
    """Disparities at a pixel of the surfaces that have ``far`` and ``near`` around it: what is nearest counts most."""
    total_far, weight_far, total_near, weight_near = 0.0, 0.0, 0.0, 0.0
    for v in range(max(y - BESIDE_PX, 0), min(y + BESIDE_PX + 1, sure.shape[0])):
        for u in range(max(x - BESIDE_PX, 0), min(x + BESIDE_PX + 1, sure.shape[1])):
            d = sure[v, u]
            w = 1.0 / (1.0 + (v - y) ** 2 + (u - x) ** 2)
            if abs(d - far) < STEP_PX:
                total_far += w * d
                weight_far += w
            if abs(d - near) < STEP_PX:
                total_near += w * d
                weight_near += w
    return total_far / weight_far, total_near / weight_near


@njit(inline="always")
def _residuals(left: Any, right: Any, noise: float, y: int, x: int, far: float, near: float) -> tuple[float, float]:
    """Mean difference of radiance, noise sigmas, at two disparities over the pixels that look like (x, y)."""
    first_far, first_near = int(np.floor(x - far)), int(np.floor(x - near))
    inside_far = RADIUS <= first_far < right.shape[1] - RADIUS - 1
    inside_near = RADIUS <= first_near < right.shape[1] - RADIUS - 1
    t_far, t_near = x - far - first_far, x - near - first_near
    total_far, weight_far, total_near, weight_near = 0.0, 1e-9, 0.0, 1e-9
    for v in range(max(y - RADIUS, 0), min(y + RADIUS + 1, left.shape[0])):
        for u in range(max(x - RADIUS, 0), min(x + RADIUS + 1, left.shape[1])):
            like = abs(left[v, u] - left[y, x]) / (SIMILAR * noise)
            w = np.exp(-like - ((v - y) ** 2 + (u - x) ** 2) / (2.0 * RADIUS**2))
            if inside_far:
                difference = _difference(left[v, u], right, v, first_far + u - x, t_far) / noise
                if difference >= 0:  # not NaN
                    total_far += w * min(difference, 4.0)
                    weight_far += w
            if inside_near:
                difference = _difference(left[v, u], right, v, first_near + u - x, t_near) / noise
                if difference >= 0:
                    total_near += w * min(difference, 4.0)
                    weight_near += w
    return total_far / weight_far if inside_far else 1e9, total_near / weight_near if inside_near else 1e9


@njit(inline="always")
def _difference(value: float, right: Any, v: int, k: int, t: float) -> float:
    """Size of the difference of a value to that of the right image between columns ``k`` and ``k + 1``."""
    return abs(value - (1 - t) * right[v, k] - t * right[v, k + 1])


# Logarithms of 1 + confidence, residual over texture (3 x 3), residual over noise (5 x 5), and pixels of the same
# surface in 5 x 5: logistic regression on matches beside steps in scenes of known truth.
_SIGNS = np.array([-4.0, 3.6, 1.25, -1.4])
_OFFSET = 2.4


def doubt(left: Singles, alike: Alike, disparity: Singles, confidence: Singles) -> Singles:
    """Probability, 0 to 1, that a match next to a step down, or to a void with lower ground beyond, is not of its
    surface but carried over from it; 0 elsewhere."""
    known = np.isfinite(disparity)
    unevenness = _unevenness(disparity)
    drop_near, drop_far = (
        disparity - _extremes(disparity, radius)[0] - _rise(unevenness, radius) for radius in (BESIDE_PX, GAP_PX)
    )
    void_near = cv2.dilate((~known).astype(np.uint8), np.ones((2 * BESIDE_PX + 1,) * 2, np.uint8)) > 0
    edge = known & ((drop_near > STEP_PX) | (void_near & (drop_far > STEP_PX)))
    warped, _ = warp_row(row_coefficients(alike.right), disparity)
    residual = np.abs(left - warped)
    out = np.zeros(left.shape, np.float32)
    _doubt(left, residual, np.float32(alike.noise), disparity, confidence, edge, _SIGNS, _OFFSET, out)
    return out


@njit(**_JIT)
def _doubt(
    left: Any, residual: Any, noise: float, disparity: Any, confidence: Any, edge: Any, signs: Any, offset: float,
    out: Any,
) -> None:  # fmt: skip
    height, width = left.shape
    for y in range(height):
        for x in range(width):
            if not edge[y, x]:
                continue
            mean, square, count, same = 0.0, 0.0, 0, 0
            wide, n_wide, narrow, n_narrow = 0.0, 0, 0.0, 0
            for v in range(max(y - 2, 0), min(y + 3, height)):
                for u in range(max(x - 2, 0), min(x + 3, width)):
                    if not np.isnan(left[v, u]):
                        mean += left[v, u]
                        square += left[v, u] * left[v, u]
                        count += 1
                    r = residual[v, u]
                    if r >= 0:
                        wide += r
                        n_wide += 1
                        if abs(v - y) < 2 and abs(u - x) < 2:
                            narrow += r
                            n_narrow += 1
                    same += abs(disparity[v, u] - disparity[y, x]) < STEP_PX
            mean /= max(count, 1)
            texture = max(np.sqrt(max(square / max(count, 1) - mean * mean, 0.0)), noise)
            score = (
                offset
                + signs[0] * np.log1p(confidence[y, x])
                + signs[1] * np.log1p(narrow / max(n_narrow, 1) / texture)
                + signs[2] * np.log1p(wide / max(n_wide, 1) / noise)
                + signs[3] * np.log1p(same)
            )
            out[y, x] = 1.0 / (1.0 + np.exp(-score))
