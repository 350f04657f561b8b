"""An old surface brought up to date: the new one where it changed, blended in over a seam, the old one elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from terrain3d.change.filters import Array
from terrain3d.raster import Grid


class Provenance(IntEnum):
    """Values of ``provenance.tif``."""

    NODATA = 0
    OLD = 1
    NEW = 2
    BLENDED = 3


def weights(polygons: Sequence[BaseGeometry], grid: Grid, feather: float) -> Array:
    """Share of the new surface in each cell: 1 in the changed polygons, falling to 0 over ``feather`` metres outside.

    A cosine, so that no crease is left at either end of the seam. Cells whose polygons lie more than ``feather`` off
    the grid are not affected by them.
    """
    if not polygons:
        return np.zeros(grid.shape, np.float32)
    inside = rasterize(polygons, grid.shape, transform=Affine(*grid.transform), dtype="uint8")
    if not inside.any():
        return np.zeros(grid.shape, np.float32)
    away = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5) * np.float32(grid.resolution)
    if feather <= 0:
        return inside.astype(np.float32)
    share = 0.5 * (1 + np.cos(np.pi * np.clip(away / feather, 0, 1)))
    return np.asarray(share, np.float32)


def blended(old: Array, new: Array, weight: Array) -> Array:
    """Heights with that share of the new ones; where one surface has none, the other's, but no new ones at weight 0."""
    mix = (1 - weight) * old + weight * new
    known_old, known_new = np.isfinite(old), np.isfinite(new)
    out = np.where(known_old & known_new, mix, np.where(known_old, old, new))
    return np.where((weight > 0) | known_old, out, np.float32(np.nan)).astype(np.float32)


def blended_sigma(old: Array, new: Array, weight: Array, registration: float) -> Array:
    """1-sigma of blended heights; the new ones carry that of their co-registration as well."""
    fresh = np.hypot(new, np.float32(registration))
    mix = np.hypot((1 - weight) * old, weight * fresh)
    known_old, known_new = np.isfinite(old), np.isfinite(fresh)
    out = np.where(known_old & known_new, mix, np.where(known_old, old, fresh))
    return np.where((weight > 0) | known_old, out, np.float32(np.nan)).astype(np.float32)


def provenance(old: Array, new: Array, weight: Array) -> NDArray[np.uint8]:
    """Which surface each cell of ``blended`` comes from, codes of Provenance."""
    known_old, known_new = np.isfinite(old), np.isfinite(new)
    code = np.where(weight >= 1, Provenance.NEW, np.where(weight > 0, Provenance.BLENDED, Provenance.OLD))
    code = np.where(known_new, code, Provenance.OLD)
    code = np.where(~known_old & known_new & (weight > 0), Provenance.NEW, code)
    return np.where(known_old | (known_new & (weight > 0)), code, Provenance.NODATA).astype(np.uint8)
