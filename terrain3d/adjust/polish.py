"""Ties to a few hundredths of a pixel: key points moved onto what one view of their track shows, by patch matching."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.normal import metres_per_unit
from terrain3d.adjust.patches import MARGIN_PX, cut_patches, match_patches
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.image.view import View, lean

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

HALF_PX = 7  # of the window
MAX_MOVE_PX = 1.5  # key points are found at half of the resolution
MAX_RETURN_PX = 0.5  # by which the way there and back may miss
MIN_LIKENESS = 0.5
MAX_OBSERVATIONS = 50_000  # 150 MB of patches; more ties tell nothing new


def polish_ties(views: list[View], ties: Ties, points: Floats, used: Bools, crs: str, height: float) -> Ties:
    """Those of the ``used`` observations that patch matching confirms, moved to where it finds them.

    views: with cameras of an adjustment to these ties, points: its ground points (T, 3). A track of which only one view
    remains is dropped.
    """
    thin = -(-int(used.sum()) // MAX_OBSERVATIONS)
    place, found = measure(views, ties, points, used & (ties.track % thin == 0), crs, height, MAX_MOVE_PX)
    track = np.unique(ties.track[found], return_inverse=True)[1]
    return Ties(ties.view[found], track, place[found, 0], place[found, 1])


def measure(
    views: list[View], ties: Ties, points: Floats, used: Bools, crs: str, height: float, max_move_px: float
) -> tuple[Floats, Bools]:
    """Places (N, 2) line, sample of observations as patch matching finds them, and which of the ``used`` it confirms.

    Every track is measured against the view of it that looks most like the others, there and back.
    """
    reference = _references(views, ties, used, crs, height)[ties.track]
    place = np.column_stack([ties.line, ties.sample])
    size = 2 * (HALF_PX + MARGIN_PX) + 3
    patch = np.full((len(place), size, size), np.nan, np.float32)
    for i, view in enumerate(views):
        mine = used & (ties.view == i)
        patch[mine] = cut_patches(view, ties.line[mine], ties.sample[mine], size // 2)
    found = used & (reference == np.arange(len(place)))
    measured = np.flatnonzero(used & ~found)
    pairs = np.column_stack([ties.view[reference[measured]], ties.view[measured]])
    for a, b in np.unique(pairs, axis=0):
        rows = measured[(pairs == (a, b)).all(axis=1)]
        at = points[ties.track[rows]]
        forth = _moves(views, (a, b), patch, place, at, (reference[rows], rows))
        home = _moves(views, (b, a), patch, place, at, (rows, reference[rows]))
        again = np.einsum("nij,nj->ni", local_geometry(views[a].camera, views[b].camera, at)[0], home)
        found[rows] = (np.hypot(*(forth + again).T) < MAX_RETURN_PX) & (np.hypot(*forth.T) < max_move_px)
        place[rows] += (forth - again) / 2
    found &= np.bincount(ties.track[found], minlength=ties.n_tracks)[ties.track] > 1
    return place, found


def local_geometry(first: Camera, second: Camera, points: Floats) -> tuple[Floats, Floats]:
    """Of ground points (N, 3) lon_deg, lat_deg, height: change of the place in the second view by that in the first on
    level ground (N, 2, 2), and unit direction there in which height moves a point (N, 2)."""
    unit = metres_per_unit(points)[:, None, :]
    a, b = first.jacobian(*points.T) / unit, second.jacobian(*points.T) / unit
    shape = b[..., :2] @ np.linalg.inv(a[..., :2])
    up = b[..., 2] - np.einsum("nij,nj->ni", shape, a[..., 2])
    return shape, up / np.maximum(np.linalg.norm(up, axis=1), 1e-12)[:, None]


def _references(views: list[View], ties: Ties, used: Bools, crs: str, height: float) -> NDArray[np.int64]:
    """Index of the observation of each track (T,) in the view that leans least against all others; -1 without any."""
    leans = np.array([lean(v, crs, height) for v in views])
    apart = np.linalg.norm(leans[:, None] - leans, axis=-1).sum(axis=1)
    rows = np.flatnonzero(used)
    rows = rows[np.lexsort((apart[ties.view[rows]], ties.track[rows]))]
    first = rows[np.flatnonzero(np.diff(ties.track[rows], prepend=-1))]
    out = np.full(ties.n_tracks, -1)
    out[ties.track[first]] = first
    return out


def _moves(
    views: list[View],
    pair: tuple[int, int],
    patch: Singles,
    place: Floats,
    points: Floats,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Floats:
    """Moves (N, 2) of the observations ``rows[1]`` in the second view of ``pair`` onto what ``rows[0]`` show in the
    first; NaN where nothing like it is found."""
    first, second = rows
    shape, epipolar = local_geometry(views[pair[0]].camera, views[pair[1]].camera, points)
    match = match_patches(patch[first], place[first], patch[second], place[second], shape, epipolar, HALF_PX)
    moves = np.column_stack([match.line, match.sample]) - place[second]
    return np.where((match.likeness > MIN_LIKENESS)[:, None], moves, np.nan)
