"""Tree tops and stands of a run, as layers of ``trees.gpkg``."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine

from terrain3d.io.vectors import NamedLayer, place_ids
from terrain3d.pipeline.blocks import Block, for_blocks
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.trees import (
    LEAST_TREE,
    STAND_CELL,
    TOPS_MARGIN,
    stand_labels,
    stand_statistics,
    tree_tops,
)

BLOCK_COARSE = 75  # coarse cells a side of what is worked with at once
CORRELATION = 40.0  # metres within which errors of the terrain are alike

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True)
class Tops:
    """Tops of trees: place, height over the ground and its 1-sigma, (N,) metres."""

    x: Floats
    y: Floats
    height: Singles
    sigma: Singles


@dataclass(frozen=True)
class _Coarse:
    """Coarse cells: m2 under trees, their heights times m2, sigma of the terrain, and m2 that have a height."""

    covered: Singles
    heights: Singles
    sigma: Singles
    known: Singles
    grid: Grid


def tree_layers(s: Surfaces, workers: Workers = 1) -> list[NamedLayer]:
    """Layers ``tops`` (points) and ``stands`` (polygons) of the surfaces of a run."""
    tops, coarse = find_trees(s, workers)
    return [_tops_layer(tops), _stands_layer(tops, coarse)]


def find_trees(s: Surfaces, workers: Workers) -> tuple[Tops, _Coarse]:
    """Tops and coarse cells, block by block; the tops row by row."""
    grid, resolution = s.chm.grid, s.chm.grid.resolution
    step = max(round(STAND_CELL / resolution), 1)
    chm, sigma, base, mask = s.chm, s.dsm_sigma, s.dtm_sigma, s.mask

    def work(block: Block) -> tuple[NDArray[Any], ...]:
        heights = np.where(block.read(mask) == MaskCode.WATER, np.float32(0), block.read(chm))
        found = np.zeros(block.grid.shape, bool)
        found[block.core] = tree_tops(heights, resolution)[block.core]
        row, column = np.nonzero(found)
        ground = block.read(base)
        spread = np.hypot(block.read(sigma)[row, column], ground[row, column])
        tall = block.read(s.dsm) - block.read(s.dtm) >= LEAST_TREE  # the crowns of chm are wide
        core, (first, left) = block.core, block.part(*block.core).origin
        place = first % step, left % step
        pooled = _pooled(heights[core], tall[core], ground[core], step, place, resolution)
        return row, column, heights[row, column], spread, *pooled

    blocks = _blocks(grid, step)
    (up, west), (rows, columns) = (o // step for o in grid.origin), grid.shape
    size = -(-(grid.origin[0] + rows) // step) - up, -(-(grid.origin[1] + columns) // step) - west
    coarse = [np.zeros(size, np.float32) for _ in range(4)]
    found = for_blocks(work, blocks, workers)
    for block, values in zip(blocks, found, strict=True):
        top, left = (o // step - first for o, first in zip(block.part(*block.core).origin, (up, west), strict=True))
        for layer, part in zip(coarse, values[4:], strict=True):
            layer[top : top + part.shape[0], left : left + part.shape[1]] = part
    row = np.concatenate([f[0] + b.row for f, b in zip(found, blocks, strict=True)])
    column = np.concatenate([f[1] + b.column for f, b in zip(found, blocks, strict=True)])
    height, spread = (np.concatenate([f[i] for f in found]) for i in (2, 3))
    order = np.lexsort((column, row))
    x, y = grid.west + (column[order] + 0.5) * resolution, grid.north - (row[order] + 0.5) * resolution
    corner = grid.window(up * step - grid.origin[0], west * step - grid.origin[1], 1, 1)
    cells = Grid(grid.reference, corner.west, corner.north, step * resolution, *size)
    tops = Tops(x, y, height[order].astype(np.float32), spread[order].astype(np.float32))
    return tops, _Coarse(coarse[0], coarse[1], coarse[2], coarse[3], cells)


def _blocks(grid: Grid, step: int) -> list[Block]:
    """Blocks whose cores are the coarse cells of a square of the reference, with what the tops need to see around."""
    margin, size = ceil(TOPS_MARGIN / grid.resolution), BLOCK_COARSE * step
    spans = [[(max(a, 0), min(a + size, n)) for a in range(-(o % size), n, size)]
             for n, o in zip(grid.shape, grid.origin, strict=True)]  # fmt: skip
    out = []
    for rows, columns in product(*spans):
        top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
        bottom, right = min(rows[1] + margin, grid.height), min(columns[1] + margin, grid.width)
        core = slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left)
        out.append(Block(grid.window(top, left, bottom - top, right - left), top, left, core))
    return out


def _pooled(
    chm: Singles, tall: NDArray[np.bool_], sigma: Singles, step: int, first: tuple[int, int], resolution: float
) -> tuple[Singles, ...]:
    """Sums over coarse cells, m2 and m3, and mean sigma of the terrain. tall: cells of the surface that are trees.
    first: row and column of the first cell in its coarse one."""
    known = np.isfinite(chm)
    tree = known & tall & (chm >= LEAST_TREE)
    layers = (tree, np.where(tree, chm, 0), np.where(known, sigma, 0), known)
    h, w = chm.shape
    shape = -(-(first[0] + h) // step), -(-(first[1] + w) // step)
    out = []
    for layer in layers:
        whole = np.zeros((shape[0] * step, shape[1] * step), np.float32)
        whole[first[0] : first[0] + h, first[1] : first[1] + w] = layer
        out.append(whole.reshape(shape[0], step, shape[1], step).sum(axis=(1, 3)) * resolution**2)
    covered, heights, spread, area = out
    return covered, heights, spread / np.maximum(area, 1e-6), area


def _tops_layer(tops: Tops) -> NamedLayer:
    points = shapely.points(tops.x, tops.y)
    columns = {"height_m": tops.height, "height_sigma_m": tops.sigma}
    return NamedLayer("tops", points, columns, "Point")


def _stands_layer(tops: Tops, coarse: _Coarse) -> NamedLayer:
    grid = coarse.grid
    column, row = (np.rint(a).astype(np.int64) for a in grid.column_row(tops.x, tops.y))
    cell = np.clip(row, 0, grid.height - 1) * grid.width + np.clip(column, 0, grid.width - 1)
    count = np.bincount(cell, minlength=grid.height * grid.width).reshape(grid.shape)
    tallest = np.full(grid.shape, -np.inf, np.float32)
    np.maximum.at(tallest.ravel(), cell, tops.height)
    tallest[~np.isfinite(tallest)] = np.nan
    cover = (coarse.covered / np.maximum(coarse.known, 1e-6)).astype(np.float32)
    labels = stand_labels(cover, tallest, count, grid.resolution)
    n = int(labels.max()) + 1
    sums = (coarse.known, coarse.covered, coarse.heights)
    area, covered, heights = (np.bincount(labels.ravel(), a.ravel(), n) for a in sums)
    spread = np.bincount(labels.ravel(), (coarse.sigma * coarse.known).ravel(), n) / np.maximum(area, 1e-6)
    of_top = labels.ravel()[cell]
    order = np.argsort(of_top, kind="stable")
    starts = np.searchsorted(of_top[order], np.arange(n + 1))
    shapes, stands = [], []
    for shape, label in features.shapes(labels, mask=labels > 0, connectivity=4, transform=Affine(*grid.transform)):
        k = int(label)
        own = order[starts[k] : starts[k + 1]]
        variance = float(np.mean(tops.sigma[own].astype(float) ** 2)) if own.size else 0.0
        shapes.append(shapely.geometry.shape(shape))
        stands.append(
            stand_statistics(
                float(area[k]),
                float(covered[k]),
                float(heights[k]),
                tops.height[own],
                variance,
                float(spread[k]),
                CORRELATION,
            )
        )
    columns = {
        "id": place_ids(shapes),
        "area_m2": np.array([s.area for s in stands], float),
        "cover": np.array([s.cover for s in stands], float),
        "mean_height_m": np.array([s.mean_height for s in stands], float),
        "mean_height_sigma_m": np.array([s.mean_height_sigma for s in stands], float),
        "top_height_m": np.array([s.top_height for s in stands], float),
        "top_height_sigma_m": np.array([s.top_height_sigma for s in stands], float),
        "trees": np.array([s.trees for s in stands], np.int64),
        "trees_per_ha": np.array([1e4 * s.trees / s.area for s in stands], float),
    }
    return NamedLayer("stands", shapes, columns, "Polygon")
