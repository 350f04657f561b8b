"""Blocks of a grid: a core that is written and the margin around it that a step needs to see.

Grids and cores begin at multiples of ``coarse_factor * ALIGN`` cells of the reference itself, so that what is pooled to
coarser cells is pooled alike whatever the blocks and whatever the extent of the grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.threads import Workers, for_each
from terrain3d.raster import Grid
from terrain3d.surface.ground import coarse_factor

R = TypeVar("R")

BLOCK_CELLS = 1024  # largest core, cells a side
ALIGN = 8  # coarse cells


@dataclass(frozen=True)
class Block:
    """A window of a grid. row, column: of its first cell in the whole; core: rows and columns of it that are written.

    origin: row and column of the first cell, counted from the origin of the reference; it only depends on the place.
    """

    grid: Grid
    row: int
    column: int
    core: tuple[slice, slice]
    origin: tuple[int, int]

    def read(self, raster: StoredRaster) -> NDArray[Any]:
        return raster.read(self.row, self.column, *self.grid.shape)

    def write(self, raster: StoredRaster, values: NDArray[Any]) -> None:
        """Store the core of values on the window."""
        rows, columns = self.core
        raster.write(self.row + rows.start, self.column + columns.start, values[self.core])

    def around_core(self, cells: int) -> tuple[slice, slice]:
        """Part of the window that holds the core and at most that many cells around it."""
        rows, columns = (
            slice(max(s.start - cells, 0), min(s.stop + cells, size))
            for s, size in zip(self.core, self.grid.shape, strict=True)
        )
        return rows, columns

    def part(self, rows: slice, columns: slice) -> Block:
        """Block of a part of the window that holds the core."""
        grid = self.grid.window(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)
        core = tuple(
            slice(s.start - p.start, s.stop - p.start) for s, p in zip(self.core, (rows, columns), strict=True)
        )
        origin = self.origin[0] + rows.start, self.origin[1] + columns.start
        return Block(grid, self.row + rows.start, self.column + columns.start, (core[0], core[1]), origin)


def aligned(grid: Grid) -> Grid:
    """Smallest grid around this one that blocks can be cut from."""
    step = _alignment(grid)
    row, column = _origin(grid)
    row0, column0 = row // step * step, column // step * step
    row1, column1 = -(-(row + grid.height) // step) * step, -(-(column + grid.width) // step) * step
    west, south, east, north = (n * grid.resolution for n in (column0, -row1, column1, -row0))
    return Grid.from_bounds(grid.reference, west, south, east, north, grid.resolution)


def cut(grid: Grid, margin_m: float = 0.0, size: int | None = None) -> list[Block]:
    """Blocks that make up a grid, row by row, of about equal cores of at most ``size`` (BLOCK_CELLS) cells a side."""
    size = size or BLOCK_CELLS
    step = _alignment(grid)
    margin = ceil(margin_m / grid.resolution / step) * step
    first = _origin(grid)
    out = []
    for rows in _spans(grid.height, size, step):
        for columns in _spans(grid.width, size, step):
            top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
            bottom, right = min(rows[1] + margin, grid.height), min(columns[1] + margin, grid.width)
            core = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
            part = grid.window(top, left, bottom - top, right - left)
            out.append(Block(part, top, left, core, (first[0] + top, first[1] + left)))
    return out


def for_blocks(
    work: Callable[[Block], R], blocks: list[Block], workers: Workers, reporter: Reporter | None = None
) -> list[R]:
    """Results of the work on all blocks, several at once. It reads rasters only on the windows of its block."""
    return for_each(work, blocks, workers, reporter)


def coarse_block(block: Block, factor: int) -> Block:
    """The block on cells ``factor`` times as large."""
    g = block.grid
    grid = Grid(g.reference, g.west, g.north, g.resolution * factor, -(-g.height // factor), -(-g.width // factor))
    rows, columns = (slice(s.start // factor, -(-s.stop // factor)) for s in block.core)
    origin = block.origin[0] // factor, block.origin[1] // factor
    return Block(grid, block.row // factor, block.column // factor, (rows, columns), origin)


def _alignment(grid: Grid) -> int:
    return ALIGN * coarse_factor(grid.resolution)


def _origin(grid: Grid) -> tuple[int, int]:
    """Row and column of the first cell, from the origin of the reference."""
    return int(np.rint(-grid.north / grid.resolution)), int(np.rint(grid.west / grid.resolution))


def _spans(cells: int, size: int, step: int) -> list[tuple[int, int]]:
    """First and last-but-one cell of equal parts that begin at multiples of ``step``."""
    n = ceil(cells / size)
    length = ceil(cells / n / step) * step
    return [(a, min(a + length, cells)) for a in range(0, cells, length)]
