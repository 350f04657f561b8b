"""Tie points between views: descriptor matches gated by the epipolar geometry of the RPCs, joined to tracks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from terrain3d.adjust.keypoints import Keypoints
from terrain3d.image.view import View, ground_sample_distance, lean

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

RATIO = 0.85  # of the distances to the best and to the second best descriptor (Lowe 2004)
POINTING_PX = 40.0  # how far the RPCs of two images may disagree across the epipolar line
WIDER_POINTING_PX = (150.0, 600.0)  # tried where no common offset shows
NEIGHBOURS = 8
RELIEF_PX = 15.0  # roofs and crowns may stand off the ties around by this much
AGREEMENT_PX = 2.5  # how far a tie may lie from the smooth disagreement of its pair
_CHUNK = 1024


@dataclass(frozen=True)
class Ties:
    """Observations of ground points in views, one row an observation. ``track`` numbers the ground points from 0."""

    view: Integers
    track: Integers
    line: Floats
    sample: Floats

    @property
    def n_tracks(self) -> int:
        return int(self.track.max()) + 1 if len(self.track) else 0


def tie_views(
    views: list[View],
    keypoints: list[Keypoints],
    crs: str,
    heights: tuple[float, float],
    *,
    pointing_px: float = POINTING_PX,
    threads: int = 1,
) -> Ties:
    """Ties of all pairs of views whose ground overlaps, as tracks over as many views as see the point.

    heights: lowest and highest ellipsoidal height that the scene can have. pointing_px: how far the cameras may
    disagree across the epipolar line.
    """
    pairs = list(combinations(range(len(views)), 2))

    def match(pair: tuple[int, int]) -> Integers:
        i, j = pair
        return match_pair(views[i], views[j], keypoints[i], keypoints[j], crs, heights, pointing_px)

    with ThreadPoolExecutor(threads) as pool:
        return _join(keypoints, dict(zip(pairs, pool.map(match, pairs), strict=True)))


def match_pair(
    first: View,
    second: View,
    a: Keypoints,
    b: Keypoints,
    crs: str,
    heights: tuple[float, float],
    pointing_px: float,
) -> Integers:
    """Mutual best matches (M, 2) of key points that agree with the relative geometry of the two cameras.

    Both sets are laid on the plane at the mean height. There a common point differs by the relief, along one known
    direction and within known limits, and by the pointing error of the RPCs, which is smooth over the pair.
    """
    if len(a) < 2 or len(b) < 2:
        return np.empty((0, 2), np.int64)
    low, high = heights
    middle = (low + high) / 2
    pa = np.column_stack(first.locate(crs, a.line, a.sample, middle))
    pb = np.column_stack(second.locate(crs, b.line, b.sample, middle))
    relative = lean(first, crs, middle) - lean(second, crs, middle)
    base = float(np.hypot(*relative))
    along = relative / max(base, 1e-9)
    across = np.array([-along[1], along[0]])
    gsd = ground_sample_distance(first, crs, middle)
    at, bt = (pa @ along, pa @ across), (pb @ along, pb @ across)
    for gate_px in (pointing_px, *(g for g in WIDER_POINTING_PX if pointing_px == POINTING_PX)):
        best = _mutual_best(a, b, at, bt, base * (high - low) / 2 + gate_px * gsd, gate_px * gsd)
        offset = ((pa[best[:, 0]] - pb[best[:, 1]]) @ across) / gsd
        agreed = _agrees(offset, pa[best[:, 0]]) if len(best) >= 3 else np.zeros(len(best), bool)
        if agreed.sum() > _by_chance(len(best), gate_px):
            best = best[agreed]
            return best[_height_agrees(((pa[best[:, 0]] - pb[best[:, 1]]) @ along) / gsd, pa[best[:, 0]])]
    return np.empty((0, 2), np.int64)


def _by_chance(n: int, gate_px: float) -> float:
    """Most of ``n`` wrong matches, spread evenly over the gate, that would seem to agree with each other."""
    share = min(2 * AGREEMENT_PX / gate_px, 1.0)
    return 0.0 if share > 0.5 else n * share + 4 * float(np.sqrt(n * share)) + 4


def _height_agrees(offset: Floats, place: Floats) -> NDArray[np.bool_]:
    """Ties whose offset along the epipolar line (px) is near that of the ties around: a wrong match on the same line
    cannot be told by its offset across."""
    if len(offset) <= NEIGHBOURS:
        return np.ones(len(offset), bool)
    _, index = cKDTree(place).query(place, k=NEIGHBOURS + 1)
    around = offset[index[:, 1:]]
    middle = np.median(around, axis=1)
    spread = np.median(np.abs(around - middle[:, None]), axis=1)
    return np.asarray(np.abs(offset - middle) < RELIEF_PX + 5 * spread)


def _mutual_best(
    a: Keypoints,
    b: Keypoints,
    at: tuple[Floats, Floats],
    bt: tuple[Floats, Floats],
    gate_along: float,
    gate_across: float,
) -> Integers:
    """Matches that are each other's best among the candidates inside the gates and pass the ratio test both ways."""
    order_b = np.argsort(bt[1])
    sorted_across = bt[1][order_b]
    order_a = np.argsort(at[1])
    best_b = np.full(len(a), -1)
    best_of_b, owner_of_b = np.full(len(b), -1.0), np.full(len(b), -1)
    for start in range(0, len(a), _CHUNK):
        rows = order_a[start : start + _CHUNK]
        lo = np.searchsorted(sorted_across, at[1][rows[0]] - gate_across)
        hi = np.searchsorted(sorted_across, at[1][rows[-1]] + gate_across)
        columns = order_b[lo:hi]
        if len(columns) < 2:
            continue
        similarity = a.descriptor[rows] @ b.descriptor[columns].T
        far = np.abs(at[0][rows][:, None] - bt[0][columns]) > gate_along
        far |= np.abs(at[1][rows][:, None] - bt[1][columns]) > gate_across
        similarity[far] = -1
        top = similarity.argmax(axis=1)
        value = similarity[np.arange(len(rows)), top]
        similarity[np.arange(len(rows)), top] = -1
        second = similarity.max(axis=1)
        good = (value > 0) & (2 - 2 * value < RATIO**2 * (2 - 2 * np.maximum(second, 0)))
        best_b[rows[good]] = columns[top[good]]
        for r, c, v in zip(rows[good], columns[top[good]], value[good], strict=True):
            if v > best_of_b[c]:
                best_of_b[c], owner_of_b[c] = v, r
    ia = np.flatnonzero(best_b >= 0)
    return np.column_stack([ia, best_b[ia]])[owner_of_b[best_b[ia]] == ia]


def _agrees(offset: Floats, place: Floats) -> NDArray[np.bool_]:
    """Ties that lie near the mode of the offsets across the epipolar line, then near a plane fitted there."""
    centres = np.sort(offset)
    count = np.searchsorted(centres, centres + AGREEMENT_PX) - np.searchsorted(centres, centres - AGREEMENT_PX)
    keep = np.abs(offset - centres[np.argmax(count)]) < 2 * AGREEMENT_PX
    if keep.sum() < 12:
        return keep
    design = np.column_stack([np.ones(len(offset)), (place - place.mean(axis=0)) / 1000])
    for _ in range(4):
        residual = offset - design @ np.linalg.lstsq(design[keep], offset[keep], rcond=None)[0]
        keep = np.abs(residual) < AGREEMENT_PX
        if keep.sum() < 12:
            break
    return keep


def _join(keypoints: list[Keypoints], matches: dict[tuple[int, int], Integers]) -> Ties:
    """Connected components of the matches; one that holds two points of the same view is contradictory and dropped."""
    offsets = np.cumsum([0, *(len(k) for k in keypoints)])
    edges = (
        np.concatenate([m + [offsets[i], offsets[j]] for (i, j), m in matches.items()])
        if matches
        else np.empty((0, 2), int)
    )
    if not len(edges):
        empty = np.empty(0, np.int64)
        return Ties(empty, empty, np.empty(0), np.empty(0))
    n = int(offsets[-1])
    _, label = connected_components(
        coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n, n)), directed=False
    )
    node = np.unique(edges)
    view = np.searchsorted(offsets, node, side="right") - 1
    track = label[node]
    pairs, count = np.unique(np.column_stack([track, view]), axis=0, return_counts=True)
    bad = np.unique(pairs[count > 1, 0])
    keep = ~np.isin(track, bad)
    node, view, track = node[keep], view[keep], np.unique(track[keep], return_inverse=True)[1]
    line = np.concatenate([k.line for k in keypoints])[node]
    sample = np.concatenate([k.sample for k in keypoints])[node]
    return Ties(view.astype(np.int64), track.astype(np.int64), line, sample)
