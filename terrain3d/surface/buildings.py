"""Buildings too large to be told from a canopy by the ground seen around each of their cells.

Where a surface hides its ground over tens of metres, the estimate of the ground under trees takes what stands there for
a stand of trees. Two things tell a building from one: a part of its roof is smooth as no canopy is; and it stands tens
of metres over level ground that is seen close around it, which a stand of trees or a cut ridge hides.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.disks import disk
from terrain3d.surface.land import BEND, BEND_REACH, LEAST_AREA, WIDEST_AREA, bend

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

# Forests of scenes with exact truth have no smooth part at all up to cells of so many metres; windows of matching
# smooth a canopy where cells are larger, so that the part must be as much larger.
_HIGH, _ROOF_RADIUS, _CROWNS = 6.0, 4.0, 0.5  # m: least height, radius of a smooth part of a roof, and that cell
_TALL = 30.0  # m over the ground, few canopies are
_CLOSE, _AROUND = 5.0, 20.0  # m from the wall, between which its ground is looked for: past the blur of matching
_SEEN, _STEEP = 0.35, 0.3  # share of it that is seen, voids beside towers left out; slope. Forests: 0.17 and less
_TO_FOOT, _OF_WALL = 20.0, 0.5  # m from a roof to the foot of its wall; share of its height over which that wall is


def buildings(z: Singles, ok: Bools, seen: Bools, ground: Singles, slope: Singles, cell: float, fine: float) -> Bools:
    """Cells of buildings, and of what stands as high close beside them, (h, w).

    z, ground, slope: (h, w) surface and terrain under it, metres, everywhere, and its rise over run. ok: cells with
    evidence; seen: those of them on the ground. cell: metres. fine: of the cells that were matched, metres.
    """
    above = z - ground
    roof = _smooth_roofs(z, above, ok, cell, fine) | _towers(above, seen, slope, cell)
    height = cv2.dilate(np.where(roof, above, np.float32(0)), disk(_TO_FOOT / cell))
    return np.asarray((height > 0) & (above > _OF_WALL * height))


def _smooth_roofs(z: Singles, above: Singles, ok: Bools, cell: float, fine: float) -> Bools:
    wider = max(fine / _CROWNS, 1.0)
    smooth = (ok & (above > _HIGH) & (bend(z, cell, wider * BEND_REACH) < BEND)).astype(np.uint8)
    return cv2.morphologyEx(smooth, cv2.MORPH_OPEN, disk(wider * _ROOF_RADIUS / cell)) > 0


def _towers(above: Singles, seen: Bools, slope: Singles, cell: float) -> Bools:
    """Tall pieces with level ground seen around them."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats((above > _TALL).astype(np.uint8), connectivity=4)
    found = np.zeros(above.shape, bool)
    area = stats[:, cv2.CC_STAT_AREA] * cell**2
    margin = round(_AROUND / cell) + 1
    for i in np.flatnonzero((area >= LEAST_AREA) & (area <= WIDEST_AREA) & (np.arange(n) > 0)):
        left, top, width, height = (int(v) for v in stats[i, :4])
        window = np.s_[max(top - margin, 0) : top + height + margin, max(left - margin, 0) : left + width + margin]
        piece = (labels[window] == i).astype(np.uint8)
        ring = (cv2.dilate(piece, disk(_AROUND / cell)) > 0) & (cv2.dilate(piece, disk(_CLOSE / cell)) == 0)
        near = seen[window][ring]
        if near.size and near.mean() >= _SEEN and np.median(slope[window][ring]) < _STEEP:
            found[window] |= piece > 0
    return found
