"""Large voids of a stored surface filled from a given DEM, which is first brought to the surface around them."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.change.align import Alignment, align, level_off, moved
from terrain3d.errors import OverlapError
from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.height_files import HeightFile
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import overview, overview_step
from terrain3d.pipeline.threads import Workers, learned
from terrain3d.raster import Grid, Raster
from terrain3d.stats import nmad
from terrain3d.surface import membrane
from terrain3d.surface.coarse import resampled
from terrain3d.surface.mask import MaskCode

OVERVIEW_CELLS, LEAST_OVERVIEW = 1_000_000, 2_500  # cells of an overview
LEAST_CELLS = 10  # of an overview that both surfaces have
RIM = 8.0  # m: deviation of the window over which a void's rim is joined to the DEM, and how fast that fades
RIM_MARGIN = 32.0
ALIGN_SIGMA = 1.0  # m
FAR = 25.0  # m: global DEMs err by less (SRTM 16 m at 90 %), with a forest on it, and geoids differ by more


def fill_from_reference(
    dsm: StoredRaster, sigma: StoredRaster, mask: StoredRaster, extent: Extent, file: HeightFile, workers: Workers,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Fill what is still empty inside the scene's hull with heights of a DEM, and mark it in ``mask``.

    file: with ellipsoidal heights. It is shifted and levelled to the surface, and the smooth part of what still differs
    is carried through the voids (Grohman, Kroenung and Strebeck 2006, Filling SRTM voids: the delta surface fill
    method, PE&RS 72(3)). Sigma of the filled cells is the spread of the differences where both are known. Raises
    OverlapError if the DEM does not lie over the scene.
    """
    grid = dsm.grid
    finest, coarsest = (overview_step(grid, n) for n in (OVERVIEW_CELLS, LEAST_OVERVIEW))
    step = max(min(round(file.grid.cell_metres / grid.resolution), coarsest), finest)
    seen = overview(dsm, step)
    if (far := far_off(seen, file)) is not None:
        reporter.warn(far)
    shift, delta, spread = learned("fit of reference", _fitted(seen, file), workers)

    def work(block: Block) -> None:
        z = block.read(dsm)
        void = extent.hull(block) & ~np.isfinite(z)
        if not void[block.core].any():
            return
        heights = _placed(file, block.grid, shift) + resampled(delta, block.grid)
        heights += _rim(z - heights, grid.resolution)
        use = void & np.isfinite(heights)
        s, codes = block.read(sigma), block.read(mask)
        z[use], s[use], codes[use] = heights[use], spread, MaskCode.REFERENCE
        for raster, values in ((dsm, z), (sigma, s), (mask, codes)):
            block.write(raster, values)

    blocks = cut(grid, RIM_MARGIN)
    reporter.stage("reference DEM", len(blocks))
    for_blocks(work, blocks, workers, reporter)


def _fitted(seen: Raster, file: HeightFile) -> tuple[Alignment | None, Raster, float]:
    """How far the DEM lies from the surface, the smooth part of what still differs, and the spread (m) of all that."""
    margin = 8
    around = seen.grid.window(-margin, -margin, seen.grid.height + 2 * margin, seen.grid.width + 2 * margin)
    given = file.on(around)
    inner = Raster(given.values[margin:-margin, margin:-margin], seen.grid)
    if np.isfinite(inner.values - seen.values).sum() < LEAST_CELLS:
        raise OverlapError("reference DEM has no heights over the scene", where=file.path, fix="check its area and CRS")
    shift = None
    try:
        shift = align(seen, given, ALIGN_SIGMA)
        inner = moved(given, seen.grid, shift)
    except OverlapError:
        pass  # too few cells to see a shift: the difference alone is carried on
    difference = (seen.values - inner.values).astype(np.float32)
    known = np.isfinite(difference)
    size = max(3, 2 * (min(seen.grid.shape) // 40) + 1)
    weight = cv2.blur(known.astype(np.float32), (size, size))
    smooth = cv2.blur(np.where(known, difference, np.float32(0)), (size, size)) / np.maximum(weight, 1e-6)
    smooth = np.where(known, smooth, np.float32(np.nan)).astype(np.float32)
    spread = max(float(nmad(difference[known] - float(np.median(difference[known])))), 0.1)
    return shift, Raster(membrane.membrane(smooth), seen.grid), spread


def far_off(seen: Raster, file: HeightFile) -> str | None:
    """A line where the surface lies so high above or below the DEM that one of them is wrong as a whole."""
    difference = seen.values - file.on(seen.grid).values
    known = np.isfinite(difference)
    up = float(np.median(difference[known])) if known.any() else 0.0
    if abs(up) < FAR:
        return None
    return (
        f"the surface lies {abs(up):.0f} m {'above' if up > 0 else 'below'} the reference DEM, which was shifted to "
        "it: images without lidar may point wrong by as much (check the RPCs); else check the DEM's vertical reference"
    )


def _placed(file: HeightFile, grid: Grid, shift: Alignment | None) -> NDArray[np.float32]:
    """Heights of the DEM on a grid, its shift taken out."""
    if shift is None:
        return file.on(grid).values
    there = replace(grid, west=grid.west + shift.east, north=grid.north + shift.north)
    return level_off(file.on(there).values, grid, shift)


def _rim(rest: NDArray[np.float32], resolution: float) -> NDArray[np.float32]:
    """Difference at the rim of voids, carried a little into them."""
    known = np.isfinite(rest)
    cells = RIM / resolution
    near = cv2.blur(known.astype(np.float32), (2 * ceil(cells) + 1,) * 2)
    total = cv2.blur(np.where(known, rest, np.float32(0)), (2 * ceil(cells) + 1,) * 2)
    distance = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 5)
    fade = np.exp(-distance / cells) * (near > 0)
    return np.asarray(total / np.maximum(near, 1e-6) * fade, np.float32)
