"""Super-resolved ortho of a stored surface."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.picture import Ranking, as_type, ortho_type
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Raster
from terrain3d.surface.ortho import ORTHO_MARGIN, SEAM_MARGIN
from terrain3d.surface.super_resolution import FACTOR, super_resolved

FINE_BLOCK_CELLS = 768  # some 40 bytes a fine cell and view are held


def draw_fine(
    dsm: StoredRaster, views: Ranking, folder: Place, workers: Workers, reporter: Reporter
) -> tuple[StoredRaster, ...]:
    """Bands of the ortho on cells of half the size, values as those of the ortho."""
    grid, kind, ranked = dsm.grid, ortho_type(views.views), views.ranked
    fine = replace(grid, resolution=grid.resolution / FACTOR, height=grid.height * FACTOR, width=grid.width * FACTOR)
    bands = tuple(new_raster(folder / f"fine_{i}.raw", fine, kind) for i in range(1, views.bands + 1))
    cells = ceil(SEAM_MARGIN / grid.resolution)

    def work(block: Block) -> None:
        part = block.around_core(cells)
        values = super_resolved(Raster(block.read(dsm), block.grid), ranked, part)
        inner = block.part(*part)
        core = tuple(slice(s.start * FACTOR, s.stop * FACTOR) for s in inner.core)
        row, column = (inner.row + inner.core[0].start) * FACTOR, (inner.column + inner.core[1].start) * FACTOR
        for raster, band in zip(bands, values, strict=True):
            raster.write(row, column, np.ascontiguousarray(as_type(band, kind)[core]))

    blocks = cut(grid, ORTHO_MARGIN, FINE_BLOCK_CELLS)
    reporter.stage("super-resolved ortho", len(blocks))
    for_blocks(work, blocks, workers, reporter)
    return bands
