"""Terrain model from a surface model: ground cells, a membrane across what stands on them, and lidar under trees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.surface.coarse import block_means
from terrain3d.surface.ground import ground_cells
from terrain3d.surface.under_canopy import (
    CORRECTION_CELL,
    apply_correction,
    fit_correction,
    hidden_ground,
    hidden_returns,
)
from terrain3d.surface.voids import footprint

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

DTM_MARGIN = 64.0  # m: what a part of a terrain model needs to see around it
_REACH = 50.0  # m from the surface model beyond which the terrain is not continued
_STEP_SIGMA = 0.12  # m per square root metre: growth of sigma away from the ground on flat land
_STEP_SLOPE = 0.3  # the same, per unit of terrain slope
_GAP_SIGMA = 0.4  # m: what is taken for ground in the gaps of a canopy is blurred with the crowns around it
_GAP_SLOPE = 2.5  # m per unit of terrain slope: the gap's lowest cell is not under the gap's middle


@dataclass(frozen=True)
class Dtm:
    """Terrain heights (m), their 1-sigma (m), and the cells where the surface model itself is the ground."""

    height: Raster
    sigma: Raster
    ground: Bools


def make_dtm(
    dsm: Raster, sigma: Raster, measured: Bools | None = None, ground_returns: LidarReturns | None = None
) -> Dtm:
    """Terrain model of a whole surface model.

    dsm, sigma: (h, w) float32, ellipsoidal metres, small voids filled (``voids.fill_voids``), NaN where nothing is
    known. measured: cells that were matched and not filled; only they are evidence of ground. ground_returns:
    trusted lidar ground returns (ellipsoidal heights, already registered to ``dsm``); where they stand in canopy or on
    objects they pull the terrain, fading over some 50 m.

    Sigma between ground cells grows as a random walk with the distance to the next ground cell, faster on slopes, and
    is larger where ground is only seen in gaps.
    """
    ground = ground_cells(dsm, measured)
    if not ground.mask.any():
        return Dtm(replace(dsm, values=ground.surface), replace(dsm, values=ground.surface.copy()), ground.mask)
    hull = footprint(np.isfinite(dsm.values))
    height = Raster(ground.surface, dsm.grid)
    far = ground_distance(ground.mask, dsm.grid.resolution)
    spread = terrain_sigma(dsm, sigma, ground.mask, ground.slope, hull, far)
    if ground_returns is not None and len(ground_returns):
        hidden = hidden_ground(ground.mask, dsm.grid.resolution)
        step = max(round(CORRECTION_CELL / dsm.grid.resolution), 1)
        found = hidden_returns(height, spread, hidden, ground.slope, ground_returns)
        correction = fit_correction(found, block_means(spread, step))
        if correction is not None:
            height, spread = apply_correction(correction, height, spread, hidden)
    given = np.where(np.isfinite(spread.values), height.values, np.float32(np.nan))
    return Dtm(replace(height, values=given), spread, ground.mask)


def ground_distance(ground: Bools, cell: float) -> Singles:
    """Distance to the nearest ground cell, metres."""
    return np.asarray(cv2.distanceTransform((~ground).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(cell))


def terrain_sigma(dsm: Raster, sigma: Raster, ground: Bools, slope: Singles, hull: Bools, far: Singles) -> Raster:
    """1-sigma of the terrain (m), NaN where it is not given: outside the hull, or far from all cells of ``dsm``.

    It is the sigma of the nearest ground cell, the random walk to it, and the doubt about ground that is hardly seen.
    dsm, sigma: surface model and its sigma. ground, slope: (h, w) ground cells, and rise over run of the terrain. hull:
    (h, w) of the whole surface model. far: (h, w) distance to ground, metres, where it is beyond ``DTM_MARGIN``.
    """
    resolution = dsm.grid.resolution
    hidden = hidden_ground(ground, resolution)
    s = np.where(ground, sigma.values, np.float32(np.nan))
    typical = np.float32(np.nanmedian(s)) if np.isfinite(s).any() else np.float32(0)
    at, distance = np.full(s.shape, typical), far
    if ground.any():
        own, label = cv2.distanceTransformWithLabels(
            (~ground).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        of_label = np.zeros(int(label.max()) + 1, np.float32)
        of_label[label[ground]] = np.where(np.isfinite(s[ground]), s[ground], typical)
        own *= np.float32(resolution)
        near = own <= DTM_MARGIN
        at, distance = np.where(near, of_label[label], np.float32(0)), np.where(near, own, far)
    step = _STEP_SIGMA + _STEP_SLOPE * slope
    gap = hidden * (_GAP_SIGMA + _GAP_SLOPE * slope)
    spread = np.sqrt(at**2 + step**2 * distance + gap**2)
    outside = ground_distance(np.isfinite(dsm.values), resolution) > _REACH
    return replace(dsm, values=np.where(hull & ~outside, spread, np.float32(np.nan)).astype(np.float32))
