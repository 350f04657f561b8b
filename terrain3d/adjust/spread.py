"""How well ties are spread: what they tell of a correction where there are none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from shapely import contains_xy
from shapely.geometry import Polygon, box

Floats = NDArray[np.float64]
CELLS = 4  # a side, of the grid that shares are counted on


def grid_share(x: Floats, y: Floats, area: Polygon) -> float:
    """Share of the cells of a 4 x 4 grid over ``area`` that hold a tie, 0 if it is empty; cells mostly outside of it do
    not count."""
    if area.is_empty:
        return 0.0
    west, south, east, north = area.bounds
    xs, ys = np.linspace(west, east, CELLS + 1), np.linspace(south, north, CELLS + 1)
    count = np.histogram2d(x, y, bins=(xs, ys))[0]
    whole = (east - west) * (north - south) / CELLS**2
    common = np.array(
        [
            [box(xs[i], ys[j], xs[i + 1], ys[j + 1]).intersection(area).area / whole for j in range(CELLS)]
            for i in range(CELLS)
        ]
    )
    counted = common >= min(0.5, common.max())
    return float((count[counted] > 0).mean())


def reach(ties: Floats, places: Floats) -> float:
    """How far ``places`` (M, 2) lie from the middle of ``ties`` (N, 2), in units of the ties' own spread in that
    direction (Mahalanobis distance, 95th percentile).

    About 2 where ties are everywhere, 7 if they lie in one quarter of the area, large if in a corner or on a line.
    The error of a plane fitted to the ties grows by this factor from their middle to those places. Middle and spread
    are those of the densest three quarters of the ties (concentration steps of Rousseeuw & Van Driessen 1999): the
    few that wrong matches scatter over cloud must not count.
    """
    if len(ties) < 3:
        return float("inf")
    if not len(places):
        return 0.0
    floor = 1e-9 * np.eye(2) * max(float(((places - ties.mean(axis=0)) ** 2).mean()), 1e-9)
    core = ties
    for _ in range(20):
        away = _distance(ties, core, floor)
        before, core = core, ties[np.argsort(away, kind="stable")[: -(-3 * len(ties) // 4)]]
        if len(before) == len(core) and (before == core).all():
            break
    # of a uniform distribution the core has 0.75 of the spread
    return 0.75 * float(np.percentile(_distance(places, core, floor), 95))


def _distance(places: Floats, ties: Floats, floor: Floats) -> Floats:
    away = places - ties.mean(axis=0)
    inverse = np.linalg.inv(np.cov(ties.T) + floor)
    return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away)))


def inside(area: Polygon, x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which places lie in an area; none if it is empty."""
    return np.zeros(len(x), bool) if area.is_empty else np.asarray(contains_xy(area, x, y))
