"""Surface model of the matched points on disk, registered to lidar, and freed of what flies or floats alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.pointing import Pointing
from terrain3d.errors import OverlapError
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, at_resolution, cut, for_blocks
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.threads import Workers, learned, once
from terrain3d.points import LidarReturns
from terrain3d.raster import Bounds, Grid, Raster
from terrain3d.register.lines import Lines
from terrain3d.register.move import Move
from terrain3d.register.registration import Registration, register_dsm
from terrain3d.surface.dsm import LOOKS, rasterize
from terrain3d.surface.voids import (
    CLEAN_MARGIN,
    ISLAND_AREA,
    between,
    hull_spans,
    largest_group,
    remove_islands,
    remove_spikes,
    row_ends,
)

Ints = NDArray[np.int64]

POINT_BLOCK_CELLS = 768  # of the finest model; a cell has several points, each larger than it
REGISTRATION_CELL = 1.0  # metres; lidar footprints are ten times as wide
REGISTRATION_CELLS = 25e6  # of the model that is registered, at most; larger areas have larger cells


_Ends = tuple[Block, tuple[Ints, Ints]]  # a block, and the ends of its rows


@dataclass(frozen=True)
class StoredModel:
    """Height (m), sigma (m) of the matches, and number of pairs of each cell; NaN and 0 where no point fell.
    confidence, below, looks: see ``SurfaceModel``; no looks where they are not needed."""

    height: StoredRaster
    sigma: StoredRaster
    pairs: StoredRaster
    confidence: StoredRaster
    below: StoredRaster
    looks: tuple[StoredRaster, ...] = ()

    @property
    def grid(self) -> Grid:
        return self.height.grid


@dataclass(frozen=True)
class Hull:
    """Left and right column of each row of a convex area, from a row on; counted from the origin of the reference."""

    row: int
    left: Ints
    right: Ints

    @classmethod
    def of(cls, first: Ints, last: Ints, grid: Grid) -> Hull:
        """Convex hull of all cells of a grid between the ends of rows, as ``voids.row_ends`` gives them."""
        left, right = hull_spans(first, last)
        return cls(grid.origin[0], left + grid.origin[1], right + grid.origin[1])

    def mask(self, grid: Grid, step: int = 1) -> NDArray[np.bool_]:
        """Its cells on a grid of cells ``step`` times as wide."""
        row, column = grid.origin
        at = (row + np.arange(grid.height)) * step + step // 2 - self.row
        known = (at >= 0) & (at < self.left.size)
        at = np.clip(at, 0, self.left.size - 1)
        left, right = np.where(known, self.left[at] // step, 1), np.where(known, self.right[at] // step, 0)
        return between(left, right, column, grid.width)


@dataclass(frozen=True)
class Extent:
    """Where a scene has measured cells. first, last: column of each row, as ``voids.row_ends`` gives them. hulls: the
    convex one of all; where images came to it, of what it was and of what they added."""

    first: Ints
    last: Ints
    hulls: tuple[Hull, ...]

    @classmethod
    def of(cls, first: Ints, last: Ints, grid: Grid) -> Extent:
        """Extent with one hull."""
        return cls(first, last, (Hull.of(first, last, grid),))

    def hull(self, block: Block) -> NDArray[np.bool_]:
        """Mask of the hulls on the window of a block."""
        return self.hull_on(block.grid)

    def hull_on(self, grid: Grid, step: int = 1) -> NDArray[np.bool_]:
        """Mask of the hulls on a grid of cells ``step`` times as wide."""
        return np.any([h.mask(grid, step) for h in self.hulls], axis=0)

    def window(self) -> tuple[int, int, int, int]:
        """Row, column, height and width of the smallest window that holds all measured cells."""
        rows = np.flatnonzero(self.last >= 0)
        row, column = int(rows[0]), int(self.first.min())
        return row, column, int(rows[-1]) + 1 - row, int(self.last.max()) + 1 - column


def surface_model(
    spool: Spool, grid: Grid, move: Move | None, folder: Place, workers: Workers, reporter: Reporter,
    lost: Sequence[Bounds] = (), block_cells: int | None = None,
) -> StoredModel:  # fmt: skip
    """Surface model of all points on a grid, moved, block by block. lost: parts of it to be left empty."""
    height, sigma = (new_raster(folder / f"{name}.raw", grid, np.float32) for name in ("height", "sigma"))
    pairs = new_raster(folder / "pairs.raw", grid, np.uint8)
    confidence, below = (new_raster(folder / f"{name}.raw", grid, np.float16) for name in ("confidence", "below"))
    looks = tuple(new_raster(folder / f"look{k}.raw", grid, np.float16) for k in range(LOOKS))

    def work(block: Block) -> None:
        model = rasterize(spool.within(block.grid, 2 * block.grid.resolution, move), block.grid)
        layers = (model.height, model.sigma, model.pairs, model.confidence, model.below, *model.looks)
        for stored, layer in zip((height, sigma, pairs, confidence, below, *looks), layers, strict=True):
            block.write(stored, layer.values)

    blocks = cut(grid, size=block_cells or POINT_BLOCK_CELLS)
    reporter.stage("surface model", len(blocks))
    for_blocks(work, [b for b in blocks if not _inside(b.grid.bounds, lost)], workers, reporter)
    model = StoredModel(height, sigma, pairs, confidence, below, looks)
    _leave_empty(model, lost)
    return model


def _inside(bounds: Bounds, parts: Sequence[Bounds]) -> bool:
    west, south, east, north = bounds
    return any(west >= p[0] and south >= p[1] and east <= p[2] and north <= p[3] for p in parts)


def _leave_empty(model: StoredModel, parts: Sequence[Bounds]) -> None:
    """Take the surface away from parts of a model, as if no point had fallen there."""
    grid = model.grid
    for west, south, east, north in parts:
        (left, right), (top, bottom) = grid.column_row([west, east], [north, south])
        rows = slice(max(floor(top + 0.5), 0), min(ceil(bottom + 0.5), grid.height))
        columns = slice(max(floor(left + 0.5), 0), min(ceil(right + 0.5), grid.width))
        if rows.start < rows.stop and columns.start < columns.stop:
            shape = rows.stop - rows.start, columns.stop - columns.start
            model.height.write(rows.start, columns.start, np.full(shape, np.nan, np.float32))
            model.sigma.write(rows.start, columns.start, np.full(shape, np.nan, np.float32))
            for layer in (model.pairs, model.confidence, model.below):
                layer.write(rows.start, columns.start, np.zeros(shape, layer.dtype))
            for look in model.looks:
                look.write(rows.start, columns.start, np.full(shape, np.nan, np.float16))


def register(
    spool: Spool, grid: Grid, returns: LidarReturns, lines: Lines, pointing: Pointing, folder: Place, workers: Workers,
    reporter: Reporter, lost: Sequence[Bounds] = (),
) -> Registration:  # fmt: skip
    """Registration of the matched model to lidar, on a surface model fine enough for its footprints. lines,
    pointing: of the images. lost: parts of the model to be left empty."""
    area = grid.height * grid.width * grid.resolution**2
    cell = max(REGISTRATION_CELL, grid.resolution, float(np.ceil(np.sqrt(area / REGISTRATION_CELLS))))
    whole = at_resolution(grid, cell)
    size = ceil(POINT_BLOCK_CELLS * grid.resolution / cell)  # so that a block has no more points
    model = surface_model(spool, whole, None, folder, workers, reporter, lost, size)
    reporter.stage("registration to lidar")
    clean = new_raster(folder / "clean.raw", whole, np.float32)

    def work(block: Block) -> None:
        block.write(clean, remove_spikes(Raster(block.read(model.height), block.grid)).values)

    for_blocks(work, cut(whole, CLEAN_MARGIN), workers)
    height, sigma = (Raster(r.read(0, 0, *whole.shape), whole) for r in (clean, model.sigma))
    return once(register_dsm, workers, height, returns, sigma, lines, pointing)


def clean_heights(
    model: StoredModel, folder: Place, workers: Workers, reporter: Reporter
) -> tuple[StoredRaster, Extent]:
    """Heights without spikes and islands, and where they are. Raises OverlapError if nothing is left."""
    clean = new_raster(folder / "clean.raw", model.grid, np.float32)
    blocks = cut(model.grid, CLEAN_MARGIN)

    def without_spikes(block: Block) -> Raster:
        return remove_spikes(Raster(block.read(model.height), block.grid), block.read(model.pairs) > 1)

    def ends(max_area: float) -> list[_Ends]:
        def work(block: Block) -> tuple[Ints, Ints]:
            values = remove_islands(without_spikes(block), max_area).values
            block.write(clean, values)
            return row_ends(np.isfinite(values[block.core]))

        cores = [block.part(*block.core) for block in blocks]
        return list(zip(cores, for_blocks(work, blocks, workers, reporter), strict=True))

    found = ends(ISLAND_AREA)
    if all(last.max() < 0 for _, (_, last) in found):  # all is islands: the largest of them is the scene
        largest = max(for_blocks(lambda block: largest_group(without_spikes(block)), blocks, workers))
        found = ends(largest - 1e-6)
    first, last = _joined(found, model.grid)
    if last.max() < 0:
        raise OverlapError(
            "nothing of what was matched holds together",
            fix="check the images for cloud, snow, water or ground without texture",
        )

    def with_new(old: tuple[Hull, ...], new: tuple[Hull, ...]) -> tuple[Hull, ...]:
        """Hulls of before, and one of the blocks that have cells outside."""
        before = Extent(first, last, old)
        more = [(b, at) for b, at in found if (between(*at, 0, b.grid.width) & ~before.hull(b)).any()]
        return (*old, Hull.of(*_joined(more, model.grid), model.grid)) if more else old

    whole = (Hull.of(first, last, model.grid),)
    return clean, Extent(first, last, learned("hulls", whole, workers, with_new))


def _joined(found: list[_Ends], grid: Grid) -> tuple[Ints, Ints]:
    """Ends of the rows of a grid from those of parts of it."""
    first, last = np.full(grid.height, grid.width), np.full(grid.height, -1)
    for block, (low, high) in found:
        rows, some = slice(block.row, block.row + block.grid.height), high >= 0
        first[rows] = np.where(some, np.minimum(first[rows], low + block.column), first[rows])
        last[rows] = np.where(some, np.maximum(last[rows], high + block.column), last[rows])
    return first, last
