"""A camera as the rest of the program uses it: an RPC plus the image-space correction that the adjustment found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.rpc import RpcModel, jacobian, locate, project

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Correction:
    """Image-space correction (Grodecki & Dial 2003): true position = RPC position + bias + drift + along-track terms.

    line, sample: coefficients of (1, u, v), px, where u and v are the RPC's line and sample divided by the scales
    of the RPC after its offsets are taken off, so about -1 to 1 over the image. line_along, sample_along: px,
    coefficients of a cubic B-spline in u (``along_basis``), which follows jitter; both or none.
    """

    line: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sample: tuple[float, float, float] = (0.0, 0.0, 0.0)
    line_along: tuple[float, ...] = ()
    sample_along: tuple[float, ...] = ()

    @classmethod
    def of(cls, line: Floats, sample: Floats) -> Correction:
        """From all coefficients of either coordinate: 1, u, v, and those of the spline, if any."""
        (a, b, c, *d), (e, f, g, *h) = line.tolist(), sample.tolist()
        return cls((a, b, c), (e, f, g), tuple(d), tuple(h))


def along_basis(u: Any, count: int) -> Floats:
    """Cubic B-splines on equal intervals over -1 .. 1 at ``u`` (N,): (N, count), count 4 or more.

    Beyond -1 and 1 the value at the end holds on.
    """
    first, values, _ = _splines(np.asarray(u, float), count)
    out = np.zeros((len(first), count))
    out[np.arange(len(first))[:, None], first[:, None] + np.arange(4)] = values
    return out


def _splines(u: Floats, count: int) -> tuple[NDArray[np.int64], Floats, Floats]:
    """First of the four splines that differ from 0 at u, their values and their derivatives, (..., 4)."""
    t = np.nan_to_num(np.clip((u + 1) / 2, 0, 1)) * (count - 3)
    first = np.minimum(t.astype(np.int64), count - 4)
    t = t - first
    s = 1 - t
    values = np.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], axis=-1) / 6
    slopes = np.stack([-(s**2), 3 * t**2 - 4 * t, 4 * s - 3 * s**2, t**2], axis=-1) * ((count - 3) / 4)
    return first, values, np.where(np.abs(u)[..., None] > 1, 0.0, slopes)


@dataclass(frozen=True)
class Camera:
    """RPC camera with correction. Methods take any shapes that broadcast; degrees, ellipsoidal metres, px."""

    rpc: RpcModel
    correction: Correction = Correction()

    def corrected(self, correction: Correction) -> Camera:
        return replace(self, correction=correction)

    def normalized(self, line: Any, sample: Any) -> tuple[Floats, Floats]:
        """u and v of RPC positions, the variables of the correction."""
        r = self.rpc
        return (np.asarray(line) - r.line_off) / r.line_scale, (np.asarray(sample) - r.samp_off) / r.samp_scale

    def _along(self, u: Floats) -> Floats:
        """Along-track terms (2, 2, ...) at u: of line and sample; value and derivative by u."""
        coefficients = np.array([self.correction.line_along, self.correction.sample_along])
        first, values, slopes = _splines(u, coefficients.shape[1])
        near = coefficients[:, first[..., None] + np.arange(4)]
        return np.stack([(near * values).sum(axis=-1), (near * slopes).sum(axis=-1)], axis=1)

    def project(self, lon_deg: Any, lat_deg: Any, height: Any) -> tuple[Floats, Floats]:
        """Line and sample of ground points."""
        line, sample = project(self.rpc, lon_deg, lat_deg, height)
        u, v = self.normalized(line, sample)
        a, b = self.correction.line, self.correction.sample
        dl, ds = a[0] + a[1] * u + a[2] * v, b[0] + b[1] * u + b[2] * v
        if self.correction.line_along:
            along = self._along(u)
            dl, ds = dl + along[0, 0], ds + along[1, 0]
        return line + dl, sample + ds

    def locate(self, line: Any, sample: Any, height: Any) -> tuple[Floats, Floats]:
        """Longitude and latitude where image rays meet the heights."""
        line, sample = np.asarray(line, float), np.asarray(sample, float)
        u, v = self._uncorrected(line, sample)
        if self.correction.line_along:
            u, v = self._uncorrected_along(*np.broadcast_arrays(line, sample), *np.broadcast_arrays(u, v))
        r = self.rpc
        return locate(r, r.line_off + u * r.line_scale, r.samp_off + v * r.samp_scale, height)

    def _uncorrected(self, line: Floats, sample: Floats) -> tuple[Floats, Floats]:
        """u and v of image positions without along-track terms; the rest is affine, so it is inverted exactly."""
        r, a, b = self.rpc, self.correction.line, self.correction.sample
        p, q = line - r.line_off - a[0], sample - r.samp_off - b[0]
        det = (r.line_scale + a[1]) * (r.samp_scale + b[2]) - a[2] * b[1]
        return (p * (r.samp_scale + b[2]) - q * a[2]) / det, (q * (r.line_scale + a[1]) - p * b[1]) / det

    def _uncorrected_along(self, line: Floats, sample: Floats, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """The same with them: fixed point, which gains three digits a turn, for jitter is small and slow."""
        for _ in range(8):
            along = self._along(u)
            before = u
            u, v = self._uncorrected(line - along[0, 0], sample - along[1, 0])
            if np.nanmax(np.abs(u - before), initial=0) < 1e-13:
                break
        return u, v

    def jacobian(self, lon_deg: Any, lat_deg: Any, height: Any) -> Floats:
        """d(line, sample) / d(lon_deg, lat_deg, height) at the corrected position, (..., 2, 3)."""
        j = jacobian(self.rpc, lon_deg, lat_deg, height)
        a, b = self.correction.line, self.correction.sample
        drift = np.eye(2) + np.array([[a[1], a[2]], [b[1], b[2]]]) / [self.rpc.line_scale, self.rpc.samp_scale]
        if self.correction.line_along:
            u, _ = self.normalized(*project(self.rpc, lon_deg, lat_deg, height))
            slope = np.moveaxis(self._along(u)[:, 1], 0, -1) / self.rpc.line_scale
            drift = np.stack([drift[:, 0] + slope, np.broadcast_to(drift[:, 1], slope.shape)], axis=-1)
        return np.asarray(drift @ j)
