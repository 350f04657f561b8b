"""Significant cells grouped into regions: cells, parts, height change, volumes with their sigma."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from terrain3d.change.filters import Array
from terrain3d.change.stable import StableStatistics

HOLE_AREA = 30.0  # m2; smaller holes in a region are closed
EDGE_SIGMA_CELLS = 0.5  # how well the outline is known
CORE = 1.5  # metres from the rim
GROUND_MOVED = 1.0  # metres at least, averaged over 10 m
GROUND_Z = 1.5  # of the sigma of the grounds' difference, most of which is common to many cells
PART_AREA = 80.0  # m2 of a part whose ground moved
PART_OPENING = 3.0  # metres, radius: what is narrower is the noise of a ground under trees
STILL_REACH = 10.0  # metres from the nearest ground that moved, beyond which ground is taken to be still
STILL_AREA = 300.0  # m2 of a part whose ground did not move
GROUND_RANGE = 40.0  # metres over which errors of a ground interpolated below trees are alike


@dataclass(frozen=True)
class Patch:
    """Connected cells that rose (sign 1) or fell (-1): ``cells`` within the window that starts at (row, column).

    ground: 1 or -1 where the ground is known to have risen or sunk, whatever the surface did; else 0.
    """

    sign: int
    row: int
    column: int
    cells: NDArray[np.bool_]
    ground: int = 0

    @property
    def where(self) -> tuple[slice, slice]:
        """Slices of the scene that hold the cells."""
        height, width = self.cells.shape
        return slice(self.row, self.row + height), slice(self.column, self.column + width)

    def window(self, margin: int, shape: tuple[int, int]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """Slices of the scene, widened by ``margin`` cells as far as it reaches, and the cells within them."""
        top, left = max(self.row - margin, 0), max(self.column - margin, 0)
        bottom = min(self.row + self.cells.shape[0] + margin, shape[0])
        right = min(self.column + self.cells.shape[1] + margin, shape[1])
        cells = np.zeros((bottom - top, right - left), bool)
        r, c = self.row - top, self.column - left
        cells[r : r + self.cells.shape[0], c : c + self.cells.shape[1]] = self.cells
        return (slice(top, bottom), slice(left, right)), cells


@dataclass(frozen=True)
class Measures:
    """area m2; mean_dz and its sigma, extreme_dz (99th percentile of the patch's own direction) m; volume m3 (positive:
    gained) and its sigma; ground_volume of the bare earth and its sigma, NaN where no ground is known; share of the
    area measured in both epochs. certainty: mean size of the height change over its sigma, of typical cells rather than
    of all: a few that are hardly known make a volume doubtful, but not that there is a change; nor does a deposit on
    felled trees, where the surface rose here and sank there. stand_certainty: mean height change over its sigma where
    crowns err by themselves (``StableStatistics.stand_sigma``)."""

    area: float
    mean_dz: float
    mean_dz_sigma: float
    extreme_dz: float
    volume: float
    volume_sigma: float
    ground_volume: float
    ground_volume_sigma: float
    measured_share: float
    certainty: float
    stand_certainty: float


def make_patch(sign: int, row: int, column: int, cells: NDArray[np.bool_], opposite: NDArray[np.bool_],
               resolution: float) -> Patch:  # fmt: skip
    """A patch with its small holes closed, but for cells that changed the other way."""
    return Patch(sign, row, column, _without_small_holes(cells, round(HOLE_AREA / resolution**2)) & ~opposite)


def _without_small_holes(cells: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    holes, n = ndimage.label(ndimage.binary_fill_holes(cells) & ~cells)
    if n == 0:
        return cells
    small = np.bincount(holes.ravel()) <= most
    small[0] = False
    return np.asarray(cells | small[holes])


def split_by_ground(patch: Patch, change: Array, sigma: Array | None, resolution: float) -> list[Patch]:
    """A patch cut where its ground rose, sank and stayed: one loss of trees may be a slide's source, its deposit and a
    stand that was felled beside it.

    change: of the ground, averaged over some metres, and its sigma (None: not known), metres, of the patch's window.
    Parts too small to tell stay with the next one.
    """
    limit = np.float32(GROUND_MOVED)
    if sigma is not None:
        known = sigma[patch.cells & np.isfinite(sigma)]
        limit = np.float32(max(GROUND_MOVED, GROUND_Z * float(np.median(known)))) if known.size else limit
    with np.errstate(invalid="ignore"):
        moved = {s: _opened(patch.cells & (s * change > limit), PART_OPENING / resolution) for s in (1, -1)}
    parts = {s: _large_parts(m, PART_AREA / resolution**2) for s, m in moved.items()}
    seeds = np.zeros(patch.cells.shape, np.uint8)
    seeds[parts[1]], seeds[parts[-1]] = 1, 2
    if not seeds.any():
        return [patch]
    away = cv2.distanceTransform((seeds == 0).astype(np.uint8), cv2.DIST_L2, 5) * resolution
    still = _large_parts(
        _opened(patch.cells & (away > STILL_REACH), PART_OPENING / resolution), STILL_AREA / resolution**2
    )
    seeds[still] = 3
    nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
    label = seeds[nearest[0], nearest[1]]
    return [
        replace(patch, cells=patch.cells & (label == k), ground=s)
        for k, s in ((1, 1), (2, -1), (3, 0))
        if np.any(patch.cells & (label == k))
    ]


def _opened(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Parts of a mask wider than twice the radius (cells)."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1] > radius
    return np.asarray(mask & (cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 5) <= radius))


def _large_parts(mask: NDArray[np.bool_], least: float) -> NDArray[np.bool_]:
    labels, _ = ndimage.label(mask)
    large = np.bincount(labels.ravel()) >= least
    large[0] = False
    return np.asarray(large[labels])


def measure(
    cells: NDArray[np.bool_],
    difference: Array,
    sigma: Array,
    stable: StableStatistics,
    resolution: float,
    closed: Array | None = None,
    ground_change: Array | None = None,
    ground_sigma: Array | None = None,
    bias: float = 0.0,
) -> Measures:
    """Area, height change and volumes of the cells of a window, with sigma.

    The volume's sigma has three parts: the registration error, common to all cells, counts with the whole area;
    random errors average out over areas that are many times as large as their correlation reaches
    (``StableStatistics.mean_sigma``); and the outline is known to half a cell, all of it in or out together at worst.
    bias: 1-sigma of an error common to all cells, as a share of the height change, in all of these sigmas.
    Cells without difference take that of the ``closed`` surfaces, or the mean of the others.
    """
    cell = resolution**2
    area = float(np.count_nonzero(cells) * cell)
    d, s = difference[cells], sigma[cells]
    known = np.isfinite(d)
    mean = float(d[known].mean(dtype=np.float64))
    if closed is not None:
        whole = np.where(known, d, closed[cells])
        mean = float(np.where(np.isfinite(whole), whole, mean).mean(dtype=np.float64))
    # Cells at the rim are uncertain because it is not known on which side of the edge they lie; that counts below.
    core = inner_part(cells, CORE / resolution) & np.isfinite(difference)
    inner = sigma[core] if core.any() else s[known]
    variance = float(np.mean(np.square(inner, dtype=np.float64)))
    mean_sigma = stable.mean_sigma(variance, area)
    mean_sigma = sqrt(mean_sigma**2 + (bias * mean) ** 2)
    rim = cells & ~ndimage.binary_erosion(cells)
    at_rim = difference[rim & np.isfinite(difference)]
    edge = float(np.abs(at_rim).mean()) if at_rim.size else abs(mean)
    outline = np.count_nonzero(rim) * resolution * EDGE_SIGMA_CELLS * resolution * edge
    ground = _ground_volume(cells, ground_change, ground_sigma, stable, cell)
    return Measures(
        area=area,
        mean_dz=mean,
        mean_dz_sigma=mean_sigma,
        extreme_dz=float(np.percentile(d[known], 99 if mean > 0 else 1)),
        volume=mean * area,
        volume_sigma=sqrt((mean_sigma * area) ** 2 + outline**2),
        ground_volume=ground[0],
        ground_volume_sigma=ground[1],
        measured_share=float(known.mean()),
        certainty=float(np.abs(d[known]).mean(dtype=np.float64))
        / max(stable.mean_sigma(float(np.median(inner)) ** 2, area), 1e-3),
        stand_certainty=abs(mean) / max(stable.stand_sigma(variance, area), 1e-3),
    )


def _ground_volume(
    cells: NDArray[np.bool_], change: Array | None, sigma: Array | None, stable: StableStatistics, cell: float
) -> tuple[float, float]:
    """Volume (m3) that the bare earth gained, and its sigma; NaN where no ground is known."""
    if change is None:
        return float("nan"), float("nan")
    d = change[cells]
    known = np.isfinite(d)
    if not known.any():
        return float("nan"), float("nan")
    area = d.size * cell
    spread = 1.0 if sigma is None else float(np.sqrt(np.nanmean(np.square(sigma[cells][known], dtype=np.float64))))
    alike = min(1.0, 2 * np.pi * (GROUND_RANGE / 3) ** 2 / area)
    return float(d[known].mean()) * area, area * float(np.hypot(spread * np.sqrt(alike), stable.registration))


def ring(cells: NDArray[np.bool_], inner: float, outer: float) -> NDArray[np.bool_]:
    """Cells outside a patch, from ``inner`` to ``outer`` cells away from it."""
    distance = cv2.distanceTransform((~cells).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray((distance > inner) & (distance <= outer))


def inner_part(cells: NDArray[np.bool_], depth: float) -> NDArray[np.bool_]:
    """Cells of a patch more than ``depth`` cells from its outside; the deepest half of a thin one."""
    distance = cv2.distanceTransform(np.pad(cells, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    deep = distance > depth
    if np.count_nonzero(deep) < 0.2 * np.count_nonzero(cells):
        deep = cells & (distance >= np.median(distance[cells]))
    return np.asarray(deep)


def solidity(cells: NDArray[np.bool_]) -> float:
    """Area of a patch over that of its convex hull: 1 for a rectangle, 0.75 for an L, less for ragged stands."""
    rows, columns = np.nonzero(cells)
    corners = np.concatenate([np.stack([columns + i, rows + j], axis=1) for i in (0, 1) for j in (0, 1)])
    return rows.size / float(cv2.contourArea(cv2.convexHull(corners.astype(np.float32))))


def groups(found: list[Patch], distance: float, resolution: float) -> list[list[int]]:
    """Indices of patches that hang together by gaps of at most ``distance`` (m), in the order of the patches."""
    n = len(found)
    pairs = [(i, j) for i in range(n) for j in range(i) if within(found[i], found[j], distance / resolution)]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    _, label = connected_components(coo_array((np.ones(len(pairs)), (rows, columns)), shape=(n, n)), directed=False)
    return [np.flatnonzero(label == k).tolist() for k in range(int(label.max(initial=-1)) + 1)]


def within(first: Patch, second: Patch, reach: float) -> bool:
    """Whether the gap between two patches is at most ``reach`` cells."""
    (height, width), (height2, width2) = first.cells.shape, second.cells.shape
    rows = max(second.row - first.row - height, first.row - second.row - height2)
    columns = max(second.column - first.column - width, first.column - second.column - width2)
    if max(rows, columns) > reach:
        return False
    both = merged([first, second])
    away = np.ones(both.cells.shape, np.uint8)
    r, c = first.row - both.row, first.column - both.column
    away[r : r + height, c : c + width] = ~first.cells
    distance = cv2.distanceTransform(away, cv2.DIST_L2, 5)
    r, c = second.row - both.row, second.column - both.column
    return bool(distance[r : r + height2, c : c + width2][second.cells].min() <= reach)


def merged(parts: list[Patch]) -> Patch:
    """Patches of one sign as one, whose cells need not touch."""
    if len(parts) == 1:
        return parts[0]
    top, left = min(p.row for p in parts), min(p.column for p in parts)
    bottom, right = max(p.row + p.cells.shape[0] for p in parts), max(p.column + p.cells.shape[1] for p in parts)
    cells = np.zeros((bottom - top, right - left), bool)
    for p in parts:
        r, c = p.row - top, p.column - left
        cells[r : r + p.cells.shape[0], c : c + p.cells.shape[1]] |= p.cells
    return replace(parts[0], row=top, column=left, cells=cells)


def gaps_closed(number: int, found: list[Patch], radius: float) -> Patch:
    """One of the patches with its holes and its gaps of up to twice the radius (cells) filled, but for cells of the
    others."""
    own = found[number]
    pad = 2 * int(np.ceil(radius)) + 2
    inside = (
        cv2.distanceTransform(np.pad(~own.cells, pad, constant_values=True).astype(np.uint8), cv2.DIST_L2, 5) <= radius
    )
    away = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5) > radius
    cells = own.cells | ndimage.binary_fill_holes(away[pad:-pad, pad:-pad])
    height, width = cells.shape
    for k, other in enumerate(found):
        row, column = other.row - own.row, other.column - own.column
        rows = slice(max(row, 0), min(row + other.cells.shape[0], height))
        columns = slice(max(column, 0), min(column + other.cells.shape[1], width))
        if k != number and rows.start < rows.stop and columns.start < columns.stop:
            part = other.cells[rows.start - row : rows.stop - row, columns.start - column : columns.stop - column]
            cells[rows, columns] &= ~part
    return replace(own, cells=cells)
