"""Ground of a point cloud that is never whole in memory: thinned to its lowest points on disk, filtered by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import UNDECLARED, Reference
from terrain3d.errors import ConfigError, InputFileError
from terrain3d.io.cloud_files import LAS_SUFFIXES, CloudFile, open_cloud_file, write_classified
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, aligned, cut, for_blocks
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import scratch_folder
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid, bilinear
from terrain3d.surface.cloud_ground import CloudGround, LowestPoints, cloud_ground, extremes, on_ground
from terrain3d.surface.ground import GROUND_MARGIN

CELL = 1.0  # metres
BLOCK_CELLS = 1024
LOWEST = ("z", "right", "down", "high")
FOUND = ("surface", "slope", "kept", "tolerance")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StoredGround:
    """Ground on cells of about 1 m, see ``CloudGround``; heights over ``base``."""

    grid: Grid
    layers: tuple[StoredRaster, ...]
    base: float

    def read(self, block: Block) -> CloudGround:
        """Ground on the window of a block of its grid, heights over ``base``."""
        surface, slope, kept, tolerance = (block.read(layer) for layer in self.layers)
        return CloudGround(surface, slope, kept > 0, tolerance)

    def is_ground(self, xyz: Floats) -> NDArray[np.bool_]:
        """Which points lie on the ground."""
        column, row = self.grid.column_row(xyz[:, 0], xyz[:, 1])
        column, row = np.clip(column, 0, self.grid.width - 1), np.clip(row, 0, self.grid.height - 1)
        surface, slope, _, tolerance = (bilinear(_cells(layer), column, row) for layer in self.layers)
        return on_ground(xyz[:, 2] - self.base, surface, slope, tolerance)


def find_ground(
    file: CloudFile, grid: Grid, folder: Place, workers: Workers, reporter: Reporter, *, classified: bool = False
) -> StoredGround:
    """Ground of a cloud on a grid that blocks can be cut from. classified: its own class 2 is the ground.

    Raises InputFileError (no points; damaged; no ground class).
    """
    reporter.stage("reading")
    lowest, base, through = _thin(file, grid, folder, classified)
    blocks = cut(grid, GROUND_MARGIN, BLOCK_CELLS)
    reporter.stage("ground", len(blocks))
    layers = tuple(new_raster(folder / f"ground_{n}.raw", grid, np.uint8 if n == "kept" else np.float32) for n in FOUND)

    def work(block: Block) -> None:
        z, right, down, high = (block.read(layer) for layer in lowest)
        points = LowestPoints(z, right, down, high, grid.resolution)
        found = cloud_ground(points, block.origin, filtered=not classified, through=through)
        for name, layer in zip(FOUND, layers, strict=True):
            block.write(layer, getattr(found, name))

    for_blocks(work, blocks, workers, reporter)
    for layer in lowest:
        layer.remove()
    return StoredGround(grid, layers, base)


def classify_cloud(
    path: Path, out: Path, reporter: Reporter, *, crs: str | None = None, workers: int = 1
) -> tuple[int, int]:
    """Write a copy of a cloud with its ground classified; number of points, and of those on the ground.

    Raises Terrain3dError; then nothing is written.
    """
    file = open_cloud_file(path, crs, None, need_crs=False)
    is_las = out.suffix.lower() in LAS_SUFFIXES
    if is_las == file.is_text:
        kind = "a text file such as .txt" if file.is_text else ".laz or .las"
        raise ConfigError(f"results of this cloud are written as {kind}", where=out)
    if out.exists() and out.samefile(path):
        raise ConfigError("the result would overwrite the cloud", where=out, fix="give another --out")
    reference = file.reference or Reference("local", UNDECLARED)
    grid = aligned(Grid.from_bounds(reference, *file.bounds(), CELL))
    with scratch_folder(out.parent) as folder:
        ground = find_ground(file, grid, folder, workers, reporter)
        reporter.stage("writing")
        return write_classified(file, out, ground.is_ground)


def _thin(file: CloudFile, grid: Grid, folder: Place, classified: bool) -> tuple[tuple[StoredRaster, ...], float, bool]:
    """Lowest and highest point of each cell, heights over the base that is returned, and whether there are more than
    first returns (or nothing tells)."""
    layers = tuple(new_raster(folder / f"lowest_{n}.raw", grid, np.float32) for n in LOWEST)
    for layer in layers:
        for top in range(0, grid.height, 512):
            layer.write(top, 0, np.full((min(512, grid.height - top), grid.width), np.nan, np.float32))
    cells = [_cells(layer, "r+").reshape(-1) for layer in layers]
    base, through = None, file.is_text
    for part in file.parts():
        through |= not part.first.all()
        use = ~part.noise & np.isfinite(part.xyz).all(axis=1)
        if classified:
            use &= part.ground
        xyz = part.xyz[use]
        if not len(xyz):
            continue
        if base is None:
            base = float(np.median(xyz[:, 2]))
        found = extremes(xyz - [0.0, 0.0, base], grid.resolution, grid.west, grid.north, grid.shape)
        lower = ~(cells[0][found.cell] <= found.low)
        at = found.cell[lower]
        for thinned, values in zip(cells[:3], (found.low, found.right, found.down), strict=True):
            thinned[at] = values[lower]
        higher = ~(cells[3][found.cell] >= found.high)
        cells[3][found.cell[higher]] = found.high[higher]
    if base is None:
        what = "holds no points of the ground class (2)" if classified else "holds no points"
        raise InputFileError(what, where=file.path)
    return layers, base, through


def _cells(raster: StoredRaster, mode: str = "r") -> NDArray[np.float32]:
    """Cells of a whole stored raster, mapped from its file."""
    cells: NDArray[np.float32] = np.memmap(raster.path, raster.dtype, mode=mode, shape=raster.grid.shape)  # type: ignore[call-overload]
    return cells
