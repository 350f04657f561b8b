"""Water: found where several kinds of evidence agree, and made level.

A false lake does more harm than a missed one, so a place counts as water only where matching failed or scattered, the
image is dark and without texture, the patch is large and wide, and its shores agree on a level.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster
from terrain3d.stats import nmad

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_SUPPORT_WIDTH = 7.5  # m over which matches are counted
_SUPPORT = 0.5  # share of cells with a match that agrees with its neighbours, below which matching failed
_AGREE = 0.7  # m
_SCATTER = 0.8  # m: standard deviation of invented heights in the same window
_DARK = 0.75  # of the median of the scene
_SMOOTH = 0.08  # local standard deviation over mean: photon noise, no texture
_SMOOTH_RANK = 0.25  # and among this share of the smoothest of the scene
_MIN_AREA = 1500.0  # m2
_MIN_WIDTH = 6.0  # m
_RIM = 2.0  # m
_MAX_FALL = 0.05  # m/m along the shore: steeper is a shadow on a slope
_REACH = 60.0  # m along the shore over which a level is averaged
_SHORE = 2.0  # m
_LOW = 0.1  # quantile of the heights of a stretch of shore that is its water level


def water_mask(dsm: Raster, ortho: Raster) -> Bools:
    """Cells of water, (h, w) bool.

    dsm: surface before voids were filled, NaN where nothing was matched. ortho: image values, 0 for no value.
    """
    resolution = dsm.grid.resolution
    z, image = np.asarray(dsm.values, np.float32), ortho.values.astype(np.float32)
    lit = image > 0
    if not lit.any() or min(z.shape) < 5:
        return np.zeros(z.shape, bool)
    size = round(_SUPPORT_WIDTH / resolution) | 1
    matched = _agreeing(z)
    failed = (cv2.blur(matched.astype(np.float32), (size, size)) < _SUPPORT) | (_scatter(z, size) > _SCATTER)
    mean, texture = _statistics(image, lit)
    smooth = texture < min(_SMOOTH, float(np.quantile(texture[lit], _SMOOTH_RANK)) * 1.2)
    dark = mean < _DARK * float(np.median(image[lit]))
    candidate = (failed & smooth & dark & lit).astype(np.uint8)
    kernel = _disk(_MIN_WIDTH / 2 / resolution)
    closed = cv2.morphologyEx(candidate, cv2.MORPH_CLOSE, kernel)
    opened = cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    water = np.zeros(z.shape, bool)
    for k in range(1, n):
        if stats[k, cv2.CC_STAT_AREA] * resolution**2 < _MIN_AREA:
            continue
        part, body = _part(labels, stats[k], k, resolution)
        level = _levels(np.where(matched, z, np.float32(np.nan))[part], body, resolution)
        if level is not None and _fall(level, body, resolution) <= _MAX_FALL:
            water[part] |= _to_the_bank(body, image[part], resolution)
    return water


def flatten_water(dsm: Raster, water: Bools) -> Raster:
    """Surface with each connected body of water at the level of its shores.

    A lake has one level; along a river it follows the shores smoothly. Bodies without shore heights stay as they are.
    """
    z = np.asarray(dsm.values, np.float32)
    out = z.copy()
    n, labels, stats, _ = cv2.connectedComponentsWithStats(water.astype(np.uint8), connectivity=4)
    open_shore = np.where(~water & _agreeing(z), z, np.float32(np.nan))
    for k in range(1, n):
        part, body = _part(labels, stats[k], k, dsm.grid.resolution)
        level = _levels(open_shore[part], body, dsm.grid.resolution)
        if level is not None:
            out[part][body] = level[body]
    return replace(dsm, values=out)


def _to_the_bank(body: Bools, image: Singles, resolution: float) -> Bools:
    """Body grown over its rim, which the texture window lost, as far as the image stays as it is inside."""
    inside = image[body]
    centre, spread = float(np.median(inside)), max(nmad(inside), 1.0)
    alike = (np.abs(cv2.blur(image, (3, 3)) - centre) < 3 * spread).astype(np.uint8)
    alike = cv2.morphologyEx(alike, cv2.MORPH_OPEN, _disk(1.0 / resolution))
    near = cv2.dilate(body.astype(np.uint8), _disk(_RIM / resolution + 4))
    return body | ((alike > 0) & (near > 0))


def _agreeing(z: Singles) -> Bools:
    """Matched cells that lie within ``_AGREE`` of the median of their matched neighbours."""
    ok = np.isfinite(z)
    if not ok.any():
        return ok
    base = np.float32(np.mean(z[ok], dtype=np.float64))
    filled = cv2.medianBlur(np.where(ok, z - base, np.float32(1e6)), 5)  # voids count as far above
    return ok & (np.abs(z - base - filled) < _AGREE)


def _scatter(z: Singles, size: int) -> Singles:
    """Standard deviation of the matched heights in a window, slope taken out by a smoother surface; 0 if none."""
    ok = np.isfinite(z).astype(np.float32)
    base = np.float32(np.nanmean(z)) if ok.any() else np.float32(0)
    v = np.where(ok > 0, z - base, np.float32(0))
    n = np.maximum(cv2.GaussianBlur(ok, (0, 0), size / 2), 1e-3)
    left = np.where(ok > 0, v - cv2.GaussianBlur(v, (0, 0), size / 2) / n, np.float32(0))
    variance = np.maximum(cv2.blur(left * left, (size, size)), 0) / np.maximum(cv2.blur(ok, (size, size)), 1e-3)
    return np.sqrt(variance).astype(np.float32)


def _statistics(image: Singles, lit: Bools) -> tuple[Singles, Singles]:
    """Local mean, and standard deviation over it, in 9 x 9 cells with a value."""
    n = np.maximum(cv2.blur(lit.astype(np.float32), (9, 9)), 1e-3)
    mean = cv2.blur(image, (9, 9)) / n
    square = cv2.blur(image * image, (9, 9)) / n
    texture = np.sqrt(np.maximum(square - mean * mean, 0)) / np.maximum(mean, 1e-3)
    return mean.astype(np.float32), texture.astype(np.float32)


def _part(labels: NDArray[Any], stats: NDArray[Any], k: int, resolution: float) -> tuple[tuple[slice, slice], Bools]:
    """Window of one body with room for its shore, and the body in it."""
    margin = int(np.ceil(_SHORE / resolution)) + 1
    column, row, width, height = (int(v) for v in stats[:4])
    part = (
        slice(max(row - margin, 0), row + height + margin),
        slice(max(column - margin, 0), column + width + margin),
    )
    return part, labels[part] == k


def _levels(z: Singles, body: Bools, resolution: float) -> Singles | None:
    """Water level over the window of a body, (h, w), from the low part of its shores; None without shore heights."""
    shore = cv2.dilate(body.astype(np.uint8), _disk(_SHORE / resolution)).astype(bool) & ~body & np.isfinite(z)
    if shore.sum() < 10:
        return None
    step = max(round(_REACH / 3 / resolution), 1)
    rows, columns = np.nonzero(shore)
    shape = (-(-z.shape[0] // step), -(-z.shape[1] // step))
    cell = rows // step * shape[1] + columns // step
    heights = z[shore]
    order = np.lexsort((heights, cell))
    start = np.flatnonzero(np.diff(cell[order], prepend=-1))
    count = np.diff(np.append(start, cell.size))
    low = heights[order][start + (count * _LOW).astype(np.int64)]
    base = np.float64(np.median(low))
    weight = np.zeros(shape)
    total = np.zeros(shape)
    # a stretch above its neighbours is a cliff, a wall or trees on the bank
    weight.ravel()[cell[order][start]] = count
    total.ravel()[cell[order][start]] = low - base
    level, known = _smooth(total * weight, weight, _REACH / (step * resolution)), weight > 0
    for _ in range(3):
        above = np.maximum(total - level, 0)
        robust = np.where(known, weight / (1 + (above / 0.5) ** 2), 0)
        level = _smooth(total * robust, robust, _REACH / (step * resolution))
    if np.ptp(level[known]) < 0.5:
        level = np.full(shape, np.average(level[known], weights=robust[known]))
    fine = cv2.resize(level.astype(np.float32), (shape[1] * step, shape[0] * step), interpolation=cv2.INTER_LINEAR)
    return (fine[: z.shape[0], : z.shape[1]] + base).astype(np.float32)


def _smooth(sums: NDArray[np.float64], weight: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Normalized convolution; a wide second kernel carries the level to places far from any shore."""
    near, far = (
        (cv2.GaussianBlur(sums, (0, 0), s), cv2.GaussianBlur(weight, (0, 0), s) + 1e-9) for s in (sigma, 4 * sigma)
    )
    return np.asarray((near[0] + 1e-3 * far[0] / 16) / (near[1] + 1e-3 * far[1] / 16))


def _fall(level: Singles, body: Bools, resolution: float) -> float:
    """Range of the level over the length of the body."""
    rows, columns = np.nonzero(body)
    length = float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)) * resolution
    return float(np.ptp(level[body])) / length


def _disk(radius: float) -> NDArray[np.uint8]:
    r = max(round(radius), 1)
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)).astype(np.uint8)
