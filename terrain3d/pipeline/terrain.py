"""Terrain model and height above ground of a stored surface."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import BLOCK_CELLS, Block, coarse_block, cut, for_blocks
from terrain3d.pipeline.bridges import Bridges
from terrain3d.pipeline.canopy_check import CanopyCheck, check_canopy
from terrain3d.pipeline.canopy_ground import StoredCells, StoredHidden, under_trees
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import OVERVIEW_RIM, overview, overview_step, with_rim
from terrain3d.pipeline.settling import Settled
from terrain3d.pipeline.threads import Workers, learned
from terrain3d.points import LidarReturns
from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.canopy import Seen, canopy_height
from terrain3d.surface.canopy_cells import CELLS_MARGIN, canopy_cells
from terrain3d.surface.coarse import resampled
from terrain3d.surface.dtm import DTM_MARGIN, ground_distance, stated_sigma, terrain_sigma, with_hidden
from terrain3d.surface.filled import Overhangs, enveloped, on_terrain
from terrain3d.surface.ground import (
    GROUND_MARGIN,
    Ground,
    Plane,
    coarse_factor,
    coarse_ground,
    fine_ground,
    fit_plane,
)
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.rims import AROUND
from terrain3d.surface.water import banks_above

LAST_MARGIN = 64.0  # metres, of the share of ground, of gaps and pits in crowns, and of coarse cells under trees
OVERVIEW_CELLS = 1_000_000
LEVELLED = (MaskCode.WATER, MaskCode.REFERENCE)  # there is no better terrain than their surface


@dataclass(frozen=True)
class Terrain:
    """Terrain and its sigma, height above ground; NaN where they are not given. check: of ground under trees and
    canopy heights against lidar, None with too little of it. surface, surface_sigma: the surface model with its filled
    cells on the terrain."""

    dtm: StoredRaster
    sigma: StoredRaster
    chm: StoredRaster
    check: CanopyCheck | None
    surface: StoredRaster
    surface_sigma: StoredRaster


@dataclass(frozen=True)
class _Given:
    """The surface model that a terrain is made of, and what else is known of it; see ``make_terrain``."""

    dsm: StoredRaster
    sigma: StoredRaster
    mask: StoredRaster
    settled: Settled | None
    bridges: Bridges | None
    envelope: bool


@dataclass(frozen=True)
class _Filtered:
    """Terrain of the ground filter, everywhere (m); its slope (rise over run); ground cells (1); 1-sigma (m), NaN where
    it is not given; and the ground under trees."""

    height: StoredRaster
    slope: StoredRaster
    ground: StoredRaster
    sigma: StoredRaster
    hidden: StoredHidden


@dataclass(frozen=True)
class _CoarseGround:
    """Ground on coarse cells, see ``ground.coarse_ground``."""

    surface: StoredRaster
    slope: StoredRaster
    kept: StoredRaster
    built: StoredRaster
    factor: int

    def read(self, block: Block) -> Ground:
        """Ground under the window of a block of the fine grid."""
        over = coarse_block(block, self.factor)
        kept, built = (over.read(a) > 0 for a in (self.kept, self.built))
        return Ground(kept, over.read(self.surface), over.read(self.slope), built)


def make_terrain(
    dsm: StoredRaster, sigma: StoredRaster, mask: StoredRaster, extent: Extent, returns: LidarReturns | None,
    folder: Place, workers: Workers, reporter: Reporter, settled: Settled | None = None,
    bridges: Bridges | None = None, envelope: bool = False,
) -> Terrain:  # fmt: skip
    """Terrain model of a surface model.

    What the mask calls measured is evidence of ground. returns: trusted lidar ground returns in the frame of ``dsm``.
    settled: what the surface was before its overhangs were taken off for the ground's sake; heights above ground are
    those of whichever is higher, and the files of ``dsm`` and ``sigma`` are used up. Without it the surface stays.
    bridges: the terrain under them is the water. envelope: the surface, too, is whichever is higher.
    """
    grid = dsm.grid
    blocks = cut(grid, max(DTM_MARGIN, CELLS_MARGIN))
    reporter.stage("terrain model", len(blocks))
    step = learned("cells of overviews", overview_step(grid, OVERVIEW_CELLS), workers)
    plane = fit_plane(overview(dsm, step, where=(mask, MaskCode.MEASURED)))
    if plane is None:  # all is water
        nothing = [new_raster(folder / f"{n}.raw", grid, np.float32) for n in ("dtm", "dtm_sigma", "chm")]
        for_blocks(lambda b: _fill_empty(b, nothing), cut(grid), workers)
        return Terrain(nothing[0], nothing[1], nothing[2], None, dsm, sigma)
    plane = learned("plane of terrain", plane, workers)
    coarse = _coarse_ground(dsm, mask, plane, folder, workers)
    terrain, slope, spread = (
        new_raster(folder / f"{n}.raw", grid, np.float32) for n in ("terrain", "slope", "dtm_sigma")
    )
    ground, built = (new_raster(folder / f"{n}.raw", grid, np.uint8) for n in ("ground", "built"))

    def refine(block: Block) -> None:
        z, evidence = Raster(block.read(dsm), block.grid), block.read(mask) == MaskCode.MEASURED
        fine = fine_ground(z, evidence, coarse.read(block), plane)
        block.write(terrain, fine.surface)
        block.write(slope, fine.slope)
        block.write(ground, fine.mask)
        block.write(built, fine.built)

    for_blocks(refine, cut(grid, grid.resolution * coarse.factor), workers)
    shares = with_rim(overview(ground, step), OVERVIEW_RIM, 0.0)
    far = Raster(ground_distance(shares.values > 0, shares.grid.resolution), shares.grid)
    cells = StoredCells.create(grid, folder)

    def judge(block: Block) -> None:
        z, s = (Raster(block.read(r), block.grid) for r in (dsm, sigma))
        seen, steep = block.read(ground) > 0, block.read(slope)
        total = terrain_sigma(z, s, seen, steep, extent.hull(block), resampled(far, block.grid))
        block.write(spread, total.values)
        measured = block.read(mask) == MaskCode.MEASURED
        trees = Raster(np.where(block.read(built) > 0, np.float32(np.nan), z.values), block.grid)
        cells.write(block, canopy_cells(trees, s, block.read(terrain), seen, measured))

    for_blocks(judge, blocks, workers, reporter)
    hidden = under_trees(cells, returns, folder, workers)
    check = check_canopy(cells, returns, workers)
    filtered = _Filtered(terrain, slope, ground, spread, hidden)
    made = _finish(_Given(dsm, sigma, mask, settled, bridges, envelope), filtered, folder, workers)
    for done in (terrain, slope, ground, built, coarse.surface, coarse.slope, coarse.kept, coarse.built, *cells.layers):
        done.remove()
    return replace(made, check=check)


def _fill_empty(block: Block, rasters: list[StoredRaster]) -> None:
    for raster in rasters:
        block.write(raster, np.full(block.grid.shape, np.nan, np.float32))


def _coarse_ground(
    dsm: StoredRaster, mask: StoredRaster, plane: Plane, folder: Place, workers: Workers
) -> _CoarseGround:
    g, factor = dsm.grid, coarse_factor(dsm.grid.resolution)
    grid = replace(g, resolution=g.resolution * factor, height=g.height // factor, width=g.width // factor)
    surface, slope = (new_raster(folder / f"coarse_{n}.raw", grid, np.float32) for n in ("surface", "slope"))
    kept, built = (new_raster(folder / f"coarse_{n}.raw", grid, np.uint8) for n in ("kept", "built"))

    def work(block: Block) -> None:
        over = coarse_block(block, factor)
        evidence = block.read(mask) == MaskCode.MEASURED
        found = coarse_ground(Raster(block.read(dsm), block.grid), evidence, plane, over.origin)
        over.write(surface, found.surface)
        over.write(slope, found.slope)
        over.write(kept, found.mask)
        over.write(built, found.built)

    for_blocks(work, cut(g, GROUND_MARGIN, BLOCK_CELLS * factor), workers)
    return _CoarseGround(surface, slope, kept, built, factor)


def _finish(given: _Given, filtered: _Filtered, folder: Place, workers: Workers) -> Terrain:
    """Terrain with the ground under trees, elsewhere not above what was measured of the surface; height over it; and
    the surface with its filled cells on it. Updates the sigma of the terrain, and the mask for an envelope."""
    grid, settled = given.dsm.grid, given.settled
    dtm, chm = (new_raster(folder / f"{n}.raw", grid, np.float32) for n in ("dtm", "chm"))
    surface, surface_sigma = given.dsm, given.sigma
    if settled is not None:
        surface, surface_sigma = (new_raster(folder / f"surface{n}.raw", grid, np.float32) for n in ("", "_sigma"))

    def work(block: Block) -> None:
        z, s = (Raster(block.read(r), block.grid) for r in (given.dsm, given.sigma))
        codes = block.read(given.mask)
        under, sigma, stated = _lower(block, z, s, codes, given, filtered)
        block.write(filtered.sigma, stated)
        block.write(dtm, under.values)
        filled = codes == MaskCode.FILLED
        seen = np.where(filled, Seen.NOT, Seen.WELL).astype(np.uint8)
        if settled is not None:
            water = np.isin(codes, LEVELLED)
            over = Overhangs(block.read(settled.envelope), block.read(settled.odds).astype(np.float32))
            z, s = on_terrain(z, s, under, sigma, filled, over)
            upper = enveloped(z, s, under, over, ~water)
            if given.envelope:
                z, s = upper.height, upper.sigma
                block.write(given.mask, np.where(upper.raised & filled, MaskCode.MEASURED, codes).astype(np.uint8))
            block.write(surface, z.values)
            block.write(surface_sigma, s.values)
            z, seen = upper.height, cells_seen(over, filled, block.read(settled.pairs), grid.resolution)
        canopy = resampled(filtered.hidden.read(block).weight, block.grid) > 0
        block.write(chm, canopy_height(z, under, seen, canopy).values)

    for_blocks(work, cut(grid, LAST_MARGIN), workers)
    if settled is not None:
        for used in (given.dsm, given.sigma):
            used.remove()
    return Terrain(dtm, filtered.sigma, chm, None, surface, surface_sigma)


def cells_seen(
    over: Overhangs, filled: NDArray[np.bool_], pairs: NDArray[np.uint8], resolution: float
) -> NDArray[np.uint8]:
    """How cells were matched, see ``Seen``. filled: those that were not or as an overhang; pairs: that saw each."""
    matched = np.isfinite(over.heights)
    most = cv2.dilate(pairs, np.ones((odd_cells(AROUND, resolution),) * 2, np.uint8))
    seen = np.where(pairs < most / 2, Seen.PARTLY, Seen.WELL)
    seen = np.where(matched & (over.odds > 0), Seen.HANGING, seen)
    return np.where(filled & ~matched, Seen.NOT, seen).astype(np.uint8)


def _lower(
    block: Block, z: Raster, s: Raster, codes: NDArray[np.uint8], given: _Given, filtered: _Filtered
) -> tuple[Raster, Raster, NDArray[np.float32]]:
    """Terrain of a block (m, NaN where it is not given), the sigma by which it is worked out, and that which is stated.
    z, s, codes: surface of the block, its sigma and mask."""
    height, sigma = (Raster(block.read(r), block.grid) for r in (filtered.height, filtered.sigma))
    known = np.isfinite(sigma.values)
    seen = z
    if given.settled is not None:
        seen = Raster(np.where(codes == MaskCode.FILLED, np.float32(np.nan), z.values), block.grid)
    forest = filtered.hidden.read(block)
    ground = block.read(filtered.ground) > 0
    height, sigma = with_hidden(height, sigma, ground, seen, s, forest)
    water = np.isin(codes, LEVELLED)
    away = ground_distance(ground, block.grid.resolution)
    guessed = resampled(forest.weight, block.grid) == 0
    stated = stated_sigma(sigma.values, block.read(filtered.slope), away, guessed)
    stated = np.where(water, s.values, stated)
    sigma = Raster(np.where(water, s.values, sigma.values), block.grid)
    lower = np.where(known, height.values, np.float32(np.nan))
    lower[water] = z.values[water]
    lower = banks_above(lower, codes == MaskCode.WATER, z.values, block.grid.resolution)
    if given.bridges is not None:
        level, doubt = given.bridges.under(block)
        bridged = np.isfinite(level) & np.isfinite(lower)
        lower = np.where(bridged, level, lower)
        sigma = Raster(np.where(bridged, doubt, sigma.values), block.grid)
        stated = np.where(bridged, doubt, stated)
    return Raster(lower, block.grid), sigma, stated
