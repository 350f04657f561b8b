"""1-sigma of the cells of a surface model: what the matches say of themselves, and what the surface says of them.

The spread of the matches that meet in a cell does not know two errors: a height that belongs to a place half a window
away, which is as large as the surface is rough there, and a gap between crowns or houses that was taken for their top,
which is as large as the relief around and likely where the matches disagree. The factors are those that make 68, 90 and
95 % intervals hold on ground of scenes with exact truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.voids import roughness

Singles = NDArray[np.float32]

NEAR_M, WIDE_M = 2.5, 8.5  # windows of the roughness
MATCH, NEAR, WIDE = 0.65, 1.3, 4.0  # factors of the matches' own sigma, of the near and of the wide roughness
GROSS_M, GROSS_POWER = 0.33, 6  # matches' sigma at which a gross error is as likely as not, and how sharply it rises
LARGEST_ROUGHNESS = 30.0


def cell_sigma(height: Raster, matches: Raster) -> Raster:
    """Sigma (m) of the cells of ``height`` (m, NaN voids) from that of the matches in them (m); NaN where either is."""
    z, s = np.asarray(height.values, np.float32), np.asarray(matches.values, np.float32)
    resolution = height.grid.resolution
    near, wide = (roughness(z, resolution, odd_cells(m, resolution), LARGEST_ROUGHNESS) for m in (NEAR_M, WIDE_M))
    odds = (np.minimum(s, 10.0) / GROSS_M) ** GROSS_POWER
    gross = WIDE * wide * (odds / (1 + odds))
    sigma = np.sqrt((MATCH * s) ** 2 + (NEAR * near) ** 2 + gross**2)
    return Raster(np.where(np.isfinite(z), sigma, np.nan).astype(np.float32), height.grid)
