"""Ground in the gaps of a canopy, told cell by cell, and how it corrects the estimate of the ground under trees.

In an open forest every tenth cell of a stereo surface is ground, but between crowns it is too little and too rough for
a filter of ground. The coarse estimate under the trees says within a metre or two where it must lie; which cells of
that height are ground and which the feet of crowns, the surface itself tells: ground is smooth and low among its
neighbours, is matched precisely and lies off the crowns. What is likely ground then bends the estimate, over
some metres first and nearer by after that. No cell is asked again with the bent estimate: it would climb the crowns.
Crowns are told by their height over the estimate, so one that may be off by as much is not bent: on cliffs and beside
voids the feet of crowns would pass for ground.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells

Singles = NDArray[np.float32]

# Logistic regression on own scenes with exact truth: offset, and weights of the logarithm of the range of heights in
# NEAR (and ROUGH), height over the lowest in LOW, metres to a crown, logarithm of the sigma.
SIGNS = (2.69, -0.53, -1.08, -0.27, -0.61)
NEAR, LOW = 1.5, 4.5  # m, windows
ROUGH, ROUGHEST, HIGHEST = 0.1, 4.0, 5.0  # m
NOTHING = 1e4  # m, in place of what is not known
CROWN, FAR = 5.0, 4.0  # m over the estimate that is one; m from it, beyond which distance says no more
LEAST_SIGMA, LARGEST_SIGMA = 0.05, 3.0  # m
LIKELY = 0.85  # a cell that looks less like ground does not count
FLANKS = 8.0  # m, over which crowns' feet lie
GATE = 1.5  # sigmas from the estimate within which ground is believed
ERROR, BLUR = 0.5, 0.1  # m: 1-sigma of ground in a gap, and by how much crowns around raise it
# Turns: sigma of the window (m), width of a spot whose errors are one (m), and share of the estimate's sigma that is
# still open.
TURNS = ((5.0, 4.0, 1.0), (2.5, 2.0, 0.7))


def from_gaps(dsm: Raster, sigma: Raster, under: Singles, error: Singles) -> Singles:
    """Correction (h, w; m) of the ground under trees by the ground in gaps.

    dsm, sigma: (h, w) what was measured of the surface, m, NaN for nothing. under, error: (h, w) estimate of the ground
    and its 1-sigma, m.
    """
    off = np.asarray(dsm.values - under - np.float32(BLUR), np.float32)
    error = np.maximum(np.where(np.isfinite(error), error, LARGEST_SIGMA), LEAST_SIGMA).astype(np.float32)
    spread = np.hypot(np.float32(ERROR), error)
    weight = _believed(off, spread, likely_ground(dsm, sigma, under))
    off = np.where(weight > 0, off, np.float32(0))
    correction = np.zeros_like(off)
    for reach, spot, share in TURNS:
        cells = reach / dsm.grid.resolution
        spots = np.float32(4 * np.pi * (reach / spot) ** 2 / ERROR**2)  # of a window, by their information
        known, total = (cv2.GaussianBlur(a, (0, 0), cells) for a in (weight, weight * (off - correction)))
        correction += spots * total / (spots * known + 1 / (np.float32(share) * error) ** 2)
    return np.asarray(correction / (1 + (error / np.float32(CROWN)) ** 4), np.float32)


def likely_ground(dsm: Raster, sigma: Raster, under: Singles) -> Singles:
    """Probability (h, w) that cells near the height of the ground are ground, by how they look; 0 where nothing was
    measured. Arguments as of ``from_gaps``."""
    resolution = dsm.grid.resolution
    high = np.asarray(dsm.values - under, np.float32)
    known = np.isfinite(high)
    lowest, highest = (np.where(known, high, np.float32(empty)) for empty in (NOTHING, -NOTHING))
    near, low = (np.ones((odd_cells(a, resolution),) * 2, np.uint8) for a in (NEAR, LOW))
    rise = np.clip(cv2.dilate(highest, near) - cv2.erode(lowest, near), 0, ROUGHEST)
    over = np.clip(high - cv2.erode(lowest, low), 0, HIGHEST)
    apart = cv2.distanceTransform((~(highest > CROWN)).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(resolution)
    doubt = np.log(np.clip(sigma.values, LEAST_SIGMA, LARGEST_SIGMA))
    signs = (np.log(rise + np.float32(ROUGH)), over, np.minimum(apart, np.float32(FAR)), doubt)
    odds = SIGNS[0] + sum(weight * sign for weight, sign in zip(SIGNS[1:], signs, strict=True))
    return np.where(known & np.isfinite(odds), 1 / (1 + np.exp(-odds)), 0).astype(np.float32)


def _believed(off: Singles, spread: Singles, likely: Singles) -> Singles:
    """Probability of cells to be ground by their looks and by where they lie; 0 for those that are out of question."""
    with np.errstate(invalid="ignore"):
        asked = (likely > LIKELY) & (np.abs(off) < GATE * spread)
    place = np.exp(-0.5 * (np.where(asked, off, 0) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
    ground = likely * place
    return np.where(asked, ground / np.maximum(ground + (1 - likely) / FLANKS, 1e-9), 0).astype(np.float32)
