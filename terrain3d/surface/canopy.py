"""Height above ground (``chm.tif``).

The model holds everything that stands on the terrain, buildings too: from height alone a hedge and a shed are the
same, and a wrong cut is worse for users than a clear definition. Mask buildings with a footprint layer where only
trees count.

It is the upper envelope of what was matched: rims of crowns that the surface model gives to the ground beside them,
because the ground is as likely there, belong to the crowns here. So heights of crowns are right up to their edges, and
crowns are up to a metre too wide; how much land they cover is told by the surface model itself.

Where nothing was matched, the surface model has the ground, which most often is hidden there. But every third to second
such cell in a forest is a crown, and crowns that are not matched are not lower than others. So these cells have the
mean of the heights around. And where a crown ends is known to about a cell: on the steep rims of a canopy
the height is the mean over that doubt.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster
from terrain3d.surface.disks import full_disk

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_PIT_WIDTH = 1.5  # m: a narrower hole in a crown is a failed match, not a gap
_PIT_DEPTH = 0.3  # share of the height around it
_AROUND = 1.5  # m, sigma of the mean that an unmatched cell has
_RIM = 3.0  # m between neighbours, from which on a rim is steep
_HIGHEST = 1e4  # m, over all that stands
_DOUBT = 1.0  # cells, 1-sigma of the place of a rim


def canopy_height(dsm: Raster, dtm: Raster, unmatched: Bools | None = None, canopy: Bools | None = None) -> Raster:
    """Surface minus terrain, at least 0, metres, on their common grid; NaN where either has none.

    unmatched: (h, w) cells of the surface that were filled. canopy: (h, w) cells in forests, whose rims are steep and
    rough. Narrow deep pits in crowns are replaced by the median around them (Khosravipour et al. 2014 describe the
    artefact).
    """
    if dsm.grid != dtm.grid:
        raise ValueError("surface and terrain are on different grids")
    height = np.asarray(dsm.values, np.float32) - np.asarray(dtm.values, np.float32)
    known = np.isfinite(height)
    height = np.maximum(height, np.float32(0))
    if unmatched is not None:
        around = _mean_around(height, known & ~unmatched, _AROUND / dsm.grid.resolution)
        height = np.where(known & unmatched, np.fmax(height, around), height)
    height = _without_pits(height, known, dsm.grid.resolution)
    if canopy is not None:
        steep = canopy & known & (_rise(height, known) > _RIM)
        height = np.where(steep, _mean_around(height, known, _DOUBT), height)
    return replace(dsm, values=height)


def _rise(height: Singles, known: Bools) -> Singles:
    """Range of the known heights in 3 x 3 cells."""
    touching = np.ones((3, 3), np.uint8)
    highest, lowest = (np.where(known, height, np.float32(empty)) for empty in (0, _HIGHEST))
    return np.asarray(cv2.dilate(highest, touching) - cv2.erode(lowest, touching), np.float32)


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
