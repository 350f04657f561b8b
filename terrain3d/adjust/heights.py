"""Ground under lidar returns as the views see it: tracks measured at the footprints, and the height of their plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terrain3d.adjust.bundle import intersect
from terrain3d.adjust.normal import basis, linearize
from terrain3d.adjust.patches import MAX_MOVE_PX
from terrain3d.adjust.polish import MAX_OBSERVATIONS, measure
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.rpc import project
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.image.view import View, ground_sample_distance
from terrain3d.points import LidarReturns, canopy_limit, horizontal_sigma

Floats = NDArray[np.float64]

MAX_RETURNS = 1500  # of a scene; more are thinned evenly
STAR = np.array([(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]) / 2**0.5  # places of a footprint
SPREAD_OF_PLACES = 0.35  # of a footprint's width, from its centre to the outer places
MIN_SPACING_PX = 6.0  # of the places: windows of 15 px that overlap more tell the same
MIN_PLACES = 4
MAX_ROUGHNESS = 0.3  # metres, of the places about their plane
ROUGHNESS_PER_SLOPE = 0.3
STEEPEST = 0.7
SIGMA_FLOOR = 0.1  # metres
ROUGHNESS_SHARE = 0.5  # of the places' spread that stays in the height of their plane
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


def pick_returns(returns: LidarReturns, n_views: int = 2) -> NDArray[np.int64]:
    """Indices of returns that may have open ground under them, as many as the patches of ``n_views`` allow for."""
    rows = np.flatnonzero(np.isfinite(returns.height) & ~(returns.canopy > canopy_limit(returns, STEEPEST)))
    most = min(MAX_RETURNS, MAX_OBSERVATIONS // (len(STAR) * n_views))
    return rows[:: -(-len(rows) // most) or 1]


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
    east, north = (c[:, None] + reach[:, None] * STAR[:, k] for k, c in enumerate((x, y)))
    start = np.column_stack([*to_lonlat(crs, east.ravel(), north.ravel()), np.repeat(height, len(STAR))])
    ties = _everywhere(views, start)
    seen = np.ones(len(ties.view), bool)
    place, found = measure(views, ties, start, seen, crs, float(np.median(height)), MAX_MOVE_PX)
    ties = Ties(ties.view[found], ties.track[found], place[found, 0], place[found, 1])
    kept, track = np.unique(ties.track, return_inverse=True)
    ties = Ties(ties.view, track, ties.line, ties.sample)
    points = intersect([v.camera for v in views], ties, float(np.median(height)))
    at, first, count = np.unique(kept // len(STAR), return_index=True, return_counts=True)
    return _planes(Footprints(
        at, np.zeros(len(at)), np.zeros((len(at), 2)), np.zeros(len(at)), first, count, ties, points
    ), returns, rows, crs)  # fmt: skip


def inside_views(views: list[View], returns: LidarReturns, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the returns ``rows`` two views or more have inside."""
    points = np.column_stack([returns.lon_deg[rows], returns.lat_deg[rows], returns.height[rows]])
    return np.bincount(_everywhere(views, points).track, minlength=len(rows)) > 1


def _everywhere(views: list[View], points: Floats) -> Ties:
    """Every point in every view that has it inside."""
    parts = []
    for i, view in enumerate(views):
        line, sample = view.camera.project(*points.T)
        inside = view.image.holds(line, sample)
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
        tangent = float(np.hypot(*plane[1:]))
        open_ground = not returns.canopy[rows[i]] > canopy_limit(returns, tangent)[rows[i]]
        if open_ground and spread < MAX_ROUGHNESS + ROUGHNESS_PER_SLOPE * tangent:
            keep.append(k)
            offset.append(returns.height[rows[i]] - plane[0])
            slope.append(plane[1:])
            roughness.append(spread)
    return Footprints(
        rows[seen.at[keep]], np.array(offset), np.array(slope).reshape(-1, 2), np.array(roughness),
        seen.first[keep], seen.count[keep], seen.ties, seen.points,
    )  # fmt: skip


def offset_sigma(returns: LidarReturns, seen: Footprints) -> Floats:
    """1-sigma of a return's height against the plane of its footprint, metres."""
    sideways = horizontal_sigma(returns)[seen.at] * np.hypot(*seen.slope.T)
    variance = returns.sigma[seen.at] ** 2 + sideways**2 + (ROUGHNESS_SHARE * seen.roughness) ** 2 + SIGMA_FLOOR**2
    return np.asarray(np.sqrt(variance))


def heights_by_parameters(cameras: list[Camera], seen: Footprints, along: int) -> Floats:
    """Change of the views' height at the returns by the corrections' parameters, metres per px (N, n p).

    It also changes as sloping ground moves sideways; that is how relief tells the place of the network.
    """
    ties, half = seen.ties, 3 + along
    owner = np.full(len(seen.points), -1)
    for k in range(len(seen.at)):
        owner[seen.first[k] : seen.first[k] + seen.count[k]] = k
    a = linearize(cameras, ties, seen.points)[0]
    normal = np.zeros((len(seen.points), 3, 3))
    np.add.at(normal, ties.track, np.einsum("nki,nkj->nij", a, a))
    # height of the plane at a fixed place: what its points rise, less what they move uphill
    up = np.column_stack([-seen.slope, np.ones(len(seen.at))]) / seen.count[:, None]
    rows = np.flatnonzero(owner[ties.track] >= 0)
    row = owner[ties.track[rows]]
    lever = np.einsum("ni,nij,nkj->nk", up[row], np.linalg.inv(normal)[ties.track[rows]], a[rows])
    out = np.zeros((len(seen.at), len(cameras), 2, half))
    for i, camera in enumerate(cameras):
        mine = ties.view[rows] == i
        places = seen.points[ties.track[rows[mine]]]
        terms = basis(camera, *project(camera.rpc, *places.T), along)
        # a larger correction moves the projection as a smaller measurement would
        np.add.at(out[:, i], row[mine], -lever[mine][:, :, None] * terms[:, None, :])
    return out.reshape(len(seen.at), -1)
