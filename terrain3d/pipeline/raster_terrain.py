"""Terrain of a surface model that is a file: a DSM from anywhere, or the folder of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from terrain3d.crs import Reference
from terrain3d.errors import InputFileError, OverlapError
from terrain3d.io.rasters import bounded_cache, read_classes, read_raster
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, aligned, cut, for_blocks
from terrain3d.pipeline.cloud_models import ModelSummary, summary, terrain_layers, write_layer
from terrain3d.pipeline.height_files import HeightFile, open_heights
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import all_or_none, scratch_folder
from terrain3d.pipeline.terrain import make_terrain
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.rims import MARGIN as RIM_MARGIN
from terrain3d.surface.sigma import cell_sigma
from terrain3d.surface.voids import row_ends

MATCH_SIGMA = 0.2  # metres, of a surface that states none; its roughness is added
STRIP_ROWS = 512


def raster_terrain(path: Path, out: Path, reporter: Reporter, *, workers: int = 1) -> ModelSummary:
    """DTM with sigma, and height above ground, of a DSM GeoTIFF or of the DSM in the folder of a run, as files.

    Raises Terrain3dError; then nothing is written.
    """
    file = open_heights(path)
    own = replace(file.grid, reference=Reference(file.grid.reference.horizontal))
    # blocks are cut from cells on multiples of their size: the raster is worked with as if it lay on the nearest ones
    cell = own.resolution
    near = replace(own, west=round(own.west / cell) * cell, north=round(own.north / cell) * cell)
    grid = aligned(near)
    row, column = round((grid.north - near.north) / cell), round((near.west - grid.west) / cell)
    codes = path / "mask.tif" if path.is_dir() and (path / "mask.tif").is_file() else None
    with scratch_folder(out) as folder, bounded_cache():
        reporter.stage("reading")
        dsm, sigma, mask, extent = _stored(file, codes, grid, (row, column), folder)
        if file.sigma is None:
            _guess_sigma(dsm, sigma, workers)
        made = make_terrain(dsm, sigma, mask, extent, None, folder, workers, reporter)
        window = row, column, *file.grid.shape
        layers = terrain_layers(*(r.window(*window) for r in (made.dtm, made.sigma, made.chm)))
        reporter.stage("writing", len(layers))
        with all_or_none(folder, out) as ready:
            for layer in layers:
                write_layer(layer, file.grid.reference, ready, (own.west, own.north))
                reporter.step()
        return summary(mask.window(*window), tuple(f"{layer.name}.tif" for layer in layers))


def _stored(
    file: HeightFile, codes: Path | None, grid: Grid, at: tuple[int, int], folder: Place
) -> tuple[StoredRaster, StoredRaster, StoredRaster, Extent]:
    """Heights, sigma as stated, and mask on a grid that blocks can be cut from, and where there are heights."""
    dsm, sigma = (new_raster(folder / f"{n}.raw", grid, np.float32) for n in ("dsm", "dsm_sigma"))
    mask = new_raster(folder / "mask.raw", grid, np.uint8)
    first, last = np.full(grid.height, grid.width), np.full(grid.height, -1)
    for top in range(0, grid.height, STRIP_ROWS):
        rows = min(STRIP_ROWS, grid.height - top)
        z, spread = (np.full((rows, grid.width), np.nan, np.float32) for _ in range(2))
        kinds = np.zeros((rows, grid.width), np.uint8)
        low, high = max(top, at[0]), min(top + rows, at[0] + file.grid.height)
        if low < high:
            window = low - at[0], 0, high - low, file.grid.width
            here = slice(low - top, high - top), slice(at[1], at[1] + file.grid.width)
            z[here] = file.read(*window).values
            if file.sigma is not None:
                spread[here] = read_raster(file.sigma, window=window).values
            known = np.isfinite(z[here])
            stated = MaskCode.MEASURED if codes is None else read_classes(codes, window=window).values
            kinds[here] = np.where(known, stated, MaskCode.NODATA)
        dsm.write(top, 0, z)
        sigma.write(top, 0, spread)
        mask.write(top, 0, kinds)
        first[top : top + rows], last[top : top + rows] = row_ends(np.isfinite(z))
    if last.max() < 0:
        raise OverlapError("raster has no cell with a height", where=file.path, fix="check its nodata value")
    return dsm, sigma, mask, Extent.of(first, last, grid)


def _guess_sigma(dsm: StoredRaster, sigma: StoredRaster, workers: int) -> None:
    """Sigma of a surface that states none: what its roughness lets expect."""

    def work(block: Block) -> None:
        z = Raster(block.read(dsm), block.grid)
        precision = Raster(np.full(block.grid.shape, MATCH_SIGMA, np.float32), block.grid)
        block.write(sigma, cell_sigma(z, precision, np.isfinite(z.values).astype(np.uint8)).values)

    for_blocks(work, cut(dsm.grid, RIM_MARGIN), workers)


def is_raster(path: Path) -> bool:
    """Whether a path is a folder or a raster, and so not a cloud. Raises InputFileError if there is nothing."""
    if not path.exists():
        raise InputFileError("no such file", where=path)
    return path.is_dir() or path.suffix.lower() in (".tif", ".tiff", ".vrt", ".img", ".asc", ".dem", ".hgt")
