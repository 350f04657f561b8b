"""Ground under lidar returns as the views see it: tracks measured at the footprints, and the height of their plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terrain3d.adjust.bundle import intersect
from terrain3d.adjust.normal import metres_per_unit
from terrain3d.adjust.patches import MAX_MOVE_PX
from terrain3d.adjust.polish import measure
from terrain3d.adjust.ties import Ties
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.image.view import View, ground_sample_distance
from terrain3d.points import LidarReturns

Floats = NDArray[np.float64]

MAX_RETURNS = 1500  # of a scene; more are thinned evenly
SPREAD_OF_PLACES = 0.35  # of a footprint's width, from its centre to the outer places
MIN_SPACING_PX = 6.0  # of the places: windows of 15 px that overlap more tell the same
MIN_PLACES = 4
MAX_ROUGHNESS = 0.6  # metres, of the places about their plane
ROUGHNESS_PER_SLOPE = 0.5
CANOPY_LIMIT = 2.0
NEIGHBOURS, NEAR_M = 6, 60.0


@dataclass(frozen=True)
class Footprints:
    """What the views see under returns, one row a return.

    at: index of the return. offset: its height minus that of the views' plane at its place, metres. slope: (N, 2)
    of that plane, east and north. roughness: RMS of the places about it, metres. first: first row of its places in
    ``ties.track``, ``count``: how many. ties: observations of the places. points: (T, 3) of them, lon_deg, lat_deg,
    height.
    """

    at: NDArray[np.int64]
    offset: Floats
    slope: Floats
    roughness: Floats
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    ties: Ties
    points: Floats


def pick_returns(returns: LidarReturns) -> NDArray[np.int64]:
    """Indices of returns that may have open ground under them."""
    open_ground = np.isfinite(returns.height) & ~(returns.canopy > CANOPY_LIMIT)
    rows = np.flatnonzero(open_ground)
    return rows[:: -(-len(rows) // MAX_RETURNS) or 1]


def rough_offset(points: Floats, returns: LidarReturns, crs: str) -> float:
    """Height of tie points (T, 3) over returns, metres, median over returns that have ties around; 0 without any."""
    xy = np.column_stack(from_lonlat(crs, points[:, 0], points[:, 1]))
    at = np.column_stack(from_lonlat(crs, returns.lon_deg, returns.lat_deg))
    if len(xy) < NEIGHBOURS or not len(at):
        return 0.0
    away, index = cKDTree(xy).query(at, k=NEIGHBOURS)
    near = away[:, -1] < NEAR_M
    if not near.any():
        return 0.0
    index, at = index[near], at[near]
    design = np.concatenate([np.ones((*index.shape, 1)), xy[index] - at[:, None]], axis=-1)
    z = np.linalg.pinv(design, rcond=1e-3)[:, 0] * points[index, 2]
    return float(np.median(z.sum(axis=1) - returns.height[near]))


def see_footprints(
    views: list[View], returns: LidarReturns, rows: NDArray[np.int64], lift: float, crs: str
) -> Footprints:
    """Measure the ground at returns ``rows`` with the views' cameras, ``lift`` metres above the returns' heights."""
    x, y = from_lonlat(crs, returns.lon_deg[rows], returns.lat_deg[rows])
    height = returns.height[rows] + lift
    gsd = max(ground_sample_distance(v, crs, float(np.median(height))) for v in views)
    reach = np.maximum(SPREAD_OF_PLACES * np.minimum(returns.length, returns.width)[rows], MIN_SPACING_PX * gsd)
    star = np.array([(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]) / 2**0.5
    east, north = (c[:, None] + reach[:, None] * star[:, k] for k, c in enumerate((x, y)))
    start = np.column_stack([*to_lonlat(crs, east.ravel(), north.ravel()), np.repeat(height, len(star))])
    ties = _everywhere(views, start)
    seen = np.ones(len(ties.view), bool)
    place, found = measure(views, ties, start, seen, crs, float(np.median(height)), MAX_MOVE_PX)
    ties = Ties(ties.view[found], ties.track[found], place[found, 0], place[found, 1])
    kept, track = np.unique(ties.track, return_inverse=True)
    ties = Ties(ties.view, track, ties.line, ties.sample)
    points = intersect([v.camera for v in views], ties, float(np.median(height)))
    at, first, count = np.unique(kept // len(star), return_index=True, return_counts=True)
    return _planes(Footprints(
        at, np.zeros(len(at)), np.zeros((len(at), 2)), np.zeros(len(at)), first, count, ties, points
    ), returns, rows, crs)  # fmt: skip


def _everywhere(views: list[View], points: Floats) -> Ties:
    """Every point in every view that has it inside."""
    parts = []
    for i, view in enumerate(views):
        line, sample = view.camera.project(*points.T)
        inside = (line >= 0) & (sample >= 0) & (line <= view.image.height - 1) & (sample <= view.image.width - 1)
        track = np.flatnonzero(inside)
        parts.append((np.full(len(track), i), track, line[inside], sample[inside]))
    return Ties(*(np.concatenate(a) for a in zip(*parts, strict=True)))


def _planes(seen: Footprints, returns: LidarReturns, rows: NDArray[np.int64], crs: str) -> Footprints:
    """The footprints that enough places were found of, on smooth ground, with the plane of these places."""
    east, north = from_lonlat(crs, seen.points[:, 0], seen.points[:, 1])
    x, y = from_lonlat(crs, returns.lon_deg[rows], returns.lat_deg[rows])
    keep, offset, slope, roughness = [], [], [], []
    for k in np.flatnonzero(seen.count >= MIN_PLACES):
        mine = slice(seen.first[k], seen.first[k] + seen.count[k])
        i = seen.at[k]
        design = np.column_stack([np.ones(seen.count[k]), east[mine] - x[i], north[mine] - y[i]])
        plane, *_ = np.linalg.lstsq(design, seen.points[mine, 2], rcond=None)
        spread = float(np.sqrt(np.sum((seen.points[mine, 2] - design @ plane) ** 2) / max(seen.count[k] - 3, 1)))
        if spread < MAX_ROUGHNESS + ROUGHNESS_PER_SLOPE * np.hypot(*plane[1:]):
            keep.append(k)
            offset.append(returns.height[rows[i]] - plane[0])
            slope.append(plane[1:])
            roughness.append(spread)
    return Footprints(
        rows[seen.at[keep]], np.array(offset), np.array(slope).reshape(-1, 2), np.array(roughness),
        seen.first[keep], seen.count[keep], seen.ties, seen.points,
    )  # fmt: skip
