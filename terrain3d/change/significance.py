"""Where two co-registered surfaces differ by more than their errors, with the support of neighbouring cells."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.filters import Array, box_mean, disc, gradient, median_smooth, roughness
from terrain3d.change.stable import (
    StableStatistics,
    calibrated_sigma,
    smooth_limit,
    stable_cells,
    stable_statistics,
)
from terrain3d.raster import odd_cells

ROUGHNESS_WINDOW = 2.5  # metres
WIDE_SHARE = 0.3  # of the random sigma at least remains in a mean over the wide window; calibration finds the rest
WIDE_WINDOW = 8.0  # metres: over several crowns
HORIZONTAL_SIGMA = 0.7  # cells, of the difference of two matched surfaces
EDGE_TOLERANCE = 1.0  # metres: how far apart two epochs may put the same edge
RIM = 1.5  # metres
OPENING = 1.1  # metres, radius: what is narrower than its double is the rim of something, not a change
CLOSING = 1.0  # metres, radius
CLOSING_ROUGH = 2.5  # metres, radius, where a surface is rough: gaps between crowns belong to the stand


@dataclass(frozen=True)
class SignificanceOptions:
    """Levels of the test.

    seed_z: a change must hold cells that differ by so many sigma. Neighbouring cells are no independent tests: the
        level of 4 (6e-5 two-sided) with the demand for a whole seed area (``seed_area``, m2) of cells above it
        is what keeps the chance of a false object low over a whole map, in place of a correction for the number of
        cells.
    extent_z: from its seeds a change extends over cells that differ by so many sigma (hysteresis, Canny 1986).
    min_height: least height change, metres; the extent reaches down to two thirds of it.
    """

    seed_z: float = 4.0
    extent_z: float = 2.0
    min_height: float = 1.5
    seed_area: float = 6.0


@dataclass(frozen=True)
class Significance:
    """sigma: of the difference, metres. change: +1 risen, -1 fallen, 0 not significant, NaN cells included.

    smooth_limit: roughness up to which a surface counts as ground or roof, metres.
    """

    sigma: Array
    change: NDArray[np.int8]
    smooth_limit: float
    stable: StableStatistics


def significance(
    before: Array, after: Array, sigma: Array, resolution: float, options: SignificanceOptions
) -> Significance:
    """Test of ``after - before`` (metres, NaN where a cell is not measured in both) against ``sigma`` (nominal).

    Two supports are tested: single cells after a 5 x 5 median for buildings and earthworks, whose surfaces
    are smooth; and means over 8 m for woods, where single crowns say nothing. Both sigmas are calibrated on
    the scene itself by classes of roughness. A cell may be a seed of change only if it differs from all cells of the
    other epoch within a metre: an edge that two epochs put a pixel or two apart is none.
    """
    difference = after - before
    size = odd_cells(ROUGHNESS_WINDOW, resolution)
    rough = np.hypot(roughness(before, size), roughness(after, size))
    stable = stable_cells(difference, sigma, rough)
    statistics = stable_statistics(difference, sigma, stable, resolution)
    registration = np.float32(statistics.registration)
    wide = odd_cells(WIDE_WINDOW, resolution)
    around = box_mean(rough, wide)
    limit = smooth_limit(rough)
    crowns = around > limit
    rough = np.maximum(rough, around)  # a smooth patch amid crowns is no better known than they are
    common = np.hypot(_on_slopes(before, after, resolution), registration)  # does not average out over neighbours
    full = calibrated_sigma(difference, np.hypot(sigma, common), rough)

    smoothed = median_smooth(difference)
    # At the rim of a change both sides' roughness is in the window: its cells get the sigma of their neighbours.
    beside = cv2.erode(np.where(np.isfinite(full), full, np.float32(1e9)), disc(max(1.0, RIM / resolution)))
    mean, wide_sigma = _wide(smoothed, sigma, common, rough, wide)
    change = np.zeros(difference.shape, np.int8)
    for sign in (1, -1):
        beyond = _beyond_edges(before, after, sign, resolution)
        risen, mean_risen = sign * smoothed, sign * mean
        with np.errstate(invalid="ignore"):
            seed = (beyond > np.maximum(options.min_height, options.seed_z * full)) & (risen > options.min_height)
            seed |= (mean_risen > np.maximum(options.min_height, options.seed_z * wide_sigma)) & (
                risen > options.min_height
            )
            least = options.min_height * 2 / 3
            extent = risen > np.maximum(least, options.extent_z * beside)
            stand = mean_risen > np.maximum(least, options.extent_z * wide_sigma)
        extent |= stand & (risen > least)
        mask = _closed(extent, stand & crowns, resolution)
        change[_supported(seed, mask, resolution, options) & np.isfinite(difference)] = sign
    return Significance(full, change, limit, statistics)


def _wide(smoothed: Array, sigma: Array, common: Array, rough: Array, size: int) -> tuple[Array, Array]:
    """Mean difference over ``size`` cells and its calibrated sigma, of which ``common`` does not average out."""
    mean = box_mean(smoothed, size, 0.4)
    nominal = np.hypot(box_mean(sigma, size) * np.float32(WIDE_SHARE), common)
    return mean, calibrated_sigma(mean, nominal, box_mean(rough, size))


def _on_slopes(before: Array, after: Array, resolution: float) -> Array:
    """Height error (m) that a horizontal error of HORIZONTAL_SIGMA cells makes on a slope that both epochs have."""
    least = np.full(before.shape, np.inf, np.float32)
    for heights in (before, after):
        least = np.minimum(least, np.hypot(*gradient(box_mean(heights, 5), resolution)))
    return np.where(np.isfinite(least), least * np.float32(HORIZONTAL_SIGMA * resolution), np.float32(0))


def _beyond_edges(before: Array, after: Array, sign: int, resolution: float) -> Array:
    """How far the higher surface stands above the highest neighbour of the other, metres; NaN where not measured."""
    high, low = (after, before) if sign > 0 else (before, after)
    around = cv2.dilate(np.where(np.isfinite(low), low, np.float32(-1e9)), disc(max(1.0, EDGE_TOLERANCE / resolution)))
    finite = np.isfinite(high) & np.isfinite(low)
    return np.where(finite, median_smooth(high, 3) - around, np.nan).astype(np.float32)


def _closed(extent: NDArray[np.bool_], stand: NDArray[np.bool_], resolution: float) -> NDArray[np.uint8]:
    """Extents with small gaps closed, and wider ones within a stand of trees."""
    mask = _padded(cv2.MORPH_CLOSE, extent.astype(np.uint8), CLOSING / resolution)
    if stand.any():
        mask |= _padded(cv2.MORPH_CLOSE, mask & stand, CLOSING_ROUGH / resolution) & stand
    return mask


def _supported(
    seed: NDArray[np.bool_], mask: NDArray[np.uint8], resolution: float, options: SignificanceOptions
) -> NDArray[np.bool_]:
    """Cells of extents that hold enough seeds, slivers opened away."""
    labels, n = ndimage.label(_padded(cv2.MORPH_OPEN, mask, OPENING / resolution))
    seeds = np.bincount(labels[seed], minlength=n + 1) * resolution**2
    seeds[0] = 0
    return np.asarray((seeds >= options.seed_area)[labels])


def _padded(operation: int, mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Opening or closing with a disc, the border mirrored so that objects at the rim keep their shape."""
    if radius < 1:
        return mask
    element = disc(radius)
    pad = 2 * element.shape[0]
    padded = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    return np.asarray(cv2.morphologyEx(padded, operation, element)[pad:-pad, pad:-pad], np.uint8)
