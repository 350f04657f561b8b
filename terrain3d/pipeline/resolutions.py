"""Results on coarser cells, made of the finest ones: all layers alike, on multiples of their size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.config import folds
from terrain3d.io.scratch import Place, StoredRaster, new_raster, padded
from terrain3d.landform.volumes import ErrorModel
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.filling import Frame, common_variance
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid
from terrain3d.surface.coarse import pooled
from terrain3d.surface.coarse_surface import coarse_surface
from terrain3d.surface.mask import MaskCode

Singles = NDArray[np.float32]

BARE = 0.5  # metres above ground under which the surface is the terrain
BLOCK_CELLS = 1024  # fine cells a side that are worked with at once


@dataclass(frozen=True)
class Layers:
    """Results on one grid. pictures: of integers, 0 for none, or floats, whose coarse cells are means. The terrain has
    none of its three layers or all."""

    dsm: StoredRaster
    dsm_sigma: StoredRaster
    mask: StoredRaster
    dtm: StoredRaster | None = None
    dtm_sigma: StoredRaster | None = None
    chm: StoredRaster | None = None
    pictures: tuple[StoredRaster, ...] = ()

    def all(self) -> list[StoredRaster]:
        terrain = (self.dtm, self.dtm_sigma, self.chm)
        return [self.dsm, self.dsm_sigma, self.mask, *(r for r in terrain if r is not None), *self.pictures]

    @classmethod
    def of(cls, rasters: Sequence[StoredRaster], like: Layers) -> Layers:
        """The same layers in the order of ``all``."""
        dsm, sigma, mask, *rest = rasters
        if like.dtm is None:
            return cls(dsm, sigma, mask, pictures=tuple(rest))
        dtm, dtm_sigma, chm, *pictures = rest
        return cls(dsm, sigma, mask, dtm, dtm_sigma, chm, tuple(pictures))


def folder_name(resolution: float) -> str:
    """Folder of the results of that cell size, inside that of the finest one."""
    return f"{resolution:g}m"


def coarser_surfaces(
    fine: Surfaces, resolutions: Sequence[float], folder: Place, workers: Workers, reporter: Reporter
) -> tuple[Surfaces, ...]:
    """Surfaces of a run on coarser cells, multiples of its own. pairs: their mean number where there are any. There is
    no super-resolved ortho."""
    times = folds(fine.dsm.grid.resolution, resolutions)
    layers = Layers(
        fine.dsm, fine.dsm_sigma, fine.mask, fine.dtm, fine.dtm_sigma, fine.chm, (fine.pairs, *fine.ortho)
    )  # fmt: skip
    found = []
    if times:
        reporter.stage("coarser cells", len(times))
    for fold in times:
        dsm, sigma, mask, dtm, dtm_sigma, chm, pairs, *ortho = coarser(layers, fold, folder, workers, fine.frame).all()
        heights: dict[str, Any] = {"dsm": dsm, "dsm_sigma": sigma, "dtm": dtm, "dtm_sigma": dtm_sigma, "chm": chm}
        found.append(replace(fine, **heights, mask=mask, pairs=pairs, ortho=tuple(ortho), finer=()))
        reporter.step()
    return tuple(found)


def coarser(fine: Layers, fold: int, folder: Place, workers: Workers, frame: Frame | None = None) -> Layers:
    """Layers on cells of ``fold`` x ``fold`` fine ones, on multiples of their size, in new files of ``folder``.

    The surface is that which fills most of a cell (``coarse_surface``), and so is the envelope that the height above
    ground comes from; terrain and pictures are means. The sigma of the terrain is the root mean square of that of its
    cells, less what the errors of matched ground average out; those of terrain that was carried through under something
    go together over more than a coarse cell. frame: what it leaves in doubt all cells have in common, and no mean takes
    that off.
    """
    if fold == 1:
        return fine
    own = fine.dsm.grid
    grid = Grid.from_bounds(own.reference, *own.bounds, own.resolution * fold)
    inner = replace(grid, resolution=own.resolution, height=grid.height * fold, width=grid.width * fold)
    whole = Layers.of([padded(r, inner) for r in fine.all()], fine)
    made = Layers.of(
        [new_raster(folder / f"coarse_{fold}_{k}.raw", grid, r.dtype) for k, r in enumerate(fine.all())], fine
    )
    alike = ErrorModel().alike(fold, own.resolution)

    def work(block: Block) -> None:
        def read(raster: StoredRaster) -> NDArray[Any]:
            rows, columns = (n * fold for n in block.grid.shape)
            return raster.read(block.row * fold, block.column * fold, rows, columns)

        def surface(height: Singles) -> tuple[Singles, Singles, NDArray[np.uint8]]:
            return coarse_surface(height, sigma, codes, fold, own.resolution, alike)

        def with_common(spread: Singles, height: Singles, share: Singles | float = 1.0) -> Singles:
            lost = np.float32(1 - alike**2) * share * _common(frame, block.grid, height, fold, own)
            return np.sqrt(spread**2 + lost).astype(np.float32)

        z, sigma, codes = read(whole.dsm), read(whole.dsm_sigma), read(whole.mask)
        height, spread, kinds = surface(z)
        found: list[NDArray[Any]] = [height, with_common(spread, z), kinds]
        if whole.dtm is not None and whole.dtm_sigma is not None and whole.chm is not None:
            ground, above = read(whole.dtm), read(whole.chm)
            mean = pooled(ground, fold)
            envelope, *_ = surface(ground + above)
            matched = (codes == MaskCode.MEASURED) & (above < BARE)
            variance = read(whole.dtm_sigma) ** 2 * np.where(matched, np.float32(alike**2), np.float32(1))
            spread = with_common(np.sqrt(pooled(variance, fold)), ground, pooled(matched.astype(np.float32), fold))
            found += [mean, spread, np.maximum(envelope - mean, 0)]
        found += [_mean_picture(read(p), fold) for p in whole.pictures]
        for raster, values in zip(made.all(), found, strict=True):
            block.write(raster, values)

    for_blocks(work, cut(grid, size=max(BLOCK_CELLS // fold, 1)), workers)
    return made


def _common(frame: Frame | None, grid: Grid, height: Singles, fold: int, fine: Grid) -> Singles:
    """Variance (m2) that the cells of ``grid`` have in common, by the slopes of their fine cells, (h * fold, w * fold)
    metres. fine: whole grid of these; a coarse cell may have its centre beyond it."""
    if frame is None:
        return np.zeros(grid.shape, np.float32)
    half = fold // 2
    run = np.float32((fold - half) * fine.resolution)
    parts = height.reshape(grid.height, fold, grid.width, fold)
    with np.errstate(invalid="ignore"):
        east = (parts[..., -half:].mean((1, 3)) - parts[..., :half].mean((1, 3))) / run
        south = (parts[:, -half:].mean((1, 3)) - parts[:, :half].mean((1, 3))) / run
    x, y = (np.clip(a, b[0], b[-1]) for a, b in zip(grid.centres(), (np.sort(c) for c in fine.centres()), strict=True))
    return common_variance(frame, x, y, np.nan_to_num(np.stack([east, -south])))


def _mean_picture(values: NDArray[Any], fold: int) -> NDArray[Any]:
    if values.dtype.kind == "f":
        return pooled(values.astype(np.float32), fold)
    seen = np.where(values > 0, values, np.nan).astype(np.float32)
    return np.nan_to_num(np.rint(pooled(seen, fold))).astype(values.dtype)
