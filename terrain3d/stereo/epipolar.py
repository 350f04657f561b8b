"""Epipolar geometry in object space: both images are laid on a horizontal plane and turned into a common direction.

On a plane at height h0 a ground point at height h appears displaced by (h - h0) times the lean of the view. For two
views the difference of these displacements has the same direction everywhere in a tile, so with columns along that
direction corresponding points share a row, and disparity is proportional to h - h0. RPCs (with their corrections) are
evaluated exactly on a lattice of nodes and interpolated between, so there is no affine approximation of the cameras,
and each image is resampled once.

Disparity d: left column x and right column x - d show the same point; d grows with height and is 0 at h0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.image.view import View, lean

Floats = NDArray[np.float64]
NODE_PX = 32


@dataclass(frozen=True)
class EpipolarFrame:
    """Rectified coordinates of one pair, valid over the whole overlap and anchored to the CRS.

    crs: projected CRS. along: (2,) unit vector (east, north) of rising columns. pixel: size of a rectified pixel,
    metres. base_to_height: disparity in metres per metre of height.
    """

    crs: str
    along: tuple[float, float]
    pixel: float
    base_to_height: float

    @property
    def down(self) -> tuple[float, float]:
        """Unit vector of rising rows; the frame is not mirrored."""
        return self.along[1], -self.along[0]

    def to_ground(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Easting and northing of rectified pixel positions on the plane."""
        (a, b), (c, d) = self.along, self.down
        return self.pixel * (x * a + y * c), self.pixel * (x * b + y * d)

    def from_ground(self, east: Floats, north: Floats) -> tuple[Floats, Floats]:
        """Rectified column and row of ground positions on the plane."""
        (a, b), (c, d) = self.along, self.down
        return (east * a + north * b) / self.pixel, (east * c + north * d) / self.pixel

    def px_per_metre(self) -> float:
        """Disparity of one metre of height."""
        return self.base_to_height / self.pixel


def epipolar_frame(left: View, right: View, crs: str, height: float, pixel: float) -> EpipolarFrame:
    """Frame of a pair whose disparity grows with height, from the lean of both views at their centres."""
    relative = lean(left, crs, height) - lean(right, crs, height)
    base = float(np.hypot(*relative))
    return EpipolarFrame(crs, (float(relative[0] / base), float(relative[1] / base)), pixel, base)


@dataclass(frozen=True)
class Lattice:
    """What the geometry of a tile needs at nodes NODE_PX apart, from rectified (column, row) (0, 0) of the tile on.

    left_image, right_image: (rows, columns, 2) line and sample of the plane point.
    height_of: (rows, columns, 2) a, b with height - h0 = a d + b d^2 for the disparity d (px) of a left pixel.
    shift_of: (rows, columns, 2, 2) east and north shift of the point against the plane point: first and second order
    in height - h0. parallax_of: (rows, columns) row difference right - left in px per metre of height.
    """

    left_image: Floats
    right_image: Floats
    height_of: Floats
    shift_of: Floats
    parallax_of: Floats


@dataclass(frozen=True)
class EpipolarTile:
    """A rectangle of a frame on the plane at ``height0``: absolute column and row of its first pixel, and its size."""

    frame: EpipolarFrame
    column: int
    row: int
    width: int
    height: int
    height0: float

    def lattice(self, left: View, right: View, relief: float) -> Lattice:
        """Exact camera geometry at the nodes; ``relief`` is the largest |height - height0| to be described well."""
        frame, h0 = self.frame, self.height0
        nodes_x = self.column + np.arange(-(-self.width // NODE_PX) + 2) * float(NODE_PX)
        nodes_y = self.row + np.arange(-(-self.height // NODE_PX) + 2) * float(NODE_PX)
        x, y = np.meshgrid(nodes_x, nodes_y)
        east, north = frame.to_ground(x, y)
        left_image = np.stack(left.project(frame.crs, east, north, h0), axis=-1)
        right_image = np.stack(right.project(frame.crs, east, north, h0), axis=-1)
        step = max(relief, 10.0)
        disparity, shift, parallax = [], [], []
        for h in (h0 - step, h0 + step):
            e, n = left.locate(frame.crs, left_image[..., 0], left_image[..., 1], h)
            line, sample = right.project(frame.crs, e, n, h)
            xr, yr = frame.from_ground(*right.locate(frame.crs, line, sample, h0))
            disparity.append(x - xr)
            parallax.append((yr - y) / (h - h0))
            shift.append(np.stack([e - east, n - north], axis=-1))
        return Lattice(
            left_image,
            right_image,
            _quadratic_through_zero(disparity[0], -step, disparity[1], step),
            _quadratic_through_zero(np.full_like(shift[0], -step), shift[0], np.full_like(shift[0], step), shift[1]),
            (parallax[0] + parallax[1]) / 2,
        )


def _quadratic_through_zero(x0: Floats, y0: Floats | float, x1: Floats, y1: Floats | float) -> Floats:
    """Coefficients (..., 2) of y = a x + b x^2 through (0, 0), (x0, y0) and (x1, y1)."""
    slope0, slope1 = y0 / x0, y1 / x1
    b = (slope1 - slope0) / (x1 - x0)
    return np.stack([slope0 - b * x0, b], axis=-1)
