"""Height above ground (``chm.tif``).

The model holds everything that stands on the terrain, buildings too: from height alone a hedge and a shed are the
same, and a wrong cut is worse for users than a clear definition. Mask buildings with a footprint layer where only
trees count.

It is the upper envelope of what was matched: rims of crowns that the surface model gives to the ground beside them,
because the ground is as likely there, belong to the crowns here. So heights of crowns are right up to their edges, and
crowns are up to a metre too wide; how much land they cover is told by the surface model itself.

Where nothing was matched, the surface model has the ground, which most often is hidden there. But every third to second
such cell in a forest is a crown, and crowns that are not matched are not lower than others. So these cells have the
mean of the heights around.

Where a crown ends is known to about a cell, and how well, tells how the cell was matched. So on the steep rims of a
canopy, and where its ground may hide, the height is what own scenes with exact truth have where cells, the means around
and the highest crowns near them are as high. All of it grows with the height of the trees, so nothing is said of how
high these are.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.disks import full_disk

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_PIT_WIDTH = 1.5  # m: a narrower hole in a crown is a failed match, not a gap
_PIT_DEPTH = 0.3  # share of the height around it
_AROUND = 1.5  # m, sigma of the mean that an unmatched cell has
_RIM = 3.0  # m between neighbours, from which on a rim is steep
_HIGHEST = 1e4  # m, over all that stands
_MEANS = 0.75, 1.5  # m, sigmas of the means around a cell of a canopy
_TOPS = 2.5, 4.5  # m, windows of the highest crown near it


class Seen(IntEnum):
    """How a cell of the surface was matched: not at all, where the ground is likelier than a crown that hangs over it,
    by less than half of the pairs that saw what is around, or by more."""

    NOT = 0
    HANGING = 1
    PARTLY = 2
    WELL = 3


# Linear regression on three own scenes, a cell of a crown counted as six of the ground beside: shares of the cell's
# own height, of the two means and of the two tops. Cells that were matched have them on steep rims alone.
_SHARES = {
    Seen.NOT: (-0.96, 2.17, -1.20, 0.61, 0.09),
    Seen.HANGING: (-0.31, 2.00, -1.50, 0.33, 0.16),
    Seen.PARTLY: (0.04, 1.51, -1.17, 0.36, 0.11),
    Seen.WELL: (0.13, 1.27, -0.74, 0.25, 0.04),
}


def canopy_height(
    dsm: Raster, dtm: Raster, seen: NDArray[np.uint8] | None = None, canopy: Bools | None = None
) -> Raster:
    """Surface minus terrain, at least 0, metres, on their common grid; NaN where either has none.

    seen: (h, w) how the cells were matched, see ``Seen``; without it, well. canopy: (h, w) cells in forests, whose rims
    are steep and rough. Narrow deep pits in crowns are replaced by the median around them (Khosravipour et al. 2014
    describe the artefact).
    """
    if dsm.grid != dtm.grid:
        raise ValueError("surface and terrain are on different grids")
    height = np.asarray(dsm.values, np.float32) - np.asarray(dtm.values, np.float32)
    known = np.isfinite(height)
    height = np.maximum(height, np.float32(0))
    if seen is None:
        seen = np.full(height.shape, Seen.WELL, np.uint8)
    unmatched = known & (seen == Seen.NOT)
    if unmatched.any():
        around = _mean_around(height, known & ~unmatched, _AROUND / dsm.grid.resolution)
        height = np.where(unmatched, np.fmax(height, around), height)
    height = _without_pits(height, known, dsm.grid.resolution)
    if canopy is not None and (canopy := canopy & known).any():
        doubtful = canopy & ((seen <= Seen.HANGING) | (_rise(height, known) > _RIM))
        height = np.where(doubtful, _likely(height, known, seen, dsm.grid.resolution), height)
    return replace(dsm, values=height)


def _rise(height: Singles, known: Bools) -> Singles:
    """Range of the known heights in 3 x 3 cells."""
    touching = np.ones((3, 3), np.uint8)
    highest, lowest = (np.where(known, height, np.float32(empty)) for empty in (0, _HIGHEST))
    return np.asarray(cv2.dilate(highest, touching) - cv2.erode(lowest, touching), np.float32)


def _likely(height: Singles, known: Bools, seen: NDArray[np.uint8], resolution: float) -> Singles:
    """Most likely heights of a canopy from those that were seen, 0 where there are none."""
    own = np.where(known, height, np.float32(0))
    looks = [own, *(_mean_around(height, known, sigma / resolution) for sigma in _MEANS)]
    looks += [cv2.dilate(own, np.ones((odd_cells(size, resolution),) * 2, np.uint8)) for size in _TOPS]
    table = np.array([_SHARES[kind] for kind in Seen], np.float32)
    likely = np.zeros_like(own)
    for look, shares in zip(looks, table.T, strict=True):
        likely += shares[seen] * np.nan_to_num(look)
    return np.maximum(likely, np.float32(0))


def _mean_around(height: Singles, known: Bools, sigma: float) -> Singles:
    """Weighted mean of the known heights around each cell, NaN where there are none near. sigma: cells."""
    weight, total = (
        cv2.GaussianBlur(values, (0, 0), sigma)
        for values in (known.astype(np.float32), np.where(known, height, np.float32(0)))
    )
    return np.where(weight > 1e-4, total / np.maximum(weight, np.float32(1e-4)), np.float32(np.nan))


def _without_pits(height: Singles, known: NDArray[np.bool_], resolution: float) -> Singles:
    cells = round(_PIT_WIDTH / resolution)
    if cells < 2 or min(height.shape) < 5:
        return height
    filled = np.where(known, height, np.float32(0))
    closed = cv2.morphologyEx(filled, cv2.MORPH_CLOSE, full_disk(cells // 2))
    pit = known & (closed > 2.0) & (closed - filled > np.maximum(1.0, _PIT_DEPTH * closed))
    around = np.maximum(np.minimum(cv2.medianBlur(closed, 5), closed), height)  # a pit is filled, never deepened
    return np.where(pit, around, height).astype(np.float32)
