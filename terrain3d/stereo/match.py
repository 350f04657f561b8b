"""Matching of a rectified pair of images: penalties by texture, SGM, what is trusted of it, and the sub-pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.stereo.census import census, whole_windows
from terrain3d.stereo.denoise import denoised
from terrain3d.stereo.edges import bring_alike, doubt, settle
from terrain3d.stereo.refine import refine
from terrain3d.stereo.sgm import MAX_P2, SgmBuffers, match_census

Singles = NDArray[np.float32]

P1, P2 = 5.0, 16.0  # penalties at pixels of the tile's median texture, bits
TEXTURE_POWER = 0.5  # smooth areas lend on their neighbours, textured ones stand for themselves
UPHOLD = 7  # of eight directions: so many with a confirmed pixel of the same surface, and none with one of another,
UPHOLD_PX = 5  # so near at most, stand in for the other image
SPECKLE_PX = 20  # smaller islands of disparity are mismatches
SIGMA_FLOOR_PX = 0.1
DISTINCT_BITS = 64  # lead of the best disparity over its rivals, summed over the paths, that leaves no doubt
MIN_CONFIDENCE = 0.3  # below it, and not on a smooth surface, about half of the points are wrong
UNPOLISHED_SIGMA_PX = 0.3
LARGEST_DOUBT = 0.25  # beside a step; a void there is filled from the lower side, which is where it belongs


@dataclass(frozen=True)
class ImageMatch:
    """Per left pixel, (h, w) float32: disparity (px, NaN where there is none to be trusted), its 1-sigma (px), and the
    confidence of the match, 0 to 1."""

    disparity: Singles
    sigma_px: Singles
    confidence: Singles


def match_images(
    left: Singles, right: Singles, disparities: int, buffers: SgmBuffers | None = None, *, polish: bool = True
) -> ImageMatch:
    """Match two rectified images (h, w; NaN for no value): left (x) <-> right (x - d), 0 <= d < disparities.

    disparities: a multiple of 64. polish: refine to sub-pixel by least squares.
    """
    p1, p2 = penalties(left)
    (plain_left, _), (plain_right, noise) = denoised(left), denoised(right)
    found = match_census(census(plain_left), census(plain_right), disparities, p1=p1, p2=p2, buffers=buffers)
    lead = found.second.astype(np.float32) - found.best
    confidence = np.clip(lead / DISTINCT_BITS, 0, 1).astype(np.float32)
    sure = confidence > MIN_CONFIDENCE
    disparity = trusted(found.integer, found.disparity, left, right)
    sigma_px = np.full(disparity.shape, UNPOLISHED_SIGMA_PX, np.float32)
    if polish:
        believed = np.where(sure, disparity, np.float32(np.nan))
        alike = bring_alike(left, right, believed)
        if alike is not None:
            disparity, given = settle(left, alike, believed, disparity)
            sure |= given
        polished = refine(left, right, disparity, noise)
        disparity, sigma_px = polished.disparity, np.maximum(polished.sigma_px, SIGMA_FLOOR_PX)
        sure |= polished.smooth
        if alike is not None:
            sure &= doubt(left, alike, disparity, confidence) < LARGEST_DOUBT
    sure &= np.isfinite(sigma_px)
    return ImageMatch(np.where(sure, disparity, np.float32(np.nan)), sigma_px, confidence)


def penalties(image: Singles) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Penalties of every pixel: high where there is little texture against the tile's median, low where much."""
    valid = np.isfinite(image)
    if not valid.any():
        return np.full(image.shape, int(P1), np.uint8), np.full(image.shape, int(P2), np.uint8)
    values = np.where(valid, image, np.float32(np.median(image[valid])))
    mean = cv2.blur(values, (5, 5))
    deviation = np.sqrt(np.maximum(cv2.blur((values - mean) ** 2, (5, 5)), 1e-6))
    factor = (np.median(deviation[valid]) / deviation) ** TEXTURE_POWER
    p1 = np.clip(np.rint(P1 * factor), 4, 9).astype(np.uint8)
    return p1, np.clip(np.rint(P2 * factor), 12, MAX_P2).astype(np.uint8)


def trusted(integer: NDArray[np.int16], disparity: Singles, left: Singles, right: Singles) -> Singles:
    """Sub-pixel disparities that both images or most of what is around confirm, that are no speckle, and whose windows
    are whole."""
    height, width = integer.shape
    whole_px = np.where(integer >= 0, integer, np.rint(disparity)).astype(np.int16)
    columns = np.arange(width)[None, :] - whole_px
    whole = whole_windows(left) & (columns >= 0)
    whole &= whole_windows(right)[np.arange(height)[:, None], np.clip(columns, 0, width - 1)]
    ok = _upheld(whole & (integer >= 0), disparity) & whole
    work = np.where(ok, whole_px * 4, -4).astype(np.int16)
    cv2.filterSpeckles(work, -4, SPECKLE_PX, 4)
    return np.where(work >= 0, disparity, np.float32(np.nan))


@njit(cache=True, nogil=True)
def _upheld(confirmed: Any, disparity: Any) -> Any:
    """The pixels that are confirmed, and those amid confirmed ones of the same surface.

    Where ground rises towards the right its pixels are shared in the right image, and on other slopes its windows are
    sheared: noise decides which of them it prefers. What one image alone sees has another surface on one side.
    """
    height, width = disparity.shape
    out = confirmed.copy()
    for y in range(height):
        for x in range(width):
            if confirmed[y, x]:
                continue
            same, other = 0, 0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if dy != 0 or dx != 0:
                        apart = _nearest(confirmed, disparity, y, x, dy, dx)
                        same += apart <= 1
                        other += apart > 1
            out[y, x] = same >= UPHOLD and other == 0
    return out


@njit(inline="always")
def _nearest(confirmed: Any, disparity: Any, y: int, x: int, dy: int, dx: int) -> float:
    """Difference in disparity to the nearest confirmed pixel in a direction, for each step to it; NaN if it is far."""
    for step in range(1, UPHOLD_PX + 1):
        v, u = y + step * dy, x + step * dx
        if not (0 <= v < confirmed.shape[0] and 0 <= u < confirmed.shape[1]):
            break
        if confirmed[v, u]:
            return float(abs(disparity[v, u] - disparity[y, x]) / step)
    return np.nan
