"""Outlines of changes: where the edge of an object lies, and straight edges for what was built."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage
from shapely import MultiPolygon, Polygon, make_valid
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from terrain3d.change.filters import Array
from terrain3d.change.regions import Patch, inner_part
from terrain3d.raster import Grid

HALF = 0.5  # of the object's height: where the smeared wall of a matched surface stands
STRAIGHTEN = 1.2  # metres, by which a straight edge may miss the stepped one
SNAP_DEG = 25.0  # from one of the two directions of a building
LIKENESS = 0.8  # overlap over union of a straightened outline and the cells


def trimmed(patch: Patch, difference: Array) -> Patch:
    """A building's patch cut back to the cells that changed by half its height: edges of a surface from matching are
    smeared outwards by a pixel or two, the middle of the smear is where the wall is.

    difference: of the patch's window.
    """
    core = inner_part(patch.cells, 2.0) & np.isfinite(difference)
    if np.count_nonzero(core) < 9:
        return patch
    height = float(np.median(difference[core]))
    with np.errstate(invalid="ignore"):
        high = (difference / height >= HALF) | ~np.isfinite(difference)
    labels, n = ndimage.label(patch.cells & high)
    if n == 0:
        return patch
    largest = labels == np.argmax(np.bincount(labels.ravel())[1:]) + 1
    cells = ndimage.binary_fill_holes(largest)
    # Chimneys and yards are no reason to lose a building.
    return replace(patch, cells=cells) if np.count_nonzero(cells) >= 0.5 * np.count_nonzero(patch.cells) else patch


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


def straight_outline(patch: Patch, grid: Grid) -> Polygon | MultiPolygon:
    """Outline with straight edges in two directions at right angles, as buildings have; that of ``outline`` where such
    a one would not fit the cells."""
    plain = outline(patch, grid)
    parts = list(plain.geoms) if isinstance(plain, MultiPolygon) else [plain]
    done = [_straightened(part, grid.resolution) for part in parts]
    return done[0] if len(done) == 1 else MultiPolygon(done)


def _straightened(polygon: Polygon, resolution: float) -> Polygon:
    ring = np.asarray(polygon.exterior.coords)[:-1]
    turn = _direction(ring)
    c, s = np.cos(turn), np.sin(turn)
    middle = ring.mean(axis=0)
    rotation = np.array([[c, -s], [s, c]])
    local = (ring - middle) @ rotation  # along the building's axes
    tolerance = max(STRAIGHTEN, 1.5 * resolution)
    candidates = [_right_angled(np.asarray(Polygon(local).simplify(t).exterior.coords)[:-1]) for t in
                  (tolerance, 2 * tolerance)]  # fmt: skip
    for inset in (0.0, resolution / 2):  # corners of stepped cells stick out of a turned rectangle
        (west, south), (east, north) = local.min(axis=0) + inset, local.max(axis=0) - inset
        candidates.append(np.array([[west, south], [east, south], [east, north], [west, north]]))
    area = Polygon(local).area
    best, best_score = polygon, LIKENESS
    for corners in candidates:
        if corners is None or len(corners) < 4:
            continue
        shape_ = Polygon(corners)
        if not shape_.is_valid or shape_.area <= 0:
            continue
        common = shape_.intersection(Polygon(local)).area
        score = common / (shape_.area + area - common) - 0.005 * len(corners)  # the simpler of two that fit alike
        if score > best_score:
            best, best_score = Polygon(corners @ rotation.T + middle), score
    return best


def _direction(ring: NDArray[np.float64]) -> float:
    """Direction of the building's axis: of the smallest rectangle around it, radians."""
    (_, _), (width, height), angle = cv2.minAreaRect((ring - ring.mean(axis=0)).astype(np.float32))
    return float(np.radians(angle if width >= height else angle + 90))


def _right_angled(corners: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Corners of the outline whose edges all run along the axes; None where an edge runs too much askew."""
    step = np.roll(corners, -1, axis=0) - corners
    length = np.hypot(step[:, 0], step[:, 1])
    angle = np.degrees(np.arctan2(np.abs(step[:, 1]), np.abs(step[:, 0])))
    askew = (angle > SNAP_DEG) & (angle < 90 - SNAP_DEG)
    if len(corners) < 4 or length[askew].sum() > 0.25 * length.sum():
        return None
    flat = angle <= 45
    middle = corners + step / 2
    # Runs of edges of one direction become one line, at the mean of their middles by length.
    starts = np.flatnonzero(flat != np.roll(flat, 1))
    if starts.size < 4:
        return None
    lines = []
    for a, b in zip(starts, np.r_[starts[1:], starts[0] + len(flat)], strict=True):
        run = np.arange(a, b) % len(flat)
        axis = 1 if flat[run[0]] else 0
        lines.append((axis, float(np.average(middle[run, axis], weights=np.maximum(length[run], 1e-9)))))
    out = []
    for (axis, at), (next_axis, next_at) in zip(lines, lines[1:] + lines[:1], strict=True):
        if axis == next_axis:
            return None
        out.append((next_at, at) if axis == 1 else (at, next_at))
    return np.array(out)
