"""Ground filter for surface models: one set of parameters for town, forest and mountain.

Progressive morphological opening with a slope rule (``openings``), and six additions that stereo surfaces need:

- windows wider than a house allow the slope of the landform on top, so that ridges keep their crest;
- what the opening cut but what the terrain reaches without a step (brows, embankments) is given back;
- large smooth pieces are judged by their rims (``land``): benches, terraces and brows stay, wide halls go;
- long or high pieces whose sides are slopes (``embankments``) are earth: roads on banks, levees, dams;
- the blurred rim of walls is left out, and cells are judged against a smoothed surface, so that matching noise
  does not thin the ground;
- in rough surroundings (canopy) a wide opening of the surface without its trend finds the floor of the gaps.

The work is done at a cell of about 1 m and is linear in the number of cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster
from terrain3d.surface.buildings import buildings
from terrain3d.surface.coarse import pooled
from terrain3d.surface.embankments import embankments
from terrain3d.surface.land import land, roofs
from terrain3d.surface.membrane import membrane
from terrain3d.surface.openings import (
    CELL,
    blur,
    expand,
    low_outliers,
    opened_by_disk,
    openings,
    pool_min,
    terrain_slope,
    with_terrain_back,
)

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

GROUND_MARGIN = 256.0  # m: the openings in a row, and what is smoothed and connected after them (measured)
_SLOPE = 0.15  # rise per metre of window that is still terrain
_SLOPE_IN_ALL = 0.2  # the same of all windows together
_TOLERANCE = 0.5  # m from the ground surface
_ROUGH, _ROUGH_SHARE = 0.2, 0.3  # m in 5 m windows, and the share of them that makes a canopy; noise is half of it
_FLOOR_RADIUS = 25.0  # m: a gap that shows the ground is hardly ever farther away
_ISLAND_RELIEF = 10.0  # m, of the land around: in relief nothing is known of what is low
_ISLAND_AREA, _ISLAND_AROUND, _ISLAND_AMID, _ISLAND_BELOW = 60.0, 30.0, 10.0, 1.5  # m2; m around; amid; under all that
_CLIFF = 0.9  # rise over run


@dataclass(frozen=True)
class Ground:
    """Ground of a raster. mask: (h, w) cells on the ground; surface: (h, w) float32 terrain everywhere, metres;
    slope: (h, w) float32, rise over run of the terrain; built: (h, w) cells of buildings that are no canopy. All NaN /
    False if there was nothing to filter."""

    mask: Bools
    surface: Singles
    slope: Singles
    built: Bools


@dataclass(frozen=True)
class Plane:
    """Heights ``height + east (x - x0) + north (y - y0)``; ``place`` is (x0, y0)."""

    place: tuple[float, float]
    height: float
    east: float = 0.0
    north: float = 0.0

    def on(self, grid: Grid) -> Singles:
        """Heights of the cells of a grid, (h, w)."""
        x, y = grid.centres()
        return (self.height + self.east * (x - self.place[0]) + (self.north * (y - self.place[1]))[:, None]).astype(
            np.float32
        )


def fit_plane(heights: Raster) -> Plane | None:
    """Plane through the finite heights by least squares, None without any. Thinned to some 20 000 of them."""
    rows, columns = np.nonzero(np.isfinite(heights.values))
    if not rows.size:
        return None
    step = max(rows.size // 20_000, 1)
    rows, columns = rows[::step], columns[::step]
    x, y = heights.grid.centres()
    z = heights.values[rows, columns].astype(float)
    place = float(x[columns].mean()), float(y[rows].mean())
    if np.ptp(rows) < 2 or np.ptp(columns) < 2:
        return Plane(place, float(z.mean()))
    design = np.column_stack([np.ones(rows.size), x[columns] - place[0], y[rows] - place[1]])
    c, a, b = np.linalg.lstsq(design, z - z.mean(), rcond=None)[0]
    return Plane(place, float(c + z.mean()), float(a), float(b))


def coarse_factor(resolution: float) -> int:
    """Cells a side that make one of the coarse cells, of about 1 m, that the filter works with."""
    return max(round(CELL / resolution), 1)


def coarse_ground(heights: Raster, evidence: Bools, plane: Plane, origin: tuple[int, int] = (0, 0)) -> Ground:
    """Ground on coarse cells from the north-west corner: ``surface`` is over the plane, ``mask`` what carries it.

    heights: (h, w) float32 metres, NaN voids. evidence: cells that may carry ground. plane: of the whole scene; without
    it, forest at the border of a slope has no floor. origin: coarse row and column of the first cell, see
    ``membrane.solve``. All NaN without evidence. Cells farther than ``GROUND_MARGIN`` from the border do not depend on
    what lies beyond it.
    """
    factor = coarse_factor(heights.grid.resolution)
    cell = heights.grid.resolution * factor
    level = np.asarray(heights.values, np.float32) - plane.on(heights.grid)
    coarse = pooled(level, factor)
    ok = np.isfinite(coarse) & (-pool_min(-(evidence & np.isfinite(level)).astype(np.float32), factor) > 0)
    if not ok.any():
        nothing = np.full(coarse.shape, np.nan, np.float32)
        return Ground(ok, nothing, nothing.copy(), ok.copy())
    work = membrane(coarse, origin=origin)
    if cell <= 2 * CELL:
        work = blur(work, CELL / cell)
    ok &= ~low_outliers(work, cell)
    if not ok.all():
        work = membrane(np.where(ok | ~np.isfinite(coarse), work, np.float32(np.nan)), origin=origin)
    cut = cv2.dilate(
        openings(work, cell, _SLOPE, in_all=_SLOPE_IN_ALL).astype(np.uint8), np.ones((3, 3), np.uint8)
    ).astype(bool)
    tilt = plane.east, -plane.north
    cut |= roofs(work, ok, cell, tilt)
    smooth = land(work, ok, cut, cell, tilt)
    smooth |= embankments(work, ok, cut & ~smooth, cell)
    surface, cut = with_terrain_back(work, ok, ok, cut & ~smooth, cell, origin)
    slope = terrain_slope(surface, cell)
    keep = ok & (np.abs(work - surface) <= _TOLERANCE + 0.3 * slope)
    keep = _canopy_floor(work, keep, ok, smooth, cell, origin)
    keep &= ~_low_islands(work, keep, ok, cell)
    if not keep.any():
        keep = ok
    surface = membrane(work, keep, origin=origin)
    slope = terrain_slope(surface, cell, tilt=tilt)
    return Ground(keep, surface, slope, buildings(work, ok, keep, surface, slope, cell, heights.grid.resolution))


def fine_ground(heights: Raster, evidence: Bools, coarse: Ground, plane: Plane) -> Ground:
    """Ground on the cells of ``heights`` from that on the coarse cells over them."""
    z = np.asarray(heights.values, np.float32)
    factor = coarse_factor(heights.grid.resolution)
    out = expand(coarse.surface, factor, z.shape) + plane.on(heights.grid)
    steep = expand(coarse.slope, factor, z.shape)
    near = np.abs(z - out) <= _TOLERANCE + 0.3 * steep
    mask, built = (_expand_mask(a, factor, z.shape) for a in (coarse.mask, coarse.built))
    return Ground(evidence & near & mask, out, steep, built)


def ground_share(ground: NDArray[Any], resolution: float) -> Singles:
    """Share of ground cells within about 5 m (mean of any mask or weight), (h, w) float32."""
    size = int(2 * round(5.0 / resolution)) + 1
    return np.asarray(cv2.blur(ground.astype(np.float32), (size, size)), np.float32)


def _canopy_floor(z: Singles, keep: Bools, ok: Bools, smooth: Bools, cell: float, origin: tuple[int, int]) -> Bools:
    """Ground cells without those that stand high in rough surroundings: what a canopy's own steps let through.

    Forest rises from its gaps in steps too small for a growing window. The trend is taken off, so that one wide opening
    reaches the floor of the gaps in a single step also on slopes. Smooth surroundings are left alone.
    """
    rough = _roughness(z - blur(z, 5.0 / cell), cell) > _ROUGH
    size = round(20.0 / cell) | 1
    canopy = cv2.blur(rough.astype(np.float32), (size, size)) > _ROUGH_SHARE
    if not canopy.any():
        return keep
    trend = blur(z, 15.0 / cell)
    kept = keep
    for _ in range(2):
        slope = terrain_slope(trend, cell, 8.0)
        above = z - trend
        opened = opened_by_disk(
            np.where(canopy & ~ok, np.float32(60), np.minimum(above, 60)), round(_FLOOR_RADIUS / cell)
        )
        allowed = 0.4 + 0.3 * np.minimum(slope, 1) + 20.0 * np.maximum(slope - _CLIFF, 0)  # no floor to find on cliffs
        kept = keep & ~(canopy & ~smooth & (above - opened > allowed))
        if not kept.any():
            return keep
        trend = blur(membrane(z, kept, origin=origin), 6.0 / cell)
    return kept


def _low_islands(z: Singles, keep: Bools, ok: Bools, cell: float) -> Bools:
    """Small pieces of ground amid what stands on it, lower than all larger ones around: false matches in narrow streets
    and at the feet of walls, which would pull the terrain around down."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(keep.astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] * cell**2 < _ISLAND_AREA
    small[0] = False
    island = small[labels]
    window = np.ones((round(2 * _ISLAND_AROUND / cell) | 1,) * 2, np.uint8)
    lowest = cv2.erode(np.where(keep & ~island, z, np.float32(1e6)), window)
    level = cv2.dilate(np.where(keep & ~island, z, np.float32(-1e6)), window) - lowest < _ISLAND_RELIEF
    size = (round(2 * _ISLAND_AMID / cell) | 1,) * 2
    standing, seen = (cv2.blur(a.astype(np.float32), size) for a in (ok & ~keep, ok))
    return island & level & (lowest < 1e5) & (z < lowest - _ISLAND_BELOW) & (standing > 0.5 * seen)


def _roughness(z: Singles, cell: float) -> Singles:
    """Standard deviation in windows of 5 m."""
    size = (max(round(5.0 / cell) | 1, 3),) * 2
    mean = cv2.blur(z, size)
    return np.sqrt(cv2.blur(np.square(z - mean), size))


def _expand_mask(a: Bools, factor: int, shape: tuple[int, int]) -> Bools:
    return np.kron(a, np.ones((factor, factor), bool))[: shape[0], : shape[1]]
