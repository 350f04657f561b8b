"""1-sigma of the cells of a surface model: what the matches say of themselves, and what the surface says of them.

An error is one of two kinds. Most cells are measured, and off by the noise of the matches, by relief that a window of
matching evens out, and by what is lost on slopes. Some are grossly wrong: a crown or roof that hangs over the ground
beside it, a gap between crowns that all pairs took for their tops, or ground matched where an object stands; these are
off by the step between the two. How likely that is follows from the matches and the surface. A Gaussian sigma has to
serve both: the factors below are those whose 68, 90 and 95 % intervals, all three together, hold best for cells of
scenes with exact truth: what the three shares miss on ground is least, over 18 simulated scenes of 350 m and three of
700 m that count eightfold, with objects covered no worse. (The factor of the matches was set again on the latter, as
large as their bands allow: with all that misplaces the model taken off, the best cells are still off by more than they
say. The foot of walls and missing pairs were set on a few of them all.) So a cell that is wrong once in ten times gets
about half of the step, and one that is wrong once in a hundred times hardly more than its noise.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.rims import find_rims
from terrain3d.surface.trend import smooth_trend
from terrain3d.surface.voids import roughness

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

NEAR_M, WIDE_M = 2.5, 8.5  # windows of the roughness
REACH = 4.25  # m within which what is below a cell is looked for
MATCH, NEAR, SLOPE = 0.23, 0.99, 0.022  # factors of the matches' own sigma, of the near roughness, of the slope (m)
PAIRS_AROUND = 8.0  # m within which the largest number of pairs is what might have seen a cell
STEP, LEAST_STEP = 0.51, 0.4  # share of the step down that is the error of an overhang; m
# Logistic regression of a gross error: whether the cell is a rim, the odds of its overhang, logarithms of 1 + its
# height over the lowest around and of 1 + the near roughness (m), metres to the next void, logarithm of the matches'
# sigma in cells.
SIGNS = (4.4, 1.7, -0.54, -1.05, -1.31, 2.11)
OFFSET = 6.02
ODDS, USUAL_ODDS = (-6.0, 3.0), -3.0  # of an overhang: those that are told apart, and of rims where none are known
NEAR_VOID = 4.0  # m
FILLED = 5.1  # m, sigma of a filled cell in very rough surroundings
LARGEST_ROUGHNESS = 30.0
STANDING = 0.025  # share of the height over the terrain by which roofs and crowns are off
# The same for a gap between crowns that was taken for their tops, which is off by most of the height over the terrain:
# logarithms of 1 + the height over the lowest around (m), and of the sigma so far over USUAL (m).
GAP, LARGEST_HEIGHT = 0.89, 40.0  # share of the height; m
GAP_SIGNS, GAP_OFFSET = (-1.2, 2.42), -0.54
# The foot of a wall or crown: what is matched there may be its top after all. Of cells 0.5, 1, 1.5 and 2 m from what
# stands at least FOOT_STEP over them every third, ninth, thirtieth and hundredth is off by the step.
FOOT, FOOT_STEP, FOOT_HEIGHT = 0.5, 2.5, 1.0  # share of the step; m; m over the terrain up to which a cell is a foot
FOOT_REACH, FOOT_WIDTH = 1.1, 0.25  # m, logistic decline of the share with distance
USUAL, LARGEST_SIGMA = 0.3, 2.0  # m; what is larger is not told apart


def cell_sigma(height: Raster, matches: Raster, measured: Bools, odds: Singles | None = None) -> Raster:
    """Sigma (m) of the cells of ``height`` (m, NaN voids) from that of the matches in them, or what ``fill_voids`` made
    of it (m); NaN where either is. measured: cells that were not filled. odds: logarithm, (h, w), that a cell is ground
    which a crown or roof was carried over.

    Cells farther than ``rims.MARGIN`` from the border do not depend on what lies beyond it.
    """
    z, s = np.asarray(height.values, np.float32), np.asarray(matches.values, np.float32)
    measured = np.asarray(measured, np.bool_)
    trend = smooth_trend(height)
    near, wide = (
        roughness(z, height.grid.resolution, odd_cells(m, height.grid.resolution), LARGEST_ROUGHNESS)
        for m in (NEAR_M, WIDE_M)
    )
    south, east = np.gradient(trend, height.grid.resolution)
    noise = (MATCH * s) ** 2 + (NEAR * near) ** 2 + SLOPE**2 * (south**2 + east**2)
    seen = noise + _gross(height, s, near, measured, odds) ** 2
    filled = s**2 + (FILLED * wide / (1 + wide)) ** 2
    sigma = np.sqrt(np.where(measured, seen, filled))
    return Raster(np.where(np.isfinite(z), sigma, np.nan).astype(np.float32), height.grid)


def missing_pairs(matches: Singles, pairs: NDArray[np.uint8], resolution: float) -> Singles:
    """Sigma (h, w; m) of the matches in each cell, more where pairs that see what is around found nothing: what some
    could not match, the others match worse than they say. pairs: (h, w) number of stereo pairs in a cell.

    Cells farther than ``PAIRS_AROUND`` from the border do not depend on what lies beyond it.
    """
    most = cv2.dilate(pairs, np.ones((odd_cells(2 * PAIRS_AROUND, resolution),) * 2, np.uint8))
    return np.asarray(matches * np.sqrt(most / np.maximum(pairs, 1)), np.float32)


def standing_sigma(height: Singles, sigma: Singles, resolution: float) -> Singles:
    """Sigma (h, w; m) of measured cells with the doubt of what stands over the terrain: how well it is matched, how
    likely it is a gap between crowns of which all pairs saw the tops, and how likely what is at its foot belongs to it.

    height: of the surface over the terrain (m, NaN for none). sigma: of the cells as such (m).
    """
    known = np.isfinite(height)
    above = np.clip(np.where(known, height, np.float32(0)), 0, LARGEST_HEIGHT)
    window = np.ones((odd_cells(2 * REACH, resolution),) * 2, np.uint8)
    lowest = cv2.erode(np.where(known, height, np.float32(1e6)).astype(np.float32), window)
    step = np.where(known, np.clip(height - lowest, 0, LARGEST_HEIGHT), np.float32(0))
    doubt = np.log(np.clip(sigma, np.float32(1e-3), LARGEST_SIGMA) / np.float32(USUAL))
    gap = GAP * above * _logistic(GAP_OFFSET, GAP_SIGNS, (np.log1p(step), doubt))
    foot = _foot(np.where(known, height, np.float32(-1e6)), resolution)
    return np.sqrt(sigma**2 + (STANDING * above) ** 2 + gap**2 + foot**2).astype(np.float32)


def _foot(height: Singles, resolution: float) -> Singles:
    """Share of the step up to what stands beside a low cell, largest of all distances (m)."""
    out = np.zeros(height.shape, np.float32)
    for cells in range(1, int((FOOT_REACH + 3 * FOOT_WIDTH) / resolution) + 1):
        step = cv2.dilate(height, np.ones((2 * cells + 1,) * 2, np.uint8)) - height
        share = FOOT / (1 + np.exp((cells * resolution - FOOT_REACH) / FOOT_WIDTH))
        out = np.fmax(out, np.where(step > FOOT_STEP, np.float32(share) * step, np.float32(0)))
    return np.where((height > -FOOT_STEP) & (height < FOOT_HEIGHT), np.minimum(out, LARGEST_HEIGHT), np.float32(0))


def _gross(height: Raster, matches: Singles, near: Singles, measured: Bools, odds: Singles | None) -> Singles:
    """Step between a cell and what stands below it nearby, by how likely the cell is off by it (m)."""
    resolution = height.grid.resolution
    found = find_rims(height, REACH)
    above = np.clip(found.above, 0, LARGEST_ROUGHNESS)
    hanging = found.which * (np.float32(USUAL_ODDS) if odds is None else np.clip(odds, *ODDS))
    away = cv2.distanceTransform(measured.astype(np.uint8), cv2.DIST_L2, 5) * np.float32(resolution)
    with np.errstate(divide="ignore", invalid="ignore"):
        signs = (
            found.which, hanging, np.log1p(above), np.log1p(near), np.minimum(away, NEAR_VOID),
            np.log(np.maximum(matches, np.float32(1e-6)) / np.float32(resolution)),
        )  # fmt: skip
        probability = _logistic(OFFSET, SIGNS, signs)
    return np.asarray(STEP * np.maximum(above, LEAST_STEP) * probability, np.float32)


def _logistic(offset: float, weights: tuple[float, ...], signs: tuple[Singles | Bools, ...]) -> Singles:
    logit = offset + sum(np.float32(weight) * sign for weight, sign in zip(weights, signs, strict=True))
    return np.asarray(1 / (1 + np.exp(-logit)), np.float32)
