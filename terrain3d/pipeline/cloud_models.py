"""Surface and terrain models of point clouds and of surface rasters from elsewhere, with the files that a run has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from terrain3d.config import folds
from terrain3d.crs import Reference
from terrain3d.errors import FrameError
from terrain3d.io.cloud_files import CloudFile, open_cloud_file
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, write_strips
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, aligned, coarse_block, cut, for_blocks
from terrain3d.pipeline.cloud_ground import find_ground
from terrain3d.pipeline.filling import Frame, fill_model
from terrain3d.pipeline.model import Extent, clean_heights, surface_model
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.resolutions import Layers, coarser, folder_name
from terrain3d.pipeline.running import overview, overview_step
from terrain3d.pipeline.scratch_folder import all_or_none, scratch_folder
from terrain3d.pipeline.spool import Part, Spool, save_part
from terrain3d.pipeline.terrain import OVERVIEW_CELLS
from terrain3d.points import PointCloud
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy import canopy_height
from terrain3d.surface.coarse import resampled
from terrain3d.surface.dtm import DTM_MARGIN, cloud_terrain_sigma, ground_distance
from terrain3d.surface.ground import coarse_factor
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.openings import expand

POINT_SIGMA = 0.1  # metres: of points that state none
TILE = 512.0  # metres, of the files that points are sorted into
STRIP_ROWS = 512
FINEST, COARSEST = 0.05, 1.5  # metres of a cell that is worked with; coarser results are made of finer ones
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
    times = folds(options.resolution, options.coarser)
    result = Grid.from_bounds(inside, *file.bounds(), options.resolution)
    grid = aligned(Grid.from_bounds(inside, *result.bounds, options.resolution / mean))
    with scratch_folder(out) as folder, bounded_cache():
        made, extent = _surface(file, grid, folder, workers, reporter)
        if terrain:
            made = _terrain(file, made, extent, options, folder, workers, reporter)
        made = Layers.of([r.window(*extent.window()) for r in made.all()], made)
        reporter.stage("writing", len(made.all()) * (len(times) + 1))
        finest = coarser(made, mean, folder, workers)
        with all_or_none(folder, out) as ready:
            names = _write(finest, file.reference, ready, reporter)
            for fold, cell in zip(times, options.coarser, strict=True):
                level = coarser(made, mean * fold, folder, workers)
                place = folder_name(cell)
                names += [f"{place}/{name}" for name in _write(level, file.reference, ready / place, reporter)]
        return summary(finest.mask, tuple(names))


def _write(made: Layers, reference: Reference, out: Path, reporter: Reporter) -> list[str]:
    """Write all layers, and say under what names."""
    layers = [Layer("dsm", made.dsm, "height"), Layer("dsm_sigma", made.dsm_sigma, "1-sigma of dsm, m")]
    if made.dtm is not None and made.dtm_sigma is not None and made.chm is not None:
        layers += terrain_layers(made.dtm, made.dtm_sigma, made.chm)
    for layer in layers:
        write_layer(layer, reference, out)
        reporter.step()
    _write_mask(made.mask, out)
    reporter.step()
    return [f"{layer.name}.tif" for layer in layers] + ["mask.tif"]


def terrain_layers(dtm: StoredRaster, sigma: StoredRaster, chm: StoredRaster) -> list[Layer]:
    """Terrain, its sigma, and height above it, as they are written."""
    bands = ("height", "1-sigma of dtm, m", "height above ground, m")
    return [Layer(*each) for each in zip(("dtm", "dtm_sigma", "chm"), (dtm, sigma, chm), bands, strict=True)]


def _surface(file: CloudFile, grid: Grid, folder: Place, workers: int, reporter: Reporter) -> tuple[Layers, Extent]:
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
    return Layers(dsm, sigma, mask), extent


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
    file: CloudFile, surface: Layers, extent: Extent, options: CloudOptions, folder: Place, workers: int,
    reporter: Reporter,
) -> Layers:  # fmt: skip
    """The surface with terrain from the ground of its cloud, its sigma, and the height above it."""
    dsm = surface.dsm
    grid, factor = dsm.grid, coarse_factor(dsm.grid.resolution)
    coarse = replace(
        grid, resolution=grid.resolution * factor, height=grid.height // factor, width=grid.width // factor
    )
    ground = find_ground(file, coarse, folder, workers, reporter, classified=options.classified)
    kept = ground.layers[2]
    step = overview_step(coarse, OVERVIEW_CELLS)
    shares = overview(kept, step)
    far = Raster(ground_distance(shares.values > 0, shares.grid.resolution), shares.grid)
    made = tuple(new_raster(folder / f"cloud_{n}.raw", grid, np.float32) for n in ("dtm", "dtm_sigma", "chm"))

    def work(block: Block) -> None:
        z = Raster(block.read(dsm), block.grid)
        found = ground.read(coarse_block(block, factor))
        shape = block.grid.shape
        height, slope = (expand(a, factor, shape) for a in (found.surface + np.float32(ground.base), found.slope))
        seen = np.kron(found.kept, np.ones((factor, factor), bool))[: shape[0], : shape[1]]
        spread = cloud_terrain_sigma(z, seen, slope, extent.hull(block), resampled(far, block.grid))
        lower = np.where(np.isfinite(spread.values), np.fmin(height, z.values), np.float32(np.nan))
        above = canopy_height(z, Raster(lower, block.grid))
        for raster, values in zip(made, (lower, spread.values, above.values), strict=True):
            block.write(raster, values)

    reporter.stage("terrain model", len(cut(grid, DTM_MARGIN)))
    for_blocks(work, cut(grid, DTM_MARGIN), workers, reporter)
    return replace(surface, dtm=made[0], dtm_sigma=made[1], chm=made[2])


def write_layer(layer: Layer, reference: Reference, out: Path, corner: tuple[float, float] | None = None) -> None:
    """Write a raster of heights or sigma. corner: west and north, where they are not its own. Raises OutputError."""
    grid = layer.raster.grid
    if corner is not None:
        grid = replace(grid, west=corner[0], north=corner[1])
    if layer.is_height:
        grid = replace(grid, reference=reference)
    write_strips(
        out / f"{layer.name}.tif", grid, layer.raster.strips(STRIP_ROWS), np.float32, nodata=HEIGHT_NODATA,
        heights=layer.is_height, band_names=(layer.band,),
    )  # fmt: skip


def _write_mask(mask: StoredRaster, out: Path) -> None:
    codes = ", ".join(f"{c.value} {c.name.lower()}" for c in MaskCode)
    write_strips(
        out / "mask.tif", mask.grid, mask.strips(STRIP_ROWS), np.uint8, nodata=int(MaskCode.NODATA), heights=False,
        tags={"CODES": codes},
    )  # fmt: skip


def summary(mask: StoredRaster, files: tuple[str, ...]) -> ModelSummary:
    """Figures for a person from the mask that was written."""
    counts = np.zeros(256, np.int64)
    for _, values in mask.strips(STRIP_ROWS):
        counts += np.bincount(values.ravel(), minlength=256)
    shares = {c.name.lower(): float(counts[c] / max(counts.sum(), 1)) for c in MaskCode}
    grid = mask.grid
    return ModelSummary(grid.width, grid.height, grid.resolution, files, shares)
