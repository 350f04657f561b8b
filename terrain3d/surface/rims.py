"""Rims of crowns and roofs that hang over the ground beside them, found by what matching says there.

Windows of matching carry a crown some pixels over its outline, and each pair hides the ground on another side. On such
an overhang fewer pairs agree than around it, their matches are less precise and less sure, some points lie on the
ground below, and the surface ends sharply there instead of bending down as a crown does.
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
REACH = 8.0  # m within which that ground is
NEAR_GROUND = 1.0  # m over the lowest cell around: still ground
AROUND = 16.0  # m, window of what is usual nearby
OPEN = 12.5  # m, window of the share of ground
PRECISION_CELLS = 5  # window of a mean precision
EDGE, BULGE = 0.5, 4.0  # m, sigma of the means around that a cell is compared with
LARGEST_BULGE = 8.0  # m
# Logistic regression on rims of scenes with exact truth: by share of pairs, precision, metres to the ground,
# confidence, points below, ground around, height over the means of EDGE (in its height over the ground) and of BULGE.
SIGNS = (-0.71, 1.12, -0.10, -2.38, 2.50, -1.24, 2.45, -0.15)
OFFSET = 0.27  # with 0.15 for ground, which its filling from the terrain hits better than what hangs over it
ALIKE_CELLS = 1.0  # sigma of the window that neighbours decide in together
MARGIN = TREND_MARGIN + AROUND / 2 + REACH


@dataclass(frozen=True)
class Matches:
    """What matching says of each cell, (h, w): sigma (m, NaN voids), pairs, confidence and below as in
    ``SurfaceModel``."""

    sigma: Singles
    pairs: NDArray[np.uint8]
    confidence: Singles
    below: Singles


@dataclass(frozen=True)
class Rims:
    """Cells that stand over lower ones nearby: which (h, w) bool; above, distance (h, w) float32: height over the lower
    cells, and how far they are (m); lower (h, w) bool: cells near the lowest one around."""

    which: Bools
    above: Singles
    distance: Singles
    lower: Bools


def find_rims(dsm: Raster, reach: float = REACH) -> Rims:
    """Rims of a surface (m, NaN voids), whether they hang over the ground or not. reach: metres to the ground.

    Cells farther than ``MARGIN`` metres from the border do not depend on what lies beyond it.
    """
    z, resolution = np.asarray(dsm.values, np.float32), dsm.grid.resolution
    known = np.isfinite(z)
    over = np.where(known, z - smooth_trend(dsm), np.float32(1e6))
    above = over - cv2.erode(over, _square(odd_cells(2 * reach, resolution)))
    lower = known & (above < NEAR_GROUND)
    distance = cv2.distanceTransform((~lower).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(resolution)
    return Rims(known & (above > STEP), above, distance, lower)


def ground_odds(dsm: Raster, found: Rims, matches: Matches) -> Singles:
    """Logarithm of the odds (h, w) that a cell of a rim is ground which a crown or roof was carried over; 0 elsewhere.

    dsm: heights (m, NaN voids) that the rims were found in. Borders as in ``find_rims``.
    """
    z, resolution = np.asarray(dsm.values, np.float32), dsm.grid.resolution
    known = np.isfinite(z)
    wide = _square(odd_cells(AROUND, resolution))
    s = np.where(known & np.isfinite(matches.sigma), matches.sigma, np.float32(1e3))
    best = cv2.erode(cv2.blur(s, (PRECISION_CELLS, PRECISION_CELLS)), wide)
    size = odd_cells(OPEN, resolution)
    signs = (
        matches.pairs / np.maximum(cv2.dilate(matches.pairs, wide), 1),
        np.log(s / best),
        np.minimum(found.distance, REACH),
        matches.confidence,
        matches.below,
        cv2.blur(found.lower.astype(np.float32), (size, size)),
        _over_mean(z, EDGE / resolution) / np.maximum(found.above, 1),
        np.clip(_over_mean(z, BULGE / resolution), -LARGEST_BULGE, LARGEST_BULGE),
    )
    odds = OFFSET + sum(weight * sign for weight, sign in zip(SIGNS, signs, strict=True))
    weight, total = (
        cv2.GaussianBlur(np.where(found.which, values, np.float32(0)).astype(np.float32), (0, 0), ALIKE_CELLS)
        for values in (np.ones_like(z), odds)
    )
    return np.where(found.which, total / np.maximum(weight, np.float32(1e-6)), np.float32(0))


def _over_mean(z: Singles, sigma: float) -> Singles:
    """Heights over the mean around them, 0 at voids. sigma: of the window, cells."""
    known = np.isfinite(z)
    base = np.float32(z[known].mean(dtype=np.float64)) if known.any() else np.float32(0)
    weight, total = (
        cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        for values in (known.astype(np.float32), np.where(known, z - base, np.float32(0)))
    )
    return np.where(known, z - base - total / np.maximum(weight, np.float32(1e-6)), np.float32(0))


def _square(cells: int) -> NDArray[np.uint8]:
    return np.ones((cells, cells), np.uint8)
