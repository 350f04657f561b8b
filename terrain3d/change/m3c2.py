"""Distance between two point clouds along local normals, M3C2 (Lague, Brodu & Leroux 2013, ISPRS J. 82, 10-26).

A difference of height rasters measures steep faces badly: a bank that gives way by a metre shows as many metres, or as
nothing. Here the distance is taken along the normal of the surface at each core point.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from terrain3d.errors import OverlapError

Floats = NDArray[np.float64]
CHUNK = 4000  # core points at a time
CONFIDENCE_95 = 1.96
NORMAL_SPACINGS, CYLINDER_SPACINGS = 1.15, 2.3  # default radii over the mean distance of points on the ground
HALF_LENGTH_RADII = 2.0  # default half length of the cylinder, in its radii
NORMAL_SIGMAS = 20.0  # a normal is then off by less than some 2 degrees (Lague et al., section 4.1)
LEAST_FOR_NORMAL = 3
LEAST_FOR_LIMIT = 4  # a standard deviation of fewer says nothing


@dataclass(frozen=True)
class M3C2Options:
    """Lengths in the unit of the coordinates.

    normal_radius: of the ball whose points of the first cloud give the normal. cylinder_radius, half_length: of the
    cylinder along the normal whose points are averaged in both clouds. registration: 1-sigma of the co-registration,
    which does not average out. least_points: in the cylinder, of each cloud, without which there is no distance.
    """

    normal_radius: float
    cylinder_radius: float
    half_length: float
    registration: float = 0.0
    least_points: int = 1


@dataclass(frozen=True)
class M3C2Distances:
    """One row a core point. distance: (N,) from the first to the second cloud, positive along the normal, which points
    up; NaN where a cloud has too few points. limit: (N,) smallest distance that is significant at 95 %, NaN with fewer
    than four points in a cloud. spread_before, spread_after: (N,) standard deviations along the normal, n_before,
    n_after: (N,) points. normals: (N, 3)."""

    distance: Floats
    limit: Floats
    spread_before: Floats
    spread_after: Floats
    n_before: NDArray[np.int64]
    n_after: NDArray[np.int64]
    normals: Floats

    @property
    def significant(self) -> NDArray[np.bool_]:
        """(N,) whether the distance exceeds its limit."""
        return np.asarray(np.abs(self.distance) > self.limit)


def default_options(spacing: float, sigma: float = 0.0, registration: float = 0.0) -> M3C2Options:
    """Radii that fit the spacing of points, and their noise ``sigma`` where it is known."""
    normal = max(NORMAL_SPACINGS * spacing, NORMAL_SIGMAS * sigma)
    cylinder = max(CYLINDER_SPACINGS * spacing, normal)
    return M3C2Options(normal, cylinder, HALF_LENGTH_RADII * cylinder, registration)


def point_spacing(parts: Iterable[Floats], low: Floats, high: Floats, count: int) -> float:
    """Mean distance of points on the ground: the side of the square that one has, over the cells that hold any.

    parts: all ``count`` points, (N, 3) each, between ``low`` and ``high``. Raises OverlapError for fewer than three.
    """
    if count < LEAST_FOR_NORMAL:
        raise OverlapError(f"a cloud has {count} points", fix="give clouds of the same place")
    extent = (high - low)[:2]
    cell = max(4 * float(np.sqrt(max(extent[0] * extent[1], 1e-12) / count)), 1e-6)
    found = [np.unique(np.floor((p[:, :2] - low[:2]) / cell).astype(np.int64), axis=0) for p in parts]
    return float(np.sqrt(len(np.unique(np.concatenate(found), axis=0)) * cell * cell / count))


def core_points(points: Floats, spacing: float) -> Floats:
    """One point of each cube of ``spacing``, the nearest to its middle: even cover, also on walls."""
    key = np.floor(points / spacing)
    away = np.linalg.norm(points / spacing - key - 0.5, axis=1)
    order = np.lexsort((away, key[:, 2], key[:, 1], key[:, 0]))
    first = np.r_[True, np.any(np.diff(key[order], axis=0) != 0, axis=1)]
    return np.asarray(points[np.sort(order[first])])


def m3c2(before: Floats, after: Floats, core: Floats, options: M3C2Options) -> M3C2Distances:
    """Distances from ``before`` to ``after``, (N, 3) points of one metric frame, at ``core`` (M, 3).

    The limit is 1.96 (sqrt(s1^2 / n1 + s2^2 / n2) + registration), equation 1 of the paper.
    """
    first, second = cKDTree(before), cKDTree(after)
    parts = []
    for start in range(0, len(core), CHUNK):
        here = core[start : start + CHUNK]
        axes = normals(before, first, here, options.normal_radius)
        parts.append((axes, *_along(before, first, here, axes, options), *_along(after, second, here, axes, options)))
    columns = [np.concatenate([p[k] for p in parts]) if parts else np.zeros(0) for k in range(7)]
    axes, mean1, spread1, n1, mean2, spread2, n2 = columns
    enough = np.minimum(n1, n2) >= max(options.least_points, 1)
    distance = np.where(enough, mean2 - mean1, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        limit = CONFIDENCE_95 * (np.sqrt(spread1**2 / n1 + spread2**2 / n2) + options.registration)
    return M3C2Distances(
        distance=distance,
        limit=np.where(np.minimum(n1, n2) >= LEAST_FOR_LIMIT, limit, np.nan),
        spread_before=spread1,
        spread_after=spread2,
        n_before=n1.astype(np.int64),
        n_after=n2.astype(np.int64),
        normals=axes.reshape(-1, 3),
    )


def joined(parts: Sequence[M3C2Distances]) -> M3C2Distances:
    """Distances of some core points after the other as one."""
    return M3C2Distances(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(M3C2Distances)})


def normals(points: Floats, tree: cKDTree, core: Floats, radius: float) -> Floats:
    """Unit normals (M, 3) at core points, of the plane through the points within ``radius``, pointing up.

    NaN where fewer than three points are that near.
    """
    out = np.full((len(core), 3), np.nan)
    members, starts, which = _members(tree, core, radius, LEAST_FOR_NORMAL)
    if which.size == 0:
        return out
    counts = np.diff(np.r_[starts, len(members)])
    near = points[members] - np.repeat(core[which], counts, axis=0)
    centre = np.add.reduceat(near, starts, axis=0) / counts[:, None]
    off = near - np.repeat(centre, counts, axis=0)
    products = off[:, :, None] * off[:, None, :]
    _, vectors = np.linalg.eigh(np.add.reduceat(products, starts, axis=0))
    axis = vectors[:, :, 0]
    out[which] = axis * np.where(axis[:, 2:] < 0, -1.0, 1.0)
    return out


def _along(
    points: Floats, tree: cKDTree, core: Floats, axes: Floats, options: M3C2Options
) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and number of the points in the cylinders, along their axes from the core points."""
    mean, spread, number = np.full(len(core), np.nan), np.full(len(core), np.nan), np.zeros(len(core))
    known = np.isfinite(axes[:, 0])
    for some in _portions(np.flatnonzero(known)):
        reach = float(np.hypot(options.cylinder_radius, options.half_length))
        members, starts, which = _members(tree, core[some], reach, 1)
        if which.size == 0:
            continue
        counts = np.diff(np.r_[starts, len(members)])
        owner = np.repeat(some[which], counts)
        away = points[members] - core[owner]
        along = np.einsum("ij,ij->i", away, axes[owner])
        across2 = np.einsum("ij,ij->i", away, away) - along * along
        inside = (across2 <= options.cylinder_radius**2) & (np.abs(along) <= options.half_length)
        owner, along = owner[inside], along[inside]
        n = np.bincount(owner, minlength=len(core))
        with np.errstate(invalid="ignore"):
            m = np.bincount(owner, along, len(core)) / n
            v = np.bincount(owner, (along - m[owner]) ** 2, len(core)) / n
        mean[some], spread[some], number[some] = m[some], np.sqrt(v[some]), n[some]
    return mean, spread, number


def _portions(which: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Few enough at a time for the points of all their cylinders to be in memory together."""
    for start in range(0, len(which), CHUNK // 4):
        yield which[start : start + CHUNK // 4]


def _members(
    tree: cKDTree, core: Floats, radius: float, least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the points near each core point one after the other, where each begins, and which have ``least``."""
    found = tree.query_ball_point(core, radius)
    which = np.array([k for k, f in enumerate(found) if len(f) >= least], np.int64)
    if which.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), which
    lengths = np.array([len(found[k]) for k in which])
    members = np.concatenate([np.asarray(found[k], np.int64) for k in which])
    return members, np.r_[0, np.cumsum(lengths)[:-1]], which
