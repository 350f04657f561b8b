"""Lidar ground returns inside the terrain model: what stereo cannot see under trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import from_lonlat
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.raster import Raster, bilinear
from terrain3d.stats import nmad, tukey_weights
from terrain3d.surface.coarse import resampled
from terrain3d.surface.ground import ground_share

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SCALES = (60.0, 25.0)  # m: reach of a return's correction, coarse then fine
CORRECTION_CELL = 5.0  # m: the correction is smooth, so this resolves it
_NO_TERRAIN = 10.0  # m: sigma of a terrain that is not there
_DENSE, _FEW = 0.6, 0.1  # share of ground cells around a place: stereo saw the ground / hardly saw it
_MIN_SIGMA = 0.3  # m


@dataclass(frozen=True)
class HiddenReturns:
    """Returns where the ground is hidden. x, y: place; residual: return minus terrain; error: 1-sigma of it from the
    return; own: 1-sigma of the terrain there. All (N,) metres."""

    x: Floats
    y: Floats
    residual: Floats
    error: Floats
    own: Floats


@dataclass(frozen=True)
class Correction:
    """What returns say of the terrain under trees, on cells of some metres: height to be added, and its variance."""

    height: Raster
    variance: Raster


def hidden_returns(
    height: Raster, sigma: Raster, hidden: Singles, slope: Singles, returns: LidarReturns,
    core: tuple[slice, slice] = (slice(None), slice(None)),
) -> HiddenReturns:  # fmt: skip
    """Returns over the core of a terrain model that stand where the ground is hidden.

    height, sigma: terrain and its sigma, metres. hidden: (h, w) from ``hidden_ground``. slope: (h, w) rise over run.
    """
    grid = height.grid
    x, y = from_lonlat(grid.reference.horizontal, returns.lon_deg, returns.lat_deg)
    column, row = grid.column_row(x, y)
    (top, bottom, _), (left, right, _) = (s.indices(n) for s, n in zip(core, grid.shape, strict=True))
    inside = (column >= left - 0.5) & (row >= top - 0.5) & (column < right - 0.5) & (row < bottom - 0.5)
    if not inside.any():
        return HiddenReturns(*(np.zeros(0) for _ in range(5)))
    column, row = column[inside], row[inside]
    steep = bilinear(slope, column, row)
    model = bilinear(cv2.GaussianBlur(height.values, (0, 0), 4.0 / grid.resolution), column, row)
    own = bilinear(sigma.values, column, row)
    residual = returns.height[inside] - model
    spread = steep * horizontal_sigma(returns)[inside]
    error = np.sqrt(returns.sigma[inside] ** 2 + spread**2 + _MIN_SIGMA**2)
    use = bilinear(hidden, column, row) > 0.5
    use &= np.isfinite(residual) & np.isfinite(error) & np.isfinite(own)
    return HiddenReturns(x[inside][use], y[inside][use], residual[use], error[use], own[use])


def join_hidden(parts: Sequence[HiddenReturns]) -> HiddenReturns:
    """Returns of several parts of a terrain model."""
    return HiddenReturns(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(HiddenReturns)))


def fit_correction(found: HiddenReturns, prior: Raster) -> Correction | None:
    """Correction of a terrain by the returns that stand where it is hidden; None without any.

    prior: 1-sigma of the terrain on the cells of the correction, some 5 m wide; NaN where there is no terrain.

    Each return's residual against the terrain is spread by a Gaussian of 60 m, what remains by one of 25 m; in each
    place the returns are weighted against the terrain's own sigma, so that the correction fades away from them and
    from places where the ground was seen. Gross errors get no weight (Tukey's biweight on the residuals).
    """
    if not len(found.x):
        return None
    shape, cell = prior.grid.shape, prior.grid.resolution
    column, row = (np.rint(a).astype(np.int64) for a in prior.grid.column_row(found.x, found.y))
    cells = np.clip(row, 0, shape[0] - 1) * shape[1] + np.clip(column, 0, shape[1] - 1)
    residual = found.residual
    weight = tukey_weights(residual - np.median(residual), max(nmad(residual), 1.0)) / found.error**2
    correction = np.zeros(shape)
    information = 1.0 / np.maximum(np.nan_to_num(prior.values.astype(float), nan=_NO_TERRAIN), 0.1) ** 2
    for scale in _SCALES:
        left = residual - correction.ravel()[cells]
        robust = weight * tukey_weights(left - np.median(left), max(nmad(left), 0.5))
        sums = np.bincount(cells, robust * left, minlength=correction.size).reshape(shape)
        total = np.bincount(cells, robust, minlength=correction.size).reshape(shape)
        spread_w = _spread(total, scale / cell)
        correction = correction + _spread(sums, scale / cell) / (spread_w + information)
        if scale == _SCALES[-1]:
            information = information + spread_w
    # what the correction cannot follow from one return to the next stays
    rest = nmad(residual - correction.ravel()[cells])
    variance = 1.0 / information + max(rest, _MIN_SIGMA) ** 2
    return Correction(*(Raster(a.astype(np.float32), prior.grid) for a in (correction, variance)))


def apply_correction(correction: Correction, height: Raster, sigma: Raster, hidden: Singles) -> tuple[Raster, Raster]:
    """Terrain heights and sigma after returns that stand where the ground is hidden have pulled them."""
    grid = height.grid
    c = resampled(correction.height, grid) * hidden
    s = np.where(hidden > 0.5, np.minimum(sigma.values, np.sqrt(resampled(correction.variance, grid))), sigma.values)
    return Raster((height.values + c).astype(np.float32), grid), Raster(s.astype(np.float32), grid)


def hidden_ground(ground: Bools, resolution: float) -> Singles:
    """0 where ground cells are dense, 1 where they are few (canopy, wide buildings), smooth in between."""
    t = np.clip((_DENSE - ground_share(ground, resolution)) / (_DENSE - _FEW), 0, 1)
    return ground_share(t * t * (3 - 2 * t), resolution)


def _spread(values: NDArray[Any], sigma: float) -> Floats:
    """Sum of Gaussians of peak one, one at each cell times its value."""
    out = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(out, float) * (2 * np.pi * sigma**2)
