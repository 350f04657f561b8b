"""Where two co-registered surfaces differ by more than their errors, with the support of neighbouring cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.change.filters import Array, box_mean, disc, gradient, median_smooth, roughness
from terrain3d.change.stable import (
    Calibration,
    StableStatistics,
    calibrate,
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
class Fields:
    """What the test looks at in a part of the scene, all in metres, NaN where a cell is not measured in both epochs.

    difference: after - before; smoothed: its 5 x 5 median; mean: its mean over WIDE_WINDOW. sigma: nominal, of the
    difference. mean_sigma: the share of it that does not average out over WIDE_WINDOW. slope_error: what a horizontal
    error makes of slopes. rough: of both surfaces; around: its mean over WIDE_WINDOW.
    """

    difference: Array
    smoothed: Array
    mean: Array
    sigma: Array
    mean_sigma: Array
    slope_error: Array
    rough: Array
    around: Array


def look(before: Array, after: Array, sigma: Array, resolution: float) -> Fields:
    """Fields of two co-registered surfaces (metres, NaN for no value) with the nominal sigma of their difference."""
    difference = after - before
    size, wide = odd_cells(ROUGHNESS_WINDOW, resolution), odd_cells(WIDE_WINDOW, resolution)
    rough = _together(roughness(before, size), roughness(after, size))
    smoothed = median_smooth(difference)
    return Fields(
        difference=difference,
        smoothed=smoothed,
        mean=box_mean(smoothed, wide, 0.4),
        sigma=sigma,
        mean_sigma=box_mean(sigma, wide) * np.float32(WIDE_SHARE),
        slope_error=_on_slopes(before, after, resolution),
        rough=rough,
        around=box_mean(rough, wide),
    )


@dataclass(frozen=True)
class ErrorModel:
    """What a scene's own differences say about their errors. smooth_limit: roughness up to which a surface counts as
    ground or roof, metres. cells, means: calibration of the sigma of cells and of means over WIDE_WINDOW."""

    stable: StableStatistics
    smooth_limit: float
    cells: Calibration
    means: Calibration

    def common(self, seen: Fields) -> Array:
        """Sigma that does not average out over neighbours, metres."""
        return _together(seen.slope_error, np.full_like(seen.slope_error, self.stable.registration))

    def sigma(self, seen: Fields) -> Array:
        """Calibrated sigma of cells, metres."""
        # A smooth patch amid crowns is no better known than they are.
        return self.cells.of(_together(seen.sigma, self.common(seen)), np.maximum(seen.rough, seen.around))

    def mean_sigma(self, seen: Fields) -> Array:
        """Calibrated sigma of means over WIDE_WINDOW, metres."""
        return self.means.of(_together(seen.mean_sigma, self.common(seen)), np.maximum(seen.rough, seen.around))


def error_model(parts: Sequence[Fields], resolution: float) -> ErrorModel:
    """Errors as parts of a scene, or all of it, show them."""
    limit = smooth_limit(np.concatenate([p.rough[np.isfinite(p.rough)] for p in parts]))
    stable = [np.where(stable_cells(p.difference, p.sigma, p.rough, limit), p.difference, np.nan) for p in parts]
    nothing = Calibration()
    model = ErrorModel(stable_statistics(stable, [p.sigma for p in parts], resolution), limit, nothing, nothing)
    rough = np.concatenate([np.maximum(p.rough, p.around).ravel() for p in parts])

    def fitted(values: Iterable[Array], sigma: Iterable[Array]) -> Calibration:
        return calibrate(np.concatenate([v.ravel() for v in values]), np.concatenate([v.ravel() for v in sigma]), rough)

    return replace(
        model,
        cells=fitted((p.difference for p in parts), (model.sigma(p) for p in parts)),
        means=fitted((p.mean for p in parts), (model.mean_sigma(p) for p in parts)),
    )


@dataclass(frozen=True)
class Tested:
    """sigma: of the difference, calibrated, metres. detectable: the smallest change that would have been a seed, by the
    test of cells or that of means, whichever needs less, metres. extent, seed: +1 where a cell may belong to a rise,
    and where it proves one; -1 of a fall; 0 elsewhere. Extents bridge small voids."""

    sigma: Array
    detectable: Array
    extent: NDArray[np.int8]
    seed: NDArray[np.int8]


def test(
    before: Array, after: Array, seen: Fields, model: ErrorModel, resolution: float, options: SignificanceOptions
) -> Tested:
    """Where ``after`` differs from ``before`` (metres, NaN where a cell is not measured in both).

    Two supports are tested: single cells after a 5 x 5 median for buildings and earthworks, whose surfaces
    are smooth; and means over 8 m for woods, where single crowns say nothing. Both sigmas are calibrated on
    the scene itself by classes of roughness. A cell may be a seed of change only if it differs from all cells of the
    other epoch within a metre: an edge that two epochs put a pixel or two apart is none.
    """
    full, mean_sigma = model.sigma(seen), model.mean_sigma(seen)
    crowns = seen.around > model.smooth_limit
    # At the rim of a change both sides' roughness is in the window: its cells get the sigma of their neighbours.
    beside = cv2.erode(np.where(np.isfinite(full), full, np.float32(1e9)), disc(max(1.0, RIM / resolution)))
    extents, seeds = np.zeros(full.shape, np.int8), np.zeros(full.shape, np.int8)
    least = options.min_height * 2 / 3
    for sign in (1, -1):
        risen, mean_risen = sign * seen.smoothed, sign * seen.mean
        with np.errstate(invalid="ignore"):
            high = risen > options.min_height
            if not high.any():
                continue
            beyond = _beyond_edges(before, after, sign, resolution)
            seed = (beyond > np.maximum(options.min_height, options.seed_z * full)) & high
            seed |= (mean_risen > np.maximum(options.min_height, options.seed_z * mean_sigma)) & high
            extent = risen > np.maximum(least, options.extent_z * beside)
            stand = mean_risen > np.maximum(least, options.extent_z * mean_sigma)
        extent |= stand & (risen > least)
        mask = _closed(extent, stand & crowns, resolution)
        inside = _padded(cv2.MORPH_OPEN, mask, OPENING / resolution) > 0
        extents[inside] = sign
        seeds[inside] = np.where(seed[inside], sign, 0)
    detectable = np.maximum(options.seed_z * np.fmin(full, mean_sigma), np.float32(options.min_height))
    return Tested(full, detectable, extents, seeds)


def _together(first: Array, second: Array) -> Array:
    """Root of the sum of squares."""
    return np.asarray(cv2.magnitude(first, second))


def _on_slopes(before: Array, after: Array, resolution: float) -> Array:
    """Height error (m) that a horizontal error of HORIZONTAL_SIGMA cells makes on a slope that both epochs have."""
    least = np.full(before.shape, np.inf, np.float32)
    for heights in (before, after):
        least = np.minimum(least, _together(*gradient(box_mean(heights, 5), resolution)))
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


def _padded(operation: int, mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """Opening or closing with a disc, the border mirrored so that objects at the rim keep their shape."""
    if radius < 1:
        return mask
    element = disc(radius)
    pad = 2 * element.shape[0]
    padded = cv2.copyMakeBorder(mask, pad, pad, pad, pad, cv2.BORDER_REFLECT)
    return np.asarray(cv2.morphologyEx(padded, operation, element)[pad:-pad, pad:-pad], np.uint8)
