"""Figures of rasters that are never whole in memory: counts by value, and means over blocks of cells."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import StoredRaster
from terrain3d.raster import Grid, Raster
from terrain3d.surface.coarse import pooled

OVERVIEW_RIM = 3  # cells beyond a grid that what is interpolated has, so that it does not change where a grid grows


@dataclass(frozen=True)
class Tally:
    """Bins that values fell into, (n,), and how many fell into each."""

    index: NDArray[np.int64]
    number: NDArray[np.int64]


def tally(values: NDArray[Any], top: float, bins: int) -> Tally:
    """Count finite values that are not negative in equal bins from 0 to ``top``; larger ones count as the last."""
    index = np.minimum(values.ravel() / (top / bins), bins - 1).astype(np.int64)
    number = np.bincount(index, minlength=bins)
    found = np.flatnonzero(number)
    return Tally(found, number[found])


class Counts:
    """How many values fell into equal bins from 0 to ``top``; larger ones count as the last. Safe between threads."""

    def __init__(self, top: float, bins: int) -> None:
        self._step = top / bins
        self._counts = np.zeros(bins, np.int64)
        self._lock = threading.Lock()

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values that are not negative."""
        index = np.minimum(values.ravel() / self._step, self._counts.size - 1).astype(np.int64)
        with self._lock:
            self._counts += np.bincount(index, minlength=self._counts.size)

    def put(self, found: Tally) -> None:
        """Add what was counted elsewhere in the same bins."""
        self._counts[found.index] += found.number

    def quantile(self, share: float) -> float | None:
        """Value, to half a bin, that this share of the values lies under; None without values."""
        total = int(self._counts.sum())
        if not total:
            return None
        return float((np.searchsorted(np.cumsum(self._counts), share * total) + 0.5) * self._step)


def overview(
    raster: StoredRaster, step: int, nodata: float | None = None, where: tuple[StoredRaster, int] | None = None
) -> Raster:  # fmt: skip
    """Means of the values in blocks of ``step`` x ``step`` cells, as ``pooled`` gives them; NaN for no value.

    Blocks begin at multiples of the step from the origin of the reference. nodata: value that counts as none. where: a
    raster and the value that it has where there are any.
    """
    g = raster.grid
    up, left = (n % step for n in g.origin)
    rows = max(512 // step, 1) * step
    parts = []
    for top in range(-up, g.height, rows):
        first, last = max(top, 0), min(top + rows, g.height)
        values = raster.read(first, 0, last - first, g.width)
        cells = values.astype(np.float32)
        if nodata is not None:
            cells[values == nodata] = np.nan
        if where is not None:
            cells[where[0].read(first, 0, last - first, g.width) != where[1]] = np.nan
        if first > top or left:
            cells = np.pad(cells, ((first - top, 0), (left, 0)), constant_values=np.nan)
        parts.append(pooled(cells, step))
    out, r = np.concatenate(parts), g.resolution
    return Raster(out, Grid(g.reference, g.west - left * r, g.north + up * r, r * step, *out.shape))


def with_rim(raster: Raster, cells: int, empty: float = np.nan) -> Raster:
    """A raster with empty cells all around it."""
    g, size = raster.grid, 2 * cells
    grid = g.window(-cells, -cells, g.height + size, g.width + size)
    return Raster(np.pad(raster.values, cells, constant_values=empty), grid)


def laid_over(old: Raster, new: Raster) -> Raster:
    """A raster of the same cells as a later one, which reaches farther, laid over it."""
    column, row = (int(np.rint(a + 0.5)) for a in new.grid.column_row(old.grid.west, old.grid.north))
    values = new.values.copy()
    values[row : row + old.grid.height, column : column + old.grid.width] = old.values
    return Raster(values, new.grid)


def step_for_side(grid: Grid, cells: int) -> int:
    """Smallest step whose overview has at most that many cells a side."""
    return max(1, -(-max(grid.shape) // cells))


def overview_step(grid: Grid, cells: int) -> int:
    """Smallest step whose overview has at most about that many cells."""
    return max(int(np.ceil(np.sqrt(grid.height * grid.width / cells))), 1)
