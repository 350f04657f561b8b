"""Tiles of a pair: anchored to the CRS, so that every run cuts the same place alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from shapely.geometry import Polygon

from terrain3d.image.view import View, ground_sample_distance
from terrain3d.stereo.epipolar import EpipolarFrame, EpipolarTile, epipolar_frame
from terrain3d.stereo.pairs import Pair
from terrain3d.stereo.trend import CoarseSurface

CORE_PX = 768
MARGIN_PX = 64  # SGM paths have settled after this far


@dataclass(frozen=True)
class MatchTask:
    """One tile of a pair to match: the tile with its margins, and the core (first column, row, width, height in the
    tile) whose points are kept."""

    pair: Pair
    tile: EpipolarTile
    core: tuple[int, int, int, int]


def plan_matching(
    views: list[View], pair: Pair, crs: str, surface: CoarseSurface, pixel: float, core_px: int = CORE_PX
) -> list[MatchTask]:
    """Tiles that cover the ground a pair has in common, each on a plane at the mean of its surface."""
    left, right = views[pair.left], views[pair.right]
    frame = epipolar_frame(left, right, crs, float(np.median(surface.trend.values)), pixel)
    corners = np.array(pair.area.envelope.buffer(CORE_PX * pixel / 8).exterior.coords)
    x, y = frame.from_ground(corners[:, 0], corners[:, 1])
    tasks = []
    for j in range(int(np.floor(y.min() / core_px)), int(np.floor(y.max() / core_px)) + 1):
        for i in range(int(np.floor(x.min() / core_px)), int(np.floor(x.max() / core_px)) + 1):
            task = _task(frame, pair, i * core_px, j * core_px, core_px, surface)
            if task is not None:
                tasks.append(task)
    return tasks


def _task(
    frame: EpipolarFrame, pair: Pair, column: int, row: int, core_px: int, surface: CoarseSurface
) -> MatchTask | None:
    area = pair.area.buffer(2 * MARGIN_PX * frame.pixel)
    x = np.array([column, column + core_px, column + core_px, column], float)
    y = np.array([row, row, row + core_px, row + core_px], float)
    square = Polygon(np.column_stack(frame.to_ground(x, y)))
    common = square.intersection(area)
    if common.is_empty or common.area < 1:
        return None
    # only the part of the square that the images cover is matched
    px, py = frame.from_ground(
        *np.array(common.envelope.exterior.coords if common.geom_type != "Polygon" else common.exterior.coords).T
    )
    left, top = max(int(np.floor(px.min())), column), max(int(np.floor(py.min())), row)
    right, bottom = min(int(np.ceil(px.max())), column + core_px), min(int(np.ceil(py.max())), row + core_px)
    if right - left < 8 or bottom - top < 8:
        return None
    centre = frame.to_ground(np.array([(left + right) / 2]), np.array([(top + bottom) / 2]))
    height0 = float(np.round(surface.trend_at(*centre)[0]))
    tile = EpipolarTile(
        frame, left - MARGIN_PX, top - MARGIN_PX, right - left + 2 * MARGIN_PX, bottom - top + 2 * MARGIN_PX, height0
    )
    return MatchTask(pair, tile, (MARGIN_PX, MARGIN_PX, right - left, bottom - top))


def rectified_pixel(views: list[View], pair: Pair, crs: str, height: float) -> float:
    """Pixel of the rectified images: the finer ground sample distance of the two, to half a centimetre."""
    gsd = min(ground_sample_distance(views[k], crs, height) for k in (pair.left, pair.right))
    return round(gsd * 200) / 200
