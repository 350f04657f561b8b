"""Embankments, levees and dams of earth: what stands on the land as a house does, but on slopes instead of walls.

An opening cuts the crest of a road on a bank as it cuts a roof, and the crest falls off to nearly all sides as a roof
does. Three things tell it from one: earth lies at 40 degrees at most, so that a surface without a step leads from the
land up to it; along its own course it does not bend, as crowns do everywhere; and it is long, or so high that a wall
blurred by matching would be steeper. All is judged within tens of metres of a cell: a levee may run through many tiles
and have houses, trees and bridges beside it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.disks import disk
from terrain3d.surface.land import BEND_REACH, LEAST_AREA, rim_of
from terrain3d.surface.openings import bends

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_EARTH = 0.85  # slope that smoothed earth never has
_LEAST_BEND = 0.6  # m, as ``land.BEND``, in the direction in which a cell bends least
_KEPT = 0.15  # share that the openings leave of a piece of land
_WALL, _WALL_NEAR, _FALL = 0.75, 3.0, 0.5  # slope of a blurred wall, within so many m of a rim that falls off by m
_RISES = -0.5  # m: beyond a rim from which the surface rises more stands something else
_WALLED, _ALONG = 0.5, 30.0  # share of walls on the rims, in windows of so many m, that makes a house
_LONG = 60.0  # m, that few houses are
_HIGH, _AROUND, _HIGH_AREA = 4.5, 28.0, 40.0  # of shorter ones: m over what is within such a window, on as many m2
_WALLED_SHORT = 0.3  # share of walls


def embankments(z: Singles, ok: Bools, cut: Bools, cell: float) -> Bools:
    """Cells of ``cut`` that are earth, (h, w). z: (h, w) metres, everywhere. ok: cells with evidence. cut: what the
    openings cut."""
    nothing = np.zeros(z.shape, bool)
    if min(z.shape) < 3 or not cut.any():
        return nothing
    slope = np.hypot(*np.gradient(z, cell)).astype(np.float32)
    banks = cut & _joining_land(z, ok & (slope < _EARTH), cut, cell)
    at = rim_of(banks, cell)
    falls = at.falls(z)
    decided = at.known(ok) & (falls > _RISES)
    steep = cv2.dilate(slope, disk(_WALL_NEAR / cell))[at.row, at.column] > _WALL
    rims, walls = nothing.astype(np.float32), nothing.astype(np.float32)
    rims[at.row, at.column], walls[at.row, at.column] = decided, decided & steep & (falls > _FALL)
    size = (round(_ALONG / cell) | 1,) * 2
    banks &= cv2.blur(walls, size) <= _WALLED * cv2.blur(rims, size)
    n, labels, stats, _ = cv2.connectedComponentsWithStats(banks.astype(np.uint8), connectivity=4)
    long = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) * cell >= _LONG
    window = np.ones((round(_AROUND / cell) | 1,) * 2, np.uint8)
    of, high = labels.ravel(), z - cv2.erode(z, window) >= _HIGH
    rim, walled, top = (np.bincount(of, a.ravel(), minlength=n) for a in (rims, walls, high))
    short = (stats[:, cv2.CC_STAT_AREA] * cell**2 >= LEAST_AREA) & (top * cell**2 >= _HIGH_AREA)
    earth = long | (short & (rim > 0) & (walled <= _WALLED_SHORT * rim))
    earth[0] = False
    return earth[labels]


def _joining_land(z: Singles, even: Bools, cut: Bools, cell: float) -> Bools:
    """Cells of even pieces, straight in some direction, of which the openings leave some."""
    even = even & (np.min(list(bends(z, cell, BEND_REACH)), axis=0) < _LEAST_BEND)
    opened = cv2.morphologyEx(even.astype(np.uint8), cv2.MORPH_OPEN, disk(2 / cell))
    n, labels = cv2.connectedComponents(opened, connectivity=4)
    area, kept = (np.bincount(labels[which].ravel(), minlength=n) for which in (slice(None), ~cut))
    land = kept >= _KEPT * area
    land[0] = False
    return land[labels]
