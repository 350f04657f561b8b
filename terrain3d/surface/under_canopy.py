"""Lidar ground returns inside the terrain model: what stereo cannot see under trees."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import from_lonlat
from terrain3d.points import LidarReturns
from terrain3d.raster import Raster, bilinear
from terrain3d.register.ground import horizontal_sigma
from terrain3d.stats import nmad, tukey_weights
from terrain3d.surface.ground import ground_share

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SCALES = (60.0, 25.0)  # m: reach of a return's correction, coarse then fine
_CELL = 5.0  # m: the correction is smooth, so this resolves it
_DENSE, _FEW = 0.6, 0.1  # share of ground cells around a place: stereo saw the ground / hardly saw it
_MIN_SIGMA = 0.3  # m


def correct_under_canopy(
    height: Raster, sigma: Raster, hidden: Singles, slope: Singles, returns: LidarReturns
) -> tuple[Singles, Singles]:
    """Terrain heights and sigma, (h, w) float32, after returns that stand where the ground is hidden have pulled them.

    height, sigma: the terrain so far, metres. hidden: (h, w) from ``hidden_ground``. slope: (h, w) rise over run.

    Each return's residual against the terrain is spread by a Gaussian of 60 m, what remains by one of 25 m; in each
    place the returns are weighted against the terrain's own sigma, so that the correction fades away from them and
    from places where the ground was seen. Gross errors get no weight (Tukey's biweight on the residuals).
    """
    grid = height.grid
    x, y = from_lonlat(grid.reference.horizontal, returns.lon_deg, returns.lat_deg)
    column, row = grid.column_row(x, y)
    inside = (column > 0) & (row > 0) & (column < grid.width - 1) & (row < grid.height - 1)
    column, row = column[inside], row[inside]
    at_hidden = bilinear(hidden, column, row)
    steep = bilinear(slope, column, row)
    model = bilinear(cv2.GaussianBlur(height.values, (0, 0), 4.0 / grid.resolution), column, row)
    own = bilinear(sigma.values, column, row)
    residual = returns.height[inside] - model
    spread = steep * horizontal_sigma(returns)[inside]
    error = np.sqrt(returns.sigma[inside] ** 2 + spread**2 + _MIN_SIGMA**2)
    use = (at_hidden > 0.5) & np.isfinite(residual) & np.isfinite(error) & np.isfinite(own)
    if not use.any():
        return height.values, sigma.values
    column, row, residual, error, own = column[use], row[use], residual[use], error[use], own[use]
    step = max(round(_CELL / grid.resolution), 1)
    shape = (-(-grid.height // step), -(-grid.width // step))
    cells = np.clip((row / step).astype(np.int64), 0, shape[0] - 1) * shape[1] + np.clip(
        (column / step).astype(np.int64), 0, shape[1] - 1
    )
    prior = cv2.resize(sigma.values, shape[::-1], interpolation=cv2.INTER_AREA).astype(float)
    weight = tukey_weights(residual - np.median(residual), max(nmad(residual), 1.0)) / error**2
    correction = np.zeros(shape)
    information = 1.0 / np.maximum(prior, 0.1) ** 2
    for scale in _SCALES:
        left = residual - correction.ravel()[cells]
        robust = weight * tukey_weights(left - np.median(left), max(nmad(left), 0.5))
        sums = np.bincount(cells, robust * left, minlength=correction.size).reshape(shape)
        total = np.bincount(cells, robust, minlength=correction.size).reshape(shape)
        spread_w = _spread(total, scale / (step * grid.resolution))
        correction = correction + _spread(sums, scale / (step * grid.resolution)) / (spread_w + information)
        if scale == _SCALES[-1]:
            information = information + spread_w
    c = _fine(correction, grid.shape, step) * hidden
    # what the correction cannot follow from one return to the next stays
    rest = nmad(residual - correction.ravel()[cells])
    variance = _fine(1.0 / information + max(rest, _MIN_SIGMA) ** 2, grid.shape, step)
    s = np.where(hidden > 0.5, np.minimum(sigma.values, np.sqrt(variance)), sigma.values)
    return (height.values + c).astype(np.float32), s.astype(np.float32)


def hidden_ground(ground: Bools, resolution: float) -> Singles:
    """0 where ground cells are dense, 1 where they are few (canopy, wide buildings), smooth in between."""
    t = np.clip((_DENSE - ground_share(ground, resolution)) / (_DENSE - _FEW), 0, 1)
    return ground_share(t * t * (3 - 2 * t), resolution)


def _spread(values: NDArray[Any], sigma: float) -> Floats:
    """Sum of Gaussians of peak one, one at each cell times its value."""
    out = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(out, float) * (2 * np.pi * sigma**2)


def _fine(values: Floats, shape: tuple[int, int], step: int) -> Singles:
    big = cv2.resize(values.astype(np.float32), (values.shape[1] * step, values.shape[0] * step))
    return np.asarray(big[: shape[0], : shape[1]])
