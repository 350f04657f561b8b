"""Water: found where several kinds of evidence agree, and made level.

A false lake does more harm than a missed one, so a place counts as water only where matching failed or scattered, the
image is dark and without texture, the patch is large and wide, and its shores agree on a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster
from terrain3d.surface.disks import full_disk
from terrain3d.surface.water_level import WaterLevel

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

WATER_MARGIN = 48.0  # m: the widest windows and patches, one after the other
BANK_MARGIN = 16.0  # m: the same beside a body of water
_SUPPORT_WIDTH = 7.5  # m over which matches are counted
_SUPPORT = 0.5  # share of cells with a match that agrees with its neighbours, below which matching failed
_AGREE = 0.7  # m
_SCATTER = 0.8  # m: standard deviation of invented heights in the same window
_DARK = 0.85  # of the median of the land, half of which may be woods
_SMOOTH = 0.08  # local standard deviation over mean: photon noise, no texture
SMOOTH_RANK = 0.25  # and among this share of the smoothest of the scene
MIN_AREA = 1500.0  # m2
_MIN_WIDTH = 6.0  # m
_RIM = 2.0  # m
_ABOVE, _LAND_WIDTH = 0.7, 5.0  # m over the water, m
SURE = 0.7  # confidence of matches that water, which each image shows otherwise, hardly ever has
_SURE_ABOVE, _SURE_WIDTH = 0.3, 2.0  # m over the water, m
_MAX_FALL = 0.05  # m/m along the shore: steeper is a shadow on a slope
SHORE = 2.0  # m
_MIN_AGREEMENT, _MAX_UNDER = 0.55, 0.2  # a pit in shadow has walls around


@dataclass(frozen=True)
class WaterLimits:
    """What a whole scene says of its picture: values below ``dark`` and textures below ``smooth`` may be water."""

    dark: float
    smooth: float

    def plain(self, mean: Singles, texture: Singles) -> Bools:
        """Where the picture is dark and smooth, by its local mean and texture. The darker, the more of its own value is
        the noise of photons: by the root of it."""
        noisier = np.sqrt(np.float32(self.dark) / np.maximum(mean, np.float32(1)))
        return np.asarray((mean < self.dark) & (texture < np.minimum(self.smooth * noisier, _SMOOTH)))


@dataclass(frozen=True)
class Shores:
    """Cells around bodies of water: the body's number, row and column in the whole grid, height and its sigma (m). All
    (N,)."""

    body: NDArray[np.int32]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    height: Singles
    sigma: Singles


def water_limits(median: float, texture: float) -> WaterLimits:
    """Limits from the median of a scene's picture where matches agree (a sea may fill most of it), and from the
    ``SMOOTH_RANK`` quantile of its texture."""
    return WaterLimits(_DARK * median, min(_SMOOTH, texture * 1.2))


def picture_texture(picture: NDArray[Any]) -> Singles:
    """Local standard deviation over the local mean, in 9 x 9 cells with a value (not 0)."""
    image = picture.astype(np.float32)
    return _statistics(image, image > 0)[1]


def water_candidates(dsm: Raster, ortho: Raster, limits: WaterLimits) -> Bools:
    """Cells that matching, the picture and the width of their patch allow to be water, (h, w).

    dsm: surface before voids were filled, NaN where nothing was matched. ortho: image values, 0 for no value. Cells
    farther than ``WATER_MARGIN`` from the border do not depend on what lies beyond it.
    """
    resolution = dsm.grid.resolution
    z, image = np.asarray(dsm.values, np.float32), ortho.values.astype(np.float32)
    lit = image > 0
    if not lit.any() or min(z.shape) < 5:
        return np.zeros(z.shape, bool)
    mean, texture = _statistics(image, lit)
    plain = limits.plain(mean, texture) & lit
    if not plain.any():
        return plain
    size = round(_SUPPORT_WIDTH / resolution) | 1
    failed = (cv2.blur(agreeing(z).astype(np.float32), (size, size)) < _SUPPORT) | (_scatter(z, size) > _SCATTER)
    kernel = full_disk(_MIN_WIDTH / 2 / resolution)
    closed = cv2.morphologyEx((failed & plain).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, kernel) > 0


def shores(
    dsm: Raster, sigma: Singles, bodies: NDArray[np.int32], place: tuple[int, int], core: tuple[slice, slice],
    reach: float = SHORE,
) -> Shores:  # fmt: skip
    """Matched cells of the core beside bodies of water, as far as ``reach`` metres.

    bodies: (h, w) number of the body of each cell, 0 for none. place: row and column of the first cell, from
    where those of the shores are counted. A cell beside two bodies counts for the one of larger number.
    """
    near = cv2.dilate(bodies.astype(np.float32), full_disk(reach / dsm.grid.resolution))[core].astype(np.int32)
    z = np.asarray(dsm.values[core], np.float32)
    at = np.nonzero((near > 0) & (bodies[core] == 0) & agreeing(dsm.values)[core])
    row, column = at[0] + (place[0] + core[0].start), at[1] + (place[1] + core[1].start)
    return Shores(near[at], row, column, z[at], np.asarray(sigma[core][at], np.float32))


def is_water(level: WaterLevel | None, area: float, length: float, least: float = MIN_AREA) -> bool:
    """Whether a body of that area (m2) and length (m) is as large as the least, and its shores agree on a level."""
    return area >= least and level is not None and level.high - level.low <= _MAX_FALL * length


def with_rim_area(area: NDArray[np.floating[Any]], rim: float) -> NDArray[np.float64]:
    """Areas (m2) of patches with the rim (m) that they lost on all sides, which is that of a disk at least."""
    return np.asarray(area + rim * (2 * np.sqrt(np.pi * area) + np.pi * rim), np.float64)


def is_pit(level: WaterLevel) -> bool:
    """Whether most of the shores of a body, grown to its banks, stand above its level, or it would run out over some of
    them: a pit in shadow, not water."""
    return level.agreement < _MIN_AGREEMENT or level.under > _MAX_UNDER


def to_the_bank(body: Bools, ortho: Raster, centre: float, spread: float) -> Bools:
    """Body grown over its rim, which the texture window lost, as far as the image stays as it is inside: within three
    times the spread (NMAD) of the centre (median) of the body's values."""
    resolution, image = ortho.grid.resolution, ortho.values.astype(np.float32)
    alike = (np.abs(cv2.blur(image, (3, 3)) - centre) < 3 * max(spread, 1.0)).astype(np.uint8)
    alike = cv2.morphologyEx(alike, cv2.MORPH_OPEN, full_disk(1.0 / resolution))
    near = cv2.dilate(body.astype(np.uint8), full_disk(_RIM / resolution + 4))
    return body | ((alike > 0) & (near > 0))


def without_land(body: Bools, dsm: Raster, level: Singles, sure: Bools) -> Bools:
    """Body without what matching shows to stand above its level and what belongs to the land beside: ground in the
    shadow of trees looks like water.

    level: (h, w) of the water. sure: cells whose match is beyond doubt. Heights that matching invents amid the water
    are no land.
    """
    z = np.asarray(dsm.values, np.float32)
    with np.errstate(invalid="ignore"):
        matched, above = body & agreeing(z), z - level
        # a rim is narrower: what is high at the bank bleeds over the water
        land = _wide(matched & (above > _ABOVE), _LAND_WIDTH, dsm.grid.resolution)
        land |= _wide(matched & sure & (above > _SURE_ABOVE), _SURE_WIDTH, dsm.grid.resolution)
    rest = body & ~land
    n, label = cv2.connectedComponents((~rest).astype(np.uint8), connectivity=4)
    outside = np.zeros(n, bool)
    outside[np.unique(label[~body])] = True
    return rest | (body & ~outside[label])


def banks_above(heights: Singles, water: Bools, level: Singles, resolution: float) -> Singles:
    """Heights (h, w; m) of which none within ``SHORE`` of water lies under it. level: (h, w) that of the water, where
    ``water`` says so; it stays there."""
    if not water.any():
        return heights
    none = np.float32(-1e6)
    near = cv2.dilate(np.where(water, level, none), full_disk(SHORE / resolution))
    return np.where((near > none) & np.isfinite(heights), np.maximum(heights, near), heights)


def _wide(cells: Bools, width: float, resolution: float) -> Bools:
    """Cells, gaps of 2 m among them closed, of what is that many metres wide."""
    gap, wide = (full_disk(r / resolution) for r in (1.0, width / 2))
    closed = cv2.morphologyEx(cells.astype(np.uint8), cv2.MORPH_CLOSE, gap)
    return np.asarray(cv2.morphologyEx(closed, cv2.MORPH_OPEN, wide) > 0)


def agreeing(z: Singles) -> Bools:
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
