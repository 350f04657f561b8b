"""Surface and terrain models of point clouds and of surface rasters from elsewhere, with the files that a run has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from terrain3d.crs import Reference
from terrain3d.errors import ConfigError, FrameError
from terrain3d.io.cloud_files import CloudFile, open_cloud_file
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, write_strips
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, aligned, coarse_block, cut, for_blocks
from terrain3d.pipeline.cloud_ground import find_ground
from terrain3d.pipeline.filling import Frame, fill_model
from terrain3d.pipeline.model import Extent, clean_heights, surface_model
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import overview, overview_step
from terrain3d.pipeline.scratch_folder import scratch_folder
from terrain3d.pipeline.spool import Part, Spool, save_part
from terrain3d.pipeline.terrain import OVERVIEW_CELLS
from terrain3d.points import PointCloud
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy import canopy_height
from terrain3d.surface.coarse import pooled, resampled
from terrain3d.surface.dtm import DTM_MARGIN, ground_distance, terrain_sigma
from terrain3d.surface.ground import coarse_factor
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.openings import expand

POINT_SIGMA = 0.1  # metres: of points that state none
TILE = 512.0  # metres, of the files that points are sorted into
STRIP_ROWS = 512
FINEST, COARSEST = 0.05, 1.5  # metres of a cell that is worked with; coarser results are means
CLOUD_RESOLUTION = 0.5


@dataclass(frozen=True)
class CloudOptions:
    """resolution: cell size (m). coarser: further ones, multiples of it, of which the same model is written too. crs:
    of a cloud that declares none. vertical: of its heights, likewise. classified: the cloud's own class 2 is the
    ground, nothing is filtered."""

    resolution: float = CLOUD_RESOLUTION
    crs: str | None = None
    vertical: str | None = None
    classified: bool = False
    coarser: tuple[float, ...] = ()

    def folds(self) -> tuple[int, ...]:
        """Cells a side that make one of each coarser resolution. Raises ConfigError for what is no multiple."""
        found = tuple(round(c / self.resolution) for c in self.coarser)
        for fold, cell in zip(found, self.coarser, strict=True):
            if fold < 2 or abs(fold * self.resolution - cell) > 1e-6 * cell:
                raise ConfigError(
                    f"resolution {cell:g} m is no multiple of the finest, {self.resolution:g} m",
                    fix="give cell sizes that hold whole cells of the finest",
                )
        return found


@dataclass(frozen=True)
class Layer:
    """A raster to be written: name, cells, and what its band holds; heights have the vertical reference."""

    name: str
    raster: StoredRaster
    band: str

    @property
    def is_height(self) -> bool:
        return self.band == "height"


@dataclass(frozen=True)
class ModelSummary:
    """What was made: size, and shares of the cells by mask code (of terrain: of its own cells that have a value)."""

    width: int
    height: int
    resolution: float
    files: tuple[str, ...]
    shares: dict[str, float]


def cloud_surface(
    path: Path, out: Path, options: CloudOptions, reporter: Reporter, *, workers: int = 1, terrain: bool = False
) -> ModelSummary:
    """DSM of a cloud with sigma and mask, with ``terrain`` also its DTM and the height above ground, as files.

    Raises Terrain3dError; then nothing is written.
    """
    file = open_cloud_file(path, options.crs, options.vertical)
    assert file.reference is not None
    if abs(file.units[0] - 1) > 1e-9:
        raise FrameError(
            f"CRS '{file.reference.crs.name}' is not in metres", where=path,
            fix="reproject the cloud to one that is, e.g. with pdal translate and filters.reprojection",
        )  # fmt: skip
    mean = max(round(options.resolution), 1) if options.resolution > COARSEST else 1
    inside = Reference(file.reference.horizontal)
    folds = options.folds()
    common = math.lcm(1, *folds) * options.resolution
    result = Grid.from_bounds(inside, *file.bounds(), common)  # on multiples of all cells
    grid = aligned(Grid.from_bounds(inside, *result.bounds, options.resolution / mean))
    with scratch_folder(out) as folder, bounded_cache():
        layers, mask, extent = _surface(file, grid, folder, workers, reporter)
        if terrain:
            layers += _terrain(file, layers, extent, options, folder, workers, reporter)
        reporter.stage("writing", (len(layers) + 1) * (len(folds) + 1))
        names: list[str] = []
        for fold, name in zip((1, *folds), ("", *(f"_{c:g}m" for c in options.coarser)), strict=True):
            window = _whole_cells(extent.window(), mean * fold, grid)
            for layer in layers:
                write_layer(replace(layer, name=layer.name + name), window, file.reference, out, mean * fold)
                reporter.step()
            write_mask(mask, window, out, mean * fold, f"mask{name}.tif")
            reporter.step()
            names += [f"{layer.name}{name}.tif" for layer in layers] + [f"mask{name}.tif"]
        return summary(mask.window(*_whole_cells(extent.window(), mean, grid)), mean, tuple(names))


def _surface(
    file: CloudFile, grid: Grid, folder: Place, workers: int, reporter: Reporter
) -> tuple[list[Layer], StoredRaster, Extent]:
    """Surface of the first returns, its sigma, and mask, as from matched points."""
    reporter.stage("reading")
    spool = _spool(file, grid.reference, folder)
    model = surface_model(spool, grid, None, folder, workers, reporter)
    for part in spool.parts:
        part.path.unlink()
    reporter.stage("voids", 2 * len(cut(grid)))
    clean, extent = clean_heights(model, folder, workers, reporter)
    exact = Grid(grid.reference, grid.west - TILE, grid.north + TILE, 4 * TILE, *_cover(grid))
    frame = Frame(None, Raster(np.zeros(exact.shape, np.float32), exact))
    dsm, sigma, mask = fill_model(model, clean, extent, frame, folder, workers, reporter)
    for done in (model.height, model.sigma, model.pairs, clean):
        done.remove()
    return [Layer("dsm", dsm, "height"), Layer("dsm_sigma", sigma, "1-sigma of dsm, m")], mask, extent


def _cover(grid: Grid) -> tuple[int, int]:
    rows, columns = (int(np.ceil((n * grid.resolution + 2 * TILE) / (4 * TILE))) + 1 for n in grid.shape)
    return rows, columns


def _spool(file: CloudFile, reference: Reference, folder: Place) -> Spool:
    """First returns of a cloud without noise, sorted into files by place."""
    parts: list[Part] = []
    for part in file.parts():
        use = part.first & ~part.noise & np.isfinite(part.xyz).all(axis=1)
        xyz = part.xyz[use]
        sigma = np.nan_to_num(part.sigma[use], nan=POINT_SIGMA).clip(0.01).astype(np.float32)
        tile = np.floor(xyz[:, :2] / TILE).astype(np.int64)
        for place in np.unique(tile, axis=0):
            here = (tile == place).all(axis=1)
            n = int(here.sum())
            cloud = PointCloud(
                reference, xyz[here], sigma[here], np.ones(n, np.float32), np.zeros(n, np.uint8), np.zeros(n, np.uint16)
            )
            saved = save_part(folder / f"points_{len(parts)}.npy", cloud)
            parts += [saved] if saved is not None else []
    return Spool(reference, tuple(parts))


def _terrain(
    file: CloudFile, surface: list[Layer], extent: Extent, options: CloudOptions, folder: Place, workers: int,
    reporter: Reporter,
) -> list[Layer]:  # fmt: skip
    """Terrain under a surface from the ground of its cloud, its sigma, and the height above it."""
    dsm = surface[0].raster
    grid, factor = dsm.grid, coarse_factor(dsm.grid.resolution)
    coarse = replace(
        grid, resolution=grid.resolution * factor, height=grid.height // factor, width=grid.width // factor
    )
    ground = find_ground(file, coarse, folder, workers, reporter, classified=options.classified)
    kept = ground.layers[2]
    step = overview_step(coarse, OVERVIEW_CELLS)
    shares = overview(kept, step)
    far = Raster(ground_distance(shares.values > 0, shares.grid.resolution), shares.grid)
    names = ("dtm", "dtm_sigma", "chm")
    made = tuple(new_raster(folder / f"cloud_{n}.raw", grid, np.float32) for n in names)

    def work(block: Block) -> None:
        z = Raster(block.read(dsm), block.grid)
        found = ground.read(coarse_block(block, factor))
        shape = block.grid.shape
        height, slope = (expand(a, factor, shape) for a in (found.surface + np.float32(ground.base), found.slope))
        seen = np.kron(found.kept, np.ones((factor, factor), bool))[: shape[0], : shape[1]]
        precision = Raster(np.full(shape, POINT_SIGMA, np.float32), block.grid)
        spread = terrain_sigma(z, precision, seen, slope, extent.hull(block), resampled(far, block.grid))
        lower = np.where(np.isfinite(spread.values), np.fmin(height, z.values), np.float32(np.nan))
        above = canopy_height(z, Raster(lower, block.grid))
        for raster, values in zip(made, (lower, spread.values, above.values), strict=True):
            block.write(raster, values)

    reporter.stage("terrain model", len(cut(grid, DTM_MARGIN)))
    for_blocks(work, cut(grid, DTM_MARGIN), workers, reporter)
    bands = ("height", "1-sigma of dtm, m", "height above ground, m")
    return [Layer(*each) for each in zip(names, made, bands, strict=True)]


def _whole_cells(window: tuple[int, int, int, int], mean: int, grid: Grid) -> tuple[int, int, int, int]:
    """Window widened to whole cells of the result, which lie on multiples of their size."""
    if mean == 1:
        return window
    row, column, height, width = window
    first = round(-grid.north / grid.resolution), round(grid.west / grid.resolution)
    top, left = (at - (origin + at) % mean for at, origin in ((row, first[0]), (column, first[1])))
    top, left = max(top, 0), max(left, 0)
    return top, left, min(row + height, grid.height) - top, min(column + width, grid.width) - left


def write_layer(
    layer: Layer, window: tuple[int, int, int, int], reference: Reference, out: Path, mean: int = 1,
    corner: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Write a raster of heights or sigma, each ``mean`` x ``mean`` cells as one. corner: west and north, where they
    are not those of the window. Raises OutputError."""
    raster = layer.raster.window(*window)
    grid = _coarser(raster.grid, mean)
    if corner is not None:
        grid = replace(grid, west=corner[0], north=corner[1])
    if layer.is_height:
        grid = replace(grid, reference=reference)
    write_strips(
        out / f"{layer.name}.tif", grid, _means(raster, mean), np.float32, nodata=HEIGHT_NODATA,
        heights=layer.is_height, band_names=(layer.band,),
    )  # fmt: skip


def write_mask(mask: StoredRaster, window: tuple[int, int, int, int], out: Path, mean: int, name: str) -> None:
    """Write a mask under that name; a coarser cell is measured if any of its cells is. Raises OutputError."""
    raster = mask.window(*window)
    codes = ", ".join(f"{c.value} {c.name.lower()}" for c in MaskCode)
    write_strips(
        out / name, _coarser(raster.grid, mean), _codes(raster, mean), np.uint8, nodata=int(MaskCode.NODATA),
        heights=False, tags={"CODES": codes},
    )  # fmt: skip


def summary(mask: StoredRaster, mean: int, files: tuple[str, ...]) -> ModelSummary:
    """Figures for a person from the mask that was written."""
    counts = np.zeros(256, np.int64)
    for _, values in _codes(mask, mean):
        counts += np.bincount(values.ravel(), minlength=256)
    shares = {c.name.lower(): float(counts[c] / max(counts.sum(), 1)) for c in MaskCode}
    grid = _coarser(mask.grid, mean)
    return ModelSummary(grid.width, grid.height, grid.resolution, files, shares)


def _coarser(grid: Grid, mean: int) -> Grid:
    height, width = -(-grid.height // mean), -(-grid.width // mean)
    return replace(grid, resolution=grid.resolution * mean, height=height, width=width)


def _means(raster: StoredRaster, mean: int) -> Iterator[tuple[int, np.ndarray]]:
    rows = STRIP_ROWS * mean
    for top, values in raster.strips(rows):
        yield top // mean, pooled(values, mean)


def _codes(raster: StoredRaster, mean: int) -> Iterator[tuple[int, np.ndarray]]:
    order = np.array([0, 3, 1, 2], np.uint8)  # rank of nodata, measured, filled, water where they share a cell
    back = np.argsort(order).astype(np.uint8)
    for top, values in raster.strips(STRIP_ROWS * mean):
        if mean == 1:
            yield top, values
            continue
        h, w = values.shape
        padded = np.zeros((-(-h // mean) * mean, -(-w // mean) * mean), np.uint8)
        padded[:h, :w] = order[values]
        ranks = padded.reshape(padded.shape[0] // mean, mean, -1, mean).max(axis=(1, 3))
        yield top // mean, back[ranks]
