"""Connected components of a mask over all blocks of a grid: labelled block by block, joined where blocks meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.raster import Grid

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """4-connected components, numbered from 1. area: (n + 1,) cells; bounds: (n + 1, 4) first row and column, and the
    ones after the last. labels: provisional numbers, of which ``number`` gives the component."""

    labels: StoredRaster
    number: NDArray[np.int32]
    area: Ints
    bounds: Ints

    def __len__(self) -> int:
        return len(self.area) - 1

    def read(self, block: Block) -> NDArray[np.int32]:
        """Numbers of the components on the window of a block, 0 for none."""
        return np.asarray(self.number[block.read(self.labels)])


def label(
    mask: Callable[[Block], NDArray[np.bool_]], grid: Grid, path: Path, workers: int, margin_m: float = 0.0
) -> Components:
    """Components of the mask, which is asked for by blocks with that margin; labels go to a new file at ``path``."""
    labels = new_raster(path, grid, np.int32)
    blocks = cut(grid, margin_m)
    lock, tables = threading.Lock(), [np.zeros((1, 5), np.int64)]
    found = [1]

    def work(block: Block) -> None:
        here = mask(block)[block.core].astype(np.uint8)
        block = block.part(*block.core)
        n, own, stats, _ = cv2.connectedComponentsWithStats(here, connectivity=4)
        if n == 1:
            return
        with lock:
            first = found[0]
            found[0] += n - 1
            tables.append(np.column_stack([_bounds(stats[1:], block), stats[1:, cv2.CC_STAT_AREA]]))
        block.write(labels, np.where(own > 0, own + (first - 1), 0))

    for_blocks(work, blocks, workers)
    table = np.concatenate(tables)
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(_seam(labels, b.part(*b.core)) for b in blocks)])
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(table), len(table)))
    n, number = connected_components(links, directed=False)  # background is provisional 0, linked to nothing
    area, low, high = np.zeros(n, np.int64), np.full((n, 2), np.iinfo(np.int64).max), np.zeros((n, 2), np.int64)
    np.add.at(area, number, table[:, 4])
    np.minimum.at(low, number, table[:, :2])
    np.maximum.at(high, number, table[:, 2:4])
    return Components(labels, number.astype(np.int32), area, np.column_stack([low, high]))


def _bounds(stats: NDArray[np.int32], block: Block) -> Ints:
    column, row = stats[:, 0].astype(np.int64) + block.column, stats[:, 1].astype(np.int64) + block.row
    return np.column_stack([row, column, row + stats[:, 3], column + stats[:, 2]])


def _seam(labels: StoredRaster, block: Block) -> Ints:
    """Pairs of labels that touch across the upper and the left side of a block."""
    height, width = block.grid.shape
    pairs = [np.empty((0, 2), np.int64)]
    if block.row > 0:
        pairs.append(labels.read(block.row - 1, block.column, 2, width).T.astype(np.int64))
    if block.column > 0:
        pairs.append(labels.read(block.row, block.column - 1, height, 2).astype(np.int64))
    both = np.concatenate(pairs)
    return np.unique(both[(both > 0).all(axis=1)], axis=0)
