"""Voids of a stored surface model filled, and the sigma of its cells."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np

from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.components import label
from terrain3d.pipeline.model import Extent, StoredModel
from terrain3d.pipeline.progress import Reporter
from terrain3d.raster import Raster
from terrain3d.register.registration import Registration
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.sigma import cell_sigma
from terrain3d.surface.voids import FILL_MARGIN, MAX_VOID_AREA, fill_voids

SIGMA_MARGIN = 8.0  # metres, half of the widest window of the sigma, and its slopes
STRIP_ROWS = 256
STEEPEST = 1.0  # slope up to which a cell is a surface and not a wall


def fill_model(
    model: StoredModel, clean: StoredRaster, extent: Extent, registration: Registration | None, folder: Path,
    workers: int, reporter: Reporter,
) -> tuple[StoredRaster, StoredRaster, StoredRaster]:  # fmt: skip
    """Surface with small voids filled, its sigma, and its mask (no water yet)."""
    grid = model.grid
    dsm, sigma = (new_raster(folder / f"{name}.raw", grid, np.float32) for name in ("dsm", "dsm_sigma"))
    mask = new_raster(folder / "mask.raw", grid, np.uint8)
    voids = label(
        lambda block: ~np.isfinite(block.read(clean)) & extent.hull(block), grid, folder / "voids.raw", workers
    )
    small = voids.area * grid.resolution**2 <= MAX_VOID_AREA
    small[0] = False

    def work(block: Block) -> None:
        z = block.read(clean)
        known, fill = np.isfinite(z), small[voids.read(block)]
        matches = np.where(known, block.read(model.sigma), np.float32(np.nan))
        filled, spread = fill_voids(Raster(z, block.grid), Raster(matches, block.grid), fill, block.origin)
        part = block.around_core(ceil(SIGMA_MARGIN / grid.resolution))
        inner = block.part(*part)
        height = Raster(filled.values[part], inner.grid)
        total = with_registration(cell_sigma(height, Raster(spread.values[part], inner.grid)), height, registration)
        block.write(dsm, filled.values)
        inner.write(sigma, total.values)
        codes = np.where(known, MaskCode.MEASURED, np.where(fill & np.isfinite(filled.values), MaskCode.FILLED, 0))
        block.write(mask, codes.astype(np.uint8))

    for_blocks(work, cut(grid, FILL_MARGIN), workers, reporter)
    voids.labels.remove()
    return dsm, sigma, mask


def with_registration(sigma: Raster, dsm: Raster, registration: Registration | None) -> Raster:
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
