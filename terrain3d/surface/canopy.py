"""Height above ground (``chm.tif``).

The model holds everything that stands on the terrain, buildings too: from height alone a hedge and a shed are the
same, and a wrong cut is worse for users than a clear definition. Mask buildings with a footprint layer where only
trees count.

It is the upper envelope of what was matched: rims of crowns that the surface model gives to the ground beside them,
because the ground is as likely there, belong to the crowns here. So heights of crowns are right up to their edges, and
crowns are up to a metre too wide; how much land they cover is told by the surface model itself.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster
from terrain3d.surface.disks import full_disk

Singles = NDArray[np.float32]

_PIT_WIDTH = 1.5  # m: a narrower hole in a crown is a failed match, not a gap
_PIT_DEPTH = 0.3  # share of the height around it


def canopy_height(dsm: Raster, dtm: Raster) -> Raster:
    """Surface minus terrain, at least 0, metres, on their common grid; NaN where either has none.

    Narrow deep pits in crowns are replaced by the median around them (Khosravipour et al. 2014 describe the artefact).
    """
    if dsm.grid != dtm.grid:
        raise ValueError("surface and terrain are on different grids")
    height = np.asarray(dsm.values, np.float32) - np.asarray(dtm.values, np.float32)
    known = np.isfinite(height)
    height = np.maximum(height, np.float32(0))
    return replace(dsm, values=_without_pits(height, known, dsm.grid.resolution))


def _without_pits(height: Singles, known: NDArray[np.bool_], resolution: float) -> Singles:
    cells = round(_PIT_WIDTH / resolution)
    if cells < 2 or min(height.shape) < 5:
        return height
    filled = np.where(known, height, np.float32(0))
    closed = cv2.morphologyEx(filled, cv2.MORPH_CLOSE, full_disk(cells // 2))
    pit = known & (closed > 2.0) & (closed - filled > np.maximum(1.0, _PIT_DEPTH * closed))
    around = np.maximum(np.minimum(cv2.medianBlur(closed, 5), closed), height)  # a pit is filled, never deepened
    return np.where(pit, around, height).astype(np.float32)
