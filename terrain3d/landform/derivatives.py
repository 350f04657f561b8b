"""Slope, aspect and hillshade after Horn (1981), Hill shading and the reflectance map, Proceedings of the IEEE 69(1).

Rows run south. Cells beside voids and borders keep a value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]


def horn_gradient(heights: Singles, resolution: float) -> tuple[Singles, Singles]:
    """Rise towards the east and the north, metre per metre, (h, w) each; NaN where there is no height.

    The weights are 1, 2, 1 for the differences of three rows or columns. Where an end of one is missing, the difference
    to its middle is taken, and where that is not possible the others count alone.
    """
    z = np.pad(np.asarray(heights, np.float32), 1, constant_values=np.nan)
    east = _weighted(z) / np.float32(resolution)
    north = -_weighted(z.T).T / np.float32(resolution)
    void = ~np.isfinite(heights)
    east[void] = north[void] = np.nan
    return east, north


def _weighted(z: Singles) -> Singles:
    """Mean difference of a column to the next one, from a border of one cell around."""
    total, weight = np.zeros((2, z.shape[0] - 2, z.shape[1] - 2), np.float32)
    for shift, share in ((0, 1), (1, 2), (2, 1)):
        row = z[shift : shift + z.shape[0] - 2]
        left, centre, right = row[:, :-2], row[:, 1:-1], row[:, 2:]
        rise = np.where(
            np.isfinite(left), np.where(np.isfinite(right), (right - left) / 2, centre - left), right - centre
        )
        some = np.isfinite(rise)
        total += np.where(some, share * rise, np.float32(0))
        weight += np.float32(share) * some
    return np.asarray(total / np.maximum(weight, 1), np.float32)


def slope_deg(east: Singles, north: Singles) -> Singles:
    """Angle of the steepest rise, degrees."""
    return np.degrees(np.arctan(np.hypot(east, north))).astype(np.float32)


def aspect_deg(east: Singles, north: Singles) -> Singles:
    """Direction in which the ground falls, degrees clockwise from grid north, 0 to 360; NaN where it is level."""
    falls = np.degrees(np.arctan2(-east, -north)) % 360
    return np.where((east == 0) & (north == 0), np.nan, falls).astype(np.float32)


def hillshade(
    east: Singles, north: Singles, azimuth_deg: float = 315.0, elevation_deg: float = 45.0
) -> NDArray[np.uint8]:
    """Light that a dull surface returns, 1 to 255; 0 where there is no height. azimuth_deg: of the sun, from north."""
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    towards_sun = east * np.float32(np.sin(azimuth)) + north * np.float32(np.cos(azimuth))
    cosine = (np.sin(elevation) - towards_sun * np.cos(elevation)) / np.sqrt(1 + east**2 + north**2)
    shade = 1 + 254 * np.clip(np.nan_to_num(cosine), 0, 1)
    return np.where(np.isfinite(east), np.rint(shade), 0).astype(np.uint8)
