"""Ground filter for surface models and point clouds: one set of parameters for town, forest and mountain.

Progressive morphological opening with a slope rule (Pingel, Clarke & McBride 2013, SMRF), and four additions that
stereo surfaces need:

- windows wider than a house allow the slope of the landform on top, so that ridges keep their crest;
- what the opening cut but what the terrain reaches without a step (brows, embankments) is given back;
- the blurred rim of walls is left out, and cells are judged against a smoothed surface, so that matching noise
  does not thin the ground;
- in rough surroundings (canopy) a wide opening of the surface without its trend finds the floor of the gaps.

The work is done at a cell of about 1 m and is linear in the number of cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster, bilinear
from terrain3d.surface.coarse import pooled
from terrain3d.surface.membrane import membrane

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

GROUND_MARGIN = 256.0  # m: the openings in a row, and what is smoothed and connected after them (measured)
_CELL = 1.0  # m, the cell of the work
_RADII = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 22, 27, 33, 40)  # m; twice the last: the widest building
_POOL_FROM = 12  # m: wider windows are opened at twice the cell
_SLOPE = 0.15  # rise per metre of window that is still terrain
_RIDGES_FROM, _RIDGES_FULL = 14.0, 22.0  # m: wider windows also allow the slope of the landform
_SMOOTH_SLOPE = 0.4  # slope against the trend that terrain reaches without a step
_TOLERANCE = 0.5  # m from the ground surface
_LOW_SLOPE = 5.0  # a cell that lies this steeply under all its neighbours is an error
_ROUGH, _ROUGH_SHARE = 0.2, 0.3  # m in 5 m windows, and the share of them that makes a canopy; noise is half of it
_FLOOR_RADIUS = 25.0  # m: a gap that shows the ground is hardly ever farther away
_CLIFF = 0.9  # rise over run


@dataclass(frozen=True)
class Ground:
    """Ground of a raster. mask: (h, w) cells on the ground; surface: (h, w) float32 terrain everywhere, metres;
    slope: (h, w) float32, rise over run of the terrain. All NaN / False if there was nothing to filter."""

    mask: Bools
    surface: Singles
    slope: Singles


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


def ground_cells(heights: Raster, measured: Bools | None = None) -> Ground:
    """Ground of a surface model.

    heights: (h, w) float32 metres, NaN voids (fill the small ones first: ``voids.fill_voids``). measured: cells that
    may carry ground, by default all with a value; filled cells shape the openings but are no evidence.
    """
    z = np.asarray(heights.values, np.float32)
    evidence = np.isfinite(z) if measured is None else measured & np.isfinite(z)
    plane = fit_plane(replace(heights, values=np.where(evidence, z, np.float32(np.nan))))
    if plane is None:
        nothing = np.full(z.shape, np.nan, np.float32)
        return Ground(np.zeros(z.shape, bool), nothing, nothing.copy())
    return fine_ground(heights, evidence, coarse_ground(heights, evidence, plane), plane)


def coarse_factor(resolution: float) -> int:
    """Cells a side that make one of the coarse cells, of about 1 m, that the filter works with."""
    return max(round(_CELL / resolution), 1)


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
    ok = np.isfinite(coarse) & (-_pool_min(-(evidence & np.isfinite(level)).astype(np.float32), factor) > 0)
    if not ok.any():
        nothing = np.full(coarse.shape, np.nan, np.float32)
        return Ground(ok, nothing, nothing.copy())
    work = membrane(coarse, origin=origin)
    if cell <= 2 * _CELL:
        work = _blur(work, _CELL / cell)
    ok &= ~_low_outliers(work, cell)
    if not ok.all():
        work = membrane(np.where(ok | ~np.isfinite(coarse), work, np.float32(np.nan)), origin=origin)
    cut = cv2.dilate(_openings(work, cell).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    surface, cut = _with_terrain_back(work, ok, ok, cut, cell, origin)
    slope = terrain_slope(surface, cell)
    keep = ok & (np.abs(work - surface) <= _TOLERANCE + 0.3 * slope)
    keep = _canopy_floor(work, keep, ok, cell, origin)
    if not keep.any():
        keep = ok
    surface = membrane(work, keep, origin=origin)
    return Ground(keep, surface, terrain_slope(surface, cell, tilt=(plane.east, -plane.north)))


def fine_ground(heights: Raster, evidence: Bools, coarse: Ground, plane: Plane) -> Ground:
    """Ground on the cells of ``heights`` from that on the coarse cells over them."""
    z = np.asarray(heights.values, np.float32)
    factor = coarse_factor(heights.grid.resolution)
    out = _expand(coarse.surface, factor, z.shape) + plane.on(heights.grid)
    steep = _expand(coarse.slope, factor, z.shape)
    near = np.abs(z - out) <= _TOLERANCE + 0.3 * steep
    return Ground(evidence & near & _expand_mask(coarse.mask, factor, z.shape), out, steep)


def ground_points(xyz: NDArray[np.float64], cell: float = _CELL) -> Bools:
    """Which points lie on the ground: (N, 3) metres to (N,) bool.

    cell: grid of the work, metres; about the spacing of the points. Errors far below the ground are not ground.
    """
    if not len(xyz):
        return np.zeros(0, bool)
    x, y = xyz[:, 0] - xyz[:, 0].min(), xyz[:, 1] - xyz[:, 1].min()
    base = float(np.median(xyz[:, 2]))
    z = xyz[:, 2] - base
    column, row = (x / cell).astype(np.int64), (y / cell).astype(np.int64)
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    index = row * shape[1] + column
    order = np.lexsort((z, index))
    first = np.flatnonzero(np.diff(index[order], prepend=-1))
    lowest = order[first]  # the lowest point of each cell
    heights = np.full(shape, np.nan, np.float32)
    heights.ravel()[index[lowest]] = z[lowest]
    known = np.isfinite(heights)
    known &= ~_low_outliers(membrane(heights), cell)
    work = membrane(heights, known)
    cut = _openings(work, cell)
    surface, cut = _with_terrain_back(work, known, np.ones(shape, bool), cut, cell)
    # move each cell's lowest height from where it was measured to the cell's centre, along the slope
    gy, gx = np.gradient(_blur(surface, 1.0), cell) if min(shape) > 1 else np.zeros((2, *shape))
    dx, dy = np.zeros(shape), np.zeros(shape)
    dx.ravel()[index[lowest]] = (column[lowest] + 0.5) * cell - x[lowest]
    dy.ravel()[index[lowest]] = (row[lowest] + 0.5) * cell - y[lowest]
    surface = membrane((work + gx * dx + gy * dy).astype(np.float32), known & ~cut)
    c = np.clip(x / cell - 0.5, 0, shape[1] - 1)
    r = np.clip(y / cell - 0.5, 0, shape[0] - 1)
    height, slope = bilinear(surface, c, r), bilinear(np.hypot(gx, gy), c, r)
    return np.asarray(np.abs(z - height) <= _TOLERANCE + slope)


def terrain_slope(surface: Singles, cell: float, scale: float = 4.0, tilt: tuple[float, float] = (0.0, 0.0)) -> Singles:
    """Rise over run of a surface smoothed over ``scale`` metres, (h, w) float32.

    tilt: rise per metre along columns and rows of a plane that was taken off the surface.
    """
    if min(surface.shape) < 2:
        return np.full(surface.shape, np.hypot(*tilt), np.float32)
    gy, gx = np.gradient(_blur(surface, scale / cell), cell)
    return np.hypot(gx + tilt[0], gy + tilt[1]).astype(np.float32)


def ground_share(ground: NDArray[Any], resolution: float) -> Singles:
    """Share of ground cells within about 5 m (mean of any mask or weight), (h, w) float32."""
    size = int(2 * round(5.0 / resolution)) + 1
    return np.asarray(cv2.blur(ground.astype(np.float32), (size, size)), np.float32)


def _blur(z: Singles, sigma: float) -> Singles:
    return np.asarray(cv2.GaussianBlur(z, (0, 0), sigma), np.float32)


def _disk(radius: int) -> NDArray[np.uint8]:
    q = np.arange(-radius, radius + 1)
    return (q[:, None] ** 2 + q**2 <= radius**2).astype(np.uint8)


def _opened(z: Singles, radius: int) -> Singles:
    """Opening by a disk of ``radius`` cells; borders are mirrored so that they are treated as inner cells are."""
    pad = min(radius, min(z.shape) - 1)
    padded = cv2.copyMakeBorder(z, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    out = cv2.morphologyEx(padded, cv2.MORPH_OPEN, _disk(radius))
    return np.asarray(out[pad : pad + z.shape[0], pad : pad + z.shape[1]])


def _openings(z: Singles, cell: float) -> Bools:
    """Cells that an opening of growing window lowers by more than terrain of slope ``_SLOPE`` would be."""
    cut = np.zeros(z.shape, bool)
    last, factor, done = z, 1, 0
    steep = _regional_slope(z, cell)
    for radius in _RADII:
        if radius >= _POOL_FROM and factor == 1:
            factor = 2
            last = _pool_min(last, 2)
            steep = -_pool_min(-steep, 2)
        cells = round(radius / (cell * factor))
        if cells == done or cells < 1 or cells >= max(last.shape):
            continue
        done = cells
        opened = _opened(last, cells)
        share = min(max((radius - _RIDGES_FROM) / (_RIDGES_FULL - _RIDGES_FROM), 0.0), 1.0)
        allowed = _SLOPE + np.float32(share) * steep
        lowered = last - opened > allowed * (cells * cell * factor)
        cut |= lowered if factor == 1 else np.kron(lowered, np.ones((2, 2), bool))[: z.shape[0], : z.shape[1]]
        last = opened
    return cut


def _regional_slope(z: Singles, cell: float) -> Singles:
    """Slope of the landform around each cell, rise over run: that of the widest opening, smoothed and widened.

    Wide buildings stand on flat land; where the land is steep, what a wide window cuts is a ridge.
    """
    factor = max(round(4 * _CELL / cell), 1)
    coarse = _opened(_pool_min(z, factor), max(round(_RADII[-1] / (cell * factor)), 1))
    if min(coarse.shape) < 3:
        return np.zeros_like(z)
    slope = terrain_slope(coarse, cell * factor, 12.0)
    slope = _blur(np.asarray(cv2.dilate(slope, _disk(max(round(18 / (cell * factor)), 1)))), 2.0)
    return _expand(slope, factor, (z.shape[0], z.shape[1]))


def _low_outliers(z: Singles, cell: float) -> Bools:
    """Cells far below their surroundings: what a small closing lifts by more than any terrain needs."""
    return np.asarray(-z - _opened(-z, max(round(_CELL / cell), 1)) > _LOW_SLOPE * max(cell, _CELL))


def _with_terrain_back(
    z: Singles, ok: Bools, joined: Bools, cut: Bools, cell: float, origin: tuple[int, int] = (0, 0)
) -> tuple[Singles, Bools]:
    """Ground surface and the cut cells that remain after what joins the ground without a step is given back.

    ok: cells with evidence; joined: cells over which terrain may be followed.
    """
    if (ok & ~cut).sum() < 3:
        cut = np.zeros_like(cut)
    surface = membrane(z, ok & ~cut, origin=origin)
    if min(z.shape) < 3:
        return surface, cut
    gy, gx = np.gradient(z - _blur(surface, 15 / cell), cell)
    smooth = (joined & (np.hypot(gx, gy) < _SMOOTH_SLOPE)).astype(np.uint8)
    # narrow bridges of chance between a roof and the ground are opened away
    smooth = cv2.morphologyEx(smooth, cv2.MORPH_OPEN, _disk(max(round(2 / cell), 1)))
    n, labels = cv2.connectedComponents(smooth, connectivity=4)
    size = np.bincount(labels.ravel(), minlength=n)
    ground = np.bincount(labels[~cut], minlength=n)
    accepted = ground >= 0.3 * np.maximum(size, 1)
    accepted[0] = False
    cut = cut & ~accepted[labels]
    return membrane(z, ok & ~cut, origin=origin), cut


def _canopy_floor(z: Singles, keep: Bools, ok: Bools, cell: float, origin: tuple[int, int]) -> Bools:
    """Ground cells without those that stand high in rough surroundings: what a canopy's own steps let through.

    Forest rises from its gaps in steps too small for a growing window. The trend is taken off, so that one wide opening
    reaches the floor of the gaps in a single step also on slopes. Smooth surroundings are left alone.
    """
    rough = _roughness(z - _blur(z, 5.0 / cell), cell) > _ROUGH
    size = round(20.0 / cell) | 1
    canopy = cv2.blur(rough.astype(np.float32), (size, size)) > _ROUGH_SHARE
    if not canopy.any():
        return keep
    trend = _blur(z, 15.0 / cell)
    kept = keep
    for _ in range(2):
        slope = terrain_slope(trend, cell, 8.0)
        above = z - trend
        opened = _opened(np.where(canopy & ~ok, np.float32(60), np.minimum(above, 60)), round(_FLOOR_RADIUS / cell))
        allowed = 0.4 + 0.3 * np.minimum(slope, 1) + 20.0 * np.maximum(slope - _CLIFF, 0)  # no floor to find on cliffs
        kept = keep & ~(canopy & (above - opened > allowed))
        if not kept.any():
            return keep
        trend = _blur(membrane(z, kept, origin=origin), 6.0 / cell)
    return kept


def _roughness(z: Singles, cell: float) -> Singles:
    """Standard deviation in windows of 5 m."""
    size = (max(round(5.0 / cell) | 1, 3),) * 2
    mean = cv2.blur(z, size)
    return np.sqrt(cv2.blur(np.square(z - mean), size))


def _blocks(a: NDArray[Any], factor: int, fill: Any) -> NDArray[Any]:
    h, w = a.shape
    rows, columns = -(-h // factor), -(-w // factor)
    padded = np.pad(a, ((0, rows * factor - h), (0, columns * factor - w)), constant_values=fill)
    return padded.reshape(rows, factor, columns, factor)


def _pool_min(z: Singles, factor: int) -> Singles:
    return np.asarray(_blocks(z, factor, np.inf).min((1, 3)), np.float32)


def _expand(a: Singles, factor: int, shape: tuple[int, int]) -> Singles:
    """Bilinear values at ``factor`` times the resolution, cut to ``shape``."""
    if factor == 1:
        return a
    big = cv2.resize(a, (a.shape[1] * factor, a.shape[0] * factor), interpolation=cv2.INTER_LINEAR)
    return np.asarray(big[: shape[0], : shape[1]])


def _expand_mask(a: Bools, factor: int, shape: tuple[int, int]) -> Bools:
    return np.kron(a, np.ones((factor, factor), bool))[: shape[0], : shape[1]]
