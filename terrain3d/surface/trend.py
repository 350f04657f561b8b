"""Smooth trend of the low side of a surface: the slope that crowns and roofs stand on."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.coarse import block_means, resampled

Singles = NDArray[np.float32]

SMOOTHING = 14.0  # m, sigma of the window
WIDEST_OBJECT = 26.0  # m
COARSE_STEP = 8  # cells that are pooled first
TRUNCATE = 3.0  # sigmas
TREND_MARGIN = 60.0  # m: farther away nothing counts


def smooth_trend(dsm: Raster) -> Singles:
    """Weighted mean around each cell of what is low nearby, (h, w) float32; 0 where nothing is known. Along a slope it
    runs below the surface, everywhere by the same."""
    coarse = block_means(dsm, COARSE_STEP)
    known = np.isfinite(coarse.values)
    if not known.any():
        return np.zeros(dsm.grid.shape, np.float32)
    base = np.float32(np.mean(coarse.values[known]))
    window = np.ones((odd_cells(WIDEST_OBJECT, coarse.grid.resolution),) * 2, np.uint8)
    low = cv2.erode(np.where(known, coarse.values - base, np.float32(1e6)), window)
    known = low < 1e5
    sigma = SMOOTHING / coarse.grid.resolution
    size = 2 * int(np.ceil(TRUNCATE * sigma)) + 1

    def blurred(values: Singles) -> Singles:
        return np.asarray(cv2.GaussianBlur(values, (size, size), sigma, borderType=cv2.BORDER_CONSTANT))

    weight = blurred(known.astype(np.float32))
    total = blurred(np.where(known, low, np.float32(0)))
    values = np.where(weight > 1e-6, total / np.maximum(weight, np.float32(1e-6)), np.float32(0)) + base
    return resampled(Raster(values.astype(np.float32), coarse.grid), dsm.grid)
