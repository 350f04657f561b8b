"""Noise of a surface model told from terrain by what several stereo pairs say of the same place.

Relief is in every pair, noise of matching is in each its own. So in every band of scales the covariance between looks
is the variance of the terrain, and its share of the whole variance is the weight (Wiener 1949) that keeps the terrain
and drops the noise. Both are measured around each cell: a road without texture is made even, a rough slope stays, and
at a wall, where all of the variance is agreed upon, nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]

SCALES = (1.0, 2.0, 4.0, 8.0)  # sigma of the low passes whose differences are the bands, cells
AROUND = 1.0  # window of the statistics of a band, in its scale
NARROWEST = 3.0  # window of the statistics, cells
NOISE, TERRAIN = 0.2, 0.8  # share agreed upon in pure noise, as looks have images in common, and in relief
LARGEST_MOVE = 1.5  # sigmas of the matches
TRUNCATE = 3.0  # sigmas at which the windows end
MARGIN_CELLS = int(np.ceil(TRUNCATE * (sum(SCALES) + AROUND * SCALES[-1])))


def without_noise(height: Singles, sigma: Singles, offsets: Sequence[Singles]) -> Singles:
    """Heights (h, w; m, NaN voids) without what the looks do not agree upon. sigma: of the matches (m). offsets: by how
    much the points of each look lie above ``height`` (h, w; m, NaN where it has none).

    Where fewer than two looks have points nothing is known and the heights stay. Cells farther than ``MARGIN_CELLS``
    from the border do not depend on what lies beyond it.
    """
    known = np.isfinite(height)
    seen = [known & np.isfinite(o) for o in offsets]
    count = sum(s.astype(np.float32) for s in seen) if seen else np.zeros(height.shape, np.float32)
    products = np.asarray(count * (count - 1), np.float32)  # of two looks each, that a cell adds
    if not products.any():
        return height
    base = np.float32(np.median(height[known]))
    inside = known.astype(np.float32)
    low = np.where(known, height - base, np.float32(0))
    shifts = [np.where(s, o, np.float32(0)).astype(np.float32) for s, o in zip(seen, offsets, strict=True)]
    out = np.zeros_like(low)
    for scale in SCALES:
        weight = np.maximum(_blurred(inside, scale), np.float32(1e-6))
        lower = np.where(known, _blurred(low, scale) / weight, np.float32(0))
        band = low - lower
        lower_shifts = [np.where(known, _blurred(s, scale) / weight, np.float32(0)) for s in shifts]
        total, squares = np.zeros_like(low), np.zeros_like(low)
        for mask, shift, lower_shift in zip(seen, shifts, lower_shifts, strict=True):
            of_look = np.where(mask, band + shift - lower_shift, np.float32(0))
            total += of_look
            squares += of_look * of_look
        out += band * _share(total * total - squares, products, band, max(AROUND * scale, NARROWEST))
        low, shifts = lower, lower_shifts
    most = LARGEST_MOVE * sigma
    return np.asarray(height + np.clip(out + low + base - height, -most, most), np.float32)


def _share(agreed: Singles, products: Singles, band: Singles, window: float) -> Singles:
    """Share of a band's variance around each cell that is terrain. agreed: sum of ``products`` products of looks."""
    common, whole = _blurred(agreed, window), _blurred(products * band * band, window)
    share = common / np.maximum(whole, np.float32(1e-12))
    known = (_blurred(products, window) > 0.5) & (whole > 1e-12)
    return np.where(known, np.clip((share - NOISE) / (TERRAIN - NOISE), 0, 1), np.float32(1)).astype(np.float32)


def _blurred(values: Singles, sigma: float) -> Singles:
    size = 2 * int(np.ceil(TRUNCATE * sigma)) + 1
    return np.asarray(cv2.GaussianBlur(values, (size, size), sigma, borderType=cv2.BORDER_CONSTANT), np.float32)
