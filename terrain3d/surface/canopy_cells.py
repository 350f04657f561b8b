"""What a surface model says of ground and canopy on cells of some metres, the work of ``under_canopy``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster
from terrain3d.surface.coarse import pooled, resampled
from terrain3d.surface.ground import coarse_factor

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

CELLS_MARGIN = 64.0  # m: reach of the trend
CANOPY_CELL = 8.0  # m: a few crowns, and terrain still straight
BLOCK = 8  # coarse cells of ``ground`` a side that whole blocks are made of
_TREND = 15.0  # m, of the surface that the tops stand on
_TOP_SHARE = 0.9  # of the heights in a cell that lie under its top


@dataclass(frozen=True)
class CanopyCells:
    """Coarse cells of a surface and its ground, each (h, w) float32 on ``grid``.

    ground: mean of what was taken for ground, NaN without, and ground_sigma of it. share: of the cell that is ground.
    top: height under which 90 % of the surface lies, on the slope around. trend: the smoothed surface. seen: share of
    the cell that was measured. Metres.
    """

    grid: Grid
    ground: Singles
    ground_sigma: Singles
    share: Singles
    top: Singles
    trend: Singles
    seen: Singles


LAYERS = tuple(f.name for f in fields(CanopyCells) if f.name != "grid")


def canopy_step(resolution: float) -> int:
    """Cells a side of a coarse cell: near 8 m, and such that blocks are made of whole ones."""
    step = BLOCK * coarse_factor(resolution)
    while step % 2 == 0 and step * resolution > 1.5 * CANOPY_CELL:
        step //= 2
    return step


def canopy_grid(grid: Grid, step: int) -> Grid:
    """Grid of the coarse cells over one whose sides are multiples of the step."""
    return replace(
        grid, resolution=grid.resolution * step, height=-(-grid.height // step), width=-(-grid.width // step)
    )


def canopy_cells(dsm: Raster, sigma: Raster, terrain: Singles, ground: Bools, measured: Bools) -> CanopyCells:
    """Coarse cells from the north-west of a part of a surface model.

    dsm, sigma: (h, w) metres, NaN voids. terrain: (h, w) metres, everywhere. ground, measured: (h, w). Cells farther
    than ``CELLS_MARGIN`` from the border do not depend on what lies beyond it.
    """
    step = canopy_step(dsm.grid.resolution)
    grid = canopy_grid(dsm.grid, step)
    z, nan = np.asarray(dsm.values, np.float32), np.float32(np.nan)
    known = np.isfinite(z)
    filled = np.where(known, z, terrain)
    trend = cv2.GaussianBlur(pooled(filled, step), (0, 0), _TREND / grid.resolution)
    above = filled - resampled(Raster(trend, grid), dsm.grid)
    return CanopyCells(
        grid,
        ground=pooled(np.where(ground, z, nan), step),
        ground_sigma=pooled(np.where(ground, sigma.values, nan).astype(np.float32), step),
        share=pooled(ground.astype(np.float32), step),
        top=_quantile(above, step, _TOP_SHARE) + trend,
        trend=trend,
        seen=pooled((measured & known).astype(np.float32), step),
    )


def _quantile(values: Singles, step: int, share: float) -> Singles:
    """Value under which a share of each block's values lies; blocks at the far sides may be cut off."""
    h, w = values.shape
    rows, columns = -(-h // step), -(-w // step)
    whole = cv2.copyMakeBorder(values, 0, rows * step - h, 0, columns * step - w, cv2.BORDER_REPLICATE)
    blocks = whole.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows * columns, step * step)
    k = min(int(share * step * step), step * step - 1)
    return np.asarray(np.partition(blocks, k, axis=1)[:, k].reshape(rows, columns), np.float32)
