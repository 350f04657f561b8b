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
_FLOOR_SHARE, _LOWEST_SHARE = 0.05, 0.0125  # of a cell: its lowest part that was measured, and the lowest of that
_FLAT, _LEAST_SPREAD = 1.0, 0.05  # m over the floor; m


@dataclass(frozen=True)
class CanopyCells:
    """Coarse cells of a surface and its ground, each (h, w) float32 on ``grid``.

    ground: mean of what was taken for ground, NaN without, and ground_sigma of it. share: of the cell that is ground.
    top: height under which 90 % of the surface lies, on the slope around. trend: the smoothed surface. seen: share of
    the cell that was measured. floor: mean height of what was measured lowest on the slope around, NaN with too little
    of it; floor_right, floor_down: its place off the cell's centre, in cells; depth: of it under the top; flatness:
    share of the cell near its height, per metre of its spread. Metres.
    """

    grid: Grid
    ground: Singles
    ground_sigma: Singles
    share: Singles
    top: Singles
    trend: Singles
    seen: Singles
    floor: Singles
    floor_right: Singles
    floor_down: Singles
    depth: Singles
    flatness: Singles


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
    top = _quantile(above, step, _TOP_SHARE)
    floor, right, down, over, flatness = _lowest(z, np.where(measured & known, above, np.float32(np.inf)), step)
    return CanopyCells(
        grid,
        ground=pooled(np.where(ground, z, nan), step),
        ground_sigma=pooled(np.where(ground, sigma.values, nan).astype(np.float32), step),
        share=pooled(ground.astype(np.float32), step),
        top=top + trend,
        trend=trend,
        seen=pooled((measured & known).astype(np.float32), step),
        floor=floor,
        floor_right=right,
        floor_down=down,
        depth=top - over,
        flatness=flatness,
    )


def _quantile(values: Singles, step: int, share: float) -> Singles:
    """Value under which a share of each block's values lies; blocks at the far sides may be cut off."""
    blocks = _blocks(values, step)
    k = min(int(share * step * step), step * step - 1)
    return np.asarray(np.partition(blocks, k, axis=-1)[..., k], np.float32)


def _lowest(z: Singles, above: Singles, step: int) -> tuple[Singles, ...]:
    """The lowest cells of each block: mean height, mean place off its middle (in blocks), mean of ``above``, flatness.

    above: (h, w) heights on the slope around, infinite where nothing was measured. NaN where that is nearly all.
    """
    blocks = _blocks(above, step)
    n, few = (max(int(share * step * step), 1) for share in (_FLOOR_SHARE, _LOWEST_SHARE))
    at = np.argpartition(blocks, sorted({few - 1, n - 1}), axis=-1)[..., :n]
    low = np.take_along_axis(blocks, at, axis=-1)
    some = np.asarray(np.all(np.isfinite(low), axis=-1))
    low = np.where(some[..., None], low, np.float32(0))
    over = low.mean(axis=-1)
    near = np.mean(blocks < (over + _FLAT)[..., None], axis=-1)
    # the rest of the lowest over the very lowest: small on ground, large on the flank of a crown
    spread = low[..., few:].mean(axis=-1) - low[..., :few].mean(axis=-1) if n > few else np.ones_like(over)
    layers = (
        np.take_along_axis(_blocks(z, step), at, axis=-1).mean(axis=-1),
        (at % step + 0.5).mean(axis=-1) / step - 0.5,
        (at // step + 0.5).mean(axis=-1) / step - 0.5,
        over,
        near / np.maximum(spread, _LEAST_SPREAD),
    )
    return tuple(np.where(some, m, np.nan).astype(np.float32) for m in layers)


def _blocks(values: Singles, step: int) -> Singles:
    """Values of each block of ``step`` x ``step`` cells on a last axis; blocks at the far sides may be cut off."""
    h, w = values.shape
    rows, columns = -(-h // step), -(-w // step)
    whole = cv2.copyMakeBorder(values, 0, rows * step - h, 0, columns * step - w, cv2.BORDER_REPLICATE)
    return whole.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows, columns, step * step)
