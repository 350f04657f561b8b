"""Contour lines of a height raster that comes in strips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np
import shapely
from contourpy import contour_generator
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terrain3d.raster import Grid, Raster

_DECIMALS = 3  # of a metre; lines of neighbouring strips meet in equal points


@dataclass(frozen=True)
class Contours:
    """Lines (n,) of shapely, height of each (m), and whether it is an index contour."""

    lines: NDArray[np.object_]
    height: NDArray[np.float64]
    index: NDArray[np.bool_]


def contours(strips: Iterable[Raster], interval: float, index_every: int = 5) -> Contours:
    """Contours at multiples of ``interval`` (m); every ``index_every``-th of them is an index contour.

    strips: from the north, each beginning with the last row of the one before. Lines end at cells without value.
    """
    pieces: dict[int, list[BaseGeometry]] = defaultdict(list)
    for strip in strips:
        for level, found in _of_strip(strip, interval).items():
            pieces[level].extend(found)
    joined = {level: _joined(pieces[level]) for level in sorted(pieces)}
    number = np.concatenate([np.empty(0, np.int64), *(np.full(len(v), k) for k, v in joined.items())]).astype(np.int64)
    lines = np.array([line for of_level in joined.values() for line in of_level], dtype=object)
    return Contours(lines, np.asarray(number * interval, float), number % index_every == 0)


def smoothed(heights: NDArray[np.float32], sigma_cells: float) -> NDArray[np.float32]:
    """Heights under a Gaussian of that deviation; cells without value stay without and weigh nothing."""
    if sigma_cells <= 0:
        return heights
    known = np.isfinite(heights)
    base = np.float32(np.mean(heights[known], dtype=np.float64)) if known.any() else np.float32(0)
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), sigma_cells)
    total = cv2.GaussianBlur(np.where(known, heights - base, np.float32(0)), (0, 0), sigma_cells)
    return np.where(known, total / np.maximum(weight, 1e-6) + base, np.float32(np.nan)).astype(np.float32)


def _of_strip(strip: Raster, interval: float) -> dict[int, list[BaseGeometry]]:
    z = np.asarray(strip.values, np.float64)
    if min(z.shape) < 2 or not np.isfinite(z).any():
        return {}
    x, y = strip.grid.centres()
    low, high = ceil(np.nanmin(z) / interval), floor(np.nanmax(z) / interval)
    # a level that a node meets exactly, as on flattened water, would be drawn around every cell
    shifted = z + 1e-6
    generator = contour_generator(x, y, np.ma.masked_invalid(shifted), name="serial")
    out = {}
    for level in range(low, high + 1):
        lines = (np.asarray(line, float) for line in generator.lines(level * interval))
        out[level] = [shapely.LineString(np.round(line, _DECIMALS)) for line in lines if len(line) > 1]
    return out


def _joined(lines: list[BaseGeometry]) -> list[BaseGeometry]:
    """Lines whose ends meet, made one."""
    long = [line for line in lines if line.length > 0]
    if not long:
        return []
    merged = shapely.line_merge(shapely.multilinestrings(long))
    return [g for g in shapely.get_parts(merged) if not g.is_empty]


def strip_windows(grid: Grid, rows: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Strips that share a row, with a margin: first row and number of rows to read, then those of them that count."""
    out = []
    for top in range(0, max(grid.height - 1, 1), rows):
        bottom = min(top + rows + 1, grid.height)
        first, last = max(top - margin, 0), min(bottom + margin, grid.height)
        out.append((first, last - first, top - first, bottom - top))
    return out
