"""Ground under the trees of a stored surface, estimated on coarse cells window by window."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, coarse_block, cut, for_blocks
from terrain3d.pipeline.threads import Workers
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.surface.canopy_cells import CANOPY_CELL, LAYERS, CanopyCells, canopy_grid, canopy_step
from terrain3d.surface.under_canopy import HiddenGround, ground_returns, hidden_ground

WINDOW_CELLS = 192  # of a window's core; the work grows faster than a window
WINDOW_MARGIN = 256.0  # metres; a canopy farther away says nothing of the ground
HIDDEN = tuple(f.name for f in fields(HiddenGround))


def lidar_reach() -> float:
    """Distance in metres at which a return may, at most, still change the ground under trees."""
    return WINDOW_MARGIN + WINDOW_CELLS * CANOPY_CELL


@dataclass(frozen=True)
class StoredCells:
    """Coarse cells of a scene on disk, see ``CanopyCells``. step: fine cells a side of a coarse one."""

    layers: tuple[StoredRaster, ...]
    step: int

    @classmethod
    def create(cls, grid: Grid, folder: Place) -> StoredCells:
        """Empty cells over a fine grid."""
        step = canopy_step(grid.resolution)
        coarse = canopy_grid(grid, step)
        return cls(tuple(new_raster(folder / f"cells_{n}.raw", coarse, np.float32) for n in LAYERS), step)

    @property
    def grid(self) -> Grid:
        return self.layers[0].grid

    def write(self, block: Block, cells: CanopyCells) -> None:
        """Store the core of the cells under a block of the fine grid."""
        over = coarse_block(block, self.step)
        for name, layer in zip(LAYERS, self.layers, strict=True):
            over.write(layer, getattr(cells, name))

    def read(self, window: Block) -> CanopyCells:
        """Cells of a window of the coarse grid."""
        return CanopyCells(window.grid, *(window.read(layer) for layer in self.layers))


@dataclass(frozen=True)
class StoredHidden:
    """Ground under trees on disk, see ``HiddenGround``. step: as of the cells."""

    layers: tuple[StoredRaster, ...]
    step: int

    def read(self, block: Block) -> HiddenGround:
        """Ground under trees over a block of the fine grid."""
        over = coarse_block(block, self.step)
        return HiddenGround(*(Raster(over.read(layer), over.grid) for layer in self.layers))


def under_trees(cells: StoredCells, returns: LidarReturns | None, folder: Place, workers: Workers) -> StoredHidden:
    """Ground under the trees of a whole scene; weight 0 where there are none. returns: in the frame of the surface."""
    crs = cells.grid.reference.horizontal
    seen = None if returns is None or not len(returns) else ground_returns(returns, crs)
    layers = tuple(new_raster(folder / f"hidden_{n}.raw", cells.grid, np.float32) for n in HIDDEN)

    def work(window: Block) -> None:
        found = hidden_ground(cells.read(window), seen)
        for name, layer in zip(HIDDEN, layers, strict=True):
            empty = 0.0 if name == "weight" else np.nan
            values = np.full(window.grid.shape, empty, np.float32) if found is None else getattr(found, name).values
            window.write(layer, values)

    for_blocks(work, cut(cells.grid, WINDOW_MARGIN, WINDOW_CELLS), workers)
    return StoredHidden(layers, cells.step)
