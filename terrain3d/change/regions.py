"""Significant cells grouped into regions: cells, outline, height change, volume with its sigma."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely import Polygon, make_valid
from shapely.geometry import MultiPolygon, shape
from shapely.geometry.base import BaseGeometry

from terrain3d.change.filters import Array
from terrain3d.change.stable import StableStatistics
from terrain3d.raster import Grid

HOLE_AREA = 30.0  # m2; smaller holes in a region are closed
EDGE_SIGMA_CELLS = 0.5  # how well the outline is known


@dataclass(frozen=True)
class Patch:
    """Connected cells that rose (sign 1) or fell (-1): ``cells`` within the window that starts at (row, column)."""

    sign: int
    row: int
    column: int
    cells: NDArray[np.bool_]

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
    """area m2; mean_dz m; volume m3 (positive: gained) and its sigma; share of the area measured in both epochs."""

    area: float
    mean_dz: float
    mean_dz_sigma: float
    volume: float
    volume_sigma: float
    measured_share: float


def patches(
    change: NDArray[np.int8], difference: Array, resolution: float, min_area: float, min_height: float
) -> Iterator[Patch]:
    """Patches of one sign, at least ``min_area`` (m2) large and ``min_height`` (m, median) high, north to south."""
    found: list[Patch] = []
    for sign in (1, -1):
        labels, _ = ndimage.label(change == sign)
        for index, where in enumerate(ndimage.find_objects(labels), 1):
            cells = labels[where] == index
            if np.count_nonzero(cells) * resolution**2 < min_area:
                continue
            if sign * np.nanmedian(difference[where][cells]) < min_height:
                continue
            opposite = change[where] == -sign
            filled = _without_small_holes(cells, round(HOLE_AREA / resolution**2)) & ~opposite
            found.append(Patch(sign, where[0].start, where[1].start, filled))
    yield from sorted(found, key=lambda p: (p.row, p.column, p.sign))


def _without_small_holes(cells: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    holes, n = ndimage.label(ndimage.binary_fill_holes(cells) & ~cells)
    if n == 0:
        return cells
    small = np.bincount(holes.ravel()) <= most
    small[0] = False
    return np.asarray(cells | small[holes])


def measure(patch: Patch, difference: Array, sigma: Array, stable: StableStatistics, grid: Grid) -> Measures:
    """Area, height change and volume of a patch, with sigma.

    The volume's sigma has three parts: the registration error, common to all cells, counts with the whole area;
    random errors average out over areas that are many correlation areas large; and the outline is known to half a
    cell, all of it in or out together at worst. Cells without difference take the mean of the others.
    """
    where, cells = patch.window(0, difference.shape)
    cell = grid.resolution**2
    area = float(np.count_nonzero(cells) * cell)
    d, s = difference[where][cells], sigma[where][cells]
    known = np.isfinite(d)
    mean = float(d[known].mean(dtype=np.float64))
    variance = float(np.mean(np.square(s[known], dtype=np.float64)))
    random = max(variance - stable.registration**2, 0.0) * min(1.0, stable.correlation_area / area)
    mean_sigma = sqrt(stable.registration**2 + random)
    rim = cells & ~ndimage.binary_erosion(cells)
    at_rim = difference[where][rim & np.isfinite(difference[where])]
    edge = float(np.abs(at_rim).mean()) if at_rim.size else abs(mean)
    outline = np.count_nonzero(rim) * grid.resolution * EDGE_SIGMA_CELLS * grid.resolution * edge
    return Measures(
        area=area,
        mean_dz=mean,
        mean_dz_sigma=mean_sigma,
        volume=mean * area,
        volume_sigma=sqrt((mean_sigma * area) ** 2 + outline**2),
        measured_share=float(known.mean()),
    )


def outline(patch: Patch, grid: Grid) -> Polygon | MultiPolygon:
    """Outline of a patch in the grid's CRS, its steps of cells smoothed to within one cell."""
    part = grid.window(patch.row, patch.column, *patch.cells.shape)
    found: list[BaseGeometry] = [
        shape(geometry)
        for geometry, value in shapes(patch.cells.astype(np.uint8), patch.cells, 4, Affine(*part.transform))
        if value
    ]
    whole = found[0] if len(found) == 1 else MultiPolygon(found)
    simple = make_valid(whole.simplify(grid.resolution))
    return simple if isinstance(simple, (Polygon, MultiPolygon)) and not simple.is_empty else whole


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
    pairs = [(i, j) for i in range(n) for j in range(i) if _within(found[i], found[j], distance / resolution)]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    _, label = connected_components(coo_array((np.ones(len(pairs)), (rows, columns)), shape=(n, n)), directed=False)
    return [np.flatnonzero(label == k).tolist() for k in range(int(label.max(initial=-1)) + 1)]


def _within(first: Patch, second: Patch, reach: float) -> bool:
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
    return Patch(parts[0].sign, top, left, cells)
