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

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import bilinear
from terrain3d.surface.membrane import membrane

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

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


def ground_cells(heights: Singles, resolution: float, measured: Bools | None = None) -> Ground:
    """Ground of a surface model.

    heights: (h, w) float32 metres, NaN voids (fill the small ones first: ``voids.fill_voids``). measured: cells that
    may carry ground, by default all with a value; filled cells shape the openings but are no evidence.
    """
    z = np.asarray(heights, np.float32)
    evidence = np.isfinite(z) if measured is None else measured & np.isfinite(z)
    if not evidence.any():
        return Ground(
            np.zeros(z.shape, bool), np.full(z.shape, np.nan, np.float32), np.full(z.shape, np.nan, np.float32)
        )
    factor = max(round(_CELL / resolution), 1)
    cell = resolution * factor
    plane, tilt = _plane(z, evidence, resolution)  # without it, forest at the border of a slope has no floor
    level = z - plane
    coarse = _pool_mean(level, np.isfinite(z), factor)
    ok = np.isfinite(_pool_mean(level, evidence, factor))
    ok &= np.isfinite(coarse)
    work = membrane(coarse)
    if cell <= 2 * _CELL:
        work = _blur(work, _CELL / cell)
    ok &= ~_low_outliers(work, cell)
    work = membrane(np.where(ok | ~np.isfinite(coarse), work, np.float32(np.nan))) if not ok.all() else work
    cut = cv2.dilate(_openings(work, cell).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    surface, cut = _with_terrain_back(work, ok, ok, cut, cell)
    slope = terrain_slope(surface, cell)
    keep = ok & (np.abs(work - surface) <= _TOLERANCE + 0.3 * slope)
    keep = _canopy_floor(work, keep, ok, cell)
    if not keep.any():
        keep = ok
    surface = membrane(work, keep)
    slope = terrain_slope(surface, cell, tilt=tilt)
    out = _expand(surface, factor, z.shape) + plane
    steep = _expand(slope, factor, z.shape)
    near = np.abs(z - out) <= _TOLERANCE + 0.3 * steep
    return Ground(evidence & near & _expand_mask(keep, factor, z.shape), out, steep)


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


def _plane(z: Singles, evidence: Bools, resolution: float) -> tuple[Singles, tuple[float, float]]:
    """Plane through the evidence by least squares, (h, w), and its rise per metre along columns and rows."""
    rows, columns = np.nonzero(evidence)
    step = max(rows.size // 20_000, 1)
    rows, columns = rows[::step], columns[::step]
    mean = float(np.mean(z[rows, columns], dtype=np.float64))
    if np.ptp(rows) < 2 or np.ptp(columns) < 2:
        return np.full(z.shape, mean, np.float32), (0.0, 0.0)
    design = np.column_stack([columns, rows, np.ones(rows.size)]).astype(float)
    a, b, c = np.linalg.lstsq(design, z[rows, columns] - mean, rcond=None)[0]
    plane = a * np.arange(z.shape[1]) + b * np.arange(z.shape[0])[:, None] + c + mean
    return plane.astype(np.float32), (float(a) / resolution, float(b) / resolution)


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


def _with_terrain_back(z: Singles, ok: Bools, joined: Bools, cut: Bools, cell: float) -> tuple[Singles, Bools]:
    """Ground surface and the cut cells that remain after what joins the ground without a step is given back.

    ok: cells with evidence; joined: cells over which terrain may be followed.
    """
    if (ok & ~cut).sum() < 3:
        cut = np.zeros_like(cut)
    surface = membrane(z, ok & ~cut)
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
    return membrane(z, ok & ~cut), cut


def _canopy_floor(z: Singles, keep: Bools, ok: Bools, cell: float) -> Bools:
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
        trend = _blur(membrane(z, kept), 6.0 / cell)
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


def _pool_mean(z: Singles, ok: Bools, factor: int) -> Singles:
    """Mean of the valid cells of each block; NaN where there is none."""
    if factor == 1:
        return np.where(ok, z, np.float32(np.nan))
    total = _blocks(np.where(ok, z, np.float32(0)), factor, 0).sum((1, 3))
    n = _blocks(ok.astype(np.float32), factor, 0).sum((1, 3))
    return np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)


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
