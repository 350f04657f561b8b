"""1-sigma of the cells of a surface model: what the matches say of themselves, and what the surface says of them.

The spread of the matches that meet in a cell does not know the gross errors: a height that belongs to a place half a
window away, as large as the surface is rough there; a crown or roof that hangs over the ground beside it, as high as it
stands over it; a gap between crowns that was taken for their top, likely where the matches disagree; and what was
filled, which is as uncertain as the relief around. The factors are those that make 68, 90 and 95 % intervals hold on
ground of scenes with exact truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.rims import find_rims
from terrain3d.surface.voids import roughness

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

NEAR_M, WIDE_M = 2.5, 8.5  # windows of the roughness
MATCH, NEAR, WIDE = 0.61, 1.0, 4.5  # factors of the matches' own sigma, of the near and of the wide roughness
GROSS_M, GROSS_POWER = 0.33, 6  # matches' sigma at which a gross error is as likely as not, and how sharply it rises
HANGING = 0.9  # share of the height of a rim that is likely to hang over the ground
LIKELY, LIKELY_POWER = 0.12, 4  # probability at which half of that counts, and how sharply it rises
REACH = 4.25  # m within which what is below a cell is looked for
EDGE = 1.6  # m that a rim hangs over the ground at most
FILLED = 1.6  # factor of the wide roughness where nothing was measured
LARGEST_ROUGHNESS = 30.0


def cell_sigma(height: Raster, matches: Raster, measured: Bools, odds: Singles | None = None) -> Raster:
    """Sigma (m) of the cells of ``height`` (m, NaN voids) from that of the matches in them, or what ``fill_voids`` made
    of it (m); NaN where either is. measured: cells that were not filled. odds: logarithm, (h, w), that a cell is ground
    which a crown or roof was carried over.

    Cells farther than ``rims.MARGIN`` from the border do not depend on what lies beyond it.
    """
    z, s = np.asarray(height.values, np.float32), np.asarray(matches.values, np.float32)
    resolution = height.grid.resolution
    near, wide = (roughness(z, resolution, odd_cells(m, resolution), LARGEST_ROUGHNESS) for m in (NEAR_M, WIDE_M))
    doubt = (np.minimum(s, 10.0) / GROSS_M) ** GROSS_POWER
    gross = WIDE * wide * (doubt / (1 + doubt))
    hanging = np.float32(0) if odds is None else _hanging(height, odds)
    seen = (MATCH * s) ** 2 + (NEAR * near) ** 2 + gross**2 + hanging**2
    filled = (MATCH * s) ** 2 + (FILLED * wide) ** 2
    sigma = np.sqrt(np.where(measured, seen, filled))
    return Raster(np.where(np.isfinite(z), sigma, np.nan).astype(np.float32), height.grid)


def _hanging(height: Raster, odds: Singles) -> Singles:
    """Sigma of cells by what is below them if they are not what they show, 0 where there is no lower ground nearby."""
    found = find_rims(height, REACH)
    probability = 1 / (1 + np.exp(-odds))
    ratio = (probability / LIKELY) ** LIKELY_POWER
    edge = found.which & (found.distance < EDGE)
    return np.where(edge, HANGING * found.above * ratio / (1 + ratio), 0).astype(np.float32)
