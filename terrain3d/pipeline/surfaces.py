"""From matched points to the rasters of a run: registration to lidar, DSM, voids, water, DTM, canopy, ortho."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from terrain3d.errors import OverlapError
from terrain3d.image.view import View
from terrain3d.io.images import read_window
from terrain3d.pipeline.matching import in_threads
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.spool import Spool
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.register.registration import Registration, register_dsm
from terrain3d.surface.canopy import canopy_height
from terrain3d.surface.dsm import SurfaceModel, rasterize
from terrain3d.surface.dtm import Dtm, make_dtm
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.membrane import membrane
from terrain3d.surface.ortho import OrthoView, ortho
from terrain3d.surface.sigma import cell_sigma
from terrain3d.surface.voids import fill_voids, footprint, remove_islands, remove_spikes
from terrain3d.surface.water import flatten_water, water_mask

BLOCK_CELLS = 1024
STRIP_ROWS = 256
STEEPEST = 1.0  # slope up to which a cell is a surface and not a wall
WATER_SIGMA = 1.0  # metres, of a level that rests on its shores alone
REGISTRATION_CELL = 1.0  # metres; lidar footprints are ten times as wide


@dataclass(frozen=True)
class Surfaces:
    """Rasters of a run on one grid, heights ellipsoidal. ``pairs``: number of stereo pairs that saw a cell."""

    dsm: Raster
    dsm_sigma: Raster
    dtm: Raster
    dtm_sigma: Raster
    chm: Raster
    ortho: Raster
    mask: Raster
    pairs: Raster


def blocks(grid: Grid, size: int = BLOCK_CELLS) -> Iterator[tuple[int, int, Grid]]:
    """Row, column and grid of the blocks that make up a grid."""
    for row in range(0, grid.height, size):
        for column in range(0, grid.width, size):
            yield row, column, grid.window(row, column, min(size, grid.height - row), min(size, grid.width - column))


def surface_model(
    spool: Spool, grid: Grid, registration: Registration | None, workers: int, reporter: Reporter
) -> SurfaceModel:
    """Surface model of all points on a grid, block by block."""
    height, sigma, light = (np.full(grid.shape, np.nan, np.float32) for _ in range(3))
    pairs = np.zeros(grid.shape, np.uint8)

    def work(item: tuple[int, int, Grid]) -> None:
        row, column, part = item
        model = rasterize(spool.within(part, 2 * grid.resolution, registration), part)
        here = (slice(row, row + part.height), slice(column, column + part.width))
        height[here], sigma[here] = model.height.values, model.sigma.values
        pairs[here], light[here] = model.pairs.values, model.intensity.values
        reporter.step()

    items = list(blocks(grid))
    reporter.stage("surface model", len(items))
    for _ in in_threads(work, items, workers):
        pass
    return SurfaceModel(*(Raster(a, grid) for a in (height, sigma, pairs, light)))


def register(spool: Spool, grid: Grid, returns: LidarReturns, workers: int, reporter: Reporter) -> Registration:
    """Registration of the matched model to lidar, on a surface model fine enough for its footprints."""
    cell = max(REGISTRATION_CELL, grid.resolution)
    model = surface_model(spool, Grid.from_bounds(grid.reference, *grid.bounds, cell), None, workers, reporter)
    reporter.stage("registration to lidar")
    return register_dsm(remove_spikes(model.height), returns, model.sigma)


def make_surfaces(
    spool: Spool, grid: Grid, views: list[View], registration: Registration | None, returns: LidarReturns | None,
    workers: int, reporter: Reporter,
) -> Surfaces:  # fmt: skip
    """All rasters of a run. ``views``: cameras in the frame of the registered model."""
    model = surface_model(spool, grid, registration, workers, reporter)
    reporter.stage("voids")
    clean, sigma, pairs = _trimmed(remove_islands(remove_spikes(model.height)), model.sigma, model.pairs)
    grid = clean.grid
    dsm, dsm_sigma, filled = fill_voids(clean, sigma)
    dsm_sigma = _with_registration(cell_sigma(dsm, dsm_sigma), dsm, registration)
    reporter.stage("ortho image")
    # water shows in the image of what could not be matched, so a guess closes the large voids for the moment
    closed = membrane(dsm.values, where=footprint(np.isfinite(dsm.values)))
    picture = ortho(Raster(closed, grid), [_ortho_view(v) for v in views])
    reporter.stage("water")
    wet = water_mask(clean, picture)
    dsm = flatten_water(dsm, wet)
    picture = Raster(np.where(np.isfinite(dsm.values), picture.values, 0).astype(picture.values.dtype), grid)
    dsm_sigma = _with_water(dsm, dsm_sigma, wet)
    reporter.stage("terrain model")
    measured = np.isfinite(clean.values) & ~wet
    terrain: Dtm = make_dtm(dsm, dsm_sigma, measured=measured, ground_returns=returns)
    dtm = Raster(np.fmin(terrain.height.values, dsm.values), grid)
    chm = canopy_height(dsm, dtm)
    return Surfaces(dsm, dsm_sigma, dtm, terrain.sigma, chm, picture, _mask(dsm, filled, wet), pairs)


def _trimmed(height: Raster, sigma: Raster, pairs: Raster) -> tuple[Raster, Raster, Raster]:
    """The rasters on the part of their grid that has heights, sigma and pairs only where there is one."""
    known = np.isfinite(height.values)
    if not known.any():
        raise OverlapError("nothing of what was matched holds together", fix="check the images for cloud or snow")
    rows, columns = (np.flatnonzero(known.any(axis=k)) for k in (1, 0))
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    grid = height.grid.window(int(rows[0]), int(columns[0]), *known[part].shape)
    spread = np.where(known, sigma.values, np.float32(np.nan))
    return Raster(height.values[part], grid), Raster(spread[part], grid), Raster((pairs.values * known)[part], grid)


def _with_registration(sigma: Raster, dsm: Raster, registration: Registration | None) -> Raster:
    """Sigma of the cells with that of the registration added: of the vertical correction, and of a sideways shift on
    the slope of the cell."""
    if registration is None or not registration.applied:
        return sigma
    x, y = sigma.grid.centres()
    total = np.empty_like(sigma.values)
    for top in range(0, sigma.grid.height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, sigma.grid.height))
        first = max(top - 1, 0)  # one row more on both sides for the slopes
        south, east = np.gradient(dsm.values[first : rows.stop + 1], sigma.grid.resolution)
        inner = slice(top - first, top - first + rows.stop - top)
        slopes = np.clip(np.stack([east[inner], -south[inner]]), -STEEPEST, STEEPEST)
        sideways = np.einsum("irc,ij,jrc->rc", slopes, registration.covariance[:2, :2], slopes)
        vertical = registration.sigma_at(x[None, :], y[rows, None])
        total[rows] = np.sqrt(sigma.values[rows] ** 2 + vertical**2 + np.nan_to_num(sideways))
    return Raster(total, sigma.grid)


def _with_water(dsm: Raster, sigma: Raster, wet: np.ndarray) -> Raster:
    """Sigma with a value on all water: cells that levelling gave a height share the median of the water around."""
    values = sigma.values.copy()
    bare = wet & np.isfinite(dsm.values) & ~np.isfinite(values)
    known = wet & np.isfinite(values)
    values[bare] = np.median(values[known]) if known.any() else WATER_SIGMA
    return Raster(values, sigma.grid)


def _mask(dsm: Raster, filled: np.ndarray, wet: np.ndarray) -> Raster:
    codes = np.where(np.isfinite(dsm.values), MaskCode.MEASURED, MaskCode.NODATA).astype(np.uint8)
    codes[filled & (codes == MaskCode.MEASURED)] = MaskCode.FILLED
    codes[wet & (codes != MaskCode.NODATA)] = MaskCode.WATER
    return Raster(codes, dsm.grid)


def _ortho_view(view: View) -> OrthoView:
    def read(row: int, column: int, height: int, width: int) -> np.ndarray:
        return read_window(view.image, row, column, height, width)

    return OrthoView(view.camera, read, view.image.shape)
