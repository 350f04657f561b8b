"""Neighbourhood measures of height rasters with voids: means, roughness, slope, coarsening."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster

Array = NDArray[np.float32]


def disc(radius_cells: float) -> NDArray[np.uint8]:
    """Round structuring element whose cells lie within ``radius_cells`` of its centre cell."""
    r = int(radius_cells)
    y, x = np.mgrid[-r : r + 1, -r : r + 1]
    return (x * x + y * y <= radius_cells * radius_cells + 1e-9).astype(np.uint8)


def box_mean(values: Array, size: int, least_share: float = 0.0) -> Array:
    """Mean of the finite cells in a square of ``size`` cells; NaN where not more than ``least_share`` are finite."""
    finite = np.isfinite(values)
    share = cv2.boxFilter(finite.astype(np.float32), -1, (size, size), borderType=cv2.BORDER_REFLECT)
    total = cv2.boxFilter(np.where(finite, values, np.float32(0)), -1, (size, size), borderType=cv2.BORDER_REFLECT)
    return np.where(share > max(least_share, 1e-6), total / np.maximum(share, 1e-6), np.nan).astype(np.float32)


def median_smooth(values: Array, size: int = 5) -> Array:
    """Median of a square of 3 or 5 cells; cells without value count as their neighbourhood's mean and stay NaN."""
    finite = np.isfinite(values)
    filled = np.where(finite, values, np.nan_to_num(box_mean(values, size)))
    return np.where(finite, cv2.medianBlur(filled.astype(np.float32), size), np.nan).astype(np.float32)


def roughness(heights: Array, size: int) -> Array:
    """Standard deviation of heights about their local plane, metres: about the noise on ground and roofs, metres on
    crowns.

    The least of all squares of ``size`` cells that hold the cell is taken, so that a cell beside a wall gets
    the roughness of its own side (after Nagao & Matsuyama 1979). NaN where the cell has no height.
    """
    finite = np.isfinite(heights)
    if not finite.any():
        return np.full(heights.shape, np.nan, np.float32)
    # A centred mean of a plane is the plane itself, so the residual holds no slope.
    residual = heights - np.float32(np.nanmedian(heights))
    residual -= box_mean(residual, size)
    spread = box_mean(residual * residual, size)
    least = cv2.erode(np.where(np.isfinite(spread), spread, np.float32(1e12)), np.ones((size, size), np.uint8))
    return np.where(finite, np.sqrt(np.maximum(least, 0)), np.nan).astype(np.float32)


def gradient(heights: Array, resolution: float) -> tuple[Array, Array]:
    """Slopes towards east and north (m/m) by central differences; NaN beside voids and at the border."""
    east = np.full(heights.shape, np.nan, np.float32)
    north = np.full(heights.shape, np.nan, np.float32)
    east[:, 1:-1] = (heights[:, 2:] - heights[:, :-2]) / (2 * resolution)
    north[1:-1] = (heights[:-2] - heights[2:]) / (2 * resolution)
    return east, north


def coarsen(values: Array, factor: int, least_share: float = 0.5) -> Array:
    """Mean of the finite cells of every ``factor`` x ``factor`` block; NaN where fewer than ``least_share`` are.

    Rows and columns that do not fill a block at the south and east ends are left out.
    """
    if factor == 1:
        return values
    height, width = values.shape[0] // factor, values.shape[1] // factor
    blocks = values[: height * factor, : width * factor].reshape(height, factor, width, factor)
    finite = np.isfinite(blocks)
    count = finite.sum(axis=(1, 3))
    total = np.where(finite, blocks, 0).sum(axis=(1, 3), dtype=np.float64)
    enough = count >= max(1.0, least_share * factor * factor)
    return np.where(enough, total / np.maximum(count, 1), np.nan).astype(np.float32)


def coarsen_codes(codes: NDArray[Any], factor: int) -> NDArray[Any]:
    """The code at the middle of every ``factor`` x ``factor`` block."""
    if factor == 1:
        return codes
    height, width = codes.shape[0] // factor, codes.shape[1] // factor
    return codes[factor // 2 : height * factor : factor, factor // 2 : width * factor : factor]


def coarsen_raster(raster: Raster, factor: int) -> Raster:
    """``raster`` with cells ``factor`` times as large: means of heights, the middle one of codes."""
    if factor == 1:
        return raster
    heights = np.issubdtype(raster.values.dtype, np.floating)
    values = coarsen(raster.values, factor) if heights else coarsen_codes(raster.values, factor)
    g = raster.grid
    return Raster(values, Grid(g.reference, g.west, g.north, g.resolution * factor, *values.shape))
