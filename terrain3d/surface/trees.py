"""Tree tops in a canopy height model, and stands of trees with their statistics.

A top is the highest cell within a crown's reach, which grows with the height (Popescu & Wynne 2004), of a slightly
smoothed model, and falls off on all sides, which the corners and ridges of roofs do not. A stand is connected tree
cover whose top height is of one class. The top height of a stand is the mean of its 100 tallest trees a hectare
(Assmann 1970).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.disks import full_disk

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

TOPS_MARGIN = 12.0  # m: reach of the largest crown, and of what smooths the model
LEAST_TREE = 3.0  # m
STAND_CELL = 10.0  # m
HEIGHT_CLASS = 5.0  # m of top height that one stand spans
LEAST_STAND = 1000.0  # m2
_SMOOTH = 0.6  # m
_REACH, _REACH_PER_HEIGHT = 1.0, 0.06  # m, and m per m of height: half the distance to a neighbour
_REACHES = 4  # sizes that are told apart
_FALL, _FALL_SHARE = 0.2, 0.01  # m, and share of the height, by which the model falls on all sides
_FALL_REACH = 1.3  # at so many times the reach
_LEAST_COVER, _CLOSE = 0.3, 3  # share of tree cover of a stand's cells, and cells that are looked at for it
_TALLEST = 100.0  # trees a hectare that make the top height
_APEX = 0.5  # m, 1-sigma of what matching takes off or adds to all tops alike


@dataclass(frozen=True)
class Stand:
    """Statistics of a stand. area: m2; cover: share of it under trees; mean_height of the cover, top_height, metres,
    with their 1-sigma; trees: tops found."""

    area: float
    cover: float
    mean_height: float
    mean_height_sigma: float
    top_height: float
    top_height_sigma: float
    trees: int


def tree_tops(chm: Singles, resolution: float) -> Bools:
    """Cells that are the top of a tree. chm: (h, w) height above ground, metres, NaN for none."""
    height = cv2.GaussianBlur(np.nan_to_num(chm, nan=0.0), (0, 0), max(_SMOOTH / resolution, 0.3))
    tall = (height >= LEAST_TREE) & np.isfinite(chm)
    if not tall.any():
        return tall
    reach = _REACH + _REACH_PER_HEIGHT * height
    limits = np.linspace(_REACH, _REACH + _REACH_PER_HEIGHT * 50.0, _REACHES + 1)
    tops = np.zeros(chm.shape, bool)
    for low, high in pairwise(limits):
        here = tall & (reach >= low) & ((reach < high) | (high == limits[-1]))
        if not here.any():
            continue
        radius = 0.5 * (low + high)
        highest = here & (height >= cv2.dilate(height, full_disk(radius / resolution)))
        tops |= _falling(height, highest, max(round(_FALL_REACH * radius / resolution), 1))
    return tops


def _falling(height: Singles, where: Bools, cells: int) -> Bools:
    """Which of the cells stand over what lies that many cells away in each of eight directions."""
    row, column = np.nonzero(where)
    top = height[row, column]
    fall = _FALL + _FALL_SHARE * top
    keep = np.ones(row.size, bool)
    for angle in np.arange(8) * np.pi / 4:
        r = np.clip(row + round(cells * float(np.sin(angle))), 0, height.shape[0] - 1)
        c = np.clip(column + round(cells * float(np.cos(angle))), 0, height.shape[1] - 1)
        keep &= height[r, c] < top - fall
    out = np.zeros(where.shape, bool)
    out[row[keep], column[keep]] = True
    return out


def stand_labels(cover: Singles, tallest: Singles, tops: NDArray[np.int64], cell: float) -> NDArray[np.int32]:
    """Stand of each coarse cell, 0 for none. cover: (h, w) share of it under trees; tallest: height of its highest top,
    metres, NaN without; tops: number of them."""
    kernel = (_CLOSE, _CLOSE)
    trees = cv2.blur((tops > 0).astype(np.float32), kernel)
    forest = (cv2.blur(cover, kernel) >= _LEAST_COVER) & (trees > 0.2)
    known = np.isfinite(tallest)
    size = (0, 0)
    weight = cv2.GaussianBlur(known.astype(np.float32), size, 2.0)
    height = cv2.GaussianBlur(np.where(known, tallest, 0).astype(np.float32), size, 2.0) / np.maximum(weight, 1e-3)
    classes = np.where(forest, 1 + np.clip(height / HEIGHT_CLASS, 0, 200).astype(np.int32), 0).astype(np.uint8)
    classes = np.where(forest, np.maximum(cv2.medianBlur(classes, 5), 1), 0)
    labels, total = np.zeros(cover.shape, np.int32), 0
    for value in np.unique(classes[classes > 0]):
        n, part = cv2.connectedComponents((classes == value).astype(np.uint8), connectivity=4)
        area = np.bincount(part.ravel(), minlength=n) * cell**2
        order = np.cumsum((area >= LEAST_STAND) & (np.arange(n) > 0))
        number = np.where((area >= LEAST_STAND) & (np.arange(n) > 0), total + order, 0)
        labels += number[part].astype(np.int32)
        total += int(order[-1])
    return labels


def stand_statistics(
    area: float, covered: float, height_sum: float, tops: Singles, top_variance: float, ground_sigma: float,
    correlation: float,
) -> Stand:  # fmt: skip
    """Statistics of one stand.

    covered: m2 under trees; height_sum: their heights times m2. tops: (N,) heights of its trees. top_variance: mean
    variance of single ones. ground_sigma: of the terrain under it, whose errors are alike within ``correlation`` m, so
    that the mean over a stand knows no more than some independent places do.
    """
    places = max(area / (np.pi * correlation**2), 1.0)
    common = ground_sigma / np.sqrt(places)
    mean = height_sum / covered if covered > 0 else float("nan")
    chosen = np.sort(tops)[::-1][: max(round(_TALLEST * area / 1e4), 1)]
    single = top_variance / max(chosen.size, 1)
    return Stand(
        area, covered / area, mean, common, float(chosen.mean()) if chosen.size else float("nan"),
        float(np.sqrt(common**2 + single + _APEX**2)), int(tops.size),
    )  # fmt: skip
