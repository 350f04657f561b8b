"""Rasters of any grid and CRS onto one common grid, displaced by a shift that is known or sought."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.filters import coarsen_raster
from terrain3d.crs import Reference, to_lonlat, transform_xy, utm_crs
from terrain3d.errors import OverlapError
from terrain3d.raster import Grid, Raster, bilinear

ROWS = 512  # rows resampled at a time
NODE_STEP = 32  # cells between exact transformations; in between they are bilinear
COARSER = 1.5  # ratio of resolutions from which on the finer raster is averaged first


class Readable(Protocol):
    """A raster that is read by windows. codes: whole numbers, 0 for none; else floats, NaN for none."""

    @property
    def grid(self) -> Grid:
        """Cells of the raster."""

    @property
    def codes(self) -> bool:
        """Whether the values are whole numbers."""

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Values of a window inside the grid, (height, width)."""


def common_grid(before: Grid, after: Grid) -> Grid:
    """Grid on which two epochs are compared: the cells of ``before`` over the area that both cover.

    Where ``before`` is geographic or much the finer of the two, a grid of square metres at the coarser resolution
    takes its place. Raises OverlapError if the areas do not meet.
    """
    horizontal = before.reference.horizontal
    if not before.reference.crs.is_projected:
        if after.reference.crs.is_projected:
            horizontal = after.reference.horizontal
        else:
            west, south, east, north = before.bounds
            lon, lat = to_lonlat(horizontal, np.array((west + east) / 2), np.array((south + north) / 2))
            horizontal = utm_crs(float(lon), float(lat))
    reference = Reference(horizontal, before.reference.vertical)
    first, second = _bounds_in(before, horizontal), _bounds_in(after, horizontal)
    west, south = max(first[0], second[0]), max(first[1], second[1])
    east, north = min(first[2], second[2]), min(first[3], second[3])
    fine, coarse = resolution_in(before, horizontal), resolution_in(after, horizontal)
    if min(east - west, north - south) < max(fine, coarse):
        raise OverlapError(
            f"the two surfaces do not overlap: {_place(before)} and {_place(after)}",
            fix="give two epochs of the same place, and check their CRS",
        )
    if horizontal == before.reference.horizontal and coarse < COARSER * fine:
        r = before.resolution
        row0, column0 = max(round((before.north - north) / r), 0), max(round((west - before.west) / r), 0)
        row1 = min(round((before.north - south) / r), before.height)
        column1 = min(round((east - before.west) / r), before.width)
        return before.window(row0, column0, max(row1 - row0, 1), max(column1 - column0, 1))
    resolution = float(f"{max(fine, coarse):.3g}")
    return Grid.from_bounds(reference, west, south, east, north, resolution)


def resolution_in(grid: Grid, horizontal: str) -> float:
    """Cell size of a grid in units of another CRS, at the grid's centre."""
    if grid.reference.horizontal == horizontal:
        return grid.resolution
    west, south, east, north = grid.bounds
    x, y = (west + east) / 2, (south + north) / 2
    d = grid.resolution / 2
    u, v = transform_xy(
        grid.reference.horizontal, horizontal, np.array([x - d, x + d, x, x]), np.array([y, y, y - d, y + d])
    )
    return float(np.sqrt(np.hypot(u[1] - u[0], v[1] - v[0]) * np.hypot(u[3] - u[2], v[3] - v[2])))


def on_grid(source: Raster | Readable, grid: Grid, east: float = 0.0, north: float = 0.0) -> NDArray[Any]:
    """Values of a raster on the cells of ``grid``, (height, width), reading no more of it than they need.

    Much finer rasters are averaged first, in blocks that start at multiples of their size, so that parts of a grid
    get what the whole would. (east, north) and the values as in ``resample``.
    """
    own = source.grid
    ratio = grid.resolution / resolution_in(own, grid.reference.horizontal)
    factor = max(1, round(ratio)) if ratio >= COARSER else 1
    codes = not np.issubdtype(source.values.dtype, np.floating) if isinstance(source, Raster) else source.codes
    fill = 0 if codes else np.nan
    columns, rows = _ends(grid, own, east, north)
    c0, r0 = (max(int(np.floor(v.min())) // factor - 1, 0) * factor for v in (columns, rows))
    c1, r1 = (
        min((int(np.ceil(v.max())) // factor + 3) * factor, n) for v, n in ((columns, own.width), (rows, own.height))
    )
    if c1 <= c0 or r1 <= r0:
        return np.full(grid.shape, fill, np.uint8 if codes else np.float32)
    values = source.read(r0, c0, r1 - r0, c1 - c0)
    part = coarsen_raster(Raster(values, own.window(r0, c0, r1 - r0, c1 - c0)), factor)
    if min(part.grid.shape) == 0:
        return np.full(grid.shape, fill, values.dtype)
    return resample(part, grid, east, north).values


def _ends(grid: Grid, source: Grid, east: float, north: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns and rows of ``source`` along the rim and through the middle of ``grid``."""
    x, y = grid.centres()
    x = x[np.unique(np.linspace(0, grid.width - 1, 9).astype(int))] + east
    y = y[np.unique(np.linspace(0, grid.height - 1, 9).astype(int))] + north
    u, v = transform_xy(grid.reference.horizontal, source.reference.horizontal, *np.meshgrid(x, y))
    return source.column_row(u, v)


def resample(raster: Raster, grid: Grid, east: float = 0.0, north: float = 0.0) -> Raster:
    """Values of ``raster`` on the cells of ``grid``, read (east, north) units of the grid's CRS away from each cell.

    Floats: bilinear, NaN next to a void. Integers (codes): nearest, 0 outside.
    """
    codes = not np.issubdtype(raster.values.dtype, np.floating)
    fast = _of_equal_cells(raster, grid, east, north, codes)
    if fast is not None:
        return Raster(fast, grid)
    out: NDArray[Any] = np.zeros(grid.shape, raster.values.dtype if codes else np.float32)
    for row in range(0, grid.height, ROWS):
        part = grid.window(row, 0, min(ROWS, grid.height - row), grid.width)
        columns, rows = source_indices(part, raster.grid, east, north)
        out[row : row + part.height] = ndimage.map_coordinates(
            raster.values, (rows, columns), order=0 if codes else 1, cval=0 if codes else np.nan, mode="constant"
        )
    return Raster(out, grid)


def _of_equal_cells(raster: Raster, grid: Grid, east: float, north: float, codes: bool) -> NDArray[Any] | None:
    """The result of ``resample`` where both grids have cells of one size and direction: weighted slices; else None."""
    own = raster.grid
    if own.reference.horizontal != grid.reference.horizontal or own.resolution != grid.resolution:
        return None
    column = (grid.west + east - own.west) / own.resolution
    row = (own.north - grid.north - north) / own.resolution
    if codes:
        column, row = float(np.floor(column + 0.5)), float(np.floor(row + 0.5))
    column, row = (round(v) if abs(v - round(v)) < 1e-6 else v for v in (column, row))
    if (column, row) == (0, 0) and own.shape == grid.shape:
        return raster.values
    c0, r0 = int(np.floor(column)), int(np.floor(row))
    u, v = np.float32(column - c0), np.float32(row - r0)
    padded = _window_with_rim(raster.values, r0, c0, grid.height + 1, grid.width + 1, 0 if codes else np.nan)
    if u > 0:
        padded = padded[:, :-1] * (1 - u) + padded[:, 1:] * u
    else:
        padded = padded[:, :-1]
    return padded[:-1] * (1 - v) + padded[1:] * v if v > 0 else padded[:-1]


def _window_with_rim(values: NDArray[Any], row: int, column: int, height: int, width: int, fill: float) -> NDArray[Any]:
    """A window of values that may reach beyond them, ``fill`` there."""
    out = np.full((height, width), fill, values.dtype)
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + height, values.shape[0]), min(column + width, values.shape[1])
    if bottom > top and right > left:
        out[top - row : bottom - row, left - column : right - column] = values[top:bottom, left:right]
    return out


def source_indices(
    grid: Grid, source: Grid, east: float, north: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Continuous columns and rows of ``source`` at the cells of ``grid`` displaced by (east, north)."""
    x, y = grid.centres()
    x, y = x + east, y + north
    same = grid.reference.horizontal == source.reference.horizontal
    step = max(grid.width, grid.height) if same else NODE_STEP
    at_column = np.unique(np.r_[np.arange(0, grid.width, step), grid.width - 1])
    at_row = np.unique(np.r_[np.arange(0, grid.height, step), grid.height - 1])
    u, v = transform_xy(grid.reference.horizontal, source.reference.horizontal, *np.meshgrid(x[at_column], y[at_row]))
    nodes = source.column_row(u, v)
    if same:
        column, row = nodes[0][0], nodes[1][:, 0]
        columns = np.interp(np.arange(grid.width), at_column, column) if grid.width > 1 else column
        rows = np.interp(np.arange(grid.height), at_row, row) if grid.height > 1 else row
        shape = (grid.height, grid.width)
        return np.broadcast_to(columns[None, :], shape), np.broadcast_to(rows[:, None], shape)
    across = np.interp(np.arange(grid.width), at_column, np.arange(at_column.size))
    down = np.interp(np.arange(grid.height), at_row, np.arange(at_row.size))
    lattice = np.meshgrid(across, down)
    return bilinear(nodes[0], *lattice), bilinear(nodes[1], *lattice)


def _bounds_in(grid: Grid, horizontal: str) -> tuple[float, float, float, float]:
    west, south, east, north = grid.bounds
    if grid.reference.horizontal == horizontal:
        return west, south, east, north
    t = np.linspace(0, 1, 21)
    x = west + (east - west) * np.r_[t, t, 0 * t, 0 * t + 1]
    y = south + (north - south) * np.r_[0 * t, 0 * t + 1, t, t]
    u, v = transform_xy(grid.reference.horizontal, horizontal, x, y)
    inside = np.isfinite(u) & np.isfinite(v)
    if not inside.any():
        return np.inf, np.inf, -np.inf, -np.inf
    return float(u[inside].min()), float(v[inside].min()), float(u[inside].max()), float(v[inside].max())


def _place(grid: Grid) -> str:
    west, south, east, north = grid.bounds
    lon, lat = to_lonlat(grid.reference.horizontal, np.array((west + east) / 2), np.array((south + north) / 2))
    return f"{float(lat):.4f}, {float(lon):.4f} (latitude, longitude)"
