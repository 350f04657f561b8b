"""Sea whose shores do not tell its level, such as that under cliffs: the geoid knows it.

Water is else found by the level that its shores agree on. Walls of different heights agree on none, but where open
water runs out of the scene and nothing around it lies under the sea, its level is that of the geoid, but for tides and
dynamic topography.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, sqrt

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.geoid import egm96_height
from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.components import Components
from terrain3d.raster import Grid
from terrain3d.surface.disks import full_disk
from terrain3d.surface.water import is_pit
from terrain3d.surface.water_level import BodyShape, WaterKind, WaterLevel, water_level

Ints = NDArray[np.int64]
Singles = NDArray[np.float32]

LEAST_AREA, LEAST_WIDTH = 20_000.0, 50.0  # m2 and m of open water
GAP = 12.0  # m: heights that matching invents amid the water part it no wider
RUNS_OUT = 1.5  # roots of the area that end with the images: half a lake does by 1.6, the sea beside a coast by 2.8
OFF = 3.0  # m of the sea from the geoid: tides, dynamic topography, EGM96 itself
SIGMA = 1.2  # m of the same
UNPLACED = 5.0  # m that a model may lie off that rests on the pointing of the images
LEAST_BEACH = 0.2  # share of the shores' cells at the height of the geoid that tell the level better
MOST_BELOW = 0.05  # share of the shores' cells under the sea
LOWEST, HIGHEST = 40.0, 80.0  # m over the sea of the lower tenth and of three quarters of its shores
DOUBT = 0.1  # of the height of the lower tenth: nothing that was seen is at the level


@dataclass(frozen=True)
class ShoreCells:
    """Matched cells of the shores of a body: row and column in the whole grid, and height (m). All (N,)."""

    row: Ints
    column: Ints
    height: Singles


def geoid_height(grid: Grid, bounds: NDArray[np.int64]) -> float:
    """Height of EGM96 over the ellipsoid at the middle of a window of a grid: first row and column, and the ones after
    the last."""
    top, left, bottom, right = bounds
    x = grid.west + (left + right) / 2 * grid.resolution
    y = grid.north - (top + bottom) / 2 * grid.resolution
    return egm96_height(grid.reference.horizontal, x, y)


def sea_level(
    level: WaterLevel, cells: ShoreCells, bodies: Components, number: int, image: StoredRaster, *, placed: bool
) -> WaterLevel | None:
    """Level of a body as sea, whose shores agree on none; None where it may be something else.

    level: what the shores say. image: picture, 0 where there is none. placed: the model lies true to lidar.
    """
    shape, unplaced = level.shape, 0.0 if placed else UNPLACED
    cell = shape.step * shape.resolution
    area = float(shape.mask.sum()) * cell**2
    if area < LEAST_AREA or widest(shape) < LEAST_WIDTH:
        return None
    geoid, off = geoid_height(image.grid, bodies.bounds[number]), OFF + unplaced
    above = cells.height - np.float32(geoid)
    low, high = (float(q) for q in np.quantile(above, (0.1, 0.75)))
    if (above < -off).mean() > MOST_BELOW or low > LOWEST or high > HIGHEST:
        return None
    if _rim_of_picture(shape, image) < RUNS_OUT * sqrt(area):
        return None
    near = np.abs(above) < off
    if near.mean() > LEAST_BEACH:
        shore = water_level(shape, cells.row[near], cells.column[near], cells.height[near], WaterKind.SEA)
        if shore is not None and not is_pit(shore):
            return shore
    sigma = float(np.hypot(np.hypot(SIGMA, unplaced), DOUBT * max(low, 0.0)))
    return replace(level.made_level(geoid, WaterKind.SEA), sigma=sigma, agreement=1.0, under=0.0, stretches=1)


def widest(shape: BodyShape) -> float:
    """Diameter (m) of the widest circle in a body, what matching invents amid it taken for water."""
    cell = shape.step * shape.resolution
    reach = ceil(GAP / 2 / cell)
    padded = np.pad(shape.mask.astype(np.uint8), reach)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, full_disk(GAP / 2 / cell))
    return float(cv2.distanceTransform(np.pad(closed, 1), cv2.DIST_L2, 5).max()) * 2 * cell


def _rim_of_picture(shape: BodyShape, image: StoredRaster) -> float:
    """Length (m) of the rim of a body where the picture ends."""
    grid, step = image.grid, shape.step
    h, w = shape.mask.shape
    row, column = ((f * step - o) for f, o in zip(shape.first, grid.origin, strict=True))
    left, right = max(column, 0), min(column + w * step, grid.width)
    lit = np.zeros((h, w), bool)
    for i in range(h):
        top, bottom = max(row + i * step, 0), min(row + (i + 1) * step, grid.height)
        if bottom > top and right > left:
            some = (image.read(top, left, bottom - top, right - left) > 0).any(axis=0)
            lit[i] = np.pad(some, (left - column, column + w * step - right)).reshape(w, step).any(axis=1)
    beside = cv2.dilate((~np.pad(lit, 1)).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0
    return float((shape.mask & beside).sum()) * step * shape.resolution
