"""How a model is moved onto the frame of the lidar: shift, tilt and smooth height correction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.register.heights import SmoothCorrection

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Move:
    """Correction that moves a model onto the frame of the lidar.

    A model point (x, y, z) belongs at X = x + dx, Y = y + dy and at the height
    Z = z + dz + tilt_e (X - origin_e) + tilt_n (Y - origin_n) + smooth(X, Y).
    Metres, tilt in m/m, in the CRS of the surface.

    covariance: (5, 5) of dx, dy, dz, tilt_e, tilt_n, relative to the frame of the returns (a common geolocation error
        of a satellite pass is not in it). A shift or tilt that is not taken off has its uncertainty, too.
    smooth: the smooth part, and the sigma of the whole vertical correction; None where nothing was applied.
    applied: False where no correction could be estimated, then all parameters are zero.
    """

    dx: float
    dy: float
    dz: float
    tilt_e: float
    tilt_n: float
    origin: tuple[float, float]
    covariance: Floats
    smooth: SmoothCorrection | None
    applied: bool

    def apply(self, xyz: Floats) -> Floats:
        """Points (N, 3) of the model moved onto the frame of the lidar."""
        moved = np.array(xyz, float)
        moved[:, 0] += self.dx
        moved[:, 1] += self.dy
        moved[:, 2] += self.vertical_at(moved[:, 0], moved[:, 1])
        return moved

    def vertical_at(self, x: Floats, y: Floats) -> Floats:
        """Vertical correction at places of the corrected model, metres."""
        east, north = np.asarray(x, float) - self.origin[0], np.asarray(y, float) - self.origin[1]
        plane = self.dz + self.tilt_e * east + self.tilt_n * north
        return np.asarray(plane if self.smooth is None else plane + self.smooth.height_at(x, y))

    def sigma_at(self, x: Floats, y: Floats) -> Floats:
        """1-sigma of the vertical correction at places of the corrected model, metres; NaN if nothing was applied.

        It grows by that of the tilt beyond the model that the correction was found for.
        """
        if self.smooth is None:
            return np.full(np.broadcast_shapes(np.shape(x), np.shape(y)), np.nan)
        inside, (east, north) = self.smooth.sigma_at(x, y), self.smooth.beyond(x, y)
        if not (east.any() or north.any()):
            return inside
        (a, b), (_, c) = self.covariance[3:, 3:]
        return np.asarray(np.sqrt(inside**2 + a * east**2 + 2 * b * east * north + c * north**2))
