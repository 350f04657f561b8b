"""Ground filter for point clouds: open land and towns by openings, forest from the lowest points on the slope.

The cloud is thinned to the lowest point of each cell of about 1 m, at its own place. On open land a progressive opening
cuts what stands on the terrain (``openings``); large cut areas without walls - embankments, dams, the brows of quarries
- are given back where a more lenient opening keeps them, and level pieces wider than any window go if walls are all
around them (``land.roofs``). Where lidar looks through a canopy, most lowest points are vegetation and the rest lie on
slopes, so there the ground is found from coarse to fine: the lowest points over the slope of the coarser surface (after
hierarchic robust interpolation, Kraus & Pfeifer 1998), with small openings; with wider ones where few points reach the
ground, since undergrowth makes wide layers there. One set of parameters serves all.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import bilinear
from terrain3d.surface.coarse import pooled
from terrain3d.surface.disks import disk
from terrain3d.surface.land import roofs
from terrain3d.surface.membrane import membrane
from terrain3d.surface.openings import (
    blur,
    expand,
    low_outliers,
    opened_by_disk,
    openings,
    pool_min,
    terrain_slope,
    with_terrain_back,
)

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SLOPE, _STEP = 0.09, 0.2  # rise per metre of window, over a step in metres, that is still terrain
_STRICT, _LENIENT = 0.1, 1.0  # share of the landform's slope that small windows allow
_WALL, _WALLED = 1.2, 0.5  # slope of a wall, and the share of an object's rim that has one
_NEAR = 2.0  # m from the next point: the surface is known
_LEAST_AREA = 50.0  # m2, of what may be an embankment
_LAYERED, _LAYERED_SHARE = 2.0, 0.7  # m between the points of 2 m cells, and the share of cells that makes a forest
_LEVELS = (8, 4, 2, 1, 1)  # cells, from coarse to fine
_FOREST_RADII, _HIDDEN_RADII = (1, 2, 3), (3, 6)  # cells, where the ground is seen, and where it is hidden
_HIDDEN, _HIDDEN_AROUND = 0.25, 25  # share of the cells that see the ground, of so many cells a side
_FOREST_STEP, _FOREST_SLOPE = 0.1, 0.15  # m, and m per unit of slope, that an opening may lower the ground of a forest
_LOW_FOREST = 5.0  # m under all around: an error
_TOLERANCE, _SLOPE_TOLERANCE, _FOREST_TOLERANCE = 0.5, 1.0, 0.5  # m from the surface, and m per unit of its slope


@dataclass(frozen=True)
class LowestPoints:
    """The lowest point of each cell: z (h, w) float32 height, NaN without points; right, down: where it lies off the
    cell's centre, in cells; high: height of the highest. ``cell``: size, metres."""

    z: Singles
    right: Singles
    down: Singles
    high: Singles
    cell: float


@dataclass(frozen=True)
class CloudGround:
    """Ground on the cells: surface (h, w) float32 metres at their centres, slope (rise over run), kept: cells whose
    lowest point carries it, tolerance: metres per unit of slope that points of the ground may lie off."""

    surface: Singles
    slope: Singles
    kept: Bools
    tolerance: Singles


def cloud_ground(
    points: LowestPoints, origin: tuple[int, int] = (0, 0), *, filtered: bool = True, through: bool = True
) -> CloudGround:
    """Ground under the points of a cloud, all NaN without any. filtered: False where all points are of the ground.
    through: whether the cloud may look through a canopy; one without second returns does not.

    origin: row and column of the first cell, multiples of 8, see ``membrane.solve``. Cells farther than
    ``ground.GROUND_MARGIN`` from the border do not depend on what lies beyond it.
    """
    known = np.isfinite(points.z)
    if not known.any():
        nothing = np.full(points.z.shape, np.nan, np.float32)
        return CloudGround(nothing, nothing.copy(), known, nothing.copy())
    if not filtered:
        return _all_ground(points, known, origin)
    surface, kept = _open_ground(points, known, origin)
    forest = _forest(points) & through
    if forest.any():
        hidden, of_forest = _forest_ground(points, known, origin)
        surface, kept = np.where(forest, hidden, surface), np.where(forest, of_forest, kept)
    slope = _slope(surface, points.cell)
    tolerance = np.where(forest, _FOREST_TOLERANCE, _SLOPE_TOLERANCE).astype(np.float32)
    return CloudGround(surface.astype(np.float32), slope, kept, tolerance)


def on_ground(height: Floats, surface: Floats, slope: Floats, tolerance: Floats) -> Bools:
    """Which points lie on the ground, from the values of a ``CloudGround`` at their places; False where it has none."""
    return np.asarray(np.abs(height - surface) <= _TOLERANCE + tolerance * slope)


@dataclass(frozen=True)
class Extremes:
    """Cells (flat index) with points, and in each: height of the lowest, its place off the centre (cells), height of
    the highest; all (M,)."""

    cell: NDArray[np.int64]
    low: Singles
    right: Singles
    down: Singles
    high: Singles


def extremes(xyz: Floats, cell: float, west: float, north: float, shape: tuple[int, int]) -> Extremes:
    """Lowest and highest of points (N, 3) in the cells of a grid; points outside are left out."""
    column, row = (xyz[:, 0] - west) / cell, (north - xyz[:, 1]) / cell
    inside = (column >= 0) & (row >= 0) & (column < shape[1]) & (row < shape[0])
    column, row, z = column[inside], row[inside], xyz[inside, 2]
    index = row.astype(np.int64) * shape[1] + column.astype(np.int64)
    order = np.lexsort((z, index))
    first = np.flatnonzero(np.diff(index[order], prepend=-1))
    low, high = order[first], order[np.append(first[1:], len(order)) - 1] if len(order) else order
    layers = (z[low], column[low] % 1 - 0.5, row[low] % 1 - 0.5, z[high])
    z_low, right, down, z_high = (a.astype(np.float32) for a in layers)
    return Extremes(index[low], z_low, right, down, z_high)


def lowest_points(xyz: Floats, cell: float, west: float, north: float, shape: tuple[int, int]) -> LowestPoints:
    """Thin points (N, 3) to the cells of a grid; points outside are left out."""
    found = extremes(xyz, cell, west, north, shape)
    layers = [np.full(shape, np.nan, np.float32) for _ in range(4)]
    for layer, values in zip(layers, (found.low, found.right, found.down, found.high), strict=True):
        layer.ravel()[found.cell] = values
    return LowestPoints(layers[0], layers[1], layers[2], layers[3], cell)


def ground_points(xyz: Floats, cell: float = 1.0) -> Bools:
    """Which points lie on the ground: (N, 3) metres to (N,) bool. Errors far below the ground are not ground."""
    if not len(xyz):
        return np.zeros(0, bool)
    west, north = float(xyz[:, 0].min()), float(xyz[:, 1].max())
    base = float(np.median(xyz[:, 2]))
    local = xyz - [0.0, 0.0, base]
    shape = int((north - xyz[:, 1].min()) / cell) + 1, int((xyz[:, 0].max() - west) / cell) + 1
    found = cloud_ground(lowest_points(local, cell, west, north, shape))
    column = np.clip((xyz[:, 0] - west) / cell - 0.5, 0, shape[1] - 1)
    row = np.clip((north - xyz[:, 1]) / cell - 0.5, 0, shape[0] - 1)
    values = (bilinear(a, column, row) for a in (found.surface, found.slope, found.tolerance))
    return on_ground(local[:, 2], *values)


def _open_ground(points: LowestPoints, known: Bools, origin: tuple[int, int]) -> tuple[Singles, Bools]:
    """Ground of open land and towns: surface at the centres of the cells, and the cells that carry it."""
    cell = points.cell
    known = known & ~low_outliers(membrane(points.z, known, origin=origin), cell)
    z = membrane(points.z, known, origin=origin)
    near = cv2.dilate(known.astype(np.uint8), disk(_NEAR / cell)) > 0
    cut = _standing(z, cell) | roofs(z, near, cell)
    surface, cut = with_terrain_back(z, known, np.ones(z.shape, bool), cut, cell, origin)
    kept = known & ~cut
    if min(z.shape) < 2 or not kept.any():
        return surface, kept
    return _centred(points, z, surface, kept, origin), kept


def _all_ground(points: LowestPoints, known: Bools, origin: tuple[int, int]) -> CloudGround:
    """Surface through all lowest points, coarse to fine, so that the landform carries on where there are none."""
    surface = np.zeros(points.z.shape, np.float32)
    for level, size in enumerate(_LEVELS[:-1]):
        trend, above = _over_trend(points, surface, level, size)
        mean = pooled(np.where(known, above, np.float32(np.nan)), size)
        surface = trend + _between(mean, np.isfinite(mean), size, origin, points.z.shape)
    return CloudGround(surface, _slope(surface, points.cell), known, np.full_like(surface, _SLOPE_TOLERANCE))


def _centred(points: LowestPoints, z: Singles, surface: Singles, kept: Bools, origin: tuple[int, int]) -> Singles:
    """Surface through the kept cells, each height brought from its point to the cell's centre along the slope."""
    down, right = np.gradient(blur(surface, 1.0))
    centred = z - right * np.nan_to_num(points.right) - down * np.nan_to_num(points.down)
    return membrane(centred.astype(np.float32), kept, origin=origin)


def _standing(z: Singles, cell: float) -> Bools:
    """Cells of what stands on the terrain, large parts without walls only if a lenient opening cuts them too."""
    strict = openings(z, cell, _SLOPE, _STEP, _STRICT)
    lenient = openings(z, cell, _SLOPE, _STEP, _LENIENT)
    if min(z.shape) < 3:
        return strict
    n, label = cv2.connectedComponents(strict.astype(np.uint8), connectivity=4)
    rim = strict & (cv2.erode(strict.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    wall = np.hypot(*np.gradient(z, cell)) > _WALL
    area = np.bincount(label.ravel(), minlength=n) * cell**2
    length, walled = np.bincount(label[rim], minlength=n), np.bincount(label[rim & wall], minlength=n)
    gentle = (area >= _LEAST_AREA) & (walled < _WALLED * np.maximum(length, 1))
    gentle[0] = False
    return lenient | (strict & ~gentle[label])


def _forest(points: LowestPoints) -> Bools:
    """Cells of forest: points of very different heights in most cells around."""
    factor = max(round(2.0 / points.cell), 1)
    low, high = pool_min(_filled(points.z, np.inf), factor), -pool_min(-_filled(points.high, -np.inf), factor)
    some = np.isfinite(low)
    layered = some & (np.where(some, high, 0) - np.where(some, low, 0) > _LAYERED)
    size = round(20.0 / (points.cell * factor)) | 1
    share = cv2.blur(layered.astype(np.float32), (size, size)) / np.maximum(
        cv2.blur(some.astype(np.float32), (size, size)), np.float32(1e-3)
    )
    forest = share > _LAYERED_SHARE
    return np.kron(forest, np.ones((factor, factor), bool))[: points.z.shape[0], : points.z.shape[1]]


def _filled(z: Singles, value: float) -> Singles:
    return np.where(np.isfinite(z), z, np.float32(value))


def _forest_ground(points: LowestPoints, known: Bools, origin: tuple[int, int]) -> tuple[Singles, Bools]:
    """Ground under a canopy that lidar looks through, from coarse cells to fine ones."""
    surface, kept = np.zeros(points.z.shape, np.float32), known
    for level, size in enumerate(_LEVELS):
        trend, above = _over_trend(points, surface, level, size)
        lowest = pool_min(_filled(above, np.inf), size)
        some = np.isfinite(lowest)
        at = origin[0] // size, origin[1] // size
        coarse = membrane(lowest, some, origin=at)
        some &= opened_by_disk(-coarse, 1) + coarse >= -_LOW_FOREST
        if level > 0 and size <= 2:
            steep = -pool_min(-terrain_slope(trend, points.cell, 2.0), size)
            some &= ~_raised(membrane(lowest, some, origin=at), steep)
        surface = trend + _between(lowest, some, size, origin, points.z.shape)
        kept = known & some if size == 1 else kept
    return surface, kept


def _over_trend(points: LowestPoints, surface: Singles, level: int, size: int) -> tuple[Singles, Singles]:
    """Trend of the surface of the level before, and the heights of the points over it, each at its own place."""
    trend = surface if level == 0 else blur(surface, max(float(size), 2.0))
    (h, w), at = surface.shape, np.indices(surface.shape)
    row, column = at[0] + np.nan_to_num(points.down), at[1] + np.nan_to_num(points.right)
    above = points.z - bilinear(trend, np.clip(column, 0, w - 1), np.clip(row, 0, h - 1))
    return trend, above.astype(np.float32)


def _between(values: Singles, some: Bools, size: int, origin: tuple[int, int], shape: tuple[int, int]) -> Singles:
    """Values of some of the cells of ``size`` cells, interpolated between them and on the cells of a grid."""
    at = origin[0] // size, origin[1] // size
    return expand(membrane(values, some, origin=at), size, shape)


def _raised(z: Singles, steep: Singles) -> Bools:
    """Cells that openings lower by more than the ground of a forest is rough: small ones, and wider ones where few
    cells see the ground, for undergrowth that hides it lies in wide layers."""
    allowed = _FOREST_STEP + _FOREST_SLOPE * steep
    raised = _lowered(z, _FOREST_RADII, allowed)
    seen = cv2.blur((~raised).astype(np.float32), (_HIDDEN_AROUND, _HIDDEN_AROUND))
    return raised | (_lowered(z, _HIDDEN_RADII, allowed) & (seen < _HIDDEN))


def _lowered(z: Singles, radii: tuple[int, ...], allowed: Singles) -> Bools:
    """Cells that one of the openings in a row lowers by more than is allowed."""
    lowered, last = np.zeros(z.shape, bool), z
    for radius in radii:
        if radius >= min(z.shape):
            break
        opened = opened_by_disk(last, radius)
        lowered |= last - opened > allowed
        last = opened
    return lowered


def _slope(surface: Singles, cell: float) -> Singles:
    if min(surface.shape) < 2:
        return np.zeros_like(surface)
    return np.hypot(*np.gradient(blur(surface, 1.0), cell)).astype(np.float32)
