"""Figures of rasters that are never whole in memory: counts by value, and means over blocks of cells."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import StoredRaster
from terrain3d.raster import Grid, Raster
from terrain3d.surface.coarse import block_means


@dataclass(frozen=True)
class Tally:
    """Bins that values fell into, (n,), and how many fell into each."""

    index: NDArray[np.int64]
    number: NDArray[np.int64]


def tally(values: NDArray[Any], top: float, bins: int) -> Tally:
    """Count finite values that are not negative in equal bins from 0 to ``top``; larger ones count as the last."""
    index = np.minimum(values.ravel() / (top / bins), bins - 1).astype(np.int64)
    return Tally(*np.unique(index, return_counts=True))


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


def overview(raster: StoredRaster, step: int, nodata: float | None = None) -> Raster:
    """Means of the values in blocks of ``step`` x ``step`` cells, as ``block_means`` gives them; NaN for no value.

    nodata: value that counts as none.
    """
    g = raster.grid
    parts = []
    for top, values in raster.strips(max(512 // step, 1) * step):
        cells = values.astype(np.float32)
        if nodata is not None:
            cells[values == nodata] = np.nan
        parts.append(block_means(Raster(cells, g.window(top, 0, *cells.shape)), step).values)
    out = np.concatenate(parts)
    return Raster(out, replace(g, resolution=g.resolution * step, height=out.shape[0], width=out.shape[1]))


def step_for_side(grid: Grid, cells: int) -> int:
    """Smallest step whose overview has at most that many cells a side."""
    return max(1, -(-max(grid.shape) // cells))


def overview_step(grid: Grid, cells: int) -> int:
    """Smallest step whose overview has at most about that many cells."""
    return max(int(np.ceil(np.sqrt(grid.height * grid.width / cells))), 1)
