"""Terrain of a surface model: its sigma, and the ground under trees put into it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid, Raster
from terrain3d.surface.coarse import resampled
from terrain3d.surface.gaps import from_gaps
from terrain3d.surface.ground import ground_share
from terrain3d.surface.under_canopy import HiddenGround

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

DTM_MARGIN = 64.0  # m: what a part of a terrain model needs to see around it
# m from the surface beyond which the terrain is not continued: into voids, where relief is free to do what it likes (in
# three scenes with exact truth that reach farther it was metres to tens of metres wrong), and between a cloud's points
_REACH, _CLOUD_REACH = 10.0, 50.0
_VOID_SLOPE = 0.7  # m per metre from the surface and unit of terrain slope
_STEP_SIGMA = 0.12  # m per square root metre: growth of sigma away from the ground on flat land
_STEP_SLOPE = 0.3  # the same, per unit of terrain slope
_GAP_SIGMA = 0.4  # m: what is taken for ground in the gaps of a canopy is blurred with the crowns around it
_GAP_SLOPE = 2.5  # m per unit of terrain slope: the gap's lowest cell is not under the gap's middle
_DENSE, _FEW = 0.6, 0.1  # share of ground cells around a place: stereo saw the ground / hardly saw it
_EVEN, _EVEN_SLOPE, _SEEN_SIGMA = 0.4, 0.15, 0.15  # share of the sigma that level ground does not bear out; slope; m
_FAR, _FAR_FROM, _FAR_TO = 0.08, 3.0, 12.0  # by so much more far from ground; from, and in full (m)
# m from ground: from where land is no longer even for certain, how fast that fades, and where sigma is twice as large
_WIDE_FROM, _WIDE_EVEN, _WIDE = 12.0, 20.0, 75.0
# Of clouds: m; m per unit of slope; growth between the points, m and m per unit of slope, at a metre; its power. From
# points of the ground held out, one by one and by blocks of 6 and 16 m, of five of nine airborne clouds.
_CLOUD_SIGMA, _CLOUD_SLOPE = 0.05, 0.6
_BETWEEN, _BETWEEN_SLOPE, _BETWEEN_POWER = 0.02, 1.3, 0.8
_SPLINE = np.float32(0.125)  # of second differences, between a quadratic spline's nodes and its values there
_DOUBT_SIGMAS, _DOUBT = 0.75, 0.7  # ground farther than this (sigmas and m) from the ground under trees is a crown


def ground_distance(ground: Bools, cell: float) -> Singles:
    """Distance to the nearest ground cell, metres."""
    return np.asarray(cv2.distanceTransform((~ground).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(cell))


def terrain_sigma(dsm: Raster, sigma: Raster, ground: Bools, slope: Singles, hull: Bools, far: Singles) -> Raster:
    """1-sigma of the terrain (m), NaN where it is not given: outside the hull, or far from all cells of ``dsm``.

    It is the sigma of the nearest ground cell, the random walk to it, and the doubt about ground that is hardly seen.
    dsm, sigma: surface model and its sigma. ground, slope: (h, w) ground cells, and rise over run of the terrain. hull:
    (h, w) of the whole surface model. far: (h, w) distance to ground, metres, where it is beyond ``DTM_MARGIN``.
    """
    resolution = dsm.grid.resolution
    hidden = hidden_share(ground, resolution)
    s = np.where(ground, sigma.values, np.float32(np.nan))
    typical = np.float32(np.nanmedian(s)) if np.isfinite(s).any() else np.float32(0)
    at, distance = np.full(s.shape, typical), far
    if ground.any():
        own, label = cv2.distanceTransformWithLabels(
            (~ground).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        of_label = np.zeros(int(label.max()) + 1, np.float32)
        of_label[label[ground]] = np.where(np.isfinite(s[ground]), s[ground], typical)
        own *= np.float32(resolution)
        near = own <= DTM_MARGIN
        at, distance = np.where(near, of_label[label], np.float32(0)), np.where(near, own, far)
    step = _STEP_SIGMA + _STEP_SLOPE * slope
    gap = hidden * (_GAP_SIGMA + _GAP_SLOPE * slope)
    void = ground_distance(np.isfinite(dsm.values), resolution)
    into = np.minimum(void, _REACH)  # no end of it where there is no surface at all
    spread = np.sqrt(at**2 + step**2 * distance + gap**2 + (_VOID_SLOPE * slope * into) ** 2)
    return _where_given(spread, dsm, hull & (void <= _REACH))


def cloud_terrain_sigma(dsm: Raster, ground: Bools, slope: Singles, hull: Bools, far: Singles) -> Raster:
    """1-sigma of the terrain of a point cloud (m), NaN where it is not given, with arguments as for ``terrain_sigma``.

    Points that reached the ground are precise, however few they are, so nothing is said of crowns: on a slope the
    terrain is off by the place of the points, and by what it does between them, almost in proportion to their distance.
    """
    distance = far
    if ground.any():
        own = ground_distance(ground, dsm.grid.resolution)
        distance = np.where(own <= DTM_MARGIN, own, far)
    between = (_BETWEEN + _BETWEEN_SLOPE * slope) * distance**_BETWEEN_POWER
    spread = np.sqrt(_CLOUD_SIGMA**2 + (_CLOUD_SLOPE * slope) ** 2 + between**2)
    near = ground_distance(np.isfinite(dsm.values), dsm.grid.resolution) <= _CLOUD_REACH
    return _where_given(spread, dsm, hull & near)


def _where_given(spread: Singles, dsm: Raster, given: Bools) -> Raster:
    """Sigma of a terrain, NaN where it is not given."""
    return replace(dsm, values=np.where(given, spread, np.float32(np.nan)).astype(np.float32))


def stated_sigma(sigma: Singles, slope: Singles, distance: Singles, guessed: Bools) -> Singles:
    """Sigma of the terrain as errors of scenes with exact truth bear it out (m), from that by which it is worked out.

    What is guessed between ground that is seen holds better on even land than the doubt that keeps roofs and crowns out
    of it, but not far from all that is seen: nobody knows whether land under a wide hall was levelled. sigma, slope,
    distance: (h, w) metres, rise over run of the terrain, and metres to the nearest ground cell. guessed: cells whose
    ground nothing but that around it tells.
    """
    share = sigma**2 / (sigma**2 + np.float32(_SEEN_SIGMA**2))
    wide = np.where(guessed, np.maximum(distance - np.float32(_WIDE_FROM), 0), np.float32(0))
    away = np.clip((distance - _FAR_FROM) / (_FAR_TO - _FAR_FROM), 0, 1)
    even = 1 - np.float32(_EVEN) * np.exp(-wide / _WIDE_EVEN) * share / (1 + (slope / np.float32(_EVEN_SLOPE)) ** 2)
    return np.asarray(sigma * even * (1 + np.float32(_FAR) * away) * (1 + wide / _WIDE), np.float32)


def hidden_share(ground: Bools, resolution: float) -> Singles:
    """0 where ground cells are dense, 1 where they are few (canopy, wide buildings), smooth in between."""
    t = np.clip((_DENSE - ground_share(ground, resolution)) / (_DENSE - _FEW), 0, 1)
    return ground_share(t * t * (3 - 2 * t), resolution)


def with_hidden(
    height: Raster, sigma: Raster, ground: Bools, dsm: Raster, dsm_sigma: Raster, hidden: HiddenGround
) -> tuple[Raster, Raster]:
    """Terrain and its sigma with the ground under trees in place of what was interpolated there.

    height, sigma: (h, w) metres. ground: (h, w) cells that were taken for ground; those that the estimate under the
    trees rules out do not count. dsm, dsm_sigma: what was measured. hidden: coarse, over all of ``height``. Where
    ground is seen the terrain stays, never above the surface. Under trees it may pass over gaps: they bend it, and
    their noise does not show.
    """
    grid = height.grid
    weight = resampled(Raster(cv2.blur(hidden.weight.values, (3, 3)), hidden.weight.grid), grid)
    if not (weight > 0).any():
        return replace(height, values=np.fmin(height.values, dsm.values)), sigma
    under, error = _known(_with_bends(hidden), grid), _known(hidden.sigma, grid)
    off = np.abs(dsm.values - under)
    crowns = (weight > 0.5) & (off > np.hypot(_DOUBT_SIGMAS * error, _DOUBT))
    weight = np.where(np.isfinite(under), weight * hidden_share(ground & ~crowns, grid.resolution), np.float32(0))
    under, error = (np.where(np.isfinite(a), a, b.values) for a, b in ((under, height), (error, sigma)))
    under = under + from_gaps(dsm, dsm_sigma, under, error)
    mixed = height.values + weight * (under - height.values)
    mixed -= (1 - weight) * np.fmax(mixed - dsm.values, 0)
    variance = sigma.values**2 + weight * (error**2 - sigma.values**2)
    variance += weight * (1 - weight) * (under - height.values) ** 2
    return replace(height, values=mixed.astype(np.float32)), replace(sigma, values=np.sqrt(variance).astype(np.float32))


def _with_bends(hidden: HiddenGround) -> Raster:
    """Ground under trees as nodes of the spline of ``_known`` that is to pass through it: a spline has an eighth of the
    second differences less than its nodes (Unser 1999), which at the brow and the foot of a cliff is metres. Bends that
    are no larger than two sigma stay smoothed."""
    z, variance = hidden.height.values, (2 * np.nan_to_num(hidden.sigma.values)) ** 2
    around = np.pad(z, 1, constant_values=np.nan)
    nodes = z.copy()
    for sides in (around[:-2, 1:-1] + around[2:, 1:-1], around[1:-1, :-2] + around[1:-1, 2:]):
        bend = np.nan_to_num(sides - 2 * z)
        nodes -= _SPLINE * bend**3 / np.maximum(bend**2 + variance, np.float32(1e-6))
    return replace(hidden.height, values=nodes)


def _known(raster: Raster, grid: Grid) -> Singles:
    """Quadratic spline through the coarse cells that have values, without kinks; NaN where there are none near."""
    known = np.isfinite(raster.values)
    share, total = (
        _unkinked(Raster(a.astype(np.float32), raster.grid), grid)
        for a in (known, np.where(known, raster.values, np.float32(0)))
    )
    return np.where(share > 1e-3, total / np.maximum(share, np.float32(1e-3)), np.float32(np.nan))


def _unkinked(raster: Raster, grid: Grid) -> Singles:
    """Bilinear values blurred over a coarse cell."""
    step = round(raster.grid.resolution / grid.resolution)
    window = np.ones(step | 1)
    window[[0, -1]] -= 0.5 * (1 - step % 2)  # an even number of cells has no middle
    window /= window.sum()
    return np.asarray(cv2.sepFilter2D(resampled(raster, grid), -1, window, window), np.float32)
