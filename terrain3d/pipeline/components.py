"""Connected components of a mask over all blocks of a grid: labelled block by block, joined where blocks meet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid

Ints = NDArray[np.int64]
Window = tuple[int, int, int, int]  # row, column, height, width


@dataclass(frozen=True)
class LabelledPart:
    """A block whose components were labelled by themselves. values: (n + 1,) of its labels 0 to n."""

    window: Window
    values: NDArray[Any]


@dataclass(frozen=True)
class Labelled:
    """Values of components: ``labels`` holds the labels of each part, which have their values there."""

    labels: StoredRaster
    parts: tuple[LabelledPart, ...]

    def read(self, block: Block) -> NDArray[Any]:
        """Values on the window of a block."""
        return self.window(block.row, block.column, *block.grid.shape)

    def window(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Values on a window of the grid."""
        own = self.labels.read(row, column, height, width)
        out = np.empty(own.shape, self.parts[0].values.dtype)
        for part in self.parts:
            top, left, h, w = part.window
            rows = slice(max(top - row, 0), min(top + h - row, height))
            columns = slice(max(left - column, 0), min(left + w - column, width))
            if rows.start < rows.stop and columns.start < columns.stop:
                out[rows, columns] = part.values[own[rows, columns]]
        return out


@dataclass(frozen=True)
class Components:
    """4-connected components, numbered from 1. area: (n + 1,) cells; bounds: (n + 1, 4) first row and column, and the
    ones after the last. numbers: of the components, by cell."""

    numbers: Labelled
    area: Ints
    bounds: Ints

    def __len__(self) -> int:
        return len(self.area) - 1

    @property
    def labels(self) -> StoredRaster:
        return self.numbers.labels

    def read(self, block: Block) -> NDArray[np.int32]:
        """Numbers of the components on the window of a block, 0 for none."""
        return self.numbers.read(block)

    def values(self, of: NDArray[Any]) -> Labelled:
        """By cell the value of its component. of: (n + 1,), the first where there is none."""
        return Labelled(self.labels, tuple(LabelledPart(p.window, of[p.values]) for p in self.numbers.parts))


def label(
    mask: Callable[[Block], NDArray[np.bool_]], grid: Grid, path: Place, workers: Workers, margin_m: float = 0.0
) -> Components:
    """Components of the mask, which is asked for by blocks with that margin; labels go to a new file at ``path``."""
    labels = new_raster(path, grid, np.int32)
    blocks = cut(grid, margin_m)

    def work(block: Block) -> Ints:
        here = mask(block)[block.core].astype(np.uint8)
        block = block.part(*block.core)
        _, own, stats, _ = cv2.connectedComponentsWithStats(here, connectivity=4)
        block.write(labels, own)
        return np.column_stack([_bounds(stats[1:], block), stats[1:, cv2.CC_STAT_AREA]])

    tables = for_blocks(work, blocks, workers)
    windows = [_window(b.part(*b.core)) for b in blocks]
    first = np.concatenate([[0], np.cumsum([len(t) for t in tables])])
    single = Labelled(
        labels,
        tuple(
            LabelledPart(w, np.concatenate([[0], np.arange(a, b) + 1]))
            for w, a, b in zip(windows, first[:-1], first[1:], strict=True)
        ),
    )
    table = np.concatenate([np.zeros((1, 5), np.int64), *tables])
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(_seam(single, w) for w in windows)])
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(table), len(table)))
    n, number = connected_components(links, directed=False)  # background is provisional 0, linked to nothing
    area, low, high = np.zeros(n, np.int64), np.full((n, 2), np.iinfo(np.int64).max), np.zeros((n, 2), np.int64)
    np.add.at(area, number, table[:, 4])
    np.minimum.at(low, number, table[:, :2])
    np.maximum.at(high, number, table[:, 2:4])
    joined = tuple(LabelledPart(p.window, number[p.values].astype(np.int32)) for p in single.parts)
    return Components(Labelled(labels, joined), area, np.column_stack([low, high]))


def _window(block: Block) -> Window:
    return block.row, block.column, block.grid.height, block.grid.width


def _bounds(stats: NDArray[np.int32], block: Block) -> Ints:
    column, row = stats[:, 0].astype(np.int64) + block.column, stats[:, 1].astype(np.int64) + block.row
    return np.column_stack([row, column, row + stats[:, 3], column + stats[:, 2]])


def _seam(numbers: Labelled, window: Window) -> Ints:
    """Pairs of numbers that touch across the upper and the left side of a part."""
    row, column, height, width = window
    pairs = [np.empty((0, 2), np.int64)]
    if row > 0:
        pairs.append(numbers.window(row - 1, column, 2, width).T.astype(np.int64))
    if column > 0:
        pairs.append(numbers.window(row, column - 1, height, 2).astype(np.int64))
    both = np.concatenate(pairs)
    return np.unique(both[(both > 0).all(axis=1)], axis=0)
