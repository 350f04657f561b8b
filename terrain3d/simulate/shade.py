"""Light on a world: Lambert shading by sun and sky, and cast shadows, for everything that is seen from above."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin, tan

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.simulate.layers import TREE
from terrain3d.simulate.world import World

Singles = NDArray[np.float32]
SKY = 0.24


@dataclass(frozen=True)
class Sun:
    """Direction to the sun: clockwise from grid north, and above the horizon."""

    azimuth_deg: float = 148.0
    elevation_deg: float = 47.0

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector to the sun: east, north, up."""
        azimuth, elevation = radians(self.azimuth_deg), radians(self.elevation_deg)
        return np.array([sin(azimuth) * cos(elevation), cos(azimuth) * cos(elevation), sin(elevation)])


@dataclass(frozen=True)
class LitWorld:
    """A world with the light of one moment.

    radiance: of upward surfaces, where 1 is a white surface that faces the sun, sky light apart.
    shadow: height (m) below which a point over the cell is in cast shadow.
    """

    world: World
    sun: Sun
    radiance: Singles
    shadow: Singles


def illuminate(world: World, sun: Sun | None = None) -> LitWorld:
    """Shade a world."""
    sun = sun or Sun()
    cell = world.grid.resolution
    height = world.surface
    shadow = shadow_ceiling(height, cell, sun)
    lit = np.clip(1.0 - (shadow - height - 0.05) / 0.25, 0.0, 1.0)
    east, north, up = (float(v) for v in sun.direction)
    # Slopes across a wall are no surface that is seen from above: they count as level, at 60 degrees.
    dx = np.clip(cv2.Scharr(height, cv2.CV_32F, 1, 0) / (32.0 * cell), -1.7, 1.7)
    dy = np.clip(-cv2.Scharr(height, cv2.CV_32F, 0, 1) / (32.0 * cell), -1.7, 1.7)
    rim = cv2.dilate(height, np.ones((3, 3))) - cv2.erode(height, np.ones((3, 3))) > np.float32(1.5)
    rim &= world.classes != TREE
    dx[rim], dy[rim] = 0.0, 0.0
    lambert = np.maximum(up - east * dx - north * dy, 0.0) / np.sqrt(1.0 + dx * dx + dy * dy)
    around = cv2.GaussianBlur(height, (0, 0), 3.0 / cell)
    open_sky = np.clip(1.0 - 0.09 * (around - height), 0.35, 1.0)
    radiance = world.albedo * (lit * lambert + SKY * open_sky)
    return LitWorld(world, sun, radiance.astype(np.float32), shadow)


def shadow_ceiling(height: Singles, cell: float, sun: Sun) -> Singles:
    """Height below which each cell lies in the shadow of others, by one sweep away from the sun.

    The field is sheared so that light runs along columns; a running maximum there needs no interpolation, so that
    edges of long shadows stay sharp.
    """
    azimuth = radians(sun.azimuth_deg)
    towards = np.array([-cos(azimuth), sin(azimuth)])  # rows, columns
    turned = abs(towards[1]) > abs(towards[0])
    field = height.T if turned else height
    major, minor = (towards[1], towards[0]) if turned else (towards[0], towards[1])
    if major > 0:
        field = field[::-1]
    rows, columns = field.shape
    # From here the sun is towards row 0: one row closer to it means ``lean`` columns aside and ``climb`` metres up.
    lean = minor / abs(major)
    climb = tan(radians(sun.elevation_deg)) * cell / abs(major)
    extra = int(np.ceil(abs(lean) * rows)) + 1
    place = np.arange(columns, dtype=np.float64)
    wide = np.arange(-extra, columns + extra, dtype=np.float64)
    ceiling = np.empty_like(field)
    running = np.full(wide.size, -np.inf)
    for r in range(rows):
        shift = -lean * r
        ceiling[r] = np.interp(place, wide + shift, np.maximum(running, -1e4))
        row = np.interp(wide + shift, place, field[r], left=-1e4, right=-1e4)
        running = np.maximum(running, row) - climb
    ceiling[0] = -1e4
    if major > 0:
        ceiling = ceiling[::-1]
    return np.ascontiguousarray(ceiling.T if turned else ceiling)
