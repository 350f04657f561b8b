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
    """Image-space correction (Grodecki & Dial 2003): true position = RPC position + bias + drift.

    line, sample: coefficients of (1, u, v), px, where u and v are the RPC's line and sample divided by the scales
    of the RPC after its offsets are taken off, so about -1 to 1 over the image.
    """

    line: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sample: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def is_identity(self) -> bool:
        return not any((*self.line, *self.sample))


@dataclass(frozen=True)
class Camera:
    """RPC camera with correction. Methods take any shapes that broadcast; degrees, ellipsoidal metres, px."""

    rpc: RpcModel
    correction: Correction = Correction()

    def corrected(self, correction: Correction) -> Camera:
        return replace(self, correction=correction)

    def _offset(self, line: Floats, sample: Floats) -> tuple[Floats, Floats]:
        u = (line - self.rpc.line_off) / self.rpc.line_scale
        v = (sample - self.rpc.samp_off) / self.rpc.samp_scale
        a, b = self.correction.line, self.correction.sample
        return a[0] + a[1] * u + a[2] * v, b[0] + b[1] * u + b[2] * v

    def project(self, lon_deg: Any, lat_deg: Any, height: Any) -> tuple[Floats, Floats]:
        """Line and sample of ground points."""
        line, sample = project(self.rpc, lon_deg, lat_deg, height)
        dl, ds = self._offset(line, sample)
        return line + dl, sample + ds

    def locate(self, line: Any, sample: Any, height: Any) -> tuple[Floats, Floats]:
        """Longitude and latitude where image rays meet the heights."""
        line, sample = np.asarray(line, float), np.asarray(sample, float)
        r, a, b = self.rpc, self.correction.line, self.correction.sample
        # the correction is affine in (u, v), so it is inverted exactly
        p, q = line - r.line_off - a[0], sample - r.samp_off - b[0]
        det = (r.line_scale + a[1]) * (r.samp_scale + b[2]) - a[2] * b[1]
        u, v = (p * (r.samp_scale + b[2]) - q * a[2]) / det, (q * (r.line_scale + a[1]) - p * b[1]) / det
        return locate(r, r.line_off + u * r.line_scale, r.samp_off + v * r.samp_scale, height)

    def jacobian(self, lon_deg: Any, lat_deg: Any, height: Any) -> Floats:
        """d(line, sample) / d(lon_deg, lat_deg, height) at the corrected position, (..., 2, 3)."""
        j = jacobian(self.rpc, lon_deg, lat_deg, height)
        a, b = self.correction.line, self.correction.sample
        drift = np.array([[a[1], a[2]], [b[1], b[2]]]) / [self.rpc.line_scale, self.rpc.samp_scale]
        return np.asarray((np.eye(2) + drift) @ j)
