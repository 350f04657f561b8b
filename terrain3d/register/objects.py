"""What stands on the ground, told from a surface model alone: roofs and closed canopy must not meet ground returns."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.raster import Raster

Singles = NDArray[np.float32]

CELL = 2.0  # metres; objects smaller than this do not matter to a footprint of 11 m and more
WINDOWS = (10.0, 22.0, 42.0, 62.0)  # metres; the last one passes over large halls
TREND_SIGMA = 30.0  # metres
BASE_HEIGHT = 1.2
RELIEF_SLOPE = 0.12  # relief that remains within a window after the trend is taken off
HIGHEST_LIMIT = 3.5
DETAIL_SIGMA = 8.0  # metres
STEP = 1.5  # metres within three cells: more is an edge
SEED_SHARE = 0.05


def object_map(dsm: Raster) -> Raster:
    """Cells (uint8, 1 = object) of about 2 m that stand on their surroundings.

    Progressive morphological opening (Zhang et al. 2003) of the surface minus its own large-scale trend, so that a
    hillside is not taken for a step. Forest that hides all ground within 60 m is not found here; lidar canopy heights
    and the roughness of the footprint find it.
    """
    coarse = coarsen(dsm, max(1, round(CELL / dsm.grid.resolution)))
    cell = coarse.grid.resolution
    missing = ~np.isfinite(coarse.values)
    objects = np.zeros(missing.shape, np.uint8)
    if missing.all():
        return replace(coarse, values=objects)
    surface = coarse.values.astype(np.float32)
    if missing.any():
        nearest = ndimage.distance_transform_edt(missing, return_distances=False, return_indices=True)
        surface = surface[tuple(nearest)]
    trend = smooth(opened(surface, WINDOWS[-1], cell), TREND_SIGMA / cell)
    filled = surface
    surface = filled - trend
    for window in WINDOWS:
        lower = opened(surface, window, cell)
        limit = min(BASE_HEIGHT + RELIEF_SLOPE * window / 2, HIGHEST_LIMIT)
        objects |= (surface - lower > limit).astype(np.uint8)
        surface = lower
    objects &= 1 - _reached_smoothly(filled, objects, cell)
    objects[missing] = 0
    return replace(coarse, values=objects)


def _reached_smoothly(surface: Singles, objects: NDArray[np.uint8], cell: float) -> NDArray[np.uint8]:
    """Cells that join ground without an edge in between.

    The opening also cuts off ridges and spurs of a mountain; those run smoothly into the ground beside them, which a
    roof or a crown does not.
    """
    detail = surface - smooth(surface, DETAIL_SIGMA / cell)
    kernel = np.ones((3, 3), np.uint8)
    steps = cv2.dilate(detail, kernel) - cv2.erode(detail, kernel)
    labels, n = ndimage.label(steps < STEP)
    if n == 0:
        return np.zeros_like(objects)
    cells = np.bincount(labels.ravel(), minlength=n + 1)
    seeds = np.bincount(labels.ravel(), weights=(objects == 0).ravel(), minlength=n + 1)
    ground = seeds > SEED_SHARE * cells
    ground[0] = False
    return np.asarray(cv2.dilate(ground[labels].astype(np.uint8), kernel), np.uint8)


def coarsen(dsm: Raster, factor: int) -> Raster:
    """Block means over factor x factor cells, NaN where no cell has a value; the last blocks may be incomplete."""
    height, width = dsm.grid.shape
    rows, columns = -(-height // factor), -(-width // factor)
    values = np.full((rows * factor, columns * factor), np.nan, np.float32)
    values[:height, :width] = dsm.values
    blocks = values.reshape(rows, factor, columns, factor)
    count = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3), dtype=np.float64)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
    grid = replace(dsm.grid, resolution=dsm.grid.resolution * factor, height=rows, width=columns)
    return Raster(mean, grid)


def opened(surface: Singles, window: float, cell: float) -> Singles:
    """Morphological opening with a square window of the given metres."""
    size = max(3, 2 * round(window / cell / 2) + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (size, size))
    return np.asarray(cv2.morphologyEx(surface, cv2.MORPH_OPEN, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)


def smooth(surface: Singles, sigma_cells: float) -> Singles:
    """Gaussian smoothing."""
    return np.asarray(cv2.GaussianBlur(surface, (0, 0), sigma_cells, borderType=cv2.BORDER_REPLICATE), np.float32)
