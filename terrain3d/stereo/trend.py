"""What is known of the surface before a tile is matched: a coarse height map, its smooth trend and its relief."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster, bilinear

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
SMOOTHING_M = 30.0
SCRAP_CELLS = 30  # smaller groups are scraps, if they are off
SCRAP_STEP_M, STEEPEST = 15.0, 1.0  # m, and metres a metre, between a group of cells and the nearest larger one


@dataclass(frozen=True)
class CoarseSurface:
    """Heights on a coarse grid without gaps: ``trend`` is smooth, ``low`` and ``high`` bound the surface at a cell,
    ``height`` is that of the cell itself."""

    trend: Raster
    low: Raster
    high: Raster
    height: Raster

    def trend_at(self, east: Any, north: Any) -> Floats:
        """Trend, repeated outwards beyond the grid."""
        column, row = self.trend.grid.column_row(east, north)
        height, width = self.trend.grid.shape
        return bilinear(self.trend.values, np.clip(column, 0, width - 1), np.clip(row, 0, height - 1))

    def relief_around(self, east: Floats, north: Floats) -> tuple[float, float]:
        """Lowest and highest height of the surface against its trend over the cells that hold the given places."""
        at = self._cells(east, north)
        trend = self.trend.values[at]
        return float((self.low.values[at] - trend).min()), float((self.high.values[at] - trend).max())

    def limits_over(self, east: Floats, north: Floats) -> tuple[float, float]:
        """Lowest and highest height of the surface over the cells that hold the given places."""
        at = self._cells(east, north)
        return float(self.low.values[at].min()), float(self.high.values[at].max())

    def _cells(self, east: Floats, north: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and columns of the cells that hold places; beyond the grid its nearest ones."""
        column, row = self.trend.grid.column_row(east, north)
        height, width = self.trend.grid.shape
        return np.clip(np.rint(row).astype(int), 0, height - 1), np.clip(np.rint(column).astype(int), 0, width - 1)


def coarse_surface(heights: Raster) -> CoarseSurface:
    """Surface from a coarse raster with NaN gaps: gaps take the value of the nearest cell, outliers are left out."""
    values = _without_scraps(heights.values.astype(np.float32), heights.grid.resolution)
    missing = ~np.isfinite(values)
    if missing.all():
        raise ValueError("a coarse surface needs at least one height")
    _, (rows, columns) = distance_transform_edt(missing, return_indices=True)
    filled = cv2.medianBlur(np.ascontiguousarray(values[rows, columns]), 3)
    sigma = SMOOTHING_M / heights.grid.resolution
    trend = cv2.GaussianBlur(filled, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    around = np.ones((5, 5), np.uint8)
    limits = cv2.erode(filled, around), cv2.dilate(filled, around)
    return CoarseSurface(*(Raster(a, heights.grid) for a in (trend, *limits, filled)))


def _without_scraps(values: Singles, resolution: float) -> Singles:
    """Heights without small groups of cells that no slope joins to the larger ones: where one image alone sees the
    ground, rims are matched with anything, and a few such cells would bend the trend far into what both see."""
    known = np.isfinite(values)
    _, group, stats, _ = cv2.connectedComponentsWithStats(known.astype(np.uint8), connectivity=4)
    large = (stats[:, cv2.CC_STAT_AREA] >= SCRAP_CELLS) & (np.arange(len(stats)) > 0)
    whole = large[group]
    if not whole.any():
        return values
    distance, (rows, columns) = distance_transform_edt(~whole, return_indices=True)
    off = np.abs(values - values[rows, columns]) > SCRAP_STEP_M + STEEPEST * distance * resolution
    return np.where(known & ~whole & off, np.float32(np.nan), values)


def flat_surface(
    reference: Reference, bounds: tuple[float, float, float, float], low: float, high: float
) -> CoarseSurface:
    """Surface of which nothing is known but its limits."""
    size = max(bounds[2] - bounds[0], bounds[3] - bounds[1], 1.0)
    grid = Grid.from_bounds(reference, *bounds, size / 4)
    values = [np.full(grid.shape, h, np.float32) for h in ((low + high) / 2, low, high, (low + high) / 2)]
    return CoarseSurface(*(Raster(v, grid) for v in values))
