"""A view: one image with its camera, and the geometry that follows from the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely.geometry import Polygon

from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.image.colour import Colour
from terrain3d.io.images import ImageFile

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """An image and its camera. ``acquired``: time of acquisition where the file tells it. colour: multispectral
    image of the same acquisition, for pictures; matching knows nothing of it."""

    name: str
    image: ImageFile
    camera: Camera
    acquired: datetime | None = None
    colour: Colour | None = None

    def with_camera(self, camera: Camera) -> View:
        return replace(self, camera=camera)

    def locate(self, crs: str, line: Any, sample: Any, height: Any) -> tuple[Floats, Floats]:
        """Easting and northing in ``crs`` of image points at ellipsoidal heights."""
        return from_lonlat(crs, *self.camera.locate(line, sample, height))

    def project(self, crs: str, x: Any, y: Any, height: Any) -> tuple[Floats, Floats]:
        """Line and sample of ground points given in ``crs``."""
        return self.camera.project(*to_lonlat(crs, x, y), height)

    def centre(self) -> tuple[float, float]:
        """Line and sample of the middle of the image."""
        return (self.image.height - 1) / 2, (self.image.width - 1) / 2


def footprint(view: View, crs: str, height: float, step: int = 8) -> Polygon:
    """Ground polygon of the image's outline at one height, in ``crs``."""
    rows, columns = view.image.height, view.image.width
    t = np.linspace(0, 1, step, endpoint=False)
    line = np.concatenate([0 * t, t, 0 * t + 1, 1 - t]) * rows - 0.5
    sample = np.concatenate([t, 0 * t + 1, 1 - t, 0 * t]) * columns - 0.5
    x, y = view.locate(crs, line, sample, height)
    ok = np.isfinite(x) & np.isfinite(y)
    return Polygon(np.column_stack([x[ok], y[ok]])).buffer(0)


def ground_sample_distance(view: View, crs: str, height: float) -> float:
    """Mean size of a pixel on the ground at the image centre, metres (square root of its area)."""
    line, sample = view.centre()
    x, y = view.locate(crs, line + np.array([0, 1, 0]), sample + np.array([0, 0, 1]), height)
    return float(np.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0]))))


def lean(view: View, crs: str, height: float, line: Any = None, sample: Any = None) -> Floats:
    """How far the plane at ``height`` is hit beyond a point one metre above it: (..., 2) east, north, metre per metre.

    This is the image displacement of relief; the length is the tangent of the incidence angle. At the image centre
    unless a place is given.
    """
    if line is None or sample is None:
        line, sample = view.centre()
    step = 10.0
    x0, y0 = view.locate(crs, line, sample, height)
    x1, y1 = view.locate(crs, line, sample, height + step)
    return np.stack([np.asarray(x0 - x1), np.asarray(y0 - y1)], axis=-1) / step


def view_angles(view: View, crs: str, height: float) -> tuple[float, float]:
    """Incidence angle and azimuth (clockwise from grid north) of the direction to the satellite, degrees."""
    towards = -lean(view, crs, height)  # a tall point leans away from the sensor
    return float(np.degrees(np.arctan(np.hypot(*towards)))), float(np.degrees(np.arctan2(towards[0], towards[1])) % 360)
