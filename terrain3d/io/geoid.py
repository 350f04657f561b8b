"""Heights between the WGS 84 ellipsoid and geoids given by grids: H = h - N, N the undulation.

The grids are read here and never left to PROJ, which returns heights unchanged when a grid is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from terrain3d.crs import Reference, Vertical, to_lonlat, vertical_from_name
from terrain3d.errors import FrameError
from terrain3d.io.rasters import open_raster
from terrain3d.raster import Grid, Raster, bilinear

Floats = NDArray[np.float64]
NODE_STEP = 64  # cells between the nodes where a raster's undulation is computed
NODE_METRES = 500.0  # and their distance at most: an undulation bends by millimetres over it


@dataclass(frozen=True)
class GeoidGrid:
    """Undulations at nodes: ``values`` (rows, columns), first node at (west, north), steps in degrees, row southward.

    Values carry two nodes more on every side than the file where it goes around the Earth, for the cubic kernel.
    """

    values: NDArray[np.float32]
    west: float
    north: float
    step_x: float
    step_y: float
    is_global: bool


def undulation(vertical: Vertical, lon_deg: Any, lat_deg: Any) -> Floats:
    """Height of the geoid over the WGS 84 ellipsoid, metres, at longitudes (any turn) and latitudes in degrees.

    Cubic convolution between the nodes of the grid. Zero for the ellipsoid itself. Raises FrameError if the vertical
    reference has no grid, or a point lies outside the grid or where it has no value.
    """
    lon, lat = np.broadcast_arrays(np.asarray(lon_deg, float), np.asarray(lat_deg, float))
    if vertical.is_ellipsoid:
        return np.zeros(lon.shape)
    if not vertical.is_declared:
        raise FrameError("heights have no declared vertical reference", fix="state ellipsoid, egm96 or a geoid grid")
    if vertical.grid_path is None:
        raise FrameError(f"no geoid grid for vertical reference '{vertical.name}'", fix="give the path of its grid")
    grid = _load(vertical.grid_path)
    column, row = (lon - grid.west) / grid.step_x, (grid.north - lat) / grid.step_y
    if grid.is_global:
        column = (column - 2) % round(360 / grid.step_x) + 2
    else:  # the turn of the Earth that is nearest to the grid's middle
        middle, turn = (grid.values.shape[1] - 1) / 2, 360 / grid.step_x
        column = middle + (column - middle + turn / 2) % turn - turn / 2
    n = _cubic(grid.values, column, row)
    outside = ~np.isfinite(n) | ~(np.abs(lat) <= 90)
    if outside.any():
        where = np.flatnonzero(outside.ravel())[0]
        raise FrameError(
            f"geoid grid has no value at longitude {lon.ravel()[where]:.4f}, latitude {lat.ravel()[where]:.4f}",
            where=vertical.grid_path,
            fix="use a grid that covers the area",
        )
    return n


def egm96_height(crs: str, x: float, y: float) -> float:
    """Height of the geoid EGM96 over the WGS 84 ellipsoid at a place of a CRS, metres."""
    lon, lat = to_lonlat(crs, np.array([x]), np.array([y]))
    return float(undulation(vertical_from_name("egm96"), lon, lat)[0])


def convert_heights(lon_deg: Any, lat_deg: Any, height: Any, source: Vertical, target: Vertical) -> Floats:
    """Heights at points from one vertical reference to another; NaN heights stay NaN. Raises FrameError."""
    _check_declared(source, target)
    if source == target:
        return np.asarray(height, float)
    lon, lat, h = np.broadcast_arrays(*(np.asarray(a, float) for a in (lon_deg, lat_deg, height)))
    out, known = h.copy(), np.isfinite(h)
    out[known] += undulation(source, lon[known], lat[known]) - undulation(target, lon[known], lat[known])
    return out


def to_vertical(raster: Raster, vertical: Vertical) -> Raster:
    """The raster of heights in another vertical reference. Raises FrameError if either has no grid or is undeclared."""
    source = raster.grid.reference.vertical
    _check_declared(source, vertical)
    if source == vertical:
        return raster
    shift = undulation_on(raster.grid, source) - undulation_on(raster.grid, vertical)
    grid = replace(raster.grid, reference=Reference(raster.grid.reference.horizontal, vertical))
    return Raster((raster.values + shift).astype(np.float32), grid)


def undulation_on(grid: Grid, vertical: Vertical) -> Floats:
    """Undulation at the cell centres of a grid, (height, width), from nodes some 500 m apart at most."""
    if vertical.is_ellipsoid:
        return np.zeros(grid.shape)
    step = int(np.clip(NODE_METRES / grid.cell_metres, 1, NODE_STEP))
    x, y = grid.centres()
    columns = np.unique(np.r_[np.arange(0, grid.width, step), grid.width - 1])
    rows = np.unique(np.r_[np.arange(0, grid.height, step), grid.height - 1])
    mx, my = np.meshgrid(x[columns], y[rows])
    nodes = undulation(vertical, *to_lonlat(grid.reference.horizontal, mx, my))
    across = np.interp(np.arange(grid.width), columns, np.arange(columns.size))
    down = np.interp(np.arange(grid.height), rows, np.arange(rows.size))
    return bilinear(nodes, *np.meshgrid(across, down))


def _check_declared(*verticals: Vertical) -> None:
    if not all(v.is_declared for v in verticals):
        raise FrameError(
            "heights have no declared vertical reference and cannot be converted",
            fix="declare it in the file's CRS (ellipsoid: a 3D CRS; EGM96: compound with EPSG:5773)",
        )


@lru_cache(maxsize=4)
def _load(path: str) -> GeoidGrid:
    with open_raster(path) as file:
        values = _undulations(file, path)
        t = file.transform
        # Nodes are cell centres: GDAL presents a GTX, whose records are nodes, as cells around them.
        west, north, step_x, step_y = t.c + t.a / 2, t.f + t.e / 2, t.a, -t.e
    columns = round(360 / step_x)
    is_global = abs(columns * step_x - 360) < 1e-6 and values.shape[1] >= columns
    if is_global:
        values = np.pad(values[:, :columns], ((0, 0), (2, 3)), mode="wrap")
        west -= 2 * step_x
    return GeoidGrid(values, west, north, step_x, step_y, is_global)


def _undulations(file: DatasetReader, path: str) -> NDArray[np.float32]:
    t = file.transform
    if t.b or t.d or t.a <= 0 or t.e >= 0 or (file.crs is not None and not file.crs.is_geographic):
        raise FrameError("geoid grid is not a north-up grid in longitude and latitude", where=Path(path))
    values = np.ma.filled(file.read([1], masked=True)[0].astype(np.float32), np.nan) * file.scales[0] + file.offsets[0]
    finite = np.abs(values[np.isfinite(values)])
    if not finite.size or finite.max() > 200:  # the geoid stays within -107 m and +86 m of the ellipsoid
        raise FrameError("grid does not hold geoid undulations in metres", where=Path(path))
    return values.astype(np.float32)


def _cubic(values: NDArray[np.float32], column: Floats, row: Floats) -> Floats:
    """Cubic convolution (Keys 1981, a = -1/2) at continuous indices; NaN outside."""
    height, width = values.shape
    slack = 1e-6
    inside = (column >= -slack) & (row >= -slack) & (column <= width - 1 + slack) & (row <= height - 1 + slack)
    c, r = np.where(inside, column, 0.0), np.where(inside, row, 0.0)
    c0, r0 = np.clip(np.floor(c), 0, width - 2), np.clip(np.floor(r), 0, height - 2)
    wc, wr = _weights(c - c0), _weights(r - r0)
    out = np.zeros(c.shape)
    for i in range(4):
        rows = np.clip(r0 + i - 1, 0, height - 1).astype(np.int64)
        for j in range(4):
            columns = np.clip(c0 + j - 1, 0, width - 1).astype(np.int64)
            out += wr[i] * wc[j] * values[rows, columns]
    return np.where(inside, out, np.nan)


def _weights(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return (
        ((-t + 2) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((-3 * t + 4) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
