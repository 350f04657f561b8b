"""A clean surface model settled: without noise, refined by all views at once, and without what crowns and roofs were
carried over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.model import StoredModel
from terrain3d.pipeline.picture import Ranking
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.threads import Workers, learned
from terrain3d.raster import Raster
from terrain3d.surface import appearance, rays
from terrain3d.surface.agreement import MARGIN_CELLS, without_noise
from terrain3d.surface.ortho import value_quantiles, values_at
from terrain3d.surface.rays import refined
from terrain3d.surface.rims import MARGIN, Matches, find_rims, ground_odds

NO_RIM = -30.0  # odds of a cell that hangs over nothing


@dataclass(frozen=True)
class Settled:
    """envelope: heights without what the looks do not agree upon, refined by all views. heights: the same without
    overhangs; a void in place of one is filled from the lower side, where it belongs. odds: logarithm, that a cell is
    ground which a crown or roof was carried over, or ``NO_RIM``. pairs: of images that saw a cell."""

    envelope: StoredRaster
    heights: StoredRaster
    odds: StoredRaster
    pairs: StoredRaster


def settled_heights(
    model: StoredModel, clean: StoredRaster, views: Ranking, folder: Place, workers: Workers, reporter: Reporter
) -> Settled:
    """Clean heights settled. The files of ``clean`` and of the model's layers ``below`` and ``looks`` are used up."""
    grid = model.grid
    envelope, settled = (new_raster(folder / f"{name}.raw", grid, np.float32) for name in ("envelope", "settled"))
    odds, final = (new_raster(folder / f"{name}.raw", grid, np.float16) for name in ("odds", "rim_odds"))
    light = new_raster(folder / "light.raw", grid, np.uint16)
    ranked = views.ranked
    limits = learned("levels of light", value_quantiles(views.surface, ranked, appearance.LIMITS), workers)

    def by_rays(block: Block) -> None:
        looks = [block.read(look).astype(np.float32) for look in model.looks]
        heights = without_noise(block.read(clean), block.read(model.sigma), looks)
        block.write(envelope, refined(Raster(heights, block.grid), ranked))

    def by_matches(block: Block) -> NDArray[np.int64]:
        sigma, dsm = block.read(model.sigma), Raster(block.read(envelope), block.grid)
        found = find_rims(dsm)
        confidence, below = (block.read(layer).astype(np.float32) for layer in (model.confidence, model.below))
        own = ground_odds(dsm, found, Matches(sigma, block.read(model.pairs), confidence, below))
        rim = np.zeros(block.grid.shape, np.bool_)
        rim[block.core] = found.which[block.core]
        codes = np.full(block.grid.shape, appearance.NONE, np.uint16)
        codes[rim] = appearance.codes_of(values_at(dsm, ranked, rim), limits)
        block.write(odds, np.where(found.which, own, np.float32(NO_RIM)))
        block.write(light, codes)
        return appearance.count(own[rim], codes[rim])

    around = (MARGIN_CELLS + rays.MARGIN_CELLS) * grid.resolution
    for_blocks(by_rays, cut(grid, around), workers, reporter)
    counts = for_blocks(by_matches, cut(grid, MARGIN), workers, reporter)
    table = learned("look of rims", appearance.learn(np.sum(counts, axis=0)), workers)

    def by_light(block: Block) -> None:
        total = block.read(odds).astype(np.float32) + table[block.read(light)]
        block.write(settled, np.where(total > 0, np.float32(np.nan), block.read(envelope)))
        block.write(final, total)

    for_blocks(by_light, cut(grid), workers)
    for used in (clean, odds, light, model.below, *model.looks):
        used.remove()
    return Settled(envelope, settled, final, model.pairs)
