"""Height rasters in files, read by windows: with their sigma, on the grid and over the reference of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference, Vertical, is_in_metres, transform_xy
from terrain3d.errors import ConfigError, FrameError, InputFileError
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import read_grid, read_raster
from terrain3d.io.warp import resample
from terrain3d.raster import Grid, Raster

Floats = NDArray[np.float64]
PIECE = 1024  # points that are sampled at once
_MARGIN = 3  # cells around a window, for interpolation


@dataclass(frozen=True)
class HeightFile:
    """A height raster. sigma: file of its 1-sigma, None where there is none. vertical: the reference that its heights
    are given in when read."""

    name: str
    path: Path
    sigma: Path | None
    grid: Grid
    vertical: Vertical

    def over_stated(self, vertical: Vertical) -> HeightFile:
        """The file with a stated reference instead of the one that it declares."""
        grid = replace(self.grid, reference=Reference(self.grid.reference.horizontal, vertical))
        return replace(self, grid=grid, vertical=vertical)

    def read(self, row: int, column: int, height: int, width: int) -> Raster:
        """Heights of a window inside the grid, NaN for no value."""
        return self._converted(read_raster(self.path, window=(row, column, height, width)))

    def on(self, grid: Grid) -> Raster:
        """Heights on the cells of a grid in any horizontal CRS, NaN where there are none."""
        return self._part(self.path, grid, convert=True)

    def sigma_on(self, grid: Grid) -> Raster | None:
        """Sigma on the cells of a grid; None without a sigma file."""
        return None if self.sigma is None else self._part(self.sigma, grid, convert=False)

    def sample(self, crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Heights and sigma (NaN without) at points of a CRS, bilinear; NaN outside and beside voids."""
        px, py = transform_xy(crs, self.grid.reference.horizontal, x, y)
        height, sigma = np.full(px.shape, np.nan), np.full(px.shape, np.nan)
        for first in range(0, px.size, PIECE):
            here = slice(first, first + PIECE)
            window = _window_of(self.grid, px[here], py[here])
            if window is None:
                continue
            height[here] = self.read(*window).sample(px[here], py[here])
            if self.sigma is not None:
                sigma[here] = read_raster(self.sigma, window=window).sample(px[here], py[here])
        return height, sigma

    def _part(self, path: Path, grid: Grid, *, convert: bool) -> Raster:
        px, py = transform_xy(grid.reference.horizontal, self.grid.reference.horizontal, *grid.lattice(9))
        window = _window_of(self.grid, px, py)
        if window is None:
            return Raster(np.full(grid.shape, np.nan, np.float32), grid)
        found = read_raster(path, window=window)
        return resample(self._converted(found) if convert else found, grid)

    def _converted(self, raster: Raster) -> Raster:
        own = self.grid.reference
        raster = Raster(raster.values, replace(raster.grid, reference=own))
        return raster if own.vertical.name == self.vertical.name else to_vertical(raster, self.vertical)


def open_heights(path: Path, *, layer: str = "dsm", metres: bool = True) -> HeightFile:
    """A height raster, or that layer of a run's folder. Its sigma is looked for beside it: X_sigma.tif of X.tif.

    metres: its CRS has to be projected in metres; a file that is only read on other grids may be in degrees.
    Raises InputFileError, and FrameError for another CRS.
    """
    if path.is_dir():
        if not (path / f"{layer}.tif").is_file():
            raise InputFileError(f"folder has no {layer}.tif", where=path, fix="give a raster or the folder of a run")
        path = path / f"{layer}.tif"
    grid = read_grid(path)
    crs = grid.reference.crs
    if metres and not is_in_metres(crs):
        raise FrameError(
            f"CRS '{crs.name}' is not projected in metres", where=path, fix="warp the raster to one that is"
        )
    sigma = path.with_name(f"{path.stem}_sigma{path.suffix}")
    found = sigma if sigma.is_file() else None
    if found is not None and replace(read_grid(found), reference=grid.reference) != grid:
        raise InputFileError(f"is on another grid than {path.name}", where=found, fix="move or remove it")
    name = f"{path.parent.resolve().name}/{path.stem}" if path.stem in ("dsm", "dtm") else path.stem
    return HeightFile(name, path, found, grid, grid.reference.vertical)


def check_numbers(**options: float | None) -> None:
    """Raises ConfigError for an option of the command line that is no number (nan, inf)."""
    for name, value in options.items():
        if value is not None and not np.isfinite(value):
            raise ConfigError(f"{value} is no number", where=f"--{name.replace('_', '-')}")


def over(file: HeightFile, vertical: Vertical) -> tuple[HeightFile, str | None]:
    """The file with its heights over another reference, and what had to be assumed. Raises FrameError if its declared
    reference cannot be converted."""
    own = file.vertical
    if own.name == vertical.name:
        return file, None
    if not own.is_declared or not vertical.is_declared:
        return replace(
            file, vertical=own
        ), f"{file.path}: heights taken as they are, a vertical reference is undeclared"
    for v in (own, vertical):
        if not v.is_ellipsoid and v.grid_path is None:
            raise FrameError(f"heights over {own.name} cannot be compared with heights over {vertical.name}",
                             where=file.path, fix="bring both to one vertical reference")  # fmt: skip
    return replace(file, vertical=vertical), None


def strips(file: HeightFile, rows: int, margin: int) -> Iterator[tuple[int, slice, Raster]]:
    """First row, the rows of the strip that count, and the strip with its margin, from the north."""
    for top in range(0, file.grid.height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, file.grid.height)
        inner = slice(top - first, min(top + rows, file.grid.height) - first)
        yield top, inner, file.read(first, 0, last - first, file.grid.width)


def without_heights(grid: Grid) -> Grid:
    """The grid of values that are no heights."""
    return replace(grid, reference=Reference(grid.reference.horizontal))


def _window_of(grid: Grid, x: Floats, y: Floats) -> tuple[int, int, int, int] | None:
    """Window of the grid around the box of points, None where they do not meet."""
    column, row = grid.column_row(x, y)
    if not np.isfinite(column).any():
        return None
    spans = []
    for index, size in ((row, grid.height), (column, grid.width)):
        low, high = int(np.floor(np.nanmin(index))) - _MARGIN, int(np.ceil(np.nanmax(index))) + _MARGIN
        if high < 0 or low >= size:
            return None
        spans.append((max(low, 0), min(high, size - 1) + 1))
    (top, bottom), (left, right) = spans
    return top, left, bottom - top, right - left
