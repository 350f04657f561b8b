"""The image network of a scene: ties in two passes, adjustment, and what it says about the heights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry import Polygon

from terrain3d.adjust.along import follow_jitter
from terrain3d.adjust.bundle import Adjustment, adjust
from terrain3d.adjust.keypoints import Keypoints, find_keypoints
from terrain3d.adjust.level import HeightTies, level
from terrain3d.adjust.polish import polish_ties
from terrain3d.adjust.spread import grid_share, inside, reach
from terrain3d.adjust.ties import Ties, tie_views
from terrain3d.crs import from_lonlat
from terrain3d.errors import AdjustmentError
from terrain3d.image.view import View, footprint
from terrain3d.points import LidarReturns

MIN_TIES_PER_VIEW = 12
REFINED_POINTING_PX = 3.0
REFINED_MARGIN_M = 40.0
POLISHED_TIES, POLISHED_SHARE = 24, 0.25  # that must be left in every view
# Of terrain3d.adjust.spread.reach: beyond the first the drift of an image is left at zero, for it would only carry the
# errors of the ties outwards; beyond the second not even the bias means anything away from the ties.
DRIFT_REACH = 12.0
MAX_REACH = 60.0


@dataclass(frozen=True)
class Network:
    """views: with corrected cameras. heights: lowest and highest ellipsoidal height of the tie points (robust).

    reach: one a view, how far its key points lie from its ties, in units of the ties' spread. warnings: what a user
    should know of the ties. height_ties: what lidar says of the network, None if it was not asked. joined_heights: of
    the tie points of images that joined it later, None without any.
    """

    views: list[View]
    ties: Ties
    adjustment: Adjustment
    heights: tuple[float, float]
    reach: tuple[float, ...]
    warnings: tuple[str, ...] = ()
    height_ties: HeightTies | None = None
    joined_heights: tuple[float, float] | None = None

    @property
    def all_heights(self) -> tuple[float, float]:
        """Heights of the tie points of all images, also of those that joined later."""
        more = self.joined_heights or self.heights
        return min(self.heights[0], more[0]), max(self.heights[1], more[1])

    def ties_of(self, view: int) -> int:
        """Number of observations that the adjustment kept in a view."""
        return int((self.adjustment.used & (self.ties.view == view)).sum())

    def pair_ties(self, left: int, right: int, area: Polygon, crs: str) -> tuple[int, float]:
        """Number of tie points that two views have in common, and the share of a 4 x 4 grid over their common ground
        ``area`` (in ``crs``) that holds one."""
        seen = np.zeros((2, self.ties.n_tracks), bool)
        for k, view in enumerate((left, right)):
            seen[k, self.ties.track[self.adjustment.used & (self.ties.view == view)]] = True
        lon, lat, _ = self.adjustment.points[seen.all(axis=0)].T
        return len(lon), grid_share(*from_lonlat(crs, lon, lat), area)


def build_network(views: list[View], crs: str, limits: tuple[float, float], *, threads: int = 1) -> Network:
    """Tie and adjust the views. ``limits``: heights that the scene can have at most. threads: that look for ties, on
    which the result does not depend.

    The first pass knows neither heights nor pointing; the second searches with both nearly known, which finds more
    ties and fewer wrong ones; patch matching then makes them precise. Raises AdjustmentError, naming the view, where
    ties are too few or so badly spread that they do not tell its correction.
    """
    keypoints = [find_keypoints(v, threads) for v in views]
    first = tie_views(views, keypoints, crs, limits, threads=threads)
    rough = _adjusted(views, first, keypoints, crs, sum(limits) / 2)
    low, high = rough.heights
    near = (max(low - REFINED_MARGIN_M, limits[0]), min(high + REFINED_MARGIN_M, limits[1]))
    ties = tie_views(rough.views, keypoints, crs, near, pointing_px=REFINED_POINTING_PX, threads=threads)
    refined = _adjusted(rough.views, ties, keypoints, crs, sum(near) / 2)
    network = _polished(refined if len(refined.ties.view) > len(rough.ties.view) // 2 else rough, keypoints, crs)
    warnings = _judge(network)
    followed = follow_jitter(network.adjustment, network.ties, [r <= DRIFT_REACH for r in network.reach])
    return replace(with_adjustment(network, followed), warnings=warnings)


def with_lidar(network: Network, returns: LidarReturns, crs: str) -> Network:
    """The network with heights of lidar ground returns as observations: they set its height, and its tilt and drifts
    where they prove them."""
    levelled, found = level(network.adjustment, network.views, network.ties, returns, crs)
    return replace(with_adjustment(network, levelled), height_ties=found)


def with_adjustment(network: Network, adjustment: Adjustment) -> Network:
    """The network after another adjustment of its ties."""
    views = [v.with_camera(c) for v, c in zip(network.views, adjustment.cameras, strict=True)]
    return replace(network, views=views, adjustment=adjustment, heights=_height_range(network.ties, adjustment))


def _height_range(ties: Ties, adjustment: Adjustment) -> tuple[float, float]:
    """Raises AdjustmentError if hardly any track is seen twice."""
    kept = np.bincount(ties.track[adjustment.used], minlength=ties.n_tracks)
    z = adjustment.points[kept >= 2, 2]
    if len(z) < MIN_TIES_PER_VIEW:
        raise AdjustmentError(f"only {len(z)} tie points agree with the cameras", fix=_FIX)
    low, high = np.percentile(z, [1, 99])
    return float(low), float(high)


def _polished(network: Network, keypoints: list[Keypoints], crs: str) -> Network:
    """The network of the ties that patch matching confirms, unless a view would lose its hold for it: where images
    differ too much for that, key points are the best there is."""
    adjustment, middle = network.adjustment, sum(network.heights) / 2
    ties = polish_ties(network.views, network.ties, adjustment.points, adjustment.used, crs, middle)
    left = np.bincount(ties.view, minlength=len(network.views))
    if any(n < max(POLISHED_TIES, POLISHED_SHARE * network.ties_of(i)) for i, n in enumerate(left)):
        return network
    polished = _adjusted(network.views, ties, keypoints, crs, middle)
    return polished if max(polished.reach) <= max(DRIFT_REACH, max(network.reach)) else network


def _adjusted(views: list[View], ties: Ties, keypoints: list[Keypoints], crs: str, middle: float) -> Network:
    for i, view in enumerate(views):
        _enough(int((ties.view == i).sum()), view)
    cameras = [v.camera for v in views]
    adjustment = adjust(cameras, ties, middle)
    places = _shared_keypoints(views, keypoints, crs, middle)
    reaches = _reaches(ties, adjustment, places)
    if max(reaches) > DRIFT_REACH:
        adjustment = adjust(cameras, ties, middle, drift=[r <= DRIFT_REACH for r in reaches])
        reaches = _reaches(ties, adjustment, places)
    corrected = [v.with_camera(c) for v, c in zip(views, adjustment.cameras, strict=True)]
    return Network(corrected, ties, adjustment, _height_range(ties, adjustment), tuple(reaches))


_FIX = "check that the images show the same place, are free of cloud, and have the right RPC"


def _enough(n: int, view: View) -> None:
    if n < MIN_TIES_PER_VIEW:
        raise AdjustmentError(
            f"only {n} tie points with the other images ({MIN_TIES_PER_VIEW} are needed)",
            where=view.image.path,
            fix=_FIX,
        )


def _shared_keypoints(
    views: list[View], keypoints: list[Keypoints], crs: str, height: float
) -> list[NDArray[np.float64]]:
    """Key points (M, 2) line and sample of every view on ground that another view shows too. That is where ties could
    be; water has no key points, and nothing will be measured there."""
    prints = [footprint(v, crs, height) for v in views]
    out = []
    for i, (view, found) in enumerate(zip(views, keypoints, strict=True)):
        x, y = view.locate(crs, found.line, found.sample, height)
        shared = np.any([inside(p, x, y) for j, p in enumerate(prints) if j != i], axis=0)
        out.append(np.column_stack([found.line, found.sample])[shared])
    return out


def _reaches(ties: Ties, adjustment: Adjustment, places: list[NDArray[np.float64]]) -> list[float]:
    found = []
    for i, place in enumerate(places):
        mine = adjustment.used & (ties.view == i)
        found.append(reach(np.column_stack([ties.line[mine], ties.sample[mine]]), place))
    return found


def _judge(network: Network) -> tuple[str, ...]:
    """Warnings about ties; raises AdjustmentError where a correction is not determined."""
    warnings = []
    for i, view in enumerate(network.views):
        _enough(network.ties_of(i), view)
        if network.reach[i] > MAX_REACH:
            raise AdjustmentError(
                f"its {network.ties_of(i)} tie points lie in one corner or on one line and tell nothing of the rest",
                where=view.image.path,
                fix=_FIX,
            )
        if network.reach[i] > DRIFT_REACH:
            warnings.append(
                f"{view.name}: tie points cover a small part of what it shares with other images; its drift is not "
                "estimated"
            )
    groups = _groups(network)
    if len(groups) > 1:
        names = "; ".join(", ".join(network.views[i].name for i in g) for g in groups)
        warnings.append(f"no tie points join these groups of images, so their heights may disagree: {names}")
    return tuple(warnings)


def _groups(network: Network) -> list[list[int]]:
    """Views that tie points join, directly or through others."""
    used, n = network.adjustment.used, len(network.views)
    view, track = network.ties.view[used], network.ties.track[used]
    size = n + network.ties.n_tracks
    graph = coo_array((np.ones(len(view)), (view, n + track)), shape=(size, size))
    label = connected_components(graph, directed=False)[1][:n]
    return [np.flatnonzero(label == k).tolist() for k in np.unique(label)]
