"""Surface model of the matched points on disk, registered to lidar, and freed of what flies or floats alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from terrain3d.errors import OverlapError
from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, aligned, cut, for_blocks
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.threads import Workers, once
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
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

Bounds = tuple[float, float, float, float]  # west, south, east, north

POINT_BLOCK_CELLS = 768  # of the finest model; a cell has several points, each larger than it
REGISTRATION_CELL = 1.0  # metres; lidar footprints are ten times as wide
REGISTRATION_CELLS = 25e6  # of the model that is registered, at most; larger areas have larger cells


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
class Extent:
    """Where a scene has measured cells. first, last: column of each row, as ``voids.row_ends`` gives them; left, right:
    those of the convex hull of all."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]

    def hull(self, block: Block) -> NDArray[np.bool_]:
        """Mask of the hull on the window of a block."""
        rows = slice(block.row, block.row + block.grid.height)
        return between(self.left[rows], self.right[rows], block.column, block.grid.width)

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
        model = rasterize(spool.within(block.grid, 2 * grid.resolution, move), block.grid)
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
    spool: Spool, grid: Grid, returns: LidarReturns, lines: Lines, folder: Place, workers: Workers,
    reporter: Reporter, lost: Sequence[Bounds] = (),
) -> Registration:  # fmt: skip
    """Registration of the matched model to lidar, on a surface model fine enough for its footprints. lines: of the
    images. lost: parts of the model to be left empty."""
    area = grid.height * grid.width * grid.resolution**2
    cell = max(REGISTRATION_CELL, grid.resolution, float(np.ceil(np.sqrt(area / REGISTRATION_CELLS))))
    whole = aligned(Grid.from_bounds(grid.reference, *grid.bounds, cell))
    size = ceil(POINT_BLOCK_CELLS * grid.resolution / cell)  # so that a block has no more points
    model = surface_model(spool, whole, None, folder, workers, reporter, lost, size)
    reporter.stage("registration to lidar")
    clean = new_raster(folder / "clean.raw", whole, np.float32)

    def work(block: Block) -> None:
        block.write(clean, remove_spikes(Raster(block.read(model.height), block.grid)).values)

    for_blocks(work, cut(whole, CLEAN_MARGIN), workers)
    height, sigma = (Raster(r.read(0, 0, *whole.shape), whole) for r in (clean, model.sigma))
    return once(register_dsm, workers, height, returns, sigma, lines)


def clean_heights(
    model: StoredModel, folder: Place, workers: Workers, reporter: Reporter
) -> tuple[StoredRaster, Extent]:
    """Heights without spikes and islands, and where they are. Raises OverlapError if nothing is left."""
    clean = new_raster(folder / "clean.raw", model.grid, np.float32)
    blocks = cut(model.grid, CLEAN_MARGIN)

    def without_spikes(block: Block) -> Raster:
        return remove_spikes(Raster(block.read(model.height), block.grid))

    def ends(max_area: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        def work(block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            values = remove_islands(without_spikes(block), max_area).values
            block.write(clean, values)
            return row_ends(np.isfinite(values[block.core]))

        first, last = np.full(model.grid.height, model.grid.width), np.full(model.grid.height, -1)
        for block, (low, high) in zip(blocks, for_blocks(work, blocks, workers, reporter), strict=True):
            at = block.part(*block.core)
            rows, some = slice(at.row, at.row + at.grid.height), high >= 0
            first[rows] = np.where(some, np.minimum(first[rows], low + at.column), first[rows])
            last[rows] = np.where(some, np.maximum(last[rows], high + at.column), last[rows])
        return first, last

    first, last = ends(ISLAND_AREA)
    if last.max() < 0:  # all is islands: the largest of them is the scene
        largest = max(for_blocks(lambda block: largest_group(without_spikes(block)), blocks, workers))
        first, last = ends(largest - 1e-6)
    if last.max() < 0:
        raise OverlapError(
            "nothing of what was matched holds together",
            fix="check the images for cloud, snow, water or ground without texture",
        )
    return clean, Extent(first, last, *hull_spans(first, last))
