"""Pushbroom camera, its pointing error, and the RPC that a data provider would deliver for it.

The frame is the world's projected CRS with ellipsoidal height, taken as Cartesian. World, camera and lidar share it, so
nothing is approximate; only earth curvature has no visible effect, which is below a metre within 3 km of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians, sin, tan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.rpc import RpcModel
from terrain3d.crs import to_lonlat
from terrain3d.raster import Grid

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """How a satellite looks at the scene.

    along_deg: angle of the line of sight ahead of nadir in flight direction; negative looks back.
    across_deg: angle towards larger samples (left of the flight, east on a descending orbit).
    heading_deg: flight direction, clockwise from grid north.
    """

    along_deg: float
    across_deg: float = 0.0
    heading_deg: float = 191.0
    altitude: float = 600_000.0


@dataclass(frozen=True)
class PushbroomCamera:
    """Line l is exposed at ``origin + l * advance``, sample s looks along ``axis + (s - centre) * pitch``.

    origin, advance: (3,) easting, northing, height (m) of the sensor at line 0, and its move per line.
    axis: (3,) unit vector of the boresight. pitch: (3,) change of direction per sample, perpendicular to ``axis``.
    centre: sample of the boresight. lines, samples: image size.
    Source: Gupta and Hartley, Linear pushbroom cameras, IEEE TPAMI 19(9), 1997.
    """

    origin: Floats
    advance: Floats
    axis: Floats
    pitch: Floats
    centre: float
    lines: int
    samples: int

    def project(self, x: Any, y: Any, height: Any) -> tuple[Floats, Floats]:
        """Line and sample of points of the projected frame (m), any shapes that broadcast; exact, in closed form."""
        point = np.stack(np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float), np.asarray(height, float)), -1)
        normal = np.cross(self.axis, self.pitch)
        line = (point - self.origin) @ normal / (self.advance @ normal)
        seen = point - self.origin - line[..., None] * self.advance
        sample = (seen @ self.pitch) / (self.pitch @ self.pitch) / (seen @ self.axis) + self.centre
        return line, sample

    def locate(self, line: Any, sample: Any, height: Any) -> tuple[Floats, Floats]:
        """Easting and northing where the rays of image points meet a height; inverse of ``project``."""
        line, sample, height = np.broadcast_arrays(*(np.asarray(a, float) for a in (line, sample, height)))
        start = self.origin + line[..., None] * self.advance
        direction = self.axis + (sample - self.centre)[..., None] * self.pitch
        t = (height - start[..., 2]) / direction[..., 2]
        return start[..., 0] + t * direction[..., 0], start[..., 1] + t * direction[..., 1]


@dataclass(frozen=True)
class Pointing:
    """Error of the delivered orientation: RPC image coordinate minus true one, in pixels.

    line, sample: coefficients of 1, u, u**2 with u = (true line - half) / half, half being half the lines: a bias and a
    slow drift along the flight. What an adjustment has to find is the negative of it.
    """

    line: tuple[float, float, float]
    sample: tuple[float, float, float]
    half: float

    def error(self, line: Any) -> tuple[Floats, Floats]:
        """Error of line and sample at true lines."""
        u = (np.asarray(line, float) - self.half) / self.half
        (a, b, c), (d, e, f) = self.line, self.sample
        return a + u * (b + u * c), d + u * (e + u * f)


@dataclass(frozen=True)
class Sensor:
    """One simulated image's geometry: the exact camera, the pointing error, and the RPC with that error inside."""

    view: View
    camera: PushbroomCamera
    pointing: Pointing
    rpc: RpcModel


def camera_over(grid: Grid, height: float, view: View, gsd: float) -> PushbroomCamera:
    """Camera whose image is the smallest that holds the grid's ground at ``height`` (m, ellipsoidal)."""
    heading = radians(view.heading_deg)
    ahead = np.array([sin(heading), cos(heading), 0.0])
    left = np.array([-ahead[1], ahead[0], 0.0])
    sight = tan(radians(view.along_deg)) * ahead + tan(radians(view.across_deg)) * left - np.array([0.0, 0.0, 1.0])
    axis = sight / np.linalg.norm(sight)
    side = left - (left @ axis) * axis
    west, south, east, north = grid.bounds
    target = np.array([(west + east) / 2, (south + north) / 2, height])
    distance = (view.altitude - height) / -axis[2]
    camera = PushbroomCamera(
        target - distance * axis, gsd * ahead, axis, side / np.linalg.norm(side) * gsd / distance, 0.0, 1, 1
    )
    line, sample = camera.project([west, east, east, west], [south, south, north, north], height)
    first_line, first_sample = np.floor(line.min()), np.floor(sample.min())
    return PushbroomCamera(
        camera.origin + first_line * camera.advance,
        camera.advance,
        camera.axis,
        camera.pitch,
        -float(first_sample),
        int(np.ceil(line.max()) - first_line) + 1,
        int(np.ceil(sample.max()) - first_sample) + 1,
    )


def draw_pointing(rng: np.random.Generator, lines: int, bias_px: float = 3.0, drift_px: float = 0.25) -> Pointing:
    """Random pointing error: bias of deviation ``bias_px`` and drift of deviation ``drift_px`` at either end."""
    line, sample = (tuple(float(v) for v in rng.normal(0, (bias_px, drift_px, drift_px / 3))) for _ in range(2))
    return Pointing((line[0], line[1], line[2]), (sample[0], sample[1], sample[2]), max(lines / 2, 1.0))


def make_sensor(grid: Grid, heights: tuple[float, float], view: View, gsd: float, rng: np.random.Generator) -> Sensor:
    """Camera, pointing error and RPC for a world on ``grid`` whose surface lies within ``heights`` (m, ellipsoidal)."""
    camera = camera_over(grid, sum(heights) / 2, view, gsd)
    pointing = draw_pointing(rng, camera.lines)
    return Sensor(view, camera, pointing, fit_rpc(camera, pointing, grid.reference.horizontal, heights))


def fit_rpc(camera: PushbroomCamera, pointing: Pointing, crs: str, heights: tuple[float, float]) -> RpcModel:
    """RPC fitted to the camera plus its pointing error over the image and a height range with 60 m to spare.

    Iteratively reweighted linear least squares with a small ridge: Tao and Hu, PE&RS 67(12), 2001, section "direct
    and iterative solutions".
    """
    margin = 0.05 * max(camera.lines, camera.samples)
    line, sample, height = (
        a.ravel()
        for a in np.meshgrid(
            np.linspace(-margin, camera.lines + margin, 15),
            np.linspace(-margin, camera.samples + margin, 15),
            np.linspace(heights[0] - 60.0, heights[1] + 60.0, 7),
            indexing="ij",
        )
    )
    lon, lat = to_lonlat(crs, *camera.locate(line, sample, height))
    d_line, d_sample = pointing.error(line)
    (x, lon_norm), (y, lat_norm), (z, height_norm) = _normalized(lon), _normalized(lat), _normalized(height)
    (row, line_norm), (column, sample_norm) = _normalized(line + d_line), _normalized(sample + d_sample)
    terms = cubic_terms(x, y, z)
    line_num, line_den = _fit_ratio(terms, row)
    samp_num, samp_den = _fit_ratio(terms, column)
    return RpcModel(
        line_num, line_den, samp_num, samp_den, *line_norm, *sample_norm, *lon_norm, *lat_norm, *height_norm
    )


def cubic_terms(x: Floats, y: Floats, z: Floats) -> Floats:
    """(N, 20) terms in the order of RPC00B for x = longitude, y = latitude, z = height, normalized."""
    return np.stack(
        [
            np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x, y * y, z * z,
            x * y * z, x**3, x * y * y, x * z * z, x * x * y, y**3, y * z * z, x * x * z, y * y * z, z**3,
        ],
        axis=-1,
    )  # fmt: skip


def _normalized(values: Floats) -> tuple[Floats, tuple[float, float]]:
    low, high = float(values.min()), float(values.max())
    offset, scale = (low + high) / 2, (high - low) / 2
    return (values - offset) / scale, (offset, scale)


def _fit_ratio(terms: Floats, value: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Numerator and denominator (first coefficient 1) of the cubic ratio closest to ``value``."""
    ridge = 1e-6 * np.eye(39)
    weight = np.ones_like(value)
    for _ in range(3):
        design = np.hstack([terms, -value[:, None] * terms[:, 1:]]) * weight[:, None]
        solution = np.linalg.lstsq(
            np.vstack([design, ridge]), np.concatenate([value * weight, np.zeros(39)]), rcond=None
        )[0]
        denominator = np.concatenate([[1.0], solution[20:]])
        weight = 1.0 / (terms @ denominator)
    return tuple(float(v) for v in solution[:20]), tuple(float(v) for v in denominator)
