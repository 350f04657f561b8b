"""What the covariance of the corrections means for heights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import Adjustment
from terrain3d.adjust.normal import basis, metres_per_unit
from terrain3d.camera.rpc import project
from terrain3d.crs import Reference, from_lonlat, to_lonlat
from terrain3d.raster import Grid, Raster

Floats = NDArray[np.float64]
MODEL_POINTS = 500  # that make up the plane of the model
BEYOND = 3  # cells around a scene, so that what is interpolated in it does not change where more comes beside it


@dataclass(frozen=True)
class HeightSigma:
    """1-sigma of triangulated heights from the corrections alone, metres, (N,).

    total: with what a free network does not know, the height and tilt of the whole model. relative: without the plane
    through the heights of all views together, which registration to lidar takes out: between pairs, and bends.
    """

    total: Floats
    relative: Floats


def height_sigma(adjustment: Adjustment, views: tuple[int, ...], crs: str, x: Any, y: Any, height: Any) -> HeightSigma:
    """1-sigma of heights that ``views`` (two or more indices) give at places of ``crs`` and ellipsoidal heights."""
    x, y, height = (np.atleast_1d(np.asarray(a, float)) for a in np.broadcast_arrays(x, y, height))
    here = _by_parameters(adjustment, views, np.column_stack([*to_lonlat(crs, x, y), height]))
    plane, middle = plane_by_parameters(adjustment, crs)
    apart = here - _plane(x, y, middle) @ plane
    return HeightSigma(_sigma(here, adjustment.covariance), _sigma(apart, adjustment.covariance))


def plane_by_parameters(adjustment: Adjustment, crs: str) -> tuple[Floats, tuple[float, float]]:
    """Change of the plane through the model (3, n p) by the corrections' parameters: height at its middle in metres per
    px, and tilt east and north in metres per km and px; and that middle in ``crs``."""
    points = adjustment.points[:: -(-len(adjustment.points) // MODEL_POINTS)]
    common = _by_parameters(adjustment, tuple(range(len(adjustment.cameras))), points)
    east, north = from_lonlat(crs, points[:, 0], points[:, 1])
    middle = float(east.mean()), float(north.mean())
    return np.linalg.pinv(_plane(east, north, middle)) @ common, middle


def position_covariance(
    adjustment: Adjustment, views: tuple[int, ...], crs: str, x: Any, y: Any, height: Any
) -> Floats:  # fmt: skip
    """Covariance (N, 3, 3) of east, north and up (m^2) of points that ``views`` give at places of ``crs`` and
    ellipsoidal heights, with all that a free network does not know: what the pointing of the images leaves open of the
    whole model."""
    x, y, height = (np.atleast_1d(np.asarray(a, float)) for a in np.broadcast_arrays(x, y, height))
    points = np.column_stack([*to_lonlat(crs, x, y), height])
    by = np.stack([_by_parameters(adjustment, views, points, axis) for axis in range(3)], axis=1)
    return np.asarray(np.einsum("nip,pq,njq->nij", by, adjustment.covariance, by))


def relative_sigma(
    adjustment: Adjustment,
    views: tuple[int, ...],
    reference: Reference,
    bounds: tuple[float, float, float, float],
    height: float,
    nodes: int = 32,
    cell: float | None = None,
) -> Raster:
    """``HeightSigma.relative`` of heights that ``views`` give over a scene, to be interpolated (``Raster.sample``).

    reference: horizontal CRS of ``bounds`` (west, south, east, north) and of the result, which has about ``nodes``
    cells along the longer side, or cells of ``cell`` metres, and whose cells reach beyond the bounds by BEYOND of them.
    height: of the scene, ellipsoidal.
    """
    west, south, east, north = bounds
    cell = cell or max(east - west, north - south) / max(nodes - 1, 1)
    rim = BEYOND * cell
    grid = Grid.from_bounds(reference, west - rim, south - rim, east + rim, north + rim, cell)
    x, y = (a.ravel() for a in np.meshgrid(*grid.centres()))
    sigma = height_sigma(adjustment, views, reference.horizontal, x, y, height).relative
    return Raster(sigma.reshape(grid.shape).astype(np.float32), grid)


def _plane(x: Floats, y: Floats, middle: tuple[float, float]) -> Floats:
    return np.column_stack([np.ones(len(x)), (x - middle[0]) / 1000, (y - middle[1]) / 1000])


def _sigma(by_parameters: Floats, covariance: Floats) -> Floats:
    return np.asarray(np.sqrt(np.maximum(((by_parameters @ covariance) * by_parameters).sum(axis=1), 0)))


def _by_parameters(adjustment: Adjustment, views: tuple[int, ...], points: Floats, axis: int = 2) -> Floats:
    """Change of the height that least squares intersection of ``views`` gives at ``points``, by the corrections'
    parameters, metres per px (N, n p). axis: 0 for that of the place to the east, 1 to the north."""
    half = 3 + adjustment.along
    a = np.concatenate(
        [adjustment.cameras[i].jacobian(*points.T) / metres_per_unit(points)[:, None, :] for i in views], axis=1
    )
    up = np.linalg.pinv(a)[:, axis]  # (N, 2 views): height by line and sample of every view
    out = np.zeros((len(points), len(adjustment.cameras), 2, half))
    for k, i in enumerate(views):
        camera = adjustment.cameras[i]
        design = basis(camera, *project(camera.rpc, *points.T), adjustment.along)
        # a larger correction moves the projection as a smaller measurement would
        out[:, i] = -up[:, 2 * k : 2 * k + 2, None] * design[:, None, :]
    return out.reshape(len(points), -1)
