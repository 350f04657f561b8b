"""Rational polynomial camera: projection, localization at a height, and the image Jacobian, as batch kernels.

Source: NIMA STDI-0002 Appendix E (RPC00B), the order of the 20 cubic terms as in its section E.2.4. Line and sample
count from the centre of the first pixel, (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.errors import CameraError

Floats = NDArray[np.float64]
# The packed array holds four polynomials of 20, then from NORM on offset and scale of line, sample, lon, lat, height.
NORM = 80
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class RpcModel:
    """RPC00B coefficients (20 each) and normalization. Degrees, ellipsoidal metres, pixels from the first centre."""

    line_num: tuple[float, ...]
    line_den: tuple[float, ...]
    samp_num: tuple[float, ...]
    samp_den: tuple[float, ...]
    line_off: float
    line_scale: float
    samp_off: float
    samp_scale: float
    lon_off_deg: float
    lon_scale_deg: float
    lat_off_deg: float
    lat_scale_deg: float
    height_off: float
    height_scale: float
    packed: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        polynomials = (self.line_num, self.line_den, self.samp_num, self.samp_den)
        if any(len(p) != 20 for p in polynomials):
            raise CameraError("an RPC needs four polynomials of 20 coefficients")
        norm = (
            self.line_off, self.line_scale, self.samp_off, self.samp_scale, self.lon_off_deg, self.lon_scale_deg,
            self.lat_off_deg, self.lat_scale_deg, self.height_off, self.height_scale,
        )  # fmt: skip
        packed = np.array([*self.line_num, *self.line_den, *self.samp_num, *self.samp_den, *norm], float)
        if not np.isfinite(packed).all() or (packed[NORM + 1 :: 2] == 0).any():
            raise CameraError("RPC has a coefficient that is not a number, or a scale of zero")
        object.__setattr__(self, "packed", packed)

    @property
    def height_range(self) -> tuple[float, float]:
        """Ellipsoidal heights that the RPC is valid for."""
        return self.height_off - abs(self.height_scale), self.height_off + abs(self.height_scale)

    def turned_to(self, lon_deg: float) -> RpcModel:
        """The same camera with its longitudes on the turn of the Earth that is nearest to one: what ``locate`` finds of
        images on both sides of the 180th meridian then differs by metres and not by 360 degrees."""
        turns = round((lon_deg - self.lon_off_deg) / 360.0)
        return self if turns == 0 else replace(self, lon_off_deg=self.lon_off_deg + 360.0 * turns)

    def resampled(self, line: float, sample: float, line_step: float = 1.0, sample_step: float = 1.0) -> RpcModel:
        """The same camera for an image whose pixel (i, j) is centred at (line + i * line_step, sample + j *
        sample_step) of this one: a crop, or one with another pixel size."""
        return replace(
            self,
            line_off=(self.line_off - line) / line_step,
            line_scale=self.line_scale / line_step,
            samp_off=(self.samp_off - sample) / sample_step,
            samp_scale=self.samp_scale / sample_step,
        )

    def normalized(self, height: int, width: int) -> RpcModel:
        """The same camera with line and sample normalized to -1 .. 1 over an image of this size.

        Exact: N / D * scale + off = N' / D * scale' + off' with N' = (N * scale + D * (off - off')) / scale'.
        Corrections are polynomials of the normalized position, which a crop of a large image would else span
        only in a corner.
        """
        line_off, line_scale, samp_off, samp_scale = (height - 1) / 2, height / 2, (width - 1) / 2, width / 2
        line = np.array(self.line_num) * self.line_scale + np.array(self.line_den) * (self.line_off - line_off)
        samp = np.array(self.samp_num) * self.samp_scale + np.array(self.samp_den) * (self.samp_off - samp_off)
        return replace(
            self,
            line_num=tuple((line / line_scale).tolist()),
            samp_num=tuple((samp / samp_scale).tolist()),
            line_off=line_off,
            line_scale=line_scale,
            samp_off=samp_off,
            samp_scale=samp_scale,
        )


@njit(inline="always", **_JIT)
def _cubic(c: Floats, o: int, x: float, y: float, z: float) -> float:
    """RPC00B polynomial at x = longitude, y = latitude, z = height, all normalized."""
    return (
        c[o] + x * (c[o + 1] + y * (c[o + 4] + z * c[o + 10]) + z * c[o + 5]
            + x * (c[o + 7] + x * c[o + 11] + y * c[o + 14] + z * c[o + 17]))
        + y * (c[o + 2] + z * c[o + 6] + y * (c[o + 8] + x * c[o + 12] + y * c[o + 15] + z * c[o + 18]))
        + z * (c[o + 3] + z * (c[o + 9] + x * c[o + 13] + y * c[o + 16] + z * c[o + 19]))
    )  # fmt: skip


@njit(inline="always", **_JIT)
def _gradient(c: Floats, o: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Derivatives of ``_cubic`` by x, y and z."""
    gx = (
        c[o + 1] + y * c[o + 4] + z * c[o + 5] + 2 * x * c[o + 7] + y * z * c[o + 10] + 3 * x * x * c[o + 11]
        + y * y * c[o + 12] + z * z * c[o + 13] + 2 * x * (y * c[o + 14] + z * c[o + 17])
    )  # fmt: skip
    gy = (
        c[o + 2] + x * c[o + 4] + z * c[o + 6] + 2 * y * c[o + 8] + x * z * c[o + 10] + 2 * x * y * c[o + 12]
        + x * x * c[o + 14] + 3 * y * y * c[o + 15] + z * z * c[o + 16] + 2 * y * z * c[o + 18]
    )  # fmt: skip
    gz = (
        c[o + 3] + x * c[o + 5] + y * c[o + 6] + 2 * z * c[o + 9] + x * y * c[o + 10] + 2 * z * (x * c[o + 13]
        + y * c[o + 16]) + x * x * c[o + 17] + y * y * c[o + 18] + 3 * z * z * c[o + 19]
    )  # fmt: skip
    return gx, gy, gz


@njit(inline="always", **_JIT)
def _turned(degrees: float) -> float:
    """A difference of two longitudes by the short way: across the 180th meridian they differ by a turn."""
    if degrees > 180.0:
        return degrees - 360.0
    return degrees + 360.0 if degrees < -180.0 else degrees


@njit(**_JIT)
def project_one(c: Floats, lon: float, lat: float, h: float) -> tuple[float, float]:
    """Line and sample of one ground point with packed coefficients."""
    x, y, z = _turned(lon - c[84]) / c[85], (lat - c[86]) / c[87], (h - c[88]) / c[89]
    line = _cubic(c, 0, x, y, z) / _cubic(c, 20, x, y, z)
    samp = _cubic(c, 40, x, y, z) / _cubic(c, 60, x, y, z)
    return line * c[81] + c[80], samp * c[83] + c[82]


@njit(**_JIT)
def jacobian_one(c: Floats, lon: float, lat: float, h: float) -> tuple[float, ...]:
    """line, sample and their derivatives by longitude (deg), latitude (deg), height: 8 numbers."""
    x, y, z = _turned(lon - c[84]) / c[85], (lat - c[86]) / c[87], (h - c[88]) / c[89]
    n, d = _cubic(c, 0, x, y, z), _cubic(c, 20, x, y, z)
    nx, ny, nz = _gradient(c, 0, x, y, z)
    dx, dy, dz = _gradient(c, 20, x, y, z)
    r = n / d
    s = c[81] / d
    lx, ly, lz = s * (nx - r * dx) / c[85], s * (ny - r * dy) / c[87], s * (nz - r * dz) / c[89]
    m, e = _cubic(c, 40, x, y, z), _cubic(c, 60, x, y, z)
    mx, my, mz = _gradient(c, 40, x, y, z)
    ex, ey, ez = _gradient(c, 60, x, y, z)
    q = m / e
    t = c[83] / e
    return (
        r * c[81] + c[80], q * c[83] + c[82], lx, ly, lz,
        t * (mx - q * ex) / c[85], t * (my - q * ey) / c[87], t * (mz - q * ez) / c[89],
    )  # fmt: skip


@njit(**_JIT)
def locate_one(c: Floats, line: float, samp: float, h: float) -> tuple[float, float]:
    """Longitude and latitude of an image point at height ``h``, by Newton's method; NaN if it does not converge."""
    lon, lat = c[84], c[86]
    for _ in range(20):
        l0, s0, lx, ly, _lz, sx, sy, _sz = jacobian_one(c, lon, lat, h)
        dl, ds = line - l0, samp - s0
        if not np.isfinite(dl + ds):
            break
        det = lx * sy - ly * sx
        dlon, dlat = (dl * sy - ly * ds) / det, (lx * ds - dl * sx) / det
        # a step beyond the footprint means that the start is far: damp it rather than leave the valid range
        limit = max(abs(dlon / (2 * c[85])), abs(dlat / (2 * c[87])), 1.0)
        lon += dlon / limit
        lat += dlat / limit
        if abs(dl) + abs(ds) < 1e-9 * (abs(c[81]) + abs(c[83])) or abs(dlon) + abs(dlat) < 1e-14:
            return lon, lat
    if abs(dl) + abs(ds) < 1e-5:
        return lon, lat
    return np.nan, np.nan


@njit(**_JIT)
def _project(c: Floats, lon: Floats, lat: Floats, h: Floats, line: Floats, samp: Floats) -> None:
    for i in range(lon.size):
        line[i], samp[i] = project_one(c, lon[i], lat[i], h[i])


@njit(**_JIT)
def _locate(c: Floats, line: Floats, samp: Floats, h: Floats, lon: Floats, lat: Floats) -> None:
    for i in range(line.size):
        lon[i], lat[i] = locate_one(c, line[i], samp[i], h[i])


@njit(**_JIT)
def _jacobian(c: Floats, lon: Floats, lat: Floats, h: Floats, out: Floats) -> None:
    for i in range(lon.size):
        j = jacobian_one(c, lon[i], lat[i], h[i])
        for k in range(6):
            out[i, k // 3, k % 3] = j[2 + k]


def _flat(*arrays: Any) -> tuple[tuple[int, ...], list[Floats]]:
    broadcast = np.broadcast_arrays(*(np.asarray(a, float) for a in arrays))
    return broadcast[0].shape, [np.ascontiguousarray(a).ravel() for a in broadcast]


def project(rpc: RpcModel, lon_deg: Any, lat_deg: Any, height: Any) -> tuple[Floats, Floats]:
    """Line and sample (px) of ground points: degrees and ellipsoidal metres, any shapes that broadcast."""
    shape, (lon, lat, h) = _flat(lon_deg, lat_deg, height)
    line, samp = np.empty(lon.size), np.empty(lon.size)
    _project(rpc.packed, lon, lat, h, line, samp)
    return line.reshape(shape), samp.reshape(shape)


def locate(rpc: RpcModel, line: Any, sample: Any, height: Any) -> tuple[Floats, Floats]:
    """Longitude and latitude (deg) where image rays meet ellipsoidal heights; NaN where the RPC has no inverse."""
    shape, (li, sa, h) = _flat(line, sample, height)
    lon, lat = np.empty(li.size), np.empty(li.size)
    _locate(rpc.packed, li, sa, h, lon, lat)
    return lon.reshape(shape), lat.reshape(shape)


def jacobian(rpc: RpcModel, lon_deg: Any, lat_deg: Any, height: Any) -> Floats:
    """d(line, sample) / d(lon_deg, lat_deg, height): shape (..., 2, 3), px per degree and px per metre."""
    shape, (lon, lat, h) = _flat(lon_deg, lat_deg, height)
    out = np.empty((lon.size, 2, 3))
    _jacobian(rpc.packed, lon, lat, h, out)
    return out.reshape(*shape, 2, 3)
