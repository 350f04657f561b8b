"""Water of a stored scene made level, and its outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terrain3d.change.outline import outline
from terrain3d.change.regions import Patch
from terrain3d.io.scratch import Place, StoredRaster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.bridges import Bridges, find_bridges
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.sea import geoid_height
from terrain3d.pipeline.threads import Workers
from terrain3d.pipeline.water_bodies import Evidence, GivenWater, Waters, body_shape, find_waters
from terrain3d.raster import Grid
from terrain3d.surface.disks import full_disk
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.water import SHORE
from terrain3d.surface.water_level import WaterKind, WaterLevel

BANK_MARGIN = 4.0  # metres
OUTLINE_CELLS = 25_000_000  # of one body, at most
SEA_AREA, SEA_HEIGHT = 200_000.0, 1.0  # m2, and metres from the geoid at most


@dataclass(frozen=True)
class WaterBody:
    """outline: in the CRS of the run. level: ellipsoidal, in the whole grid ``grid``. sigma: of it, metres, that of the
    model's frame included. given: a polygon of the user says so."""

    outline: BaseGeometry
    level: WaterLevel
    grid: Grid
    sigma: float
    given: bool

    def heights(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Level at places in the CRS of the run."""
        column, row = self.grid.column_row(x, y)
        return self.level.at(row + self.grid.origin[0], column + self.grid.origin[1]).astype(float)


def level_water(
    evidence: Evidence, dsm: StoredRaster, sigma: StoredRaster, mask: StoredRaster, given: GivenWater, folder: Place,
    workers: Workers, reporter: Reporter,
) -> tuple[list[WaterBody], Bridges | None]:  # fmt: skip
    """Find the water of a scene, level it in ``dsm`` and mark it in ``mask``, with a sigma on all of it; banks that lie
    under it are raised to it. The bodies, and the bridges over them.

    Nothing is changed where the user wants no flattening.
    """
    waters = find_waters(evidence, sigma, given, folder, workers, reporter)
    if waters is None:
        return [], None
    levels = _seas_joined(waters, dsm.grid)
    spread = {k: float(np.hypot(levels[k].sigma, waters.frame[k])) for k in levels}
    bridges = None
    if given.flatten and levels:
        _flatten(waters, levels, spread, dsm, sigma, mask, workers, reporter)
        bridges = find_bridges(waters, levels, spread, evidence.heights, folder, workers)
    found = [
        WaterBody(_outline(waters, k, dsm.grid), level, dsm.grid, spread[k], k in waters.given)
        for k, level in levels.items()
    ]
    waters.bodies.labels.remove()
    return found, bridges


def _flatten(
    waters: Waters, levels: dict[int, WaterLevel], spread: dict[int, float], dsm: StoredRaster, sigma: StoredRaster,
    mask: StoredRaster, workers: Workers, reporter: Reporter,
) -> None:  # fmt: skip
    bodies, kernel = waters.bodies, full_disk(SHORE / dsm.grid.resolution)

    def work(block: Block) -> None:
        numbers = bodies.read(block)
        numbers = np.where(np.isin(numbers, list(levels)), numbers, 0).astype(np.float32)
        near = cv2.dilate(numbers, kernel)[block.core].astype(np.int32)
        if not near.any():
            return
        part = block.part(*block.core)
        wet = numbers[block.core] > 0
        z, s, codes = part.read(dsm), part.read(sigma), part.read(mask)
        for k in (int(k) for k in np.unique(near) if k):
            row, column = np.nonzero(near == k)
            height = levels[k].at(row + part.origin[0], column + part.origin[1])
            inside = wet[row, column]
            own = z[row, column]
            z[row, column] = np.where(inside, height, np.where(own < height, height, own))
            s[row[inside], column[inside]] = spread[k]
        codes[wet] = MaskCode.WATER
        for raster, values in ((dsm, z), (sigma, s), (mask, codes)):
            part.write(raster, values)

    for_blocks(work, cut(dsm.grid, BANK_MARGIN), workers, reporter)


def _seas_joined(waters: Waters, grid: Grid) -> dict[int, WaterLevel]:
    """Levels, all of the sea at one. Large level water at the height of the geoid is sea if nobody says what it is."""
    levels = dict(waters.levels)
    cell = grid.resolution**2
    for k, level in levels.items():
        large = waters.bodies.area[k] * cell >= SEA_AREA and level.kind is WaterKind.LAKE and k not in waters.given
        if large and abs(level.low - geoid_height(grid, waters.bodies.bounds[k])) < SEA_HEIGHT:
            levels[k] = level.made_level(level.low, WaterKind.SEA)
    seas = [k for k, level in levels.items() if level.kind is WaterKind.SEA]
    if seas:
        weights = [levels[k].stretches for k in seas]
        height = float(np.average([levels[k].low for k in seas], weights=weights))
        levels |= {k: levels[k].made_level(height, WaterKind.SEA) for k in seas}
    return levels


def _outline(waters: Waters, number: int, grid: Grid) -> BaseGeometry:
    shape = body_shape(waters.bodies, number, grid.resolution, OUTLINE_CELLS)
    cell = grid.resolution * shape.step
    row, column = (f * shape.step - o for f, o in zip(shape.first, grid.origin, strict=True))
    corner = grid.window(row, column, 1, 1)
    coarse = Grid(grid.reference, corner.west, corner.north, cell, *shape.mask.shape)
    return outline(Patch(1, 0, 0, shape.mask), coarse)


def shorelines(bodies: Sequence[WaterBody]) -> list[tuple[int, BaseGeometry]]:
    """Shores of the bodies as lines with the level of the water at each vertex: number of the body from 1, and line."""
    found = []
    for number, body in enumerate(bodies, 1):
        for ring in shapely.get_rings(body.outline):
            x, y = shapely.get_coordinates(ring).T
            found.append((number, shapely.LineString(np.column_stack([x, y, body.heights(x, y)]))))
    return found
