"""The height fields of a world while they are being made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid

GROUND, TREE, BUILDING, WATER, BRIDGE = 2, 5, 6, 9, 17
Window = tuple[slice, slice]


@dataclass
class Layers:
    """Arrays of one grid that are written in place; the meaning is that of ``World``."""

    grid: Grid
    surface: NDArray[np.float32]
    ground: NDArray[np.float32]
    classes: NDArray[np.uint8]
    albedo: NDArray[np.float32]
    building: NDArray[np.int32]
    road: NDArray[np.float32]

    def window(self, x: float, y: float, radius: float) -> Window | None:
        """Rows and columns within ``radius`` of a place, or None where it does not lie wholly on the grid."""
        column, row = self.grid.column_row(x, y)
        reach = radius / self.grid.resolution
        c0, c1 = int(np.floor(column - reach)), int(np.ceil(column + reach)) + 1
        r0, r1 = int(np.floor(row - reach)), int(np.ceil(row + reach)) + 1
        if c0 < 0 or r0 < 0 or c1 > self.grid.width or r1 > self.grid.height:
            return None
        return slice(r0, r1), slice(c0, c1)

    def coordinates(self, window: Window) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x as a row and y as a column of a window's cell centres."""
        rows, columns = (np.arange(w.start, w.stop, dtype=np.float64) + 0.5 for w in window)
        cell = self.grid.resolution
        return (self.grid.west + columns * cell)[None, :], (self.grid.north - rows * cell)[:, None]
