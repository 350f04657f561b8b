"""Rims of crowns and roofs that hang over the ground beside them, found by what matching says there.

Windows of matching carry a crown some pixels over its outline, and each pair hides the ground on another side. On such
an overhang fewer pairs agree than around it, their matches are less precise than those nearby, and the ground is near.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.trend import TREND_MARGIN, smooth_trend

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

STEP = 2.5  # m over the ground from which on a cell may hang over it
REACH = 4.25  # m within which that ground is
NEAR_GROUND = 1.0  # m over the lowest cell around: still ground
AROUND = 16.0  # m, window of what is usual nearby
PRECISION_CELLS = 5  # window of a mean precision
# Logistic regression on rims of scenes with exact truth: by share of pairs, precision, and metres to the ground.
SIGNS = (-1.93, 1.42, -0.24)
OFFSET = -0.27
LEAST_ODDS = -0.45  # logarithm; a void in its place is filled from the lower side, where it belongs
ALIKE_CELLS = 1.0  # sigma of the window that neighbours decide in together
MARGIN = TREND_MARGIN + AROUND / 2 + REACH


@dataclass(frozen=True)
class Rims:
    """Cells that stand over lower ones nearby: which (h, w) bool; odds (h, w) float32, logarithm, that a cell is ground
    which a crown or roof was carried over; above, distance (h, w) float32: its height over the lower cells, and how far
    they are (m)."""

    which: Bools
    odds: Singles
    above: Singles
    distance: Singles


def rims(dsm: Raster, sigma: Singles, pairs: NDArray[np.uint8]) -> Rims:
    """Rims of a surface. dsm: heights (m, NaN voids). sigma: of the matches (m). pairs: that saw the cell's surface.

    Cells farther than ``MARGIN`` metres from the border do not depend on what lies beyond it.
    """
    z, resolution = np.asarray(dsm.values, np.float32), dsm.grid.resolution
    known = np.isfinite(z)
    over = np.where(known, z - smooth_trend(dsm), np.float32(1e6))
    above = over - cv2.erode(over, _square(odd_cells(2 * REACH, resolution)))
    lower = known & (above < NEAR_GROUND)
    distance = cv2.distanceTransform((~lower).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(resolution)
    wide = _square(odd_cells(AROUND, resolution))
    share = pairs / np.maximum(cv2.dilate(pairs, wide), 1)
    s = np.where(known & np.isfinite(sigma), sigma, np.float32(1e3))
    best = cv2.erode(cv2.blur(s, (PRECISION_CELLS, PRECISION_CELLS)), wide)
    signs = (share, np.log(s / best), np.minimum(distance, REACH))
    odds = OFFSET + sum(weight * sign for weight, sign in zip(SIGNS, signs, strict=True))
    return Rims(known & (above > STEP), np.asarray(odds, np.float32), above, distance)


def overhangs(dsm: Raster, sigma: Singles, pairs: NDArray[np.uint8]) -> Bools:
    """Cells (h, w) that are more likely ground than part of the crown or roof that they show; see ``rims``."""
    found = rims(dsm, sigma, pairs)
    weight, total = (
        cv2.GaussianBlur(np.where(found.which, values, np.float32(0)), (0, 0), ALIKE_CELLS)
        for values in (np.ones_like(found.odds), found.odds)
    )
    return np.asarray(found.which & (total > LEAST_ODDS * weight))


def _square(cells: int) -> NDArray[np.uint8]:
    return np.ones((cells, cells), np.uint8)
