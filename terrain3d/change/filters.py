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
    box, border = (size, size), cv2.BORDER_REFLECT
    known, filled = _known(values)
    if filled is values:
        return np.asarray(cv2.boxFilter(values, -1, box, borderType=border))
    share = cv2.boxFilter(known, -1, box, borderType=border)
    mean = cv2.boxFilter(filled, -1, box, borderType=border)
    few = share <= max(least_share, 1e-6)
    share[few] = 1.0
    cv2.divide(mean, share, mean)
    mean[few] = np.nan
    return np.asarray(mean)


def _known(values: Array) -> tuple[Array, Array]:
    """1 where a cell has a value, 0 where it is NaN; and the values with 0 for NaN, themselves where there is none."""
    equal = cv2.compare(values, values, cv2.CMP_EQ)  # NaN is not equal to itself
    if cv2.countNonZero(equal) == values.size:
        return equal, values
    filled = values.copy()
    cv2.patchNaNs(filled, 0.0)
    return np.multiply(equal, np.float32(1 / 255)), filled


def median_smooth(values: Array, size: int = 5) -> Array:
    """Median of a square of 3 or 5 cells; cells without value count as their neighbourhood's mean and stay NaN."""
    missing = np.isnan(values)
    if not missing.any():
        return np.asarray(cv2.medianBlur(values, size))
    filled = np.where(missing, np.nan_to_num(box_mean(values, size)), values)
    out = cv2.medianBlur(filled, size)
    out[missing] = np.nan
    return np.asarray(out)


def roughness(heights: Array, size: int) -> Array:
    """Standard deviation of heights about their local plane, metres: about the noise on ground and roofs, metres on
    crowns.

    The least of all squares of ``size`` cells that hold the cell is taken, so that a cell beside a wall gets
    the roughness of its own side (after Nagao & Matsuyama 1979). NaN where the cell has no height.
    """
    missing = np.isnan(heights)
    if missing.all():
        return np.full(heights.shape, np.nan, np.float32)
    # A centred mean of a plane is the plane itself, so the residual holds no slope.
    residual = heights - np.float32(np.nanmedian(heights[::8, ::8]) if not missing[::8, ::8].all() else 0.0)
    residual -= box_mean(residual, size)
    spread = box_mean(residual * residual, size)
    spread[np.isnan(spread)] = 1e12
    least = cv2.erode(spread, np.ones((size, size), np.uint8))
    out = cv2.sqrt(cv2.max(least, 0.0))
    out[missing] = np.nan
    return np.asarray(out)


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
    if min(height, width) == 0:
        return np.zeros((height, width), np.float32)
    whole = np.ascontiguousarray(values[: height * factor, : width * factor], np.float32)
    known, filled = _known(whole)
    mean = cv2.resize(filled, (width, height), interpolation=cv2.INTER_AREA)  # means of blocks, for whole factors
    if filled is whole:
        return np.asarray(mean)
    share = cv2.resize(known, (width, height), interpolation=cv2.INTER_AREA)
    few = share < max(1 / factor**2, least_share) - 1e-4
    share[few] = 1.0
    cv2.divide(mean, share, mean)
    mean[few] = np.nan
    return np.asarray(mean)


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
