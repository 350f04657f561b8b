"""A raster that stays in its file and is read by windows, heights in metres over the reference that is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from terrain3d.crs import Reference, Vertical
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import read_grid, read_values
from terrain3d.raster import Grid, Raster


@dataclass(frozen=True)
class RasterFile:
    """One band of a file. grid: with the vertical reference of the heights that ``read`` gives.

    codes: integers as they are (classes, masks), else float32 with NaN for no value. stated: vertical reference of the
    file's own heights.
    """

    path: Path
    grid: Grid
    stated: Vertical
    codes: bool = False
    band: int = 1

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Values of a window inside the grid, (height, width). Raises InputFileError."""
        window = row, column, height, width
        values = read_values(self.path, self.band, window, codes=self.codes)
        if self.codes:
            return values
        if self.stated.name == self.grid.reference.vertical.name:
            return values
        part = self.grid.window(*window)
        own = replace(part, reference=Reference(part.reference.horizontal, self.stated))
        return to_vertical(Raster(values, own), part.reference.vertical).values

    def over(self, vertical: Vertical) -> RasterFile:
        """The same file, its heights over another reference."""
        return replace(self, grid=with_vertical(self.grid, vertical))

    def told(self, vertical: Vertical) -> RasterFile:
        """The same file, whose heights are said to be over ``vertical``, whatever it declares."""
        return replace(self, stated=vertical, grid=with_vertical(self.grid, vertical))


def with_vertical(grid: Grid, vertical: Vertical) -> Grid:
    """The grid with another vertical reference."""
    return replace(grid, reference=Reference(grid.reference.horizontal, vertical))


def raster_file(path: str | Path, *, codes: bool = False) -> RasterFile:
    """A raster in a file. Raises InputFileError, and FrameError if it has no CRS or is not north-up."""
    path = Path(path)
    grid = read_grid(path)
    return RasterFile(path, grid, grid.reference.vertical, codes)
