"""True ortho of a stored surface."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import Counts, Tally, overview, overview_step, tally
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Raster
from terrain3d.surface import membrane
from terrain3d.surface.coarse import resampled
from terrain3d.surface.ortho import HIDDEN_MARGIN, ORTHO_MARGIN, OrthoView, ortho, rank_views
from terrain3d.surface.voids import between

OVERVIEW_CELLS = 1_000_000
VALUES = 65536


@dataclass(frozen=True)
class Picture:
    """Image values, uint16 with 0 for no value, and how often each occurs."""

    values: StoredRaster
    counts: Counts


def draw(
    dsm: StoredRaster, extent: Extent, views: list[OrthoView], folder: Place, workers: Workers, reporter: Reporter
) -> Picture:
    """Ortho of a surface whose large voids are still open: a guess closes them here, which water needs to be seen."""
    grid = dsm.grid
    step = overview_step(grid, OVERVIEW_CELLS)
    small = overview(dsm, step)
    guess = Raster(membrane.membrane(small.values), small.grid)
    rows = np.minimum(np.arange(small.grid.height) * step + step // 2, grid.height - 1)
    hull = between(extent.left[rows] // step, extent.right[rows] // step, 0, small.grid.width)
    surface = Raster(np.where(hull, guess.values, np.float32(np.nan)), small.grid)
    ranked = rank_views(surface, views)
    values, counts = new_raster(folder / "ortho.raw", grid, np.uint16), Counts(VALUES, VALUES)
    cells = ceil(HIDDEN_MARGIN / grid.resolution)

    def work(block: Block) -> Tally:
        closed = _closed(Raster(block.read(dsm), block.grid), extent.hull(block), guess, block.origin)
        drawn = ortho(closed, ranked, block.around_core(cells)).values
        block.write(values, drawn)
        return tally(drawn[block.core][drawn[block.core] > 0], VALUES, VALUES)

    blocks = cut(grid, ORTHO_MARGIN)
    reporter.stage("ortho image", len(blocks))
    for found in for_blocks(work, blocks, workers, reporter):
        counts.put(found)
    return Picture(values, counts)


def _closed(dsm: Raster, hull: NDArray[np.bool_], guess: Raster, origin: tuple[int, int]) -> Raster:
    """Surface with its voids inside the hull closed by the guess, bent to meet their boundaries."""
    known = np.isfinite(dsm.values)
    void = hull & ~known
    if not void.any():
        return dsm
    ring = cv2.dilate(void.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & known
    base = resampled(guess, dsm.grid)
    state = np.where(void, membrane.UNKNOWN, np.where(ring, membrane.FIXED, membrane.OUTSIDE)).astype(np.uint8)
    rest = membrane.solve(np.where(ring, dsm.values - base, np.float32(0)), state, origin)
    return Raster(np.where(void, base + np.nan_to_num(rest), dsm.values).astype(np.float32), dsm.grid)
