"""Terrain model from a surface model: ground cells, a membrane across what stands on them, and lidar under trees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.surface.ground import ground_cells
from terrain3d.surface.under_canopy import correct_under_canopy, hidden_ground
from terrain3d.surface.voids import footprint

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

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
    """Terrain model of a surface model.

    dsm, sigma: (h, w) float32, ellipsoidal metres, small voids filled (``voids.fill_voids``), NaN where nothing is
    known. measured: cells that were matched and not filled; only they are evidence of ground. ground_returns:
    trusted lidar ground returns (ellipsoidal heights, already registered to ``dsm``); where they stand in canopy or on
    objects they pull the terrain, fading over some 50 m.

    Sigma between ground cells grows as a random walk with the distance to the next ground cell, faster on slopes, and
    is larger where ground is only seen in gaps.
    """
    z = np.asarray(dsm.values, np.float32)
    resolution = dsm.grid.resolution
    ground = ground_cells(z, resolution, measured)
    if not ground.mask.any():
        empty = np.full(z.shape, np.nan, np.float32)
        return Dtm(replace(dsm, values=empty), replace(sigma, values=empty.copy()), ground.mask)
    hidden = hidden_ground(ground.mask, resolution)
    s = _sigma(np.asarray(sigma.values, np.float32), ground.mask, hidden, ground.slope, resolution)
    height = ground.surface
    if ground_returns is not None and len(ground_returns):
        terrain, spread = Raster(height, dsm.grid), Raster(s, dsm.grid)
        height, s = correct_under_canopy(terrain, spread, hidden, ground.slope, ground_returns)
    inside = _extent(np.isfinite(z), resolution)
    nothing = np.float32(np.nan)
    return Dtm(
        replace(dsm, values=np.where(inside, height, nothing).astype(np.float32)),
        replace(sigma, values=np.where(inside, s, nothing).astype(np.float32)),
        ground.mask,
    )


def _extent(known: Bools, resolution: float) -> Bools:
    """Where the terrain is given: inside the surface model's hull and near a cell that has a value."""
    distance = cv2.distanceTransform((~known).astype(np.uint8), cv2.DIST_L2, 3)
    return footprint(known) & (distance * resolution <= _REACH)


def _sigma(sigma: Singles, ground: Bools, hidden: Singles, slope: Singles, resolution: float) -> Singles:
    """Sigma of the nearest ground cell, the random walk to it, and the doubt about ground that is hardly seen."""
    distance, label = cv2.distanceTransformWithLabels(
        (~ground).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    at = np.zeros(int(label.max()) + 1, np.float32)
    typical = np.nanmedian(sigma[ground]) if np.isfinite(sigma[ground]).any() else 0.0
    at[label[ground]] = np.where(np.isfinite(sigma[ground]), sigma[ground], typical)
    step = _STEP_SIGMA + _STEP_SLOPE * slope
    gap = hidden * (_GAP_SIGMA + _GAP_SLOPE * slope)
    return np.sqrt(at[label] ** 2 + step**2 * distance * resolution + gap**2).astype(np.float32)
