"""Blocks of a grid: a core that is written and the margin around it that a step needs to see.

Grids and cores begin at multiples of ``coarse_factor * ALIGN`` cells of the reference itself, so that what is pooled to
coarser cells is pooled alike whatever the blocks and whatever the extent of the grid. Where a grid has grown, blocks of
before stay, and do not look at new ground that holds nothing near them; new ground has blocks of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, TypeVar

from numpy.typing import NDArray

from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.threads import Workers, for_each
from terrain3d.raster import Bounds, Grid, Growth
from terrain3d.surface.ground import coarse_factor

R = TypeVar("R")
Span = tuple[int, int]  # first cell, and the one after the last
Box = tuple[int, int, int, int]  # first row and column, and those after the last

BLOCK_CELLS = 1024  # largest core, cells a side
ALIGN = 8  # coarse cells
NEARLY = 1e-6  # of a cell


@dataclass(frozen=True)
class Block:
    """A window of a grid. row, column: of its first cell in the whole. core: its rows and columns that are written."""

    grid: Grid
    row: int
    column: int
    core: tuple[slice, slice]

    @property
    def origin(self) -> tuple[int, int]:
        """Row and column of the first cell, counted from the origin of the reference."""
        return self.grid.origin

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
        return Block(grid, self.row + rows.start, self.column + columns.start, (core[0], core[1]))


def aligned(grid: Grid) -> Grid:
    """Smallest grid around this one that blocks can be cut from."""
    step = alignment(grid.resolution)
    west, south, east, north = (round(v / grid.resolution) for v in grid.bounds)
    first, last = (west // step * step, south // step * step), (-(-east // step) * step, -(-north // step) * step)
    corners = [n * grid.resolution for n in (*first, *last)]
    return Grid.from_bounds(grid.reference, corners[0], corners[1], corners[2], corners[3], grid.resolution)


def at_resolution(grid: Grid, resolution: float) -> Grid:
    """Smallest grid of other cells around one that blocks can be cut from, grown alike."""

    def around(bounds: Bounds) -> Grid:
        return aligned(Grid.from_bounds(grid.reference, *bounds, resolution))

    return replace(around(grid.bounds), grown=tuple(replace(g, before=around(g.before).bounds) for g in grid.grown))


def extended(grid: Grid, bounds: Bounds) -> Grid:
    """The grid made to hold the bounds, too; sides that move do so to whole blocks of the reference."""
    whole = BLOCK_CELLS // alignment(grid.resolution) * alignment(grid.resolution) * grid.resolution
    (west, south, east, north), r = grid.bounds, grid.resolution
    west = west if west <= bounds[0] else floor(bounds[0] / whole) * whole
    south = south if south <= bounds[1] else floor(bounds[1] / whole) * whole
    east = east if east >= bounds[2] else ceil(bounds[2] / whole) * whole
    north = north if north >= bounds[3] else ceil(bounds[3] / whole) * whole
    out = Grid.from_bounds(grid.reference, west, south, east, north, r)
    return replace(out, grown=(*grid.grown, Growth(grid.bounds, ())))


def cut(grid: Grid, margin_m: float = 0.0, size: int | None = None) -> list[Block]:
    """Blocks that make up a grid, of about equal cores of at most ``size`` (BLOCK_CELLS) cells a side: row by row, and
    what a grid has grown by after what it was."""
    size, step = size or BLOCK_CELLS, alignment(grid.resolution)
    margin = ceil(margin_m / grid.resolution / step) * step
    stages = [_part_of(grid, g.before) for g in grid.grown] + [(0, 0, *grid.shape)]
    out = []
    for k, stage in enumerate(stages):
        for top, left, bottom, right in _beside(stage, stages[k - 1] if k else None):
            for rows in _spans(top, bottom, size, step):
                for columns in _spans(left, right, size, step):
                    out.append(_block(grid, rows, columns, margin, _sight(grid, rows, columns, margin, stages, k)))
    return out


def _block(grid: Grid, rows: Span, columns: Span, margin: int, within: Box) -> Block:
    """Block of a core with the margin that lies within a part of the grid."""
    top, left = max(rows[0] - margin, within[0]), max(columns[0] - margin, within[1])
    bottom, right = min(rows[1] + margin, within[2]), min(columns[1] + margin, within[3])
    core = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
    return Block(grid.window(top, left, bottom - top, right - left), top, left, core)


def _sight(grid: Grid, rows: Span, columns: Span, margin: int, stages: list[Box], own: int) -> Box:
    """Part of the grid that a core may see: as it was when the core came to it, or the last time something came within
    its margin."""
    seen = _block(grid, rows, columns, margin, (0, 0, *grid.shape)).grid.bounds
    for k in range(len(grid.grown), own, -1):
        if any(_meet(seen, b) for b in grid.grown[k - 1].beyond):
            return stages[k]
    return stages[own]


def _meet(a: Bounds, b: Bounds) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _part_of(grid: Grid, bounds: Bounds) -> Box:
    """Where a grid of these bounds, with the same cells, lies in it."""
    west, south, east, north = (v / grid.resolution for v in bounds)
    top, left, bottom, right = floor(-north + NEARLY), floor(west + NEARLY), ceil(-south - NEARLY), ceil(east - NEARLY)
    row, column = grid.origin
    return max(top - row, 0), max(left - column, 0), min(bottom - row, grid.height), min(right - column, grid.width)


def _beside(outer: Box, inner: Box | None) -> list[Box]:
    """What the outer has beside the inner: above, below, left and right of it."""
    if inner is None:
        return [outer]
    (top, left, bottom, right), (up, west, down, east) = outer, inner
    around = [(top, left, up, right), (down, left, bottom, right), (up, left, down, west), (up, east, down, right)]
    return [b for b in around if b[0] < b[2] and b[1] < b[3]]


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
    return Block(grid, block.row // factor, block.column // factor, (rows, columns))


def alignment(resolution: float) -> int:
    """Cells whose multiples blocks begin at."""
    return ALIGN * coarse_factor(resolution)


def _spans(first: int, last: int, size: int, step: int) -> list[Span]:
    """First cells, and those after the last, of equal parts that begin at multiples of ``step`` from the first one."""
    n = ceil((last - first) / size)
    length = ceil((last - first) / n / step) * step
    return [(a, min(a + length, last)) for a in range(first, last, length)]
