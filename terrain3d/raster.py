"""Grids and rasters as values: where the cells lie, what reference they have, and the numbers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference, metres_per_unit

Floats = NDArray[np.float64]
METRES_PER_DEGREE = 111_320.0  # of latitude
Bounds = tuple[float, float, float, float]  # west, south, east, north


def widened(b: Bounds, metres: float) -> Bounds:
    """Bounds with so much more on all sides."""
    return b[0] - metres, b[1] - metres, b[2] + metres, b[3] + metres


@dataclass(frozen=True)
class Growth:
    """How a grid came to reach farther. before: its bounds until then. beyond: bounds of what lies outside them."""

    before: Bounds
    beyond: tuple[Bounds, ...]


@dataclass(frozen=True)
class Grid:
    """A north-up grid of square cells. ``west`` and ``north`` are the outer corner of the first cell (GDAL, Area).

    grown: how it came to be as large as it is, the first step first; blocks of before stay as they were.
    """

    reference: Reference
    west: float
    north: float
    resolution: float
    height: int
    width: int
    grown: tuple[Growth, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_bounds(
        cls, reference: Reference, west: float, south: float, east: float, north: float, resolution: float
    ) -> Grid:
        """Smallest grid over the bounds whose corners are multiples of the resolution, so that tiles fit together."""
        column0, column1 = floor(west / resolution + 1e-6), ceil(east / resolution - 1e-6)
        row0, row1 = floor(-north / resolution + 1e-6), ceil(-south / resolution - 1e-6)
        return cls(
            reference,
            column0 * resolution,
            -row0 * resolution,
            resolution,
            max(row1 - row0, 1),
            max(column1 - column0, 1),
        )

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def bounds(self) -> Bounds:
        """west, south, east, north of the outer edges."""
        return (
            self.west,
            self.north - self.height * self.resolution,
            self.west + self.width * self.resolution,
            self.north,
        )

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the first cell, counted from the origin of the reference; they only depend on the place."""
        row, column = (floor(v / self.resolution + 0.5 - 1e-6) for v in (-self.north, self.west))
        return row, column

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients (a, b, c, d, e, f) from (column, row) corners to (x, y)."""
        return self.resolution, 0.0, self.west, 0.0, -self.resolution, self.north

    @property
    def cell_metres(self) -> float:
        """Height of a cell in metres: of a geographic grid, that of its degrees along the meridian."""
        crs = self.reference.crs
        return self.resolution * (METRES_PER_DEGREE if crs.is_geographic else metres_per_unit(crs)[0])

    def centres(self) -> tuple[Floats, Floats]:
        """x of every column and y of every row at cell centres: shapes (width,), (height,)."""
        return (
            self.west + (np.arange(self.width, dtype=float) + 0.5) * self.resolution,
            self.north - (np.arange(self.height, dtype=float) + 0.5) * self.resolution,
        )

    def lattice(self, nodes: int) -> tuple[Floats, Floats]:
        """x and y, (nodes, nodes) each, of points spread evenly over the bounds, on their edges too."""
        west, south, east, north = self.bounds
        x, y = np.meshgrid(np.linspace(west, east, nodes), np.linspace(south, north, nodes))
        return x, y

    def column_row(self, x: Any, y: Any) -> tuple[Floats, Floats]:
        """Continuous column and row, integer at cell centres."""
        return (
            (np.asarray(x, float) - self.west) / self.resolution - 0.5,
            (self.north - np.asarray(y, float)) / self.resolution - 0.5,
        )

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """Part of this grid that starts at (row, column)."""
        return replace(
            self,
            west=self.west + column * self.resolution,
            north=self.north - row * self.resolution,
            height=height,
            width=width,
            grown=(),
        )


@dataclass(frozen=True)
class Raster:
    """Values on a grid: ``values`` is (height, width) or (bands, height, width), float32 with NaN for no value,
    or an integer type (classes, masks) where 0 may be declared as nodata by its writer."""

    values: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.values.shape[-2:] != self.grid.shape:
            raise ValueError(f"values {self.values.shape} do not fit the grid {self.grid.shape}")

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Values of a window of a single-band raster, not copied."""
        return self.values[row : row + height, column : column + width]

    def sample(self, x: Any, y: Any) -> Floats:
        """Bilinear values of a single-band raster at (x, y); NaN outside or next to a cell without value."""
        return bilinear(self.values, *self.grid.column_row(x, y))


def odd_cells(length: float, resolution: float, least: int = 3) -> int:
    """Odd number of cells nearest to a length in metres, at least ``least``."""
    return max(least, 2 * round((length / resolution - 1) / 2) + 1)


def bilinear(values: NDArray[Any], column: Any, row: Any) -> Floats:
    """Bilinear interpolation of (height, width) ``values`` at continuous indices; NaN outside."""
    column, row = np.asarray(column, float), np.asarray(row, float)
    height, width = values.shape
    inside = (column >= 0) & (row >= 0) & (column <= width - 1) & (row <= height - 1)
    c, r = np.where(inside, column, 0.0), np.where(inside, row, 0.0)
    c0, r0 = np.minimum(c.astype(np.int64), max(width - 2, 0)), np.minimum(r.astype(np.int64), max(height - 2, 0))
    c1, r1 = np.minimum(c0 + 1, width - 1), np.minimum(r0 + 1, height - 1)
    u, v = c - c0, r - r0
    top = values[r0, c0] * (1 - u) + values[r0, c1] * u
    bottom = values[r1, c0] * (1 - u) + values[r1, c1] * u
    return np.where(inside, top * (1 - v) + bottom * v, np.nan)
